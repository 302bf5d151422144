//! The ledger in Redis 7 or later (or Valkey): a single server, Sentinel, or a Cluster.
//!
//! It is the only code that uses the redis crates.
//!
//! Every operation on a job is one call of a function of the library `longshore_v1` ([`library`]),
//! whose keys share a slot. The lists of jobs, workers and schedulers are in slots of their own and
//! are changed by plain commands around those calls, in an order that after a failure leaves a job
//! on one list too many rather than on none.
//!
//! ```text
//! Ledger ──> jobs, control, reading, fleet ──> (group ──>) Call ──> Transport ──> shared connections
//! ```
//!
//! Deliberately absent: retries after errors of unknown outcome (callers repeat, operations are
//! idempotent), and any cache of jobs.

mod access;
mod address;
mod audit;
mod blocked;
mod call;
mod clock;
mod connection_watch;
mod connections;
mod control;
mod counting;
mod error_kind;
mod events;
mod examine;
mod fleet;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod id_index;
mod job_fields;
mod job_map;
mod jobs;
pub mod library;
mod listing;
mod lost;
mod node_hash;
mod packing;
mod pool;
mod reading;
mod ready;
mod reply;
mod restoring;
mod round_trips;
mod stalls;
mod summary;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;
use longshore_protocol::{
    Action, Audit, Blocked, ChunkId, ChunkMessage, ErrorEntry, JobFilter, JobId, JobIdPrefix,
    JobMap, JobPage, JobSummary, JournalPosition, KeptApiToken, NodeId, NodeRecord, Recovery,
    ResultsPage, SchedulerId, SchedulerRecord, Stall, Timestamp,
};

use longshore_tls::TlsFiles;
use parking_lot::{Mutex, MutexGuard};

use crate::keys::Keys;
use crate::{
    ActionsParams, Admission, Admitted, AdvanceJournalParams, Beat, BeatParams, BlockedParams,
    Cancelled, Claim, ClaimParams, CommitParams, Committed, ConnectionWatch, ControlError,
    DeclareLostParams, Error, ErrorsParams, Events, Finding, Holder, IsolateParams, Ledger,
    ListParams, LossVerdict, MapParams, NodeSnapshot, OpenParams, OpenQueue, RecordCrashParams,
    RegisterSchedulerParams, ReleaseParams, Released, ReportBlockedParams, ReportStallParams,
    RestoreParams, Restored, ResultsParams, RetryParams, RevokeParams, Revoked, SpeculationRequest,
    SpeculativeChunk, StoredDocument, Sweep, SweepParams, Topic,
};
use clock::LedgerClock;
use fleet::LastBeat;
use group::Groups;
use round_trips::RoundTrips;
use transport::Transport;

/// How to reach Redis.
#[derive(Clone)]
pub struct Config {
    /// `redis://`, `rediss://`, `unix://`, `redis+sentinel://h1:p1,h2:p2/master` or
    /// `redis+cluster://h1:p1,h2:p2`.
    pub url: String,
    /// The prefix of all keys.
    pub namespace: String,
    /// Whom to trust and which certificate to present, with TLS.
    pub tls: TlsFiles,
    /// The most connections at once. All requests share them, so few are enough; more than one only
    /// so that a long answer does not delay the others.
    pub connections: usize,
    /// How long to wait for an answer, after which the outcome is unknown.
    pub response_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
}

impl Config {
    /// Up to four connections, two seconds for an answer, one for a connection.
    pub fn new(url: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: namespace.into(),
            tls: TlsFiles::default(),
            connections: 4,
            response_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
        }
    }
}

/// The ledger in Redis. Clones share their connections.
#[derive(Clone)]
pub struct RedisLedger {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    keys: Keys,
    transport: Transport,
    clock: Arc<LedgerClock>,
    groups: Groups,
    /// The last heartbeat of each worker that sends its heartbeats through this handle.
    last_beats: Mutex<HashMap<NodeId, LastBeat>>,
    /// Redis's name of the connection on which this handle follows the hints, while it does.
    own_connections: Mutex<Option<String>>,
    round_trips: Mutex<RoundTrips>,
}

impl RedisLedger {
    /// Checks the address and the files for TLS. Connects when a connection is first needed, so it
    /// succeeds while Redis is down.
    pub fn connect(config: Config) -> Result<Self, Error> {
        config.tls.check().map_err(Error::BadFile)?;
        Self::connect_with(config, Arc::default())
    }

