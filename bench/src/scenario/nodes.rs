//! `nodes`: what 10,000 nodes cost that send a heartbeat each second, simulated by this process.
//!
//! Many nodes share a registered connection.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{BeatParams, Events, Ledger, Topic};
use longshore_protocol::{NodeId, NodeInfo, Timestamp};
use tokio::task::{AbortHandle, JoinSet};

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::fleet::Layout;
use crate::processes::Meter;
use crate::report::{Sample, Unit, sample};
use crate::testbed::Testbed;

/// The number of nodes, times the scale.
const NODES: u64 = 10_000;

/// The number of connections that send heartbeats.
const CONNECTIONS: u64 = 250;

/// The interval of the heartbeats of a node.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The time in seconds for the scheduler to learn of all nodes, times the scale.
const SETTLE_SECONDS: f64 = 3.0;

/// The duration of the measurement in seconds, times the scale; at least one heartbeat.
const SECONDS: f64 = 10.0;

#[derive(Default)]
pub(super) struct Nodes {
    /// The tasks that send heartbeats.
    heartbeats: JoinSet<Result<(), Error>>,
    /// The tasks that read hints, as each worker does, so that heartbeats register a connection.
    hint_readers: Vec<AbortHandle>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.hint_readers.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Scenario for Nodes {
    fn layout(&self) -> Layout {
        Layout { scheduler: true, workers: Vec::new() }
    }

    /// Starts all nodes.
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let mut config = Config::new(&testbed.config.redis_url, &testbed.namespace);
        config.connections = 1;
        let nodes = testbed.size(NODES, 100);
        let mut groups = Vec::new();
        // Without nodes, a connection would have no heartbeats to send.
        let connections = CONNECTIONS.min(nodes);
        for number in 0..connections {
            let ledger = RedisLedger::connect(config.clone())?;
            let mut hints = ledger.events(Topic::Workers).await?;
            self.hint_readers
                .push(tokio::spawn(async move { read_hints(hints.as_mut()).await }).abort_handle());
            let group: Vec<NodeInfo> =
                (number..nodes).step_by(connections as usize).map(node).collect();
            groups.push((ledger, group));
        }
        try_join_all(groups.iter().map(|(ledger, group)| send_heartbeats(ledger, group))).await?;
        for (ledger, group) in groups {
            self.heartbeats.spawn(repeat_heartbeats(ledger, group));
        }
        tokio::time::sleep(testbed.time(SETTLE_SECONDS)).await;
        Ok(())
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let zadds_before = count_zadds(testbed).await?;
        let meter = Meter::start(testbed.measured_processes());
        tokio::time::sleep(testbed.time(SECONDS).max(HEARTBEAT)).await;
        let usage = meter.read();
        let heartbeats = (count_zadds(testbed).await? - zadds_before) / usage.elapsed.as_secs_f64();
        if let Some(ended) = self.heartbeats.try_join_next() {
            return Err(match ended {
                Ok(Err(error)) => error,
                _ => Error::Unexpected("simulated nodes stopped sending heartbeats".into()),
            });
        }
        // A busy host sends fewer heartbeats; the cost of all of them is extrapolated.
        let nodes = testbed.size(NODES, 100) as f64;
        let redis = usage.of("redis") * (nodes / heartbeats).max(1.0);
        Ok(vec![
            sample("scheduler, of a core", Unit::Share, usage.of("scheduler")).at_most(0.25),
            sample("Redis, of a core, were all heartbeats in time", Unit::Share, redis)
                .at_most(0.25),
            sample("heartbeats", Unit::PerSecond, heartbeats),
            sample("nodes", Unit::Count, nodes),
        ])
    }
}

/// How many `ZADD` commands Redis has executed. In an idle fleet all but a few per second are
/// heartbeats.
async fn count_zadds(testbed: &Testbed<'_>) -> Result<f64, Error> {
    let mut redis = testbed.services.queries.clone();
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await?;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_zadd:calls="));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    Ok(count.unwrap_or_default())
}

fn node(number: u64) -> NodeInfo {
    NodeInfo {
        host: format!("bench-{number:05}"),
        pid: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        queues: vec!["default".into()],
        tasks: ["concat", "fail", "merge_counts", "noop", "sleep", "sum", "wordcount"]
            .map(String::from)
            .to_vec(),
        labels: [("zone".to_owned(), "bench".to_owned())].into(),
        slots: 4,
        jobs: Some([].into()),
        started_at: Timestamp::from_millis(1_700_000_000_000),
        cpu: 0.01,
        rss: 12 << 20,
        ..NodeInfo::new(NodeId::new(format!(
            "bench-{number:05}-00000000-0000-4000-8000-000000000000"
        )))
    }
}

async fn read_hints(hints: &mut dyn Events) {
    loop {
        hints.next().await;
    }
}

/// Sends one heartbeat of each node.
async fn send_heartbeats(ledger: &RedisLedger, nodes: &[NodeInfo]) -> Result<(), Error> {
    for node in nodes {
        ledger.beat(&BeatParams::new(node.clone(), [])).await?;
    }
    Ok(())
}

/// Sends the heartbeats of all nodes of a group each second, spread over the second.
async fn repeat_heartbeats(ledger: RedisLedger, nodes: Vec<NodeInfo>) -> Result<(), Error> {
    let begun = Instant::now();
    for second in 0.. {
        for (at, node) in nodes.iter().enumerate() {
            let due = HEARTBEAT * second + HEARTBEAT * at as u32 / nodes.len() as u32;
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            ledger.beat(&BeatParams::new(node.clone(), [])).await?;
        }
    }
    Ok(())
}
