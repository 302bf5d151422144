//! How a worker runs chunks: results, retries, failures, reductions.

mod harness;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use longshore_broker::{Outgoing, Queue};
use longshore_ledger::{Claim, ClaimParams, LossCause, OpenParams, ResultsParams, RevokeParams};
use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, Epoch, NodeId, Token};
use longshore_worker::{Config, Context, Inputs, TaskError, TaskResult, TaskSpec, Worker};
use serde_json::{Value, json};
use tokio::sync::watch;

use harness::{Harness, config, eventually, new_job};

fn range(task: &str, end: u64, more: &Value) -> Value {
    let mut document = json!({"task": task, "split": {"by": "range", "start": 0, "end": end}});
    let fields = document.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().expect("it is an object").clone());
    document
}

/// Runs a job of one subtask with one attempt, which fails; returns the error.
async fn failure(worker: Worker, document: &Value) -> String {
    let harness = Harness::new();
    let worker = harness.start(worker);
    let job = harness.submit(document).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.failed), (JobState::Failed, 1));
    let error = harness.error(job).await;
    worker.stop().await;
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_ordered_by_index_for_any_chunk_size() {
    let harness = Harness::new();
    let doubling = Worker::builder()
        .config(config())
        .task("double", |_, n: u64| async move { TaskResult::Ok(n * 2) })
        .build()
        .expect("a valid worker");
    let worker = harness.start(doubling);
    let job = harness.submit(&range("double", 1000, &json!({"chunk": 77}))).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 1000));
    assert_eq!(summary.attempts, 1000);
    let expected: Vec<String> = (0..1000).map(|n| (n * 2).to_string()).collect();
    assert_eq!(harness.results(job, 0, 1000).await, expected);
    worker.stop().await;
    assert_eq!(harness.ledger.nodes().await.expect("memory"), [], "it was forgotten");
}

#[tokio::test]
async fn settled_subtasks_are_committed_while_the_next_one_runs() {
    let harness = Harness::new();
    let (open, gate) = watch::channel(false);
    let slow = Worker::builder()
        .config(config())
        .task("slow", move |_, n: u64| {
            let mut gate = gate.clone();
            async move {
                if n == 2 {
                    gate.wait_for(|open| *open).await?;
                }
                TaskResult::Ok(())
            }
        })
        .build()
        .expect("a valid worker");
    let worker = harness.start(slow);
    let job = harness.submit(&range("slow", 4, &json!({"chunk": 4}))).await;
    eventually("the first two are done", async || harness.job(job).await.counts.done == 2).await;
    open.send_replace(true);
    assert_eq!(harness.ended(job).await.counts.done, 4);
    worker.stop().await;
}

/// If one of them kills the worker, the ledger must know which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subtasks_of_a_suspect_chunk_are_committed_one_by_one() {
    let harness = Harness::new();
    let ledger = harness.ledger.clone();
    let careful = Worker::builder()
        .config(Config { commit_every: Duration::from_secs(3_600), ..config() })
        .task("careful", move |context: Context, n: u64| {
            let ledger = ledger.clone();
            async move {
                // 0..12 is split into 0..1, 1..7 and 7..12.
                let first = [0, 1, 7].contains(&n);
                let before = ledger
                    .results(context.job(), &ResultsParams::new(n.saturating_sub(1)..n, 1))
                    .await?;
                let known = first || before.runs.iter().any(|run| run.from + run.count == n);
                assert!(known, "{n} begins, and the one before it is not settled");
                TaskResult::Ok(n)
            }
        })
        .build()
        .expect("a valid worker");
    let more = json!({"chunk": 12, "retry": {"attempts": 1}});
    let job = harness.submit(&range("careful", 12, &more)).await;
    for epoch in 1..=2 {
        let node = NodeId::new(format!("dead-{epoch}"));
        let token = Token::from_bytes([epoch; 16]);
        eventually("it is claimed", async || {
            let (chunk, epoch) = (ChunkId(1), Epoch(epoch.into()));
            let claim = harness
                .ledger
                .claim(job, &ClaimParams::new(chunk, epoch, token, node.clone()))
                .await;
            matches!(claim, Ok(Claim::Granted(_)))
        })
        .await;
        harness
            .ledger
            .revoke(job, &RevokeParams::new(node.clone(), LossCause::Vanished))
            .await
            .expect("memory");
    }
    let worker = harness.start(careful);
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.last_error), (JobState::Succeeded, None));
    worker.stop().await;
}

