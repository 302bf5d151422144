//! Attempts to connect that are cancelled at any point, with their runtime, make no thread panic.
//!
//! Applications embed the broker, and can't catch a panic of a thread that they did not start.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longshore_broker::rabbit::{Config, Rabbit};
use longshore_test_servers::{free_port, wait_until};
use tokio::runtime::{Builder, Runtime};

static PANICS: AtomicUsize = AtomicUsize::new(0);

const ATTEMPTS: u32 = 150;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

/// A listener that accepts connections, and either closes each at once or keeps all of them open.
fn listener(hangs_up: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            if !hangs_up {
                kept.push(stream);
            }
        }
    });
    address
}

/// Whether a thread of lapin's is running.
fn has_threads() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    tasks.flatten().any(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.trim() == "lapin-io-loop"
    })
}

#[test]
fn a_runtime_that_ends_while_a_connection_is_opened_makes_nothing_panic() {
    std::panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    let absent = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    for address in [absent, listener(true), listener(false)] {
        for attempt in 0..ATTEMPTS {
            let runtime = runtime();
            runtime.block_on(async {
                let config = Config::new(format!("amqp://{address}"), "ends");
                let rabbit = Rabbit::start(config).expect("the URL is good");
                // Each attempt is cancelled a little later than the one before.
                let longest = Duration::from_micros(20 * u64::from(attempt));
                let _ = rabbit.connected(longest).await;
            });
            runtime.shutdown_timeout(Duration::from_millis(1));
        }
    }
    wait_until("lapin's threads have ended", Duration::from_secs(20), || !has_threads());
    let _ = std::panic::take_hook();
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
