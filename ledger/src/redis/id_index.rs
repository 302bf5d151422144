//! The index of ids, by which jobs are found whose ids begin with a prefix.
//!
//! It is one sorted set in which all scores are equal, so that Redis sorts it by name and finds a
//! prefix in logarithmic time.
//!
//! The set is kept with the index of lists: a job is put in before it is admitted, and taken out
//! after its keys have gone. In between it may name a job that is not there.

use longshore_protocol::{JobId, JobIdPrefix};
use redis::{Cmd, cmd};

use super::RedisLedger;
use super::jobs::{zadd, zrem};
use super::reply::{Reply, parse, word};
use crate::Error;

/// How many names one round trip reads.
const BATCH: usize = 100;

/// The score of every name.
const SCORE: u64 = 0;

/// Sorts behind every character of an id.
const AFTER_ALL: char = '~';

impl RedisLedger {
    /// The command that puts a job into the index.
    pub(super) fn index_id(&self, name: &str) -> Cmd {
        zadd(self.keys().job_ids(), None, SCORE, name)
    }

    /// The command that takes a job out of it.
    pub(super) fn unindex_id(&self, name: &str) -> Cmd {
        zrem(self.keys().job_ids(), name)
    }

    pub(super) async fn read_ids(
        &self,
        prefix: &JobIdPrefix,
        limit: usize,
    ) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "find_ids";
        let mut found = Vec::new();
        let mut lowest = format!("[{prefix}");
        while found.len() < limit {
            let mut range = cmd("ZRANGEBYLEX");
            range.arg(self.keys().job_ids()).arg(&lowest).arg(format!("({prefix}{AFTER_ALL}"));
            range.arg("LIMIT").arg(0).arg(BATCH);
            let names = Reply::list(OPERATION, self.send(OPERATION, &range).await?)?.words()?;
            let Some(last) = names.last() else { break };
            lowest = format!("({last}");
            let is_last = names.len() < BATCH;
            let ids = names.iter().map(|name| parse(OPERATION, name));
            let ids: Vec<JobId> = ids.collect::<Result<_, _>>()?;
            found.extend(self.present(OPERATION, ids).await?);
            if is_last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Those of these jobs that are there.
    async fn present(&self, operation: &'static str, ids: Vec<JobId>) -> Result<Vec<JobId>, Error> {
        let exists = |id: &JobId| {
            let mut exists = cmd("EXISTS");
            exists.arg(self.keys().job(*id));
            exists
        };
        let commands: Vec<Cmd> = ids.iter().map(exists).collect();
        let answers = self.call_all(operation, &commands).await?;
        let mut present = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            if parse::<u64>(operation, &word(operation, answer)?)? > 0 {
                present.push(id);
            }
        }
        Ok(present)
    }

    pub(super) async fn read_unique_prefixes(&self, jobs: &[JobId]) -> Result<Vec<usize>, Error> {
        const OPERATION: &str = "unique_prefixes";
        let key = self.keys().job_ids();
        let neighbour = |(job, command): (&JobId, &str)| {
            let (mut next, from) = (cmd(command), format!("({job}"));
            let end = if command == "ZRANGEBYLEX" { "+" } else { "-" };
            next.arg(&key).arg(from).arg(end).arg("LIMIT").arg(0).arg(1);
            next
        };
        let both = ["ZRANGEBYLEX", "ZREVRANGEBYLEX"];
        let pairs = jobs.iter().flat_map(|job| both.map(|command| (job, command)));
        let commands: Vec<Cmd> = pairs.map(neighbour).collect();
        let mut answers = self.call_all(OPERATION, &commands).await?.into_iter();
        let mut lengths = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut length = JobIdPrefix::SHORTEST;
            for answer in answers.by_ref().take(both.len()) {
                for name in Reply::list(OPERATION, answer)?.words()? {
                    let other = parse(OPERATION, &name)?;
                    length = length.max(JobIdPrefix::length_to_tell(*job, other));
                }
            }
            lengths.push(length);
        }
        Ok(lengths)
    }
}
