//! What becomes of the processes of a command: none outlives its subtask, whatever it does to get away.

mod yard;

use std::collections::BTreeSet;

use longshore_protocol::state::JobState;
use longshore_worker::{Config, TaskSpec, Worker};
use serde_json::{Value, json};
use yard::{Running, Yard, config, eventually};

/// Every way out of a process group, a session and a parent's care that we know of. What `$1` is
/// stands in the command line of each that lives on.
const ESCAPES: &str = r#"
sleep $1 &
timeout 1000 sleep $1 &
setsid sleep $1 &
(setsid sh -c 'setsid sleep $0 & exit' $1 &)
env -i setsid sleep $1 &
(trap '' TERM HUP INT; sleep $1; sleep $1) &
"#;

/// How many of them there are at least.
const ESCAPED: usize = 6;

/// Seconds that nobody else sleeps for.
fn seconds() -> String {
    format!("1000.{}", uuid::Uuid::new_v4().as_u128())
}

/// The living processes that sleep for so long.
fn sleepers(seconds: &str) -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let sleeps = |pid: &u32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A zombie has no words.
        words.starts_with("sleep\0") && words.contains(seconds)
    };
    pids.filter(sleeps).collect()
}

fn spec(script: &str, seconds: &str) -> TaskSpec {
    let spec = json!({"command": ["sh", "-c", script, "sh", seconds]});
    serde_json::from_value(spec).expect("a good spec")
}

