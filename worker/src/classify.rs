//! Decides what the ledger is to record of an outcome: done, retry after a delay, deferral, failed.
//!
//! Results and errors that are too long are dealt with here.

use std::time::Duration;

use longshore_protocol::document::Retry;
use longshore_protocol::{Outcome, OutcomeRun};

use crate::config::MAX_LEDGER_RESULT;

/// A subtask that says "not now" more often than this has failed.
const MAX_DEFERRALS: u32 = 100;

/// The longest delay that a subtask which says "not now" may ask for.
const MAX_DEFERRAL: Duration = Duration::from_secs(24 * 3600);

/// Errors are cut at this length: they are for people.
const MAX_ERROR_BYTES: usize = 8 << 10;

/// Classifies the outcomes of one chunk: all its subtasks are at the same attempt.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeClassifier {
    /// The job's retry policy.
    pub(crate) retry: Retry,
    /// The number of the attempt, from 1.
    pub(crate) attempt: u32,
    /// How often the chunk said "not now" before.
    pub(crate) deferrals: u32,
    /// The largest result, bytes.
    pub(crate) max_result: usize,
    /// Whether results are kept; false where the job discards them.
    pub(crate) keep_results: bool,
}

impl OutcomeClassifier {
    /// What limits the size of results, for the error message.
    fn limit(&self) -> &'static str {
        if self.max_result < MAX_LEDGER_RESULT {
            "max_result"
        } else {
            "4 MiB in the ledger; `results` at a `file://` or `s3://` URL may be larger"
        }
    }

    /// What the ledger is to record for an outcome. `random` in `0.0..1.0` decides the jitter of
    /// delays.
    pub(crate) fn classify(&self, outcome: Outcome, random: f64) -> OutcomeRun {
        match outcome {
            Outcome::Success(json) if json.len() > self.max_result => OutcomeRun::Failed {
                error: format!(
                    "the result is {} bytes long; at most {} are allowed ({}); \
                     write it to a file or an object and return its name",
                    json.len(),
                    self.max_result,
                    self.limit(),
                ),
            },
            Outcome::Success(json) => {
                let results = self.keep_results.then(|| (json + "\n").into());
                OutcomeRun::Success { count: 1, results }
            }
            Outcome::Failure { error, retry } => {
                let error = cut_error(error);
                match self.retry.delay_after(self.attempt, random).filter(|_| retry) {
                    Some(delay) => OutcomeRun::Retry { error, delay },
                    None => OutcomeRun::Failed { error },
                }
            }
            // The pipeline releases such a chunk before this.
            Outcome::NotStarted { .. } => {
                OutcomeRun::Defer { delay: self.retry.backoff_for(self.deferrals + 1, random) }
            }
            Outcome::NotNow { reason, .. } if self.deferrals >= MAX_DEFERRALS => {
                OutcomeRun::Failed {
                    error: cut_error(format!("said \"not now\" {MAX_DEFERRALS} times: {reason}")),
                }
            }
            Outcome::NotNow { after, .. } => {
                let tries = self.deferrals + 1;
                let delay = after.unwrap_or_else(|| self.retry.backoff_for(tries, random));
                OutcomeRun::Defer { delay: delay.min(MAX_DEFERRAL) }
            }
        }
    }
}

/// Cuts an error that is too long between two characters.
pub(crate) fn cut_error(mut error: String) -> String {
    if error.len() > MAX_ERROR_BYTES {
        error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classifier() -> OutcomeClassifier {
        let retry = Retry { attempts: 2, jitter: 0.0, ..Retry::default() };
        OutcomeClassifier { retry, attempt: 1, deferrals: 0, max_result: 10, keep_results: true }
    }

    #[track_caller]
    fn becomes(classifier: &OutcomeClassifier, outcome: Outcome, run: &OutcomeRun) {
        assert_eq!(classifier.classify(outcome, 0.5), *run);
    }

    fn failure(retry: bool) -> Outcome {
        Outcome::Failure { error: "e".into(), retry }
    }

    fn not_now(after: Option<Duration>) -> Outcome {
        Outcome::NotNow { reason: "full".into(), after }
    }

    #[test]
    fn outcomes_become_runs() {
        let second = Duration::from_secs(1);
        let success = |results| OutcomeRun::Success { count: 1, results };
        becomes(&classifier(), Outcome::Success("1".into()), &success(Some("1\n".into())));
        becomes(
            &classifier(),
            failure(true),
            &OutcomeRun::Retry { error: "e".into(), delay: second },
        );
        becomes(&classifier(), failure(false), &OutcomeRun::Failed { error: "e".into() });
        becomes(&classifier(), not_now(None), &OutcomeRun::Defer { delay: second });
        becomes(&classifier(), not_now(Some(7 * second)), &OutcomeRun::Defer { delay: 7 * second });
        becomes(
            &classifier(),
            not_now(Some(Duration::MAX)),
            &OutcomeRun::Defer { delay: MAX_DEFERRAL },
        );
        let discard = OutcomeClassifier { keep_results: false, ..classifier() };
        becomes(&discard, Outcome::Success("1".into()), &success(None));
    }

    #[test]
    fn the_last_attempt_and_the_last_deferral_fail_for_good() {
        let last = OutcomeClassifier { attempt: 2, ..classifier() };
        becomes(&last, failure(true), &OutcomeRun::Failed { error: "e".into() });
        let deferred = OutcomeClassifier { deferrals: MAX_DEFERRALS, ..classifier() };
        let error = "said \"not now\" 100 times: full".into();
        becomes(&deferred, not_now(None), &OutcomeRun::Failed { error });
    }

    /// The error of a success that fails for its length.
    #[track_caller]
    fn too_long(classifier: &OutcomeClassifier, bytes: usize) -> String {
        match classifier.classify(Outcome::Success("1".repeat(bytes)), 0.5) {
            OutcomeRun::Failed { error } => error,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    #[test]
    fn a_result_that_is_too_long_fails_and_says_what_to_do() {
        let error = too_long(&classifier(), 11);
        let expected = "the result is 11 bytes long; at most 10 are allowed";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_error_of_a_result_too_long_for_the_ledger_names_other_places() {
        let largest = OutcomeClassifier { max_result: MAX_LEDGER_RESULT, ..classifier() };
        let error = too_long(&largest, MAX_LEDGER_RESULT + 1);
        let expected = "at most 4194304 are allowed (4 MiB in the ledger; `results` at";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let error = cut_error("é".repeat(MAX_ERROR_BYTES));
        assert_eq!(error.len(), MAX_ERROR_BYTES + "…".len());
    }
}
