//! Admitted, rejected and postponed jobs: what is kept of them, on which list, and how long.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    Blocked, BlockedScope, Counts, LeftOut, ReasonCode, Stall, Timestamp, Token,
};

use super::harness::{Harness, NEVER, admission, await_that, check_audit, job_id, node, ok_lines};
use crate::Ledger;
use crate::op::{
    Admission, Admitted, BlockedParams, Claim, ClaimParams, MAX_INDICES, OpenParams,
    ReportBlockedParams, ReportStallParams, ResultsParams, RetryParams, StoredDocument,
    SweepParams,
};

cases! {
    a_new_job_is_queued_and_all_waiting
    the_same_content_is_known_and_other_content_a_conflict
    chunks_are_opened_together_with_a_new_job
    a_job_of_more_indices_than_a_bitmap_has_is_refused
    a_rejected_job_is_shown_and_can_be_admitted_later
    the_reason_why_a_job_is_postponed_is_kept_and_changes_nothing
    a_stall_is_shown_until_the_worker_goes_on
    what_blocks_a_queue_is_kept_until_it_is_reported_otherwise
    the_files_that_a_job_leaves_out_are_kept_with_it
    a_reduce_has_counts_of_its_own
    a_document_is_returned_as_admitted
    an_ended_job_expires_after_its_time
    jobs_move_from_the_active_to_the_finished_list
}

pub(super) async fn a_new_job_is_queued_and_all_waiting(ledger: Arc<dyn Ledger>) {
    let before = ledger.now().await.unwrap();
    let harness = Harness::with(&ledger, 7, |a| a.deadline = Some(Duration::from_secs(60))).await;
    let summary = harness.summary().await;
    assert_eq!(summary.id, harness.job);
    assert_eq!(summary.state, JobState::Queued);
    let words = [&summary.task, &summary.queue, &summary.tenant];
    assert_eq!(words, ["noop", "default", "tenant"]);
    assert_eq!(summary.priority, 5);
    assert_eq!(summary.counts, Counts::new(7));
    assert_eq!(summary.reduce, Counts::default());
    assert_eq!((summary.cursor, summary.queued_chunks, summary.running_chunks), (0, 0, 0));
    assert_eq!((summary.generation, summary.attempts, summary.lost), (0, 0, 0));
    assert_eq!(summary.busy, Duration::ZERO);
    assert!(summary.submitted_at >= before);
    assert_eq!(
        (summary.started_at, summary.finished_at, summary.next_retry_at),
        (None, None, None)
    );
    let deadline = summary.submitted_at.plus(Duration::from_secs(60));
    assert_eq!(summary.deadline_at, Some(deadline));
    assert_eq!((summary.rate, summary.eta, summary.error), (0.0, None, None));
    assert_eq!(ledger.job(job_id(2)).await.unwrap(), None);
    assert_eq!(ledger.audit(job_id(2)).await.unwrap(), None);
    harness.check().await;
}

pub(super) async fn the_same_content_is_known_and_other_content_a_conflict(
    ledger: Arc<dyn Ledger>,
) {
    let harness = Harness::of(&ledger, 3).await;
    harness.open(1, 1).await;
    let before = harness.summary().await;
    assert_eq!(ledger.admit(&admission(1, 3)).await.unwrap(), Admitted::Known);
    let mut other = admission(2, 3);
    other.job = job_id(1);
    assert_eq!(ledger.admit(&other).await.unwrap(), Admitted::Conflict);
    assert_eq!(harness.summary().await, before, "nothing changed");
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(ledger.admit(&admission(1, 3)).await.unwrap(), Admitted::Known);
    assert_eq!(ledger.admit(&other).await.unwrap(), Admitted::Conflict);
    assert_eq!(harness.summary().await.state, JobState::Cancelled);
    harness.check().await;
}

