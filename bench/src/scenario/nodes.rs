//! A large fleet: nodes that beat once a second, simulated by this process, each with the heart of a connection that many share.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{BeatParams, Events, Ledger, Topic};
use longshore_protocol::{NodeId, NodeInfo, Timestamp};
use tokio::task::{AbortHandle, JoinSet};

use super::Scenario;
use crate::Error;
use crate::fleet::Layout;
use crate::ground::Ground;
use crate::processes::Meter;
use crate::report::{Sample, Unit, sample};
use crate::yardstick::Marks;

/// Nodes, times the scale.
const NODES: u64 = 10_000;

/// Connections that beat.
const CONNECTIONS: u64 = 250;

/// How often each node beats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the scheduler gets to know all of them, times the scale.
const SETTLE_SECONDS: f64 = 3.0;

/// How long is measured, times the scale, but one beat at least.
const SECONDS: f64 = 10.0;

#[derive(Default)]
pub(super) struct Nodes {
    beating: JoinSet<Result<(), Error>>,
    /// Follow the hints, as each worker does, so that beats register a heart.
    listening: Vec<AbortHandle>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.listening.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Scenario for Nodes {
    fn layout(&self) -> Layout {
        Layout { scheduler: true, workers: Vec::new() }
    }

    /// Brings all nodes up.
    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        let mut config = Config::new(&ground.config.redis_url, &ground.namespace);
        config.connections = 1;
        let nodes = ground.size(NODES, 100);
        let mut groups = Vec::new();
        // A connection without nodes would have nothing to wait for.
        let connections = CONNECTIONS.min(nodes);
        for number in 0..connections {
            let ledger = RedisLedger::connect(config.clone())?;
            let mut hints = ledger.events(Topic::Workers).await?;
            self.listening
                .push(tokio::spawn(async move { listen(hints.as_mut()).await }).abort_handle());
            let group: Vec<NodeInfo> =
                (number..nodes).step_by(connections as usize).map(node).collect();
            groups.push((ledger, group));
        }
        try_join_all(groups.iter().map(|(ledger, group)| round(ledger, group))).await?;
        for (ledger, group) in groups {
            self.beating.spawn(beat(ledger, group));
        }
        tokio::time::sleep(ground.time(SETTLE_SECONDS)).await;
        Ok(())
    }

    async fn run(&mut self, ground: &mut Ground<'_>, _: Marks) -> Result<Vec<Sample>, Error> {
        let times_before = times(ground).await?;
        let meter = Meter::start(ground.watched());
        tokio::time::sleep(ground.time(SECONDS).max(HEARTBEAT)).await;
        let usage = meter.read();
        let beats = (times(ground).await? - times_before) / usage.elapsed.as_secs_f64();
        if let Some(ended) = self.beating.try_join_next() {
            return Err(match ended {
                Ok(Err(error)) => error,
                _ => Error::Unexpected("simulated nodes stopped to beat".into()),
            });
        }
        // On a machine that is too busy for so many beats, those that came tell what all would take.
        let nodes = ground.size(NODES, 100) as f64;
        let redis = usage.of("redis") * (nodes / beats).max(1.0);
        Ok(vec![
            sample("scheduler, of a core", Unit::Share, usage.of("scheduler")).at_most(0.25),
            sample("Redis, of a core, were all beats in time", Unit::Share, redis).at_most(0.25),
            sample("beats", Unit::PerSecond, beats),
            sample("nodes", Unit::Count, nodes),
        ])
    }
}

/// How often Redis has written a time on a list so far. While there is nothing to do, these are beats but for a few a second.
async fn times(ground: &Ground<'_>) -> Result<f64, Error> {
    let mut redis = ground.services.questions.clone();
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

async fn listen(hints: &mut dyn Events) {
    loop {
        hints.next().await;
    }
}

/// One beat of each node.
async fn round(ledger: &RedisLedger, nodes: &[NodeInfo]) -> Result<(), Error> {
    for node in nodes {
        ledger.beat(&BeatParams::new(node.clone(), [])).await?;
    }
    Ok(())
}

/// Beats of all nodes of a group, spread over the second.
async fn beat(ledger: RedisLedger, nodes: Vec<NodeInfo>) -> Result<(), Error> {
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
