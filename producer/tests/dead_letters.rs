//! Dead letters on the memory broker: reading, putting back, deleting; interruptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use longshore_broker::memory::MemoryBroker;
use longshore_broker::{
    Broker, Browser, Depth, Error, Link, Outgoing, PublishError, Queue, Subscription,
};
use longshore_producer::{DeadLetterAnswer, DeadLetters, LetterSelection};
use longshore_protocol::{DeadLetterOutcome as Outcome, ErrorKind, Timestamp};
use tokio::sync::watch;

const ID: &str = "0193a0c5-7e1c-7000-8000-000000000001";

fn letter(body: &str, message_id: &str, reason: &str) -> Outgoing {
    Outgoing {
        body: body.to_owned().into(),
        message_id: Some(message_id.to_owned()),
        headers: vec![("reason".into(), reason.into()), ("dead-at".into(), "1700".into())],
    }
}

async fn three(broker: &dyn Broker) {
    let with_id = format!(r#"{{"id": "{ID}", "task": 7}}"#);
    for letter in [
        letter(&with_id, ID, "task: 7; write a name"),
        letter("{\"task\":", "17", "document: ends too early"),
        letter("\u{0}\u{1}", "0193a0c5-7e1c-7000-8000-000000000002", "document: no JSON"),
    ] {
        broker.publish(&Queue::Dead, letter).await.expect("there is room");
    }
}

async fn ready(broker: &dyn Broker, queue: &Queue) -> u64 {
    broker.depth(queue).await.expect("a depth").unwrap_or_default().ready
}

async fn requeue(letters: &DeadLetters, selection: LetterSelection) -> Vec<DeadLetterAnswer> {
    letters.requeue(selection).try_collect().await.expect("memory does not fail")
}

#[tokio::test]
async fn letters_are_shown_and_stay() {
    let broker = Arc::new(MemoryBroker::new());
    let letters = DeadLetters::new(broker.clone());
    assert_eq!(letters.list(9).await.expect("a list").total, 0, "no queue yet");
    three(&*broker).await;
    let page = letters.list(2).await.expect("a list");
    assert_eq!((page.total, page.letters.len()), (3, 2));
    let first = &page.letters[0];
    assert_eq!((first.id.as_str(), first.bytes), (ID, 57));
    assert_eq!(first.reason.as_deref(), Some("task: 7; write a name"));
    assert_eq!(first.dead_at, Some(Timestamp::from_millis(1_700)));
    assert_eq!((page.letters[1].id.as_str(), page.letters[1].job), ("17", None));

    let second = letters.find("2").await.expect("read").expect("there is one");
    assert!(second.document.is_none(), "{second:?}");
    assert_eq!(second.text.as_deref(), Some("{\"task\":"));
    let found = letters.find(ID).await.expect("read").expect("it is");
    assert_eq!(
        found.document.expect("it is JSON").get(),
        format!(r#"{{"id": "{ID}", "task": 7}}"#)
    );
    assert!(letters.find("4").await.expect("read").is_none());
    assert_eq!(ready(&*broker, &Queue::Dead).await, 3);
}

#[tokio::test]
async fn selected_letters_are_put_back_or_deleted_and_the_others_stay() {
    let broker = Arc::new(MemoryBroker::new());
    let letters = DeadLetters::new(broker.clone());
    three(&*broker).await;
    let ids =
        LetterSelection::Ids(vec!["17".into(), "0193a0c5-7e1c-7000-8000-000000000002".into()]);
    let requeued = requeue(&letters, ids).await;
    assert_eq!(requeued.len(), 2);
    assert!(requeued.iter().all(|answer| answer.outcome == Outcome::Requeued), "{requeued:?}");
    assert_eq!(ready(&*broker, &Queue::Dead).await, 1);
    let mut jobs = broker.subscribe(&Queue::Jobs, 9).await;
    let delivery = jobs.next().await.expect("it is open");
    assert_eq!(
        (&delivery.body[..], delivery.message_id.as_deref()),
        (&b"{\"task\":"[..], Some("17"))
    );
    assert_eq!(delivery.headers, [], "the reason is not part of the document");

    let purge = letters.purge(LetterSelection::Ids(vec![ID[..13].into()]));
    let purged: Vec<DeadLetterAnswer> = purge.try_collect().await.expect("memory does not fail");
    assert_eq!((purged.len(), purged[0].letter.id.as_str()), (1, ID), "by the beginning of its id");
    assert_eq!(letters.count().await.expect("a count"), 0);
    three(&*broker).await;
    assert_eq!(letters.purge_all().await.expect("purged"), 3);
    assert_eq!(letters.count().await.expect("a count"), 0);
}

#[tokio::test]
async fn a_letter_that_is_refused_again_is_not_put_back_for_ever() {
    let broker = Arc::new(MemoryBroker::new());
    three(&*broker).await;
    let scheduler = broker.clone();
    tokio::spawn(async move {
        let mut jobs = scheduler.subscribe(&Queue::Jobs, 1).await;
        while let Some(delivery) = jobs.next().await {
            let body = String::from_utf8_lossy(&delivery.body).into_owned();
            let id = delivery.message_id.clone().expect("it has one");
            let refused = letter(&body, &id, "refused again");
            scheduler.publish(&Queue::Dead, refused).await.expect("there is room");
            delivery.settle.ack().await;
        }
    });
    let letters = DeadLetters::new(broker.clone());
    assert_eq!(requeue(&letters, LetterSelection::All).await.len(), 3);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while ready(&*broker, &Queue::Dead).await < 3 {
        assert!(tokio::time::Instant::now() < deadline, "the letters did not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = letters.list(9).await.expect("a list").letters;
    assert!(again.iter().all(|it| it.reason.as_deref() == Some("refused again")), "{again:?}");
}

#[tokio::test]
async fn a_letter_outlives_any_number_of_looks() {
    let broker = Arc::new(MemoryBroker::new());
    let letters = DeadLetters::new(broker.clone());
    three(&*broker).await;
    for _ in 0..30 {
        let page = letters.list(9).await.expect("a list");
        assert_eq!((page.total, page.letters.len()), (3, 3));
        assert!(page.letters.iter().all(|letter| letter.dead_at.is_some()), "{page:?}");
    }
    let mut browser = broker.browse(&Queue::Dead).await.expect("it can be browsed");
    while let Some(message) = browser.next().await.expect("it can be browsed") {
        // RabbitMQ 4 drops a message that came back 20 times.
        assert!(message.returns < 20, "{message:?}");
    }
}

/// A broker whose confirms of job documents are lost.
struct WithoutConfirms {
    inner: Arc<MemoryBroker>,
    is_broken: AtomicBool,
}

#[async_trait]
impl Broker for WithoutConfirms {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        self.inner.publish(queue, message).await?;
        if *queue == Queue::Jobs && self.is_broken.load(Ordering::Relaxed) {
            let reason = "no confirm".to_owned();
            return Err(PublishError::Unknown { kind: ErrorKind::Timeout, reason });
        }
        Ok(())
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        self.inner.subscribe(queue, prefetch).await
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        self.inner.depth(queue).await
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error> {
        self.inner.browse(queue).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        self.inner.purge(queue).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.inner.link()
    }

    async fn close(&self, grace: Duration) {
        self.inner.close(grace).await;
    }
}

#[tokio::test]
async fn a_letter_stays_until_its_document_is_known_to_be_back() {
    let inner = Arc::new(MemoryBroker::new());
    let broker = Arc::new(WithoutConfirms { inner, is_broken: AtomicBool::new(true) });
    let letters = DeadLetters::new(broker.clone());
    three(&*broker).await;
    let failed = requeue(&letters, LetterSelection::All).await;
    assert!(failed.iter().all(|answer| answer.outcome == Outcome::Failed), "{failed:?}");
    assert!(failed[0].error.as_deref().is_some_and(|error| error.ends_with("no confirm")));
    assert_eq!(ready(&*broker, &Queue::Dead).await, 3, "nothing is lost");

    broker.is_broken.store(false, Ordering::Relaxed);
    let interrupted = letters.requeue(LetterSelection::All);
    {
        pin_mut!(interrupted);
        assert!(interrupted.next().await.is_some_and(|answer| answer.is_ok()));
    }
    assert!(ready(&*broker, &Queue::Dead).await >= 2, "the others stay");
    requeue(&letters, LetterSelection::All).await;
    assert_eq!(ready(&*broker, &Queue::Dead).await, 0);
    // However often a document was published: it has one id, and is one job.
    let mut jobs = broker.subscribe(&Queue::Jobs, 99).await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..6 {
        ids.insert(jobs.next().await.expect("it is open").message_id);
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
}
