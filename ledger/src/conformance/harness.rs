//! The harness of the cases: one job, with short methods for the operations on it.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Counts, Digest, Epoch, JobId, JobSummary, NodeId, OutcomeRun, Token,
};

use crate::op::{
    Admission, Admitted, Claim, ClaimParams, Commit, CommitParams, Committed, Event, Grant,
    LossCause, MapParams, OpenParams, ReleaseParams, Released, SweepParams,
};
use crate::{Events, Ledger};

/// A time that does not pass while a case runs.
pub(super) const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a case waits for an event that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn job_id(n: u64) -> JobId {
    format!("00000000-0000-4000-8000-{n:012x}").parse().expect("a UUID")
}

pub(super) fn token(n: u64) -> Token {
    Token::from_bytes(u128::from(n).to_be_bytes())
}

/// The cause of a loss; the report of a crash has characters that are easily corrupted.
pub(super) fn lost(died: bool) -> LossCause {
    let words = "killed by SIGABRT; its last words: 100%, -\t\"né\"\n- 7,8";
    if died { LossCause::Crashed(words.into()) } else { LossCause::Left }
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

pub(super) fn admission(n: u64, total: u64) -> Admission {
    Admission {
        digest: Digest::new(format!("{n:064x}")),
        document: format!("{{\"document\":{n}}}"),
        tenant: "tenant".into(),
        keep_for: NEVER,
        ..Admission::plain(job_id(n), total)
    }
}

pub(super) fn ok(count: u64) -> OutcomeRun {
    OutcomeRun::Success { count, results: None }
}

/// Successes whose results are their own indices.
pub(super) fn ok_lines(from: u64, to: u64) -> OutcomeRun {
    let lines: String = (from..to).map(|index| format!("{index}\n")).collect();
    OutcomeRun::Success { count: to - from, results: Some(lines.into()) }
}

pub(super) fn failed(error: &str) -> OutcomeRun {
    OutcomeRun::Failed { error: error.into() }
}

pub(super) fn again(delay: Duration) -> OutcomeRun {
    OutcomeRun::Retry { error: "try again".into(), delay }
}

pub(super) fn later(delay: Duration) -> OutcomeRun {
    OutcomeRun::Defer { delay }
}

/// (from, to, epoch) of messages, in their order.
pub(super) fn shape(messages: &[ChunkMessage]) -> Vec<(u64, u64, u64)> {
    messages.iter().map(|message| (message.from, message.to, message.epoch.0)).collect()
}

/// A job in a ledger.
pub(super) struct Harness {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) job: JobId,
}

impl Harness {
    pub(super) async fn of(ledger: &Arc<dyn Ledger>, total: u64) -> Self {
        Self::with(ledger, total, |_| {}).await
    }

    /// Admits job 1 after `change` was made to its admission.
    pub(super) async fn with(
        ledger: &Arc<dyn Ledger>,
        total: u64,
        change: impl FnOnce(&mut Admission),
    ) -> Self {
        let mut admission = admission(1, total);
        change(&mut admission);
        let admitted = ledger.admit(&admission).await.expect("admit");
        let Admitted::Accepted { at, .. } = admitted else { panic!("{admitted:?}") };
        let summary = ledger.job(admission.job).await.expect("job");
        assert_eq!(summary, Some(admission.accepted(at)));
        Self { ledger: Arc::clone(ledger), job: admission.job }
    }

    /// Opens chunks that are not due for the sweep.
    pub(super) async fn open(&self, chunks: u32, size: u64) -> Vec<ChunkMessage> {
        self.open_within(chunks, size, NEVER).await
    }

    pub(super) async fn open_within(
        &self,
        chunks: u32,
        size: u64,
        publish_within: Duration,
    ) -> Vec<ChunkMessage> {
        let open = OpenParams::new(chunks, size, publish_within);
        self.ledger.open(self.job, &open).await.expect("open")
    }

    pub(super) async fn claim(&self, chunk: u64, epoch: u64, shown: u64, by: &str) -> Claim {
        let (chunk, epoch) = (ChunkId(chunk), Epoch(epoch));
        self.ledger
            .claim(self.job, &ClaimParams::new(chunk, epoch, token(shown), node(by)))
            .await
            .expect("claim")
    }

    /// Claims for node `a`, with the chunk's number as the token's.
    pub(super) async fn hold(&self, message: &ChunkMessage) -> Grant {
        match self.claim(message.chunk.0, message.epoch.0, message.chunk.0, "a").await {
            Claim::Granted(grant) => grant,
            refused => panic!("{message:?} was refused: {refused:?}"),
        }
    }

    /// Opens one chunk and claims it for node `a`.
    pub(super) async fn take(&self, size: u64) -> ChunkMessage {
        let opened = self.open(1, size).await;
        assert_eq!(opened.len(), 1, "one chunk can be opened");
        self.hold(&opened[0]).await;
        opened[0]
    }

