//! Tests finding a job by its id's beginning or its name, and acting on many jobs.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::TryStreamExt;
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_ledger::{Admission, Admitted, Ledger};
use longshore_producer::{
    BulkAction, BulkOutcome, BulkResult, EmptyFilter, ErrorKind, FindError, JobFilter, JobKey, Jobs,
};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{Gone, StateAfter};
use longshore_protocol::{JobId, Timestamp};

/// More than two pages of a bulk action.
const MANY: u64 = 450;

struct Stage {
    ledger: Arc<MemoryLedger>,
    jobs: Jobs,
}

fn id(number: u64) -> JobId {
    format!("01890a5d-{number:04x}-7000-8000-000000000000").parse().expect("an id")
}

impl Stage {
    fn new() -> Self {
        let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock)));
        Self { jobs: Jobs::new(ledger.clone()), ledger }
    }

    async fn admit(&self, job: JobId, change: impl FnOnce(&mut Admission)) {
        let mut admission = Admission::plain(job, 2);
        change(&mut admission);
        let admitted = self.ledger.admit(&admission).await.expect("memory does not fail");
        assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
    }

    /// Jobs of the task `resize`, of which every third is cancelled, and one other job.
    async fn many(&self) {
        for number in 0..MANY {
            self.admit(id(number), |job| job.task = "resize".into()).await;
            if number % 3 == 0 {
                self.ledger.cancel(id(number)).await.expect("it can be cancelled");
            }
        }
        self.admit(id(0xffff), |job| job.task = "other".into()).await;
    }

    async fn bulk(&self, action: BulkAction, filter: &JobFilter) -> Vec<BulkOutcome> {
        let outcomes = self.jobs.bulk(action, filter).expect("the filter has a condition");
        outcomes.try_collect().await.expect("memory does not fail")
    }
}

fn resize() -> JobFilter {
    JobFilter { task: Some("resize".into()), ..JobFilter::default() }
}

fn with(outcomes: &[BulkOutcome], result: BulkResult) -> u64 {
    outcomes.iter().filter(|outcome| outcome.outcome == result).count() as u64
}

#[tokio::test]
async fn an_action_on_many_jobs_gives_an_outcome_a_job() {
    let stage = Stage::new();
    stage.many().await;
    let paused = stage.bulk(BulkAction::Pause, &resize()).await;
    let ids: HashSet<JobId> = paused.iter().map(|outcome| outcome.id).collect();
    assert_eq!((paused.len() as u64, ids.len() as u64), (MANY, MANY), "each job once");
    assert_eq!(with(&paused, BulkResult::Done), MANY - MANY / 3);
    let skipped = paused.iter().find(|outcome| outcome.id == id(3)).expect("an outcome a job");
    let reason = "a job that is cancelled can't pause";
    assert_eq!(skipped, &BulkOutcome::skipped(id(3), reason));
    let done = paused.iter().find(|outcome| outcome.id == id(4)).expect("an outcome a job");
    assert_eq!(done, &BulkOutcome::done(id(4), StateAfter::State(JobState::Paused)));
    let other = stage.jobs.job(id(0xffff)).summary().await.expect("it is there");
    assert_eq!(other.state, JobState::Queued, "the filter does not show it");

    let filter = JobFilter { states: vec![JobState::Paused], ..JobFilter::default() };
    let resumed = stage.bulk(BulkAction::Resume, &filter).await;
    assert_eq!(with(&resumed, BulkResult::Done), MANY - MANY / 3, "jobs leave the list meanwhile");
    assert_eq!(stage.bulk(BulkAction::Resume, &filter).await, [], "none is left");
    let retried = stage.bulk(BulkAction::Retry, &resize()).await;
    assert_eq!(with(&retried, BulkResult::Skipped), MANY, "none of their subtasks failed");
    stage.bulk(BulkAction::Cancel, &resize()).await;
    let deleted = stage.bulk(BulkAction::Delete, &resize()).await;
    assert_eq!(with(&deleted, BulkResult::Done), MANY);
    assert_eq!(deleted[0].state, Some(StateAfter::Gone(Gone::Deleted)));
    assert_eq!(stage.bulk(BulkAction::Delete, &resize()).await, []);
}

