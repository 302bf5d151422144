//! The memory broker passes the conformance suite of brokers.
#![expect(clippy::print_stderr, reason = "a failing run shows how far it came")]

use std::sync::Arc;

use longshore_broker::conformance::CASES;
use longshore_broker::memory::MemoryBroker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_broker_conforms() {
    for (name, case) in CASES {
        eprintln!("{name}");
        case(Arc::new(MemoryBroker::with_journal())).await;
    }
}
