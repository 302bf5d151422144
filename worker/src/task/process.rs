//! Starts the programs of commands and served commands, and describes how they ended.
//!
//! Every program runs below a shim of its own, which holds all processes that it starts.
//! Deliberately absent: a shell; arguments reach the program as they are in the configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

use crate::Context;
use crate::shim::{self, Group, Pipes, Shims};

/// How long a handler needs at most to end a program: [`shim::TERM_GRACE`] and some time for a slow
/// host.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(shim::TERM_GRACE.as_secs() + 2);

/// How long after the end of a program its output is still read: a process that it started may hold
/// the pipes open for ever.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// How long the outcome of a program that a stop signal seems to have ended waits for the worker to
/// get that signal, too: systemd and terminals signal all processes, in no certain order.
const SIGNAL_WITHIN: Duration = Duration::from_secs(1);

/// How many bytes of the end of a program's standard error are kept.
const TAIL: usize = 4 << 10;

/// A program with its arguments and environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Program and arguments; never empty.
    pub(super) argv: Vec<String>,
    /// Added to the variables that the worker passes on.
    pub(super) env: BTreeMap<String, String>,
    /// The working directory; the worker's own unless set.
    pub(super) cwd: Option<PathBuf>,
}

impl Program {
    /// Starts the program.
    pub(super) async fn spawn(
        &self,
        shims: &Arc<Shims>,
        environment: &[(&str, String)],
    ) -> io::Result<(Group, Pipes)> {
        let env = self.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        let more = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = shim::Request {
            argv: self.argv.clone(),
            env: env.chain(more).collect(),
            cwd: self.cwd.clone(),
        };
        shims.start(&request).await.map_err(|error| match &self.cwd {
            // The system's error would read as if the program were missing.
            Some(cwd) if error.kind() == io::ErrorKind::NotFound && !cwd.is_dir() => {
                io::Error::new(error.kind(), format!("cwd: no directory `{}`", cwd.display()))
            }
            _ => error,
        })
    }

    /// The program's name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.argv[0]
    }
}

/// The environment variables that describe the subtask.
pub(super) fn environment(ctx: &Context) -> [(&'static str, String); 4] {
    [
        ("LONGSHORE_JOB", ctx.job.to_string()),
        ("LONGSHORE_INDEX", ctx.index.to_string()),
        ("LONGSHORE_ATTEMPT", ctx.attempt.to_string()),
        ("LONGSHORE_NODE", ctx.node.to_string()),
    ]
}

/// Waits until it is known whether a program that ended with this status was stopped together with
/// the worker. The pipeline releases such an attempt.
pub(super) async fn await_stop_signal(ctx: &Context, status: ExitStatus) {
    if looks_stopped(status) {
        tokio::select! {
            () = ctx.stopping.cancelled() => {}
            () = ctx.cancelled() => {}
            () = tokio::time::sleep(SIGNAL_WITHIN) => {}
        }
    }
}

/// Whether SIGTERM, SIGINT or SIGHUP ended the program; shells tell that by their exit code.
fn looks_stopped(status: ExitStatus) -> bool {
    let stops = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|signal| signal as i32);
    let signal = status.signal().or(status.code().map(|code| code - 128));
    signal.is_some_and(|signal| stops.contains(&signal))
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

/// The end of a program's standard error.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // The tail grows to twice its size, so that each byte is moved once at most.
        if self.bytes.len() > 2 * TAIL {
            self.trim();
        }
    }

    /// The tail as text; empty if there is none.
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

/// Adds the tail to a text: `exit code 3: no such file`.
pub(super) fn with_tail(what: String, tail: &mut Tail) -> String {
    let text = tail.text();
    if text.is_empty() { what } else { format!("{what}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_recognized_by_signal_and_by_exit_code() {
        for raw in [1, 2, 15, 129 << 8, 130 << 8, 143 << 8] {
            assert!(looks_stopped(ExitStatus::from_raw(raw)), "{raw}");
        }
        for raw in [0, 9, 11, 1 << 8, 2 << 8, 15 << 8, 137 << 8] {
            assert!(!looks_stopped(ExitStatus::from_raw(raw)), "{raw}");
        }
    }

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
