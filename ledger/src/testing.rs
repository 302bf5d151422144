//! An interceptor that a test or a simulation puts in front of a ledger to fail or delay calls.
//!
//! [`Intercepted`] implements [`Ledger`] once: it turns each call into an [`Operation`] and gives
//! that to an [`Interceptor`], which may fail it, delay it, change it or count it, and passes it on
//! with [`Operation::call`]. Nothing else has to list the operations of the ledger.

use std::borrow::Borrow;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;
use longshore_protocol::{
    Action, Audit, Blocked, ChunkId, ChunkMessage, ErrorEntry, Finding, JobFilter, JobId,
    JobIdPrefix, JobMap, JobPage, JobSummary, JournalPosition, KeptApiToken, NodeId, NodeRecord,
    Recovery, ResultsPage, SchedulerId, SchedulerRecord, Stall, Timestamp,
};

use crate::{
    ActionsParams, Admission, Admitted, AdvanceJournalParams, Beat, BeatParams, BlockedParams,
    Cancelled, Claim, ClaimParams, CommitParams, Committed, ConnectionWatch, ControlError,
    DeclareLostParams, Error, ErrorsParams, Events, Holder, IsolateParams, Ledger, ListParams,
    LossVerdict, MapParams, NodeSnapshot, OpenParams, OpenQueue, RecordCrashParams,
    RegisterSchedulerParams, ReleaseParams, Released, ReportBlockedParams, ReportStallParams,
    RestoreParams, Restored, ResultsParams, RetryParams, RevokeParams, Revoked, SpeculationRequest,
    SpeculativeChunk, StoredDocument, Sweep, SweepParams, Topic,
};

/// Decides what becomes of each operation. All methods but [`Self::ledger`] pass the operation on
/// by default.
#[async_trait]
pub trait Interceptor: Send + Sync + 'static {
    /// The ledger behind the interceptor.
    fn ledger(&self) -> &dyn Ledger;

    /// Handles one operation. The answer has to be the one that belongs to the operation.
    async fn intercept(&self, operation: Operation) -> Result<Answer, ControlError> {
        operation.call(self.ledger()).await
    }

    /// See [`Ledger::events`].
    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        self.ledger().events(topic).await
    }

    /// See [`Ledger::connection_watch`].
    fn connection_watch(&self) -> Box<dyn ConnectionWatch> {
        self.ledger().connection_watch()
    }

    /// See [`Ledger::examine`].
    async fn examine(&self) -> Vec<Finding> {
        self.ledger().examine().await
    }

    /// See [`Ledger::separate`].
    fn separate(&self) -> Arc<dyn Ledger> {
        self.ledger().separate()
    }

    /// See [`Ledger::describe`].
    fn describe(&self) -> String {
        self.ledger().describe()
    }
}

/// A ledger behind an interceptor.
#[derive(Clone, Debug)]
pub struct Intercepted<I>(pub I);

/// Narrows the error of any operation to the error of one operation.
trait Narrow {
    fn narrow(error: ControlError) -> Self;
}

impl Narrow for ControlError {
    fn narrow(error: ControlError) -> Self {
        error
    }
}

impl Narrow for Error {
    fn narrow(error: ControlError) -> Self {
        match error {
            ControlError::Ledger(error) => error,
            refusal => panic!("the operation can't be refused with: {refusal}"),
        }
    }
}

