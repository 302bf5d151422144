//! Browsing a queue.

use std::sync::Arc;

use super::{expect, expect_nothing, next, publish_numbers, text, until_ready};
use crate::{Broker, Browsed, Browser, Outgoing, Queue};

/// All further messages that a browser shows, with their contents.
async fn rest(browser: &mut dyn Browser) -> Vec<(String, Browsed)> {
    let mut shown = Vec::new();
    while let Some(message) = browser.next().await.expect("it can be browsed") {
        shown.push((String::from_utf8_lossy(&message.body).into_owned(), message));
    }
    shown
}

fn bodies(shown: &[(String, Browsed)]) -> Vec<&str> {
    shown.iter().map(|(body, _)| body.as_str()).collect()
}

pub(super) async fn browsing_shows_each_message_and_removes_only_what_is_named(
    broker: Arc<dyn Broker>,
) {
    let queue = Queue::Dead;
    publish_numbers(&*broker, &queue, 5).await;
    let mut browser = broker.browse(&queue).await.expect("it can be browsed");
    let shown = rest(&mut *browser).await;
    assert_eq!(bodies(&shown), ["0", "1", "2", "3", "4"]);
    assert!(shown.iter().all(|(_, message)| message.returns == 0), "{shown:?}");
    until_ready(&*broker, &queue, 0).await;
    for number in [1, 3] {
        browser.remove(shown[number].1.tag).await.expect("removed");
    }
    browser.finish().await.expect("finished");
    until_ready(&*broker, &queue, 3).await;

    // What was shown is back in its order, before what comes later.
    broker.publish(&queue, text("late")).await.expect("confirmed");
    let mut browser = broker.browse(&queue).await.expect("it can be browsed");
    let again = rest(&mut *browser).await;
    assert_eq!(bodies(&again), ["0", "2", "4", "late"]);
    assert!(again[..3].iter().all(|(_, message)| message.returns > 0), "{again:?}");
    drop(browser);
    until_ready(&*broker, &queue, 4).await;
    let mut subscription = broker.subscribe(&queue, 10).await;
    for body in ["0", "2", "4", "late"] {
        expect(&mut *subscription, body).await.settle.ack().await;
    }
    expect_nothing(&mut *subscription).await;
}

pub(super) async fn a_message_that_is_browsed_is_whole_and_hidden_from_consumers(
    broker: Arc<dyn Broker>,
) {
    let queue = Queue::Waiting;
    let mut browser = broker.browse(&queue).await.expect("a queue that does not exist is empty");
    assert_eq!(browser.next().await.expect("it can be browsed"), None);
    drop(browser);
    let sent = Outgoing {
        body: "{\"task\":\"noop\"}".into(),
        message_id: Some("job/7".into()),
        headers: vec![("reason".into(), "unknown kind, 不明".into())],
    };
    broker.publish(&queue, sent.clone()).await.expect("confirmed");
    let mut browser = broker.browse(&queue).await.expect("it can be browsed");
    let shown = browser.next().await.expect("it can be browsed").expect("a message waits");
    assert_eq!((&shown.body, &shown.message_id), (&sent.body, &sent.message_id));
    assert_eq!(shown.headers, sent.headers);
    let mut subscription = broker.subscribe(&queue, 10).await;
    expect_nothing(&mut *subscription).await;
    browser.finish().await.expect("finished");
    let delivery = next(&mut *subscription).await;
    assert!(delivery.redelivered && delivery.body == sent.body, "{delivery:?}");
    delivery.settle.ack().await;
    expect_nothing(&mut *subscription).await;
}
