//! Reads what the engine needs of job documents: specs, and keys of chunks that are placed by hash.
//!
//! The spec of a job is read once. Plans are kept only for jobs that are placed by hash, and few at
//! a time, since a document can be 16 MiB.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_ledger::{Error, Ledger, StoredDocument};
use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::{ChunkMessage, JobDocument, JobId, Json, Manifest, Plan};
use tokio::time::Instant;
use tracing::warn;

use crate::engine::ring;
use crate::engine::{JobSpec, RoutedChunk};

/// The most plans kept at once, and the most bytes of memory that they take; the newest is kept
/// whatever its size. A plan that is needed again is read again.
const KEPT: usize = 16;
const MAX_BYTES: usize = 256 << 20;

/// A plan that was not needed for this long is dropped when another one is read or forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// Reads and keeps the documents of jobs.
pub(crate) struct Plans {
    ledger: Arc<dyn Ledger>,
    /// The oldest first.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    job: JobId,
    plan: Arc<Plan>,
    used: Instant,
}

impl Plans {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, kept: Mutex::default() }
    }

    /// The spec of a job; `None` if the ledger has no such job.
    pub(crate) async fn spec(&self, job: JobId) -> Result<Option<JobSpec>, Error> {
        let Some(stored) = self.ledger.document(job).await? else { return Ok(None) };
        let document = JobDocument::parse(stored.document.as_bytes()).inspect_err(|error| {
            // Admitted by a later version. The ledger still enforces its limits, so the job goes
            // on.
            warn!(%job, %error, "stored document unreadable; job fed with default settings");
        });
        let unread = JobSpec {
            chunk: Chunk::Auto,
            max_parallel: None,
            placement: Placement::Shared,
            fan_in: None,
            reduce_task: None,
        };
        Ok(Some(document.map_or(unread, |document| JobSpec::of(&document))))
    }

    /// The messages with the hashes of their keys, if the job is placed by hash.
    pub(crate) async fn routed(
        &self,
        job: JobId,
        messages: Vec<ChunkMessage>,
        with_keys: bool,
    ) -> Result<Vec<RoutedChunk>, Error> {
        let plan = if with_keys && !messages.is_empty() { self.plan(job).await? } else { None };
        let key = |message: &ChunkMessage| key_of(plan.as_ref()?, message.from);
        Ok(messages
            .into_iter()
            .map(|message| RoutedChunk { key: key(&message), message, tried: Vec::new() })
            .collect())
    }

    /// Drops the plan of a job that has ended.
    pub(crate) fn forget(&self, job: JobId) {
        self.lock().retain(|kept| kept.job != job && kept.used.elapsed() < IDLE);
    }

    async fn plan(&self, job: JobId) -> Result<Option<Arc<Plan>>, Error> {
        if let Some(kept) = self.lock().iter_mut().find(|kept| kept.job == job) {
            kept.used = Instant::now();
            return Ok(Some(kept.plan.clone()));
        }
        let Some(stored) = self.ledger.document(job).await? else { return Ok(None) };
        let plan = match read(&stored) {
            Ok(plan) => Arc::new(plan),
            Err(error) => {
                warn!(%job, error, "stored document unreadable; chunks go to any worker");
                return Ok(None);
            }
        };
        let mut kept = self.lock();
        kept.retain(|kept| kept.used.elapsed() < IDLE);
        kept.push_back(Kept { job, plan: plan.clone(), used: Instant::now() });
        let weight =
            |kept: &VecDeque<Kept>| kept.iter().map(|kept| kept.plan.weight()).sum::<usize>();
        while kept.len() > KEPT || (kept.len() > 1 && weight(&kept) > MAX_BYTES) {
            kept.pop_front();
        }
        Ok(Some(plan))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().expect("nothing panics while it holds the lock")
    }
}

fn read(stored: &StoredDocument) -> Result<Plan, String> {
    let document = JobDocument::parse(stored.document.as_bytes()).map_err(|e| e.to_string())?;
    let manifest = match &stored.manifest {
        Some(json) => serde_json::from_str(json).map_err(|e| e.to_string())?,
        None => Manifest::default(),
    };
    Plan::new(document, manifest).map_err(|e| e.to_string())
}

/// The key of a subtask: equal values at the pointer give equal keys; a missing value counts as
/// `null`.
fn key_of(plan: &Plan, index: u64) -> Option<u64> {
    let Placement::Hash(pointer) = &plan.document().placement else { return None };
    if index >= plan.total() {
        return None;
    }
    let input = Json::of(&plan.input(index)).ok()?;
    Some(ring::hash(input.pointer(pointer).unwrap_or("null").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn keys(split: &str, pointer: &str, same: &[(u64, u64, bool)]) {
        let json = format!(
            r#"{{"task":"noop","split":{split},"placement":{{"hash":"{pointer}"}},
                "reduce":{{"task":"sum"}}}}"#
        );
        let document = JobDocument::parse(json.as_bytes()).unwrap();
        let plan = Plan::new(document, Manifest::default()).unwrap();
        for (a, b, equal) in same {
            let (a, b) = (key_of(&plan, *a), key_of(&plan, *b));
            assert!(a.is_some());
            assert_eq!(a == b, *equal);
        }
        assert_eq!(key_of(&plan, plan.total()), None, "nodes of the reduce have no key");
    }

    #[test]
    fn equal_values_at_the_pointer_have_equal_keys() {
        let items =
            r#"{"by":"items","items":[{"c":{"id":7}},{"c":{"id":8}},{"c":{"id":7},"x":1},{}]}"#;
        keys(items, "/c/id", &[(0, 1, false), (0, 2, true), (0, 3, false)]);
        let large = r#"{"by":"items","items":[12345678901234567890123,12345678901234567890124]}"#;
        keys(large, "", &[(0, 0, true), (0, 1, false)]);
        keys(r#"{"by":"range","start":0,"end":9}"#, "", &[(0, 1, false), (3, 3, true)]);
        keys(r#"{"by":"grid","axes":{"a":[1,2],"b":[3,4]}}"#, "/a", &[(0, 1, true), (1, 2, false)]);
    }
}
