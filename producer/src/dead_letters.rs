//! The dead-letter queue: job documents that no scheduler accepted, with the reasons.
//!
//! ```text
//! browse ──▶ letter ──▶ publish to the jobs queue ──▶ confirmed? ──▶ remove from the dead letters
//! ```
//!
//! A letter is removed only after RabbitMQ has confirmed that it keeps the document. An
//! interruption in between leaves the document in both queues, which does no harm: it is published
//! with the `message_id` of the letter, so that both are the same job.
//!
//! All letters are taken from a subscription, which is fast; selected ones from a browser, which
//! looks at one letter after the other and puts back the rest.
//!
//! Deliberately absent: judging documents, which schedulers do again when they get them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt, try_unfold, unfold};
use longshore_broker::{
    Broker, Browsed, Browser, Delivery, Outgoing, PublishError, Queue, Settle, Subscription,
};
use longshore_protocol::{
    DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterOutcome as Outcome, DeadLetterPage,
    ErrorKind, JobDocument, JobId, JobIdPrefix, Json, Timestamp,
};

/// How many documents are published at a time.
const PUBLISHING: usize = 64;

/// A letter that came back to its queue this often is copied to the end of the queue and removed,
/// instead of being put back once more: RabbitMQ 4 drops a message that came back 20 times.
const MOST_RETURNS: u64 = 10;

/// How many letters a subscription fetches ahead.
const PREFETCH: u16 = 256;

/// The time without a letter after which a subscription has brought all: other programs may have
/// taken some of those that were there.
const SILENCE: Duration = Duration::from_secs(2);

/// Why dead letters could not be read, put back or deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// RabbitMQ can't be used.
    #[error(transparent)]
    Broker(#[from] longshore_broker::Error),
    /// A letter was looked at too often to be put back, and could not be copied.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl DeadLetterError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) => error.kind(),
            Self::Publish(error) => error.kind(),
        }
    }
}

/// Which letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterSelection {
    /// All that are in the queue when the work begins.
    All,
    /// Those with one of these ids: the job's id, the beginning of it, or the `message_id`.
    Ids(Vec<String>),
}

impl LetterSelection {
    fn selects(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.iter().any(|id| is_id_of(id, letter)),
        }
    }
}

/// Whether a text that a person wrote is an id of the letter.
pub fn is_id_of(text: &str, letter: &DeadLetter) -> bool {
    let is_prefix = |job: JobId| text.parse::<JobIdPrefix>().is_ok_and(|prefix| prefix.is_of(job));
    letter.message_id.as_deref() == Some(text) || letter.job.is_some_and(is_prefix)
}

