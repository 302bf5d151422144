//! The tests that every implementation of [`Broker`] passes; those of the journal are in `journal`.
//!
//! The test of an implementation runs all [`CASES`], each with a broker of its own that has empty
//! queues and keeps a journal.
//!
//! Deliberately absent: broken connections and restarts, which are tested where they can be caused.

mod browsing;
mod journal;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use longshore_protocol::NodeId;
use tokio::time::{Instant, sleep, timeout};

use self::browsing::{
    a_message_that_is_browsed_is_whole_and_hidden_from_consumers,
    browsing_shows_each_message_and_removes_only_what_is_named,
};
use self::journal::{
    a_journal_is_read_in_order_by_everyone, a_journal_is_read_on_from_a_place,
    a_place_in_another_journal_is_reported, a_reader_waits_for_new_records,
    close_ends_readers_of_the_journal,
};
use crate::{Broker, Delivery, Depth, Outgoing, PublishError, Queue, Subscription};

/// The longest wait for something that is expected. A local broker needs milliseconds, a busy
/// machine much more.
const DEADLINE: Duration = Duration::from_secs(20);
/// The wait after which a case concludes that nothing will arrive.
const QUIET: Duration = Duration::from_millis(300);
/// The wait between two checks of a condition.
const BETWEEN_CHECKS: Duration = Duration::from_millis(20);

/// A case: its name as a sentence, and its test, which panics when the broker fails it.
pub type Case = (&'static str, fn(Arc<dyn Broker>) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($name), |broker| Box::pin($name(broker)))),*];
    };
}

cases![
    messages_come_in_the_order_in_which_they_were_published,
    a_message_arrives_as_it_was_sent,
    a_message_of_a_mebibyte_arrives_whole,
    an_empty_message_arrives,
    no_more_than_the_prefetch_is_out_at_a_time,
    settled_messages_do_not_come_again,
    acknowledgements_in_any_order_are_for_their_own_messages_alone,
    a_requeued_message_comes_again,
    a_requeued_message_is_not_lost_among_others,
    unsettled_messages_come_again_when_the_subscription_is_dropped,
    fetched_messages_are_requeued_when_the_subscription_is_dropped,
    a_message_can_be_acknowledged_after_its_subscription_was_dropped,
    a_message_that_outlives_its_subscription_unsettled_comes_again,
    two_consumers_share_a_queue,
    a_node_queue_is_deleted_with_its_consumer,
    a_publish_does_not_create_a_node_queue,
    depth_counts_waiting_messages,
    purge_empties_a_queue,
    two_thousand_publishes_at_once_all_arrive,
    a_subscription_may_come_before_the_first_message,
    jobs_and_dead_letters_are_queues_like_others,
    browsing_shows_each_message_and_removes_only_what_is_named,
    a_message_that_is_browsed_is_whole_and_hidden_from_consumers,
    close_ends_subscriptions,
    a_journal_is_read_in_order_by_everyone,
    a_journal_is_read_on_from_a_place,
    a_reader_waits_for_new_records,
    a_place_in_another_journal_is_reported,
    close_ends_readers_of_the_journal,
];

fn work() -> Queue {
    Queue::Work("pool".to_owned())
}

fn text(body: &(impl ToString + ?Sized)) -> Outgoing {
    Outgoing { body: Bytes::from(body.to_string()), ..Outgoing::default() }
}

async fn publish_numbers(broker: &dyn Broker, queue: &Queue, count: usize) {
    for number in 0..count {
        broker.publish(queue, text(&number)).await.expect("confirmed");
    }
}

async fn next(subscription: &mut dyn Subscription) -> Delivery {
    let delivery = timeout(DEADLINE, subscription.next()).await;
    delivery.expect("no message came in time").expect("the subscription ended")
}

async fn expect(subscription: &mut dyn Subscription, body: impl ToString) -> Delivery {
    let delivery = next(subscription).await;
    assert_eq!(String::from_utf8_lossy(&delivery.body), body.to_string());
    delivery
}

