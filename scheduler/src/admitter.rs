//! Takes job documents from the jobs queue into the ledger: parse -> expand -> plan -> admit ->
//! journal -> acknowledge.
//!
//! What can't be accepted goes to the dead queue with the reason, and is shown as rejected where
//! its id can be read. What can't be judged now, because its files can't be reached, goes to the
//! queue of those that wait, and is judged again from there, so that it is in nobody's way. While
//! the ledger or the broker is away, where nobody could be admitted, a delivery is held and tried again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use longshore_broker::{Broker, Delivery, Outgoing, Queue};
use longshore_ledger::{
    Admission, Admitted, ControlError, Error, Ledger, OpenParams, StoredDocument,
};
use longshore_protocol::document::Split;
use longshore_protocol::{Invalid, JobDocument, JobId, Plan, Timestamp};
use metrics::counter;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::engine::{Event, Keyed, Terms};
use crate::executor::PUBLISH_WITHIN;
use crate::feeder::EngineHandle;
use crate::globs::{Globs, LONG, NoManifest, check_results};
use crate::health::{Backoff, Health, Service};
use crate::journal::{Journal, Notes, admitted, tell};
use crate::metrics::DOCUMENTS;
use crate::naming;

/// Documents in work at once: enough to hide the ledger's and the file system's delays, few enough
/// that 32 of 16 MiB each fit anywhere.
const PREFETCH: u16 = 32 + LONG;

/// Documents in hand of those that wait.
const PREFETCH_WAITING: u16 = 32;

/// The time between two judgements of a document that waits.
const JUDGE_EVERY: Duration = Duration::from_secs(5);

/// Larger documents are parsed on a thread of their own, one after the other: a tree of 16 MiB takes
/// a quarter of a second, and several times its size while it is made.
const LARGE: usize = 256 << 10;

/// Header of a document that waits: when it was judged last, by the ledger's clock, ms.
const JUDGED_AT: &str = "judged-at";

/// Headers have to fit into one frame of AMQP beside everything else.
const LONGEST_REASON: usize = 4_000;

/// An ended job stays at least so long, whatever its document says, so that its end gets into the journal before it is
/// forgotten, and does not read as a job that was lost.
const SHORTEST_KEEP: Duration = Duration::from_secs(60);

struct Admitter {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    journal: Arc<Journal>,
    notes: Arc<Notes>,
    globs: Globs,
    engine: EngineHandle,
    large: Semaphore,
    ledger_health: Health,
    dead_health: Health,
    waiting_health: Health,
}

/// Why a document is not taken in.
enum Refusal {
    /// It can't be accepted; its id, if there is one, is shown as rejected.
    Invalid(String),
    /// Its id belongs to another job, which goes on undisturbed.
    Conflict(JobId),
    /// It can't be judged now.
    NotNow(JobId, String),
    /// It can't be judged now, and need not be: somebody has cancelled it.
    Cancelled(JobId, String),
}

/// A document that the ledger knows.
struct Taken {
    admission: Admission,
    /// When it was accepted, by the ledger's clock, if it is new.
    accepted: Option<Timestamp>,
    /// Whether it was cancelled before.
    is_cancelled: bool,
}

/// Works until it is dropped; what is not acknowledged then comes again.
pub(crate) async fn run(
    broker: Arc<dyn Broker>,
    (ledger, service): (Arc<dyn Ledger>, Service),
    (journal, notes): (Arc<Journal>, Arc<Notes>),
    globs: Globs,
    engine: EngineHandle,
) {
    let admitter = Arc::new(Admitter {
        broker,
        ledger,
        journal,
        notes,
        globs,
        engine,
        large: Semaphore::new(1),
        ledger_health: service.health("admitting jobs to the ledger"),
        dead_health: Health::new("publishing refused documents"),
        waiting_health: Health::new("setting documents aside"),
    });
    tokio::join!(
        admitter.clone().take(Queue::Jobs, PREFETCH),
        admitter.take(Queue::Waiting, PREFETCH_WAITING),
    );
}

impl Admitter {
    async fn take(self: Arc<Self>, queue: Queue, prefetch: u16) {
        let has_waited = queue == Queue::Waiting;
        let mut documents = self.broker.subscribe(&queue, prefetch).await;
        let mut in_work = JoinSet::new();
        while let Some(delivery) = documents.next().await {
            let admitter = self.clone();
            in_work.spawn(async move { admitter.handle(delivery, has_waited).await });
            while in_work.try_join_next().is_some() {}
        }
        // The broker was closed: so shall we be.
        std::future::pending::<()>().await;
    }