/// Reads the dead letters, puts their documents back or deletes them. Needs the broker alone. Other
/// programs may do the same at the same time: no letter is shown to two of them at once.
///
/// ```no_run
/// # async fn example(client: longshore_producer::Client) -> Result<(), Box<dyn std::error::Error>> {
/// for letter in client.dead_letters().list(50).await?.letters {
///     println!("{}: {}", letter.id, letter.reason.unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    broker: Arc<dyn Broker>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// The dead letters of this broker.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker }
    }

    /// The number of letters that wait.
    pub async fn count(&self) -> Result<u64, DeadLetterError> {
        let depth = self.broker.depth(&Queue::Dead).await?;
        Ok(depth.unwrap_or_default().ready)
    }

    /// The oldest letters, at most `limit`, and how many there are. The letters stay in the queue.
    pub async fn list(&self, limit: usize) -> Result<DeadLetterPage, DeadLetterError> {
        let mut walk = Walk::begin(&self.broker).await?;
        let (total, mut letters) = (walk.left, Vec::new());
        while letters.len() < limit {
            let Some(message) = walk.next().await? else { break };
            letters.push(letter_of(&message));
            walk.put_back(&message).await?;
        }
        walk.finish().await?;
        Ok(DeadLetterPage { total: total.max(letters.len() as u64), letters })
    }

    /// The first letter that `is_wanted` accepts, with its document; it is given each letter, and
    /// its place in the queue, from 1. The letters stay in the queue.
    pub async fn find(
        &self,
        mut is_wanted: impl FnMut(u64, &DeadLetter) -> bool + Send,
    ) -> Result<Option<DeadLetterDetails>, DeadLetterError> {
        let mut walk = Walk::begin(&self.broker).await?;
        let (mut place, mut found) = (0, None);
        while let Some(message) = walk.next().await? {
            place += 1;
            let letter = letter_of(&message);
            if is_wanted(place, &letter) {
                found = Some(details(letter, &message));
            }
            walk.put_back(&message).await?;
            if found.is_some() {
                break;
            }
        }
        walk.finish().await?;
        Ok(found)
    }

    /// Puts the documents of these letters back into the queue of job documents, where schedulers
    /// judge them again, and gives an answer a letter. A document that is refused again becomes a
    /// dead letter again; such letters are not put back a second time by the same call.
    ///
    /// The work goes on while the stream is read. Dropping it loses nothing.
    pub fn requeue(
        &self,
        selection: LetterSelection,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        let letters = self.clone();
        match selection {
            LetterSelection::All => letters.requeue_all().left_stream(),
            selected => letters.walk(selected, Errand::Requeue).right_stream(),
        }
    }

    /// Deletes these letters, and gives an answer a letter.
    pub fn purge(
        &self,
        selection: LetterSelection,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        self.clone().walk(selection, Errand::Purge)
    }

    /// Deletes all letters that wait, in one call; gives how many there were.
    pub async fn purge_all(&self) -> Result<u64, DeadLetterError> {
        let count = self.count().await?;
        self.broker.purge(&Queue::Dead).await?;
        Ok(count)
    }

    fn requeue_all(
        self,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        let begin = async move {
            let left = self.count().await?;
            let letters = self.broker.subscribe(&Queue::Dead, PREFETCH).await;
            let publishing = FuturesUnordered::new();
            Ok(RequeueAll { broker: self.broker, letters, left, publishing })
        };
        futures_util::stream::once(begin).flat_map(|work| match work {
            Ok(work) => unfold(work, |mut work| async move {
                let answer = work.next().await?;
                Some((Ok(answer), work))
            })
            .left_stream(),
            Err(error) => futures_util::stream::iter([Err(error)]).right_stream(),
        })
    }

    fn walk(
        self,
        selection: LetterSelection,
        errand: Errand,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        let begin = async move {
            let walk = Walk::begin(&self.broker).await?;
            let publishing = FuturesUnordered::new();
            Ok(Work { broker: self.broker, walk: Some(walk), selection, errand, publishing })
        };
        futures_util::stream::once(begin).flat_map(|work| match work {
            Ok(work) => try_unfold(work, |mut work| async move {
                Ok(work.next().await?.map(|answer| (answer, work)))
            })
            .left_stream(),
            Err(error) => futures_util::stream::iter([Err(error)]).right_stream(),
        })
    }
}

/// A walk through the queue, over as many letters as were there at its beginning.
struct Walk {
    broker: Arc<dyn Broker>,
    browser: Box<dyn Browser>,
    /// The number of letters that may still be looked at. More have come later, or again.
    left: u64,
}

impl Walk {
    async fn begin(broker: &Arc<dyn Broker>) -> Result<Self, DeadLetterError> {
        let left = broker.depth(&Queue::Dead).await?.unwrap_or_default().ready;
        let browser = broker.browse(&Queue::Dead).await?;
        Ok(Self { broker: Arc::clone(broker), browser, left })
    }

    async fn next(&mut self) -> Result<Option<Browsed>, DeadLetterError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Ok(self.browser.next().await?)
    }

    /// Leaves a letter in the queue; one that was put back too often as a copy.
    async fn put_back(&mut self, message: &Browsed) -> Result<(), DeadLetterError> {
        if message.returns < MOST_RETURNS {
            return Ok(());
        }
        let copy = Outgoing { headers: message.headers.clone(), ..document_of(message) };
        self.broker.publish(&Queue::Dead, copy).await?;
        Ok(self.browser.remove(message.tag).await?)
    }

    async fn finish(self) -> Result<(), DeadLetterError> {
        Ok(self.browser.finish().await?)
    }
}

/// What is done with the letters.
#[derive(Clone, Copy)]
enum Errand {
    Requeue,
    Purge,
}

/// A letter whose document was published, and the outcome.
type Published = (u64, DeadLetter, Result<(), PublishError>);

/// The work on selected letters.
struct Work {
    broker: Arc<dyn Broker>,
    /// `None` once all letters were looked at and their walk is finished.
    walk: Option<Walk>,
    selection: LetterSelection,
    errand: Errand,
    publishing: FuturesUnordered<BoxFuture<'static, Published>>,
}