fn start(yard: &Yard, script: &str, seconds: &str) -> Running {
    yard::prepare();
    let builder = Worker::builder().config(config());
    yard.start(builder.configured_task("t", spec(script, seconds)).build().expect("a good worker"))
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
async fn a_command_that_ends_leaves_nothing_behind() {
    let (yard, seconds) = (Yard::new(), seconds());
    let script = format!("{ESCAPES}\nsleep 0.2; echo 7");
    let worker = start(&yard, &script, &seconds);
    let job = yard.submit(&one(&json!({}))).await;
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    assert_eq!(yard.results(job, 0, 1).await, ["7"]);
    assert_eq!(sleepers(&seconds), [].into(), "when the result counts, all of them are gone");
    worker.leave().await;
}

#[tokio::test]
async fn a_time_out_leaves_nothing_behind() {
    let (yard, seconds) = (Yard::new(), seconds());
    let worker = start(&yard, &format!("{ESCAPES}\nwait"), &seconds);
    let job = yard.submit(&one(&json!({"timeout": "1s"}))).await;
    eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    assert_eq!(yard.ended(job).await.state, JobState::Failed);
    assert_eq!(sleepers(&seconds), [].into());
    worker.leave().await;
}

#[tokio::test]
async fn a_cancel_leaves_nothing_behind_and_the_next_command_runs() {
    let (yard, seconds) = (Yard::new(), seconds());
    let script = format!("test $LONGSHORE_INDEX = 1 && exec echo 1\n{ESCAPES}\nwait");
    let worker = start(&yard, &script, &seconds);
    let job = yard.submit(&one(&json!({}))).await;
    eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    yard.ledger.cancel(job).await.expect("it runs");
    eventually("all of them are gone", async || sleepers(&seconds).is_empty()).await;
    let next = json!({"split": {"by": "range", "start": 1, "end": 3}});
    let next = yard.submit(&one(&next)).await;
    eventually("the slots are used again", async || !sleepers(&seconds).is_empty()).await;
    yard.ledger.cancel(next).await.expect("it runs");
    worker.leave().await;
    assert_eq!(sleepers(&seconds), [].into());
}

/// An application may end without a word to its worker.
#[test]
fn a_runtime_that_is_dropped_leaves_nothing_behind() {
    let seconds = seconds();
    let runtime = || tokio::runtime::Runtime::new().expect("threads");
    let (first, second) = (runtime(), runtime());
    first.block_on(async {
        let yard = Yard::new();
        let _worker = start(&yard, &format!("{ESCAPES}\nwait"), &seconds);
        yard.submit(&one(&json!({}))).await;
        eventually("they run", async || sleepers(&seconds).len() >= ESCAPED).await;
    });
    first.shutdown_background();
    second.block_on(eventually("they are gone", async || sleepers(&seconds).is_empty()));
}

/// Whoever kills by name may hit the process that holds a command.
#[tokio::test]
async fn when_the_shim_is_killed_its_session_goes_with_it() {
    let (yard, seconds) = (Yard::new(), seconds());
    let worker = start(&yard, "timeout 1000 sleep $1", &seconds);
    let job = yard.submit(&one(&json!({}))).await;
    eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
    let sleeper = *sleepers(&seconds).first().expect("it runs");
    // The session is named after the shim, which began it.
    kill(session(sleeper), "KILL");
    assert_eq!(yard.ended(job).await.state, JobState::Failed);
    assert!(yard.error(job).await.contains("lost the command"), "{}", yard.error(job).await);
    eventually("the command is gone", async || sleepers(&seconds).is_empty()).await;
    worker.leave().await;
}

/// So that what asks for a password is refused, where it would be stopped for ever.
#[tokio::test]
async fn a_command_has_no_terminal() {
    let (yard, seconds) = (Yard::new(), seconds());
    let script = "cut -d' ' -f6,7 /proc/self/stat";
    let worker = start(&yard, script, &seconds);
    let job = yard.submit(&one(&json!({}))).await;
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    let result = yard.results(job, 0, 1).await.remove(0);
    let (of_command, terminal) = result.trim_matches('"').split_once(' ').expect("two numbers");
    assert_ne!(of_command, session(std::process::id()).to_string());
    assert_eq!(terminal, "0");
    worker.leave().await;
}

#[tokio::test]
async fn a_child_that_holds_every_pipe_of_a_command_that_reads_nothing_blocks_nobody() {
    let (yard, seconds) = (Yard::new(), seconds());
    let worker = start(&yard, "setsid sleep $1 & echo 5", &seconds);
    let more = json!({"params": "x".repeat(300_000), "timeout": "20s"});
    let job = yard.submit(&one(&more)).await;
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    assert_eq!(sleepers(&seconds), [].into());
    worker.leave().await;
}

/// As systemd stops a unit: every process of it gets SIGTERM, the command before the worker.
#[tokio::test]
async fn what_is_stopped_together_with_the_worker_is_handed_back() {
    for kind in ["command", "serve"] {
        let (yard, seconds) = (Yard::new(), seconds());
        yard::prepare();
        let program = json!({kind: ["sh", "-c", "sleep $0", seconds]});
        let spec: TaskSpec = serde_json::from_value(program).expect("a good spec");
        let builder = Worker::builder().config(config()).configured_task("t", spec);
        let worker = yard.start(builder.build().expect("a good worker"));
        let job = yard.submit(&one(&json!({}))).await;
        eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
        // The shell says so by its exit code, 143.
        sleepers(&seconds).into_iter().for_each(|pid| kill(pid, "TERM"));
        eventually("it is gone", async || sleepers(&seconds).is_empty()).await;
        worker.leave().await;
        let summary = yard.job(job).await;
        let counts = summary.counts;
        assert_eq!((counts.failed, counts.retrying, counts.running), (0, 0, 0), "{kind}");
        assert!(!summary.state.is_terminal(), "{kind}: {:?}", summary.state);
    }
}

#[tokio::test]
async fn what_fails_while_the_worker_drains_is_handed_back() {
    let yard = Yard::new();
    yard::prepare();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "touch begun; while ! test -e go; do sleep 0.01; done; exit 3";
    let spec = json!({"command": ["sh", "-c", script], "cwd": folder.path()});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a good spec");
    let builder = Worker::builder().config(config()).configured_task("t", spec);
    let worker = yard.start(builder.build().expect("a good worker"));
    let job = yard.submit(&one(&json!({}))).await;
    eventually("it runs", async || folder.path().join("begun").exists()).await;
    worker.shutdown.cancel();
    std::fs::write(folder.path().join("go"), "").expect("a file");
    worker.ended().await.expect("it leaves as asked");
    assert!(!yard.job(job).await.state.is_terminal());
}

#[tokio::test]
async fn who_kills_a_command_alone_fails_its_attempt() {
    let (yard, seconds) = (Yard::new(), seconds());
    let worker = start(&yard, "exec sleep $1", &seconds);
    let job = yard.submit(&one(&json!({}))).await;
    eventually("it runs", async || !sleepers(&seconds).is_empty()).await;
    sleepers(&seconds).into_iter().for_each(|pid| kill(pid, "TERM"));
    assert_eq!(yard.ended(job).await.state, JobState::Failed);
    assert_eq!(yard.error(job).await, "killed by SIGTERM");
    worker.leave().await;
}

#[tokio::test]
async fn a_working_directory_that_is_gone_is_named() {
    let yard = Yard::new();
    yard::prepare();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cwd = folder.path().join("gone");
    std::fs::create_dir(&cwd).expect("a folder");
    let spec = json!({"command": ["true"], "cwd": cwd});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a good spec");
    // One slot, since a refused start must leave the shim of use for the next.
    let one_slot = Config { slots: 1, ..config() };
    let builder = Worker::builder().config(one_slot).configured_task("t", spec);
    let worker = yard.start(builder.build().expect("a good worker"));
    std::fs::remove_dir(&cwd).expect("it is empty");
    let job = yard.submit(&one(&json!({}))).await;
    let expected = format!("cwd: no directory `{}`", cwd.display());
    eventually("the node says what is missing", async || {
        let nodes = yard.ledger.nodes().await.expect("memory");
        nodes.iter().flat_map(|node| &node.info.disabled).any(|it| it.reason.contains(&expected))
    })
    .await;
    std::fs::create_dir(&cwd).expect("a folder");
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    worker.leave().await;
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
async fn two_hundred_commands_need_one_shim_a_slot() {
    let yard = Yard::new();
    yard::prepare();
    let spec = json!({"command": ["sh", "-c", "cut -d' ' -f6 /proc/self/stat"]});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a good spec");
    let builder = Worker::builder().config(config()).configured_task("t", spec);
    let worker = yard.start(builder.build().expect("a good worker"));
    let range = json!({"split": {"by": "range", "start": 0, "end": 200}, "chunk": 10});
    let job = yard.submit(&one(&range)).await;
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    let sessions: BTreeSet<String> = yard.results(job, 0, 200).await.into_iter().collect();
    assert!((1..=2).contains(&sessions.len()), "{sessions:?}");
    worker.leave().await;
}
