//! RabbitMQ passes the conformance suite of brokers, with both kinds of work queue.
#![expect(clippy::print_stderr, reason = "a failing run shows how far it came")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::conformance::CASES;
use longshore_broker::rabbit::{Config, Rabbit, WorkQueueKind};
use longshore_test_servers::Rabbit as Server;

/// Each case has a namespace of its own on the one server.
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

fn start(kind: WorkQueueKind) -> Rabbit {
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    let config = Config {
        namespace: format!("case{number}"),
        work_queue_kind: kind,
        ..Config::new(Server::shared().url(), "conformance")
    };
    Rabbit::start(config).expect("the URL is good")
}

async fn conforms(kind: WorkQueueKind) {
    for (name, case) in CASES {
        eprintln!("{kind:?}: {name}");
        let broker: Arc<dyn Broker> = Arc::new(start(kind));
        case(broker.clone()).await;
        broker.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbit_conforms_with_classic_work_queues() {
    conforms(WorkQueueKind::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbit_conforms_with_quorum_work_queues() {
    conforms(WorkQueueKind::Quorum).await;
}