    fn connect_with(config: Config, clock: Arc<LedgerClock>) -> Result<Self, Error> {
        let transport = Transport::new(&config)?;
        let keys = Keys::new(config.namespace.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                keys,
                transport,
                clock,
                groups: Groups::default(),
                last_beats: Mutex::default(),
                own_connections: Mutex::default(),
                round_trips: Mutex::default(),
            }),
        })
    }

    /// Loads the functions of this build unless they are loaded already. Schedulers do so when they
    /// start; operations do so when Redis reports that a function is missing.
    pub async fn load_functions(&self) -> Result<(), Error> {
        self.ensure_library().await
    }

    fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    fn own_connections(&self) -> MutexGuard<'_, Option<String>> {
        self.inner.own_connections.lock()
    }

    fn round_trips(&self) -> MutexGuard<'_, RoundTrips> {
        self.inner.round_trips.lock()
    }

    fn groups(&self) -> &Groups {
        &self.inner.groups
    }

    fn last_beats(&self) -> MutexGuard<'_, HashMap<NodeId, LastBeat>> {
        self.inner.last_beats.lock()
    }

    fn ledger_clock(&self) -> &LedgerClock {
        &self.inner.clock
    }

    fn transport(&self) -> &Transport {
        &self.inner.transport
    }
}

