//! Outcomes on their way to the ledger: what is settled but not committed yet.
//!
//! Pure but for the clock of its age. Deliberately absent: the ledger and the storage.

use std::time::Duration;

use longshore_protocol::document::Retry;
use longshore_protocol::{Outcome, OutcomeRun, runs_len};
use tokio::time::Instant;

use crate::config::MAX_LEDGER_RESULT;

/// A batch with more bytes of results and errors is committed at once, so that no commit is slow.
const MAX_BYTES: usize = 256 << 10;

/// A batch with more runs is committed at once; each failure is a run of its own and costs the
/// ledger a step.
const MAX_RUNS: usize = 1_000;

/// A subtask that says "not now" more often has failed.
const MAX_DEFERRALS: u32 = 100;

/// Nobody is told to come back later than this.
const MAX_DEFERRAL: Duration = Duration::from_secs(24 * 3600);

/// Errors are cut at this length: they are for people.
const MAX_ERROR_BYTES: usize = 8 << 10;

/// How outcomes of one chunk are judged: all its subtasks are at the same attempt.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub(crate) retry: Retry,
    pub(crate) attempt: u32,
    pub(crate) deferrals: u32,
    pub(crate) max_result: usize,
    /// Whether anybody will look at results.
    pub(crate) keep_results: bool,
}

impl Judge {
    /// What limits results.
    fn limit(&self) -> &'static str {
        if self.max_result < MAX_LEDGER_RESULT {
            "max_result"
        } else {
            "4 MiB in the ledger; `results` at a `file://` or `s3://` URL may be larger"
        }
    }

    /// What an outcome means for the books. `random` in 0..1 decides the jitter of delays.
    pub(crate) fn judge(&self, outcome: Outcome, random: f64) -> OutcomeRun {
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
                let results = self.keep_results.then(|| json + "\n");
                OutcomeRun::Success { count: 1, results }
            }
            Outcome::Failure { error, retry } => {
                let error = cut(error);
                match self.retry.delay_after(self.attempt, random).filter(|_| retry) {
                    Some(delay) => OutcomeRun::Retry { error, delay },
                    None => OutcomeRun::Failed { error },
                }
            }
            // Chunks are handed back before it comes to this.
            Outcome::NotStarted { .. } => {
                OutcomeRun::Defer { delay: self.retry.backoff_for(self.deferrals + 1, random) }
            }
            Outcome::NotNow { reason, .. } if self.deferrals >= MAX_DEFERRALS => {
                OutcomeRun::Failed {
                    error: cut(format!("said \"not now\" {MAX_DEFERRALS} times: {reason}")),
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

fn cut(mut error: String) -> String {
    if error.len() > MAX_ERROR_BYTES {
        error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
        error.push('…');
    }
    error
}

/// Settled subtasks of a chunk from `from` on, without gaps.
#[derive(Debug)]
pub(crate) struct Batch {
    committed: u64,
    from: u64,
    next: u64,
    runs: Vec<OutcomeRun>,
    bytes: usize,
    busy: Duration,
    commit_every: Duration,
    opened: Instant,
}

/// A batch that was taken out to be committed.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) from: u64,
    pub(crate) runs: Vec<OutcomeRun>,
    pub(crate) busy: Duration,
}

impl Batch {
    pub(crate) fn new(from: u64, commit_every: Duration) -> Self {
        let opened = Instant::now();
        let busy = Duration::ZERO;
        let (committed, next, runs) = (from, from, Vec::new());
        Self { committed, from, next, runs, bytes: 0, busy, commit_every, opened }
    }

    /// The next subtask to run.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The first subtask that the ledger has not taken.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// The ledger took all before `to`.
    pub(crate) fn commit(&mut self, to: u64) {
        self.committed = to;
    }

    /// One more subtask is settled; `run` covers one.
    pub(crate) fn push(&mut self, run: OutcomeRun, took: Duration) {
        if self.runs.is_empty() {
            self.opened = Instant::now();
        }
        self.next += 1;
        self.busy += took;
        self.bytes += bytes(&run);
        match (self.runs.last_mut(), run) {
            (
                Some(OutcomeRun::Success { count, results: Some(all) }),
                OutcomeRun::Success { count: 1, results: Some(line) },
            ) => {
                *count += 1;
                all.push_str(&line);
            }
            (
                Some(OutcomeRun::Success { count, results: None }),
                OutcomeRun::Success { count: 1, results: None },
            ) => *count += 1,
            (_, run) => self.runs.push(run),
        }
    }

    /// When what is settled is to be committed; `None` while there is nothing.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        (!self.runs.is_empty()).then(|| self.opened + self.commit_every)
    }

    /// Whether it is to be committed now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_full() || self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Whether no more is to be settled before a commit.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES || self.runs.len() > MAX_RUNS
    }

    /// Takes out what is settled.
    pub(crate) fn take(&mut self) -> Option<Settled> {
        if self.runs.is_empty() {
            return None;
        }
        let from = std::mem::replace(&mut self.from, self.next);
        self.bytes = 0;
        let runs = std::mem::take(&mut self.runs);
        Some(Settled { from, runs, busy: std::mem::take(&mut self.busy) })
    }

    /// What was taken out could not be committed; it is due again after a while, before what was
    /// settled meanwhile.
    pub(crate) fn put_back(&mut self, settled: Settled) {
        let Settled { from, runs, busy } = settled;
        debug_assert_eq!(from + runs_len(&runs), self.from, "nothing else was taken out");
        self.from = from;
        self.bytes += runs.iter().map(bytes).sum::<usize>();
        let since = std::mem::replace(&mut self.runs, runs);
        self.runs.extend(since);
        self.busy += busy;
        self.opened = Instant::now();
    }

    /// The subtasks whose results are here fail for good.
    pub(crate) fn fail_results(&mut self, error: &str) {
        let runs = std::mem::take(&mut self.runs);
        self.runs = runs
            .into_iter()
            .flat_map(|run| match run {
                OutcomeRun::Success { count, results: Some(_) } => {
                    let failed = OutcomeRun::Failed { error: cut(error.to_owned()) };
                    vec![failed; usize::try_from(count).expect("each of them was pushed")]
                }
                other => vec![other],
            })
            .collect();
        self.bytes = self.runs.iter().map(bytes).sum();
    }
}

