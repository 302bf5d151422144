//! Pause, resume, cancel, fail, retry, delete and archive, with the job's move between lists.

use longshore_protocol::JobId;
use longshore_protocol::state::{IllegalTransition, JobEvent, JobState};
use redis::{Value, cmd};

use super::RedisLedger;
use super::call::Call;
use super::jobs::{clock_millis, hget, zadd, zrem};
use super::millis;
use super::reply::{Reply, corrupt, optional_word, parse, word};
use crate::op::MAX_RETRY_INDICES;
use crate::{CANCEL_KEPT, Cancelled, ControlError, Error, RetryParams};

/// How many expired jobs one `archive` takes off the list: bounds a call that is made once a job.
const MOST_EXPIRED: usize = 100;

impl RedisLedger {
    pub(super) async fn pause_job(&self, job: JobId) -> Result<JobState, ControlError> {
        let call = Call::new("pause", [self.keys().job(job)]);
        self.control(job, JobEvent::Pause, call).await
    }

    pub(super) async fn resume_job(&self, job: JobId) -> Result<JobState, ControlError> {
        let keys = self.keys();
        let call = Call::new("resume", [keys.job(job), keys.chunks(job), keys.due(job)]);
        self.control(job, JobEvent::Resume, call).await
    }

    pub(super) async fn cancel_job(&self, job: JobId) -> Result<Cancelled, ControlError> {
        let keys = self.keys();
        let beside = [keys.deleted(job), keys.cancel(job)];
        let call = Call::new("cancel", keys.all_of_job(job).into_iter().chain(beside));
        let call = call.arg(keys.events()).arg(job.to_string()).arg(millis(CANCEL_KEPT));
        let reply = self.call(&call).await?;
        if reply.first() == Some(b"remembered") {
            return Ok(Cancelled::BeforeAdmission);
        }
        outcome(JobEvent::Cancel, reply).map(|_| Cancelled::Ended)
    }

    pub(super) async fn fail_job(&self, job: JobId, error: &str) -> Result<JobState, ControlError> {
        let call = Call::new("fail", self.keys().all_of_job(job));
        let call = call.arg(self.keys().events()).arg(job.to_string()).arg(error);
        outcome(JobEvent::Fail, self.call(&call).await?)
    }

    async fn control(
        &self,
        job: JobId,
        event: JobEvent,
        call: Call,
    ) -> Result<JobState, ControlError> {
        let call = call.arg(self.keys().events()).arg(job.to_string());
        outcome(event, self.call(&call).await?)
    }

    /// The job goes on the active list before it is re-opened and, should an `archive` have crossed
    /// it, after.
    pub(super) async fn retry_job(
        &self,
        job: JobId,
        params: &RetryParams,
    ) -> Result<JobState, ControlError> {
        const OPERATION: &str = "retry";
        let indices = params.indices.as_deref();
        let keys = self.keys();
        let name = job.to_string();
        let mut look = cmd("HMGET");
        look.arg(keys.job(job)).arg("state").arg("submitted_at");
        let mut look = Reply::list(OPERATION, self.send(OPERATION, &look).await?)?;
        let state = optional_word(OPERATION, look.next()?)?;
        let state: Option<JobState> = state.map(|word| parse(OPERATION, &word)).transpose()?;
        let had_ended = state.is_some_and(JobState::may_be_reopened);
        let submitted: u64 = match optional_word(OPERATION, look.next()?)? {
            Some(submitted) => parse(OPERATION, &submitted)?,
            None => 0,
        };
        let list = zadd(keys.active(), Some("NX"), submitted, &name);
        let mut was_archived = false;
        if had_ended {
            let at = self.listed_at(OPERATION, job).await?.unwrap_or(submitted);
            self.call_all(OPERATION, &self.index_reopened(job, at)).await?;
            was_archived = word(OPERATION, self.send(OPERATION, &list).await?)? == "1";
        }
        let retried = self.call(&self.retry_call(job, indices)).await?;
        let retried = outcome(JobEvent::Retry, retried).map_err(|error| match (error, indices) {
            (ControlError::BadIndices(text), Some(indices)) if text.is_empty() => {
                ControlError::BadIndices(bad_list(indices.len()))
            }
            (error, _) => error,
        });
        match &retried {
            Ok(_) if had_ended => {
                let lists = [list, zrem(keys.finished(), &name), zrem(keys.expiring(), &name)];
                self.call_all(OPERATION, &lists).await?;
            }
            Err(_) if was_archived => self.archive_job(job).await?,
            Err(_) if had_ended => Box::pin(self.index_archived(OPERATION, job)).await?,
            _ => {}
        }
        retried
    }

