//! Converts the hash of a job to a [`JobSummary`].

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{Counts, JobId, JobSummary, LeftOut, Timestamp};

use super::listing;
use super::reply::{corrupt, parse};
use crate::Error;

/// The largest count, up to which Lua counts exactly. So sums of counts fit into 64 bits, whatever
/// the hash contains.
pub(super) const MOST: u64 = 1 << 53;

/// The fields of a job's hash. An absent field is 0, empty, or `None`.
pub(super) struct Fields {
    operation: &'static str,
    map: HashMap<String, String>,
}

impl Fields {
    pub(super) fn new(operation: &'static str, map: HashMap<String, String>) -> Self {
        Self { operation, map }
    }

    pub(super) fn optional<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        self.map.get(name).map(|word| parse(self.operation, word)).transpose()
    }

    pub(super) fn number<T: FromStr<Err: Display> + Default>(
        &self,
        name: &str,
    ) -> Result<T, Error> {
        Ok(self.optional(name)?.unwrap_or_default())
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.map.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        Ok(self.optional(name)?.map(Timestamp::from_millis))
    }

    pub(super) fn state(&self) -> Result<JobState, Error> {
        parse(self.operation, self.map.get("state").map_or("", String::as_str))
    }

    /// The counts whose fields begin with `prefix` (empty, or `reduce_`).
    pub(super) fn counts(&self, prefix: &str) -> Result<Counts, Error> {
        let number = |name: &str| {
            let name = format!("{prefix}{name}");
            match self.number(&name)? {
                number if number <= MOST => Ok(number),
                number => Err(corrupt(self.operation, format!("{name} is {number}"))),
            }
        };
        Ok(Counts {
            total: number("total")?,
            waiting: number("waiting")?,
            queued: number("queued")?,
            running: number("running")?,
            retrying: number("retrying")?,
            done: number("done")?,
            failed: number("failed")?,
            cancelled: number("cancelled")?,
        })
    }

    /// Empty if it can't be parsed, since it is for display.
    fn left_out(&self) -> LeftOut {
        let text = self.map.get("left_out").map(String::as_str).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The summary of the job. `next_retry` is the due time of the first retry, or empty.
    pub(super) fn summary(&self, id: JobId, next_retry: &str) -> Result<JobSummary, Error> {
        let next_retry_at = match next_retry {
            "" => None,
            due => Some(Timestamp::from_millis(parse(self.operation, due)?)),
        };
        Ok(JobSummary {
            id,
            state: self.state()?,
            task: self.text("task"),
            queue: self.text("queue"),
            tenant: self.text("tenant"),
            name: self.map.get("name").cloned(),
            labels: listing::labels(self.map.get("labels").map(String::as_str)),
            priority: self.number("priority")?,
            counts: self.counts("")?,
            reduce: self.counts("reduce_")?,
            cursor: self.number("cursor")?,
            queued_chunks: self.number("queued_chunks")?,
            running_chunks: self.number("running_chunks")?,
            generation: self.number("generation")?,
            attempts: self.number("attempts")?,
            busy: Duration::from_millis(self.number("busy_ms")?),
            lost: self.number("lost")?,
            recoveries: self.number("recoveries")?,
            crashes: self.number("crashes")?,
            orphaned: self.number("orphaned")?,
            reissued: self.number("reissued")?,
            speculative_chunks: self.number("speculative_chunks")?,
            fenced: self.number("fenced")?,
            left_out: self.left_out(),
            next_retry_at,
            submitted_at: self.time("submitted_at")?.unwrap_or_default(),
            started_at: self.time("started_at")?,
            finished_at: self.time("finished_at")?,
            deadline_at: self.time("deadline_at")?,
            restored_at: self.time("restored_at")?,
            rate: self.number("rate")?,
            eta: self.optional("eta_ms")?.map(Duration::from_millis),
            error: self.map.get("error").cloned(),
            last_error: self.map.get("last_error").cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_beyond_all_counts_is_corrupt() {
        let map = [("done".to_owned(), u64::MAX.to_string())].into();
        let error = Fields::new("job", map).counts("").expect_err("it can't be");
        assert!(error.to_string().contains("done is 18446744073709551615"), "{error}");
    }
}