/// The chunks are as if they were opened right afterwards; none of a job that is known.
pub(super) async fn chunks_are_opened_together_with_a_new_job(ledger: Arc<dyn Ledger>) {
    let open = OpenParams::new(3, 4, Duration::ZERO);
    let wanted = Admission { max_parallel: Some(2), open: Some(open), ..admission(1, 9) };
    let admitted = ledger.admit(&wanted).await.unwrap();
    let Admitted::Accepted { opened, .. } = admitted else { panic!("{admitted:?}") };
    let ranges: Vec<_> = opened.iter().map(|message| (message.from, message.to)).collect();
    assert_eq!(ranges, [(0, 4), (4, 8)], "no more than `max_parallel` allows");
    assert_eq!(ledger.admit(&wanted).await.unwrap(), Admitted::Known);

    let summary = ledger.job(job_id(1)).await.unwrap().expect("it is there");
    assert_eq!((summary.cursor, summary.queued_chunks), (8, 2));
    assert_eq!((summary.counts.waiting, summary.counts.queued), (1, 8));
    let sweep =
        ledger.sweep(job_id(1), &SweepParams::new(9, NEVER)).await.unwrap().expect("it is there");
    assert_eq!(sweep.publish, opened, "they were not claimed in time");
    let (token, node) = (Token::from_bytes([1; 16]), node("n"));
    let first = opened[0];
    let claim =
        ledger.claim(job_id(1), &ClaimParams::of(&first, token, node.clone())).await.unwrap();
    assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
    check_audit(&ledger, job_id(1)).await;
}

pub(super) async fn a_job_of_more_indices_than_a_bitmap_has_is_refused(ledger: Arc<dyn Ledger>) {
    assert_eq!(MAX_INDICES, 4_294_967_296);
    // Halving 2^31 results takes 2^31 - 1 nodes.
    for (n, total, fan_in, fits) in [
        (1, MAX_INDICES, None, true),
        (2, MAX_INDICES + 1, None, false),
        (3, 1 << 31, Some(2), true),
        (4, (1 << 31) + 1, Some(2), false),
        (5, 1 << 40, Some(1_000), false),
        // It is too large whether its id is known or not.
        (1, MAX_INDICES + 1, None, false),
    ] {
        let wanted = Admission { fan_in, ..admission(n, total) };
        let as_expected = match ledger.admit(&wanted).await.unwrap() {
            Admitted::Accepted { .. } => fits,
            Admitted::TooLarge { most: MAX_INDICES } => !fits,
            _ => false,
        };
        assert!(as_expected, "{total} {fan_in:?}");
    }
    assert_eq!(ledger.active_jobs().await.unwrap(), [job_id(1), job_id(3)]);
    assert_eq!(ledger.job(job_id(2)).await.unwrap(), None);
}

pub(super) async fn a_rejected_job_is_shown_and_can_be_admitted_later(ledger: Arc<dyn Ledger>) {
    ledger.reject(job_id(1), "split: empty").await.unwrap();
    ledger.reject(job_id(1), "another reason").await.unwrap();
    let shown = ledger.job(job_id(1)).await.unwrap().expect("it is shown");
    assert_eq!(shown.state, JobState::Rejected);
    assert_eq!(shown.error.as_deref(), Some("split: empty"));
    assert_eq!((shown.counts, shown.reduce), (Counts::default(), Counts::default()));
    assert_eq!((shown.task.as_str(), shown.queue.as_str(), shown.tenant.as_str()), ("", "", ""));
    assert_eq!(shown.finished_at, Some(shown.submitted_at));
    assert_eq!(ledger.document(job_id(1)).await.unwrap(), None);
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), [job_id(1)]);
    check_audit(&ledger, job_id(1)).await;

    let harness = Harness::of(&ledger, 3).await;
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.error), (JobState::Queued, None));
    assert_eq!((summary.counts, summary.finished_at), (Counts::new(3), None));
    assert_eq!(ledger.active_jobs().await.unwrap(), [job_id(1)]);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    ledger.reject(job_id(1), "too late").await.unwrap();
    assert_eq!(harness.summary().await.state, JobState::Queued);
    harness.check().await;
}

pub(super) async fn a_reduce_has_counts_of_its_own(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 10, |a| a.fan_in = Some(4)).await;
    let summary = harness.summary().await;
    assert_eq!((summary.counts, summary.reduce), (Counts::new(10), Counts::new(4)));
    harness.check().await;
}