async fn expect_nothing(subscription: &mut dyn Subscription) {
    if let Ok(delivery) = timeout(QUIET, subscription.next()).await {
        panic!("nothing should have come, but {delivery:?} did");
    }
}

async fn until_depth(broker: &dyn Broker, queue: &Queue, expected: Depth) {
    until(broker, queue, &format!("{expected:?}"), |depth| depth == expected).await;
}

async fn until_ready(broker: &dyn Broker, queue: &Queue, ready: u64) {
    until(broker, queue, &format!("{ready} ready"), |depth| depth.ready == ready).await;
}

async fn until(broker: &dyn Broker, queue: &Queue, what: &str, holds: impl Fn(Depth) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let depth = broker.depth(queue).await.expect("the depth can be asked for");
        if depth.is_some_and(&holds) {
            return;
        }
        assert!(Instant::now() < deadline, "{queue:?}: waited for {what}, found {depth:?}");
        sleep(BETWEEN_CHECKS).await;
    }
}

/// Publishes to a queue until it exists: a subscription comes back before its queue is declared.
async fn publish_once_it_exists(broker: &dyn Broker, queue: &Queue, body: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match broker.publish(queue, text(&body)).await {
            Ok(()) => return,
            Err(PublishError::Unroutable(_)) if Instant::now() < deadline => {
                sleep(BETWEEN_CHECKS).await;
            }
            Err(error) => panic!("{queue:?}: {error}"),
        }
    }
}

async fn messages_come_in_the_order_in_which_they_were_published(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 100).await;
    let mut subscription = broker.subscribe(&work(), 10).await;
    for number in 0..100 {
        let delivery = expect(&mut *subscription, number).await;
        assert!(!delivery.redelivered);
        delivery.settle.ack().await;
    }
    expect_nothing(&mut *subscription).await;
}

async fn a_message_arrives_as_it_was_sent(broker: Arc<dyn Broker>) {
    let headers = vec![
        ("reason".to_owned(), "split.by: unknown kind `ranges`, 不明".to_owned()),
        ("tenant".to_owned(), String::new()),
    ];
    let message = Outgoing {
        body: Bytes::from_static(b"\0\xff{}"),
        message_id: Some("job/7".to_owned()),
        headers: headers.clone(),
    };
    broker.publish(&work(), message).await.expect("confirmed");
    broker.publish(&work(), text("unnamed")).await.expect("confirmed");
    let mut subscription = broker.subscribe(&work(), 10).await;
    let named = next(&mut *subscription).await;
    assert_eq!(named.body, Bytes::from_static(b"\0\xff{}"));
    assert_eq!(named.message_id.as_deref(), Some("job/7"));
    let mut arrived = named.headers.clone();
    arrived.sort();
    assert_eq!(arrived, headers);
    let unnamed = next(&mut *subscription).await;
    assert!(unnamed.message_id.is_some_and(|id| !id.is_empty()), "an id is drawn at random");
    assert_eq!(unnamed.headers, []);
}

async fn a_message_of_a_mebibyte_arrives_whole(broker: Arc<dyn Broker>) {
    let body: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[i as usize % 3]).collect();
    let body = Bytes::from(body);
    let message = Outgoing { body: body.clone(), ..Outgoing::default() };
    broker.publish(&work(), message).await.expect("confirmed");
    let mut subscription = broker.subscribe(&work(), 1).await;
    let delivery = next(&mut *subscription).await;
    assert!(delivery.body == body, "{} bytes arrived, or others", delivery.body.len());
    delivery.settle.ack().await;
}

async fn an_empty_message_arrives(broker: Arc<dyn Broker>) {
    broker.publish(&work(), Outgoing::default()).await.expect("confirmed");
    let mut subscription = broker.subscribe(&work(), 1).await;
    expect(&mut *subscription, "").await.settle.ack().await;
}

