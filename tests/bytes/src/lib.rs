//! What must hold of every reader of foreign bytes, whatever the bytes.
//!
//! A target is a function of bytes that panics when something does not hold. The fuzzer (`fuzz/`) looks for bytes that make
//! it panic; `tests/corpus.rs` replays what it kept, in the default test command; `tests/mutated.rs` starts from what is valid
//! and breaks it. The readers are the production ones.
//!
//! Of all of them: no panic, and an error is one line of bounded length. Deliberately absent: whether an input is read as
//! it should be, which the readers' own tests tell.

mod documents;
mod frames;
mod settings;
mod tasks;

/// A target of the fuzzer: its name is that of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("job_document", documents::job_document),
    ("chunk_message", tasks::chunk_message),
    ("served_answer", tasks::served_answer),
    ("output", tasks::output),
    ("amqp_frames", frames::amqp_frames),
    ("redis_answers", frames::redis_answers),
    ("addresses", settings::addresses),
    ("task_spec", settings::task_spec),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target");
    target(bytes);
}

/// Errors are read by people, in logs and in one field of a status.
#[track_caller]
fn is_readable(error: &str, longest: usize) {
    assert!(!error.is_empty(), "an error without words");
    assert!(!error.contains(['\n', '\r']), "more than one line: {error:?}");
    assert!(error.len() <= longest, "{} bytes of error: {error:?}", error.len());
}
