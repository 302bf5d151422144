//! Which frames the sanitizer passes, which it repairs, and of which it drops the properties.

use super::*;
use amq_protocol::frame::{AMQPFrame, parse_frame};
use proptest::prelude::*;

const FRAME_MAX: usize = 4096;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[0xCE]].concat()
}

fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42];
    frame(HEADER, &[&fixed[..], &flags.to_be_bytes(), properties].concat())
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("small").to_be_bytes()[..], bytes].concat()
}

const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;

/// Checks the whole stream at once, and split into small reads.
#[track_caller]
fn check(wire: &[u8], expected: &[u8], change: Option<Change>) {
    for step in [wire.len(), 1, 5] {
        let (mut sanitizer, mut out, mut changed) = (Sanitizer::new(FRAME_MAX), Vec::new(), None);
        for read in wire.chunks(step.max(1)) {
            changed = changed.max(sanitizer.take(read, &mut out));
        }
        assert_eq!(out, expected, "{step} bytes at a time");
        assert_eq!(changed, change, "{step} bytes at a time");
    }
}

#[test]
fn readable_frames_pass_as_they_came() {
    let table = long(&[&short(b"reason")[..], b"S", &long(b"\xff any bytes")].concat());
    let headers = header(HEADERS | MESSAGE_ID, &[table, short("Grüße".as_bytes())].concat());
    let body = frame(BODY, b"\xff\xfe\x02\x00");
    let all = [headers, body.clone(), frame(HEARTBEAT, b""), body].concat();
    check(&all, &all, None);
}

#[test]
fn bytes_that_are_not_utf_8_become_question_marks() {
    let bad = header(MESSAGE_ID, &short(b"id-\xff\xfe-\xc3"));
    check(&bad, &header(MESSAGE_ID, &short(b"id-??-?")), Some(Change::Replaced));
    let table = |key: &[u8]| long(&[&short(key)[..], b"t\x01"].concat());
    let bad = header(HEADERS, &table(b"k\xff"));
    check(&bad, &header(HEADERS, &table(b"k?")), Some(Change::Replaced));
    let deliver = |key: &[u8]| {
        let tag = [&short(b"ctag")[..], &[0; 8], &[0]].concat();
        frame(METHOD, &[&BASIC_DELIVER[..], &tag, &short(b"longshore"), &short(key)].concat())
    };
    check(&deliver(b"\x80jobs"), &deliver(b"?jobs"), Some(Change::Replaced));
}

#[test]
fn unreadable_properties_are_dropped() {
    let none = header(0, b"");
    let dropped = Some(Change::Dropped);
    check(&header(MESSAGE_ID, b"\x09short"), &none, dropped);
    check(&header(MESSAGE_ID, b"\x01a-and-more"), &none, dropped);
    check(&header(HEADERS, &long(&[&short(b"k")[..], b"?"].concat())), &none, dropped);
    check(&header(1, b"\0\0"), &none, dropped);
    let mut deep = long(b"");
    for _ in 0..1_000 {
        deep = long(&[&short(b"k")[..], b"F", &deep].concat());
    }
    check(&header(HEADERS, &deep), &none, dropped);
}

/// Broken properties are all dropped, and nothing else of the header is.
#[track_caller]
fn dropped(flags: u16, properties: &[u8]) {
    check(&header(flags, properties), &header(0, b""), Some(Change::Dropped));
}

#[track_caller]
fn kept(flags: u16, properties: &[u8]) {
    let wire = header(flags, properties);
    check(&wire, &wire, None);
}

/// A table of one entry.
fn entry(kind: u8, value: &[u8]) -> Vec<u8> {
    long(&[&short(b"k")[..], &[kind], value].concat())
}

#[test]
fn the_length_of_each_property_is_checked() {
    for bit in 2..16 {
        let property = match bit {
            13 => entry(b't', &[1]),
            11 | 12 => vec![1],
            6 => vec![9; 8],
            _ => short(b"text"),
        };
        let flags = 1 << bit;
        kept(flags, &property);
        dropped(flags, &property[..property.len() - 1]);
        dropped(flags, &[&property[..], b"\0"].concat());
        // After another property.
        let first = (flags | 1 << 15, [short(b""), property].concat());
        if bit < 15 {
            kept(first.0, &first.1);
        }
    }
    kept(0, b"");
    dropped(0, b"\0");
    // These announce properties that basic messages don't have.
    dropped(1, b"");
    dropped(2, b"");
    dropped(3, b"");
}

