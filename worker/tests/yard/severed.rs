//! A ledger whose line can be cut, so that it answers nothing at all, or broken, so that each question fails at once.

#![expect(unreachable_pub, reason = "test files include it")]
#![allow(dead_code, reason = "each uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longshore_ledger::{
    Admission, Admitted, Beat, Cancelled, Claim, Commit, Committed, ConnectionWatch, ControlError,
    Error, Events, Held, Holder, Ledger, LossCause, LossEvidence, LossVerdict, NodeSnapshot, Open,
    PriorState, Released, Restored, Revoked, SpeculationRequest, SpeculativeChunk, StoredDocument,
    Sweep, Topic,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, Finding, Isolation, JobId, JobSummary,
    JournalPlace, NodeId, NodeInfo, NodeRecord, Recovery, ResultsPage, SchedulerId,
    SchedulerRecord, Stall, Timestamp, Token,
};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    Cut,
    Broken,
}

#[derive(Clone)]
pub struct Severed {
    inner: Arc<dyn Ledger>,
    line: Arc<watch::Sender<Line>>,
    failed: Arc<AtomicU64>,
    released: Arc<AtomicU64>,
    holds_results: Arc<AtomicBool>,
    deaf: bool,
}

impl Severed {
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        let line = Arc::new(watch::Sender::new(Line::Whole));
        let (failed, released, holds_results) = Default::default();
        Self { inner, line, failed, released, holds_results, deaf: false }
    }

    /// Hints never arrive.
    pub fn deaf(inner: Arc<dyn Ledger>) -> Self {
        Self { deaf: true, ..Self::new(inner) }
    }

    pub fn cut(&self, cut: bool) {
        self.line.send_replace(if cut { Line::Cut } else { Line::Whole });
    }

    pub fn break_off(&self, broken: bool) {
        self.line.send_replace(if broken { Line::Broken } else { Line::Whole });
    }

    /// Questions for results fail, all others are answered.
    pub fn hold_results(&self, holds: bool) {
        self.holds_results.store(holds, Ordering::Relaxed);
    }

    /// Questions that failed, but for the heart's.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How often a chunk was given back.
    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    async fn line(&self) -> Result<&dyn Ledger, Error> {
        let mut line = self.line.subscribe();
        let now = *line.wait_for(|line| *line != Line::Cut).await.expect("the sender is here");
        if now == Line::Whole {
            return Ok(self.inner.as_ref());
        }
        Err(self.gone())
    }

    fn gone(&self) -> Error {
        self.failed.fetch_add(1, Ordering::Relaxed);
        Error::Unavailable { address: "127.0.0.1:1".into(), reason: "gone".into() }
    }
}

/// What a worker never asks of a ledger.
fn others() -> ! {
    unreachable!("a worker does not ask for this")
}