/// Generates [`Operation`], [`Answer`] and the implementation of [`Ledger`] from the list of
/// operations: the name of a variant, then the method of [`Ledger`].
macro_rules! operations {
    ($($variant:ident: fn $name:ident(
        $($arg:ident: $($value:ident)? $(&$borrowed:ty)?),*
    ) -> Result<$answer:ty, $error:ident>;)*) => {
        /// An operation of the ledger with its parameters.
        #[derive(Clone, Debug)]
        pub enum Operation {
            $(
                #[doc = concat!("[`Ledger::", stringify!($name), "`]")]
                $variant($($($value)? $(<$borrowed as ToOwned>::Owned)?),*),
            )*
        }

        /// The answer to an [`Operation`] of the same name.
        #[derive(Debug)]
        pub enum Answer {
            $(
                #[doc = concat!("To [`Operation::", stringify!($variant), "`].")]
                $variant($answer),
            )*
        }

        impl Operation {
            /// The name of the method of [`Ledger`].
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(..) => stringify!($name),)*
                }
            }

            /// Calls the operation on a ledger.
            pub async fn call(&self, ledger: &dyn Ledger) -> Result<Answer, ControlError> {
                match self {
                    $(Self::$variant($($arg),*) => {
                        let answer = ledger.$name($(
                            $(<$value as Clone>::clone($arg))?
                            $(<<$borrowed as ToOwned>::Owned as Borrow<$borrowed>>::borrow($arg))?
                        ),*);
                        Ok(Answer::$variant(answer.await?))
                    })*
                }
            }
        }

        #[async_trait]
        impl<I: Interceptor> Ledger for Intercepted<I> {
            $(async fn $name(
                &self,
                $($arg: $($value)? $(&$borrowed)?),*
            ) -> Result<$answer, $error> {
                let operation = Operation::$variant($($arg.to_owned()),*);
                match self.0.intercept(operation).await.map_err($error::narrow)? {
                    Answer::$variant(answer) => Ok(answer),
                    other => panic!("the interceptor answered {} with {other:?}", stringify!($name)),
                }
            })*

            async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
                self.0.events(topic).await
            }

            fn connection_watch(&self) -> Box<dyn ConnectionWatch> {
                self.0.connection_watch()
            }

            async fn examine(&self) -> Vec<Finding> {
                self.0.examine().await
            }

            fn separate(&self) -> Arc<dyn Ledger> {
                self.0.separate()
            }

            fn describe(&self) -> String {
                self.0.describe()
            }
        }
    };
}