#[test]
fn the_length_of_each_type_of_value_is_checked_and_unknown_types_are_dropped() {
    let sizes: [(&[u8], usize); 7] =
        [(b"V", 0), (b"tbB", 1), (b"sUu", 2), (b"Iif", 4), (b"D", 5), (b"LldT", 8), (b"SxFA", 4)];
    let size_of = |kind| sizes.iter().find(|(kinds, _)| kinds.contains(&kind));
    for kind in 0..=u8::MAX {
        let Some((_, size)) = size_of(kind) else {
            // Whatever follows, or does not.
            (0..=9).for_each(|size| dropped(HEADERS, &entry(kind, &vec![0; size])));
            continue;
        };
        kept(HEADERS, &entry(kind, &vec![0; *size]));
        dropped(HEADERS, &entry(kind, &vec![0; size + 1]));
        if *size > 0 {
            dropped(HEADERS, &entry(kind, &vec![0; size - 1]));
        }
    }
    for kind in *b"Sx" {
        kept(HEADERS, &entry(kind, &long(b"\xff")));
        dropped(HEADERS, &entry(kind, b"\0\0\0\x02?"));
    }
    kept(HEADERS, &entry(b'A', &long(b"t\x01VF\0\0\0\0")));
    dropped(HEADERS, &entry(b'A', &long(b"t\x01?")));
    kept(HEADERS, &entry(b'F', &entry(b'V', b"")));
    dropped(HEADERS, &entry(b'F', &entry(b'?', b"")));
}

#[test]
fn the_last_entry_of_a_table_ends_with_the_table() {
    // The last value reaches over the end of its table, into what follows in the message.
    let table = [&[0, 0, 0, 4][..], &short(b"k"), b"t", b"\x01", &short(b"id")].concat();
    kept(HEADERS | MESSAGE_ID, &table);
    for length in [3, 5] {
        let broken = [&[0, 0, 0, length], &table[4..]].concat();
        dropped(HEADERS | MESSAGE_ID, &broken);
    }
    let list = |length: u8| entry(b'A', &[0, 0, 0, length, b's', 0, 1]);
    kept(HEADERS, &list(3));
    dropped(HEADERS, &list(2));
    dropped(HEADERS, &list(4));
    dropped(HEADERS, &[0xff; 4]);
}

#[test]
fn tables_and_lists_may_be_nested_sixteen_levels_deep() {
    for kind in *b"FA" {
        let nested = |deep: u32| {
            let wrap = |value: Vec<u8>, _| match kind {
                b'F' => entry(b'F', &value),
                _ => long(&[b"A", &value[..]].concat()),
            };
            entry(kind, &(1..deep).fold(long(b""), wrap))
        };
        kept(HEADERS, &nested(16));
        dropped(HEADERS, &nested(17));
    }
}

#[test]
fn the_texts_of_a_delivery_are_repaired_and_other_methods_pass() {
    let texts = |method: [u8; 4], tag: &[u8], exchange: &[u8], key: &[u8]| {
        let tag = [&short(tag)[..], &[0xff; 9]].concat();
        frame(METHOD, &[&method[..], &tag, &short(exchange), &short(key)].concat())
    };
    let clean = [&b"ctag"[..], b"longshore", b"jobs"];
    for place in 0..3 {
        let (mut bad, mut repaired) = (clean, clean);
        (bad[place], repaired[place]) = (b"a\xffb", b"a?b");
        let of = |method, [tag, exchange, key]: [&[u8]; 3]| texts(method, tag, exchange, key);
        let change = Some(Change::Replaced);
        check(&of(BASIC_DELIVER, bad), &of(BASIC_DELIVER, repaired), change);
        for method in [[0, 60, 0, 61], [0, 60, 1, 60], [0, 61, 0, 60], [1, 60, 0, 60]] {
            check(&of(method, bad), &of(method, bad), None);
        }
    }
    // RabbitMQ's own frames pass, whole or not.
    let cut = frame(METHOD, &[&BASIC_DELIVER[..], b"\x09cut"].concat());
    check(&cut, &cut, None);
    let empty = frame(METHOD, b"");
    check(&empty, &empty, None);
}

#[test]
fn a_header_without_flags_is_repaired_and_a_shorter_one_passes() {
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42];
    check(&frame(HEADER, &fixed), &header(0, b""), Some(Change::Dropped));
    check(&frame(HEADER, &[&fixed[..], b"\0"].concat()), &header(0, b""), Some(Change::Dropped));
    let short = frame(HEADER, &fixed[..11]);
    check(&short, &short, None);
}

