//! The client on the memory broker and ledger; the tests play the scheduler and the worker.

mod nodes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, pin_mut};
use longshore_broker::Broker;
use longshore_broker::memory::MemoryBroker;
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_ledger::{
    Admission, Claim, ClaimParams, Commit, CommitParams, Committed, Ledger, OpenParams, PriorState,
    RestoreParams, Restored,
};
use longshore_producer::{Cancelled, Client, Error, Job, JobDocument, NoValue, SubmitError};
use longshore_protocol::document::Split;
use longshore_protocol::state::JobState;
use longshore_protocol::{JournalEnding, NodeId, OutcomeRun, Token};
use serde_json::json;

const SOON: Duration = Duration::from_secs(5);

struct Stage {
    broker: Arc<MemoryBroker>,
    ledger: Arc<MemoryLedger>,
    client: Client,
}

impl Stage {
    fn new() -> Self {
        let broker = Arc::new(MemoryBroker::new());
        let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock)));
        let client = Client::new(broker.clone(), ledger.clone());
        Self { broker, ledger, client }
    }

    /// Takes the next document from the queue and admits it with `total` subtasks, or rejects it.
    async fn decide(&self, verdict: Result<u64, &str>) -> JobDocument {
        let mut jobs = self.broker.subscribe(&longshore_broker::Queue::Jobs, 1).await;
        let delivery = jobs.next().await.expect("the broker is open");
        let document = JobDocument::parse(&delivery.body).expect("clients publish valid documents");
        let job = document.id.expect("clients choose an id");
        assert_eq!(delivery.message_id, Some(job.to_string()));
        match verdict {
            Ok(total) => {
                let admission = admission(&document, total);
                self.ledger.admit(&admission).await.expect("memory does not fail");
            }
            Err(error) => self.ledger.reject(job, error).await.expect("memory does not fail"),
        }
        delivery.settle.ack().await;
        document
    }

    async fn submit(&self, document: &JobDocument, total: u64) -> Job {
        let (job, _) = tokio::join!(self.client.submit(document), self.decide(Ok(total)));
        job.expect("it is admitted")
    }

    /// Opens, claims and settles one chunk of up to `size` subtasks with these runs.
    async fn settle(&self, job: &Job, size: u64, runs: impl FnOnce(u64, u64) -> Vec<OutcomeRun>) {
        let open = OpenParams::new(1, size, SOON);
        let opened = self.ledger.open(job.id(), &open).await.expect("memory does not fail");
        let chunk = opened.first().expect("there is a chunk to open");
        let token = Token::from_bytes([7; 16]);
        let node = NodeId::new("stage");
        let claim = self.ledger.claim(job.id(), &ClaimParams::of(chunk, token, node.clone())).await;
        assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
        let runs = runs(chunk.from, chunk.to);
        let commit = Commit::new(chunk.from, runs, Duration::from_millis(1));
        let committed = self
            .ledger
            .commit(job.id(), &CommitParams::new(chunk.chunk, token, commit.clone()))
            .await;
        assert!(matches!(committed, Ok(Committed::Settled { .. })), "{committed:?}");
    }
}

fn admission(document: &JobDocument, total: u64) -> Admission {
    Admission {
        digest: document.digest(),
        document: document.to_json(),
        task: document.task.clone(),
        queue: document.queue.clone(),
        tenant: document.tenant.clone(),
        priority: document.priority,
        fan_in: document.reduce.as_ref().map(|reduce| reduce.fan_in),
        keep_for: document.keep_for,
        ..Admission::plain(document.id.expect("clients choose an id"), total)
    }
}

/// Successful runs in which the result of each subtask is its index.
fn indices(from: u64, to: u64) -> Vec<OutcomeRun> {
    let lines: String = (from..to).map(|index| format!("{index}\n")).collect();
    let run = OutcomeRun::Success { count: to - from, results: Some(lines.into()) };
    longshore_protocol::split_results(from, vec![run])
}

fn document(mut fields: serde_json::Value) -> JobDocument {
    fields["task"] = "t".into();
    if fields.get("split").is_none() {
        fields["split"] = json!({"by": "range", "start": 0, "end": 1000});
    }
    JobDocument::parse(fields.to_string().as_bytes()).expect("it is valid")
}

async fn results(job: &Job) -> Vec<(u64, String)> {
    let results = job.results().map_ok(|(index, value)| (index, value.get().to_owned()));
    results.try_collect().await.expect("results can be read")
}

