//! Caches the plans of jobs: fetched from the ledger once, and kept while chunks of the job run.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Ledger, StoredDocument};
use longshore_protocol::{Digest, JobDocument, JobId, Manifest, Plan};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Most plans in the cache. A worker's slots run a few jobs at a time; where fairness makes it run
/// more jobs than this, a plan is fetched again now and then.
const MAX_PLANS: usize = 64;

/// Most bytes of memory that the cached plans take up; the newest is kept whatever its size.
const MAX_BYTES: usize = 256 << 20;

/// How long an unused plan is kept for the next chunk of its job. The plans of jobs that have ended
/// are dropped in this way, too.
const IDLE: Duration = Duration::from_secs(5);

/// Why a job has no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The ledger has no document of this digest for the job.
    #[error("the job's document is gone")]
    Gone,
    /// The document was accepted by another version that knows more.
    #[error("version {v} can't read the job's document: {0}", v = env!("CARGO_PKG_VERSION"))]
    Unreadable(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
}

/// The plans of the jobs that ran on this worker lately.
#[derive(Default)]
pub(crate) struct Plans {
    /// The least recently used first.
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    job: JobId,
    digest: Digest,
    cell: Arc<OnceCell<Arc<Plan>>>,
    bytes: usize,
    used: Instant,
}

impl Entry {
    /// Whether a chunk uses the plan, or a task fetches it.
    fn is_in_use(&self) -> bool {
        let is_held = self.cell.get().is_some_and(|plan| Arc::strong_count(plan) > 1);
        is_held || Arc::strong_count(&self.cell) > 1
    }
}

impl Plans {
    /// The plan of a job; chunks that ask at the same time share one fetch.
    pub(crate) async fn get(
        &self,
        ledger: &dyn Ledger,
        job: JobId,
        digest: &Digest,
    ) -> Result<Arc<Plan>, Error> {
        let cell = self.cell(job, digest);
        let plan = cell
            .get_or_try_init(|| async {
                let stored = ledger.document(job).await?;
                let stored = stored.filter(|stored| stored.digest == *digest).ok_or(Error::Gone)?;
                self.read(job, &stored)
            })
            .await?;
        Ok(plan.clone())
    }

    /// Fetches the plan of a job that is not in the cache, while the job's first chunk is being
    /// claimed. A failure shows when the plan is needed.
    pub(crate) async fn prepare(&self, ledger: &dyn Ledger, job: JobId) {
        let is_kept = self.entries.lock().iter().any(|entry| entry.job == job);
        if is_kept {
            return;
        }
        if let Ok(Some(stored)) = ledger.document(job).await {
            let cell = self.cell(job, &stored.digest);
            if let Ok(plan) = self.read(job, &stored) {
                // A task that was quicker fetched the same plan.
                let _ = cell.set(plan);
            }
        }
    }

    /// Drops unused plans from time to time. Never ends.
    pub(crate) async fn drop_idle_regularly(&self) {
        loop {
            tokio::time::sleep(IDLE / 2).await;
            self.drop_idle();
        }
    }

    fn drop_idle(&self) {
        let mut entries = self.entries.lock();
        for entry in entries.iter_mut().filter(|entry| entry.is_in_use()) {
            entry.used = Instant::now();
        }
        entries.retain(|entry| entry.used.elapsed() < IDLE);
    }

    fn read(&self, job: JobId, stored: &StoredDocument) -> Result<Arc<Plan>, Error> {
        let manifest = stored.manifest.as_deref();
        let plan = read(&stored.document, manifest).map_err(Error::Unreadable)?;
        self.weigh(job, &stored.digest, plan.weight());
        Ok(Arc::new(plan))
    }

    fn cell(&self, job: JobId, digest: &Digest) -> Arc<OnceCell<Arc<Plan>>> {
        let mut entries = self.entries.lock();
        let found = entries.iter().position(|entry| entry.job == job && entry.digest == *digest);
        let entry = match found {
            Some(place) => entries.remove(place),
            None => {
                let (cell, used) = (Arc::default(), Instant::now());
                Entry { job, digest: digest.clone(), cell, bytes: 0, used }
            }
        };
        let entry = Entry { used: Instant::now(), ..entry };
        let cell = entry.cell.clone();
        entries.push(entry);
        if entries.len() > MAX_PLANS {
            entries.remove(0);
        }
        cell
    }

