//! Takes job documents from the jobs queue into the ledger: parse -> expand -> plan -> admit ->
//! journal -> acknowledge.
//!
//! What can't be accepted goes to the dead queue with the reason, and is shown as rejected where
//! its id can be read. While the ledger or the broker is away a delivery is held and tried again;
//! it never goes round the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Delivery, Outgoing, Queue};
use longshore_ledger::{Admission, Admitted, Error, Ledger, Open, StoredDocument};
use longshore_protocol::document::Split;
use longshore_protocol::{Invalid, JobDocument, JobId, Manifest, Plan, Timestamp};
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::engine::{Event, Keyed, Terms};
use crate::health::{Backoff, Health, Service};
use crate::journal::{Journal, Notes, admitted, tell};
use crate::metrics::DOCUMENTS;
use crate::naming;
use crate::performer::PUBLISH_WITHIN;

/// Documents in work at once: enough to hide the ledger's and the file system's delays, few enough
/// that 32 of 16 MiB each fit anywhere.
const PREFETCH: u16 = 32;

/// Headers have to fit into one frame of AMQP beside everything else.
const LONGEST_REASON: usize = 4_000;

/// An ended job stays at least so long, whatever its document says, so that its end gets into the journal before it is
/// forgotten, and does not read as a job that was lost.
const SHORTEST_KEEP: Duration = Duration::from_secs(60);

/// Admissions that wait for the engine's word.
#[derive(Default)]
pub(crate) struct Gate(Mutex<HashMap<JobId, oneshot::Sender<Option<u64>>>>);

impl Gate {
    /// The word to wait for. Of two messages with one job the later one gets it.
    fn wait(&self, job: JobId) -> oneshot::Receiver<Option<u64>> {
        let (sender, word) = oneshot::channel();
        self.0.lock().insert(job, sender);
        word
    }

    /// Lets a job in, together with a first chunk of that size.
    pub(crate) fn open(&self, job: JobId, first: Option<u64>) {
        if let Some(waiting) = self.0.lock().remove(&job) {
            let _ = waiting.send(first);
        }
    }
}

struct Admitter {
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    journal: Arc<Journal>,
    notes: Arc<Notes>,
    allow_relative: bool,
    gate: Arc<Gate>,
    inbox: Sender<Event>,
    ledger_health: Health,
    storage_health: Health,
    dead_health: Health,
}

/// Why a document is not taken in.
enum Refusal {
    /// It can't be accepted; its id, if there is one, is shown as rejected.
    Invalid(String),
    /// Its id belongs to another job, which goes on undisturbed.
    Conflict(JobId),
}

/// Works until it is dropped; what is not acknowledged then comes again.
pub(crate) async fn run(
    broker: Arc<dyn Broker>,
    (ledger, service): (Arc<dyn Ledger>, Service),
    (journal, notes): (Arc<Journal>, Arc<Notes>),
    allow_relative: bool,
    (gate, inbox): (Arc<Gate>, Sender<Event>),
) {
    let mut documents = broker.subscribe(&Queue::Jobs, PREFETCH).await;
    let admitter = Arc::new(Admitter {
        broker,
        ledger,
        journal,
        notes,
        allow_relative,
        gate,
        inbox,
        ledger_health: service.health("admitting jobs to the ledger"),
        storage_health: Health::new("expanding globs"),
        dead_health: Health::new("publishing refused documents"),
    });
    let mut in_work = JoinSet::new();
    while let Some(delivery) = documents.next().await {
        let admitter = admitter.clone();
        in_work.spawn(async move { admitter.handle(delivery).await });
        while in_work.try_join_next().is_some() {}
    }
    // The broker was closed: so shall we be.
    std::future::pending::<()>().await;
}

impl Admitter {
    async fn handle(&self, delivery: Delivery) {
        // A job that ended must be known again before somebody gives it a second time.
        self.journal.ready().await;
        match self.admit(&delivery).await {
            Ok((admission, accepted)) => self.record(admission, accepted).await,
            Err(refusal) => self.refuse(&delivery, refusal).await,
        }
        delivery.settle.ack().await;
    }

