//! Bringing back what was lost: jobs from the journal, and the place in it.

use longshore_protocol::state::JobState;
use longshore_protocol::{Ending, JobId, JournalPlace};
use redis::cmd;

use super::RedisLedger;
use super::call::Call;
use super::jobs::{zadd, zrem};
use super::millis;
use super::reply::{Reply, corrupt, optional_word, parse, word};
use crate::{AdvanceJournalParams, Error, PriorState, RestoreParams, Restored};

impl RedisLedger {
    /// As with `admit`, the job goes on the list of active ones first.
    pub(super) async fn restore_job(&self, params: &RestoreParams) -> Result<Restored, Error> {
        const OPERATION: &str = "restore";
        let RestoreParams { admission, prior } = params;
        prior.check(admission)?;
        let (keys, name) = (self.keys(), admission.job.to_string());
        let call = self.entry_call(OPERATION, admission, &[]);
        let (call, lists) = match prior {
            PriorState::Open { submitted_at, paused } => {
                let state = if *paused { JobState::Paused } else { JobState::Queued };
                let submitted = submitted_at.as_millis();
                let list = zadd(keys.active(), Some("NX"), submitted, &name);
                self.send(OPERATION, &list).await?;
                let off = [zrem(keys.finished(), &name), zrem(keys.expiring(), &name)];
                let call =
                    (0..13).fold(call.arg(state.as_str()).arg(submitted), |call, _| call.arg(""));
                (call, [list].into_iter().chain(off).collect())
            }
            PriorState::Ended(ending) => {
                let finished = ending.finished_at.as_millis();
                let expires = finished + millis(admission.keep_for);
                let lists = vec![
                    zadd(keys.finished(), None, finished, &name),
                    zadd(keys.expiring(), None, expires, &name),
                    zrem(keys.active(), &name),
                ];
                (ended(call, ending), lists)
            }
        };
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "restored" => {
                self.call_all(OPERATION, &lists).await?;
                Ok(Restored::Restored)
            }
            "known" => Ok(Restored::Known),
            "expired" => Ok(Restored::Expired),
            other => Err(reply.unexpected(other)),
        }
    }

    pub(super) async fn missing_jobs(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "missing";
        let keys = self.keys();
        let looks: Vec<_> = jobs
            .iter()
            .map(|job| {
                let mut look = cmd("EXISTS");
                look.arg(keys.job(*job)).arg(keys.deleted(*job));
                look
            })
            .collect();
        let mut missing = Vec::new();
        for (job, found) in jobs.iter().zip(self.call_all(OPERATION, &looks).await?) {
            if word(OPERATION, found)? == "0" {
                missing.push(*job);
            }
        }
        Ok(missing)
    }

    pub(super) async fn read_journal_place(&self) -> Result<Option<JournalPlace>, Error> {
        const OPERATION: &str = "journal_place";
        let mut look = cmd("HMGET");
        look.arg(self.keys().journal()).arg(&["offset", "record"]);
        let look = self.send(OPERATION, &look).await?;
        place(OPERATION, Reply::list(OPERATION, look)?)
    }

    pub(super) async fn advance_in_journal(
        &self,
        params: &AdvanceJournalParams,
    ) -> Result<Option<JournalPlace>, Error> {
        const OPERATION: &str = "advance";
        let AdvanceJournalParams { from, to } = params;
        let believed = from.as_ref().map(|from| (from.offset.to_string(), from.record.as_str()));
        let (offset, record) = believed.unwrap_or_default();
        let call = Call::new(OPERATION, [self.keys().journal()]);
        let call = call.arg(offset).arg(record).arg(to.offset).arg(&to.record);
        place(OPERATION, self.call(&call).await?)
    }
}

fn ended(call: Call, ending: &Ending) -> Call {
    call.arg(ending.state.as_str())
        .arg(ending.submitted_at.as_millis())
        .arg(ending.finished_at.as_millis())
        .arg(ending.started_at.map_or_else(String::new, |at| at.to_string()))
        .arg(ending.done)
        .arg(ending.failed)
        .arg(ending.cancelled)
        .arg(ending.reduce_done)
        .arg(ending.reduce_failed)
        .arg(ending.reduce_cancelled)
        .arg(ending.generation)
        .arg(ending.attempts)
        .arg(ending.busy_ms)
        .arg(ending.lost)
        .arg(ending.error.as_deref().unwrap_or_default())
}

fn place(operation: &'static str, mut reply: Reply) -> Result<Option<JournalPlace>, Error> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (offset, record) = (reply.next()?, reply.next()?);
    let offset = optional_word(operation, offset)?;
    match (offset, optional_word(operation, record)?) {
        (None, None) => Ok(None),
        (Some(offset), Some(record)) => {
            Ok(Some(JournalPlace { offset: parse(operation, &offset)?, record }))
        }
        _ => Err(corrupt(operation, "half a place")),
    }
}