operations! {
    Admit: fn admit(admission: &Admission) -> Result<Admitted, Error>;
    Reject: fn reject(job: JobId, error: &str) -> Result<(), Error>;
    Postpone: fn postpone(job: JobId, reason: &str) -> Result<(), Error>;
    Postponed: fn postponed(job: JobId) -> Result<Option<String>, Error>;
    ReportStall: fn report_stall(job: JobId, params: &ReportStallParams) -> Result<(), Error>;
    Stalls: fn stalls(job: JobId) -> Result<Vec<Stall>, Error>;
    ReportBlocked: fn report_blocked(params: &ReportBlockedParams) -> Result<(), Error>;
    Blocked: fn blocked(params: &BlockedParams) -> Result<Vec<Option<Blocked>>, Error>;
    Open: fn open(job: JobId, params: &OpenParams) -> Result<Vec<ChunkMessage>, Error>;
    Claim: fn claim(job: JobId, params: &ClaimParams) -> Result<Claim, Error>;
    Commit: fn commit(job: JobId, params: &CommitParams) -> Result<Committed, Error>;
    Release: fn release(job: JobId, params: &ReleaseParams) -> Result<Released, Error>;
    OfferSpeculative: fn offer_speculative(job: JobId, params: &SpeculationRequest)
        -> Result<Vec<SpeculativeChunk>, Error>;
    Revoke: fn revoke(job: JobId, params: &RevokeParams) -> Result<Vec<Revoked>, Error>;
    TriedNodes: fn tried_nodes(job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error>;
    RefundAttempts: fn refund_attempts(job: JobId, nodes: &[NodeId]) -> Result<u64, Error>;
    Holders: fn holders(job: JobId) -> Result<Vec<Holder>, Error>;
    Sweep: fn sweep(job: JobId, params: &SweepParams) -> Result<Option<Sweep>, Error>;
    Pause: fn pause(job: JobId) -> Result<JobState, ControlError>;
    Resume: fn resume(job: JobId) -> Result<JobState, ControlError>;
    Cancel: fn cancel(job: JobId) -> Result<Cancelled, ControlError>;
    PendingCancel: fn pending_cancel(job: JobId) -> Result<Option<Timestamp>, Error>;
    Fail: fn fail(job: JobId, error: &str) -> Result<JobState, ControlError>;
    Retry: fn retry(job: JobId, params: &RetryParams) -> Result<JobState, ControlError>;
    Delete: fn delete(job: JobId) -> Result<(), ControlError>;
    Restore: fn restore(params: &RestoreParams) -> Result<Restored, Error>;
    Missing: fn missing(jobs: &[JobId]) -> Result<Vec<JobId>, Error>;
    JournalPosition: fn journal_position() -> Result<Option<JournalPosition>, Error>;
    AdvanceJournal: fn advance_journal(params: &AdvanceJournalParams)
        -> Result<Option<JournalPosition>, Error>;
    Job: fn job(job: JobId) -> Result<Option<JobSummary>, Error>;
    ActiveJobs: fn active_jobs() -> Result<Vec<JobId>, Error>;
    List: fn list(params: &ListParams) -> Result<JobPage, Error>;
    CountJobs: fn count_jobs(filter: &JobFilter) -> Result<Option<JobCounts>, Error>;
    OpenQueues: fn open_queues() -> Result<Vec<OpenQueue>, Error>;
    Map: fn map(job: JobId, params: &MapParams) -> Result<Option<JobMap>, Error>;
    FindIds: fn find_ids(prefix: &JobIdPrefix, limit: usize) -> Result<Vec<JobId>, Error>;
    UniquePrefixes: fn unique_prefixes(jobs: &[JobId]) -> Result<Vec<usize>, Error>;
    FinishedJobs: fn finished_jobs(limit: usize) -> Result<Vec<JobId>, Error>;
    Archive: fn archive(job: JobId) -> Result<(), Error>;
    Document: fn document(job: JobId) -> Result<Option<StoredDocument>, Error>;
    Results: fn results(job: JobId, params: &ResultsParams) -> Result<ResultsPage, Error>;
    Errors: fn errors(job: JobId, params: &ErrorsParams) -> Result<Vec<ErrorEntry>, Error>;
    Recoveries: fn recoveries(job: JobId, limit: usize) -> Result<Vec<Recovery>, Error>;
    Audit: fn audit(job: JobId) -> Result<Option<Audit>, Error>;
    Beat: fn beat(params: &BeatParams) -> Result<Beat, Error>;
    Nodes: fn nodes() -> Result<Vec<NodeRecord>, Error>;
    NodesSince: fn nodes_since(known: &NodeSnapshot) -> Result<NodeSnapshot, Error>;
    Drain: fn drain(node: &NodeId) -> Result<bool, Error>;
    Undrain: fn undrain(node: &NodeId) -> Result<bool, Error>;
    Isolate: fn isolate(params: &IsolateParams) -> Result<bool, Error>;
    RecordCrash: fn record_crash(params: &RecordCrashParams) -> Result<bool, Error>;
    DeclareLost: fn declare_lost(params: &DeclareLostParams) -> Result<LossVerdict, Error>;
    RegisterScheduler: fn register_scheduler(params: &RegisterSchedulerParams)
        -> Result<Vec<SchedulerRecord>, Error>;
    Schedulers: fn schedulers() -> Result<Vec<SchedulerRecord>, Error>;
    DeregisterScheduler: fn deregister_scheduler(scheduler: &SchedulerId) -> Result<(), Error>;
    AddApiToken: fn add_api_token(token: &KeptApiToken) -> Result<bool, Error>;
    ApiTokens: fn api_tokens() -> Result<Vec<KeptApiToken>, Error>;
    RemoveApiToken: fn remove_api_token(id: &str) -> Result<bool, Error>;
    RecordAction: fn record_action(action: &Action) -> Result<(), Error>;
    Actions: fn actions(params: &ActionsParams) -> Result<Vec<Action>, Error>;
    Now: fn now() -> Result<Timestamp, Error>;
}
