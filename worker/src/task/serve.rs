//! Runs subtasks by served commands: a process lives on and answers a line for each subtask.
//!
//! There is one process for each busy slot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use longshore_protocol::{Input, Outcome, json};
use parking_lot::Mutex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::timeout;
use tracing::debug;

use super::pool::{Place, Pool};
use super::process::{self, LINGER, Program, Tail, with_tail};
use super::{Handler, compact, not_started, permanent, retryable, subtask_line};
use crate::Context;
use crate::shim::{Group, Pipes};

/// How long a process that closed its output may take to exit, so that its status and the end of
/// its standard error are known.
const EXIT_WITHIN: Duration = Duration::from_millis(500);

/// Room for `{"ok":}` and white space around a result of the largest size.
const ENVELOPE: usize = 1024;

/// A task whose processes live on between attempts, in the pool of the worker.
pub(super) struct ServeTask {
    /// The id of the task's processes in the pool.
    id: u64,
    program: Program,
    timeout: Option<Duration>,
    pool: Arc<Pool>,
}

/// A running process of a served command.
pub(super) struct Served {
    group: Group,
    stdin: Sender,
    stdout: BufReader<Receiver>,
    tail: Arc<Mutex<Tail>>,
    stderr_read: tokio::task::JoinHandle<()>,
    _place: Place,
}

impl ServeTask {
    pub(super) fn new(program: Program, timeout: Option<Duration>, pool: Arc<Pool>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), program, timeout, pool }
    }

    /// An idle process that can be used, else a new one.
    async fn take(&self, ctx: &Context) -> Result<Served, std::io::Error> {
        if let Some(served) = self.pool.take(self.id) {
            return Ok(served);
        }
        let place = self.pool.place().await;
        // The process outlives the subtask, so its environment does not name the subtask.
        let environment = [("LONGSHORE_NODE", ctx.node.to_string())];
        let (group, pipes) = self.program.spawn(&self.pool.shims, &environment).await?;
        Ok(Served::new(group, pipes, place, self.program.name()))
    }
}

#[async_trait]
impl Handler for ServeTask {
    async fn run(&self, ctx: Context, input: Input) -> Outcome {
        let mut served = match self.take(&ctx).await {
            Ok(served) => served,
            Err(error) => {
                let name = self.program.name();
                return not_started(format!("can't start the command `{name}`: {error}"));
            }
        };
        let mut line = subtask_line(&ctx, &input);
        line.push('\n');
        let answer = tokio::select! {
            () = ctx.cancelled() => Err(retryable("stopped")),
            answer = served.exchange(&line, ctx.max_result) => answer,
        };
        match answer {
            Ok(outcome) => {
                self.pool.keep(self.id, served);
                outcome
            }
            Err(outcome) => {
                if let Some(status) = served.group.status() {
                    process::await_stop_signal(&ctx, status).await;
                }
                served.group.end().await;
                outcome
            }
        }
    }

    async fn check(&self) -> Result<(), String> {
        self.program.check()
    }

    fn stop_grace(&self) -> Duration {
        process::STOP_GRACE
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn is_program(&self) -> bool {
        true
    }

    async fn teardown(&self) {
        self.pool.end_idle(Duration::ZERO).await;
    }
}

impl Served {
    fn new(group: Group, pipes: Pipes, place: Place, name: &str) -> Self {
        let Pipes { stdin, stdout, stderr } = pipes;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let stderr_read = tokio::spawn(read_stderr(stderr, tail.clone(), name.to_owned()));
        Self { group, stdin, stdout: BufReader::new(stdout), tail, stderr_read, _place: place }
    }

    /// Ends an idle process.
    pub(super) async fn shut_down(self) {
        // The end of its input tells the process that no more subtasks will come.
        let Self { mut group, stdin, _place, .. } = self;
        drop(stdin);
        let _ = timeout(EXIT_WITHIN, group.wait()).await;
        group.end().await;
    }

    /// Whether the process runs and has written nothing since its answer: one more line would be
    /// taken for the next answer.
    pub(super) fn is_ready(&mut self) -> bool {
        // Only what has arrived by now: any bytes, or the end of the output, rule the process out.
        let unasked = self.stdout.fill_buf().now_or_never();
        unasked.is_none() && self.group.is_running()
    }

