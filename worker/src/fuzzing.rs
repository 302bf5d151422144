//! The private readers of foreign bytes, for tests that feed them garbage. No API: it changes
//! without notice.

use longshore_protocol::{ChunkMessage, Outcome};

/// The body of a message from the broker; `None` if it is dropped.
pub fn chunk_message(body: &[u8]) -> Option<ChunkMessage> {
    crate::pipeline::read(body)
}

/// The line that a served command answers with; the error is for people.
pub fn served_answer(line: &[u8]) -> Result<Outcome, String> {
    crate::task::served_answer(line)
}

/// What a command or an endpoint said, as a result.
pub fn output(text: &[u8]) -> Result<String, Outcome> {
    crate::task::result_of_text(text, crate::task::Output::Auto)
}

/// Whether the lines of a run that the ledger gave stand at the indices that it names.
pub fn pointer(lines: &str) -> Option<(&str, usize)> {
    crate::input::pointer(lines)
}
