//! Takes job documents from the jobs queue into the ledger, or refuses or postpones them.
//!
//! A document goes through parse -> expand -> plan -> admit -> journal -> acknowledge.
//!
//! A document that can't be accepted goes to the dead queue with the reason, and its job is shown
//! as rejected if its id can be read. A document that can't be judged now, because its files can't
//! be reached, goes to the queue of waiting documents and is judged again from there, so that it
//! blocks no other. While the ledger or the broker is away, when no job could be admitted, a
//! delivery is held and tried again.

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
use longshore_storage::AllowedRoots;
use metrics::counter;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::engine::{Event, JobSpec, RoutedChunk};
use crate::executor::PUBLISH_WITHIN;
use crate::feeder::EngineHandle;
use crate::globs::{Globs, LONG, NoManifest, check_results};
use crate::health::{Backoff, Health, Service};
use crate::job_ids;
use crate::journal::{ControlLog, Journal, admission_record, backfill_job};
use crate::metrics::DOCUMENTS;

/// The most documents in work at once: enough to hide the delays of the ledger and the file system,
/// few enough that 32 of 16 MiB each fit anywhere.
const PREFETCH: u16 = 32 + LONG;

/// The most waiting documents in work at once.
const PREFETCH_WAITING: u16 = 32;

/// The time between two judgements of a waiting document.
const JUDGE_EVERY: Duration = Duration::from_secs(5);

/// Documents of more bytes are parsed on a thread of their own, one after the other: 16 MiB take a
/// quarter of a second, and several times their size in memory meanwhile.
const LARGE: usize = 256 << 10;

/// Header of a waiting document: when it was judged last, by the ledger's clock, in ms.
const JUDGED_AT: &str = "judged-at";

/// The most bytes of a reason in a header: all headers have to fit into one frame of AMQP.
const LONGEST_REASON: usize = 4_000;

/// An ended job is kept at least this long, whatever its document says, so that its end is written
/// to the journal before the ledger forgets it, and it does not look like a job that was lost.
const SHORTEST_KEEP: Duration = Duration::from_secs(60);

struct Admitter {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    journal: Arc<Journal>,
    control_log: Arc<ControlLog>,
    globs: Globs,
    roots: AllowedRoots,
    engine: EngineHandle,
    large: Semaphore,
    ledger_health: Health,
    dead_health: Health,
    waiting_health: Health,
}

/// Why a document is not admitted.
enum Refusal {
    /// It can't be accepted; its job, if it has an id, is shown as rejected.
    Invalid(String),
    /// Its id belongs to another job, which goes on undisturbed.
    Conflict(JobId),
    /// It can't be judged now.
    NotNow(JobId, String),
    /// It can't be judged now, and need not be: its job was cancelled.
    Cancelled(JobId, String),
}

/// A job that the ledger has.
struct AdmittedJob {
    admission: Admission,
    /// When the job was accepted, by the ledger's clock, if it is new.
    accepted: Option<Timestamp>,
    /// Whether it was cancelled before it was admitted.
    is_cancelled: bool,
}

