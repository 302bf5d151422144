//! Lists of jobs: which jobs a list shows, and where its next page begins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{JobId, JobSummary, Timestamp};

/// Largest number of jobs on one page.
pub const MAX_PAGE: usize = 1_000;

/// Which jobs a list shows. A job is shown if it satisfies every condition that is set; the default
/// filter shows all jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// The job is in one of these states. Empty: in any state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<JobState>,
    /// The job runs this task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The job's subtasks go to the workers of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// This tenant owns the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// One of these tenants owns the job. Empty: any tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// The job has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The job has all of these labels, with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The ledger accepted the job before this time, by the ledger's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_before: Option<Timestamp>,
}

impl JobFilter {
    /// Whether the filter shows every job.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a list with this filter shows the job.
    pub fn matches(&self, job: &JobSummary) -> bool {
        fn is(wanted: Option<&String>, found: &str) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        (self.states.is_empty() || self.states.contains(&job.state))
            && is(self.task.as_ref(), &job.task)
            && is(self.queue.as_ref(), &job.queue)
            && is(self.tenant.as_ref(), &job.tenant)
            && (self.tenants.is_empty() || self.tenants.contains(&job.tenant))
            && (self.name.is_none() || self.name == job.name)
            && self.submitted_before.is_none_or(|time| job.submitted_at < time)
            && self.labels.iter().all(|(key, value)| job.labels.get(key) == Some(value))
    }
}

/// The last job of a page: the next page begins behind it. Lists are ordered by the time at which
/// the ledger took the jobs in, the newest first; of two with the same time the larger id comes
/// first. A cursor stays valid whatever is submitted, deleted or expires between two pages.
///
/// Its text is `<Unix milliseconds>-<job id>`; programs should not rely on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobCursor {
    /// When the ledger took the job in, by the ledger's clock.
    pub listed_at: Timestamp,
    /// The job.
    pub job: JobId,
}

impl JsonSchema for JobCursor {
    fn schema_name() -> Cow<'static, str> {
        "JobCursor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where the next page of a list begins. Opaque.",
            "type": "string",
        })
    }
}

impl fmt::Display for JobCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.listed_at, self.job)
    }
}

/// A text that is no [`JobCursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; use the one that came with the page before")]
pub struct InvalidCursor;

impl FromStr for JobCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (listed_at, job) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Self {
            listed_at: Timestamp::from_millis(listed_at.parse().map_err(|_| InvalidCursor)?),
            job: job.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

impl Serialize for JobCursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobCursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A part of a list of jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobPage {
    /// The jobs, newest first. There may be fewer than were asked for, even none, although more
    /// follow: a page also ends when many jobs were looked at that the filter does not show.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins; `None` (null) at the end of the list.
    pub next: Option<JobCursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let job: JobId = "0190a1b2-0000-7000-8000-000000000001".parse().unwrap();
        let cursor = JobCursor { listed_at: Timestamp::from_millis(1_700_000_000_123), job };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let json = serde_json::to_string(&cursor).unwrap();
        assert_eq!(serde_json::from_str::<JobCursor>(&json).unwrap(), cursor);
        for wrong in ["", "-", "5-", "-0190a1b2-0000-7000-8000-000000000001", "x-y", "5-xyz"] {
            assert_eq!(wrong.parse::<JobCursor>(), Err(InvalidCursor), "{wrong:?}");
        }
    }

    #[test]
    fn later_jobs_come_first_and_the_id_decides_between_equal_times() {
        let at = |ms, id: u128| JobCursor {
            listed_at: Timestamp::from_millis(ms),
            job: JobId::from_uuid(uuid::Uuid::from_u128(id)),
        };
        assert!(at(2, 1) > at(1, 9) && at(1, 9) > at(1, 8));
    }
}