async fn no_more_than_the_prefetch_is_out_at_a_time(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 5).await;
    let mut subscription = broker.subscribe(&work(), 2).await;
    let first = expect(&mut *subscription, 0).await;
    let second = expect(&mut *subscription, 1).await;
    expect_nothing(&mut *subscription).await;
    first.settle.ack().await;
    let third = expect(&mut *subscription, 2).await;
    expect_nothing(&mut *subscription).await;
    // A message that is dropped without being settled stays unacknowledged, and takes up prefetch.
    drop((second, third));
    expect_nothing(&mut *subscription).await;
}

async fn settled_messages_do_not_come_again(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 3).await;
    let mut subscription = broker.subscribe(&work(), 3).await;
    for number in 0..3 {
        expect(&mut *subscription, number).await.settle.ack().await;
    }
    drop(subscription);
    until_depth(&*broker, &work(), Depth { ready: 0, consumers: 0 }).await;
    let mut subscription = broker.subscribe(&work(), 3).await;
    expect_nothing(&mut *subscription).await;
}

async fn acknowledgements_in_any_order_are_for_their_own_messages_alone(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 200).await;
    let mut subscription = broker.subscribe(&work(), 100).await;
    let mut deliveries = Vec::new();
    for number in 0..100 {
        deliveries.push((number, expect(&mut *subscription, number).await));
    }
    // 37 and 100 are coprime, so this order visits each number once, far from its neighbours.
    deliveries.sort_by_key(|(number, _)| number * 37 % 100);
    let (mut held, settled): (Vec<_>, Vec<_>) =
        deliveries.into_iter().partition(|(number, _)| number % 7 == 3);
    let settled = join_all(settled.into_iter().map(|(_, delivery)| delivery.settle.ack())).await;
    // Each of these arrives because one was acknowledged. A quorum queue of RabbitMQ may lose
    // acknowledgements that it has not processed when their channel closes.
    for number in (100..).take(settled.len()) {
        held.push((number, expect(&mut *subscription, number).await));
    }
    let mut unsettled: Vec<usize> = held.iter().map(|(number, _)| *number).collect();
    unsettled.extend(100 + settled.len()..200);
    unsettled.sort_unstable();
    drop((held, subscription));
    let mut subscription = broker.subscribe(&work(), 200).await;
    let mut again: Vec<usize> = Vec::new();
    for _ in &unsettled {
        let delivery = next(&mut *subscription).await;
        again.push(String::from_utf8_lossy(&delivery.body).parse().expect("a number"));
        delivery.settle.ack().await;
    }
    again.sort_unstable();
    assert_eq!(again, unsettled);
    expect_nothing(&mut *subscription).await;
}

async fn a_requeued_message_comes_again(broker: Arc<dyn Broker>) {
    broker.publish(&work(), text("again")).await.expect("confirmed");
    let mut subscription = broker.subscribe(&work(), 1).await;
    let first = expect(&mut *subscription, "again").await;
    assert!(!first.redelivered);
    first.settle.requeue().await;
    let second = expect(&mut *subscription, "again").await;
    assert!(second.redelivered);
    second.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}

/// The position of a requeued message is unspecified: a classic queue restores it, a quorum queue
/// of RabbitMQ 3.10 without a delivery limit appends the message.
async fn a_requeued_message_is_not_lost_among_others(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 3).await;
    let mut subscription = broker.subscribe(&work(), 1).await;
    expect(&mut *subscription, 0).await.settle.requeue().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut *subscription).await;
        assert_eq!(delivery.redelivered, delivery.body == "0");
        seen.push(delivery.body.clone());
        delivery.settle.ack().await;
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2"].map(Bytes::from));
    expect_nothing(&mut *subscription).await;
}

async fn unsettled_messages_come_again_when_the_subscription_is_dropped(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 3).await;
    let mut subscription = broker.subscribe(&work(), 3).await;
    let dropped = expect(&mut *subscription, 0).await;
    expect(&mut *subscription, 1).await.settle.ack().await;
    drop(dropped);
    expect(&mut *subscription, 2).await.settle.ack().await;
    expect_nothing(&mut *subscription).await;
    drop(subscription);
    let mut subscription = broker.subscribe(&work(), 3).await;
    let again = expect(&mut *subscription, 0).await;
    assert!(again.redelivered);
    again.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}

