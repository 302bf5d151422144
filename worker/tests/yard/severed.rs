//! A ledger whose line can be cut: while it is, it answers nothing at all.

#![expect(unreachable_pub, reason = "one test file uses it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_ledger::{
    Admission, Admitted, Beat, Claim, Commit, Committed, ControlError, Error, Events, HandBack,
    Held, Ledger, Open, Revoked, StoredDocument, Sweep,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, Finding, JobId, JobSummary, NodeId, NodeInfo,
    NodeRecord, ResultsPage, SchedulerId, Timestamp, Token,
};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Severed {
    inner: Arc<dyn Ledger>,
    cut: Arc<watch::Sender<bool>>,
    deaf: bool,
}

impl Severed {
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        Self { inner, cut: Arc::new(watch::Sender::new(false)), deaf: false }
    }

    /// Hints never arrive.
    pub fn deaf(inner: Arc<dyn Ledger>) -> Self {
        Self { deaf: true, ..Self::new(inner) }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    async fn line(&self) -> &dyn Ledger {
        self.cut.subscribe().wait_for(|cut| !cut).await.expect("the sender is here");
        self.inner.as_ref()
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
        self.line().await.claim(job, chunk, epoch, token, node).await
    }
    async fn commit(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        self.line().await.commit(job, chunk, token, commit).await
    }
    async fn release(&self, job: JobId, chunk: ChunkId, token: Token) -> Result<HandBack, Error> {
        self.line().await.release(job, chunk, token).await
    }
    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        self.line().await.document(job).await
    }
    async fn beat(&self, info: &NodeInfo, seq: u64, held: &[Held]) -> Result<Beat, Error> {
        self.line().await.beat(info, seq, held).await
    }
    async fn forget(&self, node: &NodeId) -> Result<(), Error> {
        self.line().await.forget(node).await
    }
    async fn results(&self, j: JobId, f: u64, t: u64, m: u64) -> Result<ResultsPage, Error> {
        self.line().await.results(j, f, t, m).await
    }
    async fn events(&self) -> Result<Box<dyn Events>, Error> {
        if self.deaf {
            std::future::pending::<()>().await;
        }
        self.line().await.events().await
    }
    fn separate(&self) -> Arc<dyn Ledger> {
        Arc::new(self.clone())
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn admit(&self, _: &Admission) -> Result<Admitted, Error> {
        others()
    }
    async fn reject(&self, _: JobId, _: &str) -> Result<(), Error> {
        others()
    }
    async fn open(&self, _: JobId, _: &Open) -> Result<Vec<ChunkMessage>, Error> {
        others()
    }
    async fn revoke(&self, _: JobId, _: &NodeId, _: bool) -> Result<Vec<Revoked>, Error> {
        others()
    }
    async fn holders(&self, _: JobId) -> Result<Vec<NodeId>, Error> {
        others()
    }
    async fn sweep(&self, _: JobId, _: u32, _: Duration) -> Result<Option<Sweep>, Error> {
        others()
    }
    async fn pause(&self, _: JobId) -> Result<JobState, ControlError> {
        others()
    }
    async fn resume(&self, _: JobId) -> Result<JobState, ControlError> {
        others()
    }
    async fn cancel(&self, _: JobId) -> Result<JobState, ControlError> {
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
    async fn audit(&self, _: JobId) -> Result<Option<Audit>, Error> {
        others()
    }
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        others()
    }
    async fn drain(&self, _: &NodeId) -> Result<bool, Error> {
        others()
    }
    async fn attend(&self, _: &SchedulerId, _: Duration) -> Result<Vec<SchedulerId>, Error> {
        others()
    }
    async fn withdraw(&self, _: &SchedulerId) -> Result<(), Error> {
        others()
    }
    async fn now(&self) -> Result<Timestamp, Error> {
        others()
    }
    async fn examine(&self) -> Vec<Finding> {
        others()
    }
}
