//! Audits one active job each second, in turn, and publishes the imbalance of all as a metric.
//!
//! So counts that don't balance show before a user finds them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_protocol::JobId;
use metrics::gauge;
use tokio::sync::watch;
use tracing::error;

use crate::health::Service;
use crate::metrics::{ACTIVE_JOBS, LEDGER_IMBALANCE};
use crate::tick_aligner::TickAligner;

/// Long enough: to recount a job of a hundred million subtasks keeps Redis busy for some
/// milliseconds.
const EVERY: Duration = Duration::from_secs(1);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    ticks: TickAligner,
    active: watch::Receiver<Vec<JobId>>,
) {
    let health = service.health("auditing jobs");
    let mut imbalances: BTreeMap<JobId, u64> = BTreeMap::new();
    let mut last = None;
    loop {
        let jobs = active.borrow().clone();
        imbalances.retain(|job, _| jobs.contains(job));
        gauge!(ACTIVE_JOBS).set(jobs.len() as f64);
        last = next(&jobs, last);
        if let Some(job) = last
            && let Ok(Some(audit)) = health.note(ledger.audit(job).await)
        {
            let before = imbalances.insert(job, audit.imbalance());
            if audit.imbalance() > 0 && before.unwrap_or_default() == 0 {
                error!(%job, findings = ?audit.findings, "job's counts don't balance: a bug");
            }
        }
        gauge!(LEDGER_IMBALANCE).set(imbalances.values().sum::<u64>() as f64);
        ticks.sleep(EVERY).await;
    }
}

/// The job after the last one in the order of ids; after the last of all, the first.
fn next(jobs: &[JobId], last: Option<JobId>) -> Option<JobId> {
    let after = jobs.iter().filter(|job| Some(**job) > last).min();
    after.or_else(|| jobs.iter().min()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_audited_in_turn() {
        let job = |number| JobId::from_uuid(uuid::Uuid::from_u128(number));
        let jobs = [job(3), job(1), job(2)];
        assert_eq!(next(&jobs, None), Some(job(1)));
        assert_eq!(next(&jobs, Some(job(1))), Some(job(2)));
        assert_eq!(next(&jobs, Some(job(2))), Some(job(3)));
        assert_eq!(next(&jobs, Some(job(3))), Some(job(1)));
        assert_eq!(
            next(&jobs[..1], Some(job(1))),
            Some(job(3)),
            "jobs that have ended are left out"
        );
        assert_eq!(next(&[], Some(job(3))), None);
    }
}
