//! The JSON of jobs and recoveries, which other programs read.

use longshore_protocol::document::views_schema;
use longshore_protocol::wire::JobDetails;
use longshore_protocol::{JobPage, JobSummary, Recovery};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::schemas::validator;

const ID: &str = "00000000-0000-0000-0000-000000000007";

/// The JSON of a job without anything that can be absent.
fn job() -> Value {
    json!({
        "id": ID, "state": "running", "task": "t", "queue": "q", "tenant": "default",
        "priority": 5,
        "total": 28, "waiting": 1, "queued": 2, "running": 3, "retrying": 4, "done": 5,
        "failed": 6, "cancelled": 7,
        "generation": 1, "attempts": 12, "busy_ms": 3_500, "lost": 2, "recoveries": 2,
        "crashes": 1, "orphaned": 1, "reissued": 2, "speculative_chunks": 1, "fenced": 1,
        "submitted_at": 1_000, "started_at": 2_000, "finished_at": null, "deadline_at": null,
        "restored_at": null, "rate": 1.5, "eta_ms": 6_000, "error": null, "last_error": "e",
    })
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Checks that what was read from `value` is written as `value`, which the schema accepts.
#[track_caller]
fn is_written_as(read: &impl Serialize, value: &Value) {
    assert_eq!(serde_json::to_value(read).expect("it is JSON"), *value);
    assert!(validator(&views_schema()).is_valid(value), "{value}");
}

#[test]
fn a_job_is_flat_and_leaves_out_what_it_does_not_have() {
    let summary: JobSummary = read(&job());
    assert_eq!((summary.counts.total, summary.counts.imbalance()), (28, 0));
    assert_eq!((summary.busy.as_millis(), summary.reduce.total), (3_500, 0));
    is_written_as(&summary, &job());
    let of_the_engine = JobSummary { cursor: 9, queued_chunks: 9, running_chunks: 9, ..summary };
    is_written_as(&of_the_engine, &job());

    let mut full = job();
    full["name"] = json!("n");
    full["labels"] = json!({"team": "imaging"});
    full["left_out"] = json!({"count": 1, "sample": ["/a"]});
    full["reduce"] = json!({
        "total": 1, "waiting": 1, "queued": 0, "running": 0, "retrying": 0, "done": 0,
        "failed": 0, "cancelled": 0,
    });
    is_written_as(&read::<JobSummary>(&full), &full);
    let page = json!({"jobs": [full, job()], "next": format!("1000-{ID}")});
    is_written_as(&read::<JobPage>(&page), &page);
}

#[test]
fn a_job_in_detail_has_its_recoveries() {
    let recovery = json!({
        "at": 1, "node": "n", "lost": "died", "chunks": 1, "subtasks": 10, "cut": 0,
        "waiting": 1, "again_after_ms": null,
    });
    let told = json!({
        "at": 2, "node": "m", "lost": "died", "how": "signal 9", "chunks": 1, "subtasks": 10,
        "cut": 1, "given_up": [3], "waiting": 0, "again_after_ms": 250,
    });
    let first: Recovery = read(&told);
    assert_eq!(first.again_after.map(|time| time.as_millis()), Some(250));
    let mut details = job();
    details["recovered"] = json!([recovery, told]);
    details["reasons"] = json!([]);
    is_written_as(&read::<JobDetails>(&details), &details);
}
