//! The chaos worker, whose tasks write the history, and the commands that other workers run.
//!
//! `longshore-chaos-worker serve` is the served command of a worker of the `longshore` binary,
//! `longshore-chaos-worker command` its command, and `longshore-chaos-worker fail` a command that
//! always fails.

use std::io::{BufRead, Write, stdin, stdout};
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::Duration;

use longshore_chaos::marks::{FOLDER, Marks, What};
use longshore_chaos::runaways;
use longshore_chaos::tasks::{
    COMMITS_EARLY, FLAKY, MARK, NEXT, NON_SPECULATIVE, POISON, POISONED, SIGNED, answer,
    fails_first, fails_for_good, result, signed,
};
use longshore_worker::{Builder, Config, Context, Worker};
use serde::Deserialize;

/// The `params` of the jobs.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    /// The duration of an attempt, in milliseconds.
    ms: u64,
}

impl Params {
    fn of(ctx: &Context) -> Self {
        ctx.params().unwrap_or_default()
    }

    fn work(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    longshore_worker::init();
    match std::env::args().nth(1).as_deref() {
        Some("serve") => return serve(),
        Some("command") => return command(),
        Some("fail") => return fail(),
        _ => {}
    }
    // The same log settings as `longshore worker`.
    let filter = tracing_subscriber::EnvFilter::new("info,lapin=off");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(worker(&Arc::new(Marks::from_env(std::process::id())))?.run_from_env())?;
    Ok(())
}

fn worker(marks: &Arc<Marks>) -> Result<Worker, Box<dyn std::error::Error>> {
    let (mark, next, flaky) = (marks.clone(), marks.clone(), marks.clone());
    let (poison, early, signed) = (marks.clone(), marks.clone(), marks.clone());
    let builder = Worker::builder()
        .config(config()?)
        .task(MARK, move |ctx: Context, _: u64| attempt(mark.clone(), ctx, MARK))
        .task(NEXT, move |ctx: Context, _: u64| attempt(next.clone(), ctx, NEXT))
        .task(FLAKY, move |ctx: Context, _: u64| attempt(flaky.clone(), ctx, FLAKY))
        .task(POISON, move |ctx: Context, _: u64| attempt(poison.clone(), ctx, POISON))
        .task(SIGNED, move |ctx: Context, _: u64| attempt(signed.clone(), ctx, SIGNED))
        .task(COMMITS_EARLY, move |ctx: Context, _: u64| {
            // The handler does not wait for the attempt, so its success is committed while it still
            // works.
            let answer = answer(ctx.index());
            drop(tokio::spawn(attempt(early.clone(), ctx, COMMITS_EARLY)));
            async move { Ok::<_, String>(answer) }
        });
    let tasks = [MARK, NEXT, FLAKY, POISON, SIGNED, COMMITS_EARLY];
    let non_speculative = tasks.into_iter().filter(|_| std::env::var_os(NON_SPECULATIVE).is_some());
    Ok(non_speculative.fold(builder, Builder::non_speculative).build()?)
}

/// Reads the environment like the command line does.
fn config() -> Result<Config, Box<dyn std::error::Error>> {
    let setting = |name: &str| std::env::var(format!("LONGSHORE_{name}")).ok();
    let duration = |name: &str, default: Duration| match setting(name) {
        Some(text) => humantime::parse_duration(&text),
        None => Ok(default),
    };
    let default = Config::default();
    Ok(Config {
        queues: setting("QUEUES")
            .map_or(default.queues, |names| names.split(',').map(str::to_owned).collect()),
        slots: setting("SLOTS").map_or(Ok(default.slots), |text| text.parse())?,
        heartbeat: duration("HEARTBEAT", default.heartbeat)?,
        dead_after: duration("DEAD_AFTER", default.dead_after)?,
        ack_after: duration("ACK_AFTER", default.ack_after)?,
        grace: duration("GRACE", default.grace)?,
        ..default
    })
}

async fn attempt(marks: Arc<Marks>, ctx: Context, task: &str) -> Result<u64, String> {
    let (node, job, index) = (ctx.node(), ctx.job(), ctx.index());
    let record = |what| marks.record(what, node, &job, index, ctx.attempt());
    let params = Params::of(&ctx);
    record(What::Start);
    if params.ms > 0 {
        let times = if task == SIGNED && marks.is_first(&job, index) { 4 } else { 1 };
        tokio::time::sleep(params.work() * times).await;
    }
    if task == POISON && index == POISONED {
        std::process::abort();
    }
    let fails_now = task == FLAKY && fails_first(index) && ctx.attempt() == 1;
    if fails_now || fails_for_good(task, index) {
        record(What::Fail);
        return Err(format!("attempt {} at {index} fails", ctx.attempt()));
    }
    record(What::End);
    let result = result(task, index);
    Ok(if task == SIGNED { signed(result, std::process::id()) } else { result })
}

/// One subtask, as a served command reads it.
#[derive(Deserialize)]
struct Subtask {
    job: String,
    index: u64,
    attempt: u32,
    #[serde(default)]
    params: Option<Params>,
}

/// Starts processes that escape from this one.
fn start_runaways() -> Result<(), Box<dyn std::error::Error>> {
    Ok(runaways::start(&std::env::var(FOLDER)?, std::process::id())?)
}

/// The marks of this command, and the node of its worker.
fn program() -> Result<(Marks, String), Box<dyn std::error::Error>> {
    // The parent of a command is a shim; the parent of that is the worker.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", parent_id()))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("a name in brackets")?;
    let worker = rest.split(' ').nth(1).ok_or("a parent")?.parse()?;
    Ok((Marks::from_env(worker), std::env::var("LONGSHORE_NODE")?))
}

/// A command: reads one subtask and prints its result.
fn command() -> Result<(), Box<dyn std::error::Error>> {
    start_runaways()?;
    let (marks, node) = program()?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let Subtask { job, index, attempt, params } = serde_json::from_str(&line)?;
    marks.record(What::Start, &node, &job, index, attempt);
    std::thread::sleep(params.unwrap_or_default().work());
    marks.record(What::End, &node, &job, index, attempt);
    writeln!(stdout(), "{}", answer(index))?;
    Ok(())
}

/// A command that reads one subtask and fails.
fn fail() -> Result<(), Box<dyn std::error::Error>> {
    let (marks, node) = program()?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let Subtask { job, index, attempt, .. } = serde_json::from_str(&line)?;
    marks.record(What::Start, &node, &job, index, attempt);
    marks.record(What::Fail, &node, &job, index, attempt);
    Err("everything fails here".into())
}

/// A served command: answers each line with a line.
fn serve() -> Result<(), Box<dyn std::error::Error>> {
    start_runaways()?;
    let (marks, node) = program()?;
    for line in stdin().lock().lines() {
        let Subtask { job, index, attempt, params } = serde_json::from_str(&line?)?;
        marks.record(What::Start, &node, &job, index, attempt);
        std::thread::sleep(params.unwrap_or_default().work());
        marks.record(What::End, &node, &job, index, attempt);
        writeln!(stdout(), "{{\"ok\": {}}}", answer(index))?;
        stdout().flush()?;
    }
    Ok(())
}
