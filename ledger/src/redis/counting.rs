//! Counts jobs in the index: by state, and those that have not ended by queue and task.

use std::collections::BTreeMap;

use longshore_protocol::JobFilter;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;
use redis::{Cmd, cmd};

use super::RedisLedger;
use super::listing::Attributes;
use super::reply::{Reply, optional_word, parse, word};
use crate::Error;
use crate::op::OpenQueue;

/// How many jobs one round trip looks at.
const BATCH: usize = 1_000;

impl RedisLedger {
    /// The sets of a filter's conditions are intersected by the server, which a cluster can't do:
    /// they lie in different slots.
    pub(super) async fn count_by_state(
        &self,
        filter: &JobFilter,
    ) -> Result<Option<JobCounts>, Error> {
        const OPERATION: &str = "count_jobs";
        let keys = self.keys();
        let sets = Attributes::of_filter(filter).sets(keys);
        let is_filtered = !sets.is_empty() || !filter.tenants.is_empty();
        let can_count = filter.submitted_before.is_none();
        if !can_count || is_filtered && self.transport().is_cluster() {
            return Ok(None);
        }
        // A job has one tenant, so the numbers of several tenants can be added.
        let tenants = match filter.tenants.is_empty() {
            true => vec![None],
            false => filter.tenants.iter().map(|it| Some(keys.jobs_with("tenant", it))).collect(),
        };
        let states = [
            keys.open_jobs(),
            keys.ended_jobs(JobState::Succeeded),
            keys.ended_jobs(JobState::Failed),
            keys.ended_jobs(JobState::Cancelled),
            keys.ended_jobs(JobState::Rejected),
        ];
        let mut commands: Vec<Cmd> = Vec::new();
        for state in &states {
            for tenant in &tenants {
                let all: Vec<&String> = [state].into_iter().chain(&sets).chain(tenant).collect();
                let mut count = cmd("ZINTERCARD");
                count.arg(all.len()).arg(&all);
                if let [set] = all.as_slice() {
                    count = cmd("ZCARD");
                    count.arg(set);
                }
                commands.push(count);
            }
        }
        let mut answers = self.call_all(OPERATION, &commands).await?.into_iter();
        let mut next = || -> Result<u64, Error> {
            let mut sum = 0;
            for answer in answers.by_ref().take(tenants.len()) {
                sum += parse::<u64>(OPERATION, &word(OPERATION, answer)?)?;
            }
            Ok(sum)
        };
        Ok(Some(JobCounts {
            open: next()?,
            succeeded: next()?,
            failed: next()?,
            cancelled: next()?,
            rejected: next()?,
        }))
    }

    pub(super) async fn read_open_queues(&self) -> Result<Vec<OpenQueue>, Error> {
        const OPERATION: &str = "open_queues";
        let mut open = cmd("ZRANGE");
        open.arg(self.keys().open_jobs()).arg(0).arg(-1);
        let jobs = Reply::list(OPERATION, self.send(OPERATION, &open).await?)?.words()?;
        let mut queues: BTreeMap<String, OpenQueue> = BTreeMap::new();
        for batch in jobs.chunks(BATCH) {
            let mut look = cmd("HMGET");
            look.arg(self.keys().job_attributes()).arg(batch);
            let mut found = Reply::list(OPERATION, self.send(OPERATION, &look).await?)?;
            for _ in batch {
                let Some(text) = optional_word(OPERATION, found.next()?)? else { continue };
                let attributes: Attributes = serde_json::from_str(&text).unwrap_or_default();
                let Some(queue) = attributes.queue else { continue };
                let counted = queues.entry(queue.clone()).or_insert_with(|| OpenQueue::new(queue));
                counted.jobs += 1;
                counted.tasks.extend(attributes.task);
            }
        }
        Ok(queues.into_values().collect())
    }
}
