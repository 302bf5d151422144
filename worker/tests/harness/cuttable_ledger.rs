//! A ledger whose connection can be cut (no answers) or broken (each call fails at once).

#![expect(unreachable_pub, reason = "test files include it")]
#![allow(dead_code, reason = "each uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use longshore_ledger::testing::{Answer, Intercepted, Interceptor, Operation};
use longshore_ledger::{ControlError, Error, Events, Ledger, Topic};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    Open,
    Cut,
    Broken,
}

/// Cuts and breaks the connection to a ledger.
#[derive(Clone)]
pub struct CuttableLedger {
    inner: Arc<dyn Ledger>,
    connection: Arc<watch::Sender<Connection>>,
    failed: Arc<AtomicU64>,
    released: Arc<AtomicU64>,
    holds_results: Arc<AtomicBool>,
    drops_hints: bool,
}

impl CuttableLedger {
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        let connection = Arc::new(watch::Sender::new(Connection::Open));
        let (failed, released, holds_results) = Default::default();
        Self { inner, connection, failed, released, holds_results, drops_hints: false }
    }

    /// A ledger whose hints never arrive.
    pub fn without_hints(inner: Arc<dyn Ledger>) -> Self {
        Self { drops_hints: true, ..Self::new(inner) }
    }

    /// The ledger behind the connection.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(Intercepted(self.clone()))
    }

    pub fn cut(&self, cut: bool) {
        self.connection.send_replace(if cut { Connection::Cut } else { Connection::Open });
    }

    pub fn break_off(&self, broken: bool) {
        self.connection.send_replace(if broken { Connection::Broken } else { Connection::Open });
    }

    /// Reads of results fail, all other operations are answered.
    pub fn hold_results(&self, holds: bool) {
        self.holds_results.store(holds, Ordering::Relaxed);
    }

    /// The number of calls that failed, without those of the heartbeat loop.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How often a chunk was released.
    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    async fn connected(&self) -> Result<(), Error> {
        let mut connection = self.connection.subscribe();
        let now = *connection.wait_for(|it| *it != Connection::Cut).await.expect("it has a sender");
        if now == Connection::Open { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&self) -> Error {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let kind = longshore_protocol::ErrorKind::Unreachable;
        Error::Unavailable { kind, address: "127.0.0.1:1".into(), reason: "gone".into() }
    }
}

#[async_trait]
impl Interceptor for CuttableLedger {
    fn ledger(&self) -> &dyn Ledger {
        self.inner.as_ref()
    }

    async fn intercept(&self, operation: Operation) -> Result<Answer, ControlError> {
        match operation {
            Operation::Release(..) => drop(self.released.fetch_add(1, Ordering::Relaxed)),
            Operation::Results(..) if self.holds_results.load(Ordering::Relaxed) => {
                return Err(self.gone().into());
            }
            _ => {}
        }
        self.connected().await?;
        operation.call(self.inner.as_ref()).await
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        if self.drops_hints {
            std::future::pending::<()>().await;
        }
        self.connected().await?;
        self.inner.events(topic).await
    }

    fn separate(&self) -> Arc<dyn Ledger> {
        Self { failed: Arc::default(), ..self.clone() }.ledger()
    }
}
