//! What servers send, with the words of other programs in it.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use longshore_broker::rabbit::fuzzing::sanitize;

/// A word that made no sense, or all of a record: this one is for whoever repairs a ledger.
const LONGEST_ERROR: usize = 1_000;

/// lapin proposes 128 KiB at most.
const AGREED: usize = 128 << 10;

const HEADER: u8 = 2;
const FRAME_HEAD: usize = 7;
const FRAME_END: u8 = 0xCE;

/// However the bytes are cut into reads, the same comes out; lapin can read every header with any properties; bodies come
/// out as they went in.
pub(crate) fn amqp_frames(bytes: &[u8]) {
    let (whole, changed) = sanitize([bytes]);
    let step = bytes.first().map_or(1, |first| usize::from(*first) % 7 + 1);
    let (cut, also_changed) = sanitize(bytes.chunks(step));
    assert_eq!((&cut, also_changed), (&whole, changed), "{step} bytes at a time");
    if !changed {
        assert!(bytes.starts_with(&whole), "changed without a word");
    }
    // The same bytes once more as the properties of a message, whose frame is RabbitMQ's and so in order.
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42];
    let header = frame(HEADER, &[&fixed[..], bytes].concat());
    // RabbitMQ always sends the two octets of flags, and no frame larger than was agreed on.
    if (2..AGREED).contains(&bytes.len()) {
        let (out, _) = sanitize([&header[..]]);
        match parse_frame(&out[..]) {
            Ok((rest, AMQPFrame::Header(_, header))) => {
                assert!(rest.is_empty(), "{out:?}");
                assert_eq!(header.body_size, 42);
            }
            other => panic!("{out:?}: {other:?}"),
        }
    }
    let body = frame(3, bytes);
    assert_eq!(sanitize(body.chunks(step)), (body.clone(), false));
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let frame = [&[kind, 0, 1][..], &size, payload, &[FRAME_END]].concat();
    assert_eq!(frame.len(), FRAME_HEAD + payload.len() + 1);
    frame
}

/// What can't be right is an error and no panic, whoever wrote it.
pub(crate) fn redis_answers(bytes: &[u8]) {
    for error in longshore_ledger::redis::fuzzing::answers(bytes) {
        super::is_readable(&error.to_string(), LONGEST_ERROR);
    }
}
