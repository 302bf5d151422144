//! A server of the API with a scheduler and a worker, all in this process.

use std::sync::Arc;
use std::time::Duration;

use longshore_api::{Acceptor, Api, Config, Exposure, ServerFiles};
use longshore_broker::memory::MemoryBroker;
use longshore_ledger::Ledger;
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_protocol::{ApiSecret, ApiToken, KeptApiToken, Role, SchedulerId};
use longshore_scheduler::Scheduler;
use longshore_worker::{Context, Worker};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::client::Http;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A ledger and a broker, with the client of the server.
pub(crate) struct Stage {
    pub(crate) broker: Arc<MemoryBroker>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) stop: CancellationToken,
    api: Api,
}

impl Stage {
    /// Without a scheduler and a worker: nothing is admitted.
    pub(crate) fn idle(exposure: Exposure) -> Self {
        Self::configured(Config::new(exposure))
    }

    /// Without a scheduler and a worker, and with TLS.
    pub(crate) fn with_tls(exposure: Exposure, files: ServerFiles) -> Self {
        let mut config = Config::new(exposure);
        config.tls = Some(Arc::new(Acceptor::new(files).expect("the files can be used")));
        config.limits.handshake_within = Duration::from_secs(1);
        Self::configured(config)
    }

    fn configured(mut config: Config) -> Self {
        let broker = Arc::new(MemoryBroker::new());
        let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock)));
        let stop = CancellationToken::new();
        config.metrics = Some(Arc::new(|| "metrics 1\n".to_owned()));
        config.limits.headers_within = Duration::from_secs(1);
        config.limits.body_within = Duration::from_secs(1);
        let api = Api::new(broker.clone(), ledger.clone(), config, stop.clone());
        Self { broker, ledger, stop, api }
    }

    /// With a scheduler and a worker of two slots.
    pub(crate) fn new() -> Self {
        let stage = Self::idle(Exposure::Loopback);
        stage.start_scheduler();
        stage.start_worker();
        stage
    }

    pub(crate) fn start_scheduler(&self) {
        let config = longshore_scheduler::Config::new(SchedulerId::new("scheduler-1"));
        let scheduler = Scheduler::new(config, self.broker.clone(), self.ledger.clone());
        tokio::spawn(scheduler.run(self.stop.clone()));
    }

    pub(crate) fn start_worker(&self) {
        let config = longshore_worker::Config { slots: 2, ..longshore_worker::Config::default() };
        let echo = async |_: Context, input: Box<RawValue>| Ok::<_, String>(input);
        let worker = Worker::builder().config(config).task("echo", echo);
        let worker = worker.build().expect("a worker");
        tokio::spawn(worker.run(self.broker.clone(), self.ledger.clone(), self.stop.clone()));
    }

    /// A client of the router, without sockets.
    pub(crate) fn http(&self) -> Http {
        Http::new(self.api.router())
    }

    pub(crate) fn api(&self) -> Api {
        self.api.clone()
    }

    /// Adds a token; its secret is made of `n`.
    pub(crate) async fn token(&self, n: u8, role: Role, tenants: Option<&[&str]>) -> String {
        let secret = ApiSecret::from_bytes([n; 32]);
        let digest = secret.digest();
        let token = ApiToken {
            id: ApiToken::id_of(&digest),
            name: format!("token-{n}"),
            role,
            tenants: tenants.map(|names| names.iter().map(|name| (*name).into()).collect()),
            created_at: self.ledger.now().await.expect("memory does not fail"),
            expires_at: None,
        };
        let kept = KeptApiToken { digest, token };
        assert!(self.ledger.add_api_token(&kept).await.expect("memory does not fail"));
        secret.as_str().to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
