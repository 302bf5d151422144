//! The list of fuzz targets: each checks the properties of one parser of external bytes.
//!
//! A target is a function of bytes that panics when a property does not hold. The fuzzer (`fuzz/`)
//! looks for bytes that make it panic; `tests/corpus.rs` replays the kept inputs in the default
//! test command; `tests/mutated.rs` changes valid inputs. The parsers are those of production.
//!
//! All targets check that no input panics and that an error is one line of bounded length.
//! Deliberately absent: whether an input is parsed correctly, which the tests of the parsers check.

mod documents;
mod frames;
mod settings;
mod tasks;

/// A fuzz target and its name, which is also the name of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All fuzz targets.
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

/// Checks that an error is one line of at most `longest` bytes, because people read it in logs and
/// in `status`.
#[track_caller]
fn is_readable(error: &str, longest: usize) {
    assert!(!error.is_empty(), "an error without words");
    assert!(!error.contains(['\n', '\r']), "more than one line: {error:?}");
    assert!(error.len() <= longest, "{} bytes of error: {error:?}", error.len());
}
