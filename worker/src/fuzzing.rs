//! Exposes the readers of chunk messages, answers and output to fuzz tests.
//!
//! Not an API: it changes without notice.

use longshore_protocol::{ChunkMessage, Outcome};

/// Reads the body of a message from the broker; `None` if the message is dropped.
pub fn chunk_message(body: &[u8]) -> Option<ChunkMessage> {
    crate::pipeline::read(body)
}

/// Reads the line that a served command answers with; the error is for people.
pub fn served_answer(line: &[u8]) -> Result<Outcome, String> {
    crate::task::served_answer(line)
}

/// Reads the output of a command or an endpoint as a result.
pub fn output(text: &[u8]) -> Result<String, Outcome> {
    crate::task::result_of_text(text, crate::task::Output::Auto)
}
