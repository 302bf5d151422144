//! The outcome of an attempt at a subtask, and the runs of outcomes that a worker commits.

use std::time::Duration;

use crate::ResultBody;

/// The outcome of one attempt at one subtask.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The handler returned a value: compact JSON on one line.
    Success(String),
    /// The handler failed. `retry` is false when trying again can't help.
    Failure {
        /// What went wrong, for people.
        error: String,
        /// Whether another attempt may help.
        retry: bool,
    },
    /// The attempt could not be started on this node. It uses up no attempt, and another node may
    /// run the subtask.
    NotStarted {
        /// What is missing, for people.
        reason: String,
    },
    /// The handler said "not now" (exit code 75): the subtask is tried again later, and no attempt
    /// is used up.
    NotNow {
        /// Why not, for people; may be empty.
        reason: String,
        /// When to try again, if the handler knows (an HTTP `Retry-After`); else the job's backoff
        /// decides.
        after: Option<Duration>,
    },
}

/// A run of consecutive subtasks with the same kind of outcome. A commit is a list of runs that
/// starts at the chunk's first open subtask and leaves no gap; a long run of successes costs the
/// ledger O(1).
#[derive(Clone, Debug, PartialEq)]
pub enum OutcomeRun {
    /// `count` subtasks succeeded. `results` is `None` where the job discards them.
    Success {
        /// The number of subtasks, at least 1.
        count: u64,
        /// The results of the subtasks.
        results: Option<ResultBody>,
    },
    /// One subtask failed and is to be tried again after `delay`, as attempt + 1.
    Retry {
        /// What went wrong.
        error: String,
        /// How long to wait, backoff and jitter included.
        delay: Duration,
    },
    /// One subtask failed for good.
    Failed {
        /// What went wrong.
        error: String,
    },
    /// One subtask said "not now": it is tried again after `delay`, with the same attempt number
    /// and one more deferral.
    Defer {
        /// How long to wait.
        delay: Duration,
    },
}

impl OutcomeRun {
    /// The number of subtasks in the run.
    pub fn len(&self) -> u64 {
        match self {
            Self::Success { count, .. } => *count,
            Self::Retry { .. } | Self::Failed { .. } | Self::Defer { .. } => 1,
        }
    }

    /// Always false for a valid run; required beside `len`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The number of subtasks in a list of runs.
pub fn runs_len(runs: &[OutcomeRun]) -> u64 {
    runs.iter().map(OutcomeRun::len).sum()
}

/// Kept runs of results never cross a multiple of this number, so that the run of an index is found
/// from the multiple before the index in a bounded number of steps.
pub const RESULT_STRIDE: u64 = 256;

/// Cuts each success run with results at multiples of [`RESULT_STRIDE`]. `from` is the index of the
/// first subtask.
pub fn split_results(from: u64, runs: Vec<OutcomeRun>) -> Vec<OutcomeRun> {
    let mut index = from;
    let mut cut = Vec::with_capacity(runs.len());
    for run in runs {
        let len = run.len();
        match run {
            OutcomeRun::Success { count, results: Some(ResultBody::Lines(lines)) } => {
                cut_success(index, count, &lines, &mut cut);
            }
            other => cut.push(other),
        }
        index += len;
    }
    cut
}

fn cut_success(from: u64, count: u64, lines: &str, cut: &mut Vec<OutcomeRun>) {
    let end = from + count;
    let mut index = from;
    let mut rest = lines;
    while index < end {
        let stop = ((index / RESULT_STRIDE + 1) * RESULT_STRIDE).min(end);
        let taken = usize::try_from(stop - index).expect("at most a stride");
        let bytes = rest.match_indices('\n').nth(taken - 1).map_or(rest.len(), |(at, _)| at + 1);
        let (head, tail) = rest.split_at(bytes);
        cut.push(OutcomeRun::Success { count: stop - index, results: Some(head.into()) });
        rest = tail;
        index = stop;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_cut_where_a_stride_ends_and_nothing_is_lost() {
        let lines: String = (250..520).map(|i| format!("{i}\n")).collect();
        let runs = vec![
            OutcomeRun::Failed { error: "bad".into() },
            OutcomeRun::Success { count: 270, results: Some(lines.as_str().into()) },
        ];
        let cut = split_results(249, runs);
        let counts: Vec<u64> = cut.iter().map(OutcomeRun::len).collect();
        assert_eq!(counts, [1, 6, 256, 8]);
        let joined: String = cut
            .iter()
            .filter_map(|run| match run {
                OutcomeRun::Success { results, .. } => results.as_ref().map(ResultBody::text),
                _ => None,
            })
            .collect();
        assert_eq!(joined, lines);
    }
}
