//! Does what the engine decided, one action at a time, and brings back what came of it. Chooses
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use longshore_broker::{Broker, Outgoing, PublishError, Queue};
use longshore_ledger::{ControlError, Error, Ledger, Open};
use longshore_protocol::{JobId, NodeId};
use tracing::{info, warn};

use crate::engine::{Action, Event, Keyed};
use crate::health::Health;
use crate::plans::Plans;
use crate::sweeper;

/// After this time without a claim a chunk's message is taken for lost. What waits ahead of a
/// worker is a quarter of a second of work, so a message that still waits then is rare; publishing it
/// twice costs one refused claim.
pub(crate) const PUBLISH_WITHIN: Duration = Duration::from_secs(5);

/// Jobs that are freed from a dead worker side by side.
const REVOKES_AT_ONCE: usize = 32;

/// Performs actions on one broker and one ledger.
pub(crate) struct Performer {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    plans: Plans,
    ledger_health: Health,
    publish_health: Health,
    depth_health: Health,
}

impl Performer {
    pub(crate) fn new(broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            plans: Plans::new(ledger.clone()),
            broker,
            ledger,
            ledger_health: Health::new("feeding jobs from the ledger"),
            publish_health: Health::new("publishing chunks"),
            depth_health: Health::new("looking how full a work queue is"),
        }
    }

    /// Does it; gives the engine's next event, if there is anything to tell.
    pub(crate) async fn perform(&self, action: Action) -> Option<Event> {
        match action {
            Action::Publish { queue, chunk } => self.publish(queue, chunk).await,
            Action::Bury { node, jobs, died, forget } => {
                Some(self.bury(node, jobs, died, forget).await)
            }
            Action::Look { job } => self.told(job, self.look(job).await),
            Action::Sweep { job, keyed, unless_in } => {
                self.told(job, self.sweep(job, keyed, unless_in).await)
            }
            Action::Study { job } => self.told(job, self.study(job).await),
            Action::AskHolders { job } => self.told(job, self.holders(job).await),
            Action::Open { job, chunks, size, keyed } => {
                self.told(job, self.open(job, chunks, size, keyed).await)
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
        Ok(Event::Looked { job, summary, overdue: Vec::new() })
    }

    async fn sweep(
        &self,
        job: JobId,
        keyed: bool,
        unless_in: Option<(Queue, u64)>,
    ) -> Result<Event, Error> {
        let health = &self.depth_health;
        let sweep = sweeper::sweep(&*self.ledger, &*self.broker, health, job, unless_in).await?;
        let Some(sweep) = sweep else {
            return Ok(Event::Looked { job, summary: None, overdue: Vec::new() });
        };
        let overdue = self.plans.keyed(job, sweep.publish, keyed).await?;
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

    async fn open(&self, job: JobId, chunks: u32, size: u64, keyed: bool) -> Result<Event, Error> {
        let open = Open { chunks, size, publish_within: PUBLISH_WITHIN };
        let messages = self.ledger.open(job, &open).await?;
        let chunks = self.plans.keyed(job, messages, keyed).await?;
        Ok(Event::Opened { job, chunks })
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

    async fn archive(&self, job: JobId) -> Result<Event, Error> {
        self.ledger.archive(job).await?;
        self.plans.forget(job);
        Ok(Event::Closed { job })
    }

    async fn publish(&self, queue: Queue, chunk: Keyed) -> Option<Event> {
        let body = serde_json::to_vec(&chunk.message).expect("a message is plain data").into();
        let message = Outgoing { body, ..Outgoing::default() };
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
                self.publish_health.failed(&error);
                None
            }
        }
    }

    async fn bury(&self, node: NodeId, jobs: Vec<JobId>, died: bool, forget: bool) -> Event {
        let revokes = stream::iter(jobs).map(|job| self.ledger.revoke(job, &node, died));
        let answers: Vec<_> = revokes.buffer_unordered(REVOKES_AT_ONCE).collect().await;
        let chunks: usize = answers.iter().flatten().map(Vec::len).sum();
        let mut complete = answers.iter().all(Result::is_ok);
        if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
            self.ledger_health.failed(error);
        }
        if chunks > 0 || forget {
            warn!(%node, died, chunks, complete, "node lost; its chunks go to others");
        }
        if complete && forget {
            complete = self.ledger_health.note(self.ledger.forget(&node).await).is_ok();
        }
        Event::Buried { node, complete }
    }
}
