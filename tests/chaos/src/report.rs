//! Runs all checks at the end of a run with a nemesis, and writes the report of the run.
//!
//! It also measures the resources before the nemesis begins.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, holds_within};

use crate::checker::{
    Violation, check_alive, check_connections, check_jobs, check_process_stats, check_queues,
    check_runaways,
};
use crate::cluster::{Cluster, LONG};
use crate::history::{History, percentiles};
use crate::process_stats::ProcessStats;
use crate::runaways;

/// How long killed processes may take to disappear on a busy machine.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The configuration of a run with a nemesis.
#[derive(Clone, Copy, Debug)]
pub struct RunConfig {
    /// The seed of all random choices: `LONGSHORE_CHAOS_SEED`, or a new one.
    pub seed: u64,
    /// How long the nemesis injects faults.
    pub length: Duration,
    /// Whether `LONGSHORE_CHAOS_MINUTES` asks for a long run.
    pub is_long: bool,
}

impl RunConfig {
    /// Reads the environment. The length is `short` by default.
    ///
    /// # Panics
    /// When a variable is not a number.
    pub fn from_env(short: Duration) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a whole number")))
        };
        let minutes = number("LONGSHORE_CHAOS_MINUTES");
        let seed = number("LONGSHORE_CHAOS_SEED");
        Self {
            // Each `RandomState` has new random keys. Short seeds are easier to type.
            seed: seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000),
            length: minutes.map_or(short, |minutes| Duration::from_secs(60 * minutes)),
            is_long: minutes.is_some(),
        }
    }
}

/// The resources in use before the nemesis begins.
#[derive(Debug)]
pub struct Baseline {
    stats: BTreeMap<String, ProcessStats>,
    redis: usize,
    rabbit: usize,
}

impl Baseline {
    /// Measures a cluster that is at work.
    pub fn of(cluster: &Cluster, rabbit: &Rabbit, redis: &Redis) -> Self {
        let stats = cluster.members.iter().map(|member| (member.name.clone(), member.stats()));
        Self {
            stats: stats.collect(),
            redis: redis_connections(redis),
            rabbit: rabbit_connections(rabbit),
        }
    }
}

fn redis_connections(redis: &Redis) -> usize {
    let info = redis.call(&["INFO", "clients"]).text().unwrap_or_default();
    let count = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

fn rabbit_connections(rabbit: &Rabbit) -> usize {
    rabbit.ctl(&["list_connections", "--no-table-headers", "name"]).lines().count()
}

/// The report of a run.
#[derive(Debug)]
pub struct Report {
    /// The violations of all checks.
    pub violations: Vec<Violation>,
    /// C7: how much ran again, and how soon interrupted attempts began elsewhere.
    pub summary: String,
}

/// Runs all checks after all jobs have ended and all faults are over.
pub fn examine(cluster: &Cluster, rabbit: &Rabbit, redis: &Redis, before: &Baseline) -> Report {
    let history = cluster.history();
    let mut violations = check_jobs(&history, &cluster.reported(&history));
    // Duplicate messages and the connections of dead processes take some time to disappear.
    let mut depths = cluster.queues(rabbit);
    holds_within(LONG, || {
        depths = cluster.queues(rabbit);
        check_queues(&depths).is_empty()
    });
    violations.extend(check_queues(&depths));
    let mut connections = Vec::new();
    holds_within(LONG, || {
        connections = check_connections("Redis", before.redis, redis_connections(redis));
        let now = rabbit_connections(rabbit);
        connections.extend(check_connections("RabbitMQ", before.rabbit, now));
        connections.is_empty()
    });
    violations.extend(connections);
    let folder = cluster.folder().to_str().expect("a plain name");
    let mut left = Vec::new();
    holds_within(KILLED_WITHIN, || {
        left = runaways::left(folder);
        left.is_empty()
    });
    violations.extend(check_runaways(&left));
    for member in &cluster.members {
        let stats = before.stats.get(&member.name).copied().unwrap_or_default();
        violations.extend(check_process_stats(&member.name, stats, member.stats()));
        violations.extend(check_alive(&member.name, member.is_as_expected(), &member.tail()));
    }
    Report { violations, summary: summary(cluster, &history) }
}

fn summary(cluster: &Cluster, history: &History) -> String {
    let starts = history.starts();
    let (subtasks, runs) =
        (starts.len(), starts.values().map(|count| u64::from(*count)).sum::<u64>());
    let again = 100.0 * (runs as f64 / subtasks.max(1) as f64 - 1.0);
    let times: Vec<Duration> =
        history.recoveries(&cluster.losses()).into_iter().flatten().collect();
    let mut summary = String::new();
    let _ = writeln!(
        summary,
        "{} jobs, {subtasks} subtasks, {runs} attempts ({again:.2}% more than subtasks)",
        history.intents.len()
    );
    let _ = writeln!(summary, "from loss to the next attempt elsewhere: {}", percentiles(&times));
    let _ = writeln!(summary, "attempts begun in each second: {:?}", history.starts_per_second());
    let lines: usize = cluster.members.iter().map(|member| member.output().lines().count()).sum();
    let _ = writeln!(summary, "{lines} lines in the logs of {} processes", cluster.members.len());
    summary
}
