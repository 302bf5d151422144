//! Commits of one chunk, one after another, beside the subtasks that run.
//!
//! A commit that the ledger does not answer at once goes on while the next subtasks run, so that an
//! outage of the ledger stops no slot before the slot's memory is used up: a chunk keeps the
//! outcomes of one commit and those of one batch, each of `MAX_BYTES` or `MAX_RUNS` (`batch`) and
//! one result more. Then the next subtask waits. Nothing is dropped.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{sleep_until, timeout};

use crate::batch::{Batch, Settled};
use crate::holdings::Ending;
use crate::pipeline::{Chunk, Pipeline};

/// The next subtask waits so long for a commit to be answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a commit.
pub(crate) enum Put {
    /// The ledger took everything before this index.
    Taken(u64),
    /// The chunk is not ours any more.
    Refused,
    /// The results can't be written now, for this reason.
    Unwritten(Settled, String),
}

/// The commits of a chunk.
pub(crate) struct Commits<'c> {
    pipeline: &'c Pipeline,
    chunk: &'c Chunk<'c>,
    under_way: Option<BoxFuture<'c, Put>>,
    /// Results can't be written; nothing is tried again while a subtask runs.
    is_stuck: bool,
}

impl<'c> Commits<'c> {
    pub(crate) fn new(pipeline: &'c Pipeline, chunk: &'c Chunk<'c>) -> Self {
        Self { pipeline, chunk, under_way: None, is_stuck: false }
    }

    /// Commits what falls due. Never ends; nothing is lost when it is dropped.
    pub(crate) async fn keep_up(&mut self, batch: &mut Batch) {
        loop {
            self.finish(batch).await;
            match batch.due_at().filter(|_| !self.is_stuck) {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
            self.begin(batch);
        }
    }

    /// Commits what is settled before the next subtask begins, or begins to.
    pub(crate) async fn catch_up(&mut self, batch: &mut Batch) {
        if self.under_way.is_some() && !batch.is_full() {
            return;
        }
        self.finish(batch).await;
        self.begin(batch);
        if self.chunk.grant.is_suspect() {
            // Should the next subtask kill the worker, its forerunners are safe.
            return self.finish(batch).await;
        }
        let _ = timeout(PATIENCE, self.finish(batch)).await;
    }

    fn begin(&mut self, batch: &mut Batch) {
        if let Some(settled) = batch.take() {
            let (pipeline, chunk) = (self.pipeline, self.chunk);
            self.under_way = Some(Box::pin(pipeline.put(chunk, settled)));
        }
    }

    /// Waits for the end of the commit under way.
    pub(crate) async fn finish(&mut self, batch: &mut Batch) {
        let Some(commit) = &mut self.under_way else { return };
        let put = commit.await;
        self.under_way = None;
        match put {
            Put::Taken(end) => batch.commit(end),
            Put::Refused => {}
            Put::Unwritten(settled, _) => {
                batch.put_back(settled);
                // The slot is for others while results wait to be written.
                self.chunk.hold.end(Ending::Yield);
                self.is_stuck = true;
            }
        }
    }
}