    pub(super) async fn try_commit(
        &self,
        chunk: u64,
        shown: u64,
        from: u64,
        runs: Vec<OutcomeRun>,
    ) -> Result<Committed, crate::Error> {
        let commit = Commit::new(from, runs, Duration::from_millis(10));
        self.ledger
            .commit(self.job, &CommitParams::new(ChunkId(chunk), token(shown), commit.clone()))
            .await
    }

    /// Commits under the token of [`Self::hold`]; returns the job's state after it.
    pub(super) async fn commit(
        &self,
        chunk: ChunkId,
        from: u64,
        runs: Vec<OutcomeRun>,
    ) -> JobState {
        match self.try_commit(chunk.0, chunk.0, from, runs).await.expect("commit") {
            Committed::Settled { state } => state,
            Committed::Fenced => panic!("the commit to chunk {chunk} was fenced"),
        }
    }

    /// Commits success of a whole held chunk, without results.
    pub(super) async fn succeed(&self, held: &ChunkMessage) -> JobState {
        self.commit(held.chunk, held.from, vec![ok(held.to - held.from)]).await
    }

    /// Opens, claims and succeeds everything that is left of the level.
    pub(super) async fn succeed_level(&self) -> JobState {
        let opened = self.open(100, 3).await;
        assert!(!opened.is_empty(), "the level has open subtasks");
        let mut state = None;
        for message in &opened {
            self.hold(message).await;
            state = Some(self.succeed(message).await);
        }
        state.expect("something was opened")
    }

    pub(super) async fn release(&self, chunk: u64, shown: u64) -> Released {
        let (chunk, shown) = (ChunkId(chunk), token(shown));
        self.ledger.release(self.job, &ReleaseParams::new(chunk, shown)).await.expect("release")
    }

    pub(super) async fn release_in_parts(&self, chunk: u64, shown: u64, part: u64) -> Released {
        let (chunk, shown) = (ChunkId(chunk), token(shown));
        self.ledger
            .release(
                self.job,
                &ReleaseParams { part: Some(part), ..ReleaseParams::new(chunk, shown) },
            )
            .await
            .expect("release")
    }

    pub(super) async fn summary(&self) -> JobSummary {
        self.ledger.job(self.job).await.expect("job").expect("the job is known")
    }

    /// (from, to, epoch) of the chunks that a sweep publishes.
    pub(super) async fn sweep(&self, limit: u32, publish_within: Duration) -> Vec<(u64, u64, u64)> {
        let swept = self
            .ledger
            .sweep(self.job, &SweepParams::new(limit, publish_within))
            .await
            .expect("sweep");
        shape(&swept.expect("the job is known").publish)
    }

    /// Checks that the counts balance and agree with an audit.
    pub(super) async fn check(&self) {
        check_audit(&self.ledger, self.job).await;
    }
}

pub(super) async fn check_audit(ledger: &Arc<dyn Ledger>, job: JobId) {
    let audit = ledger.audit(job).await.expect("audit").expect("the job is known");
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!((audit.kept.imbalance(), audit.reduce_kept.imbalance()), (0, 0));
    assert_eq!((audit.kept, audit.reduce_kept), (audit.counted, audit.reduce_counted));
    let summary = ledger.job(job).await.expect("job").expect("the job is known");
    assert_eq!((audit.kept, audit.reduce_kept), (summary.counts, summary.reduce));
    assert_eq!(audit.state, summary.state);
    check_map(ledger, &summary).await;
}

/// Checks that the ranges of a map add up to the counts of the job, each to its length.
pub(super) async fn check_map(ledger: &Arc<dyn Ledger>, summary: &JobSummary) {
    if summary.restored_at.is_some() {
        return;
    }
    let params = MapParams::new(0..u64::MAX, 3).within(summary.counts.total);
    let map = ledger.map(summary.id, &params).await.expect("map").expect("the job is known");
    let mut sum = Counts::default();
    for cell in &map.cells {
        assert_eq!(cell.counts.imbalance(), 0, "{map:#?}");
        sum.total += cell.counts.total;
        sum.waiting += cell.counts.waiting;
        sum.queued += cell.counts.queued;
        sum.running += cell.counts.running;
        sum.retrying += cell.counts.retrying;
        sum.done += cell.counts.done;
        sum.failed += cell.counts.failed;
        sum.cancelled += cell.counts.cancelled;
    }
    assert_eq!(sum, summary.counts, "{map:#?}");
}

/// The next hint.
pub(super) async fn next_event(events: &mut Box<dyn Events>) -> Event {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("a hint")
}

/// Waits for this hint.
pub(super) async fn await_event(events: &mut Box<dyn Events>, wanted: &Event) {
    let found = tokio::time::timeout(PATIENCE, async { while events.next().await != *wanted {} });
    found.await.unwrap_or_else(|_| panic!("no {wanted:?} within {PATIENCE:?}"));
}

/// Polls until the answer is yes.
pub(super) async fn await_that(what: &str, asked: impl AsyncFn() -> bool) {
    let found = tokio::time::timeout(PATIENCE, async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("not so within {PATIENCE:?}: {what}"));
}