    async fn handle(&self, delivery: Delivery, has_waited: bool) {
        // A job that ended must be known again before somebody gives it a second time.
        self.journal.ready().await;
        if has_waited {
            self.wait_for_turn(&delivery).await;
        }
        let admitted = async {
            let taken = self.admit(&delivery, has_waited).await?;
            self.record(taken).await;
            Ok(())
        };
        // A document on which we stumble is refused like any other: left alone it would come back for
        // ever, and keep its place in the window.
        let admitted = AssertUnwindSafe(admitted).catch_unwind().await.unwrap_or_else(|panic| {
            let said = panic_text(panic.as_ref());
            Err(Refusal::Invalid(format!("document: the scheduler stumbled over it: {said}")))
        });
        match admitted {
            Ok(()) => {}
            Err(Refusal::NotNow(job, reason)) => self.set_aside(&delivery, job, &reason).await,
            Err(Refusal::Cancelled(job, reason)) => self.give_up(job, &reason).await,
            Err(refusal) => self.refuse(&delivery, refusal).await,
        }
        delivery.settle.ack().await;
    }

    async fn admit(&self, delivery: &Delivery, has_waited: bool) -> Result<Taken, Refusal> {
        let mut document = self.parse(&delivery.body).await?;
        let message_id = delivery.message_id.as_deref();
        let is_named_by_message =
            document.id.is_none() && message_id.is_some_and(|id| !id.is_empty());
        let job = document.id.unwrap_or_else(|| naming::name(&document, message_id));
        document.id = Some(job);
        let manifest = self.globs.manifest(&document, has_waited).await;
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(NoManifest::Refused(reason)) => return Err(Refusal::Invalid(reason)),
            Err(NoManifest::NotNow(reason)) => return Err(self.not_now(job, reason).await),
        };
        check_results(&document).await.map_err(Refusal::Invalid)?;
        let plan = Plan::new(document, manifest)?;
        let mut admission = admission(job, &plan);
        let terms = Terms::of(plan.document());
        let summary = admission.accepted(Timestamp::default());
        let first_chunk = self.engine.begin_admission(summary, terms.clone()).await;
        admission.open = first_chunk.map(|size| OpenParams::new(1, size, PUBLISH_WITHIN));
        let admitted = self.persist(&admission).await;
        if let Ok(Admitted::Accepted { at, opened }) = &admitted {
            let summary = Box::new(admission.accepted(*at));
            let opened = opened.first().map(|message| Keyed {
                message: *message,
                key: None,
                tried: Vec::new(),
            });
            // Asks the ledger nothing about a job that is new.
            let _ = self.notes.take(&*self.ledger, &self.journal, &summary).await;
            self.engine.tell(Event::Admitted { summary, terms, opened }).await;
        } else {
            // One that has ended already is archived by whoever looks at it.
            let known = matches!(admitted, Ok(Admitted::Known | Admitted::Cancelled { .. }));
            self.engine.tell(Event::NotAdmitted { job, known }).await;
        }
        match admitted? {
            Admitted::Accepted { at, .. } => {
                counter!(DOCUMENTS, "outcome" => "accepted").increment(1);
                info!(%job, task = plan.document().task, total = plan.total(), "job accepted");
                Ok(Taken { admission, accepted: Some(at), is_cancelled: false })
            }
            Admitted::Cancelled { at } => {
                counter!(DOCUMENTS, "outcome" => "cancelled").increment(1);
                info!(%job, "job admitted as cancelled: somebody cancelled it before");
                Ok(Taken { admission, accepted: Some(at), is_cancelled: true })
            }
            Admitted::Known => {
                counter!(DOCUMENTS, "outcome" => "known").increment(1);
                if is_named_by_message && !delivery.redelivered {
                    warn!(
                        %job,
                        message_id,
                        "document known: a message with the same message_id and content came before; \
                         to run it again, publish it with another message_id"
                    );
                } else {
                    info!(%job, "document known; nothing to do");
                }
                Ok(Taken { admission, accepted: None, is_cancelled: false })
            }
            Admitted::Conflict => Err(Refusal::Conflict(job)),
            Admitted::TooLarge { most } => Err(Refusal::from(Invalid {
                place: "split".into(),
                found: format!("{} subtasks", plan.total()),
                allowed: format!("this ledger keeps at most {most}, reduce nodes included"),
            })),
        }
    }

    async fn parse(&self, body: &Bytes) -> Result<JobDocument, Refusal> {
        if body.len() < LARGE {
            return Ok(JobDocument::parse(body)?);
        }
        let _one_at_a_time = self.large.acquire().await.expect("it is never closed");
        let body = body.clone();
        let parsed = tokio::task::spawn_blocking(move || JobDocument::parse(&body)).await;
        Ok(parsed.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))?)
    }

    /// One that waits is judged every few seconds, by whichever scheduler has it.
    async fn wait_for_turn(&self, delivery: &Delivery) {
        let judged_at = delivery.headers.iter().find(|(name, _)| name == JUDGED_AT);
        let judged_at = judged_at.and_then(|(_, at)| at.parse().ok()).map(Timestamp::from_millis);
        let now = self.ledger.now().await.ok();
        let since = judged_at.zip(now).map(|(at, now)| now.since(at)).unwrap_or_default();
        tokio::time::sleep(JUDGE_EVERY.saturating_sub(since)).await;
    }

    /// A document that can't be judged now. One that was cancelled does not wait for it: how many subtasks it would have had
    /// is not known, so it is shown as rejected.
    async fn not_now(&self, job: JobId, reason: String) -> Refusal {
        match self.ledger.pending_cancel(job).await {
            Ok(Some(_)) => Refusal::Cancelled(job, reason),
            // It is asked again when the document is judged again.
            Ok(None) | Err(_) => Refusal::NotNow(job, reason),
        }
    }

    async fn give_up(&self, job: JobId, reason: &str) {
        counter!(DOCUMENTS, "outcome" => "cancelled").increment(1);
        info!(%job, reason, "job document dropped: somebody cancelled the job while it could not be judged");
        let told =
            format!("cancelled before it was admitted, while it could not be judged: {reason}");
        self.show_rejected(job, &told).await;
    }

    /// Gives a document that can't be judged now to those that wait.
    async fn set_aside(&self, delivery: &Delivery, job: JobId, reason: &str) {
        let is_new = !delivery.headers.iter().any(|(name, _)| name == JUDGED_AT);
        if is_new {
            counter!(DOCUMENTS, "outcome" => "postponed").increment(1);
            warn!(%job, reason, "job document can't be judged yet; it is tried again every 5 s");
        }
        // For people; what counts is the message.
        let _ = self.ledger.postpone(job, &shortened(reason)).await;
        let now = self.ledger.now().await.unwrap_or_default();
        let mut headers = delivery.headers.clone();
        headers.retain(|(name, _)| name != JUDGED_AT);
        headers.push((JUDGED_AT.to_owned(), now.as_millis().to_string()));
        let named = delivery.message_id.as_deref().filter(|name| !name.is_empty());
        let message = Outgoing {
            body: delivery.body.clone(),
            // Names the job, if nothing else did.
            message_id: Some(named.map_or_else(|| job.to_string(), str::to_owned)),
            headers,
        };
        let mut backoff = Backoff::new();
        loop {
            let published = self.broker.publish(&Queue::Waiting, message.clone()).await;
            if self.waiting_health.note(published).is_ok() {
                return;
            }
            backoff.wait().await;
        }
    }

    /// Waits for a ledger that is away. One that is there and can't take this job never will:
    /// something that is not ours lies under its key.
    async fn persist(&self, admission: &Admission) -> Result<Admitted, Refusal> {
        let mut backoff = Backoff::new();
        loop {
            match self.ledger.admit(admission).await {
                Ok(admitted) => {
                    self.ledger_health.worked();
                    return Ok(admitted);
                }
                Err(error @ Error::Unavailable { .. }) => {
                    self.ledger_health.failed(&error);
                    backoff.wait().await;
                }
                Err(error) => return Err(Refusal::Invalid(format!("document: {error}"))),
            }
        }
    }

    /// Tells the journal of an admitted job, so that the document is safe when its message is acknowledged. The job
    /// runs already.
    async fn record(&self, mut taken: Taken) {
        if !self.journal.is_wanted() {
            return;
        }
        let job = taken.admission.job;
        let mut backoff = Backoff::new();
        loop {
            match self.try_record(&taken).await {
                Ok(None) => return self.ledger_health.worked(),
                Ok(again) => {
                    taken.accepted = again;
                    warn!(%job, "the ledger lost a job that it had just admitted");
                }
                Err(error @ Error::Unavailable { .. }) => self.ledger_health.failed(&error),
                // What lies under the job's name is not ours any more.
                Err(error) => return warn!(%job, %error, "job not journaled"),
            }
            backoff.wait().await;
        }
    }

    /// Gives anew when the job was accepted if the ledger has lost it, which is admitted again then: a ledger that was rebuilt from
    /// the journal before the job was in it has nobody else to tell it.
    async fn try_record(&self, taken: &Taken) -> Result<Option<Timestamp>, Error> {
        let Taken { admission, accepted, is_cancelled } = taken;
        let job = admission.job;
        if let Some(at) = *accepted {
            let Admission { keep_for, digest, document, manifest, .. } = admission.clone();
            let stored = StoredDocument { digest, document, manifest };
            self.journal.gather().await;
            self.journal.insist(&admitted(job, at, keep_for, stored)).await;
        } else if tell(&*self.ledger, &self.journal, job).await? {
            // Of a job that was admitted before the ledger has the manifest that counts.
            return Ok(None);
        }
        if self.ledger.missing(&[job]).await?.is_empty() {
            // It is there; or has ended and was deleted, all that meanwhile.
            return Ok(None);
        }
        if *is_cancelled {
            // It has lost that as well.
            if let Err(ControlError::Ledger(error)) = self.ledger.cancel(job).await {
                return Err(error);
            }
        }
        let again = Admission { open: None, ..admission.clone() };
        Ok(match self.ledger.admit(&again).await? {
            Admitted::Accepted { at, .. } | Admitted::Cancelled { at } => Some(at),
            Admitted::Known | Admitted::Conflict | Admitted::TooLarge { .. } => None,
        })
    }

    async fn refuse(&self, delivery: &Delivery, refusal: Refusal) {
        counter!(DOCUMENTS, "outcome" => "refused").increment(1);
        let (id, reason) = match refusal {
            Refusal::Invalid(reason) => {
                let id = JobDocument::peek_id(&delivery.body);
                if let Some(id) = id {
                    self.show_rejected(id, &reason).await;
                }
                (id, reason)
            }
            Refusal::Conflict(id) => (
                Some(id),
                "id: another job with other content has this id; choose a new one".into(),
            ),
            Refusal::NotNow(job, reason) | Refusal::Cancelled(job, reason) => (Some(job), reason),
        };
        warn!(job = id.map(tracing::field::display), reason, "job document refused");
        let mut headers = vec![("reason".to_owned(), shortened(&reason))];
        headers.extend(id.map(|id| ("id".to_owned(), id.to_string())));
        let message = Outgoing {
            body: delivery.body.clone(),
            message_id: delivery.message_id.clone(),
            headers,
        };
        let mut backoff = Backoff::new();
        loop {
            let published = self.broker.publish(&Queue::Dead, message.clone()).await;
            if self.dead_health.note(published).is_ok() {
                return;
            }
            backoff.wait().await;
        }
    }

    async fn show_rejected(&self, id: JobId, reason: &str) {
        let mut backoff = Backoff::new();
        loop {
            match self.ledger.reject(id, reason).await {
                Ok(()) => return self.ledger_health.worked(),
                Err(error @ Error::Unavailable { .. }) => {
                    self.ledger_health.failed(&error);
                    backoff.wait().await;
                }
                // The reason is found in the dead queue.
                Err(error) => return warn!(job = %id, %error, "a refused job can't be shown"),
            }
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid.to_string())
    }
}

pub(crate) fn admission(job: JobId, plan: &Plan) -> Admission {
    let document = plan.document();
    let with_files = matches!(document.split, Split::Lines { .. } | Split::Files { .. });
    let manifest =
        || serde_json::to_string(plan.manifest()).expect("a manifest is strings and numbers");
    Admission {
        job,
        digest: document.digest(),
        document: document.to_json(),
        manifest: with_files.then(manifest),
        total: plan.total(),
        task: document.task.clone(),
        queue: document.queue.clone(),
        tenant: document.tenant.clone(),
        priority: document.priority,
        fan_in: document.reduce.as_ref().map(|reduce| reduce.fan_in),
        max_parallel: document.max_parallel,
        stop_after_failures: document.stop_after_failures,
        deadline: document.deadline,
        keep_for: kept_for(document),
        left_out: plan.manifest().left_out.clone(),
        open: None,
    }
}

/// How long the ledger keeps the job once it has ended.
pub(crate) fn kept_for(document: &JobDocument) -> Duration {
    document.keep_for.max(SHORTEST_KEEP)
}

fn shortened(reason: &str) -> String {
    let end = reason.floor_char_boundary(LONGEST_REASON);
    reason[..end].to_owned()
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}
