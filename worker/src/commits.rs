//! Commits the settled subtasks of a chunk, one commit after another, while its other subtasks run.
//!
//! A commit that the ledger does not answer at once goes on while the next subtasks run, so that an
//! outage of the ledger stops no slot before the slot's memory is used up: a chunk keeps the
//! outcomes of one commit and those of one batch, each of `MAX_BYTES` or `MAX_RUNS` (`batch`) and
//! one result more. Then the next subtask waits. No outcome is dropped.

use std::time::Duration;

use futures_util::future::BoxFuture;
use longshore_ledger::{Commit, CommitParams, Committed, Error, Held};
use longshore_protocol::{Outcome, OutcomeRun, runs_len};
use tokio::time::{sleep_until, timeout};
use tracing::{error, info};

use crate::attempt::Interruption;
use crate::batch::{Batch, Settled};
use crate::chunk::Chunk;
use crate::held_chunks::StopMode;
use crate::metrics;
use crate::pipeline::{Pipeline, STALL};
use crate::results::Stored;
use crate::retry::retry_until;

/// How long the next subtask waits for the answer to a commit.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a commit.
pub(crate) enum CommitResult {
    /// The ledger took everything before this index.
    Taken(u64),
    /// This worker does not hold the chunk any more.
    Refused,
    /// The results can't be written now, for this reason.
    Unwritten(Settled, String),
}

/// The settled subtasks of a chunk, and the commit in flight.
pub(crate) struct Commits<'c> {
    pipeline: &'c Pipeline,
    chunk: &'c Chunk<'c>,
    batch: Batch,
    in_flight: Option<BoxFuture<'c, CommitResult>>,
    /// Results can't be written; no commit is tried again while a subtask runs.
    is_stuck: bool,
}

impl<'c> Commits<'c> {
    pub(crate) fn new(pipeline: &'c Pipeline, chunk: &'c Chunk<'c>) -> Self {
        // Each subtask of a suspect chunk is committed on its own: should one of them kill the
        // worker, it is known which.
        let suspect = chunk.grant.is_suspect();
        let commit_every = if suspect { Duration::ZERO } else { pipeline.config.commit_every };
        let batch = Batch::new(chunk.grant.from, commit_every);
        Self { pipeline, chunk, batch, in_flight: None, is_stuck: false }
    }

    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// The next subtask to run; `None` when none is left, or none may begin any more.
    pub(crate) fn next_index(&self) -> Option<u64> {
        let next = self.batch.next();
        (next < self.chunk.grant.to && self.chunk.lease.goes_on()).then_some(next)
    }

    /// Runs an attempt, and commits what falls due meanwhile.
    pub(crate) async fn beside(
        &mut self,
        attempt: impl Future<Output = Result<Outcome, Interruption>>,
    ) -> Result<Outcome, Interruption> {
        tokio::select! {
            biased;
            ended = attempt => ended,
            () = self.keep_up() => Err(Interruption::Stopped),
        }
    }

    /// Adds the outcome of the next subtask, and commits if that is due.
    pub(crate) async fn add(&mut self, run: OutcomeRun, took: Duration) {
        self.batch.push(run, took);
        if self.batch.is_due() && self.batch.next() < self.chunk.grant.to {
            self.catch_up().await;
        }
        // Ten thousand instant subtasks would otherwise keep all other tasks from this thread.
        tokio::task::coop::consume_budget().await;
    }

    /// Commits all that is settled, but for results that can't be written now.
    pub(crate) async fn flush(&mut self) {
        self.finish_commit().await;
        self.pipeline.commit(self.chunk, &mut self.batch).await;
    }

    /// Commits all that is settled, for as long as it takes to write the results; gives the first
    /// subtask that the ledger has not taken.
    pub(crate) async fn finish(mut self) -> u64 {
        self.finish_commit().await;
        self.pipeline.commit_rest(self.chunk, &mut self.batch).await;
        self.batch.committed()
    }

