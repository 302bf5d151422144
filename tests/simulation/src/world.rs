//! The shared state of one run: true broker and ledger, fault rates, clock, history and trace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use longshore_broker::memory::MemoryBroker;
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_protocol::{JobId, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Violation;
use crate::history::History;
use crate::process::Process;
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::tally::Tally;
use crate::workload::Job;

/// The time of the ledger's clock when a run begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// One run.
pub(crate) struct World {
    pub(crate) ledger: MemoryLedger,
    pub(crate) broker: MemoryBroker,
    pub(crate) clock: Arc<SimulatedClock>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// Decides random events during the run.
    pub(crate) rng: Rng,
    pub(crate) fault_rates: Mutex<FaultRates>,
    pub(crate) history: Mutex<History>,
    /// Result objects by URL.
    pub(crate) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) processes: Mutex<Vec<Arc<Process>>>,
    pub(crate) tally: Mutex<Tally>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) dead_after: Duration,
    /// Whether no worker is ever killed, frozen or cut off.
    pub(crate) is_steady: AtomicBool,
    /// Whether the only faults of this run are outages of the ledger and the broker.
    pub(crate) only_servers_fail: bool,
    /// Whether the only faults of this run are kills and freezes of single processes. Then the time
    /// limits of S13 hold.
    pub(crate) only_processes_fail: bool,
    begun: Instant,
    confirmed: Mutex<BTreeSet<JobId>>,
    trace: Option<Mutex<String>>,
    violation: Mutex<Option<Violation>>,
}

/// How often calls and messages fail, per mille.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultRates {
    pub(crate) crash_at_call: u64,
    pub(crate) call_lost: u64,
    pub(crate) reply_lost: u64,
    pub(crate) call_late: u64,
    pub(crate) hint_lost: u64,
    pub(crate) message_lost: u64,
    pub(crate) message_doubled: u64,
    pub(crate) message_late: u64,
    pub(crate) confirm_lost: u64,
    pub(crate) publish_refused: u64,
    pub(crate) write_refused: u64,
    pub(crate) files_away: u64,
    pub(crate) write_late: u64,
}

/// The ledger's clock: virtual time plus the injected jumps.
#[derive(Debug)]
pub(crate) struct SimulatedClock {
    begun: Instant,
    jumped_ms: AtomicI64,
}

impl SimulatedClock {
    pub(crate) fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// The virtual time at which the clock showed this, if it has not jumped since.
    pub(crate) fn virtual_time(&self, at: Timestamp) -> Duration {
        let jumped_ms = self.jumped_ms.load(Ordering::Relaxed);
        let ms = at.as_millis() as i64 - EPOCH_MS - jumped_ms;
        Duration::from_millis(ms.max(0) as u64)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.begun.elapsed().as_millis() as i64;
        let ms = EPOCH_MS + elapsed + self.jumped_ms.load(Ordering::Relaxed);
        Timestamp::from_millis(ms as u64)
    }
}

impl World {
    pub(crate) fn new(
        rng: Rng,
        jobs: Vec<Job>,
        fault_rates: FaultRates,
        (dead_after, only_servers_fail, only_processes_fail): (Duration, bool, bool),
        sabotage: Option<Sabotage>,
        traced: bool,
    ) -> Arc<Self> {
        let begun = Instant::now();
        let clock = Arc::new(SimulatedClock { begun, jumped_ms: AtomicI64::new(0) });
        Arc::new(Self {
            ledger: MemoryLedger::new(clock.clone()),
            broker: MemoryBroker::new(),
            clock,
            jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
            rng,
            fault_rates: Mutex::new(fault_rates),
            history: Mutex::default(),
            objects: Mutex::default(),
            processes: Mutex::default(),
            tally: Mutex::default(),
            sabotage,
            dead_after,
            is_steady: AtomicBool::new(false),
            only_servers_fail,
            only_processes_fail,
            begun,
            confirmed: Mutex::default(),
            trace: traced.then(Mutex::default),
            violation: Mutex::default(),
        })
    }

    /// Whether workers have exclusive tasks.
    pub(crate) fn has_exclusive(&self) -> bool {
        self.jobs.values().any(Job::is_exclusive)
    }

    /// Virtual time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The moment that lies `after` behind the start of the run.
    pub(crate) fn at(&self, after: Duration) -> Instant {
        self.begun + after
    }

    /// Records that the broker has confirmed the job to the application.
    pub(crate) fn confirmed(&self, job: JobId) {
        self.confirmed.lock().insert(job);
    }

    pub(crate) fn confirmed_jobs(&self) -> Vec<JobId> {
        self.confirmed.lock().iter().copied().collect()
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.tally.lock().count(what);
    }

    /// Appends a line to the trace, if there is one.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let mut trace = trace.lock();
            *trace += &format!("{:>9.3} {}\n", self.now().as_secs_f64(), line());
        }
    }

    pub(crate) fn take_trace(&self) -> String {
        self.trace.as_ref().map(|trace| std::mem::take(&mut *trace.lock())).unwrap_or_default()
    }

    /// Records the violation of an invariant. Only the first one is kept.
    pub(crate) fn violated(&self, invariant: &'static str, what: impl FnOnce() -> String) {
        let mut violation = self.violation.lock();
        if violation.is_none() {
            let what = what();
            self.note(|| format!("VIOLATION of {invariant}: {what}"));
            *violation = Some(Violation { invariant, at: self.now(), what });
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.lock().clone()
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.violation.lock().is_some()
    }

    /// Draws whether an event of this rate happens now, and counts it if so.
    pub(crate) fn happens(&self, what: &'static str, chance: impl Fn(&FaultRates) -> u64) -> bool {
        let per_mille = chance(&self.fault_rates.lock());
        let happens = self.rng.chance(per_mille);
        if happens {
            self.count(what);
        }
        happens
    }

    pub(crate) fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    /// The processes that were not killed and have not exited.
    pub(crate) fn living(&self) -> Vec<Arc<Process>> {
        let mut processes = self.processes.lock();
        processes.retain(|process| !process.is_dead());
        processes.clone()
    }
}