/// Whole milliseconds, at most about 1,100 years: added to the time of day, a double still holds
/// the sum exactly.
fn millis(duration: Duration) -> u64 {
    const MOST: u64 = 1 << 45;
    u64::try_from(duration.as_millis()).unwrap_or(MOST).min(MOST)
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error> {
        self.admit_job(admission).await
    }

    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error> {
        self.reject_job(job, error).await
    }

    async fn postpone(&self, job: JobId, reason: &str) -> Result<(), Error> {
        self.postpone_job(job, reason).await
    }

    async fn postponed(&self, job: JobId) -> Result<Option<String>, Error> {
        self.read_postponed(job).await
    }

    async fn report_stall(&self, job: JobId, params: &ReportStallParams) -> Result<(), Error> {
        self.write_stall(job, params).await
    }

    async fn stalls(&self, job: JobId) -> Result<Vec<Stall>, Error> {
        self.read_stalls(job).await
    }

    async fn report_blocked(&self, params: &ReportBlockedParams) -> Result<(), Error> {
        self.write_blocked(params).await
    }

    async fn blocked(&self, params: &BlockedParams) -> Result<Vec<Option<Blocked>>, Error> {
        self.read_blocked(params).await
    }

    async fn open(&self, job: JobId, params: &OpenParams) -> Result<Vec<ChunkMessage>, Error> {
        self.open_chunks(job, params).await
    }

    async fn claim(&self, job: JobId, params: &ClaimParams) -> Result<Claim, Error> {
        self.claim_chunk(job, params).await
    }

    async fn commit(&self, job: JobId, params: &CommitParams) -> Result<Committed, Error> {
        self.commit_chunk(job, params).await
    }

    async fn release(&self, job: JobId, params: &ReleaseParams) -> Result<Released, Error> {
        self.release_chunk(job, params).await
    }

    async fn offer_speculative(
        &self,
        job: JobId,
        params: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error> {
        self.offer_stragglers(job, params).await
    }

    async fn revoke(&self, job: JobId, params: &RevokeParams) -> Result<Vec<Revoked>, Error> {
        self.revoke_node(job, params).await
    }

    async fn holders(&self, job: JobId) -> Result<Vec<Holder>, Error> {
        self.read_holders(job).await
    }

    async fn sweep(&self, job: JobId, params: &SweepParams) -> Result<Option<Sweep>, Error> {
        self.sweep_job(job, params).await
    }

    async fn pause(&self, job: JobId) -> Result<JobState, ControlError> {
        self.pause_job(job).await
    }

    async fn resume(&self, job: JobId) -> Result<JobState, ControlError> {
        self.resume_job(job).await
    }

    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError> {
        self.cancel_job(job).await
    }

    async fn pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error> {
        self.read_pending_cancel(job).await
    }

    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError> {
        self.fail_job(job, error).await
    }

    async fn retry(&self, job: JobId, params: &RetryParams) -> Result<JobState, ControlError> {
        self.retry_job(job, params).await
    }

    async fn delete(&self, job: JobId) -> Result<(), ControlError> {
        self.delete_job(job).await
    }

    async fn restore(&self, params: &RestoreParams) -> Result<Restored, Error> {
        self.restore_job(params).await
    }

    async fn missing(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
        self.missing_jobs(jobs).await
    }

    async fn journal_position(&self) -> Result<Option<JournalPosition>, Error> {
        self.read_journal_place().await
    }

    async fn advance_journal(
        &self,
        params: &AdvanceJournalParams,
    ) -> Result<Option<JournalPosition>, Error> {
        self.advance_in_journal(params).await
    }

    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error> {
        self.read_job(job).await
    }

    async fn active_jobs(&self) -> Result<Vec<JobId>, Error> {
        self.read_active().await
    }

    async fn list(&self, params: &ListParams) -> Result<JobPage, Error> {
        self.list_jobs(params).await
    }

    async fn count_jobs(&self, filter: &JobFilter) -> Result<Option<JobCounts>, Error> {
        self.count_by_state(filter).await
    }

    async fn open_queues(&self) -> Result<Vec<OpenQueue>, Error> {
        self.read_open_queues().await
    }

    async fn map(&self, job: JobId, params: &MapParams) -> Result<Option<JobMap>, Error> {
        self.read_map(job, params).await
    }

    async fn find_ids(&self, prefix: &JobIdPrefix, limit: usize) -> Result<Vec<JobId>, Error> {
        self.read_ids(prefix, limit).await
    }

    async fn unique_prefixes(&self, jobs: &[JobId]) -> Result<Vec<usize>, Error> {
        self.read_unique_prefixes(jobs).await
    }

    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        self.read_finished(limit).await
    }

    async fn archive(&self, job: JobId) -> Result<(), Error> {
        self.archive_job(job).await
    }

    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        self.read_document(job).await
    }

    async fn results(&self, job: JobId, params: &ResultsParams) -> Result<ResultsPage, Error> {
        self.read_results(job, params).await
    }

    async fn errors(&self, job: JobId, params: &ErrorsParams) -> Result<Vec<ErrorEntry>, Error> {
        self.read_errors(job, params).await
    }

    async fn recoveries(&self, job: JobId, limit: usize) -> Result<Vec<Recovery>, Error> {
        self.read_recoveries(job, limit).await
    }

    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error> {
        self.audit_job(job).await
    }

    async fn beat(&self, params: &BeatParams) -> Result<Beat, Error> {
        Box::pin(self.beat_node(params)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        let all = self.read_nodes(&NodeSnapshot::default()).await?;
        Ok(Arc::unwrap_or_clone(all.nodes))
    }

    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        self.read_nodes(known).await
    }

    fn connection_watch(&self) -> Box<dyn ConnectionWatch> {
        Box::new(self.watch_connections())
    }

    async fn tried_nodes(&self, job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error> {
        self.read_tried(job, chunks).await
    }

    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error> {
        self.refund_nodes(job, nodes).await
    }

    async fn isolate(&self, params: &IsolateParams) -> Result<bool, Error> {
        self.isolate_node(params).await
    }

    async fn drain(&self, node: &NodeId) -> Result<bool, Error> {
        self.drain_node(node).await
    }

    async fn undrain(&self, node: &NodeId) -> Result<bool, Error> {
        self.undrain_node(node).await
    }

    async fn record_crash(&self, params: &RecordCrashParams) -> Result<bool, Error> {
        self.record_node_crash(params).await
    }

    async fn declare_lost(&self, params: &DeclareLostParams) -> Result<LossVerdict, Error> {
        self.lose_node(params).await
    }

    async fn register_scheduler(
        &self,
        params: &RegisterSchedulerParams,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        self.register_as(params).await
    }

    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error> {
        self.listed_schedulers().await
    }

    async fn deregister_scheduler(&self, scheduler: &SchedulerId) -> Result<(), Error> {
        self.deregister_as(scheduler).await
    }

    async fn add_api_token(&self, token: &KeptApiToken) -> Result<bool, Error> {
        self.keep_api_token(token).await
    }

    async fn api_tokens(&self) -> Result<Vec<KeptApiToken>, Error> {
        self.read_api_tokens().await
    }

    async fn remove_api_token(&self, id: &str) -> Result<bool, Error> {
        self.drop_api_token(id).await
    }

    async fn record_action(&self, action: &Action) -> Result<(), Error> {
        self.keep_action(action).await
    }

    async fn actions(&self, params: &ActionsParams) -> Result<Vec<Action>, Error> {
        self.read_actions(params).await
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        self.follow_events(topic).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.read_clock().await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.examine_redis().await
    }

    fn separate(&self) -> Arc<dyn Ledger> {
        let config = Config { connections: 1, ..self.inner.config.clone() };
        let clock = Arc::clone(&self.inner.clock);
        let apart =
            Self::connect_with(config, clock).expect("the same address was accepted before");
        Arc::new(apart)
    }

    fn describe(&self) -> String {
        format!("Redis at {}", self.transport().address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_describes_itself_without_its_password() {
        let ledger =
            RedisLedger::connect(Config::new("redis://u:secret@cache:7000/2", "longshore"));
        let ledger = ledger.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ledger.describe(), "Redis at cache:7000");
        assert_eq!(ledger.separate().describe(), "Redis at cache:7000");
    }

    #[test]
    fn durations_stay_within_what_a_double_holds() {
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), 1 << 45);
    }
}