async fn fetched_messages_are_requeued_when_the_subscription_is_dropped(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 20).await;
    let mut first = broker.subscribe(&work(), 20).await;
    let held = expect(&mut *first, 0).await;
    until_depth(&*broker, &work(), Depth { ready: 0, consumers: 1 }).await;
    drop(first);
    until_ready(&*broker, &work(), 19).await;
    let mut subscription = broker.subscribe(&work(), 20).await;
    for number in 1..20 {
        expect(&mut *subscription, number).await.settle.ack().await;
    }
    held.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}

async fn a_message_can_be_acknowledged_after_its_subscription_was_dropped(broker: Arc<dyn Broker>) {
    let (delivery, mut subscription) = outlive_the_subscription(&*broker).await;
    delivery.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}

async fn a_message_that_outlives_its_subscription_unsettled_comes_again(broker: Arc<dyn Broker>) {
    let (delivery, mut subscription) = outlive_the_subscription(&*broker).await;
    drop(delivery);
    let again = expect(&mut *subscription, "held").await;
    assert!(again.redelivered);
    again.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}

/// A delivery whose subscription was dropped, and another subscription that does not receive it
/// while it is held.
async fn outlive_the_subscription(broker: &dyn Broker) -> (Delivery, Box<dyn Subscription>) {
    broker.publish(&work(), text("held")).await.expect("confirmed");
    let mut subscription = broker.subscribe(&work(), 1).await;
    let delivery = expect(&mut *subscription, "held").await;
    drop(subscription);
    let mut subscription = broker.subscribe(&work(), 1).await;
    broker.publish(&work(), text("marker")).await.expect("confirmed");
    expect(&mut *subscription, "marker").await.settle.ack().await;
    expect_nothing(&mut *subscription).await;
    (delivery, subscription)
}

async fn two_consumers_share_a_queue(broker: Arc<dyn Broker>) {
    let mut left = broker.subscribe(&work(), 1).await;
    let mut right = broker.subscribe(&work(), 1).await;
    until_depth(&*broker, &work(), Depth { ready: 0, consumers: 2 }).await;
    publish_numbers(&*broker, &work(), 2).await;
    let (one, other) = (next(&mut *left).await, next(&mut *right).await);
    let mut bodies = [one.body.clone(), other.body.clone()];
    bodies.sort();
    assert_eq!(bodies, ["0", "1"].map(Bytes::from));
    one.settle.ack().await;
    other.settle.ack().await;
}

async fn a_node_queue_is_deleted_with_its_consumer(broker: Arc<dyn Broker>) {
    let queue = Queue::Node(NodeId::new("quay-1"));
    let mut subscription = broker.subscribe(&queue, 1).await;
    publish_once_it_exists(&*broker, &queue, "here").await;
    expect(&mut *subscription, "here").await.settle.ack().await;
    drop(subscription);
    let deadline = Instant::now() + DEADLINE;
    loop {
        match broker.publish(&queue, text("gone")).await {
            Err(PublishError::Unroutable(back)) => {
                assert_eq!(back, queue);
                break;
            }
            Ok(()) => assert!(Instant::now() < deadline, "the queue outlived its consumer"),
            Err(error) => panic!("{error}"),
        }
        sleep(BETWEEN_CHECKS).await;
    }
    assert_eq!(broker.depth(&queue).await.expect("the depth can be asked for"), None);
    let mut subscription = broker.subscribe(&queue, 1).await;
    publish_once_it_exists(&*broker, &queue, "back").await;
    expect(&mut *subscription, "back").await.settle.ack().await;
}

async fn a_publish_does_not_create_a_node_queue(broker: Arc<dyn Broker>) {
    let queue = Queue::Node(NodeId::new("nobody"));
    let sent = join_all((0..50).map(|number| {
        let broker = broker.clone();
        let queue = if number % 2 == 0 { queue.clone() } else { work() };
        async move { (number, broker.publish(&queue, text(&number)).await) }
    }));
    // Each answer belongs to its own message, also while others are in flight.
    for (number, outcome) in sent.await {
        match outcome {
            Err(PublishError::Unroutable(back)) if number % 2 == 0 => assert_eq!(back, queue),
            Ok(()) if number % 2 == 1 => {}
            other => panic!("message {number}: {other:?}"),
        }
    }
}