impl Work {
    /// The answer about the next letter.
    async fn next(&mut self) -> Result<Option<DeadLetterAnswer>, DeadLetterError> {
        loop {
            let Some(walk) = &mut self.walk else { return Ok(None) };
            let is_full = self.publishing.len() >= PUBLISHING;
            let message = if is_full { None } else { walk.next().await? };
            if let Some(message) = message {
                let letter = letter_of(&message);
                if !self.selection.selects(&letter) {
                    walk.put_back(&message).await?;
                    continue;
                }
                match self.errand {
                    Errand::Purge => {
                        walk.browser.remove(message.tag).await?;
                        return Ok(Some(DeadLetterAnswer {
                            letter,
                            outcome: Outcome::Purged,
                            error: None,
                        }));
                    }
                    Errand::Requeue => self.publish(message, letter),
                }
                continue;
            }
            let Some((tag, letter, published)) = self.publishing.next().await else {
                if let Some(walk) = self.walk.take() {
                    walk.finish().await?;
                }
                return Ok(None);
            };
            let (outcome, error) = match published {
                Ok(()) => (Outcome::Requeued, None),
                Err(error) => (Outcome::Failed, Some(error.to_string())),
            };
            if error.is_none() {
                walk.browser.remove(tag).await?;
            }
            return Ok(Some(DeadLetterAnswer { letter, outcome, error }));
        }
    }

    fn publish(&mut self, message: Browsed, letter: DeadLetter) {
        let broker = Arc::clone(&self.broker);
        let published = async move {
            let document = document_of(&message);
            (message.tag, letter, broker.publish(&Queue::Jobs, document).await)
        };
        self.publishing.push(published.boxed());
    }
}

/// A letter that is settled once its document was published, and the outcome.
type Settling = (Box<dyn Settle>, DeadLetter, Result<(), PublishError>);

/// The work on all letters.
struct RequeueAll {
    broker: Arc<dyn Broker>,
    letters: Box<dyn Subscription>,
    /// The number of letters that may still be taken. More have come later, or again.
    left: u64,
    publishing: FuturesUnordered<BoxFuture<'static, Settling>>,
}

impl RequeueAll {
    /// The answer about the next letter whose publish has ended.
    async fn next(&mut self) -> Option<DeadLetterAnswer> {
        loop {
            let may_take = self.left > 0 && self.publishing.len() < PUBLISHING;
            let settling = tokio::select! {
                Some(settling) = self.publishing.next() => settling,
                taken = tokio::time::timeout(SILENCE, self.letters.next()), if may_take => {
                    match taken {
                        Ok(Some(delivery)) => self.publish(delivery),
                        // None is left, or the broker was closed.
                        Ok(None) | Err(_) => self.left = 0,
                    }
                    continue;
                }
                else => return None,
            };
            let (settle, letter, published) = settling;
            return Some(match published {
                Ok(()) => {
                    settle.ack().await;
                    DeadLetterAnswer { letter, outcome: Outcome::Requeued, error: None }
                }
                Err(error) => {
                    settle.requeue().await;
                    let error = Some(error.to_string());
                    DeadLetterAnswer { letter, outcome: Outcome::Failed, error }
                }
            });
        }
    }

    fn publish(&mut self, delivery: Delivery) {
        self.left -= 1;
        let Delivery { body, message_id, headers, settle, .. } = delivery;
        let message = Browsed { tag: 0, body, message_id, headers, returns: 0 };
        let letter = letter_of(&message);
        let broker = Arc::clone(&self.broker);
        let published = async move {
            let published = broker.publish(&Queue::Jobs, document_of(&message)).await;
            (settle, letter, published)
        };
        self.publishing.push(published.boxed());
    }
}

/// The document as it was published at first. Its `message_id` decides the job's id where the
/// document has none.
fn document_of(message: &Browsed) -> Outgoing {
    Outgoing {
        body: message.body.clone(),
        message_id: message.message_id.clone(),
        headers: Vec::new(),
    }
}

fn letter_of(message: &Browsed) -> DeadLetter {
    let header = |name: &str| {
        let found = message.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    };
    let text = message.message_id.as_deref();
    let job = header("id").and_then(|id| id.parse().ok());
    let job = job.or_else(|| JobDocument::peek_id(&message.body));
    let job = job.or_else(|| text?.parse().ok()).filter(|job| *job != JobId::NIL);
    let id = job.map(|job: JobId| job.to_string()).or_else(|| text.map(str::to_owned));
    DeadLetter {
        id: id.unwrap_or_default(),
        job,
        message_id: message.message_id.clone(),
        reason: header("reason").map(str::to_owned),
        dead_at: header("dead-at").and_then(|at| at.parse().ok()).map(Timestamp::from_millis),
        bytes: message.body.len() as u64,
    }
}

fn details(letter: DeadLetter, message: &Browsed) -> DeadLetterDetails {
    let text = String::from_utf8_lossy(&message.body);
    let document = match &text {
        std::borrow::Cow::Borrowed(text) => Json::verbatim(text).ok(),
        std::borrow::Cow::Owned(_) => None,
    };
    let text = document.is_none().then(|| text.into_owned());
    DeadLetterDetails { letter, document, text }
}
