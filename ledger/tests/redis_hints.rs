//! A subscriber logs the loss of hints once and their return once while Redis is away.
//!
//! In a file of its own, since it captures the log of the whole process.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{Event, Ledger, Topic};
use longshore_test_servers::{Redis, wait_until};
use tracing::Level;

const DEADLINE: Duration = Duration::from_secs(60);

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics under the lock").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines of a level that mention hints.
    fn lines(&self, level: Level) -> Vec<String> {
        let bytes = self.0.lock().expect("nobody panics under the lock").clone();
        let text = String::from_utf8(bytes).expect("it is text");
        let of_level = |line: &&str| line.contains(level.as_str()) && line.contains("hints");
        text.lines().filter(of_level).map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_and_the_return_of_hints_are_logged_once_each() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_ansi(false);
    lines.with_writer(move || writer.clone()).init();
    let mut redis = Redis::start();
    let ledger = RedisLedger::connect(Config::new(redis.url(), "hints"));
    let ledger = ledger.unwrap_or_else(|e| panic!("{e}"));
    let mut events = ledger.events(Topic::Workers).await.expect("subscribed");
    for outage in 1..=2 {
        redis.kill9();
        let waiting = tokio::spawn(async move { (events.next().await, events) });
        let failures = || log.lines(Level::DEBUG).len() + log.lines(Level::WARN).len();
        let before = failures();
        wait_until("it is tried several times", DEADLINE, || failures() >= before + 4);
        redis.restart();
        let heard = tokio::time::timeout(DEADLINE, waiting).await.expect("it is back in time");
        let event;
        (event, events) = heard.expect("no panic");
        assert_eq!(event, Event::Gap);
        assert_eq!(log.lines(Level::WARN).len(), outage, "{:#?}", log.lines(Level::WARN));
        assert_eq!(log.lines(Level::INFO).len(), outage, "{:#?}", log.lines(Level::INFO));
    }
}
