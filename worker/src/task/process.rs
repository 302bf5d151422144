//! Programs and the process groups that they run in.
//!
//! Every program leads a group of its own, so that whatever it starts can be stopped with it.
//! Deliberately absent: a shell; arguments reach the program as they stand in the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::{Context, supervisor};

/// From SIGTERM to SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// A handler that ends process groups needs this long at most: [`TERM_GRACE`] and something for the
/// machine.
pub(super) const WIND_UP: Duration = Duration::from_secs(4);

/// How often a group that was asked to end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How much of what a program says on its standard error is kept, the last of it.
const TAIL: usize = 4 << 10;

/// What to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Program and arguments; never empty.
    pub(super) argv: Vec<String>,
    /// Added to the worker's own environment.
    pub(super) env: BTreeMap<String, String>,
    /// Where it runs; the worker's own directory unless set.
    pub(super) cwd: Option<PathBuf>,
}

/// A running program and whatever it started.
pub(super) struct Group {
    child: Child,
    id: Pid,
    ended: bool,
}

/// The ends of its pipes.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Program {
    /// Starts the program in a group of its own.
    pub(super) fn spawn(
        &self,
        environment: &[(&str, String)],
    ) -> Result<(Group, Pipes), std::io::Error> {
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .env_remove(supervisor::VARIABLE)
            .envs(&self.env)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it was just started");
        let pipes = Pipes {
            stdin: child.stdin.take().expect("stdin is a pipe"),
            stdout: child.stdout.take().expect("stdout is a pipe"),
            stderr: child.stderr.take().expect("stderr is a pipe"),
        };
        Ok((Group { child, id: Pid::from_raw(pid), ended: false }, pipes))
    }

    /// The program's name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.argv[0]
    }
}

/// What every program finds in its environment about the subtask.
pub(super) fn environment(ctx: &Context) -> [(&'static str, String); 4] {
    [
        ("LONGSHORE_JOB", ctx.job.to_string()),
        ("LONGSHORE_INDEX", ctx.index.to_string()),
        ("LONGSHORE_ATTEMPT", ctx.attempt.to_string()),
        ("LONGSHORE_NODE", ctx.node.to_string()),
    ]
}

impl Group {
    /// Waits for the program itself; what it started may go on.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, std::io::Error> {
        self.child.wait().await
    }

    /// Whether the program still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the whole group to end, and after [`TERM_GRACE`] makes it.
    pub(super) async fn end(&mut self) {
        let deadline = Instant::now() + TERM_GRACE;
        let _ = killpg(self.id, Signal::SIGTERM);
        // The leader must be reaped before the group can be seen to be empty.
        let _ = tokio::time::timeout_at(deadline, self.child.wait()).await;
        while !self.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        self.kill();
        let _ = self.child.wait().await;
    }

    /// Ends at once whatever is left of the group.
    pub(super) fn kill(&mut self) {
        // A group's number is not given away while the group has members, and an empty group
        // answers ESRCH.
        let _ = killpg(self.id, Signal::SIGKILL);
        self.ended = true;
    }

    fn is_empty(&self) -> bool {
        killpg(self.id, None) == Err(Errno::ESRCH)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// How a program ended, in words: `exit code 3` or `killed by SIGSEGV`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended in an unknown way".into(),
    }
}

/// The last of what a program said on its standard error.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Let it grow to twice the size, so that each byte is moved once at most.
        if self.bytes.len() > 2 * TAIL {
            self.trim();
        }
    }

    /// As text on its own, empty when the program said nothing.
    pub(super) fn text(&mut self) -> String {
        self.trim();
        let text = String::from_utf8_lossy(&self.bytes);
        // A cut inside a character leaves up to three of its bytes behind.
        let text = text.trim_start_matches(char::REPLACEMENT_CHARACTER).trim();
        if self.cut { format!("…{text}") } else { text.to_owned() }
    }

    fn trim(&mut self) {
        if let Some(surplus @ 1..) = self.bytes.len().checked_sub(TAIL) {
            self.bytes.drain(..surplus);
            self.cut = true;
        }
    }
}

/// `exit code 3: what stderr said`.
pub(super) fn with_tail(what: String, tail: &mut Tail) -> String {
    let said = tail.text();
    if said.is_empty() { what } else { format!("{what}: {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_four_kibibytes() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), "");
        tail.push(b"first\n");
        assert_eq!(tail.text(), "first");
        for _ in 0..3 {
            tail.push(&[b'x'; 5000]);
        }
        tail.push(b"last\n");
        let text = tail.text();
        assert!(text.starts_with("…x") && text.ends_with("xlast"), "{text}");
        assert_eq!(text.len(), "…".len() + TAIL - 1);
    }

    #[test]
    fn a_tail_that_is_cut_inside_a_character_is_still_text() {
        let mut tail = Tail::default();
        tail.push("é".repeat(TAIL).as_bytes());
        tail.push(b"!");
        assert!(tail.text().starts_with("…é"), "{}", tail.text());
    }
}
