//! The processes of a command: none outlives its subtask, even if it tries to escape.

mod harness;

use std::collections::BTreeSet;

use harness::{Harness, Running, config, eventually};
use longshore_protocol::state::JobState;
use longshore_worker::{Config, TaskSpec, Worker};
use serde_json::{Value, json};

/// All known ways to escape from a process group, a session and a parent. `$1` is in the command
/// line of each process that goes on.
const ESCAPES: &str = r#"
sleep $1 &
timeout 1000 sleep $1 &
setsid sleep $1 &
(setsid sh -c 'setsid sleep $0 & exit' $1 &)
env -i setsid sleep $1 &
(trap '' TERM HUP INT; sleep $1; sleep $1) &
"#;

/// The minimum number of those processes.
const ESCAPED: usize = 6;

/// A number of seconds that is unique to a test.
fn seconds() -> String {
    format!("1000.{}", uuid::Uuid::new_v4().as_u128())
}

/// The living processes that sleep for this time.
fn sleepers(seconds: &str) -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let sleeps = |pid: &u32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A zombie has no command line.
        words.starts_with("sleep\0") && words.contains(seconds)
    };
    pids.filter(sleeps).collect()
}

fn spec(script: &str, seconds: &str) -> TaskSpec {
    let spec = json!({"command": ["sh", "-c", script, "sh", seconds]});
    serde_json::from_value(spec).expect("a valid spec")
}

fn start(harness: &Harness, script: &str, seconds: &str) -> Running {
    harness::prepare();
    let builder = Worker::builder().config(config());
    harness
        .start(builder.configured_task("t", spec(script, seconds)).build().expect("a valid worker"))
}

fn one(more: &Value) -> Value {
    let mut document = json!({
        "task": "t", "split": {"by": "range", "start": 0, "end": 1},
        "retry": {"attempts": 1},
    });
    for (name, value) in more.as_object().expect("fields") {
        document[name] = value.clone();
    }
    document
}

#[tokio::test]
async fn a_command_that_ends_leaves_no_process_behind() {
    let (harness, seconds) = (Harness::new(), seconds());
    let script = format!("{ESCAPES}\nsleep 0.2; echo 7");
    let worker = start(&harness, &script, &seconds);
    let job = harness.submit(&one(&json!({}))).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    assert_eq!(harness.results(job, 0, 1).await, ["7"]);
    assert_eq!(sleepers(&seconds), [].into(), "all of them are gone before the result counts");
    worker.stop().await;
}

