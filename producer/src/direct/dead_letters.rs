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
    JobDocument, JobId, JobIdPrefix, Json, Timestamp,
};

use crate::{DeadLetterError, LetterSelection, is_id_of};

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

/// The dead letters of a broker.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    broker: Arc<dyn Broker>,
}

impl DeadLetters {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker }
    }

    pub(crate) async fn count(&self) -> Result<u64, DeadLetterError> {
        let depth = self.broker.depth(&Queue::Dead).await?;
        Ok(depth.unwrap_or_default().ready)
    }

    pub(crate) async fn list(&self, limit: usize) -> Result<DeadLetterPage, DeadLetterError> {
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

    pub(crate) async fn find(
        &self,
        wanted: &str,
    ) -> Result<Option<DeadLetterDetails>, DeadLetterError> {
        // No id is as short as a number.
        let number = wanted.parse::<u64>().ok().filter(|_| wanted.len() < JobIdPrefix::SHORTEST);
        let mut walk = Walk::begin(&self.broker).await?;
        let (mut place, mut found) = (0, None);
        while let Some(message) = walk.next().await? {
            place += 1;
            let letter = letter_of(&message);
            let is_wanted = match number {
                Some(number) => place == number,
                None => is_id_of(wanted, &letter),
            };
            if is_wanted {
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

    pub(crate) fn requeue(
        &self,
        selection: LetterSelection,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        let letters = self.clone();
        match selection {
            LetterSelection::All => letters.requeue_all().left_stream(),
            selected => letters.walk(selected, Errand::Requeue).right_stream(),
        }
    }

    pub(crate) fn purge(
        &self,
        selection: LetterSelection,
    ) -> impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static {
        self.clone().walk(selection, Errand::Purge)
    }

    pub(crate) async fn purge_all(&self) -> Result<u64, DeadLetterError> {
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
