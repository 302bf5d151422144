//! Lists of jobs: filters, pages, and what leaves them.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;
use longshore_protocol::{JobCursor, JobFilter, JobId};

use super::harness::{NEVER, admission, await_that, job_id};
use crate::Ledger;
use crate::op::{Admission, Admitted, ListParams, OpenQueue, RetryParams};

cases! {
    a_list_shows_what_its_filter_asks_for
    pages_follow_one_another_whatever_comes_and_goes
    what_is_gone_is_on_no_list
    a_reopened_job_is_listed_by_its_new_state
    a_refused_document_changes_no_list
    jobs_are_counted_by_state_and_by_queue
}

fn labelled(n: u64, task: &str, queue: &str, labels: &[(&str, &str)]) -> Admission {
    let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Admission { task: task.into(), queue: queue.into(), labels, ..admission(n, 2) }
}

/// All jobs that the filter shows, by pages of two; each page but the last names the next.
async fn shown(ledger: &Arc<dyn Ledger>, filter: &JobFilter) -> Vec<JobId> {
    let (mut jobs, mut cursor) = (Vec::new(), None);
    loop {
        let page = ledger
            .list(&ListParams { cursor, ..ListParams::new(filter.clone(), 2) })
            .await
            .unwrap();
        assert!(page.jobs.len() <= 2, "{page:?}");
        jobs.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next;
        if cursor.is_none() {
            return jobs;
        }
    }
}

#[track_caller]
fn has(mut found: Vec<JobId>, expected: &[u64], what: &str) {
    found.sort();
    assert_eq!(found, expected.iter().copied().map(job_id).collect::<Vec<_>>(), "{what}");
}

pub(super) async fn a_list_shows_what_its_filter_asks_for(ledger: Arc<dyn Ledger>) {
    let [eu, us] = [&[("zone", "eu"), ("kind", "a=b")][..], &[("zone", "us")]];
    let jobs = [
        labelled(1, "noop", "default", eu),
        labelled(2, "noop", "gpu", us),
        labelled(3, "sleep", "default", eu),
        Admission { name: Some("nightly".into()), ..labelled(4, "sleep", "gpu", &[]) },
        Admission { tenant: "other".into(), ..labelled(5, "noop", "default", eu) },
    ];
    for job in &jobs {
        let admitted = ledger.admit(job).await.unwrap();
        assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
    }
    ledger.reject(job_id(6), "split: empty").await.unwrap();
    ledger.pause(job_id(2)).await.unwrap();
    ledger.fail(job_id(3), "deadline").await.unwrap();
    ledger.archive(job_id(3)).await.unwrap();
    ledger.cancel(job_id(4)).await.unwrap();

    let all = JobFilter::default();
    has(shown(&ledger, &all).await, &[1, 2, 3, 4, 5, 6], "all");
    let task = |task: &str| JobFilter { task: Some(task.into()), ..all.clone() };
    has(shown(&ledger, &task("noop")).await, &[1, 2, 5], "of a task");
    has(shown(&ledger, &task("nothing")).await, &[], "of a task that no job runs");
    let queue = JobFilter { queue: Some("gpu".into()), ..all.clone() };
    has(shown(&ledger, &queue).await, &[2, 4], "of a queue");
    let tenant = JobFilter { tenant: Some("other".into()), ..all.clone() };
    has(shown(&ledger, &tenant).await, &[5], "of a tenant");
    let tenants = |names: &[&str]| JobFilter {
        tenants: names.iter().map(|name| (*name).into()).collect(),
        ..all.clone()
    };
    let both = tenants(&["other", "tenant"]);
    has(shown(&ledger, &both).await, &[1, 2, 3, 4, 5], "of either tenant, not the rejected one");
    has(shown(&ledger, &tenants(&["nobody", "other"])).await, &[5], "of a tenant that has jobs");
    let paused = JobFilter { states: vec![JobState::Paused], ..both };
    has(shown(&ledger, &paused).await, &[2], "paused, of either tenant");
    let name = JobFilter { name: Some("nightly".into()), ..all.clone() };
    has(shown(&ledger, &name).await, &[4], "of a name");
    let with = |labels: &[(&str, &str)]| JobFilter {
        labels: labelled(0, "", "", labels).labels,
        ..all.clone()
    };
    has(shown(&ledger, &with(&[("zone", "eu")])).await, &[1, 3, 5], "with a label");
    has(shown(&ledger, &with(&[("zone", "us"), ("kind", "a=b")])).await, &[], "with both");
    has(shown(&ledger, &with(eu)).await, &[1, 3, 5], "with both labels");
    let states = |states: &[JobState]| JobFilter { states: states.to_vec(), ..all.clone() };
    has(shown(&ledger, &states(&[JobState::Queued])).await, &[1, 5], "queued");
    has(shown(&ledger, &states(&[JobState::Failed])).await, &[3], "failed");
    has(shown(&ledger, &states(&[JobState::Cancelled])).await, &[4], "before it is archived");
    has(shown(&ledger, &states(&[JobState::Rejected])).await, &[6], "rejected");
    let open_or_failed = states(&[JobState::Paused, JobState::Failed]);
    has(shown(&ledger, &open_or_failed).await, &[2, 3], "in either state");
    let several = JobFilter { queue: Some("default".into()), ..task("noop") };
    has(shown(&ledger, &several).await, &[1, 5], "of a task in a queue");
    let several = JobFilter { states: vec![JobState::Failed], ..with(&[("zone", "eu")]) };
    has(shown(&ledger, &several).await, &[3], "failed, with a label");
}