/// Runs a chunk of 200 subtasks of 50 ms each on two slots. Returns the time of the job from its
/// first subtask on, and the maximum number of subtasks at once. The time before that includes a
/// heartbeat, on a thread without paused time.
async fn a_long_chunk(chunk: &Value) -> (Duration, usize) {
    let harness = Harness::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Arc::new(OnceLock::new());
    let counted = (now, most.clone(), begun.clone());
    let slow = Worker::builder()
        .config(Config { slots: 2, ..config() })
        .task("slow", move |_, _: u64| {
            let (now, most, begun) = counted.clone();
            async move {
                begun.get_or_init(tokio::time::Instant::now);
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                TaskResult::Ok(())
            }
        })
        .build()
        .expect("a valid worker");
    let worker = harness.start(slow);
    let job = new_job();
    let open = OpenParams::new(1, 200, Duration::ZERO);
    harness.admit(job, &range("slow", 200, &json!({"chunk": chunk})), Some(open)).await;
    harness.feed(job, 1);
    let summary = harness.ended(job).await;
    let took = begun.get().expect("it ran").elapsed();
    assert_eq!((summary.counts.done, summary.attempts, summary.lost), (200, 200, 0));
    worker.stop().await;
    (took, most.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_chunk_that_takes_long_is_released_to_other_slots() {
    let (took, most) = a_long_chunk(&json!("auto")).await;
    assert_eq!(most, 2);
    // Ten seconds of work, of which a little more than one passes before the chunk is split.
    assert!(took < Duration::from_millis(6_500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_a_chosen_size_is_not_split() {
    let (took, most) = a_long_chunk(&json!(200)).await;
    assert_eq!(most, 1);
    assert!(took >= Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn failed_attempts_are_retried() {
    let harness = Harness::new();
    let worker = harness.start(Worker::builder().config(config()).build().expect("a valid worker"));
    let retry = json!({"attempts": 3, "backoff": "1ms"});
    let document = range("fail", 5, &json!({"params": {"times": 2}, "retry": retry, "chunk": 5}));
    let summary = harness.ended(harness.submit(&document).await).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 5));
    assert_eq!(summary.attempts, 15);
    worker.stop().await;
}

#[tokio::test]
async fn each_kind_of_failure_reports_what_happened() {
    let once = json!({"retry": {"attempts": 1}});
    let builtins = || Worker::builder().config(config());
    let build = |builder: longshore_worker::Builder| builder.build().expect("a valid worker");

    let mut timed = range("sleep", 1, &once);
    timed["params"] = json!({"ms": 60_000});
    timed["timeout"] = json!("50ms");
    assert_eq!(failure(build(builtins()), &timed).await, "timed out after 50ms");

    let panics = builtins().task("panics", |_, n: u64| async move {
        if n == 0 { panic!("the rope broke") } else { TaskResult::Ok(()) }
    });
    let error = failure(build(panics), &range("panics", 1, &once)).await;
    assert_eq!(error, "the handler panicked: the rope broke");

    let big = builtins()
        .config(Config { max_result: 100, ..config() })
        .task("big", |_, _: u64| async { TaskResult::Ok("x".repeat(101)) });
    let error = failure(build(big), &range("big", 1, &json!({}))).await;
    assert!(error.starts_with("the result is 103 bytes long; at most 100 are allowed"), "{error}");

    let permanent = builtins().task("refuses", |ctx: Context, _: u64| async move {
        Err::<(), _>(TaskError::permanent(ctx.idempotency_key()))
    });
    let error = failure(build(permanent), &range("refuses", 1, &json!({}))).await;
    assert!(error.ends_with("/0"), "{error}");
}

#[tokio::test]
async fn a_chunk_of_a_task_that_the_worker_lacks_is_released_and_uses_up_no_attempt() {
    let harness = Harness::new();
    let build = |builder: longshore_worker::Builder| builder.config(config()).build();
    let lacking = harness.start(build(Worker::builder()).expect("a valid worker"));
    let job = harness.submit(&range("rare", 40, &json!({"retry": {"attempts": 1}}))).await;
    eventually("it was handed out", async || harness.job(job).await.started_at.is_some()).await;
    let able = Worker::builder().task("rare", |_, n: u64| async move { TaskResult::Ok(n) });
    let able = harness.start(build(able).expect("a valid worker"));
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.attempts), (JobState::Succeeded, 40));
    lacking.stop().await;
    able.stop().await;
}

#[tokio::test]
async fn subtasks_wait_for_a_missing_program_and_use_up_no_attempt() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("room for it");
    let program = folder.path().join("program");
    let install = || {
        std::fs::write(&program, "#!/bin/sh\necho 1\n").expect("room for it");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, executable).expect("it is ours");
    };
    install();
    let spec = TaskSpec::command([program.to_str().expect("a plain name")]);
    let worker = Worker::builder().config(config()).configured_task("t", spec);
    let harness = Harness::new();
    let worker = harness.start(worker.build().expect("the program is there"));
    std::fs::remove_file(&program).expect("it was there");
    let job = harness.submit(&range("t", 3, &json!({"retry": {"attempts": 1}}))).await;
    let info =
        async || harness.ledger.nodes().await.expect("memory").first().map(|it| it.info.clone());
    eventually("the task is announced as disabled", async || {
        info().await.is_some_and(|info| {
            let is_named = info.disabled.iter().any(|it| it.task == "t");
            is_named && !info.tasks.contains(&"t".into())
        })
    })
    .await;
    assert_eq!(harness.job(job).await.attempts, 0);
    install();
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.attempts), (JobState::Succeeded, 3));
    eventually("it is enabled again", async || {
        info().await.is_some_and(|info| info.tasks.contains(&"t".into()))
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_deferred_subtask_uses_up_no_attempt() {
    let harness = Harness::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script =
        "test -e ready && echo \"attempt $LONGSHORE_ATTEMPT\" || { touch ready; exit 75; }";
    let spec = json!({"command": ["sh", "-c", script], "cwd": folder.path()});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a valid spec");
    harness::prepare();
    let builder = Worker::builder().config(config()).configured_task("patient", spec);
    let worker = harness.start(builder.build().expect("a valid worker"));
    let retry = json!({"attempts": 1, "backoff": "1ms"});
    let job = harness.submit(&range("patient", 1, &json!({"retry": retry}))).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    assert_eq!(harness.results(job, 0, 1).await, [r#""attempt 1""#]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_reduced_in_a_tree() {
    let harness = Harness::new();
    let builder = Worker::builder()
        .config(config())
        .task("same", |_, n: u64| async move { TaskResult::Ok(n) })
        .task("add", |_, all: Inputs<u64>| async move {
            TaskResult::Ok(all.inputs.iter().sum::<u64>())
        });
    let worker = harness.start(builder.build().expect("a valid worker"));
    for reduce in ["add", "sum"] {
        let reduce = json!({"reduce": {"task": reduce, "fan_in": 4}, "chunk": 9});
        let job = harness.submit(&range("same", 100, &reduce)).await;
        assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
        // There are 25 + 7 + 2 nodes above the leaves, then the root.
        assert_eq!(harness.results(job, 134, 135).await, ["4950"]);
    }
    worker.stop().await;
}

#[tokio::test]
async fn results_are_written_to_objects_and_reduced_from_them() {
    let harness = Harness::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let builder = Worker::builder()
        .config(config())
        .task("same", |_, n: u64| async move { TaskResult::Ok(n) });
    let worker = harness.start(builder.build().expect("a valid worker"));
    let prefix = format!("file://{}", folder.path().display());
    let more = json!({"results": prefix, "reduce": {"task": "sum", "fan_in": 1000}, "chunk": 300});
    let job = harness.submit(&range("same", 300, &more)).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    let pointers = harness.results(job, 0, 301).await;
    assert!(pointers.iter().all(|pointer| pointer.starts_with("@file://")), "{pointers:?}");
    let root = pointers.last().expect("the root's").trim_start_matches("@file://");
    assert_eq!(std::fs::read_to_string(root).expect("the object is there"), "44850\n");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_over_windows_of_files() {
    let harness = Harness::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "The quay and the crane.\nA crane, the crane!\n".repeat(500);
    std::fs::write(folder.path().join("text.txt"), text).expect("it can be written");
    let worker = harness.start(Worker::builder().config(config()).build().expect("a valid worker"));
    let files = format!("{}/*.txt", folder.path().display());
    let job = harness
        .submit(&json!({
            "task": "wordcount", "split": {"by": "lines", "files": [files], "bytes": "1KiB"},
            "reduce": {"task": "merge_counts", "fan_in": 3},
        }))
        .await;
    let summary = harness.ended(job).await;
    assert_eq!(summary.state, JobState::Succeeded);
    let root = summary.counts.total + summary.reduce.total - 1;
    let expected = r#"{"a":500,"and":500,"crane":1500,"quay":500,"the":1500}"#;
    assert_eq!(harness.results(job, root, root + 1).await, [expected]);
    worker.stop().await;
}

#[tokio::test]
async fn a_message_that_is_no_chunk_is_dropped() {
    let harness = Harness::new();
    let worker = harness.start(Worker::builder().config(config()).build().expect("a valid worker"));
    for body in ["", "{}", "\u{1}", r#"{"v":2}"#] {
        let message = Outgoing { body: body.into(), ..Outgoing::default() };
        harness.broker.publish(&Queue::Work("default".into()), message).await.expect("memory");
    }
    let summary = harness.ended(harness.submit(&range("noop", 3, &json!({}))).await).await;
    assert_eq!(summary.counts.done, 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_failed_set_up_stops_the_worker_before_it_claims() {
    let harness = Harness::new();
    let builder = Worker::builder().config(config()).setup(|| async { Err("no crane") });
    let worker = harness.start(builder.build().expect("a valid worker"));
    let error = worker.ended().await.expect_err("the set-up failed");
    assert_eq!(error.to_string(), "setup failed: no crane");
    assert_eq!(harness.ledger.nodes().await.expect("memory"), []);
}

#[tokio::test]
async fn set_up_runs_first_and_tear_down_last() {
    let harness = Harness::new();
    let (log, seen) = watch::channel(Vec::new());
    let log = std::sync::Arc::new(log);
    let note = |word: &'static str| {
        let log = log.clone();
        move || log.send_modify(|words: &mut Vec<&str>| words.push(word))
    };
    let (first, between, last) = (note("set up"), note("run"), note("tear down"));
    let builder = Worker::builder()
        .config(config())
        .setup(move || async move {
            first();
            TaskResult::Ok(())
        })
        .task("note", move |_, _: u64| {
            between();
            async { TaskResult::Ok(()) }
        })
        .teardown(move || async move { last() });
    let worker = harness.start(builder.build().expect("a valid worker"));
    harness.ended(harness.submit(&range("note", 2, &json!({"chunk": 2}))).await).await;
    worker.stop().await;
    assert_eq!(*seen.borrow(), ["set up", "run", "run", "tear down"]);
}

#[tokio::test]
async fn ten_thousand_instant_subtasks_are_fast() {
    let harness = Harness::new();
    let worker = harness.start(Worker::builder().config(config()).build().expect("a valid worker"));
    let document = range("noop", 10_000, &json!({"chunk": 10_000, "results": "discard"}));
    let begun = Instant::now();
    let summary = harness.ended(harness.submit(&document).await).await;
    assert_eq!(summary.counts.done, 10_000);
    // About 10 ms without optimisation; a future for each subtask would take far longer.
    assert!(summary.busy < Duration::from_secs(1), "the slot was busy for {:?}", summary.busy);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    worker.stop().await;
}
