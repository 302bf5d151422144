//! Gives the fuzz targets mutations of valid inputs, which are closer to real mistakes than noise.

use std::fs;
use std::path::Path;

use longshore_bytes::run;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Tokens that have a meaning for a parser.
const WORDS: [&str; 28] = [
    "null",
    "true",
    "-0",
    "1e999",
    "-1",
    "0.1",
    "18446744073709551616",
    "9223372036854775808",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u2028\"",
    "{}",
    "[]",
    "{\"a\":{\"a\":[[]]}}",
    "\"30s\"",
    "\"1MiB\"",
    "\"/**/*\"",
    "\"s3://b/k\"",
    "\"~2\"",
    "\"auto\"",
    ",",
    ":",
    "\"",
    "@",
    "%2F",
    "#1",
    "\n",
    "\0",
];

#[derive(Clone, Debug)]
enum Change {
    Cut(Index, Index),
    Insert(Index, &'static str),
    Put(Index, u8),
    Repeat(Index, Index),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        let range = |a: &Index, b: &Index| {
            let (a, b) = (a.index(bytes.len() + 1), b.index(bytes.len() + 1));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Cut(a, b) => drop(bytes.drain(range(a, b))),
            Self::Insert(at, word) => {
                let at = at.index(bytes.len() + 1);
                drop(bytes.splice(at..at, word.bytes()));
            }
            Self::Put(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Put(_, byte) => bytes.push(*byte),
            Self::Repeat(a, b) => {
                let range = range(a, b);
                let part = bytes[range.clone()].to_vec();
                drop(bytes.splice(range.start..range.start, part));
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        1 => (index(), index()).prop_map(|(a, b)| Change::Cut(a, b)),
        3 => (index(), select(&WORDS)).prop_map(|(at, word)| Change::Insert(at, word)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        1 => (index(), index()).prop_map(|(a, b)| Change::Repeat(a, b)),
    ]
}

/// The kept inputs of a target, in a fixed order.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(folder).expect("a folder for each target");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("readable")).collect()
}

#[track_caller]
fn survives(target: &str) {
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() };
    let inputs = (select(kept(target)), prop::collection::vec(change(), 0..5));
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&inputs, |(mut bytes, changes)| {
            changes.iter().for_each(|change| change.make(&mut bytes));
            run(target, &bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{target}: {error}"));
}

#[test]
fn job_documents_that_are_nearly_valid() {
    survives("job_document");
}

#[test]
fn chunk_messages_that_are_nearly_valid() {
    survives("chunk_message");
}

#[test]
fn answers_of_served_commands_that_are_nearly_valid() {
    survives("served_answer");
}

#[test]
fn output_that_is_nearly_json() {
    survives("output");
}

#[test]
fn frames_that_are_nearly_amqp() {
    survives("amqp_frames");
}

#[test]
fn answers_of_redis_that_are_nearly_ours() {
    survives("redis_answers");
}

#[test]
fn addresses_that_are_nearly_right() {
    survives("addresses");
}

#[test]
fn tasks_that_are_nearly_right() {
    survives("task_spec");
}