    /// Commits what falls due. Never ends; nothing is lost when it is dropped.
    async fn keep_up(&mut self) {
        loop {
            self.finish_commit().await;
            match self.batch.due_at().filter(|_| !self.is_stuck) {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
            self.begin_commit();
        }
    }

    /// Commits what is settled before the next subtask begins, or begins to.
    async fn catch_up(&mut self) {
        if self.in_flight.is_some() && !self.batch.is_full() {
            return;
        }
        self.finish_commit().await;
        self.begin_commit();
        if self.chunk.grant.is_suspect() {
            // Should the next subtask kill the worker, the subtasks before it are safe.
            return self.finish_commit().await;
        }
        let _ = timeout(PATIENCE, self.finish_commit()).await;
    }

    fn begin_commit(&mut self) {
        if let Some(settled) = self.batch.take() {
            let (pipeline, chunk) = (self.pipeline, self.chunk);
            self.in_flight = Some(Box::pin(pipeline.commit_settled(chunk, settled)));
        }
    }

    /// Waits for the end of the commit in flight.
    async fn finish_commit(&mut self) {
        let Some(commit) = &mut self.in_flight else { return };
        let result = commit.await;
        self.in_flight = None;
        match result {
            CommitResult::Taken(end) => self.batch.commit(end),
            CommitResult::Refused => {}
            CommitResult::Unwritten(settled, _) => {
                self.batch.put_back(settled);
                // Others get the slot while results wait to be written.
                self.chunk.lease.stop(StopMode::Drain);
                self.is_stuck = true;
            }
        }
    }
}

impl Pipeline {
    /// Commits the settled subtasks of a batch, and tries until the ledger has answered or this
    /// worker does not hold the chunk any more. Results that can't be written now stay in the
    /// batch.
    pub(crate) async fn commit(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        if self.try_commit(chunk, batch).await.is_err() {
            // Others get the slot while results wait to be written.
            chunk.lease.stop(StopMode::Drain);
        }
    }

    /// The same; the error says why results can't be written.
    pub(crate) async fn try_commit(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let Some(settled) = batch.take() else { return Ok(()) };
        match self.commit_settled(chunk, settled).await {
            CommitResult::Taken(end) => batch.commit(end),
            CommitResult::Refused => {}
            CommitResult::Unwritten(settled, error) => {
                batch.put_back(settled);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes results where the job wants them, and commits; tries until the ledger has answered or
    /// this worker does not hold the chunk any more.
    async fn commit_settled(&self, chunk: &Chunk<'_>, settled: Settled) -> CommitResult {
        let lease = chunk.lease;
        if lease.is_abandoned() {
            return CommitResult::Refused;
        }
        let Held { job, chunk: id, token } = lease.held;
        let commit = match self.store(chunk, settled).await {
            Stored::Ready(commit) => commit,
            Stored::Lost => return CommitResult::Refused,
            Stored::Unwritten(settled, error) => return CommitResult::Unwritten(settled, error),
        };
        let params = CommitParams::new(id, token, commit);
        let call = || self.ledger.commit(job, &params);
        let (health, environment) = (&self.ledger_health, &self.environment);
        let answer = retry_until(health, "commit", environment, lease.abandoned(), call).await;
        let commit = &params.commit;
        if let Some(Ok(committed)) = &answer {
            metrics::committed(commit, committed);
            if matches!(committed, Committed::Settled { .. }) {
                let tried = &chunk.grant.tried;
                self.records.count(chunk.task(), &commit.runs, tried, &self.node);
            }
        }
        self.tidy_up(chunk, commit, answer.as_ref().and_then(|answer| answer.as_ref().ok()));
        self.take_answer(chunk, commit, answer).await
    }

    /// Lets the chunk go on or stop as the answer to a commit says.
    async fn take_answer(
        &self,
        chunk: &Chunk<'_>,
        commit: &Commit,
        answer: Option<Result<Committed, Error>>,
    ) -> CommitResult {
        let (lease, from) = (chunk.lease, commit.from);
        let to = from + runs_len(&commit.runs);
        match answer {
            Some(Ok(Committed::Settled { state })) => {
                if state.is_terminal() {
                    lease.stop(StopMode::Abandon);
                } else if state.is_paused() {
                    lease.stop(StopMode::Drain);
                } else {
                    let each = commit.busy.div_f64((to - from) as f64);
                    chunk.share_if_too_long(chunk.grant.to - to, each);
                }
                return CommitResult::Taken(to);
            }
            Some(Ok(Committed::Fenced)) => {
                info!(from, to, "commit refused: another worker holds the chunk");
                lease.stop(StopMode::Abandon);
            }
            Some(Err(error)) => {
                error!(from, to, %error, "commit failed");
                lease.stop(StopMode::Abandon);
                tokio::time::sleep(STALL).await;
            }
            None => lease.stop(StopMode::Abandon),
        }
        CommitResult::Refused
    }
}
