//! Runs a command for each attempt: the subtask on its standard input, the result on its output.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Input, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::process::{self, LINGER, Program, Tail, with_tail};
use super::{Handler, Output, not_started, permanent, result_of_text, retryable, subtask_line};
use crate::Context;
use crate::shim::{Group, Pipes, Shims};

/// The exit code of a command that wants to be tried again later (`EX_TEMPFAIL` of sysexits.h).
const NOT_NOW: i32 = 75;

/// Runs a command for each attempt.
pub(super) struct CommandTask {
    pub(super) program: Program,
    pub(super) timeout: Option<Duration>,
    pub(super) shims: Arc<Shims>,
    pub(super) output: Output,
}

/// How the exchange with a command ended.
enum End {
    Exited(ExitStatus),
    TooMuchOutput,
    Cancelled,
    Lost(std::io::Error),
}

#[async_trait]
impl Handler for CommandTask {
    async fn run(&self, ctx: Context, input: Input) -> Outcome {
        let (mut group, pipes) =
            match self.program.spawn(&self.shims, &process::environment(&ctx)).await {
                Ok(started) => started,
                Err(error) => {
                    let name = self.program.name();
                    return not_started(format!("can't start the command `{name}`: {error}"));
                }
            };
        let mut line = subtask_line(&ctx, &input);
        line.push('\n');
        let mut output = Vec::new();
        let mut tail = Tail::default();
        match exchange(&mut group, pipes, &ctx, line, &mut output, &mut tail).await {
            End::Exited(status) => {
                process::await_stop_signal(&ctx, status).await;
                classify(status, &output, self.output, &mut tail)
            }
            End::TooMuchOutput => {
                permanent(format!("stdout is longer than {} bytes (max_result)", ctx.max_result))
            }
            End::Cancelled => retryable("stopped"),
            End::Lost(error) => retryable(format!("lost the command: {error}")),
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
}

/// Writes the input of a command, reads its output and waits for its end, all at once. The group is
/// empty afterwards.
async fn exchange(
    group: &mut Group,
    pipes: Pipes,
    ctx: &Context,
    line: String,
    output: &mut Vec<u8>,
    tail: &mut Tail,
) -> End {
    let Pipes { mut stdin, stdout, stderr } = pipes;
    let pipes = async {
        let feed = async {
            // A command that does not read its input is fine.
            let _ = stdin.write_all(line.as_bytes()).await;
            drop(stdin);
            Ok(())
        };
        // White space around the JSON does not count: allow as much again, and a little more.
        let limit = ctx.max_result.saturating_mul(2).saturating_add(1024);
        tokio::try_join!(feed, read_all(stdout, output, limit), read_tail(stderr, tail))
    };
    tokio::pin!(pipes);
    let mut is_over = false;
    let end = loop {
        tokio::select! {
            () = ctx.cancelled() => break End::Cancelled,
            read = &mut pipes, if !is_over => match read {
                Ok(_) => is_over = true,
                Err(TooMuch) => break End::TooMuchOutput,
            },
            status = group.wait() => break match status {
                Ok(status) if is_over => End::Exited(status),
                Ok(status) => match tokio::time::timeout(LINGER, &mut pipes).await {
                    Ok(Err(TooMuch)) => End::TooMuchOutput,
                    Ok(Ok(_)) | Err(_) => End::Exited(status),
                },
                Err(error) => End::Lost(error),
            },
        }
    };
    match end {
        End::Exited(_) | End::Lost(_) => group.kill().await,
        End::Cancelled | End::TooMuchOutput => group.end().await,
    }
    end
}

struct TooMuch;

async fn read_all(
    mut pipe: impl AsyncRead + Unpin,
    all: &mut Vec<u8>,
    limit: usize,
) -> Result<(), TooMuch> {
    // A broken pipe is an end like any other; the exit status tells what it means.
    while pipe.read_buf(all).await.is_ok_and(|read| read > 0) {
        if all.len() > limit {
            return Err(TooMuch);
        }
    }
    Ok(())
}

async fn read_tail(mut pipe: impl AsyncRead + Unpin, tail: &mut Tail) -> Result<(), TooMuch> {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        tail.push(&buffer[..read]);
    }
    Ok(())
}

fn classify(status: ExitStatus, stdout: &[u8], output: Output, tail: &mut Tail) -> Outcome {
    if status.success() {
        return match result_of_text(stdout, output) {
            Ok(json) => Outcome::Success(json),
            Err(outcome) => outcome,
        };
    }
    if status.code() == Some(NOT_NOW) {
        return Outcome::NotNow { reason: tail.text(), after: None };
    }
    retryable(with_tail(process::describe(status), tail))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::super::fixtures::{context, failure, prepared_pool, success};
    use super::*;

    fn shell(script: &str) -> CommandTask {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let program = Program { argv, env: [("COLOUR".into(), "red".into())].into(), cwd: None };
        let shims = prepared_pool(1).shims.clone();
        CommandTask { program, timeout: None, shims, output: Output::Auto }
    }

    async fn run(script: &str) -> Outcome {
        shell(script).run(context(&json!({"p": 1})), Input::Number(3)).await
    }

    #[tokio::test]
    async fn a_command_reads_the_subtask_and_its_json_is_the_result() {
        let expected = concat!(
            r#"{"job":"00000000-0000-0000-0000-000000000010","index":7,"attempt":1,"#,
            r#""params":{"p":1},"input":3}"#
        );
        assert_eq!(run("cat").await, Outcome::Success(expected.into()));
    }

    #[tokio::test]
    async fn the_environment_names_the_subtask() {
        let script =
            "echo $LONGSHORE_JOB $LONGSHORE_INDEX $LONGSHORE_ATTEMPT $LONGSHORE_NODE $COLOUR";
        let expected = "00000000-0000-0000-0000-000000000010 7 1 quay-1 red";
        assert_eq!(run(script).await, success(expected));
    }

    #[tokio::test]
    async fn a_failed_command_says_why_on_stderr() {
        assert_eq!(run("echo no crane >&2; exit 3").await, retryable("exit code 3: no crane"));
        assert_eq!(run("exit 1").await, retryable("exit code 1"));
        assert_eq!(run("kill -SEGV $$").await, retryable("killed by SIGSEGV"));
    }

    #[tokio::test]
    async fn exit_code_75_means_not_now() {
        let expected = Outcome::NotNow { reason: "berth taken".into(), after: None };
        assert_eq!(run("echo berth taken >&2; exit 75").await, expected);
    }

    #[tokio::test]
    async fn the_error_names_a_command_that_does_not_exist() {
        let argv = vec!["/no/such/program".to_owned()];
        let program = Program { argv, env: Default::default(), cwd: None };
        let shims = prepared_pool(1).shims.clone();
        let task = CommandTask { program, timeout: None, shims, output: Output::Auto };
        let outcome = task.run(context(&json!(null)), Input::Number(1)).await;
        let Outcome::NotStarted { reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with("can't start the command `/no/such/program`"), "{reason}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_read_its_input_succeeds() {
        let big = "x".repeat(1 << 20);
        let outcome = shell("exec 0<&-; echo 1").run(context(&json!(big)), Input::Number(3)).await;
        assert_eq!(outcome, success(1));
    }

    #[tokio::test]
    async fn too_much_output_ends_the_command() {
        let (error, retry) = failure(run("yes").await);
        assert_eq!(error, "stdout is longer than 1000 bytes (max_result)");
        assert!(!retry);
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_pipes_open_blocks_nothing() {
        let begun = Instant::now();
        assert_eq!(run("sleep 60 & echo 5").await, success(5));
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_cancel_ends_a_group_that_ignores_sigterm_with_its_grandchildren() {
        let pid_file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = pid_file.path().display().to_string();
        let script = format!("trap '' TERM; sleep 300 & echo $! > {path}; wait; sleep 300");
        let ctx = context(&json!(null));
        let cancel = ctx.cancel.clone();
        let running = tokio::spawn(async move { shell(&script).run(ctx, Input::Number(1)).await });
        let pid = wait_for_pid(pid_file.path()).await;
        cancel.cancel();
        assert_eq!(running.await.expect("no panic"), retryable("stopped"));
        // The grandchild was killed before the outcome came; the kernel may take a moment to show
        // it.
        wait_until("the grandchild is gone", || !is_alive(pid)).await;
    }

    async fn wait_for_pid(path: &std::path::Path) -> i32 {
        let read = || std::fs::read_to_string(path).unwrap_or_default().trim().parse().ok();
        wait_until("the pid is written", || read().is_some()).await;
        read().expect("it is there")
    }

    async fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            tokio::task::yield_now().await;
        }
    }

    /// Whether the process lives; a zombie does not.
    fn is_alive(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
    }
}
