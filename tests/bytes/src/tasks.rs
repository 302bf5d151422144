//! The fuzz targets of chunk messages, of answers of served commands, and of output of programs.

use longshore_protocol::{ChunkMessage, Outcome, ResultBody};
use longshore_worker::fuzzing;

/// The maximum length of an error, which quotes the beginning of the answer.
const LONGEST_ERROR: usize = 2_000;

/// An accepted message has the right version, and survives serialization.
pub(crate) fn chunk_message(bytes: &[u8]) {
    let Some(message) = fuzzing::chunk_message(bytes) else { return };
    assert_eq!(message.v, ChunkMessage::VERSION);
    let text = serde_json::to_vec(&message).expect("plain data");
    assert_eq!(fuzzing::chunk_message(&text), Some(message));
}

/// A result can be parsed again, for example by a reduction; a wrong answer gets an error.
pub(crate) fn served_answer(bytes: &[u8]) {
    match fuzzing::served_answer(bytes) {
        Ok(Outcome::Success(json)) => is_a_result(&json),
        Ok(_) => {}
        Err(error) => super::is_readable(&error, LONGEST_ERROR),
    }
}

/// Every text is a result that can be parsed again.
pub(crate) fn output(bytes: &[u8]) {
    match fuzzing::output(bytes) {
        Ok(json) => {
            is_a_result(&json);
            assert_eq!(fuzzing::output(json.as_bytes()), Ok(json));
        }
        Err(Outcome::Failure { error, .. }) => {
            super::is_readable(&error, LONGEST_ERROR);
        }
        Err(other) => panic!("{other:?}"),
    }
    let text = String::from_utf8_lossy(bytes);
    if let ResultBody::Object { url, .. } = ResultBody::from(&*text) {
        assert!(text.contains(&url));
    }
}

/// Checks that a result is one line of JSON, and not a pointer.
fn is_a_result(json: &str) {
    assert!(!json.contains('\n') && !json.starts_with('@'), "{json:?}");
    let checked = longshore_protocol::json::check(json);
    assert_eq!(checked, Ok(()), "a result that can't be read: {json:?}");
}