#[test]
fn the_largest_change_is_reported() {
    let (replaced, dropped) = (header(MESSAGE_ID, &short(b"\xff")), header(1, b""));
    for order in [[&replaced, &dropped], [&dropped, &replaced]] {
        let mut sanitizer = Sanitizer::new(FRAME_MAX);
        let change = sanitizer.take(&order.map(Vec::as_slice).concat(), &mut Vec::new());
        assert_eq!(change, Some(Change::Dropped));
    }
}

#[test]
fn frames_without_text_pass_before_they_are_complete() {
    for kind in [BODY, HEARTBEAT] {
        let wire = frame(kind, &[0xff; 20]);
        let (mut sanitizer, mut out) = (Sanitizer::new(FRAME_MAX), Vec::new());
        for cut in FRAME_HEAD..=wire.len() {
            sanitizer.take(&wire[out.len()..cut], &mut out);
            assert_eq!(out, wire[..cut]);
        }
        // The frame that follows is inspected, however the stream is split.
        let (bad, repaired) = (header(1, b""), header(0, b""));
        check(&[&wire[..], &bad].concat(), &[wire, repaired].concat(), Some(Change::Dropped));
    }
    // A frame with text is held until its last byte.
    let wire = header(MESSAGE_ID, &short(b"id"));
    let (mut sanitizer, mut out) = (Sanitizer::new(FRAME_MAX), Vec::new());
    sanitizer.take(&wire[..wire.len() - 1], &mut out);
    assert_eq!(out, b"");
    sanitizer.take(&wire[wire.len() - 1..], &mut out);
    assert_eq!(out, wire);
}

#[test]
fn properties_longer_than_a_frame_are_dropped() {
    let text = |length| header(HEADERS, &entry(b'S', &long(&vec![b'x'; length])));
    let around = text(0).len();
    let fits = text(FRAME_MAX - around);
    check(&fits, &fits, None);
    check(&text(FRAME_MAX - around + 1), &header(0, b""), Some(Change::Dropped));
}

#[test]
fn frames_with_text_have_a_maximum_size_and_bodies_have_none() {
    // The frame that follows is repaired only if the stream still counts as AMQP.
    let (bad, repaired) = (header(1, b""), header(0, b""));
    let payload = |length: usize| vec![0; length - FRAME_HEAD - FRAME_END];
    let follow = |kind, length, expected: &[u8]| {
        let first = frame(kind, &payload(length));
        let mut out = Vec::new();
        Sanitizer::new(FRAME_MAX).take(&[&first[..], &bad].concat(), &mut out);
        assert!(out == [&first[..], expected].concat(), "{kind}, {length} bytes");
    };
    follow(METHOD, LARGEST_FRAME, &repaired);
    follow(METHOD, LARGEST_FRAME + 1, &bad);
    follow(BODY, LARGEST_FRAME + 1, &repaired);
    follow(0, 20, &bad);
    follow(4, 20, &bad);
    follow(7, 20, &bad);
    follow(9, 20, &bad);
}

#[test]
fn a_stream_that_is_not_amqp_passes_at_once() {
    check(b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.1 400 Bad Request\r\n", None);
    check(b"AMQP\x00\x00\x09\x01", b"AMQP\x00\x00\x09\x01", None);
    let huge = [&[METHOD, 0, 0][..], &u32::MAX.to_be_bytes(), b"and so on"].concat();
    check(&huge, &huge, None);
}

proptest! {
    #[test]
    fn lapin_can_parse_whatever_a_publisher_writes(
        flags: u16,
        properties in prop::collection::vec(
            prop_oneof![
                4 => 0u8..8,
                2 => prop::sample::select(b"tbBsUuIifdDlLTSxFAV".to_vec()),
                1 => any::<u8>(),
            ],
            0..200,
        ),
        key in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (tag, exchange, key) = (short(b"c"), short(b""), short(&key));
        let deliver = [&BASIC_DELIVER[..], &tag, &[0; 9], &exchange, &key].concat();
        for wire in [header(flags, &properties), frame(METHOD, &deliver)] {
            let mut out = Vec::new();
            Sanitizer::new(FRAME_MAX).take(&wire, &mut out);
            let parsed = parse_frame(&out[..]);
            prop_assert!(parsed.is_ok(), "{out:?}: {parsed:?}");
            let (rest, parsed) = parsed.expect("checked above");
            prop_assert!(rest.is_empty());
            if let AMQPFrame::Header(_, header) = parsed {
                prop_assert_eq!(header.body_size, 42);
            }
        }
    }
}