    /// Sends one line and reads one line. `Err` if the process can't be used any more, though its
    /// answer may count.
    async fn exchange(&mut self, line: &str, max_result: usize) -> Result<Outcome, Outcome> {
        let Self { group, stdin, stdout, tail, .. } = self;
        let limit = max_result.saturating_add(ENVELOPE);
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let (mut answer, mut is_sent) = (Vec::new(), false);
        let read = {
            // Both at once: the process may answer before it has read all. Where it is gone,
            // reading tells more than writing.
            let send = async {
                let _ = stdin.write_all(line.as_bytes()).await;
                is_sent = true;
            };
            let mut receive = stdout.take(bound);
            let receive = receive.read_until(b'\n', &mut answer);
            tokio::pin!(send, receive);
            tokio::select! {
                biased;
                read = async {
                    tokio::select! {
                        biased;
                        read = &mut receive => read,
                        () = &mut send => (&mut receive).await,
                    }
                } => Some(read),
                // A process that it started may hold its output open for ever.
                _ = group.wait() => timeout(LINGER, &mut receive).await.ok(),
            }
        };
        let ended = match read {
            Some(Ok(_)) if answer.ends_with(b"\n") => {
                let outcome =
                    parse(&answer).map_err(|what| retryable(with_tail(what, &mut tail.lock())))?;
                // The process would read the rest of this line as the next one.
                return if is_sent { Ok(outcome) } else { Err(outcome) };
            }
            Some(Ok(length)) if length > limit => {
                permanent(format!("the answer is longer than {max_result} bytes (max_result)"))
            }
            Some(Err(error)) => retryable(format!("lost the served command: {error}")),
            Some(Ok(_)) | None => retryable(self.describe_end().await),
        };
        Err(ended)
    }

    /// How the process ended, with the end of its standard error.
    async fn describe_end(&mut self) -> String {
        let what = match timeout(EXIT_WITHIN, self.group.wait()).await {
            Ok(Ok(status)) => process::describe(status),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output".into(),
        };
        let _ = timeout(EXIT_WITHIN, &mut self.stderr_read).await;
        with_tail(
            format!("the served command ended without an answer: {what}"),
            &mut self.tail.lock(),
        )
    }
}

/// Reads `{"ok": value}` or `{"error": "text", "retry": false}`; the error says what is wrong with
/// another answer.
pub(crate) fn parse(answer: &[u8]) -> Result<Outcome, String> {
    let wrong = |why: &str| {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]).trim_end().to_owned();
        format!("the served command answered {start:?}: {}", shown(why))
    };
    let Fields(mut fields) = serde_json::from_slice(answer)
        .map_err(|error| wrong(&format!("not a line of JSON with `ok` or `error` ({error})")))?;
    let unknown = fields.iter().find(|(name, _)| !["ok", "error", "retry"].contains(&&**name));
    if let Some((name, _)) = unknown {
        let name = shown(name);
        return Err(wrong(&format!("unknown field `{name}`; use `ok`, or `error` and `retry`")));
    }
    let mut take = |wanted: &str| {
        let at = fields.iter().position(|(name, _)| name == wanted)?;
        Some(fields.swap_remove(at).1)
    };
    let (ok, error, retry) = (take("ok"), take("error"), take("retry"));
    if let Some((name, _)) = fields.first() {
        // Which of the two was meant is unknown.
        return Err(wrong(&format!("`{name}` stands twice")));
    }
    match (ok, error) {
        (Some(value), None) if retry.is_none() => {
            // Some values parse as raw JSON and can't be read later: half a surrogate pair, too
            // many brackets.
            json::check(value.get()).map_err(|why| wrong(&format!("`ok` can't be read: {why}")))?;
            Ok(Outcome::Success(compact(value.get())))
        }
        (None, Some(error)) => {
            let error = serde_json::from_str::<String>(error.get())
                .map_err(|_| wrong("`error` must be a string"))?;
            let retry = match retry {
                Some(retry) => serde_json::from_str::<bool>(retry.get())
                    .map_err(|_| wrong("`retry` must be true or false"))?,
                None => true,
            };
            Ok(Outcome::Failure { error, retry })
        }
        _ => Err(wrong("exactly one of `ok` and `error` is needed, `retry` goes with `error`")),
    }
}

/// As much of the text as an error message needs, on one line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.replace(char::is_control, " ")
}

/// The fields of an answer in their order; a field that occurs twice is here twice.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = object.next_entry()? {
            // One field too many is enough to refuse the answer.
            if fields.len() < 4 {
                fields.push(field);
            }
        }
        Ok(Fields(fields))
    }
}

