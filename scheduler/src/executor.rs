//! Does what the engine decided, one action at a time, and brings back what came of it. Chooses
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Outgoing, PublishError, Queue};
use longshore_ledger::{
    ControlError, DeclareLostParams, Error, IsolateParams, Ledger, LossCause, LossEvidence,
    LossVerdict, OpenParams, RevokeParams, Revoked, SpeculationRequest, SpeculativeChunk,
};
use longshore_protocol::{
    ChunkId, ChunkMessage, Isolation, JobId, JournalEnding, JournalEvent, NodeId, SchedulerId,
};
use metrics::counter;
use tracing::{info, warn};

use crate::engine::{Action, Event, Keyed};
use crate::health::{Health, Service};
use crate::journal::{Journal, Notes};
use crate::metrics::{
    COPIED_CHUNKS, LOST_NODES, ORPHANED_CHUNKS, PUBLISHED_CHUNKS, REVOKED_CHUNKS, REVOKED_SUBTASKS,
    UNKNOWN_PUBLISHES,
};
use crate::plans::Plans;
use crate::sweeper;

/// After this time without a claim a chunk's message is taken for lost. What waits ahead of a
/// worker is a quarter of a second of work, so a message that still waits then is rare; publishing it
/// twice costs one refused claim.
pub(crate) const PUBLISH_WITHIN: Duration = Duration::from_secs(5);

/// Executes actions on one broker and one ledger.
pub(crate) struct Executor {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    plans: Plans,
    journal: Arc<Journal>,
    notes: Arc<Notes>,
    ledger_health: Health,
    publish_health: Health,
    depth_health: Health,
}