/// Works until it is dropped; documents that are not acknowledged then are delivered again.
pub(crate) async fn run(
    broker: Arc<dyn Broker>,
    (ledger, service): (Arc<dyn Ledger>, Service),
    (journal, control_log): (Arc<Journal>, Arc<ControlLog>),
    (globs, roots): (Globs, AllowedRoots),
    engine: EngineHandle,
) {
    let admitter = Arc::new(Admitter {
        broker,
        ledger,
        journal,
        control_log,
        globs,
        roots,
        engine,
        large: Semaphore::new(1),
        ledger_health: service.health("admitting jobs to the ledger"),
        dead_health: Health::new("publishing refused documents"),
        waiting_health: Health::new("publishing waiting documents"),
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
        // The broker was closed; this scheduler will be stopped too.
        std::future::pending::<()>().await;
    }

    async fn handle(&self, delivery: Delivery, has_waited: bool) {
        // A ledger that lost an ended job must have it back before its document comes a second
        // time.
        self.journal.ready().await;
        if has_waited {
            self.wait_for_turn(&delivery).await;
        }
        let admitted = async {
            let job = self.admit(&delivery, has_waited).await?;
            self.record(job).await;
            Ok(())
        };
        // A document on which this code panics is refused: left alone it would be delivered for
        // ever, and keep its place in the prefetch window.
        let admitted = AssertUnwindSafe(admitted).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            Err(Refusal::Invalid(format!("document: the scheduler panicked on it: {text}")))
        });
        match admitted {
            Ok(()) => {}
            Err(Refusal::NotNow(job, reason)) => self.postpone(&delivery, job, &reason).await,
            Err(Refusal::Cancelled(job, reason)) => self.drop_cancelled(job, &reason).await,
            Err(refusal) => self.refuse(&delivery, refusal).await,
        }
        delivery.settle.ack().await;
    }

    async fn admit(&self, delivery: &Delivery, has_waited: bool) -> Result<AdmittedJob, Refusal> {
        let mut document = self.parse(&delivery.body).await?;
        let message_id = delivery.message_id.as_deref();
        let is_named_by_message =
            document.id.is_none() && message_id.is_some_and(|id| !id.is_empty());
        let job = document.id.unwrap_or_else(|| job_ids::choose(&document, message_id));
        document.id = Some(job);
        // Results first, since that is quick.
        let manifest = match check_results(&document, &self.roots).await {
            Ok(()) => self.globs.manifest(&document, has_waited).await,
            Err(refusal) => Err(refusal),
        };
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(NoManifest::Refused(reason)) => return Err(Refusal::Invalid(reason)),
            Err(NoManifest::NotNow(reason)) => return Err(self.not_now(job, reason).await),
        };
        let plan = Plan::new(document, manifest)?;
        let mut admission = admission(job, &plan);
        let spec = JobSpec::of(plan.document());
        let summary = admission.accepted(Timestamp::default());
        let first_chunk = self.engine.begin_admission(summary, spec.clone()).await;
        admission.open = first_chunk.map(|size| OpenParams::new(1, size, PUBLISH_WITHIN));
        let admitted = self.persist(&admission).await;
        if let Ok(Admitted::Accepted { at, opened }) = &admitted {
            let summary = Box::new(admission.accepted(*at));
            let opened = opened.first().map(|message| RoutedChunk {
                message: *message,
                key: None,
                tried: Vec::new(),
            });
            // Of a new job this asks the ledger nothing.
            let _ = self.control_log.observe(&*self.ledger, &self.journal, &summary).await;
            self.engine.tell(Event::Admitted { summary, spec, opened }).await;
        } else {
            // One that has ended already is archived by the scheduler that owns its queue.
            let known = matches!(admitted, Ok(Admitted::Known | Admitted::Cancelled { .. }));
            self.engine.tell(Event::NotAdmitted { job, known }).await;
        }
        match admitted? {
            Admitted::Accepted { at, .. } => {
                counter!(DOCUMENTS, "outcome" => "accepted").increment(1);
                info!(%job, task = plan.document().task, total = plan.total(), "job accepted");
                Ok(AdmittedJob { admission, accepted: Some(at), is_cancelled: false })
            }
            Admitted::Cancelled { at } => {
                counter!(DOCUMENTS, "outcome" => "cancelled").increment(1);
                info!(%job, "job admitted as cancelled: it was cancelled before");
                Ok(AdmittedJob { admission, accepted: Some(at), is_cancelled: true })
            }
            Admitted::Known => {
                counter!(DOCUMENTS, "outcome" => "known").increment(1);
                if is_named_by_message && !delivery.redelivered {
                    warn!(
                        %job,
                        message_id,
                        "document already known by its message_id and content; to run it again, \
                         publish it with another message_id"
                    );
                } else {
                    info!(%job, "document already known; nothing to do");
                }
                Ok(AdmittedJob { admission, accepted: None, is_cancelled: false })
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

    /// A waiting document is judged every few seconds, by any scheduler.
    async fn wait_for_turn(&self, delivery: &Delivery) {
        let judged_at = delivery.headers.iter().find(|(name, _)| name == JUDGED_AT);
        let judged_at = judged_at.and_then(|(_, at)| at.parse().ok()).map(Timestamp::from_millis);
        let now = self.ledger.now().await.ok();
        let since = judged_at.zip(now).map(|(at, now)| now.since(at)).unwrap_or_default();
        tokio::time::sleep(JUDGE_EVERY.saturating_sub(since)).await;
    }

    /// The refusal of a document that can't be judged now. A cancelled one does not wait: how many
    /// subtasks it would have had is not known, so its job is shown as rejected.
    async fn not_now(&self, job: JobId, reason: String) -> Refusal {
        match self.ledger.pending_cancel(job).await {
            Ok(Some(_)) => Refusal::Cancelled(job, reason),
            // The ledger is asked again when the document is judged again.
            Ok(None) | Err(_) => Refusal::NotNow(job, reason),
        }
    }

    async fn drop_cancelled(&self, job: JobId, reason: &str) {
        counter!(DOCUMENTS, "outcome" => "cancelled").increment(1);
        info!(%job, reason, "job document dropped: its job was cancelled meanwhile");
        let error =
            format!("cancelled before it was admitted, while it could not be judged: {reason}");
        self.show_rejected(job, &error).await;
    }

    /// Moves a document that can't be judged now to the queue of waiting documents.
    async fn postpone(&self, delivery: &Delivery, job: JobId, reason: &str) {
        let is_new = !delivery.headers.iter().any(|(name, _)| name == JUDGED_AT);
        if is_new {
            counter!(DOCUMENTS, "outcome" => "postponed").increment(1);
            warn!(%job, reason, "job document can't be judged yet; tried again every 5 s");
        }
        // This shows people the reason; what counts is the message.
        let _ = self.ledger.postpone(job, &shortened(reason)).await;
        let now = self.ledger.now().await.unwrap_or_default();
        let mut headers = delivery.headers.clone();
        headers.retain(|(name, _)| name != JUDGED_AT);
        headers.push((JUDGED_AT.to_owned(), now.as_millis().to_string()));
        let named = delivery.message_id.as_deref().filter(|name| !name.is_empty());
        let message = Outgoing {
            body: delivery.body.clone(),
            // Names the job, if neither document nor message did.
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

    /// Waits for a ledger that is away. A ledger that answers and can't take this job never will:
    /// foreign data lies under the job's key.
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

    /// Writes an admitted job to the journal, so that the document is safe when its message is
    /// acknowledged. The job runs already.
    async fn record(&self, mut job: AdmittedJob) {
        if !self.journal.is_wanted() {
            return;
        }
        let id = job.admission.job;
        let mut backoff = Backoff::new();
        loop {
            match self.try_record(&job).await {
                Ok(None) => return self.ledger_health.worked(),
                Ok(again) => {
                    job.accepted = again;
                    warn!(job = %id, "job admitted again: the ledger had lost it");
                }
                Err(error @ Error::Unavailable { .. }) => self.ledger_health.failed(&error),
                // Foreign data lies under the job's key now.
                Err(error) => return warn!(job = %id, %error, "job not written to the journal"),
            }
            backoff.wait().await;
        }
    }

    /// Returns when the job was accepted again, if the ledger had lost it: only this scheduler can
    /// admit it again to a ledger that was rebuilt from the journal before the job was in there.
    async fn try_record(&self, admitted: &AdmittedJob) -> Result<Option<Timestamp>, Error> {
        let AdmittedJob { admission, accepted, is_cancelled } = admitted;
        let job = admission.job;
        if let Some(at) = *accepted {
            let Admission { keep_for, digest, document, manifest, .. } = admission.clone();
            let stored = StoredDocument { digest, document, manifest };
            self.journal.join_batch().await;
            self.journal.write_until_done(&admission_record(job, at, keep_for, stored)).await;
        } else if backfill_job(&*self.ledger, &self.journal, job).await? {
            // Of a job that was admitted before, the ledger has the manifest that counts.
            return Ok(None);
        }
        if self.ledger.missing(&[job]).await?.is_empty() {
            // The ledger has it; or it has ended and was deleted meanwhile.
            return Ok(None);
        }
        if *is_cancelled {
            // The ledger has lost the cancel as well.
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
                // The reason is in the dead queue.
                Err(error) => {
                    return warn!(job = %id, %error, "the ledger can't show a refused job");
                }
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
        name: document.name.clone(),
        labels: document.labels.clone(),
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

/// The message of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}
