//! Audits the active jobs, one a second in turn: books that don't balance are seen in the metrics before anybody asks.

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
use crate::rounds::Rounds;

/// Recounting a job of a hundred million subtasks keeps Redis busy for some milliseconds.
const EVERY: Duration = Duration::from_secs(1);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    rounds: Rounds,
    active: watch::Receiver<Vec<JobId>>,
) {
    let health = service.health("auditing jobs");
    let mut off: BTreeMap<JobId, u64> = BTreeMap::new();
    let mut last = None;
    loop {
        let jobs = active.borrow().clone();
        off.retain(|job, _| jobs.contains(job));
        gauge!(ACTIVE_JOBS).set(jobs.len() as f64);
        last = next(&jobs, last);
        if let Some(job) = last
            && let Ok(Some(audit)) = health.note(ledger.audit(job).await)
        {
            let before = off.insert(job, audit.imbalance());
            if audit.imbalance() > 0 && before.unwrap_or_default() == 0 {
                error!(%job, findings = ?audit.findings, "the counts of a job don't balance");
            }
        }
        gauge!(LEDGER_IMBALANCE).set(off.values().sum::<u64>() as f64);
        rounds.rest(EVERY).await;
    }
}

/// The job after the last one, round and round in the order of ids.
fn next(jobs: &[JobId], last: Option<JobId>) -> Option<JobId> {
    let after = jobs.iter().filter(|job| Some(**job) > last).min();
    after.or_else(|| jobs.iter().min()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_has_its_turn_and_newcomers_wait_for_theirs() {
        let job = |number| JobId::from_uuid(uuid::Uuid::from_u128(number));
        let jobs = [job(3), job(1), job(2)];
        assert_eq!(next(&jobs, None), Some(job(1)));
        assert_eq!(next(&jobs, Some(job(1))), Some(job(2)));
        assert_eq!(next(&jobs, Some(job(2))), Some(job(3)));
        assert_eq!(next(&jobs, Some(job(3))), Some(job(1)));
        assert_eq!(next(&jobs[..1], Some(job(1))), Some(job(3)), "what has ended is left out");
        assert_eq!(next(&[], Some(job(3))), None);
    }
}
