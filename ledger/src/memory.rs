//! The ledger in this process: a lock, a clock and a channel of hints around `memory/store.rs`.
//!
//! It serves `longshore run` and `dev`, and simulations. `memory/store.rs`, `memory/job.rs` and
//! their neighbours are the ledger proper, pure and synchronous; this file adds a lock, a clock and
//! a channel of events. Each operation locks once, so each is atomic; none waits for anything while
//! it holds the lock. An ended job expires when the first operation after its time runs.
//! Deliberately absent: persistence.

mod access;
mod audit;
mod bitmap;
mod chunks;
mod counting;
mod job;
mod map;
mod recoveries;
mod results;
mod retries;
mod revoking;
mod store;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;
use longshore_protocol::{
    Action, Audit, Blocked, ChunkId, ChunkMessage, ErrorEntry, Finding, Hint, JobFilter, JobId,
    JobIdPrefix, JobMap, JobPage, JobSummary, JournalPosition, KeptApiToken, NodeId, NodeRecord,
    Recovery, ResultsPage, SchedulerId, SchedulerRecord, Severity, Stall, Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use self::job::Job;
use self::store::Store;
use crate::op::MAX_INDICES;
use crate::{
    ActionsParams, Admission, Admitted, AdvanceJournalParams, Beat, BeatParams, BlockedParams,
    Cancelled, Claim, ClaimParams, CommitParams, Committed, ConnectionWatch, ControlError,
    DeclareLostParams, Error, ErrorsParams, Event, Events, Holder, IsolateParams, Ledger,
    ListParams, LossVerdict, MapParams, NodeSnapshot, OpenParams, OpenQueue, Process,
    ProcessConnections, RecordCrashParams, RegisterSchedulerParams, ReleaseParams, Released,
    ReportBlockedParams, ReportStallParams, RestoreParams, Restored, ResultsParams, RetryParams,
    RevokeParams, Revoked, SpeculationRequest, SpeculativeChunk, StoredDocument, Sweep,
    SweepParams, Topic,
};

/// The number of hints that a slow subscriber may be behind before it receives a gap instead.
const EVENTS_KEPT: usize = 1_024;

/// The time source of a memory ledger.
pub trait Clock: Send + Sync + 'static {
    /// The time now. It may stand still or jump; only the measured rate suffers.
    fn now(&self) -> Timestamp;
}

/// The machine's clock without its jumps: its first reading in this process, plus the monotonic
/// time since then. Time during which the machine is suspended does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the ledger owns")]
    fn now(&self) -> Timestamp {
        static FIRST: OnceLock<(Instant, Duration)> = OnceLock::new();
        let (at, since_epoch) = FIRST.get_or_init(|| {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (Instant::now(), time)
        });
        Timestamp::default().plus(*since_epoch + at.elapsed())
    }
}

/// A ledger in memory. Clones share their contents.
#[derive(Clone)]
pub struct MemoryLedger {
    store: Arc<Mutex<Store>>,
    clock: Arc<dyn Clock>,
    events: broadcast::Sender<Sent>,
}

/// An event, and whether schedulers receive it.
type Sent = (Event, bool);

/// The contents of a memory ledger at some moment; see [`MemoryLedger::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot(Store);

impl MemoryLedger {
    /// An empty ledger that reads its time from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { store: Arc::default(), clock, events: broadcast::Sender::new(EVENTS_KEPT) }
    }

    /// Lets [`Ledger::connection_watch`] report the connections of this process as lost until its
    /// next heartbeat. No real process exists whose end could be detected; a test that simulates
    /// one calls this when the process dies.
    pub fn disconnect(&self, process: &Process) {
        self.run(|store, _, _| store.disconnect(process));
    }

    /// A copy of the contents of the ledger.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.store.lock().clone())
    }

    /// Returns to earlier contents, as a Redis that restarts from an older file, or fails over to a
    /// replica that missed the last writes. No hints are sent.
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.store.lock() = snapshot.0.clone();
    }

    /// Runs one operation under the lock, then sends its hints.
    fn run<A>(&self, op: impl FnOnce(&mut Store, Timestamp, &mut Vec<Event>) -> A) -> A {
        self.run_and_send(op, |_| true)
    }

    /// As [`Self::run`]; `for_schedulers` decides by the answer whether schedulers receive the
    /// hints.
    fn run_and_send<A>(
        &self,
        op: impl FnOnce(&mut Store, Timestamp, &mut Vec<Event>) -> A,
        for_schedulers: impl FnOnce(&A) -> bool,
    ) -> A {
        let mut events = Vec::new();
        let mut store = self.store.lock();
        let now = self.clock.now();
        store.expire(now);
        let answer = op(&mut store, now, &mut events);
        let for_schedulers = for_schedulers(&answer);
        // Sent under the lock, so that hints arrive in the order of the changes.
        for event in events {
            // An error means that there is no subscriber.
            let _ = self.events.send((event, for_schedulers));
        }
        answer
    }

    fn change<A>(
        &self,
        job: JobId,
        op: impl FnOnce(&mut Job, Timestamp, &mut Vec<Event>) -> A,
    ) -> Option<A> {
        self.run(|store, now, events| store.change(job, |job| op(job, now, events)))
    }

    fn control(
        &self,
        job: JobId,
        op: impl FnOnce(&mut Job, Timestamp, &mut Vec<Event>) -> Result<JobState, ControlError>,
    ) -> Result<JobState, ControlError> {
        self.change(job, op).unwrap_or(Err(ControlError::NotFound))
    }

    fn read<A>(&self, job: JobId, op: impl FnOnce(&Job) -> A) -> Option<A> {
        self.run(|store, _, _| store.job(job).map(op))
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLedger").finish_non_exhaustive()
    }
}

