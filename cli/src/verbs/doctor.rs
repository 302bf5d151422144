//! `longshore doctor`: checks settings, services, schedulers and workers, and names remedies.
//!
//! The checks of RabbitMQ and Redis alone are in the crates `broker` and `ledger`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use longshore_broker::rabbit::Rabbit;
use longshore_broker::{Broker, Queue};
use longshore_ledger::Ledger;
use longshore_ledger::redis::RedisLedger;
use longshore_producer::Jobs;
use longshore_protocol::{Finding, NodeRecord, NodeState, SchedulerRecord, Severity, Timestamp};

use crate::failure::Failure;
use crate::output::{Output, findings};
use crate::services::{self, CLOSE_WITHIN, rabbit_config};
use crate::settings::{Reach, Settings};

/// A larger difference between the clocks of this host and Redis makes displayed times confusing.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// A scheduler that is silent for longer counts as frozen; schedulers register twice a second.
const SCHEDULER_SILENCE: Duration = Duration::from_secs(3);

/// Workers that were silent for this many times `dead_after` are ignored.
const SILENCE: u32 = 2;

/// Check settings, RabbitMQ, Redis, schedulers and workers; exit code 3 if a service can't be
/// reached, 1 if another check fails
#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn perform(
        self,
        settings: &impl Fn() -> Result<Settings, Failure>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let settings = settings()?;
        if let Reach::Server(url) = &settings.reach {
            return Err(Failure::usage(format_args!(
                "doctor checks RabbitMQ and Redis themselves, and the settings name the server \
                 {url}; run it where RabbitMQ and Redis can be reached, with --amqp-url and \
                 --redis-url, or read {}/readyz",
                url.trim_end_matches('/')
            )));
        }
        let mut found = vec![fine("config", sources(&settings))];
        let ledger = services::ledger(&settings)?;
        let redis = ledger.examine().await;
        // Lists and the clock can be read without the functions, and also while writes are refused.
        let has_redis = !fails(&redis, &["reachable", "certificate", "auth"]);
        // Schedulers can't register while writes are refused.
        let takes_writes = has_redis && !fails(&redis, &["writes"]);
        found.extend(redis);
        let mut pools: BTreeSet<String> = settings.queues.iter().cloned().collect();
        if has_redis {
            found.extend(clock(&ledger).await);
            match workers(ledger.clone(), &settings).await {
                Ok((workers, busy)) => {
                    found.extend(workers);
                    pools.extend(busy);
                }
                Err(failure) => {
                    let text = failure.to_string();
                    found.push(wrong(Severity::Error, "workers", text, "see Redis's log"));
                }
            }
        }
        let rabbit = Rabbit::start(rabbit_config(&settings, "longshore doctor"))?;
        let pools: Vec<String> = pools.into_iter().collect();
        let broker = rabbit.examine(&pools).await;
        let unusable = ["reachable", "certificate", "handshake", "login", "vhost"];
        let has_rabbit = !fails(&broker, &unusable);
        found.extend(broker);
        if has_rabbit {
            found.extend(schedulers(&rabbit, takes_writes.then_some(&ledger)).await);
            if has_redis {
                found.extend(journal(&rabbit, &ledger).await);
            }
        }
        rabbit.close(CLOSE_WITHIN).await;
        findings::list(output, &found)?;
        output.flush()?;
        verdict(&found)
    }
}

/// The sources of the settings, in the order of precedence.
fn sources(settings: &Settings) -> String {
    let named = settings.overrides.iter().map(|name| (*name).to_owned());
    let file = settings.file.iter().map(|file| file.display().to_string());
    let mut sources: Vec<String> = named.chain(file).collect();
    sources.push("the defaults".to_owned());
    let missing = settings.file.is_none().then_some("; there is no longshore.toml here");
    format!("{}{}", sources.join(", "), missing.unwrap_or_default())
}