pub(super) async fn a_document_is_returned_as_admitted(ledger: Arc<dyn Ledger>) {
    let manifest = "{\"files\":[\"a\\u0000b\"]}".to_owned();
    let mut wanted = admission(1, 3);
    wanted.document = "{\"task\":\"wörter\"}".into();
    wanted.manifest = Some(manifest);
    ledger.admit(&wanted).await.unwrap();
    let expected = StoredDocument {
        digest: wanted.digest.clone(),
        document: wanted.document.clone(),
        manifest: wanted.manifest.clone(),
    };
    assert_eq!(ledger.document(job_id(1)).await.unwrap(), Some(expected));
    ledger.admit(&admission(2, 3)).await.unwrap();
    assert_eq!(ledger.document(job_id(2)).await.unwrap().expect("admitted").manifest, None);
    assert_eq!(ledger.document(job_id(3)).await.unwrap(), None);
    check_audit(&ledger, job_id(1)).await;
}

pub(super) async fn an_ended_job_expires_after_its_time(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 1, |a| a.keep_for = Duration::ZERO).await;
    let held = harness.take(1).await;
    harness.check().await;
    let state = harness.commit(held.chunk, 0, vec![ok_lines(0, 1)]).await;
    assert_eq!(state, JobState::Succeeded);
    await_that("the job is forgotten", async || ledger.job(harness.job).await.unwrap().is_none())
        .await;
    assert_eq!(ledger.document(harness.job).await.unwrap(), None);
    assert_eq!(ledger.results(harness.job, &ResultsParams::new(0..1, 99)).await.unwrap().runs, []);
    ledger.archive(harness.job).await.unwrap();
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    let again = ledger.admit(&admission(1, 2)).await.unwrap();
    assert!(matches!(again, Admitted::Accepted { .. }), "the id is free again: {again:?}");
    harness.check().await;
}

pub(super) async fn jobs_move_from_the_active_to_the_finished_list(ledger: Arc<dyn Ledger>) {
    for n in 1..=3 {
        ledger.admit(&admission(n, 2)).await.unwrap();
    }
    let [one, two, three] = [1, 2, 3].map(job_id);
    assert_eq!(ledger.active_jobs().await.unwrap(), [one, two, three]);
    ledger.archive(one).await.unwrap();
    assert_eq!(ledger.active_jobs().await.unwrap(), [one, two, three], "it has not ended");
    ledger.fail(one, "deadline").await.unwrap();
    ledger.cancel(two).await.unwrap();
    assert_eq!(ledger.active_jobs().await.unwrap(), [one, two, three], "not archived yet");
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    ledger.archive(one).await.unwrap();
    ledger.archive(two).await.unwrap();
    ledger.archive(two).await.unwrap();
    ledger.archive(job_id(4)).await.unwrap();
    assert_eq!(ledger.active_jobs().await.unwrap(), [three]);
    assert_eq!(ledger.finished_jobs(9).await.unwrap().len(), 2);
    let ended = |job| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.job(job).await.unwrap().expect("kept").finished_at }
    };
    if ended(one).await < ended(two).await {
        assert_eq!(ledger.finished_jobs(9).await.unwrap(), [two, one], "newest first");
        assert_eq!(ledger.finished_jobs(1).await.unwrap(), [two]);
    }
    ledger.retry(one, &RetryParams::all()).await.unwrap();
    assert_eq!(ledger.active_jobs().await.unwrap(), [one, three], "re-opened, in its old place");
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), [two]);
    for job in [one, two, three] {
        check_audit(&ledger, job).await;
    }
}

pub(super) async fn the_reason_why_a_job_is_postponed_is_kept_and_changes_nothing(
    ledger: Arc<dyn Ledger>,
) {
    let job = job_id(1);
    assert_eq!(ledger.postponed(job).await.unwrap(), None);
    ledger.postpone(job, "the bucket is away").await.unwrap();
    ledger.postpone(job, "the bucket is away still").await.unwrap();
    assert_eq!(ledger.postponed(job).await.unwrap().as_deref(), Some("the bucket is away still"));
    assert_eq!(ledger.postponed(job_id(2)).await.unwrap(), None);
    assert_eq!(ledger.job(job).await.unwrap(), None, "it is not known for that");
    assert!(ledger.active_jobs().await.unwrap().is_empty());
    assert!(matches!(ledger.admit(&admission(1, 3)).await.unwrap(), Admitted::Accepted { .. }));
}