async fn depth_counts_waiting_messages(broker: Arc<dyn Broker>) {
    assert_eq!(broker.depth(&work()).await.expect("the depth can be asked for"), None);
    publish_numbers(&*broker, &work(), 5).await;
    until_depth(&*broker, &work(), Depth { ready: 5, consumers: 0 }).await;
    let mut subscription = broker.subscribe(&work(), 2).await;
    let held = expect(&mut *subscription, 0).await;
    until_depth(&*broker, &work(), Depth { ready: 3, consumers: 1 }).await;
    held.settle.ack().await;
    until_depth(&*broker, &work(), Depth { ready: 2, consumers: 1 }).await;
}

async fn purge_empties_a_queue(broker: Arc<dyn Broker>) {
    broker.purge(&work()).await.expect("a queue that does not exist is empty");
    publish_numbers(&*broker, &work(), 5).await;
    until_depth(&*broker, &work(), Depth { ready: 5, consumers: 0 }).await;
    broker.purge(&work()).await.expect("purged");
    until_depth(&*broker, &work(), Depth { ready: 0, consumers: 0 }).await;
    let mut subscription = broker.subscribe(&work(), 2).await;
    expect_nothing(&mut *subscription).await;
}

async fn two_thousand_publishes_at_once_all_arrive(broker: Arc<dyn Broker>) {
    const COUNT: usize = 2_000;
    let publishes = (0..COUNT).map(|number| {
        let broker = broker.clone();
        tokio::spawn(async move { broker.publish(&work(), text(&number)).await })
    });
    for outcome in join_all(publishes).await {
        outcome.expect("no panic").expect("confirmed");
    }
    let mut subscription = broker.subscribe(&work(), 100).await;
    let mut seen = vec![false; COUNT];
    for _ in 0..COUNT {
        let delivery = next(&mut *subscription).await;
        let number: usize = String::from_utf8_lossy(&delivery.body).parse().expect("a number");
        assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
        delivery.settle.ack().await;
    }
    expect_nothing(&mut *subscription).await;
}

async fn a_subscription_may_come_before_the_first_message(broker: Arc<dyn Broker>) {
    let mut subscription = broker.subscribe(&work(), 1).await;
    expect_nothing(&mut *subscription).await;
    broker.publish(&work(), text("first")).await.expect("confirmed");
    expect(&mut *subscription, "first").await.settle.ack().await;
}

async fn jobs_and_dead_letters_are_queues_like_others(broker: Arc<dyn Broker>) {
    for queue in [Queue::Jobs, Queue::Waiting, Queue::Dead] {
        broker.publish(&queue, text(&format!("{queue:?}"))).await.expect("confirmed");
        let mut subscription = broker.subscribe(&queue, 1).await;
        expect(&mut *subscription, format!("{queue:?}")).await.settle.ack().await;
        expect_nothing(&mut *subscription).await;
    }
}

async fn close_ends_subscriptions(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &work(), 1).await;
    let mut idle = broker.subscribe(&Queue::Dead, 1).await;
    let mut busy = broker.subscribe(&work(), 1).await;
    let held = expect(&mut *busy, 0).await;
    let waiting = tokio::spawn(async move { idle.next().await.is_none() });
    broker.close(DEADLINE).await;
    let ended = timeout(DEADLINE, waiting).await.expect("next() ends in time").expect("no panic");
    assert!(ended, "an idle subscription still got a message");
    assert!(timeout(DEADLINE, busy.next()).await.expect("next() ends in time").is_none());
    // Settling after the close does nothing.
    held.settle.ack().await;
    let refused = broker.publish(&work(), text("late")).await;
    assert!(matches!(refused, Err(PublishError::Unknown { .. })), "{refused:?}");
}
