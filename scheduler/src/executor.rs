//! Executes each action of the engine on ledger and broker, and turns the answer into an event.
//!
//! It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Outgoing, PublishError, Queue};
use longshore_ledger::{
    ControlError, DeclareLostParams, Error, IsolateParams, Ledger, LossCause, LossEvidence,
    LossVerdict, OpenParams, ReportBlockedParams, RevokeParams, Revoked, SpeculationRequest,
    SpeculativeChunk,
};
use longshore_protocol::{
    ChunkId, ChunkMessage, Isolation, JobId, JournalEnding, JournalEvent, NodeId, SchedulerId,
};
use metrics::counter;
use tracing::{info, warn};

use crate::engine::{Action, Event, RoutedChunk};
use crate::health::{Health, Service};
use crate::journal::{ControlLog, Journal};
use crate::metrics::{
    LOST_NODES, ORPHANED_CHUNKS, PUBLISHED_CHUNKS, REVOKED_CHUNKS, REVOKED_SUBTASKS,
    SPECULATIVE_CHUNKS, UNKNOWN_PUBLISHES,
};
use crate::plans::Plans;
use crate::sweeper;

/// After this time without a claim a chunk's message counts as lost. A quarter of a second of work
/// waits ahead of a worker, so a message that still waits then is rare; to publish it twice costs
/// one refused claim.
pub(crate) const PUBLISH_WITHIN: Duration = Duration::from_secs(5);

/// Executes actions on one broker and one ledger.
pub(crate) struct Executor {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    plans: Plans,
    journal: Arc<Journal>,
    control_log: Arc<ControlLog>,
    ledger_health: Health,
    publish_health: Health,
    depth_health: Health,
}

/// What is wanted of chunks beside their messages.
#[derive(Clone, Copy)]
struct With {
    /// The hashes of their keys.
    keys: bool,
    /// The nodes on which attempts at all of their subtasks failed.
    tried: bool,
}

