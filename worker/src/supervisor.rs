//! A process that watches a worker from outside: it starts the program again as its child, and when the child crashes it tells
//! the ledger what the system said of it, so that its work goes on elsewhere at once and a subtask that kills workers is
//! failed with evidence; then it starts the child anew.
//!
//! ```text
//!   SIGTERM, Ctrl-C --> supervisor -- end of stdin: drain; SIGQUIT: stop at once --> worker
//!   ledger <-- how it ended -- supervisor <-- exit status, standard error -- worker
//! ```
//!
//! If the supervisor itself is killed, the kernel kills the worker with it. Deliberately absent: anything about subtasks.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_protocol::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Machine;

/// Names the worker to the child, and makes it one. Not passed on to what the worker starts.
pub(crate) const VARIABLE: &str = "LONGSHORE_SUPERVISED_NODE";

/// As much of the end of the standard error as is evidence.
const LAST_WORDS: usize = 1_024;

/// A crash is told within this time or not at all; silence tells it later.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// The first and the longest wait before a worker that crashed is started anew; one that lived so long begins with the first.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);

/// What this process is, after [`supervise`].
#[derive(Debug)]
pub enum Supervision {
    /// The child: it is to work.
    Watched(Watched),
    /// The supervisor, whose work is done: the worker left, and the program is to exit with this code.
    Over(u8),
}

/// What the worker in a supervised process has to know; see [`Worker::watched`](crate::Worker::watched).
#[derive(Clone, Debug)]
pub struct Watched {
    /// The name under which the supervisor knows the worker.
    pub node: NodeId,
    /// Cancelled when the supervisor was asked to stop.
    pub drain: CancellationToken,
}

/// Splits the program in two. What comes before it is done by both, so check there what can be checked and do nothing else: the
/// supervisor, for which it comes back when there is nothing left to watch, and the worker, for which it comes back at once.
///
/// # Errors
/// When the program can't be started again, or signals can't be followed.
pub async fn supervise(ledger: Arc<dyn Ledger>) -> io::Result<Supervision> {
    match std::env::var(VARIABLE) {
        Ok(node) => Ok(Supervision::Watched(watched(NodeId::new(node))?)),
        Err(_) => Supervisor { ledger }.run().await.map(Supervision::Over),
    }
}

fn watched(node: NodeId) -> io::Result<Watched> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let drain = CancellationToken::new();
    let ended = drain.clone();
    // Not tokio's standard input, whose thread would hold up the end of the program.
    std::thread::Builder::new().name("longshore-supervised".into()).spawn(move || {
        // Nothing is ever written to it, so this waits for its end, or for an error that means as much.
        let _ = io::stdin().read(&mut [0]);
        ended.cancel();
    })?;
    Ok(Watched { node, drain })
}

struct Supervisor {
    ledger: Arc<dyn Ledger>,
}

impl Supervisor {
    async fn run(self) -> io::Result<u8> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (mut pause, machine) = (FIRST_PAUSE, Machine::default());
        loop {
            let node = machine.new_node();
            let begun = Instant::now();
            let mut child = start(&node)?;
            let words = child.stderr.take().map(|stderr| tokio::spawn(pass_on(stderr)));
            let mut line = child.stdin.take();
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status?,
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if line.take().is_none() {
                    at_once(&child);
                }
            };
            let stopping = line.is_none();
            let words = match words {
                Some(words) => words.await.unwrap_or_default(),
                None => String::new(),
            };
            let crashed = !status.success() && self.tell(&node, &status, &words).await;
            if stopping || !crashed {
                return Ok(exit_code(status));
            }
            if begun.elapsed() >= LONG_LIFE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = terminate.recv() => return Ok(exit_code(status)),
                _ = interrupt.recv() => return Ok(exit_code(status)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tells the ledger how the worker ended. False for one that the ledger does not know (it ended before it worked,
    /// or left in good order), unless a signal ended it.
    async fn tell(&self, node: &NodeId, status: &ExitStatus, words: &str) -> bool {
        let death = describe(*status, words);
        let told = timeout(TELL_WITHIN, self.ledger.certify(node, &death)).await;
        let known = matches!(told, Ok(Ok(true)));
        let crashed = known || status.signal().is_some();
        if crashed {
            warn!(%node, death, "the worker crashed");
        }
        crashed
    }
}

/// The program once more, as the worker of this name.
fn start(node: &NodeId) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let name: &OsStr = node.as_str().as_ref();
    command.args(std::env::args_os().skip(1)).env(VARIABLE, name).stdin(Stdio::piped());
    // At a terminal the worker speaks for itself, in colour.
    if !io::stderr().is_terminal() {
        command.stderr(Stdio::piped());
    }
    // Ctrl-C is for the supervisor, which passes it on.
    command.process_group(0);
    command.spawn()
}

fn at_once(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        // It may have ended in this instant, which is as good.
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
    }
}

/// Passes standard error on; gives its end.
async fn pass_on(mut stderr: ChildStderr) -> String {
    let (mut ours, mut end) = (tokio::io::stderr(), Vec::new());
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let read = &buffer[..count];
        // Whoever collected our standard error is gone: the words are evidence all the same.
        let _ = ours.write_all(read).await;
        let _ = ours.flush().await;
        end.extend_from_slice(read);
        end.drain(..end.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&end).trim().to_owned()
}

/// What the system said, and the process last.
fn describe(status: ExitStatus, words: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => status.to_string(),
    };
    if words.is_empty() { how } else { format!("{how}; its last words: {words}") }
}

/// As shells count.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: i32, words: &str, expected: &str, code: u8) {
        let status = ExitStatus::from_raw(raw);
        assert_eq!((describe(status, words).as_str(), exit_code(status)), (expected, code));
    }

    #[test]
    fn an_end_is_told_in_the_words_of_the_system() {
        check(6, "", "killed by SIGABRT", 134);
        check(6 | 0x80, "", "killed by SIGABRT", 134);
        check(9, "oom", "killed by SIGKILL; its last words: oom", 137);
        check(3 << 8, "", "exited with code 3", 3);
        check(0, "", "exited with code 0", 0);
    }
}