impl Executor {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        (ledger, service): (Arc<dyn Ledger>, Service),
        journal: Arc<Journal>,
        notes: Arc<Notes>,
    ) -> Self {
        Self {
            plans: Plans::new(ledger.clone()),
            journal,
            notes,
            broker,
            ledger,
            ledger_health: service.health("feeding jobs from the ledger"),
            publish_health: Health::new("publishing chunks"),
            depth_health: Health::new("looking how full a work queue is"),
        }
    }

    /// Does it; gives the engine's next event, if there is anything to tell.
    pub(crate) async fn execute(&self, action: Action) -> Option<Event> {
        match action {
            Action::Publish { queue, chunk } => self.publish(queue, chunk).await,
            Action::Withdraw { scheduler } => {
                self.deregister_scheduler(&scheduler).await;
                None
            }
            Action::List => {
                let listed = self.ledger_health.note(self.ledger.active_jobs().await);
                listed.ok().map(Event::Listed)
            }
            Action::Lose { node, grounds, loss } => Some(self.lose(node, grounds, &loss).await),
            Action::Revoke { job, node, loss } => Some(self.revoke(job, node, &loss).await),
            Action::Look { job } => self.told(job, self.look(job).await),
            Action::Sweep { job, keyed, unless_in, doubt, tried } => {
                self.told(job, self.sweep(job, (keyed, tried), unless_in, doubt).await)
            }
            Action::Absolve { job, nodes } => {
                self.told(job, self.refund_attempts(job, nodes).await)
            }
            Action::Isolate { node, isolated } => {
                self.isolate(&node, &isolated).await;
                None
            }
            Action::Study { job } => self.told(job, self.study(job).await),
            Action::AskHolders { job } => self.told(job, self.holders(job).await),
            Action::Copy { job, lagging } => self.told(job, self.copy(job, &lagging).await),
            Action::Open { job, chunks, size, keyed, tried } => {
                self.told(job, self.open(job, chunks, size, (keyed, tried)).await)
            }
            Action::Fail { job, error } => self.told(job, self.fail(job, &error).await),
            Action::Archive { job } => self.told(job, self.archive(job).await),
        }
    }

    fn told(&self, job: JobId, result: Result<Event, Error>) -> Option<Event> {
        Some(self.ledger_health.note(result).unwrap_or(Event::Unanswered { job }))
    }

    async fn look(&self, job: JobId) -> Result<Event, Error> {
        let summary = self.ledger.job(job).await?.map(Box::new);
        if let Some(summary) = &summary {
            self.notes.take(&*self.ledger, &self.journal, summary).await?;
        }
        Ok(Event::Looked { job, summary, overdue: Vec::new() })
    }

    async fn sweep(
        &self,
        job: JobId,
        with: (bool, bool),
        unless_in: Option<(Queue, u64)>,
        doubt: bool,
    ) -> Result<Event, Error> {
        let Some(mut sweep) = sweeper::sweep(&*self.ledger, job, doubt).await? else {
            return Ok(Event::Looked { job, summary: None, overdue: Vec::new() });
        };
        if let Some((queue, others)) = unless_in {
            let health = &self.depth_health;
            sweeper::spare(&*self.broker, health, &mut sweep, &queue, others).await;
        }
        self.notes.take(&*self.ledger, &self.journal, &sweep.summary).await?;
        let overdue = self.described(job, sweep.publish, with).await?;
        Ok(Event::Looked { job, summary: Some(Box::new(sweep.summary)), overdue })
    }

    async fn study(&self, job: JobId) -> Result<Event, Error> {
        Ok(match self.plans.terms(job).await? {
            Some(terms) => Event::Studied { job, terms },
            None => Event::Looked { job, summary: None, overdue: Vec::new() },
        })
    }

    async fn holders(&self, job: JobId) -> Result<Event, Error> {
        let by = self.ledger.holders(job).await?;
        Ok(Event::Held { job, by })
    }

    async fn copy(
        &self,
        job: JobId,
        lagging: &SpeculationRequest,
    ) -> Result<Event, Error> {
        let stragglers = self.ledger.offer_speculative(job, lagging).await?;
        counter!(COPIED_CHUNKS).increment(stragglers.len() as u64);
        for SpeculativeChunk { message, holder } in &stragglers {
            let (chunk, held_for) = (message.chunk, lagging.held_for);
            info!(%job, %chunk, %holder, ?held_for, "a chunk takes long; a second copy is offered");
        }
        let ids: Vec<ChunkId> = stragglers.iter().map(|it| it.message.chunk).collect();
        let tried = self.ledger.tried_nodes(job, &ids).await?;
        Ok(Event::Copied { job, stragglers, tried })
    }

    async fn open(
        &self,
        job: JobId,
        chunks: u32,
        size: u64,
        with: (bool, bool),
    ) -> Result<Event, Error> {
        let open = OpenParams::new(chunks, size, PUBLISH_WITHIN);
        let messages = self.ledger.open(job, &open).await?;
        let chunks = self.described(job, messages, with).await?;
        Ok(Event::Opened { job, chunks })
    }

    /// Messages with what is wanted beside them: their keys, and on which nodes attempts failed.
    async fn described(
        &self,
        job: JobId,
        messages: Vec<ChunkMessage>,
        (keyed, tried): (bool, bool),
    ) -> Result<Vec<Keyed>, Error> {
        let mut chunks = self.plans.keyed(job, messages, keyed).await?;
        if tried {
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.message.chunk).collect();
            let tried = self.ledger.tried_nodes(job, &ids).await?;
            chunks.iter_mut().zip(tried).for_each(|(chunk, tried)| chunk.tried = tried);
        }
        Ok(chunks)
    }

    async fn refund_attempts(&self, job: JobId, nodes: Vec<NodeId>) -> Result<Event, Error> {
        let again = self.ledger.refund_attempts(job, &nodes).await?;
        if again > 0 {
            info!(%job, subtasks = again, ?nodes, "what isolated nodes failed is tried again");
        }
        Ok(Event::Absolved { job, nodes })
    }

    /// If it does not get through, the next look at the workers brings it back here.
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

    async fn fail(&self, job: JobId, error: &str) -> Result<Event, Error> {
        match self.ledger.fail(job, error).await {
            Ok(_) => info!(%job, error, "job failed"),
            Err(ControlError::Ledger(error)) => return Err(error),
            // It ended by itself, or is gone: the next look tells.
            Err(ControlError::NotFound | ControlError::Illegal(_)) => {}
            Err(error) => warn!(%job, %error, "the job can't be failed"),
        }
        Ok(Event::Closed { job })
    }

    /// A job whose end could not be told to the journal stays on the list of active ones, which brings it back here.
    async fn archive(&self, job: JobId) -> Result<Event, Error> {
        if self.tell_end(job).await? {
            self.ledger.archive(job).await?;
            self.plans.forget(job);
            self.notes.forget(job);
        }
        Ok(Event::Closed { job })
    }

    async fn tell_end(&self, job: JobId) -> Result<bool, Error> {
        if !self.journal.is_wanted() {
            return Ok(true);
        }
        // The look too waits for its moment, out of the way of the next short job.
        self.journal.gather().await;
        let ended =
            |summary| JournalEnding::of(&summary).map(|ending| JournalEvent::Ended { job, ending });
        let news = match self.ledger.job(job).await? {
            Some(summary) => ended(summary),
            // The ledger lost it, which is no end.
            None if !self.ledger.missing(&[job]).await?.is_empty() => None,
            // Somebody was quick to delete it; or to put it back, which a second look shows.
            None => match self.ledger.job(job).await? {
                Some(summary) => ended(summary),
                None => Some(JournalEvent::Deleted { job, at: self.ledger.now().await? }),
            },
        };
        match news {
            Some(news) => Ok(self.journal.write(&news).await),
            None => Ok(true),
        }
    }

    async fn publish(&self, queue: Queue, chunk: Keyed) -> Option<Event> {
        let body = serde_json::to_vec(&chunk.message).expect("a message is plain data").into();
        let message = Outgoing { body, ..Outgoing::default() };
        counter!(PUBLISHED_CHUNKS).increment(1);
        match self.broker.publish(&queue, message).await {
            Ok(()) => {
                self.publish_health.worked();
                None
            }
            Err(PublishError::Unroutable(Queue::Node(node))) => {
                Some(Event::Returned { node, chunk })
            }
            // Whether it arrived is unknown. If it did not, the sweep publishes it again.
            Err(error) => {
                counter!(UNKNOWN_PUBLISHES).increment(1);
                self.publish_health.failed(&error);
                None
            }
        }
    }

    /// If it does not get through, the others find out by themselves.
    async fn deregister_scheduler(&self, scheduler: &SchedulerId) {
        let result = self.ledger_health.note(self.ledger.deregister_scheduler(scheduler).await);
        info!(%scheduler, told = result.is_ok(), "a scheduler died; its queues go to others");
    }

    /// If it fails the engine asks again.
    async fn lose(&self, node: NodeId, grounds: LossEvidence, loss: &LossCause) -> Event {
        let params = DeclareLostParams::new(node.clone(), grounds, loss.clone());
        let declared = self.ledger_health.note(self.ledger.declare_lost(&params).await);
        if let Ok(LossVerdict::New(_)) = declared {
            let how = if matches!(loss, LossCause::Crashed(_)) { "crashed" } else { "vanished" };
            counter!(LOST_NODES, "how" => how).increment(1);
            warn!(%node, ?loss, ?grounds, "node lost");
        }
        Event::LossVerdict { node, verdict: declared.ok().and_then(LossVerdict::verdict) }
    }

    async fn revoke(&self, job: JobId, node: NodeId, loss: &LossCause) -> Event {
        let params = RevokeParams::new(node.clone(), loss.clone());
        let revoked = self.ledger_health.note(self.ledger.revoke(job, &params).await);
        let is_done = revoked.is_ok();
        let (chunks, subtasks) = count(&revoked.unwrap_or_default());
        match loss {
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

/// How many chunks, and how many unsettled subtasks in them.
fn count(revoked: &[Revoked]) -> (u64, u64) {
    (revoked.len() as u64, revoked.iter().map(|chunk| chunk.to - chunk.from).sum())
}
