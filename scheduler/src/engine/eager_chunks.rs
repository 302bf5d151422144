//! The first chunks that are being opened together with their jobs, and their part of the load.

use std::collections::BTreeMap;

use longshore_protocol::{JobId, Timestamp};

use super::pool::PoolKey;
use super::window::{Load, UNMEASURED};

/// A chunk that the ledger opens together with its job, in the same operation.
#[derive(Debug)]
pub(super) struct EagerChunk {
    /// The pool whose window the chunk counts against until the ledger has answered.
    pub(super) pool: PoolKey,
    /// When the admitter was allowed to open it.
    pub(super) allowed_at: Timestamp,
}

/// Those whose admission is in flight.
#[derive(Debug, Default)]
pub(super) struct EagerChunks {
    by_job: BTreeMap<JobId, EagerChunk>,
}

impl EagerChunks {
    pub(super) fn add(&mut self, job: JobId, chunk: EagerChunk) {
        self.by_job.insert(job, chunk);
    }

    pub(super) fn remove(&mut self, job: JobId) -> Option<EagerChunk> {
        self.by_job.remove(&job)
    }

    /// Adds what is in flight for a pool to the pool's load.
    pub(super) fn add_to(&self, pool: &PoolKey, load: &mut Load) {
        let count = self.by_job.values().filter(|chunk| chunk.pool == *pool).count() as u64;
        load.waiting += count;
        load.work_us += count * UNMEASURED.as_micros() as u64;
    }
}