/// What a run weighs.
fn bytes(run: &OutcomeRun) -> usize {
    match run {
        OutcomeRun::Success { results, .. } => results.as_ref().map_or(0, String::len),
        OutcomeRun::Retry { error, .. } | OutcomeRun::Failed { error } => error.len(),
        OutcomeRun::Defer { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        let retry = Retry { attempts: 2, jitter: 0.0, ..Retry::default() };
        Judge { retry, attempt: 1, deferrals: 0, max_result: 10, keep_results: true }
    }

    #[track_caller]
    fn becomes(judge: &Judge, outcome: Outcome, run: &OutcomeRun) {
        assert_eq!(judge.judge(outcome, 0.5), *run);
    }

    fn failure(retry: bool) -> Outcome {
        Outcome::Failure { error: "e".into(), retry }
    }

    fn not_now(after: Option<Duration>) -> Outcome {
        Outcome::NotNow { reason: "full".into(), after }
    }

    fn success(text: &str) -> OutcomeRun {
        OutcomeRun::Success { count: 1, results: Some(text.into()) }
    }

    #[test]
    fn outcomes_become_runs() {
        let second = Duration::from_secs(1);
        becomes(&judge(), Outcome::Success("1".into()), &success("1\n"));
        becomes(&judge(), failure(true), &OutcomeRun::Retry { error: "e".into(), delay: second });
        becomes(&judge(), failure(false), &OutcomeRun::Failed { error: "e".into() });
        becomes(&judge(), not_now(None), &OutcomeRun::Defer { delay: second });
        becomes(&judge(), not_now(Some(7 * second)), &OutcomeRun::Defer { delay: 7 * second });
        becomes(&judge(), not_now(Some(Duration::MAX)), &OutcomeRun::Defer { delay: MAX_DEFERRAL });
        let discard = Judge { keep_results: false, ..judge() };
        becomes(
            &discard,
            Outcome::Success("1".into()),
            &OutcomeRun::Success { count: 1, results: None },
        );
    }

    #[test]
    fn the_last_attempt_and_the_last_deferral_fail_for_good() {
        let last = Judge { attempt: 2, ..judge() };
        becomes(&last, failure(true), &OutcomeRun::Failed { error: "e".into() });
        let tired = Judge { deferrals: MAX_DEFERRALS, ..judge() };
        let error = "said \"not now\" 100 times: full".into();
        becomes(&tired, not_now(None), &OutcomeRun::Failed { error });
    }

    #[test]
    fn a_result_that_is_too_long_fails_and_says_what_to_do() {
        let OutcomeRun::Failed { error } =
            judge().judge(Outcome::Success("12345678901".into()), 0.5)
        else {
            panic!("expected a failure");
        };
        assert!(
            error.starts_with("the result is 11 bytes long; at most 10 are allowed"),
            "{error}"
        );
    }

    #[test]
    fn a_result_that_is_too_long_for_the_ledger_is_told_where_it_may_go() {
        let most = Judge { max_result: MAX_LEDGER_RESULT, ..judge() };
        let long = "1".repeat(MAX_LEDGER_RESULT + 1);
        let OutcomeRun::Failed { error } = most.judge(Outcome::Success(long), 0.5) else {
            panic!("expected a failure");
        };
        assert!(
            error.contains("at most 4194304 are allowed (4 MiB in the ledger; `results` at"),
            "{error}"
        );
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let error = cut("é".repeat(MAX_ERROR_BYTES));
        assert_eq!(error.len(), MAX_ERROR_BYTES + "…".len());
    }

    #[tokio::test(start_paused = true)]
    async fn successes_grow_together_and_are_due_in_time() {
        let every = Duration::from_millis(200);
        let mut batch = Batch::new(5, every);
        assert_eq!((batch.due_at(), batch.take()), (None, None));
        batch.push(success("1\n"), every);
        batch.push(success("2\n"), every);
        batch.push(OutcomeRun::Failed { error: "e".into() }, every);
        assert!(!batch.is_due());
        tokio::time::advance(every).await;
        assert!(batch.is_due());
        let runs = vec![
            OutcomeRun::Success { count: 2, results: Some("1\n2\n".into()) },
            OutcomeRun::Failed { error: "e".into() },
        ];
        assert_eq!(batch.take(), Some(Settled { from: 5, runs, busy: 3 * every }));
        assert_eq!((batch.next(), batch.due_at(), batch.take()), (8, None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_waits_in_its_place() {
        let every = Duration::from_millis(200);
        let mut batch = Batch::new(5, every);
        batch.push(success("1\n"), every);
        batch.push(OutcomeRun::Failed { error: "e".into() }, every);
        let settled = batch.take().expect("two are settled");
        batch.put_back(settled);
        assert!(!batch.is_due(), "it waits a while before the next try");
        batch.push(success("3\n"), every);
        let failed = |error: &str| OutcomeRun::Failed { error: error.into() };
        let runs = vec![success("1\n"), failed("e"), success("3\n")];
        let settled = batch.take().expect("three are settled");
        assert_eq!(settled, Settled { from: 5, runs, busy: 3 * every });
        batch.put_back(settled);
        batch.fail_results("full");
        let runs = vec![failed("full"), failed("e"), failed("full")];
        assert_eq!(batch.take(), Some(Settled { from: 5, runs, busy: 3 * every }));
    }

    #[tokio::test(start_paused = true)]
    async fn many_bytes_are_due_at_once() {
        let mut batch = Batch::new(0, Duration::from_secs(1));
        batch.push(success(&"x".repeat(MAX_BYTES + 1)), Duration::ZERO);
        assert!(batch.is_due());
    }
}
