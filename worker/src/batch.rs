//! Collects the settled subtasks of a chunk, and decides when they are due to be committed.
//!
//! Pure but for the clock that tells when a commit is due. Deliberately absent: the ledger and the
//! result store.

use std::time::Duration;

use longshore_protocol::{OutcomeRun, ResultBody, runs_len};
use tokio::time::Instant;

use crate::classify::cut_error;

/// A batch with more bytes of results and errors is committed at once, so that no commit is slow.
const MAX_BYTES: usize = 256 << 10;

/// A batch with more runs is committed at once; each failure is a run of its own and costs the
/// ledger a step.
const MAX_RUNS: usize = 1_000;

/// Settled subtasks of a chunk, without gaps.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The first subtask that the ledger has not taken.
    committed: u64,
    /// The first subtask in `runs`.
    from: u64,
    /// The next subtask to run: one past the last in `runs`.
    next: u64,
    runs: Vec<OutcomeRun>,
    /// Bytes of results and errors in `runs`.
    bytes: usize,
    /// How long the subtasks in `runs` took, in sum.
    busy: Duration,
    commit_every: Duration,
    /// When the first subtask in `runs` was settled.
    opened: Instant,
}

/// Settled subtasks that were taken out of a batch to be committed.
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

    /// Adds the next subtask; `run` covers that one.
    pub(crate) fn push(&mut self, run: OutcomeRun, took: Duration) {
        if self.runs.is_empty() {
            self.opened = Instant::now();
        }
        self.next += 1;
        self.busy += took;
        self.bytes += bytes(&run);
        match (self.runs.last_mut(), run) {
            (
                Some(OutcomeRun::Success { count, results: Some(ResultBody::Lines(all)) }),
                OutcomeRun::Success { count: 1, results: Some(ResultBody::Lines(line)) },
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

    /// When the settled subtasks are to be committed; `None` while there are none.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        (!self.runs.is_empty()).then(|| self.opened + self.commit_every)
    }

    /// Whether the settled subtasks are to be committed now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_full() || self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Whether no more subtasks may be added before a commit.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES || self.runs.len() > MAX_RUNS
    }

    /// Takes out the settled subtasks to be committed; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Settled> {
        if self.runs.is_empty() {
            return None;
        }
        let from = std::mem::replace(&mut self.from, self.next);
        self.bytes = 0;
        let runs = std::mem::take(&mut self.runs);
        Some(Settled { from, runs, busy: std::mem::take(&mut self.busy) })
    }

    /// Puts back subtasks that could not be committed, before those that were settled meanwhile.
    /// They are due again after the usual time.
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

    /// Fails for good the subtasks whose results are in the batch.
    pub(crate) fn fail_results(&mut self, error: &str) {
        let runs = std::mem::take(&mut self.runs);
        self.runs = runs
            .into_iter()
            .flat_map(|run| match run {
                OutcomeRun::Success { count, results: Some(_) } => {
                    let failed = OutcomeRun::Failed { error: cut_error(error.to_owned()) };
                    vec![failed; usize::try_from(count).expect("each of them was pushed")]
                }
                other => vec![other],
            })
            .collect();
        self.bytes = self.runs.iter().map(bytes).sum();
    }
}

/// Bytes of results or of the error of a run.
fn bytes(run: &OutcomeRun) -> usize {
    match run {
        OutcomeRun::Success { results, .. } => results.as_ref().map_or(0, ResultBody::bytes),
        OutcomeRun::Retry { error, .. } | OutcomeRun::Failed { error } => error.len(),
        OutcomeRun::Defer { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success(text: &str) -> OutcomeRun {
        OutcomeRun::Success { count: 1, results: Some(text.into()) }
    }

    #[tokio::test(start_paused = true)]
    async fn successes_are_joined_and_due_in_time() {
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
    async fn subtasks_that_could_not_be_committed_keep_their_place() {
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