/// Whether one of these checks of a service failed.
fn fails(found: &[Finding], checks: &[&str]) -> bool {
    found.iter().any(|finding| {
        let check = finding.check.rsplit('.').next().unwrap_or_default();
        finding.severity == Severity::Error && checks.contains(&check)
    })
}

fn verdict(found: &[Finding]) -> Result<(), Failure> {
    let wrong: Vec<&Finding> =
        found.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let is_service = |finding: &&Finding| {
        ["reachable", "certificate", "handshake", "login", "auth", "version", "publish", "writes"]
            .iter()
            .any(|word| finding.check.ends_with(word))
    };
    match wrong.first() {
        None => Ok(()),
        Some(_) if wrong.iter().any(is_service) => Err(Failure::unusable_service()),
        Some(_) => {
            Err(Failure::unwell(format_args!("{} of {} checks failed", wrong.len(), found.len())))
        }
    }
}

fn fine(check: &str, found: impl Into<String>) -> Finding {
    let (check, found) = (check.to_owned(), found.into());
    Finding { severity: Severity::Ok, check, found, remedy: String::new() }
}

fn wrong(severity: Severity, check: &str, found: impl Into<String>, remedy: &str) -> Finding {
    Finding { severity, check: check.to_owned(), found: found.into(), remedy: remedy.to_owned() }
}

async fn clock(ledger: &dyn Ledger) -> Option<Finding> {
    #[expect(clippy::disallowed_methods, reason = "to compare clocks is what this is for")]
    let ours =
        Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let theirs = ledger.now().await.ok()?;
    let off = ours.since(theirs).max(theirs.since(ours));
    let found = format!("{:.1}s from Redis's", off.as_secs_f64());
    Some(if off <= CLOCK_TOLERANCE {
        fine("clock", found)
    } else {
        let remedy = "set both machines' clocks, best by NTP; nothing breaks, but times look odd";
        wrong(Severity::Warning, "clock", found, remedy)
    })
}

/// Checks that schedulers consume and have registered in the ledger. RabbitMQ counts a frozen
/// process as a consumer until its heartbeats time out.
async fn schedulers(broker: &dyn Broker, ledger: Option<&RedisLedger>) -> Option<Finding> {
    let depth = broker.depth(&Queue::Jobs).await.ok()?.unwrap_or_default();
    if depth.consumers == 0 {
        let found = format!("none runs, {} documents wait", depth.ready);
        let remedy = "start one with `longshore scheduler`";
        return Some(wrong(Severity::Error, "schedulers", found, remedy));
    }
    let found = format!("{} take jobs", depth.consumers);
    let Some(ledger) = ledger else { return Some(fine("schedulers", found)) };
    let (listed, now) = (ledger.schedulers().await.ok()?, ledger.now().await.ok()?);
    let silence = |scheduler: &SchedulerRecord| now.since(scheduler.beat_at);
    let (living, silent): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|scheduler| silence(scheduler) <= SCHEDULER_SILENCE);
    if living.len() as u64 >= depth.consumers {
        return Some(fine("schedulers", found));
    }
    let frozen: Vec<String> = silent
        .iter()
        .map(|scheduler| format!("{} for {}s", scheduler.id, silence(scheduler).as_secs()))
        .collect();
    let found = format!(
        "{found}, but only {} have signed in with Redis lately; silent: {}",
        living.len(),
        if frozen.is_empty() { "unknown ones".to_owned() } else { frozen.join(", ") }
    );
    let remedy = "those are frozen, or cut off from Redis: see their logs, restart them";
    Some(wrong(Severity::Error, "schedulers", found, remedy))
}

