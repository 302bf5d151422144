//! The fuzz targets of AMQP frames and of Redis's answers, which contain data of other programs.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use longshore_broker::rabbit::fuzzing::sanitize;

/// The maximum length of an error, which may quote a whole record for an operator who repairs a
/// ledger.
const LONGEST_ERROR: usize = 1_000;

/// The maximum frame size that lapin proposes.
const AGREED: usize = 128 << 10;

const HEADER: u8 = 2;
const FRAME_HEAD: usize = 7;
const FRAME_END: u8 = 0xCE;

/// The output does not depend on the sizes of reads; lapin can parse every header with any
/// properties; bodies are unchanged.
pub(crate) fn amqp_frames(bytes: &[u8]) {
    let (whole, changed) = sanitize([bytes]);
    let step = bytes.first().map_or(1, |first| usize::from(*first) % 7 + 1);
    let (cut, also_changed) = sanitize(bytes.chunks(step));
    assert_eq!((&cut, also_changed), (&whole, changed), "{step} bytes at a time");
    if !changed {
        assert!(bytes.starts_with(&whole), "changed without a report");
    }
    // The same bytes as the properties of a message in a valid frame.
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42];
    let header = frame(HEADER, &[&fixed[..], bytes].concat());
    // RabbitMQ always sends the two octets of flags, and no frame larger than the agreed size.
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

/// Wrong answers are errors, not panics.
pub(crate) fn redis_answers(bytes: &[u8]) {
    for error in longshore_ledger::redis::fuzzing::answers(bytes) {
        super::is_readable(&error.to_string(), LONGEST_ERROR);
    }
}