#[async_trait]
impl Ledger for Severed {
    async fn claim(
        &self,
        job: JobId,
        chunk: ChunkId,
        epoch: Epoch,
        token: Token,
        node: &NodeId,
    ) -> Result<Claim, Error> {
        self.line().await?.claim(job, chunk, epoch, token, node).await
    }
    async fn commit(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        self.line().await?.commit(job, chunk, token, commit).await
    }
    async fn report_stall(
        &self,
        job: JobId,
        node: &NodeId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.line().await?.report_stall(job, node, reason).await
    }
    async fn release(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        part: Option<u64>,
    ) -> Result<Released, Error> {
        self.released.fetch_add(1, Ordering::Relaxed);
        self.line().await?.release(job, chunk, token, part).await
    }
    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        self.line().await?.document(job).await
    }
    async fn beat(&self, info: &NodeInfo, held: &[Held]) -> Result<Beat, Error> {
        self.line().await?.beat(info, held).await
    }
    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        self.line().await?.nodes_since(known).await
    }
    async fn lose(
        &self,
        node: &NodeId,
        grounds: LossEvidence,
        loss: &LossCause,
    ) -> Result<LossVerdict, Error> {
        self.line().await?.lose(node, grounds, loss).await
    }
    async fn results(&self, j: JobId, f: u64, t: u64, m: u64) -> Result<ResultsPage, Error> {
        if self.holds_results.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        self.line().await?.results(j, f, t, m).await
    }
    async fn events(&self, audience: Topic) -> Result<Box<dyn Events>, Error> {
        if self.deaf {
            std::future::pending::<()>().await;
        }
        self.line().await?.events(audience).await
    }
    fn separate(&self) -> Arc<dyn Ledger> {
        Arc::new(Self { failed: Arc::default(), ..self.clone() })
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn admit(&self, _: &Admission) -> Result<Admitted, Error> {
        others()
    }
    async fn postpone(&self, _: JobId, _: &str) -> Result<(), Error> {
        others()
    }
    async fn postponed(&self, _: JobId) -> Result<Option<String>, Error> {
        others()
    }
    async fn reject(&self, _: JobId, _: &str) -> Result<(), Error> {
        others()
    }
    async fn open(&self, _: JobId, _: &Open) -> Result<Vec<ChunkMessage>, Error> {
        others()
    }
    async fn revoke(&self, _: JobId, _: &NodeId, _: &LossCause) -> Result<Vec<Revoked>, Error> {
        others()
    }
    async fn copy(&self, _: JobId, _: &SpeculationRequest) -> Result<Vec<SpeculativeChunk>, Error> {
        others()
    }
    async fn holders(&self, _: JobId) -> Result<Vec<Holder>, Error> {
        others()
    }
    async fn sweep(
        &self,
        _: JobId,
        _: u32,
        _: Duration,
        _: Option<Duration>,
    ) -> Result<Option<Sweep>, Error> {
        others()
    }
    async fn pause(&self, _: JobId) -> Result<JobState, ControlError> {
        others()
    }
    async fn resume(&self, _: JobId) -> Result<JobState, ControlError> {
        others()
    }
    async fn cancel(&self, _: JobId) -> Result<Cancelled, ControlError> {
        others()
    }
    async fn stalls(&self, _: JobId) -> Result<Vec<Stall>, Error> {
        others()
    }
    async fn pending_cancel(&self, _: JobId) -> Result<Option<Timestamp>, Error> {
        others()
    }
    async fn fail(&self, _: JobId, _: &str) -> Result<JobState, ControlError> {
        others()
    }
    async fn retry(&self, _: JobId, _: Option<&[u64]>) -> Result<JobState, ControlError> {
        others()
    }
    async fn delete(&self, _: JobId) -> Result<(), ControlError> {
        others()
    }
    async fn job(&self, _: JobId) -> Result<Option<JobSummary>, Error> {
        others()
    }
    async fn active_jobs(&self) -> Result<Vec<JobId>, Error> {
        others()
    }
    async fn finished_jobs(&self, _: usize) -> Result<Vec<JobId>, Error> {
        others()
    }
    async fn archive(&self, _: JobId) -> Result<(), Error> {
        others()
    }
    async fn errors(&self, _: JobId, _: u64, _: usize) -> Result<Vec<ErrorEntry>, Error> {
        others()
    }
    async fn recoveries(&self, _: JobId, _: usize) -> Result<Vec<Recovery>, Error> {
        others()
    }
    async fn audit(&self, _: JobId) -> Result<Option<Audit>, Error> {
        others()
    }
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        others()
    }
    async fn restore(&self, _: &Admission, _: &PriorState) -> Result<Restored, Error> {
        others()
    }
    async fn missing(&self, _: &[JobId]) -> Result<Vec<JobId>, Error> {
        others()
    }
    async fn journal_place(&self) -> Result<Option<JournalPlace>, Error> {
        others()
    }
    async fn advance_journal(
        &self,
        _: Option<&JournalPlace>,
        _: &JournalPlace,
    ) -> Result<Option<JournalPlace>, Error> {
        others()
    }
    async fn record_crash(&self, _: &NodeId, _: &str) -> Result<bool, Error> {
        others()
    }
    fn hearts(&self) -> Box<dyn ConnectionWatch> {
        others()
    }
    async fn tried(&self, _: JobId, _: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error> {
        others()
    }
    async fn refund_attempts(&self, _: JobId, _: &[NodeId]) -> Result<u64, Error> {
        others()
    }
    async fn isolate(&self, _: &NodeId, _: &[Isolation]) -> Result<bool, Error> {
        others()
    }
    async fn drain(&self, _: &NodeId) -> Result<bool, Error> {
        others()
    }
    async fn register_scheduler(
        &self,
        _: &SchedulerId,
        _: Duration,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        others()
    }
    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error> {
        others()
    }
    async fn deregister_scheduler(&self, _: &SchedulerId) -> Result<(), Error> {
        others()
    }
    async fn now(&self) -> Result<Timestamp, Error> {
        others()
    }
    async fn examine(&self) -> Vec<Finding> {
        others()
    }
}