/// Checks whether a lost ledger could be rebuilt from the journal.
async fn journal(broker: &dyn Broker, ledger: &dyn Ledger) -> Option<Finding> {
    let scheduled = broker.depth(&Queue::Jobs).await.ok()?.unwrap_or_default().consumers > 0;
    let exists = broker.depth(&Queue::Journal).await.ok()?.is_some();
    let place = ledger.journal_position().await.ok()?;
    Some(match place {
        Some(place) if exists => {
            fine("journal", format!("the ledger reflects it up to record {}", place.offset))
        }
        _ if !scheduled => fine("journal", "none yet; a scheduler begins it"),
        _ if exists => {
            let remedy =
                "wait for the scheduler to rebuild the ledger; if it does not, see its log";
            wrong(Severity::Warning, "journal", "the ledger does not reflect it", remedy)
        }
        _ => {
            let remedy = "see the scheduler's log; streams of RabbitMQ may be turned off: rabbitmqctl \
                          enable_feature_flag stream_queue, then restart the schedulers";
            let found = "none is kept: jobs would not survive a loss of Redis";
            wrong(Severity::Warning, "journal", found, remedy)
        }
    })
}

/// Checks for queues with jobs and without workers. Also returns the queues of all active jobs.
async fn workers(
    ledger: impl Ledger,
    settings: &Settings,
) -> Result<(Vec<Finding>, BTreeSet<String>), Failure> {
    let nodes = ledger.nodes().await?;
    let now = ledger.now().await?;
    let silent = |node: &NodeRecord| {
        let dead_after = node.info.terms.dead_after.unwrap_or(settings.dead_after);
        now.since(node.beat_at) > dead_after.saturating_mul(SILENCE)
    };
    let mut takers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut live = 0;
    for node in nodes.iter().filter(|node| node.info.state == NodeState::Active && !silent(node)) {
        live += 1;
        for queue in &node.info.queues {
            *takers.entry(queue).or_default() += 1;
        }
    }
    let jobs = Jobs::new(std::sync::Arc::new(ledger)).recent(0).await?;
    let busy: BTreeSet<String> =
        jobs.iter().filter(|job| !job.state.is_terminal()).map(|job| job.queue.clone()).collect();
    let mut found = vec![if live > 0 {
        fine("workers", format!("{live} beat"))
    } else {
        let remedy = "start one with `longshore worker`";
        wrong(Severity::Warning, "workers", "none beats", remedy)
    }];
    found.extend(terms(&nodes, settings));
    for queue in &busy {
        if !takers.contains_key(queue.as_str()) {
            let remedy = format!("start one with `longshore worker --queues {queue}`");
            let text = format!("jobs wait in queue `{queue}`, and no worker takes from it");
            found.push(wrong(Severity::Error, "workers.queue", text, &remedy));
        }
    }
    Ok((found, busy))
}

/// Names the workers whose heartbeat settings differ from these. Each worker is judged by its own
/// settings, so a difference may be intended, or an incomplete rollout.
fn terms(nodes: &[NodeRecord], settings: &Settings) -> Vec<Finding> {
    let ours = (settings.heartbeat, settings.dead_after);
    let mut others: BTreeMap<(Duration, Duration), Vec<&str>> = BTreeMap::new();
    for NodeRecord { info, .. } in nodes {
        let theirs = info.terms.heartbeat.zip(info.terms.dead_after);
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            others.entry(theirs).or_default().push(info.id.as_str());
        }
    }
    let text = |time: Duration| humantime::format_duration(time).to_string();
    let finding = |((heartbeat, dead_after), names): ((Duration, Duration), Vec<&str>)| {
        let who = match *names {
            [name] => format!("worker `{name}` sends"),
            [name, ..] => format!("{} workers (`{name}`, …) send", names.len()),
            [] => String::new(),
        };
        let found = format!(
            "{who} a heartbeat every {}, dead after {}; the settings here say {} and {}",
            text(heartbeat),
            text(dead_after),
            text(ours.0),
            text(ours.1),
        );
        let remedy = "each worker is judged by its own; if that is not meant, give all the same \
                      `heartbeat` and `dead_after`";
        wrong(Severity::Warning, "workers.terms", found, remedy)
    };
    others.into_iter().map(finding).collect()
}