pub(super) async fn pages_follow_one_another_whatever_comes_and_goes(ledger: Arc<dyn Ledger>) {
    for n in 1..=7 {
        ledger.admit(&admission(n, 2)).await.unwrap();
    }
    let all = JobFilter::default();
    let first = ledger.list(&ListParams::new(all.clone(), 3)).await.unwrap();
    let newest_first: Vec<JobId> = first.jobs.iter().map(|job| job.id).collect();
    let times: Vec<_> = first.jobs.iter().map(|job| job.submitted_at).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    // What comes in now is newer; what goes now was on this page, and on the next.
    ledger.admit(&admission(8, 2)).await.unwrap();
    let rest: Vec<u64> = (1..=7).filter(|n| !newest_first.contains(&job_id(*n))).collect();
    for gone in [newest_first[2], job_id(rest[3])] {
        ledger.cancel(gone).await.unwrap();
        ledger.delete(gone).await.unwrap();
    }
    let cursor: JobCursor = first.next.expect("more follow");
    let cursor: JobCursor = cursor.to_string().parse().expect("a cursor survives as text");
    let second =
        ledger.list(&ListParams { cursor: Some(cursor), ..ListParams::new(all, 9) }).await.unwrap();
    assert_eq!(second.next, None);
    let ids: Vec<JobId> = second.jobs.iter().map(|job| job.id).collect();
    has(ids, &rest[..3], "the second page goes on behind the first");
}

pub(super) async fn what_is_gone_is_on_no_list(ledger: Arc<dyn Ledger>) {
    let short = Admission { keep_for: Duration::ZERO, ..labelled(1, "noop", "gpu", &[("a", "b")]) };
    ledger.admit(&short).await.unwrap();
    ledger.admit(&Admission { keep_for: NEVER, ..labelled(2, "noop", "gpu", &[]) }).await.unwrap();
    ledger.cancel(job_id(1)).await.unwrap();
    ledger.cancel(job_id(2)).await.unwrap();
    await_that("the job expires", async || ledger.job(job_id(1)).await.unwrap().is_none()).await;
    let all = JobFilter::default();
    has(shown(&ledger, &all).await, &[2], "what expired is not shown");
    ledger.archive(job_id(1)).await.unwrap();
    ledger.archive(job_id(2)).await.unwrap();
    has(shown(&ledger, &all).await, &[2], "what ended is");
    ledger.delete(job_id(2)).await.unwrap();
    for filter in [
        JobFilter { queue: Some("gpu".into()), ..all.clone() },
        JobFilter { states: vec![JobState::Cancelled], ..all.clone() },
        JobFilter { labels: [("a".into(), "b".into())].into(), ..all.clone() },
        all,
    ] {
        has(shown(&ledger, &filter).await, &[], &format!("{filter:?}"));
    }
}

pub(super) async fn a_reopened_job_is_listed_by_its_new_state(ledger: Arc<dyn Ledger>) {
    let job = job_id(1);
    ledger.admit(&admission(1, 2)).await.unwrap();
    ledger.fail(job, "deadline").await.unwrap();
    ledger.archive(job).await.unwrap();
    let of = |state: JobState| JobFilter { states: vec![state], ..JobFilter::default() };
    has(shown(&ledger, &of(JobState::Failed)).await, &[1], "failed");
    let state = ledger.retry(job, &RetryParams::all()).await.unwrap();
    has(shown(&ledger, &of(JobState::Failed)).await, &[], "not any more");
    has(shown(&ledger, &of(state)).await, &[1], "re-opened");
    ledger.cancel(job).await.unwrap();
    ledger.archive(job).await.unwrap();
    has(shown(&ledger, &of(JobState::Cancelled)).await, &[1], "ended otherwise");
    has(shown(&ledger, &of(JobState::Failed)).await, &[], "and not as before");
    let refused = ledger.retry(job, &RetryParams::all()).await;
    assert!(refused.is_err(), "{refused:?}");
    has(shown(&ledger, &of(JobState::Cancelled)).await, &[1], "a refused retry changes nothing");
}