impl Executor {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        (ledger, service): (Arc<dyn Ledger>, Service),
        journal: Arc<Journal>,
        control_log: Arc<ControlLog>,
    ) -> Self {
        Self {
            plans: Plans::new(ledger.clone()),
            journal,
            control_log,
            broker,
            ledger,
            ledger_health: service.health("feeding jobs from the ledger"),
            publish_health: Health::new("publishing chunks"),
            depth_health: Health::new("reading the depth of a work queue"),
        }
    }

    /// Executes an action; returns the engine's next event, if the action has an answer.
    pub(crate) async fn execute(&self, action: Action) -> Option<Event> {
        match action {
            Action::Publish { queue, chunk } => self.publish(queue, chunk).await,
            Action::DeregisterScheduler { scheduler } => {
                self.deregister_scheduler(&scheduler).await;
                None
            }
            Action::ListJobs => {
                let listed = self.ledger_health.note(self.ledger.active_jobs().await);
                listed.ok().map(Event::JobsListed)
            }
            Action::DeclareLost { node, evidence, cause } => {
                Some(self.declare_lost(node, evidence, &cause).await)
            }
            Action::RevokeNode { job, node, cause } => {
                Some(self.revoke_node(job, node, &cause).await)
            }
            Action::ReportBlocked(params) => Some(self.report_blocked(params).await),
            Action::ReadJob { job } => self.answer(job, self.read_job(job).await),
            Action::Sweep { job, with_keys, with_tried, unless_queued_in, suspect_lost } => {
                let with = With { keys: with_keys, tried: with_tried };
                self.answer(job, self.sweep(job, with, unless_queued_in, suspect_lost).await)
            }
            Action::RefundAttempts { job, nodes } => {
                self.answer(job, self.refund_attempts(job, nodes).await)
            }
            Action::Isolate { node, isolated } => {
                self.isolate(&node, &isolated).await;
                None
            }
            Action::LoadSpec { job } => self.answer(job, self.load_spec(job).await),
            Action::ReadHolders { job } => self.answer(job, self.read_holders(job).await),
            Action::OfferSpeculative { job, request } => {
                self.answer(job, self.offer_speculative(job, &request).await)
            }
            Action::Open { job, chunks, size, with_keys, with_tried } => {
                let with = With { keys: with_keys, tried: with_tried };
                self.answer(job, self.open(job, chunks, size, with).await)
            }
            Action::FailJob { job, error } => self.answer(job, self.fail_job(job, &error).await),
            Action::ArchiveJob { job } => self.answer(job, self.archive_job(job).await),
        }
    }

    fn answer(&self, job: JobId, result: Result<Event, Error>) -> Option<Event> {
        Some(self.ledger_health.note(result).unwrap_or(Event::CallFailed { job }))
    }

    async fn read_job(&self, job: JobId) -> Result<Event, Error> {
        let summary = self.ledger.job(job).await?.map(Box::new);
        if let Some(summary) = &summary {
            self.control_log.observe(&*self.ledger, &self.journal, summary).await?;
        }
        Ok(Event::JobRead { job, summary, overdue: Vec::new() })
    }

    async fn sweep(
        &self,
        job: JobId,
        with: With,
        unless_queued_in: Option<(Queue, u64)>,
        suspect_lost: bool,
    ) -> Result<Event, Error> {
        let Some(mut sweep) = sweeper::sweep(&*self.ledger, job, suspect_lost).await? else {
            return Ok(Event::JobRead { job, summary: None, overdue: Vec::new() });
        };
        if let Some((queue, others)) = unless_queued_in {
            let health = &self.depth_health;
            sweeper::drop_queued(&*self.broker, health, &mut sweep, &queue, others).await;
        }
        self.control_log.observe(&*self.ledger, &self.journal, &sweep.summary).await?;
        let overdue = self.routed(job, sweep.publish, with).await?;
        Ok(Event::JobRead { job, summary: Some(Box::new(sweep.summary)), overdue })
    }

    async fn load_spec(&self, job: JobId) -> Result<Event, Error> {
        Ok(match self.plans.spec(job).await? {
            Some(spec) => Event::SpecLoaded { job, spec },
            None => Event::JobRead { job, summary: None, overdue: Vec::new() },
        })
    }

    async fn read_holders(&self, job: JobId) -> Result<Event, Error> {
        let holders = self.ledger.holders(job).await?;
        Ok(Event::HoldersRead { job, holders })
    }

    async fn offer_speculative(
        &self,
        job: JobId,
        request: &SpeculationRequest,
    ) -> Result<Event, Error> {
        let stragglers = self.ledger.offer_speculative(job, request).await?;
        counter!(SPECULATIVE_CHUNKS).increment(stragglers.len() as u64);
        for SpeculativeChunk { message, holder } in &stragglers {
            let (chunk, held_for) = (message.chunk, request.held_for);
            info!(%job, %chunk, %holder, ?held_for, "slow chunk offered for speculative execution");
        }
        let ids: Vec<ChunkId> = stragglers.iter().map(|it| it.message.chunk).collect();
        let tried = self.ledger.tried_nodes(job, &ids).await?;
        Ok(Event::SpeculationOffered { job, stragglers, tried })
    }

    async fn open(&self, job: JobId, chunks: u32, size: u64, with: With) -> Result<Event, Error> {
        let open = OpenParams::new(chunks, size, PUBLISH_WITHIN);
        let messages = self.ledger.open(job, &open).await?;
        let chunks = self.routed(job, messages, with).await?;
        Ok(Event::Opened { job, chunks })
    }

    /// Messages with what is wanted beside them.
    async fn routed(
        &self,
        job: JobId,
        messages: Vec<ChunkMessage>,
        with: With,
    ) -> Result<Vec<RoutedChunk>, Error> {
        let mut chunks = self.plans.routed(job, messages, with.keys).await?;
        if with.tried {
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.message.chunk).collect();
            let tried = self.ledger.tried_nodes(job, &ids).await?;
            chunks.iter_mut().zip(tried).for_each(|(chunk, tried)| chunk.tried = tried);
        }
        Ok(chunks)
    }

    async fn refund_attempts(&self, job: JobId, nodes: Vec<NodeId>) -> Result<Event, Error> {
        let subtasks = self.ledger.refund_attempts(job, &nodes).await?;
        if subtasks > 0 {
            info!(%job, subtasks, ?nodes, "subtasks that failed on isolated nodes are tried again");
        }
        Ok(Event::AttemptsRefunded { job, nodes })
    }

    /// If the call fails, the next read of the workers leads to another one.
    async fn isolate(&self, node: &NodeId, isolated: &[Isolation]) {
        let params = IsolateParams::new(node.clone(), isolated);
        let noted = self.ledger_health.note(self.ledger.isolate(&params).await);
        if noted.is_ok_and(|is_there| !is_there) {
            return;
        }
        if isolated.is_empty() {
            info!(%node, "node back in rotation for all of its tasks");
        }
        for Isolation { task, cleared, done, times, .. } in isolated {
            let what = "node out of rotation: subtasks that fail there succeed elsewhere";
            warn!(%node, task, cleared, done, times, "{what}");
        }
    }

    async fn fail_job(&self, job: JobId, error: &str) -> Result<Event, Error> {
        match self.ledger.fail(job, error).await {
            Ok(_) => info!(%job, error, "job failed"),
            Err(ControlError::Ledger(error)) => return Err(error),
            // The job has ended, or was deleted: the next read shows it.
            Err(ControlError::NotFound | ControlError::Illegal(_)) => {}
            Err(error) => warn!(%job, %error, "the job can't be failed"),
        }
        Ok(Event::JobClosed { job })
    }

    /// A job whose end could not be written to the journal stays on the list of active jobs, so
    /// that it is archived later.
    async fn archive_job(&self, job: JobId) -> Result<Event, Error> {
        if self.record_end(job).await? {
            self.ledger.archive(job).await?;
            self.plans.forget(job);
            self.control_log.forget(job);
        }
        Ok(Event::JobClosed { job })
    }

    /// Writes the job's end to the journal; returns whether that is done.
    async fn record_end(&self, job: JobId) -> Result<bool, Error> {
        if !self.journal.is_wanted() {
            return Ok(true);
        }
        // The job is read when the batch is written, out of the way of the next short job.
        self.journal.join_batch().await;
        let ended =
            |summary| JournalEnding::of(&summary).map(|ending| JournalEvent::Ended { job, ending });
        let event = match self.ledger.job(job).await? {
            Some(summary) => ended(summary),
            // The ledger lost the job, which is no end.
            None if !self.ledger.missing(&[job]).await?.is_empty() => None,
            // The job was deleted; or the ledger restored it meanwhile, which a second read shows.
            None => match self.ledger.job(job).await? {
                Some(summary) => ended(summary),
                None => Some(JournalEvent::Deleted { job, at: self.ledger.now().await? }),
            },
        };
        match event {
            Some(event) => Ok(self.journal.write(&event).await),
            None => Ok(true),
        }
    }

    async fn publish(&self, queue: Queue, chunk: RoutedChunk) -> Option<Event> {
        let body = serde_json::to_vec(&chunk.message).expect("a message is plain data").into();
        let message = Outgoing { body, ..Outgoing::default() };
        counter!(PUBLISHED_CHUNKS).increment(1);
        match self.broker.publish(&queue, message).await {
            Ok(()) => {
                self.publish_health.worked();
                None
            }
            Err(PublishError::Unroutable(Queue::Node(node))) => {
                Some(Event::Unroutable { node, chunk })
            }
            // Whether the message arrived is unknown. If it did not, a sweep publishes it again.
            Err(error) => {
                counter!(UNKNOWN_PUBLISHES).increment(1);
                self.publish_health.failed(&error);
                None
            }
        }
    }

    /// If the call fails, the other schedulers find out by themselves.
    async fn deregister_scheduler(&self, scheduler: &SchedulerId) {
        let result = self.ledger_health.note(self.ledger.deregister_scheduler(scheduler).await);
        info!(
            %scheduler,
            deregistered = result.is_ok(),
            "scheduler died; its queues go to other schedulers"
        );
    }

    /// If the call fails, the engine reports again.
    async fn report_blocked(&self, params: ReportBlockedParams) -> Event {
        let reported = self.ledger_health.note(self.ledger.report_blocked(&params).await);
        Event::BlockedReported { queue: params.queue, is_done: reported.is_ok() }
    }

    /// If the call fails, the engine repeats it.
    async fn declare_lost(&self, node: NodeId, evidence: LossEvidence, cause: &LossCause) -> Event {
        let params = DeclareLostParams::new(node.clone(), evidence, cause.clone());
        let verdict = self.ledger_health.note(self.ledger.declare_lost(&params).await);
        if let Ok(LossVerdict::New(_)) = verdict {
            let how = if matches!(cause, LossCause::Crashed(_)) { "crashed" } else { "vanished" };
            counter!(LOST_NODES, "how" => how).increment(1);
            warn!(%node, ?cause, ?evidence, "node lost");
        }
        Event::LossVerdict { node, verdict: verdict.ok().and_then(LossVerdict::verdict) }
    }

    async fn revoke_node(&self, job: JobId, node: NodeId, cause: &LossCause) -> Event {
        let params = RevokeParams::new(node.clone(), cause.clone());
        let revoked = self.ledger_health.note(self.ledger.revoke(job, &params).await);
        let is_done = revoked.is_ok();
        let (chunks, subtasks) = count(&revoked.unwrap_or_default());
        match cause {
            _ if chunks == 0 => {}
            LossCause::Orphaned { .. } => {
                counter!(ORPHANED_CHUNKS).increment(chunks);
                warn!(%job, %node, chunks, subtasks, "orphaned chunks reclaimed");
            }
            LossCause::Left | LossCause::Vanished | LossCause::Crashed(_) => {
                counter!(REVOKED_CHUNKS).increment(chunks);
                counter!(REVOKED_SUBTASKS).increment(subtasks);
                warn!(%job, %node, chunks, subtasks, "chunks of a lost node are queued again");
            }
        }
        Event::Revoked { job, node, is_done, is_queued_again: chunks > 0 }
    }
}

/// The number of chunks, and of unsettled subtasks in them.
fn count(revoked: &[Revoked]) -> (u64, u64) {
    (revoked.len() as u64, revoked.iter().map(|chunk| chunk.to - chunk.from).sum())
}