#[tokio::test]
async fn a_submission_returns_once_the_ledger_shows_the_job() {
    let stage = Stage::new();
    let job = stage.submit(&document(json!({})), 1000).await;
    let summary = job.summary().await.expect("it is there");
    assert_eq!((summary.state, summary.counts.total), (JobState::Queued, 1000));
    assert_eq!(stage.client.jobs().recent(9).await.expect("a list"), [summary]);
}

#[tokio::test]
async fn the_same_document_again_is_the_same_job_and_other_content_is_a_conflict() {
    let stage = Stage::new();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let first = stage.submit(&document(json!({"id": id})), 1000).await;
    let again = stage.client.submit(&document(json!({"id": id}))).await.expect("it is known");
    assert_eq!(first.id(), again.id());
    let other = stage.client.submit(&document(json!({"id": id, "priority": 9}))).await;
    let error = other.expect_err("it is another job");
    assert_eq!(
        error.to_string(),
        format!("job {id} exists already, with other content; choose another id or leave it out")
    );
}

#[tokio::test]
async fn a_rejection_has_a_reason_and_the_corrected_document_is_accepted_under_the_same_id() {
    let stage = Stage::new();
    let document = document(json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057"}));
    let rejection = stage.decide(Err("split.files: no file matches `/x`"));
    let (rejected, _) = tokio::join!(stage.client.submit(&document), rejection);
    let error = rejected.expect_err("it is rejected").to_string();
    assert!(error.ends_with("was rejected: split.files: no file matches `/x`"), "{error}");
    let job = stage.submit(&document, 1000).await;
    assert_eq!(job.summary().await.expect("it is there").state, JobState::Queued);
}

#[tokio::test(start_paused = true)]
async fn without_a_scheduler_the_error_says_so() {
    let stage = Stage::new();
    let error =
        stage.client.submit(&document(json!({}))).await.expect_err("no scheduler admits it");
    assert!(matches!(error, SubmitError::NotAccepted { .. }));
    let text = error.to_string();
    let missing = "was published but not accepted within 30s: no scheduler takes jobs; \
                   start one with `longshore scheduler`, or look at its log";
    assert!(text.ends_with(missing), "{text}");
}

#[tokio::test]
async fn relative_globs_are_made_absolute_before_the_submission() {
    let stage = Stage::new();
    let split = json!({"by": "files", "files": ["src/*.rs", "/x", "s3://b/k"]});
    let published = document(json!({ "split": split }));
    stage.client.publish(&published).await.expect("memory takes it");
    let travelled = stage.decide(Ok(1)).await;
    let Split::Files { files } = travelled.split else { panic!("{:?}", travelled.split) };
    let here = std::env::current_dir().expect("there is one");
    assert_eq!(files, [format!("{}/src/*.rs", here.display()), "/x".into(), "s3://b/k".into()]);
}

#[tokio::test]
async fn results_come_in_index_order_without_those_that_failed() {
    let stage = Stage::new();
    let job = stage.submit(&document(json!({})), 1000).await;
    stage.settle(&job, 600, indices).await;
    assert_eq!(results(&job).await.len(), 600);
    stage
        .settle(&job, 100, |from, to| {
            let failed = (from..to).map(|_| OutcomeRun::Failed { error: "no".into() });
            failed.collect()
        })
        .await;
    stage.settle(&job, 300, indices).await;
    let end = job.wait().await.expect("it has ended");
    assert_eq!((end.state, end.counts.done, end.counts.failed), (JobState::Failed, 900, 100));
    let expected: Vec<(u64, String)> =
        (0..600).chain(700..1000).map(|index| (index, index.to_string())).collect();
    assert_eq!(results(&job).await, expected);
    let errors: Vec<_> = job.errors().try_collect().await.expect("errors can be read");
    let failed: Vec<u64> = errors.iter().map(|entry| entry.index).collect();
    assert_eq!(failed, (600..700).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_outcome_has_state_and_results_before_and_after_the_end() {
    let stage = Stage::new();
    let job = stage.submit(&document(json!({})), 20).await;
    let outcome = async || {
        let (end, results) = job.outcome().await.expect("it ends");
        let results: Vec<_> = results.try_collect().await.expect("they can be read");
        (end.state, results.into_iter().map(|(index, _)| index).collect::<Vec<_>>())
    };
    let expected = (JobState::Succeeded, (0..20).collect::<Vec<_>>());
    // The client has to wait before the end, so that it gets the hint.
    let later = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stage.settle(&job, 20, indices).await;
    };
    let (early, ()) = tokio::join!(outcome(), later);
    assert_eq!(early, expected);
    assert_eq!(outcome().await, expected);
}

#[tokio::test]
async fn results_in_files_are_read() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("0.jsonl");
    std::fs::write(&file, "\"a\"\n\"b\"\n\"c\"\n").expect("written");
    let job = stage.submit(&document(json!({})), 4).await;
    let open = OpenParams::new(1, 4, SOON);
    let opened = stage.ledger.open(job.id(), &open).await.expect("memory does not fail");
    let (token, node) = (Token::from_bytes([1; 16]), NodeId::new("stage"));
    let chunk = opened[0].chunk;
    stage
        .ledger
        .claim(job.id(), &ClaimParams::new(chunk, opened[0].epoch, token, node.clone()))
        .await
        .expect("granted");
    let lines = format!("@file://{}\n", file.display());
    let runs = vec![OutcomeRun::Success { count: 3, results: Some(lines.into()) }];
    let commit = Commit::new(0, runs, Duration::ZERO);
    stage
        .ledger
        .commit(job.id(), &CommitParams::new(chunk, token, commit.clone()))
        .await
        .expect("settled");
    let found = results(&job).await;
    let expected = [(0, "\"a\"".to_owned()), (1, "\"b\"".to_owned()), (2, "\"c\"".to_owned())];
    assert_eq!(found, expected);
    std::fs::write(&file, "\"a\"\n").expect("written");
    let cut: Result<Vec<_>, Error> = job.results().try_collect().await;
    let error = cut.expect_err("two lines are gone").to_string();
    assert!(error.ends_with("2 results before 4 are missing"), "{error}");
}

#[tokio::test]
async fn the_reduced_value_is_that_of_the_root() {
    let stage = Stage::new();
    let reduce = json!({"reduce": {"task": "sum", "fan_in": 2}});
    let job = stage.submit(&document(reduce), 3).await;
    let early = job.value().await.expect_err("it is not there yet");
    let queued = NoValue::Unfinished(JobState::Queued);
    assert!(matches!(early, Error::NoValue { reason, .. } if reason == queued), "{early}");
    // Three leaves, then two nodes, then the root; the result of each is its index.
    for size in [3, 2, 1] {
        stage.settle(&job, size, indices).await;
    }
    assert_eq!(job.wait().await.expect("it has ended").state, JobState::Succeeded);
    assert_eq!(job.value().await.expect("it is there").get(), "5");
    assert_eq!(results(&job).await.len(), 3, "reduce nodes are no subtasks");
}

#[tokio::test]
async fn progress_reports_each_change_and_ends_with_the_end() {
    let stage = Stage::new();
    let job = stage.submit(&document(json!({})), 20).await;
    let progress = job.progress();
    pin_mut!(progress);
    let mut next =
        async || progress.next().await.map(|summary| summary.expect("memory").counts.done);
    assert_eq!(next().await, Some(0));
    stage.settle(&job, 10, indices).await;
    assert_eq!(next().await, Some(10));
    stage.settle(&job, 10, indices).await;
    assert_eq!(next().await, Some(20));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn controls_reach_the_ledger_and_refusals_have_reasons() {
    let stage = Stage::new();
    let job = stage.submit(&document(json!({})), 20).await;
    assert_eq!(job.pause().await.expect("allowed"), JobState::Paused);
    assert_eq!(job.resume().await.expect("allowed"), JobState::Queued);
    let error = job.delete().await.expect_err("it has not ended").to_string();
    let refusal = "a job that is queued can't be deleted; cancel it first";
    assert_eq!(error, format!("job {}: {refusal}", job.id()));
    assert_eq!(job.cancel().await.expect("allowed"), Cancelled::Ended);
    assert!(job.audit().await.expect("it is there").is_clean());
    let error = job.pause().await.expect_err("it has ended").to_string();
    assert_eq!(error, format!("job {}: a job that is cancelled can't pause", job.id()));
    job.delete().await.expect("it has ended");
    assert!(matches!(job.summary().await, Err(Error::NotFound(id)) if id == job.id()));
    let errors: Result<Vec<_>, Error> = job.errors().try_collect().await;
    assert!(matches!(errors, Err(Error::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_wait_survives_a_loss_and_a_rebuild_of_the_ledger() {
    let stage = Stage::new();
    let empty = stage.ledger.snapshot();
    let document = document(json!({"id": "0193a0c5-7e1c-7000-8000-000000000007"}));
    let job = stage.submit(&document, 20).await;
    let waiting = tokio::spawn({
        let job = job.clone();
        async move { job.wait().await }
    });
    let following = tokio::spawn({
        // This client has seen the job only by polling.
        let job = stage.client.job(job.id());
        async move { job.progress().try_collect::<Vec<_>>().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.ledger.restore(&empty);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!waiting.is_finished() && !following.is_finished());
    // As a scheduler does from the journal.
    tokio::join!(stage.client.publish(&document), stage.decide(Ok(20))).0.expect("published");
    stage.settle(&job, 20, indices).await;
    let end = waiting.await.expect("no panic").expect("it came back");
    assert_eq!((end.state, end.counts.done), (JobState::Succeeded, 20));
    let reports = following.await.expect("no panic").expect("it came back");
    assert_eq!(reports.last().map(|last| last.state), Some(JobState::Succeeded));
}

#[tokio::test]
async fn an_ended_job_that_was_restored_from_the_journal_reports_its_lost_results() {
    let reduce = json!({"task": "sum", "fan_in": 3});
    // Fields of the document; done subtasks at the end of the job; whether results are lost.
    let cases = [
        (json!({}), 3, true),
        (json!({ "reduce": reduce }), 3, true),
        (json!({}), 2, true),
        (json!({}), 0, false),
        (json!({"results": "discard"}), 3, false),
    ];
    for (fields, done, is_loss) in cases {
        let stage = Stage::new();
        let empty = stage.ledger.snapshot();
        let document = document(fields);
        let reduced = document.reduce.is_some();
        let job = stage.submit(&document, 3).await;
        for size in [done, u64::from(reduced)].into_iter().filter(|size| *size > 0) {
            stage.settle(&job, size, indices).await;
        }
        if done < 3 {
            job.cancel().await.expect("allowed");
        }
        let ending =
            JournalEnding::of(&job.summary().await.expect("it is there")).expect("it has ended");
        let document = JobDocument { id: Some(job.id()), ..document };
        stage.ledger.restore(&empty);
        let ledger: &dyn Ledger = &*stage.ledger;
        let back = ledger
            .restore(&RestoreParams::new(admission(&document, 3), PriorState::Ended(ending)))
            .await;
        assert_eq!(back.expect("memory does not fail"), Restored::Restored);

        let found: Result<Vec<_>, Error> = job.results().try_collect().await;
        assert_eq!(job.outcome().await.is_err(), is_loss);
        if is_loss {
            let error = found.expect_err("they are lost");
            assert!(matches!(error, Error::ResultsLost(id) if id == job.id()), "{error}");
            let said = "its results were lost with the ledger; how it ended is known from the \
                        journal alone; submit it again under a new id to have them";
            assert_eq!(error.to_string(), format!("job {}: {said}", job.id()));
        } else {
            assert_eq!(found.expect("there were none").len(), 0);
        }
        match job.value().await.expect_err("there is none") {
            Error::ResultsLost(_) => assert!(reduced),
            Error::NoValue { .. } => assert!(!reduced),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_stays_lost_ends_the_wait_and_a_deleted_one_ends_it_at_once() {
    let stage = Stage::new();
    let empty = stage.ledger.snapshot();
    let job = stage.submit(&document(json!({})), 20).await;
    stage.ledger.restore(&empty);
    let begun = tokio::time::Instant::now();
    assert!(matches!(job.wait().await, Err(Error::NotFound(_))));
    let waited = begun.elapsed().as_secs();
    assert!((60..62).contains(&waited), "{waited} s");
    // No client has ever seen this job.
    let begun = tokio::time::Instant::now();
    assert!(matches!(stage.client.job(job.id()).wait().await, Err(Error::NotFound(_))));
    let deleted = stage.submit(&document(json!({})), 1).await;
    deleted.cancel().await.expect("allowed");
    deleted.delete().await.expect("it has ended");
    assert!(matches!(deleted.wait().await, Err(Error::NotFound(_))));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn workers_are_listed_drained_and_readmitted() {
    let stage = Stage::new();
    assert_eq!(format!("{:?}", stage.client.nodes()), "Nodes(\"memory\")");
    nodes::are_listed_drained_and_readmitted(stage.ledger).await;
}
