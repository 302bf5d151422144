//! Records of the journal: what is written is read back, whole or in pieces.

use longshore_protocol::document::journal_schema;
use longshore_protocol::state::JobState;
use longshore_protocol::{
    JobId, JournalDecoder, JournalEnding, JournalEvent, JournalRecord, LARGEST_RECORD, SchedulerId,
    Timestamp,
};
use serde_json::{Value, json};

use crate::schemas::validator;

const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn job(number: u128) -> JobId {
    JobId::from_uuid(uuid::Uuid::from_u128(number))
}

fn admitted(document: String) -> JournalEvent {
    JournalEvent::Admitted {
        job: job(7),
        at: AT,
        keep_for_ms: 86_400_000,
        document,
        manifest: None,
    }
}

fn ending() -> JournalEnding {
    JournalEnding {
        state: JobState::Failed,
        finished_at: AT,
        submitted_at: AT,
        started_at: None,
        done: u64::MAX / 2,
        failed: 1,
        cancelled: 0,
        reduce_done: 0,
        reduce_failed: 0,
        reduce_cancelled: 3,
        generation: 1,
        attempts: 12,
        busy_ms: 99,
        lost: 0,
        error: Some("1 of 12 subtasks failed".into()),
    }
}

fn all() -> [JournalEvent; 8] {
    let job = job(7);
    [
        admitted("{\"task\":\"wörter\"}".into()),
        JournalEvent::Ended { job, ending: ending() },
        JournalEvent::Paused { job, at: AT },
        JournalEvent::Resumed { job, at: AT },
        JournalEvent::Reopened { job, at: AT },
        JournalEvent::Deleted { job, at: AT },
        JournalEvent::Piece { job, at: AT, number: 1, of: 3, text: "x".into() },
        JournalEvent::Mark { by: SchedulerId::new("quay-1") },
    ]
}

#[test]
fn every_record_is_read_as_it_was_written_and_obeys_the_schema() {
    let schema = validator(&journal_schema());
    for event in all() {
        let messages = JournalRecord::encode(&event);
        let [message] = messages.as_slice() else { panic!("{event:?} is short") };
        let value: Value = serde_json::from_str(message).expect("JSON");
        assert!(schema.is_valid(&value), "{message}");
        if !matches!(event, JournalEvent::Piece { .. }) {
            let read = JournalDecoder::default().decode(message.as_bytes()).expect("readable");
            assert_eq!(read.as_ref(), Some(&event), "{message}");
        }
    }
}

#[test]
fn the_records_read_as_documented() {
    let [message] = &JournalRecord::encode(&JournalEvent::Paused { job: job(7), at: AT })[..]
    else {
        panic!("one message")
    };
    let value: Value = serde_json::from_str(message).expect("JSON");
    let id = "00000000-0000-0000-0000-000000000007";
    assert_eq!(value, json!({"v": 1, "is": "paused", "job": id, "at": 1_700_000_000_000_u64}));
}

#[test]
fn a_record_that_is_too_long_travels_in_pieces_that_fit() {
    // What doubles when it is quoted, and characters that a cut could split.
    let long = admitted("\"ö\\".repeat(LARGEST_RECORD / 3));
    let messages = JournalRecord::encode(&long);
    assert!(messages.len() > 1);
    let longest = messages.iter().map(String::len).max();
    assert!(longest.is_some_and(|longest| longest < 16 << 20), "{longest:?}");
    let mut decoder = JournalDecoder::default();
    // The first publisher died after two pieces; the next begins again. Another job's record comes
    // in between.
    let other = JournalRecord::encode(&JournalEvent::Paused { job: job(8), at: AT });
    let stream = messages[..2].iter().chain(&messages).chain(&other).chain(&messages[1..]);
    let read: Vec<JournalEvent> =
        stream.filter_map(|m| decoder.decode(m.as_bytes()).expect("readable")).collect();
    assert_eq!(read.len(), 2, "the pieces behind the last complete one are left alone");
    assert!(read[0] == long, "put together as it was");
    assert!(matches!(read[1], JournalEvent::Paused { .. }));
}

#[test]
fn what_is_no_record_of_ours_is_an_error() {
    for text in ["", "{}", "{\"v\":1,\"is\":\"moved\"}", "{\"v\":2,\"is\":\"mark\",\"by\":\"x\"}"] {
        assert!(JournalDecoder::default().decode(text.as_bytes()).is_err(), "{text}");
    }
}
