//! What is looked at before and after the nemesis came, and the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, holds_within};

use crate::checker::{
    Violation, check_alive, check_connections, check_jobs, check_queues, check_runaways,
    check_vitals,
};
use crate::crew::{Crew, LONG};
use crate::history::{History, percentiles};
use crate::runaways;
use crate::vitals::Vitals;

/// What has been killed may take so long to go, on a machine that builds at the same time.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// How a run with a nemesis is meant to go.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// What everything random is drawn from: `LONGSHORE_CHAOS_SEED`, else a new one.
    pub seed: u64,
    /// How long the nemesis stays.
    pub length: Duration,
    /// Whether somebody asked for a long run with `LONGSHORE_CHAOS_MINUTES`.
    pub is_long: bool,
}

impl Course {
    /// As the environment says; `short` if it does not.
    ///
    /// # Panics
    /// When it says something that is no number.
    pub fn from_env(short: Duration) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a whole number")))
        };
        let minutes = number("LONGSHORE_CHAOS_MINUTES");
        let seed = number("LONGSHORE_CHAOS_SEED");
        Self {
            // Every RandomState has keys of its own. Short seeds are easier to copy.
            seed: seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000),
            length: minutes.map_or(short, |minutes| Duration::from_secs(60 * minutes)),
            is_long: minutes.is_some(),
        }
    }
}

/// What there was before the nemesis came.
#[derive(Debug)]
pub struct Baseline {
    vitals: BTreeMap<String, Vitals>,
    redis: usize,
    rabbit: usize,
}

impl Baseline {
    /// Of a crew that is at work.
    pub fn of(crew: &Crew, rabbit: &Rabbit, redis: &Redis) -> Self {
        let vitals = crew.members.iter().map(|member| (member.name.clone(), member.vitals()));
        Self {
            vitals: vitals.collect(),
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

/// Everything that was found at the end.
#[derive(Debug)]
pub struct Inquest {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// C7: how much ran again, and how soon what was cut short began elsewhere.
    pub report: String,
}

/// Looks at everything once all jobs have ended and everybody is well.
pub fn inquest(crew: &Crew, rabbit: &Rabbit, redis: &Redis, before: &Baseline) -> Inquest {
    let history = crew.history();
    let mut violations = check_jobs(&history, &crew.told(&history));
    // Messages that came twice, and connections of the dead, are found and dropped in their own time.
    let mut depths = crew.queues(rabbit);
    holds_within(LONG, || {
        depths = crew.queues(rabbit);
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
    let folder = crew.folder().to_str().expect("a plain name");
    let mut left = Vec::new();
    holds_within(KILLED_WITHIN, || {
        left = runaways::left(folder);
        left.is_empty()
    });
    violations.extend(check_runaways(&left));
    for member in &crew.members {
        let vitals = before.vitals.get(&member.name).copied().unwrap_or_default();
        violations.extend(check_vitals(&member.name, vitals, member.vitals()));
        violations.extend(check_alive(&member.name, member.is_as_it_should(), &member.tail()));
    }
    Inquest { violations, report: report(crew, &history) }
}

fn report(crew: &Crew, history: &History) -> String {
    let starts = history.starts();
    let (subtasks, runs) =
        (starts.len(), starts.values().map(|count| u64::from(*count)).sum::<u64>());
    let again = 100.0 * (runs as f64 / subtasks.max(1) as f64 - 1.0);
    let times: Vec<Duration> = history.recoveries(&crew.losses()).into_iter().flatten().collect();
    let mut report = String::new();
    let _ = writeln!(
        report,
        "{} jobs, {subtasks} subtasks, {runs} attempts ({again:.2}% more than subtasks)",
        history.intents.len()
    );
    let _ = writeln!(report, "cut short to begun elsewhere: {}", percentiles(&times));
    let _ = writeln!(report, "attempts begun, second by second: {:?}", history.pace());
    let lines: usize = crew.members.iter().map(|member| member.output().lines().count()).sum();
    let _ = writeln!(report, "{lines} lines in the logs of {} processes", crew.members.len());
    report
}