#[tokio::test]
async fn a_plan_counts_and_changes_nothing() {
    let stage = Stage::new();
    stage.many().await;
    let plan = stage.jobs.bulk_plan(BulkAction::Cancel, &resize(), 7).expect("a condition").await;
    let plan = plan.expect("memory does not fail");
    assert_eq!((plan.matched, plan.allowed, plan.first.len()), (MANY, MANY, 7));
    let plan = stage.jobs.bulk_plan(BulkAction::Pause, &resize(), 7).expect("a condition").await;
    let plan = plan.expect("memory does not fail");
    assert_eq!((plan.matched, plan.allowed), (MANY, MANY - MANY / 3));
    assert!(plan.first.iter().all(|job| !job.state.is_terminal()), "only those are shown");
    let paused = JobFilter { states: vec![JobState::Paused], ..JobFilter::default() };
    assert_eq!(stage.jobs.list(&paused, None, 9).await.expect("a list").jobs, []);
}

#[tokio::test]
async fn an_empty_filter_is_refused_and_age_is_a_condition() {
    let stage = Stage::new();
    stage.admit(id(1), |_| {}).await;
    let all = JobFilter::default();
    assert_eq!(stage.jobs.bulk(BulkAction::Delete, &all).err(), Some(EmptyFilter));
    assert_eq!(stage.jobs.bulk_plan(BulkAction::Delete, &all, 1).err(), Some(EmptyFilter));
    let submitted = stage.jobs.job(id(1)).summary().await.expect("it is there").submitted_at;
    let before = |ms: u64| JobFilter {
        submitted_before: Some(Timestamp::from_millis(submitted.as_millis() + ms)),
        ..JobFilter::default()
    };
    assert_eq!(stage.bulk(BulkAction::Pause, &before(0)).await, [], "not older than itself");
    assert_eq!(stage.bulk(BulkAction::Pause, &before(1)).await.len(), 1);
}

#[tokio::test]
async fn a_job_is_found_by_the_beginning_of_its_id_and_by_its_name() {
    let stage = Stage::new();
    for number in 1..=7 {
        let name = if number == 1 { "nightly" } else { "hourly" };
        stage.admit(id(number), |job| job.name = Some(name.into())).await;
    }
    let key = |text: &str| JobKey::Id(text.parse().expect("a prefix"));
    let name = |text: &str| JobKey::Name(text.into());
    assert_eq!(stage.jobs.find(&key("01890a5d-0003")).await.ok(), Some(id(3)));
    assert_eq!(stage.jobs.find(&name("nightly")).await.ok(), Some(id(1)));
    let unknown: JobId = "f1890a5d-0001-7000-8000-000000000000".parse().expect("an id");
    assert_eq!(stage.jobs.find(&unknown.into()).await.ok(), Some(unknown), "not looked up");

    let error = stage.jobs.find(&key("f1890a5d")).await.expect_err("no job has such an id");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "there is no job with an id that begins with `f1890a5d`");
    let error = stage.jobs.find(&name("weekly")).await.expect_err("no job has the name");
    assert_eq!(error.to_string(), "there is no job with the name `weekly`");
    let error = stage.jobs.find(&key("01890a5d-000")).await.expect_err("seven begin so");
    assert!(matches!(&error, FindError::Ambiguous { candidates, has_more: true, .. }
        if candidates.len() == 5));
    let text = error.to_string();
    let begin = "there are more than 5 jobs with an id that begins with `01890a5d-000`: \
                 01890a5d-0001-7000-8000-000000000000 (queued, `nightly`), ";
    assert!(text.starts_with(begin) && text.ends_with(", …; write more of the id"), "{text}");
    let error = stage.jobs.find(&name("hourly")).await.expect_err("six have the name");
    assert!(error.to_string().ends_with("; write the id of one of them"), "{error}");
}