pub(super) async fn a_refused_document_changes_no_list(ledger: Arc<dyn Ledger>) {
    ledger.reject(job_id(1), "split: empty").await.unwrap();
    let first = labelled(1, "noop", "default", &[("zone", "eu")]);
    ledger.admit(&first).await.unwrap();
    let with = |value: &str| JobFilter {
        labels: [("zone".into(), value.into())].into(),
        ..JobFilter::default()
    };
    has(shown(&ledger, &with("eu")).await, &[1], "the rejected id was admitted");
    let mut other = labelled(2, "sleep", "gpu", &[("zone", "us")]);
    other.job = job_id(1);
    assert_eq!(ledger.admit(&other).await.unwrap(), Admitted::Conflict);
    has(shown(&ledger, &with("us")).await, &[], "a conflict");
    has(shown(&ledger, &with("eu")).await, &[1], "with what is there");
    ledger.cancel(job_id(1)).await.unwrap();
    ledger.archive(job_id(1)).await.unwrap();
    assert_eq!(ledger.admit(&first).await.unwrap(), Admitted::Known);
    let queued = JobFilter { states: vec![JobState::Queued], ..JobFilter::default() };
    has(shown(&ledger, &queued).await, &[], "the same document again");
    ledger.delete(job_id(1)).await.unwrap();
    has(shown(&ledger, &with("eu")).await, &[], "deleted");
}

pub(super) async fn jobs_are_counted_by_state_and_by_queue(ledger: Arc<dyn Ledger>) {
    let jobs = [
        labelled(1, "noop", "default", &[("zone", "eu")]),
        labelled(2, "noop", "gpu", &[]),
        labelled(3, "sleep", "default", &[("zone", "eu")]),
        labelled(4, "sleep", "gpu", &[]),
        Admission { tenant: "other".into(), ..labelled(5, "noop", "gpu", &[]) },
    ];
    for job in &jobs {
        ledger.admit(job).await.unwrap();
    }
    ledger.reject(job_id(6), "split: empty").await.unwrap();
    ledger.fail(job_id(3), "deadline").await.unwrap();
    ledger.cancel(job_id(4)).await.unwrap();
    for n in [3, 4] {
        ledger.archive(job_id(n)).await.unwrap();
    }
    let all = JobFilter::default();
    let counts = |open, failed, cancelled, rejected| {
        Some(JobCounts { open, succeeded: 0, failed, cancelled, rejected })
    };
    assert_eq!(ledger.count_jobs(&all).await.unwrap(), counts(3, 1, 1, 1));
    let states = JobFilter { states: vec![JobState::Failed], ..all.clone() };
    assert_eq!(ledger.count_jobs(&states).await.unwrap(), counts(3, 1, 1, 1), "its states");
    let aged = JobFilter { submitted_before: Some(Default::default()), ..all.clone() };
    assert_eq!(ledger.count_jobs(&aged).await.unwrap(), None);

    let queues = ledger.open_queues().await.unwrap();
    let of = |queue: &OpenQueue| {
        let tasks = queue.tasks.iter().cloned().collect::<Vec<_>>().join(" ");
        (queue.queue.clone(), queue.jobs, tasks)
    };
    let expected = [("default".into(), 1, "noop".into()), ("gpu".into(), 2, "noop".into())];
    assert_eq!(queues.iter().map(of).collect::<Vec<_>>(), expected);

    // A cluster can't count the jobs of a filter.
    let task = JobFilter { task: Some("noop".into()), ..all.clone() };
    let Some(found) = ledger.count_jobs(&task).await.unwrap() else { return };
    assert_eq!(Some(found), counts(3, 0, 0, 0));
    let both = JobFilter { tenants: vec!["other".into(), "tenant".into()], ..task };
    assert_eq!(ledger.count_jobs(&both).await.unwrap(), counts(3, 0, 0, 0));
    let other = JobFilter { tenants: vec!["other".into()], ..all.clone() };
    assert_eq!(ledger.count_jobs(&other).await.unwrap(), counts(1, 0, 0, 0));
    let several = JobFilter {
        queue: Some("default".into()),
        tenant: Some("tenant".into()),
        labels: jobs[0].labels.clone(),
        ..all
    };
    assert_eq!(ledger.count_jobs(&several).await.unwrap(), counts(1, 1, 0, 0));
}
