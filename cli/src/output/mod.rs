//! All printing. Data goes to standard output, talk to standard error; nothing else in the command prints.

pub(crate) mod bar;
pub(crate) mod bench;
pub(crate) mod findings;
pub(crate) mod job;
pub(crate) mod node;
mod recovery;
pub(crate) mod results;
mod table;

use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Standard output, for people or for programs.
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(std::io::stdout()) }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(|error| closed(&error))
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).map_err(|error| closed(&error))
    }

    /// One line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(Failure::other)?;
        self.line(line)
    }

    /// Hands on what was printed so far; needed before anything that takes time, and at the end.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| closed(&error))
    }
}

/// A reader that has seen enough closes the pipe, as `head` does; that is no error of ours.
fn closed(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Other(format!("standard output: {error}")),
    }
}

/// One line of talk.
pub(crate) fn talk(line: impl std::fmt::Display) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The last words of a command that failed.
pub(crate) fn error(failure: &Failure) {
    match failure {
        Failure::Closed | Failure::Interrupted | Failure::Ended(_) => {}
        failure => talk(format_args!("error: {failure}")),
    }
}

/// Whether somebody watches.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