struct Subscription {
    receiver: broadcast::Receiver<Sent>,
    topic: Topic,
}

fn concerns(topic: Topic, event: &Event) -> bool {
    match (topic, event) {
        (Topic::Schedulers, _) | (_, Event::Gap | Event::Ended(_)) => true,
        (Topic::Clients, Event::Hint(Hint::Job { state, .. })) => !state.is_running(),
        (Topic::Workers, Event::Hint(Hint::Job { state, .. })) => !state.feeds(),
        (Topic::Workers, Event::Hint(Hint::Node { .. })) => true,
        (_, Event::Hint(Hint::Room { .. } | Hint::Node { .. } | Hint::Scheduler { .. })) => false,
    }
}

#[async_trait]
impl Events for Subscription {
    async fn next(&mut self) -> Event {
        loop {
            match self.receiver.recv().await {
                Ok((_, false)) if self.topic == Topic::Schedulers => {}
                Ok((event, _)) if concerns(self.topic, &event) => return event,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Event::Gap,
                // The ledger was dropped, so nothing will ever change again.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

struct MemoryConnectionWatch(MemoryLedger);

#[async_trait]
impl ConnectionWatch for MemoryConnectionWatch {
    async fn disconnected(
        &mut self,
        registered: &[ProcessConnections],
    ) -> Result<Vec<Process>, Error> {
        let all = registered.iter().map(|it| &it.process);
        Ok(self.0.run(|store, _, _| all.filter(|it| store.is_disconnected(it)).cloned().collect()))
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error> {
        if admission.indices() > MAX_INDICES {
            return Ok(Admitted::TooLarge { most: MAX_INDICES });
        }
        // As in Redis: a scheduler that opens chunks with the job feeds it, and the others receive
        // no hint. A ledger that sent one would hide that they must work without it.
        let admit = |store: &mut Store, now, events: &mut _| store.admit(admission, now, events);
        let has_opened =
            |it: &Admitted| matches!(it, Admitted::Accepted { opened, .. } if !opened.is_empty());
        Ok(self.run_and_send(admit, |admitted| !has_opened(admitted)))
    }

    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error> {
        self.run(|store, now, events| store.reject(job, error, now, events));
        Ok(())
    }

    async fn postpone(&self, job: JobId, reason: &str) -> Result<(), Error> {
        self.run(|store, now, _| store.postpone(job, reason, now));
        Ok(())
    }

    async fn postponed(&self, job: JobId) -> Result<Option<String>, Error> {
        Ok(self.run(|store, now, _| store.postponed(job, now)))
    }

    async fn report_stall(&self, job: JobId, params: &ReportStallParams) -> Result<(), Error> {
        self.run(|store, now, _| store.report_stall(job, params, now));
        Ok(())
    }

    async fn stalls(&self, job: JobId) -> Result<Vec<Stall>, Error> {
        Ok(self.run(|store, now, _| store.stalls(job, now)))
    }

    async fn report_blocked(&self, params: &ReportBlockedParams) -> Result<(), Error> {
        self.run(|store, _, _| store.report_blocked(params));
        Ok(())
    }

    async fn blocked(&self, params: &BlockedParams) -> Result<Vec<Option<Blocked>>, Error> {
        Ok(self.run(|store, _, _| store.blocked(params)))
    }

    async fn open(&self, job: JobId, params: &OpenParams) -> Result<Vec<ChunkMessage>, Error> {
        Ok(self.change(job, |job, now, _| job.open(params, now)).unwrap_or_default())
    }

    async fn claim(&self, job: JobId, params: &ClaimParams) -> Result<Claim, Error> {
        let claim = self.change(job, |job, now, _| job.claim(params, now));
        Ok(claim.unwrap_or(Claim::Gone))
    }

    async fn commit(&self, job: JobId, params: &CommitParams) -> Result<Committed, Error> {
        params.commit.check()?;
        self.change(job, |job, now, events| job.commit(params, now, events))
            .unwrap_or(Ok(Committed::Fenced))
    }

    async fn release(&self, job: JobId, params: &ReleaseParams) -> Result<Released, Error> {
        let released = self.change(job, |job, now, events| job.release(params, now, events));
        Ok(released.unwrap_or(Released::Fenced))
    }

    async fn offer_speculative(
        &self,
        job: JobId,
        params: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error> {
        let offered = self.change(job, |job, now, _| job.offer_speculative(params, now));
        Ok(offered.unwrap_or_default())
    }

    async fn revoke(&self, job: JobId, params: &RevokeParams) -> Result<Vec<Revoked>, Error> {
        let revoked = self.change(job, |job, now, events| job.revoke(params, now, events));
        Ok(revoked.unwrap_or_default())
    }

    async fn holders(&self, job: JobId) -> Result<Vec<Holder>, Error> {
        Ok(self.read(job, Job::holders).unwrap_or_default())
    }

    async fn sweep(&self, job: JobId, params: &SweepParams) -> Result<Option<Sweep>, Error> {
        Ok(self.change(job, |job, now, _| {
            let publish = job.sweep(params, now);
            Sweep { summary: job.summary(), publish }
        }))
    }

    async fn pause(&self, job: JobId) -> Result<JobState, ControlError> {
        self.control(job, |job, _, events| job.pause(events))
    }

    async fn resume(&self, job: JobId) -> Result<JobState, ControlError> {
        self.control(job, Job::resume)
    }

    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError> {
        self.run(|store, now, events| store.cancel(job, now, events))
    }

    async fn pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error> {
        Ok(self.run(|store, now, _| store.pending_cancel(job, now)))
    }

    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError> {
        self.control(job, |job, now, events| job.fail(error, now, events))
    }

    async fn retry(&self, job: JobId, params: &RetryParams) -> Result<JobState, ControlError> {
        self.control(job, |job, now, events| job.retry(params.indices.as_deref(), now, events))
    }

    async fn delete(&self, job: JobId) -> Result<(), ControlError> {
        self.run(|store, now, _| store.delete(job, now))
    }

    async fn restore(&self, params: &RestoreParams) -> Result<Restored, Error> {
        params.prior.check(&params.admission)?;
        Ok(self.run(|store, now, events| store.restore(params, now, events)))
    }

    async fn missing(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
        Ok(self.run(|store, now, _| store.missing(jobs, now)))
    }

    async fn journal_position(&self) -> Result<Option<JournalPosition>, Error> {
        Ok(self.run(|store, _, _| store.journal()))
    }

    async fn advance_journal(
        &self,
        params: &AdvanceJournalParams,
    ) -> Result<Option<JournalPosition>, Error> {
        Ok(self.run(|store, _, _| store.advance(params)))
    }

    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error> {
        Ok(self.read(job, Job::summary))
    }

    async fn active_jobs(&self) -> Result<Vec<JobId>, Error> {
        Ok(self.run(|store, _, _| store.active_jobs()))
    }

    async fn list(&self, params: &ListParams) -> Result<JobPage, Error> {
        Ok(self.run(|store, _, _| store.list(params)))
    }

    async fn count_jobs(&self, filter: &JobFilter) -> Result<Option<JobCounts>, Error> {
        Ok(self.run(|store, _, _| store.count_jobs(filter)))
    }

    async fn open_queues(&self) -> Result<Vec<OpenQueue>, Error> {
        Ok(self.run(|store, _, _| store.open_queues()))
    }

    async fn map(&self, job: JobId, params: &MapParams) -> Result<Option<JobMap>, Error> {
        Ok(self.read(job, |job| job.map(params)))
    }

    async fn find_ids(&self, prefix: &JobIdPrefix, limit: usize) -> Result<Vec<JobId>, Error> {
        Ok(self.run(|store, _, _| store.find_ids(prefix, limit)))
    }

    async fn unique_prefixes(&self, jobs: &[JobId]) -> Result<Vec<usize>, Error> {
        Ok(self.run(|store, _, _| store.unique_prefixes(jobs)))
    }

    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        Ok(self.run(|store, _, _| store.finished_jobs(limit)))
    }

    async fn archive(&self, job: JobId) -> Result<(), Error> {
        self.run(|store, _, _| store.archive(job));
        Ok(())
    }

    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        let document = self.read(job, |job| {
            (job.state.was_accepted()).then(|| StoredDocument {
                digest: job.admission.digest.clone(),
                document: job.admission.document.clone(),
                manifest: job.admission.manifest.clone(),
            })
        });
        Ok(document.flatten())
    }

    async fn results(&self, job: JobId, params: &ResultsParams) -> Result<ResultsPage, Error> {
        let page = self.read(job, |job| job.results.page(params.indices.clone(), params.max_bytes));
        Ok(page.unwrap_or(ResultsPage { runs: Vec::new(), next: params.indices.end }))
    }

    async fn errors(&self, job: JobId, params: &ErrorsParams) -> Result<Vec<ErrorEntry>, Error> {
        let page = self.read(job, |job| job.errors.page(params.from, params.limit));
        Ok(page.unwrap_or_default())
    }

    async fn recoveries(&self, job: JobId, limit: usize) -> Result<Vec<Recovery>, Error> {
        Ok(self.read(job, |job| job.recoveries.newest(limit)).unwrap_or_default())
    }

    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error> {
        Ok(self.read(job, Job::audit))
    }

    async fn beat(&self, params: &BeatParams) -> Result<Beat, Error> {
        Ok(self.run(|store, now, events| store.beat(params, now, events)))
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        Ok(self.run(|store, _, _| store.nodes()))
    }

    async fn nodes_since(&self, _known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        Ok(self.run(|store, now, _| NodeSnapshot::new(store.nodes(), store.lost(now))))
    }

    fn connection_watch(&self) -> Box<dyn ConnectionWatch> {
        Box::new(MemoryConnectionWatch(self.clone()))
    }

    async fn tried_nodes(&self, job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error> {
        let tried = self.read(job, |job| job.tried(chunks));
        Ok(tried.unwrap_or_else(|| vec![Vec::new(); chunks.len()]))
    }

    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error> {
        let again = self.change(job, |job, now, events| job.refund_attempts(nodes, now, events));
        Ok(again.unwrap_or_default())
    }

    async fn undrain(&self, node: &NodeId) -> Result<bool, Error> {
        Ok(self.run(|store, _, events| store.undrain(node, events)))
    }

    async fn isolate(&self, params: &IsolateParams) -> Result<bool, Error> {
        Ok(self.run(|store, _, events| store.isolate(params, events)))
    }

    async fn drain(&self, node: &NodeId) -> Result<bool, Error> {
        Ok(self.run(|store, _, events| store.drain(node, events)))
    }

    async fn record_crash(&self, params: &RecordCrashParams) -> Result<bool, Error> {
        Ok(self.run(|store, _, events| store.record_crash(params, events)))
    }

    async fn declare_lost(&self, params: &DeclareLostParams) -> Result<LossVerdict, Error> {
        Ok(self.run(|store, now, events| store.lose(params, now, events)))
    }

    async fn register_scheduler(
        &self,
        params: &RegisterSchedulerParams,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        Ok(self.run(|store, now, _| store.register_scheduler(params, now)))
    }

    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error> {
        Ok(self.run(|store, _, _| store.schedulers()))
    }

    async fn deregister_scheduler(&self, scheduler: &SchedulerId) -> Result<(), Error> {
        self.run(|store, _, events| store.deregister_scheduler(scheduler, events));
        Ok(())
    }

    async fn add_api_token(&self, token: &KeptApiToken) -> Result<bool, Error> {
        Ok(self.run(|store, _, _| store.access.add(token)))
    }

    async fn api_tokens(&self) -> Result<Vec<KeptApiToken>, Error> {
        Ok(self.run(|store, _, _| store.access.tokens()))
    }

    async fn remove_api_token(&self, id: &str) -> Result<bool, Error> {
        Ok(self.run(|store, _, _| store.access.remove(id)))
    }

    async fn record_action(&self, action: &Action) -> Result<(), Error> {
        self.run(|store, now, _| store.access.record(action, now));
        Ok(())
    }

    async fn actions(&self, params: &ActionsParams) -> Result<Vec<Action>, Error> {
        Ok(self.run(|store, _, _| store.access.actions(params)))
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        Ok(Box::new(Subscription { receiver: self.events.subscribe(), topic }))
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.clock.now())
    }

    async fn examine(&self) -> Vec<Finding> {
        vec![Finding {
            severity: Severity::Ok,
            check: "ledger.memory".into(),
            found: "the ledger is kept in this process and ends with it".into(),
            remedy: String::new(),
        }]
    }

    fn separate(&self) -> Arc<dyn Ledger> {
        Arc::new(self.clone())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