/// Logs the standard error of a served command, and keeps its end to explain how the process ended.
async fn read_stderr(mut stderr: Receiver, tail: Arc<Mutex<Tail>>, command: String) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        tail.lock().push(&buffer[..read]);
        debug!(%command, stderr = %String::from_utf8_lossy(&buffer[..read]).trim_end(), "said");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::fixtures::{context, failure, prepared_pool, success};
    use super::*;

    fn python(body: &str) -> ServeTask {
        served(body, prepared_pool(2))
    }

    fn served(body: &str, pool: Arc<Pool>) -> ServeTask {
        let script = format!("import sys, json, os, time\nfor line in sys.stdin:\n{body}");
        let argv = ["python3", "-u", "-c", &script].map(str::to_owned).to_vec();
        let program = Program { argv, env: BTreeMap::new(), cwd: None };
        ServeTask::new(program, None, pool)
    }

    async fn ask(task: &ServeTask, input: i64) -> Outcome {
        task.run(context(&json!(null)), Input::Number(input)).await
    }

    #[tokio::test]
    async fn one_process_answers_many_subtasks() {
        let task =
            python(" print(json.dumps({'ok': [os.getpid(), json.loads(line)['input'] * 2]}))\n");
        let Outcome::Success(first) = ask(&task, 4).await else { panic!("an answer") };
        let Outcome::Success(second) = ask(&task, 5).await else { panic!("an answer") };
        let parts = |text: &str| serde_json::from_str::<(u32, i64)>(text).expect("pid and number");
        assert_eq!(parts(&first).0, parts(&second).0, "the same process");
        assert_eq!((parts(&first).1, parts(&second).1), (8, 10));
        task.teardown().await;
        assert_eq!(task.pool.count(), (0, 0));
    }

    #[tokio::test]
    async fn null_is_an_answer_and_an_error_says_whether_to_retry() {
        let task = python(
            " n = json.loads(line)['input']\n \
             answers = [{'ok': None}, {'error': 'e'}, {'error': 'e', 'retry': False}]\n \
             print(json.dumps(answers[n]))\n",
        );
        assert_eq!(ask(&task, 0).await, success(serde_json::Value::Null));
        assert_eq!(ask(&task, 1).await, retryable("e"));
        assert_eq!(ask(&task, 2).await, permanent("e"));
    }

    #[tokio::test]
    async fn a_process_that_dies_fails_the_attempt_and_is_replaced() {
        let task = python(
            " if json.loads(line)['input'] == 1:\n  \
              print('rope broke', file=sys.stderr)\n  sys.exit(4)\n \
             print('{\"ok\": 1}')\n",
        );
        let (error, retry) = failure(ask(&task, 1).await);
        let expected = "the served command ended without an answer: exit code 4: rope broke";
        assert_eq!((error.as_str(), retry), (expected, true));
        assert_eq!(ask(&task, 2).await, success(1));
    }

    #[tokio::test]
    async fn a_late_extra_line_is_not_the_next_answer() {
        let task =
            python(" print('{\"ok\": 1}')\n time.sleep(0.05)\n print('{\"ok\": \"late\"}')\n");
        assert_eq!(ask(&task, 1).await, success(1));
        let mut first = task.pool.take(task.id).expect("it is kept");
        let unready = async {
            while first.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, unready).await.expect("the late line is seen");
        task.pool.keep(task.id, first);
        assert_eq!(ask(&task, 2).await, success(1), "of a new process");
    }

    #[tokio::test]
    async fn a_garbled_answer_fails_the_attempt() {
        let task = python(" print('hello')\n");
        let (error, retry) = failure(ask(&task, 1).await);
        assert!(
            error.starts_with("the served command answered \"hello\": not a line of"),
            "{error}"
        );
        assert!(retry);
        assert_eq!(task.pool.count(), (0, 0), "the process was not kept");
    }

    #[tokio::test]
    async fn an_extra_line_is_never_the_next_answer() {
        let task = python(" print('{\"ok\": 1}\\n{\"ok\": 99}', flush=True)\n");
        assert_eq!(ask(&task, 1).await, success(1));
        assert_eq!(ask(&task, 2).await, success(1));
    }

    #[tokio::test]
    async fn a_cancel_ends_the_process() {
        let task = python(" time.sleep(600)\n");
        let ctx = context(&json!(null));
        ctx.cancel.cancel();
        assert_eq!(task.run(ctx, Input::Number(1)).await, retryable("stopped"));
        assert_eq!(task.pool.count(), (0, 0));
    }

    #[tokio::test]
    async fn the_death_of_a_process_is_noticed_though_its_child_holds_its_output() {
        let body = " if os.fork() == 0: time.sleep(600)\n os.kill(os.getpid(), 9)\n";
        let limit = Duration::from_secs(20);
        let task = python(body);
        let outcome = tokio::time::timeout(limit, ask(&task, 1)).await.expect("an outcome");
        let (error, retry) = failure(outcome);
        assert_eq!(error, "the served command ended without an answer: killed by SIGKILL");
        assert!(retry);
    }

    #[tokio::test]
    async fn an_answer_counts_though_the_process_ends_after_it() {
        let task = python(
            " print('{\"ok\": 1}', flush=True)\n if os.fork() == 0: time.sleep(600)\n os._exit(3)\n",
        );
        assert_eq!(ask(&task, 1).await, success(1));
    }

    #[tokio::test]
    async fn an_answer_that_begins_before_the_input_is_read_blocks_nothing() {
        // More than a pipe holds, both ways.
        let script = "import sys\nsys.stdout.write(' ' * 200_000 + '{\"ok\": 1}')\n\
                      sys.stdout.flush()\nsys.stdin.readline()\nprint(flush=True)\n";
        let argv = ["python3", "-u", "-c", script].map(str::to_owned).to_vec();
        let program = Program { argv, env: BTreeMap::new(), cwd: None };
        let task = ServeTask::new(program, None, prepared_pool(1));
        let mut ctx = context(&json!("x".repeat(1 << 20)));
        ctx.max_result = 1 << 20;
        let limit = Duration::from_secs(20);
        let outcome = tokio::time::timeout(limit, task.run(ctx, Input::Number(1))).await;
        assert_eq!(outcome, Ok(success(1)));
    }

    #[tokio::test]
    async fn at_most_as_many_processes_live_as_there_are_slots_however_many_tasks() {
        let pool = prepared_pool(2);
        let body = " print(json.dumps({'ok': os.getpid()}), flush=True)\n";
        let tasks: Vec<_> = (0..4).map(|_| served(body, pool.clone())).collect();
        let mut pids = Vec::new();
        for task in &tasks {
            let Outcome::Success(pid) = ask(task, 1).await else { panic!("an answer") };
            pids.push(pid);
        }
        assert_eq!(pool.count(), (2, 2));
        let alive = |pid: &&String| std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert_eq!(pids.iter().filter(alive).count(), 2, "the least recently used are gone");
        assert_eq!(ask(&tasks[3], 1).await, Outcome::Success(pids[3].clone()), "and others not");
    }

    #[tokio::test]
    async fn a_process_that_is_idle_for_long_is_ended() {
        crate::shim::prepare_test();
        let pool = Pool::keeping(2, crate::shim::Shims::default(), Duration::from_millis(40));
        let task = served(" print('{\"ok\": 1}')\n", pool.clone());
        assert_eq!(ask(&task, 1).await, success(1));
        let gone = async {
            while pool.count() != (0, 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is ended");
    }

    #[test]
    fn answers_are_read_strictly() {
        for (answer, complaint) in [
            ("{}", "exactly one of"),
            (r#"{"ok":1,"error":"e"}"#, "exactly one of"),
            (r#"{"ok":1,"retry":true}"#, "exactly one of"),
            (r#"{"okay":1}"#, "unknown field `okay`"),
            (r#"{"error":1}"#, "`error` must be a string"),
            (r#"{"error":"e","retry":1}"#, "`retry` must be true or false"),
            (r#"{"ok":1,"ok":2}"#, "`ok` stands twice"),
            (r#"{"error":"e","retry":true,"retry":false}"#, "`retry` stands twice"),
            (r#"{"o\nk":1}"#, "unknown field `o k`"),
        ] {
            let error = parse(answer.as_bytes()).expect_err(answer);
            assert!(error.contains(complaint), "{answer}: {error}");
        }
    }

    #[test]
    fn a_result_that_can_not_be_read_later_is_refused() {
        // The first is what Python makes of a file name that is not UTF-8.
        for value in [r#""caf\udce9""#, &"[".repeat(200)] {
            let value = value.to_owned() + &"]".repeat(value.matches('[').count());
            let error = parse(format!(r#"{{"ok":{value}}}"#).as_bytes()).expect_err(&value);
            assert!(error.contains("`ok` can't be read"), "{error}");
        }
    }

    #[test]
    fn an_error_stays_short_whatever_the_answer() {
        let long = "x".repeat(1 << 20);
        for answer in [format!("\"{long}\""), format!("{{\"{long}\":1}}"), long] {
            let error = parse(answer.as_bytes()).expect_err("no answer");
            assert!(error.len() < 1_000, "{} bytes", error.len());
        }
    }
}
