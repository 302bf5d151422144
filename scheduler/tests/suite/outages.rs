//! Outages of the ledger and the broker cause few calls and few log lines, and jobs go on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_broker::{Link, Queue};
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::outage::{Health, Outage};
use crate::world::{World, succeed};

#[tokio::test(start_paused = true)]
async fn a_document_that_the_ledger_cannot_take_is_refused_with_its_error() {
    let world = World::usual(succeed);
    world.outage.set_ledger(Health::Corrupt);
    let job = world.submit(3, "").await;
    let mut dead = world.broker.subscribe(&Queue::Dead, 1).await;
    let delivery = dead.next().await.unwrap();
    delivery.settle.ack().await;
    let (_, reason) = delivery.headers.iter().find(|(name, _)| name == "reason").unwrap();
    assert!(reason.contains("admit with something unexpected"), "{reason}");
    assert_eq!(world.ledger.job(job).await.unwrap(), None);
    world.outage.set_ledger(Health::Well);
    let job = world.submit(3, "").await;
    world.succeeds(job).await;
    world.stop().await;
}

/// The minimum time of a job without faults: 8 slots, 5 ms for each subtask.
const SUBTASKS: u64 = 4_000;

/// Causes an outage of a minute while a job runs; returns the schedulers' number of calls
/// meanwhile. The job must continue within 3 s of the return.
async fn go_on_after(take: fn(&Outage), give_back: fn(&Outage), asked: fn(&Outage) -> u64) -> u64 {
    let world = World::usual(succeed);
    let job = world.submit(SUBTASKS, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 500).await;
    take(&world.outage);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = asked(&world.outage);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = asked(&world.outage) - before;
    let stood = world.ledger.job(job).await.unwrap().unwrap().counts;
    assert!(stood.done < SUBTASKS && stood.waiting > 0, "nothing was left to do: {stood:?}");
    // A document that comes during the outage waits.
    let other = world.submit(5, "").await;
    give_back(&world.outage);
    let back = Instant::now();
    world.until(job, "more work", |summary| summary.counts.done > stood.done).await;
    let cursor = stood.total - stood.waiting;
    world.until(job, "a new chunk", |summary| summary.cursor > cursor).await;
    assert!(back.elapsed() <= Duration::from_secs(3), "went on after {:?}", back.elapsed());
    world.succeeds(other).await;
    assert_eq!(world.succeeds(job).await.lost, 0, "no worker died");
    world.stop().await;
    asked
}

/// The lines of the schedulers' log, with the number of each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<BTreeMap<String, usize>>>);

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                if matches!(field.name(), "message" | "what") {
                    self.0 = format!("{value:?} {}", self.0);
                }
            }
        }
        if *event.metadata().level() <= tracing::Level::INFO {
            let mut line = Line(String::new());
            event.record(&mut line);
            *self.0.lock().unwrap().entry(line.0).or_default() += 1;
        }
    }
}

impl Log {
    /// Checks that the outage and its end are logged once each.
    #[track_caller]
    fn logs_each_change_once(&self) {
        let lines = self.0.lock().unwrap();
        for text in ["fails; it will be tried again", "works again"] {
            let count: usize =
                lines.iter().filter(|(line, _)| line.contains(text)).map(|(_, count)| count).sum();
            assert_eq!(count, 1, "{text}: {lines:#?}");
        }
    }
}

/// Follows the log of this thread. A test on another thread may be registering a call site that no
/// subscriber was interested in a moment ago; once that is over, all call sites are asked again.
fn follow(log: &Log) -> DefaultGuard {
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    std::thread::sleep(Duration::from_millis(10));
    tracing::callsite::rebuild_interest_cache();
    guard
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_ledger_causes_few_calls_and_is_logged_once() {
    let log = Log::default();
    let guard = follow(&log);
    let asked = go_on_after(
        |outage| outage.set_ledger(Health::Away),
        |outage| outage.set_ledger(Health::Well),
        Outage::calls,
    )
    .await;
    drop(guard);
    // In a minute: the list of workers 120 times, that of jobs 60, registrations 120, about 30 for
    // jobs.
    assert!((200..350).contains(&asked), "{asked} questions in a minute");
    log.logs_each_change_once();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_during_an_outage_of_the_broker() {
    let published = go_on_after(
        |outage| outage.set_link(Link::Down),
        |outage| outage.set_link(Link::Up),
        Outage::published,
    )
    .await;
    assert_eq!(published, 0, "who knows that the link is down does not try");
}
