//! The built-in `wordcount` task: counts runs of ASCII letters, in lower case.
//!
//! It counts in the lines or the file of a subtask.

use async_trait::async_trait;
use longshore_protocol::{Input, Outcome};
use rustc_hash::FxHashMap;

use super::threads::run_one_on_a_thread;
use super::{Handler, permanent, unreadable};
use crate::Context;

/// The first bytes of every gzip file.
const GZIP: &[u8] = b"\x1f\x8b";

/// The built-in `wordcount`. Its result is an object, word -> count, in alphabetical order.
pub(super) struct Wordcount;

#[async_trait]
impl Handler for Wordcount {
    async fn run(&self, _ctx: Context, input: Input) -> Outcome {
        let read = match &input {
            Input::Window(window) => longshore_storage::read_window(window).await,
            Input::File(file) => longshore_storage::read(file).await,
            _ => return permanent("wordcount needs a job that is split by `lines` or `files`"),
        };
        match read {
            // Letters among compressed bytes are no words.
            Ok(bytes) if bytes.starts_with(GZIP) => {
                permanent("input: compressed by gzip; decompress it first")
            }
            Ok(bytes) => run_one_on_a_thread(move || Outcome::Success(counts(&bytes))).await,
            Err(error) => unreadable(&error),
        }
    }
}

/// The counts as JSON. No word needs an escape: they are letters.
fn counts(bytes: &[u8]) -> String {
    let mut counts: FxHashMap<Vec<u8>, u64> = FxHashMap::default();
    let mut word = Vec::new();
    for run in bytes.split(|byte| !byte.is_ascii_alphabetic()).filter(|run| !run.is_empty()) {
        word.clear();
        word.extend(run.iter().map(u8::to_ascii_lowercase));
        // The lookup before the insert allocates a word only once.
        match counts.get_mut(&word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.clone(), 1);
            }
        }
    }
    let mut sorted: Vec<(&Vec<u8>, &u64)> = counts.iter().collect();
    sorted.sort_unstable();
    let entries: Vec<String> = sorted
        .into_iter()
        .map(|(word, count)| format!("\"{}\":{count}", String::from_utf8_lossy(word)))
        .collect();
    format!("{{{}}}", entries.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{context, failure};
    use super::*;

    #[track_caller]
    fn counted(text: &[u8], expected: &str) {
        assert_eq!(counts(text), expected);
    }

    #[test]
    fn words_are_runs_of_ascii_letters_in_lower_case() {
        counted(b"", "{}");
        counted(b"The quay, the QUAY!", r#"{"quay":2,"the":2}"#);
        counted(b"it's 2nd_try\xc3\xa9a", r#"{"a":1,"it":1,"nd":1,"s":1,"try":1}"#);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_fails_with_its_name() {
        let input = Input::File("/nowhere/at/all.txt".into());
        let (error, _) = failure(Wordcount.run(context(&json!(null)), input).await);
        assert!(error.contains("/nowhere/at/all.txt"), "{error}");
    }

    #[tokio::test]
    async fn a_window_of_a_file_is_counted_by_its_lines() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "one two\nthree\none\n").expect("it can be written");
        let window = longshore_protocol::LineWindow {
            file: file.path().display().to_string(),
            start: 4,
            end: 18,
        };
        let outcome = Wordcount.run(context(&json!(null)), Input::Window(window)).await;
        assert_eq!(outcome, Outcome::Success(r#"{"one":1,"three":1}"#.into()));
    }

    #[tokio::test]
    async fn compressed_bytes_hold_no_words() {
        let file = tempfile::NamedTempFile::new().expect("a folder for it");
        std::fs::write(file.path(), b"\x1f\x8b\x08 and letters").expect("it can be written");
        let input = Input::File(file.path().to_str().expect("it is UTF-8").into());
        let outcome = Wordcount.run(context(&json!(null)), input).await;
        let error = "input: compressed by gzip; decompress it first";
        assert_eq!(failure(outcome), (error.into(), false));
    }
}
