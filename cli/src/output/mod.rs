//! The only place that prints: data to standard output, messages to standard error.
//!
//! Characters that control a terminal are escaped here.

pub(crate) mod bar;
#[cfg(feature = "bench")]
pub(crate) mod bench;
pub(crate) mod bulk;
pub(crate) mod dead;
pub(crate) mod findings;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod node;
mod recovery;
pub(crate) mod results;
mod table;
pub(crate) mod token;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Standard output, as text or as JSON.
pub(crate) struct Output {
    json: bool,
    is_terminal: bool,
    /// Whether standard output was closed at the start, so that writes succeed without effect.
    is_closed: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let out = std::io::stdout();
        let is_closed = longshore_closed_stdout::was_closed();
        Self { json, is_terminal: out.is_terminal(), is_closed, out: BufWriter::new(out) }
    }

    /// Whether to print JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Prints text.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(&visible(text, Escape::Rust))
    }

    /// Prints a line of foreign JSON unchanged, or on a terminal with control characters escaped.
    pub(crate) fn data(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        let line = format!("{line}\n");
        if self.is_terminal { self.write(&visible(&line, Escape::Json)) } else { self.write(&line) }
    }

    /// Prints a value as a line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(Failure::other)?;
        self.data(line)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.is_closed && !text.is_empty() {
            return Err(Failure::no_output());
        }
        self.out.write_all(text.as_bytes()).map_err(|error| closed(&error))
    }

    /// Flushes the output; needed before anything that takes time, and at the end.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| closed(&error))
    }
}

/// How a control character is escaped.
#[derive(Clone, Copy)]
enum Escape {
    /// `\u{1b}`.
    Rust,
    /// `\u001b`, which keeps the meaning of a JSON string.
    Json,
}

/// Escapes the characters that control a terminal: control characters except line breaks and tabs,
/// and those that change the direction of writing. Output of tasks, names and messages can contain
/// them.
fn visible(text: &str, escape: Escape) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match escape {
            _ if !is_control(char) => seen.push(char),
            Escape::Rust => seen.extend(char.escape_unicode()),
            Escape::Json => {
                let _ = write!(seen, "\\u{:04x}", u32::from(char));
            }
        }
    }
    Cow::Owned(seen)
}

fn is_control(char: char) -> bool {
    (char.is_control() && !matches!(char, '\n' | '\t'))
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number with a comma between groups of three digits.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Converts a write error. A closed pipe is no error: the reader, such as `head`, has read enough.
fn closed(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::other(format_args!("standard output: {error}")),
    }
}

/// Prints a message to standard error.
pub(crate) fn talk(line: impl std::fmt::Display) {
    write_error(&format!("{line}\n"), Escape::Rust);
}

/// Prints why the command failed, as text or as a line of JSON.
pub(crate) fn error(failure: &Failure, is_json: bool) {
    let Some(problem) = failure.problem() else { return };
    match is_json.then(|| serde_json::to_string(problem)) {
        Some(Ok(json)) => write_error(&format!("{json}\n"), Escape::Json),
        Some(Err(_)) | None => talk(format_args!("error: {problem}")),
    }
}

fn write_error(line: &str, escape: Escape) {
    // Without standard error there is nowhere to report this.
    let _ = std::io::stderr().write_all(visible(line, escape).as_bytes());
}

/// Whether standard error is a terminal.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let text = "\u{1b}]0;title\u{7}\u{1b}[2Jgone\r\u{9b}1m\u{202e}evil\tand\nplain é";
        assert_eq!(
            visible(text, Escape::Rust),
            "\\u{1b}]0;title\\u{7}\\u{1b}[2Jgone\\u{d}\\u{9b}1m\\u{202e}evil\tand\nplain é"
        );
        let json = serde_json::to_string("\u{9b}31m\u{7f}").expect("a string");
        let shown = visible(&json, Escape::Json);
        assert_eq!(shown, r#""\u009b31m\u007f""#);
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), "\u{9b}31m\u{7f}");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 10_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "10,000", "1,234,567"]
        );
    }
}