pub(super) async fn a_stall_is_shown_until_the_worker_goes_on(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 2).await;
    let told = async || {
        let stalls = ledger.stalls(harness.job).await.unwrap();
        let now = ledger.now().await.unwrap();
        assert!(stalls.iter().all(|stall| now.since(stall.at) < Duration::from_secs(20)));
        let text = |stall: Stall| format!("{}: {}", stall.node, stall.reason);
        stalls.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(told().await, [""; 0]);
    let report = async |name: &str, reason: Option<&str>| {
        let params = ReportStallParams::new(node(name), reason.map(str::to_owned));
        ledger.report_stall(harness.job, &params).await.unwrap();
    };
    report("b", None).await;
    report("b", Some("the bucket is away")).await;
    report("a", Some("no space")).await;
    report("b", Some("the bucket is away still")).await;
    assert_eq!(told().await, ["a: no space", "b: the bucket is away still"]);
    assert_eq!(ledger.stalls(job_id(2)).await.unwrap(), []);
    report("a", None).await;
    assert_eq!(told().await, ["b: the bucket is away still"]);
    harness.check().await;
}

pub(super) async fn the_files_that_a_job_leaves_out_are_kept_with_it(ledger: Arc<dyn Ledger>) {
    let left_out = LeftOut { count: 7, sample: vec!["/a b".into(), "/\u{fffd}".into()] };
    let open = Some(OpenParams::new(1, 2, NEVER));
    let wanted = Admission { left_out: left_out.clone(), open, ..admission(1, 4) };
    let Admitted::Accepted { opened, .. } = ledger.admit(&wanted).await.unwrap() else {
        panic!("it is new");
    };
    assert_eq!(opened.len(), 1);
    assert_eq!(ledger.job(job_id(1)).await.unwrap().expect("there").left_out, left_out);
    ledger.admit(&admission(2, 4)).await.unwrap();
    let other = ledger.job(job_id(2)).await.unwrap().expect("there");
    assert_eq!(other.left_out, LeftOut::default());
    check_audit(&ledger, job_id(1)).await;
}

pub(super) async fn what_blocks_a_queue_is_kept_until_it_is_reported_otherwise(
    ledger: Arc<dyn Ledger>,
) {
    let scopes =
        [BlockedScope::Queue, BlockedScope::Task("t".into()), BlockedScope::Job(job_id(1))];
    let told = async |queue: &str| {
        let told = ledger.blocked(&BlockedParams::new(queue, scopes.clone())).await.unwrap();
        told.into_iter().map(|it| it.map(|it| it.reason)).collect::<Vec<_>>()
    };
    let report = async |replaces, changes: &[(usize, Option<ReasonCode>)]| {
        let since = Timestamp::from_millis(7);
        let change = |(scope, reason): &(usize, Option<ReasonCode>)| {
            let blocked = reason.map(|reason| Blocked { reason, since });
            (scopes[*scope].clone(), blocked)
        };
        let changes: Vec<_> = changes.iter().map(change).collect();
        let params = ReportBlockedParams { replaces, ..ReportBlockedParams::new("gpu", changes) };
        ledger.report_blocked(&params).await.unwrap();
    };
    let (busy, most) = (Some(ReasonCode::SlotsBusy), Some(ReasonCode::MaxParallel));
    assert_eq!(told("gpu").await, [None, None, None]);
    report(true, &[(0, busy)]).await;
    report(false, &[(1, busy), (2, most), (0, None)]).await;
    assert_eq!(told("gpu").await, [None, busy, most]);
    assert_eq!(told("cpu").await, [None, None, None], "it is a report about one queue");
    report(true, &[(0, busy), (1, None)]).await;
    assert_eq!(told("gpu").await, [busy, None, None]);
    report(true, &[]).await;
    assert_eq!(told("gpu").await, [None, None, None]);
}