    fn weigh(&self, job: JobId, digest: &Digest, bytes: usize) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|e| e.job == job && e.digest == *digest) {
            entry.bytes = bytes;
        }
        let mut total: usize = entries.iter().map(|entry| entry.bytes).sum();
        while total > MAX_BYTES && entries.len() > 1 {
            total -= entries.remove(0).bytes;
        }
    }
}

fn read(document: &str, manifest: Option<&str>) -> Result<Plan, String> {
    let document = JobDocument::parse(document.as_bytes()).map_err(|error| error.to_string())?;
    let manifest = match manifest {
        Some(json) => serde_json::from_str(json).map_err(|error| format!("manifest: {error}"))?,
        None => Manifest::default(),
    };
    Plan::new(document, manifest).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use longshore_ledger::Admission;
    use longshore_ledger::memory::{MemoryLedger, SystemClock};

    use super::*;

    fn job(number: usize) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(number as u128))
    }

    #[test]
    fn the_least_recently_used_plan_is_dropped_first() {
        let plans = Plans::default();
        let digest = Digest::new("d");
        for number in 0..MAX_PLANS {
            plans.cell(job(number), &digest);
        }
        let kept = plans.cell(job(0), &digest);
        plans.cell(job(MAX_PLANS), &digest);
        assert!(Arc::ptr_eq(&kept, &plans.cell(job(0), &digest)), "job 0 was used just now");
        let jobs: Vec<JobId> = plans.entries.lock().iter().map(|entry| entry.job).collect();
        assert_eq!(jobs.len(), MAX_PLANS);
        assert!(!jobs.contains(&job(1)), "job 1 was used least recently");
    }

    #[test]
    fn large_plans_are_dropped_but_the_newest_stays() {
        let plans = Plans::default();
        let digest = Digest::new("d");
        for number in 0..3 {
            plans.cell(job(number), &digest);
            plans.weigh(job(number), &digest, MAX_BYTES);
        }
        let jobs: Vec<JobId> = plans.entries.lock().iter().map(|entry| entry.job).collect();
        assert_eq!(jobs, [job(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_plan_is_dropped_within_seconds() {
        let plans = Plans::default();
        let digest = Digest::new("d");
        let plan =
            Arc::new(read(r#"{"task":"t","split":{"by":"items","items":[1]}}"#, None).unwrap());
        for number in 0..3 {
            plans.cell(job(number), &digest).set(plan.clone()).unwrap();
        }
        let fetched = plans.cell(job(2), &digest);
        let kept = || plans.entries.lock().iter().map(|entry| entry.job).collect::<Vec<_>>();
        let for_some_time = |time| tokio::time::timeout(time, plans.drop_idle_regularly());
        let _ = for_some_time(IDLE * 3).await;
        assert_eq!(kept(), [job(0), job(1), job(2)], "a chunk uses them");
        drop(plan);
        let _ = for_some_time(IDLE * 3).await;
        assert_eq!(kept().len(), 3, "the three cells hold one plan");
        for number in 0..2 {
            plans.entries.lock().retain(|entry| entry.job != job(number));
        }
        let _ = for_some_time(IDLE * 3).await;
        assert_eq!(kept(), [job(2)], "a task fetches it");
        drop(fetched);
        let _ = for_some_time(IDLE * 3).await;
        assert_eq!(kept(), []);
    }

    #[tokio::test]
    async fn a_prepared_plan_is_not_fetched_again() {
        let ledger = MemoryLedger::new(Arc::new(SystemClock));
        let json = r#"{"task": "noop", "split": {"by": "items", "items": [1]}}"#;
        let document = JobDocument::parse(json.as_bytes()).expect("it is right");
        let admission = Admission {
            digest: document.digest(),
            document: json.into(),
            ..Admission::plain(job(1), 1)
        };
        let plans = Plans::default();
        plans.prepare(&ledger, job(1)).await;
        ledger.admit(&admission).await.expect("memory");
        plans.prepare(&ledger, job(1)).await;
        ledger.cancel(job(1)).await.expect("it is open");
        ledger.delete(job(1)).await.expect("it has ended");
        plans.prepare(&ledger, job(1)).await;
        let plan = plans.get(&ledger, job(1), &document.digest()).await.expect("it is kept");
        assert_eq!(plan.total(), 1);
        let other = plans.get(&ledger, job(1), &Digest::new("other")).await;
        assert!(matches!(other, Err(Error::Gone)), "another document is not taken for it");
    }
}