#[tokio::test]
async fn a_timeout_leaves_no_process_behind() {
    let (harness, seconds) = (Harness::new(), seconds());
    let worker = start(&harness, &format!("{ESCAPES}\nwait"), &seconds);
    let job = harness.submit(&one(&json!({"timeout": "1s"}))).await;
    eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    assert_eq!(harness.ended(job).await.state, JobState::Failed);
    assert_eq!(sleepers(&seconds), [].into());
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_leaves_no_process_behind_and_the_next_command_runs() {
    let (harness, seconds) = (Harness::new(), seconds());
    let script = format!("test $LONGSHORE_INDEX = 1 && exec echo 1\n{ESCAPES}\nwait");
    let worker = start(&harness, &script, &seconds);
    let job = harness.submit(&one(&json!({}))).await;
    eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    harness.ledger.cancel(job).await.expect("it runs");
    eventually("all of them are gone", async || sleepers(&seconds).is_empty()).await;
    let next = json!({"split": {"by": "range", "start": 1, "end": 3}});
    let next = harness.submit(&one(&next)).await;
    eventually("the slots are used again", async || !sleepers(&seconds).is_empty()).await;
    harness.ledger.cancel(next).await.expect("it runs");
    worker.stop().await;
    assert_eq!(sleepers(&seconds), [].into());
}

/// An application may end without stopping its worker.
#[test]
fn a_dropped_runtime_leaves_no_process_behind() {
    let seconds = seconds();
    let runtime = || tokio::runtime::Runtime::new().expect("threads");
    let (first, second) = (runtime(), runtime());
    first.block_on(async {
        let harness = Harness::new();
        let _worker = start(&harness, &format!("{ESCAPES}\nwait"), &seconds);
        harness.submit(&one(&json!({}))).await;
        eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    });
    first.shutdown_background();
    second.block_on(eventually("they are gone", async || sleepers(&seconds).is_empty()));
}

/// A kill by name may hit the shim of a command.
#[tokio::test]
async fn a_kill_of_the_shim_ends_its_session() {
    let (harness, seconds) = (Harness::new(), seconds());
    let worker = start(&harness, "timeout 1000 sleep $1", &seconds);
    let job = harness.submit(&one(&json!({}))).await;
    eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
    let sleeper = *sleepers(&seconds).first().expect("it runs");
    // The id of the session is that of the shim, which created it.
    kill(session(sleeper), "KILL");
    assert_eq!(harness.ended(job).await.state, JobState::Failed);
    assert!(harness.error(job).await.contains("lost the command"), "{}", harness.error(job).await);
    eventually("the command is gone", async || sleepers(&seconds).is_empty()).await;
    worker.stop().await;
}

/// A program that asks for a password fails, instead of stopping for ever.
#[tokio::test]
async fn a_command_has_no_terminal() {
    let (harness, seconds) = (Harness::new(), seconds());
    let script = "cut -d' ' -f6,7 /proc/self/stat";
    let worker = start(&harness, script, &seconds);
    let job = harness.submit(&one(&json!({}))).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    let result = harness.results(job, 0, 1).await.remove(0);
    let (of_command, terminal) = result.trim_matches('"').split_once(' ').expect("two numbers");
    assert_ne!(of_command, session(std::process::id()).to_string());
    assert_eq!(terminal, "0");
    worker.stop().await;
}

#[tokio::test]
async fn a_child_that_holds_the_pipes_of_a_command_does_not_block_the_worker() {
    let (harness, seconds) = (Harness::new(), seconds());
    let worker = start(&harness, "setsid sleep $1 & echo 5", &seconds);
    let more = json!({"params": "x".repeat(300_000), "timeout": "20s"});
    let job = harness.submit(&one(&more)).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    assert_eq!(sleepers(&seconds), [].into());
    worker.stop().await;
}

/// Like a stop of a unit by systemd: all its processes get SIGTERM, the command before the worker.
#[tokio::test]
async fn a_subtask_that_is_stopped_together_with_its_worker_is_released() {
    for kind in ["command", "serve"] {
        let (harness, seconds) = (Harness::new(), seconds());
        harness::prepare();
        let program = json!({kind: ["sh", "-c", "sleep $0", seconds]});
        let spec: TaskSpec = serde_json::from_value(program).expect("a valid spec");
        let builder = Worker::builder().config(config()).configured_task("t", spec);
        let worker = harness.start(builder.build().expect("a valid worker"));
        let job = harness.submit(&one(&json!({}))).await;
        eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
        // The shell reports the signal by its exit code, 143.
        sleepers(&seconds).into_iter().for_each(|pid| kill(pid, "TERM"));
        eventually("it is gone", async || sleepers(&seconds).is_empty()).await;
        worker.stop().await;
        let summary = harness.job(job).await;
        let counts = summary.counts;
        assert_eq!((counts.failed, counts.retrying, counts.running), (0, 0, 0), "{kind}");
        assert!(!summary.state.is_terminal(), "{kind}: {:?}", summary.state);
    }
}

#[tokio::test]
async fn a_subtask_that_fails_while_its_worker_drains_is_released() {
    let harness = Harness::new();
    harness::prepare();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "touch begun; while ! test -e go; do sleep 0.01; done; exit 3";
    let spec = json!({"command": ["sh", "-c", script], "cwd": folder.path()});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a valid spec");
    let builder = Worker::builder().config(config()).configured_task("t", spec);
    let worker = harness.start(builder.build().expect("a valid worker"));
    let job = harness.submit(&one(&json!({}))).await;
    eventually("it runs", async || folder.path().join("begun").exists()).await;
    worker.shutdown.cancel();
    std::fs::write(folder.path().join("go"), "").expect("a file");
    worker.ended().await.expect("it stops as asked");
    assert!(!harness.job(job).await.state.is_terminal());
}

#[tokio::test]
async fn a_kill_of_the_command_alone_fails_its_attempt() {
    let (harness, seconds) = (Harness::new(), seconds());
    let worker = start(&harness, "exec sleep $1", &seconds);
    let job = harness.submit(&one(&json!({}))).await;
    eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
    sleepers(&seconds).into_iter().for_each(|pid| kill(pid, "TERM"));
    assert_eq!(harness.ended(job).await.state, JobState::Failed);
    assert_eq!(harness.error(job).await, "killed by SIGTERM");
    worker.stop().await;
}

#[tokio::test]
async fn a_missing_working_directory_is_reported() {
    let harness = Harness::new();
    harness::prepare();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cwd = folder.path().join("gone");
    std::fs::create_dir(&cwd).expect("a folder");
    let spec = json!({"command": ["true"], "cwd": cwd});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a valid spec");
    // One slot, so that the next start uses the shim of the refused one.
    let one_slot = Config { slots: 1, ..config() };
    let builder = Worker::builder().config(one_slot).configured_task("t", spec);
    let worker = harness.start(builder.build().expect("a valid worker"));
    std::fs::remove_dir(&cwd).expect("it is empty");
    let job = harness.submit(&one(&json!({}))).await;
    let expected = format!("cwd: no directory `{}`", cwd.display());
    eventually("the node reports what is missing", async || {
        let nodes = harness.ledger.nodes().await.expect("memory");
        nodes.iter().flat_map(|node| &node.info.disabled).any(|it| it.reason.contains(&expected))
    })
    .await;
    std::fs::create_dir(&cwd).expect("a folder");
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    worker.stop().await;
}

fn kill(pid: u32, signal: &str) {
    let mut kill = std::process::Command::new("kill");
    kill.args([format!("-{signal}"), pid.to_string()]);
    assert!(kill.status().is_ok_and(|status| status.success()), "kill -{signal} {pid}");
}

/// The session of a process; see proc_pid_stat(5).
fn session(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    rest.split(' ').nth(3).and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn two_hundred_commands_need_one_shim_per_slot() {
    let harness = Harness::new();
    harness::prepare();
    let spec = json!({"command": ["sh", "-c", "cut -d' ' -f6 /proc/self/stat"]});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a valid spec");
    let builder = Worker::builder().config(config()).configured_task("t", spec);
    let worker = harness.start(builder.build().expect("a valid worker"));
    let range = json!({"split": {"by": "range", "start": 0, "end": 200}, "chunk": 10});
    let job = harness.submit(&one(&range)).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    let sessions: BTreeSet<String> = harness.results(job, 0, 200).await.into_iter().collect();
    assert!((1..=2).contains(&sessions.len()), "{sessions:?}");
    worker.stop().await;
}