    /// Gives when the job was accepted by the ledger's clock, if it is new.
    async fn admit(&self, delivery: &Delivery) -> Result<(Admission, Option<Timestamp>), Refusal> {
        let mut document = JobDocument::parse(&delivery.body)?;
        let message_id = delivery.message_id.as_deref();
        let is_named_by_message =
            document.id.is_none() && message_id.is_some_and(|id| !id.is_empty());
        let job = document.id.unwrap_or_else(|| naming::name(&document, message_id));
        document.id = Some(job);
        let manifest = self.expand(&document).await?;
        let plan = Plan::new(document, manifest)?;
        let mut admission = admission(job, &plan);
        let terms = Terms::of(plan.document());
        // The engine, which hears of the job as soon as the ledger has it, is not to ask what we are about to say.
        let word = self.gate.wait(job);
        let summary = Box::new(admission.accepted(Timestamp::default()));
        self.tell(Event::Admitting { summary, terms: terms.clone() }).await;
        let first = word.await.ok().flatten();
        admission.open = first.map(|size| Open { chunks: 1, size, publish_within: PUBLISH_WITHIN });
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
            self.tell(Event::Admitted { summary, terms, opened }).await;
        } else {
            let known = matches!(admitted, Ok(Admitted::Known));
            self.tell(Event::NotAdmitted { job, known }).await;
        }
        match admitted? {
            Admitted::Accepted { at, .. } => {
                counter!(DOCUMENTS, "outcome" => "accepted").increment(1);
                info!(%job, task = plan.document().task, total = plan.total(), "job accepted");
                Ok((admission, Some(at)))
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
                Ok((admission, None))
            }
            Admitted::Conflict => Err(Refusal::Conflict(job)),
            Admitted::TooLarge { most } => Err(Refusal::from(Invalid {
                place: "split".into(),
                found: format!("{} subtasks", plan.total()),
                allowed: format!("this ledger keeps at most {most}, reduce nodes included"),
            })),
        }
    }

    async fn tell(&self, event: Event) {
        let _ = self.inbox.send(event).await;
    }

    async fn expand(&self, document: &JobDocument) -> Result<Manifest, Refusal> {
        let (Split::Lines { files: globs, .. } | Split::Files { files: globs }) = &document.split
        else {
            return Ok(Manifest::default());
        };
        let relative = |glob: &String| !longshore_storage::is_absolute(glob);
        if let Some(at) = globs.iter().position(relative).filter(|_| !self.allow_relative) {
            return Err(Refusal::from(Invalid {
                place: format!("split.files[{at}]"),
                found: format!("`{}` is relative", globs[at]),
                allowed:
                    "write an absolute path or a URL; `longshore submit` makes relative paths \
                          absolute"
                        .into(),
            }));
        }
        let mut backoff = Backoff::new();
        loop {
            match longshore_storage::expand(globs).await {
                Ok(manifest) => {
                    self.storage_health.worked();
                    return Ok(manifest);
                }
                Err(error) if error.is_users_fault() => {
                    return Err(Refusal::Invalid(format!("split.files: {error}")));
                }
                Err(error) => {
                    self.storage_health.failed(&error);
                    backoff.wait().await;
                }
            }
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
    async fn record(&self, admission: Admission, mut accepted: Option<Timestamp>) {
        if !self.journal.is_wanted() {
            return;
        }
        let mut backoff = Backoff::new();
        loop {
            match self.try_record(&admission, accepted).await {
                Ok(None) => return self.ledger_health.worked(),
                Ok(again) => {
                    accepted = again;
                    warn!(job = %admission.job, "the ledger lost a job that it had just admitted");
                }
                Err(error @ Error::Unavailable { .. }) => self.ledger_health.failed(&error),
                // What lies under the job's name is not ours any more.
                Err(error) => return warn!(job = %admission.job, %error, "job not journaled"),
            }
            backoff.wait().await;
        }
    }

    /// Gives anew when the job was accepted if the ledger has lost it, which is admitted again then: a ledger that was rebuilt from
    /// the journal before the job was in it has nobody else to tell it.
    async fn try_record(
        &self,
        admission: &Admission,
        accepted: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, Error> {
        let job = admission.job;
        if let Some(at) = accepted {
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
        let again = Admission { open: None, ..admission.clone() };
        let admitted = self.ledger.admit(&again).await?;
        Ok(if let Admitted::Accepted { at, .. } = admitted { Some(at) } else { None })
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
