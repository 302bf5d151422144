//! A subtask reads an input file as it was at the admission of the job, or fails with an error.

mod harness;

use longshore_ledger::ErrorsParams;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use harness::{Harness, config, new_job};
use longshore_protocol::state::JobState;
use longshore_worker::{Context, TaskResult, Worker};
use serde_json::{Value, json};
use tokio::sync::Notify;

const TEXT: &str = "one\ntwo\n";

/// A job over the files of a folder.
fn job(folder: &Path, split: &Value) -> Value {
    let mut split = split.clone();
    split["files"] = json!([format!("{}/*.txt", folder.display())]);
    json!({"task": "wordcount", "split": split, "chunk": 1})
}

/// Changes the only file of a job between its admission and its run; returns how the job ends, and
/// its number of attempts.
async fn ends(
    split: &Value,
    changed: Option<&str>,
    change: impl FnOnce(&Path),
) -> (JobState, u64, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.txt");
    fs::write(&path, TEXT).expect("it can be written");
    let harness = Harness::new();
    let mut document = job(folder.path(), split);
    if let Some(changed) = changed {
        document["changed"] = changed.into();
    }
    let job = new_job();
    let size = harness.admit(job, &document, None).await;
    change(&path);
    let worker = harness.start(Worker::builder().config(config()).build().expect("a valid worker"));
    harness.feed(job, size);
    let summary = harness.ended(job).await;
    let errors = harness.ledger.errors(job, &ErrorsParams::new(0, 1)).await.expect("memory");
    let error = errors.first().map(|entry| entry.error.clone()).unwrap_or_default();
    worker.stop().await;
    (summary.state, summary.attempts, error.replace(path.to_str().expect("it is UTF-8"), "a.txt"))
}

fn splits() -> [Value; 2] {
    [json!({"by": "files"}), json!({"by": "lines", "bytes": "1KiB"})]
}

#[tokio::test]
async fn an_unchanged_file_is_read() {
    for split in splits() {
        assert_eq!(ends(&split, None, |_| ()).await, (JobState::Succeeded, 1, String::new()));
    }
}

#[tokio::test]
async fn a_file_that_has_changed_since_the_admission_fails_its_subtask_for_good() {
    let replaced = |path: &Path| {
        let other = path.with_extension("new");
        fs::write(&other, "six\nsix\n").expect("it can be written");
        fs::rename(other, path).expect("in the same folder");
    };
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("12 bytes", |path| fs::write(path, "one\ntwo\nsix\n").expect("it can be written")),
        ("4 bytes", |path| fs::write(path, "one\n").expect("it can be written")),
        ("8 bytes", replaced),
    ];
    for split in splits() {
        for (found, change) in changes {
            let (state, attempts, error) = ends(&split, None, change).await;
            assert_eq!((state, attempts), (JobState::Failed, 1), "{error}");
            let said = format!(
                "input: a.txt: has changed since the job was admitted: it has {found} of mtime "
            );
            assert!(error.starts_with(&said), "{error}");
            assert!(error.contains(", and had 8 bytes of mtime "), "{error}");
            let (state, ..) = ends(&split, Some("read"), change).await;
            let is_shorter_than_its_window = found == "4 bytes" && split["by"] == "lines";
            let expected =
                if is_shorter_than_its_window { JobState::Failed } else { JobState::Succeeded };
            assert_eq!(state, expected, "{found} of {split} with `changed`: `read`");
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_fails_its_subtask() {
    for split in splits() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, TEXT).expect("it can be written");
        let harness = Harness::new();
        let (reads, go_on, runs) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let (begins, goes_on, counts) = (reads.clone(), go_on.clone(), runs.clone());
        let builder = Worker::builder().config(config());
        let builder = builder.task("slow", move |_: Context, _: Value| {
            let (begins, goes_on) = (begins.clone(), goes_on.clone());
            counts.fetch_add(1, Ordering::SeqCst);
            async move {
                begins.notify_one();
                goes_on.notified().await;
                TaskResult::Ok("a result of half a file")
            }
        });
        let worker = harness.start(builder.build().expect("a valid worker"));
        let mut document = job(folder.path(), &split);
        document["task"] = "slow".into();
        let job = harness.submit(&document).await;
        reads.notified().await;
        fs::write(&path, "one\n").expect("it can be written");
        go_on.notify_one();
        let summary = harness.ended(job).await;
        assert_eq!((summary.state, summary.counts.failed), (JobState::Failed, 1));
        assert_eq!(runs.load(Ordering::SeqCst), 1, "it is not tried again");
        let error = harness.error(job).await;
        assert!(error.contains("has changed since the job was admitted"), "{error}");
        worker.stop().await;
    }
}
