//! Compares the speed of quorum and classic work queues, and which messages survive a restart.
//!
//! It starts a RabbitMQ of its own: `cargo run --release -p longshore-broker --example
//! work_queue_kind [RUNS]`. Decision record 0004 has the figures.
#![expect(clippy::print_stdout, reason = "a measurement that nobody sees is none")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use longshore_broker::rabbit::{Config, Rabbit, WorkQueueKind};
use longshore_broker::{Broker, Outgoing, Queue};
use longshore_test_servers::Rabbit as Server;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

const RUNS: usize = 5;
const MESSAGES: usize = 30_000;
const IN_FLIGHT: usize = 1_000;
const PREFETCH: u16 = 200;
const SINGLE_MESSAGES: usize = 1_000;
const DURABLE_MESSAGES: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(30);
const KINDS: [WorkQueueKind; 2] = [WorkQueueKind::Classic, WorkQueueKind::Quorum];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut server = block_in_place(Server::start);
    println!("kind\trun\tpublish/s\tthrough/s\tp50_us\tp99_us");
    let runs = std::env::args().nth(1).map_or(RUNS, |runs| runs.parse().expect("a number"));
    for run in 1..=runs {
        for kind in KINDS {
            let rabbit = start(&server, kind, &format!("bench{run}{}", kind.name())).await;
            let publish = publish_only(&rabbit).await;
            rabbit.purge(&work()).await.expect("purged");
            let through = through(&rabbit).await;
            let (p50, p99) = one_at_a_time(&rabbit).await;
            println!("{}\t{run}\t{publish:.0}\t{through:.0}\t{p50}\t{p99}", kind.name());
            rabbit.close(PATIENCE).await;
        }
    }
    for kind in KINDS {
        for end in [End::Stop, End::Kill(0), End::Kill(10), End::Kill(60)] {
            let left = after_restart(&mut server, kind, end).await;
            println!("{}\tafter {end:?}: {left} of {DURABLE_MESSAGES} are there", kind.name());
        }
    }
}

/// How the server is stopped before it starts again.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By an orderly stop.
    Stop,
    /// With SIGKILL, this many seconds after the last confirm. The queue was declared just before
    /// the first publish.
    Kill(u64),
}

async fn start(server: &Server, kind: WorkQueueKind, namespace: &str) -> Arc<Rabbit> {
    let config = Config {
        namespace: namespace.to_owned(),
        work_queue_kind: kind,
        ..Config::new(server.url(), "work_queue_kind")
    };
    let rabbit = Rabbit::start(config).expect("the URL is good");
    rabbit.connected(PATIENCE).await.expect("connected");
    Arc::new(rabbit)
}

fn work() -> Queue {
    Queue::Work("bench".to_owned())
}

/// A message of the size of a chunk message.
fn message() -> Outgoing {
    Outgoing { body: Bytes::from(vec![b'x'; 120]), ..Outgoing::default() }
}

fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn publish_all(rabbit: &Rabbit, count: usize) {
    let queue = work();
    let publishes = stream::iter(0..count).map(|_| rabbit.publish(&queue, message()));
    let mut publishes = publishes.buffer_unordered(IN_FLIGHT);
    while let Some(outcome) = publishes.next().await {
        outcome.expect("confirmed");
    }
}

async fn publish_only(rabbit: &Rabbit) -> f64 {
    let begun = Instant::now();
    publish_all(rabbit, MESSAGES).await;
    rate(MESSAGES, begun)
}

/// Messages per second while publishing with confirms, consuming and acknowledging one by one, all
/// at the same time.
async fn through(rabbit: &Arc<Rabbit>) -> f64 {
    let mut subscription = rabbit.subscribe(&work(), PREFETCH).await;
    let begun = Instant::now();
    let publisher = rabbit.clone();
    let publishing = tokio::spawn(async move { publish_all(&publisher, MESSAGES).await });
    let mut acks = FuturesUnordered::new();
    for _ in 0..MESSAGES {
        let delivery = timeout(PATIENCE, subscription.next()).await.expect("in time");
        acks.push(delivery.expect("a delivery").settle.ack());
        while acks.len() >= usize::from(PREFETCH) / 2 {
            acks.next().await;
        }
    }
    while acks.next().await.is_some() {}
    publishing.await.expect("published");
    rate(MESSAGES, begun)
}

/// The time from the publish to the delivery, one message at a time: median and 99th percentile in
/// microseconds.
async fn one_at_a_time(rabbit: &Rabbit) -> (u128, u128) {
    let mut subscription = rabbit.subscribe(&work(), PREFETCH).await;
    let mut took = Vec::with_capacity(SINGLE_MESSAGES);
    for _ in 0..SINGLE_MESSAGES {
        let begun = Instant::now();
        rabbit.publish(&work(), message()).await.expect("confirmed");
        let delivery = timeout(PATIENCE, subscription.next()).await.expect("in time");
        took.push(begun.elapsed().as_micros());
        delivery.expect("a delivery").settle.ack().await;
    }
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// The number of confirmed messages that survive a stop or a kill.
async fn after_restart(server: &mut Server, kind: WorkQueueKind, end: End) -> usize {
    let namespace = format!("{end:?}{}", kind.name());
    let rabbit = start(server, kind, &namespace).await;
    publish_all(&rabbit, DURABLE_MESSAGES).await;
    rabbit.close(PATIENCE).await;
    match end {
        End::Stop => block_in_place(|| server.stop()),
        End::Kill(seconds) => {
            sleep(Duration::from_secs(seconds)).await;
            block_in_place(|| server.kill9());
        }
    }
    block_in_place(|| server.restart());
    let rabbit = start(server, kind, &namespace).await;
    let mut subscription = rabbit.subscribe(&work(), PREFETCH).await;
    let mut count = 0;
    while let Ok(Some(delivery)) = timeout(PATIENCE, subscription.next()).await {
        delivery.settle.ack().await;
        count += 1;
        if count == DURABLE_MESSAGES {
            break;
        }
    }
    rabbit.close(PATIENCE).await;
    count
}
