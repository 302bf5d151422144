//! Restores lost jobs from the journal, and reads and moves the ledger's journal position.

use longshore_protocol::{JobId, JournalPosition};
use redis::cmd;

use super::RedisLedger;
use super::call::Call;
use super::jobs::{zadd, zrem};
use super::listing::Attributes;
use super::reply::{Reply, corrupt, optional_word, parse, word};
use super::{job_fields, millis};
use crate::{AdvanceJournalParams, Error, PriorState, RestoreParams, Restored};

impl RedisLedger {
    /// As with `admit`, the job goes on the list of active ones first.
    pub(super) async fn restore_job(&self, params: &RestoreParams) -> Result<Restored, Error> {
        const OPERATION: &str = "restore";
        let RestoreParams { admission, prior } = params;
        prior.check(admission)?;
        let (keys, name) = (self.keys(), admission.job.to_string());
        let mut call = self.admission_call(OPERATION, admission, &[]);
        call.extend(job_fields::of_restored(admission, prior));
        let lists: Vec<_> = match prior {
            PriorState::Open { submitted_at, .. } => {
                let list = zadd(keys.active(), Some("NX"), submitted_at.as_millis(), &name);
                self.send(OPERATION, &list).await?;
                let off = [zrem(keys.finished(), &name), zrem(keys.expiring(), &name)];
                [list].into_iter().chain(off).collect()
            }
            PriorState::Ended(ending) => {
                let finished = ending.finished_at.as_millis();
                let expires = finished + millis(admission.keep_for);
                vec![
                    zadd(keys.finished(), None, finished, &name),
                    zadd(keys.expiring(), None, expires, &name),
                    zrem(keys.active(), &name),
                ]
            }
        };
        let submitted_at = match prior {
            PriorState::Open { submitted_at, .. } => *submitted_at,
            PriorState::Ended(ending) => ending.submitted_at,
        };
        let index = self.index(admission.job, &Attributes::of(admission), submitted_at.as_millis());
        self.call_all(OPERATION, &index).await?;
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "restored" => {
                self.call_all(OPERATION, &lists).await?;
                Box::pin(self.index_archived(OPERATION, admission.job)).await?;
                Ok(Restored::Restored)
            }
            answer @ ("known" | "expired") => {
                Box::pin(self.index_archived(OPERATION, admission.job)).await?;
                Ok(if answer == "known" { Restored::Known } else { Restored::Expired })
            }
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

    pub(super) async fn read_journal_place(&self) -> Result<Option<JournalPosition>, Error> {
        const OPERATION: &str = "journal_position";
        let mut look = cmd("HMGET");
        look.arg(self.keys().journal()).arg(&["offset", "record"]);
        let look = self.send(OPERATION, &look).await?;
        place(OPERATION, Reply::list(OPERATION, look)?)
    }

    pub(super) async fn advance_in_journal(
        &self,
        params: &AdvanceJournalParams,
    ) -> Result<Option<JournalPosition>, Error> {
        const OPERATION: &str = "advance_journal";
        let AdvanceJournalParams { from, to } = params;
        let believed = from.as_ref().map(|from| (from.offset.to_string(), from.record.as_str()));
        let (offset, record) = believed.unwrap_or_default();
        let call = Call::new(OPERATION, [self.keys().journal()]);
        let call = call.arg(offset).arg(record).arg(to.offset).arg(&to.record);
        place(OPERATION, self.call(&call).await?)
    }
}

fn place(operation: &'static str, mut reply: Reply) -> Result<Option<JournalPosition>, Error> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (offset, record) = (reply.next()?, reply.next()?);
    let offset = optional_word(operation, offset)?;
    match (offset, optional_word(operation, record)?) {
        (None, None) => Ok(None),
        (Some(offset), Some(record)) => {
            Ok(Some(JournalPosition { offset: parse(operation, &offset)?, record }))
        }
        _ => Err(corrupt(operation, "half a place")),
    }
}