    fn retry_call(&self, job: JobId, indices: Option<&[u64]>) -> Call {
        let mut call = Call::new("retry", self.keys().all_of_job(job))
            .arg(self.keys().events())
            .arg(job.to_string());
        match indices {
            None => call.push("all"),
            Some(indices) if indices.is_empty() || indices.len() > MAX_RETRY_INDICES => {
                call.push("unlisted");
            }
            Some(indices) => {
                call.push("these");
                for index in indices {
                    call.push(index);
                }
            }
        }
        call
    }

    pub(super) async fn delete_job(&self, job: JobId) -> Result<(), ControlError> {
        const OPERATION: &str = "delete";
        let keys = self.keys().all_of_job(job).into_iter().chain([self.keys().deleted(job)]);
        let call = Call::new(OPERATION, keys);
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "deleted" => Ok(self.take_off_lists(OPERATION, job).await?),
            "not_ended" => Err(ControlError::NotEnded(reply.parse()?)),
            "absent" => Err(ControlError::NotFound),
            other => Err(reply.unexpected(other).into()),
        }
    }

    async fn take_off_lists(&self, operation: &'static str, job: JobId) -> Result<(), Error> {
        let (keys, name) = (self.keys(), job.to_string());
        let lists = [keys.active(), keys.finished(), keys.expiring()];
        let lists: Vec<_> = lists.into_iter().map(|list| zrem(list, &name)).collect();
        self.call_all(operation, &lists).await?;
        Box::pin(self.index_archived(operation, job)).await
    }

    pub(super) async fn archive_job(&self, job: JobId) -> Result<(), Error> {
        const OPERATION: &str = "archive";
        Box::pin(self.index_archived(OPERATION, job)).await?;
        if self.transport().is_cluster() {
            self.archive_in_cluster(OPERATION, job).await?;
            let expired = self.expired(OPERATION).await?;
            return self.drop_expired(OPERATION, &expired).await;
        }
        let keys = self.keys();
        let own = [keys.job(job), keys.active(), keys.finished(), keys.expiring()];
        let call = Call::new(OPERATION, own).arg(job.to_string()).arg(MOST_EXPIRED);
        let expired = self.call(&call).await?.words()?;
        self.drop_expired(OPERATION, &expired).await
    }

    /// The state is looked at again after the job has left the active list: a `retry` may have
    /// re-opened it meanwhile.
    async fn archive_in_cluster(&self, operation: &'static str, job: JobId) -> Result<(), Error> {
        let (keys, name) = (self.keys(), job.to_string());
        let mut look = cmd("HMGET");
        look.arg(keys.job(job));
        look.arg(&["state", "finished_at", "keep_for_ms", "submitted_at"]);
        let mut look = Reply::list(operation, self.send(operation, &look).await?)?;
        match optional_word(operation, look.next()?)? {
            None => {
                self.take_off_lists(operation, job).await?;
                self.relist(operation, job).await?;
            }
            Some(state) if parse::<JobState>(operation, &state)?.is_terminal() => {
                let finished: u64 = look.parse()?;
                let keep_for = optional_word(operation, look.next()?)?;
                let mut moves = vec![zadd(keys.finished(), None, finished, &name)];
                // A rejected job has no time of its own; its place on the list was made when it was
                // rejected.
                if let Some(keep_for) = keep_for {
                    let expires = finished + parse::<u64>(operation, &keep_for)?;
                    moves.push(zadd(keys.expiring(), None, expires, &name));
                }
                moves.push(zrem(keys.active(), &name));
                moves.push(hget(keys.job(job), "state"));
                let mut answers = self.call_all(operation, &moves).await?;
                let again = optional_word(operation, answers.pop().unwrap_or(Value::Nil))?;
                let again = again.map(|state| parse::<JobState>(operation, &state)).transpose()?;
                if again.is_some_and(|state| !state.is_terminal()) {
                    let submitted: u64 = look.parse()?;
                    let back = [
                        zadd(keys.active(), Some("NX"), submitted, &name),
                        zrem(keys.finished(), &name),
                        zrem(keys.expiring(), &name),
                    ];
                    self.call_all(operation, &back).await?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The job may have come in (again) since it was looked for: then it goes back on the list.
    async fn relist(&self, operation: &'static str, job: JobId) -> Result<(), Error> {
        let (keys, name) = (self.keys(), job.to_string());
        let mut look = cmd("HMGET");
        look.arg(keys.job(job)).arg(&["state", "submitted_at"]);
        let mut look = Reply::list(operation, self.send(operation, &look).await?)?;
        let Some(state) = optional_word(operation, look.next()?)? else { return Ok(()) };
        if !parse::<JobState>(operation, &state)?.is_terminal() {
            let back = zadd(keys.active(), Some("NX"), look.parse()?, &name);
            self.send(operation, &back).await?;
        }
        Ok(())
    }

    /// Jobs that need not be kept any longer.
    async fn expired(&self, operation: &'static str) -> Result<Vec<String>, Error> {
        let now = self.transport().run_anywhere(&cmd("TIME")).await;
        let now = now.map_err(|failure| self.error(operation, &failure))?;
        let now = self.ledger_clock().agreed(clock_millis(operation, now)?);
        let mut expired = cmd("ZRANGEBYSCORE");
        expired.arg(self.keys().expiring()).arg("-inf").arg(now);
        expired.arg("LIMIT").arg(0).arg(MOST_EXPIRED);
        let expired = self.send(operation, &expired).await?;
        Reply::list(operation, expired)?.words()
    }

    /// Takes those of them off the lists whose keys have really expired.
    async fn drop_expired(&self, operation: &'static str, names: &[String]) -> Result<(), Error> {
        let keys = self.keys();
        let mut looks = Vec::new();
        for name in names {
            let mut look = cmd("EXISTS");
            look.arg(keys.job(parse(operation, name)?));
            looks.push(look);
        }
        let answers = self.call_all(operation, &looks).await?;
        let (mut lists, mut gone) = (Vec::new(), Vec::new());
        for (name, exists) in names.iter().zip(answers) {
            if word(operation, exists)? == "0" {
                lists.push(zrem(keys.finished(), name));
                lists.push(zrem(keys.expiring(), name));
                gone.push(name.clone());
            }
        }
        self.call_all(operation, &lists).await?;
        self.unindex(operation, &gone).await
    }
}

fn outcome(event: JobEvent, mut reply: Reply) -> Result<JobState, ControlError> {
    match reply.word()?.as_str() {
        "now" => Ok(reply.parse()?),
        "absent" => Err(ControlError::NotFound),
        "illegal" => Err(IllegalTransition { state: reply.parse()?, event }.into()),
        // Only the caller knows how long the list was.
        "unlisted" => Err(ControlError::BadIndices(String::new())),
        "not_failed" => {
            Err(ControlError::BadIndices(format!("subtask {} has not failed", reply.word()?)))
        }
        other => Err(corrupt(event.as_str(), format!("`{other}`")).into()),
    }
}

fn bad_list(length: usize) -> String {
    match length {
        0 => "no subtasks named".to_owned(),
        _ => format!("{length} subtasks named; at most {MAX_RETRY_INDICES}"),
    }
}
