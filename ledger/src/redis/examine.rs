//! The checks of Redis in `longshore doctor`: access, functions, writes, clock, version, memory.
//!
//! It also checks persistence and eviction. Each check gives one finding, with the remedy.

use longshore_protocol::{ErrorKind, Finding, JobId, Severity};
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Value, cmd};

use super::RedisLedger;
use super::jobs::clock_millis;
use super::library::{LIBRARY, NAME};
use super::reply::{Reply, word};
use super::transport::Failure;
use crate::remedy::remedy;
use crate::{Error, Ledger, OpenParams};

const OPERATION: &str = "examine";
const OLDEST: (u32, u32) = (7, 0);
/// The largest difference between the clocks of this machine and of Redis that does not mislead
/// people who compare times.
const MOST_CLOCK_OFFSET: Duration = Duration::from_secs(2);

fn finding(severity: Severity, check: &str, found: String, remedy: &str) -> Finding {
    Finding { severity, check: format!("redis.{check}"), found, remedy: remedy.to_owned() }
}

impl RedisLedger {
    pub(super) async fn examine_redis(&self) -> Vec<Finding> {
        let started = Instant::now();
        let ping = self.transport().run_anywhere(&cmd("PING")).await;
        match ping {
            Err(failure) => vec![self.unreachable(&failure)],
            Ok(_) => {
                let found = format!("{} in {:.1?}", self.transport().address(), started.elapsed());
                let mut findings = vec![finding(Severity::Ok, "reachable", found, "")];
                let functions = self.functions().await;
                let has_functions = functions.severity != Severity::Error;
                findings.push(functions);
                if has_functions {
                    findings.push(self.writes().await);
                }
                findings.push(self.clock().await);
                match self.info().await {
                    Ok(info) => {
                        findings.push(version(&info));
                        findings.push(self.persistence(&info).await);
                        findings.push(eviction(&info));
                        findings.push(memory(&info));
                    }
                    Err(failure) => findings.push(finding(
                        Severity::Warning,
                        "version",
                        format!("can't be told: {}", failure.reason()),
                        "allow this user INFO, or run doctor as a user that may",
                    )),
                }
                findings
            }
        }
    }

    fn unreachable(&self, failure: &Failure) -> Finding {
        let found = format!("{}: {}", self.transport().address(), failure.reason());
        let check = match failure.kind() {
            ErrorKind::BadCertificate => "certificate",
            kind if kind.is_refusal() => "auth",
            _ => "reachable",
        };
        let remedy = remedy(failure.kind()).unwrap_or(match failure.kind() {
            ErrorKind::BadCertificate => "see the section on TLS in docs/redis.md",
            _ => "start Redis, or correct redis_url; check the network and firewalls between",
        });
        finding(Severity::Error, check, found, remedy)
    }

    /// Opens chunks of a job that can't exist: nothing is written, but Redis checks the rights to
    /// write.
    async fn writes(&self) -> Finding {
        let open = OpenParams::new(1, 1, Duration::ZERO);
        match self.open(JobId::NIL, &open).await {
            Ok(_) => finding(Severity::Ok, "writes", "accepted".into(), ""),
            Err(error) => {
                let remedy = error.remedy().unwrap_or("see Redis's log");
                let found = match error {
                    Error::Unavailable { address, reason, .. } => format!("{address}: {reason}"),
                    other => other.to_string(),
                };
                finding(Severity::Error, "writes", found, remedy)
            }
        }
    }

    async fn functions(&self) -> Finding {
        match self.loaded_digest().await {
            Ok(Some(digest)) if digest == LIBRARY.digest => {
                let found = format!("{NAME} {}", &digest[..12]);
                finding(Severity::Ok, "functions", found, "")
            }
            Ok(Some(digest)) => finding(
                Severity::Warning,
                "functions",
                format!(
                    "{NAME} is {}, this build brings {}",
                    short(&digest),
                    &LIBRARY.digest[..12]
                ),
                "restart a scheduler of this version; it loads the functions when it starts",
            ),
            Ok(None) => finding(
                Severity::Error,
                "functions",
                format!("{NAME} is missing"),
                "start a scheduler; it loads the functions when it starts",
            ),
            Err(failure) => finding(
                Severity::Error,
                "functions",
                failure.reason(),
                "allow this user fcall and fcall_ro",
            ),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "comparing clocks is what this is for")]
    async fn clock(&self) -> Finding {
        let before = SystemTime::now();
        let time = self.transport().run_anywhere(&cmd("TIME")).await;
        let after = SystemTime::now();
        let theirs = match time.map(|time| clock_millis(OPERATION, time)) {
            Ok(Ok(millis)) => UNIX_EPOCH + Duration::from_millis(millis),
            Ok(Err(error)) => {
                let remedy = "check that redis_url leads to Redis or Valkey";
                return finding(Severity::Warning, "clock", error.to_string(), remedy);
            }
            Err(failure) => {
                return finding(
                    Severity::Warning,
                    "clock",
                    failure.reason(),
                    "allow this user TIME",
                );
            }
        };
        clock_offset(before, theirs, after)
    }

    async fn info(&self) -> Result<HashMap<String, String>, Failure> {
        let info = self.transport().run_anywhere(&cmd("INFO")).await?;
        let text = word(OPERATION, info).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    async fn persistence(&self, info: &HashMap<String, String>) -> Finding {
        if info.get("aof_enabled").map(String::as_str) != Some("1") {
            return finding(
                Severity::Warning,
                "persistence",
                "no append-only file: a restart of Redis loses jobs".into(),
                "set `appendonly yes`, and `appendfsync always` or `everysec`, in redis.conf",
            );
        }
        let mut ask = cmd("CONFIG");
        ask.arg("GET").arg("appendfsync");
        let answer = self.transport().run_anywhere(&ask).await.unwrap_or(Value::Nil);
        let words = match answer {
            Value::Map(pairs) => {
                pairs.into_iter().filter_map(|(_, value)| word(OPERATION, value).ok()).collect()
            }
            list => Reply::list(OPERATION, list).and_then(Reply::words).unwrap_or_default(),
        };
        match words.last().map(String::as_str) {
            Some("no") => finding(
                Severity::Warning,
                "persistence",
                "appendfsync no: a power cut loses what the operating system had not written"
                    .into(),
                "set `appendfsync always` or `everysec` in redis.conf",
            ),
            Some(sync) => finding(Severity::Ok, "persistence", format!("appendfsync {sync}"), ""),
            None => {
                let found = "append-only file is on; this user may not read how it is flushed";
                finding(Severity::Ok, "persistence", found.into(), "")
            }
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn clock_offset(before: SystemTime, theirs: SystemTime, after: SystemTime) -> Finding {
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    // Any time within the round trip is right. The answer is in whole milliseconds.
    let ahead = apart(theirs, after);
    let behind = apart(before, theirs).saturating_sub(Duration::from_millis(1));
    let (offset, direction) = if ahead > behind { (ahead, "ahead") } else { (behind, "behind") };
    let found = format!("{:.1} s {direction}", offset.as_secs_f64());
    if offset > MOST_CLOCK_OFFSET {
        let remedy = "synchronise the clocks of this machine and of Redis's (NTP)";
        return finding(Severity::Warning, "clock", found, remedy);
    }
    finding(Severity::Ok, "clock", found, "")
}

fn version(info: &HashMap<String, String>) -> Finding {
    let product = if info.contains_key("valkey_version") { "Valkey" } else { "Redis" };
    let version = info.get("redis_version").map_or("", String::as_str);
    let own = info.get("valkey_version").map_or(version, String::as_str);
    let found = format!("{product} {own}");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if (major, minor) < OLDEST {
        return finding(
            Severity::Error,
            "version",
            found,
            "upgrade to Redis 7.0 or later, or Valkey; functions came with 7.0",
        );
    }
    finding(Severity::Ok, "version", found, "")
}

fn eviction(info: &HashMap<String, String>) -> Finding {
    let policy = info.get("maxmemory_policy").map_or("", String::as_str);
    if policy == "noeviction" {
        return finding(Severity::Ok, "eviction", policy.to_owned(), "");
    }
    finding(
        Severity::Error,
        "eviction",
        format!("maxmemory-policy {policy}: under memory pressure Redis deletes jobs"),
        "set `maxmemory-policy noeviction` in redis.conf",
    )
}

fn memory(info: &HashMap<String, String>) -> Finding {
    let number =
        |name: &str| info.get(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    let human = |name: &str| info.get(name).cloned().unwrap_or_default();
    let (used, limit) = (number("used_memory"), number("maxmemory"));
    let used_human = human("used_memory_human");
    if limit == 0 {
        return finding(Severity::Ok, "memory", format!("{used_human} used, no limit"), "");
    }
    let found = format!("{used_human} of {} used", human("maxmemory_human"));
    // At the limit every write is refused, including commits.
    if used > limit / 10 * 9 {
        return finding(Severity::Warning, "memory", found, "raise maxmemory, or delete old jobs");
    }
    finding(Severity::Ok, "memory", found, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check(finding: &Finding, severity: Severity, wanted: &str) {
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(finding.found.contains(wanted), "{finding:?}");
        assert_eq!(finding.remedy.is_empty(), severity == Severity::Ok, "{finding:?}");
    }

    #[test]
    fn redis_older_than_seven_is_an_error() {
        check(&version(&info(&[("redis_version", "6.2.14")])), Severity::Error, "Redis 6.2.14");
        check(&version(&info(&[("redis_version", "7.0.15")])), Severity::Ok, "Redis 7.0.15");
        let valkey = info(&[("redis_version", "7.2.4"), ("valkey_version", "8.1.1")]);
        check(&version(&valkey), Severity::Ok, "Valkey 8.1.1");
    }

    #[test]
    fn a_redis_that_evicts_is_an_error() {
        let evicting = info(&[("maxmemory_policy", "allkeys-lru")]);
        check(&eviction(&evicting), Severity::Error, "allkeys-lru");
        check(&eviction(&info(&[("maxmemory_policy", "noeviction")])), Severity::Ok, "noeviction");
    }

    #[test]
    fn memory_near_its_limit_is_a_warning() {
        let full = info(&[("used_memory", "95"), ("maxmemory", "100")]);
        check(&memory(&full), Severity::Warning, "of");
        let free = info(&[("used_memory", "95"), ("maxmemory", "0")]);
        check(&memory(&free), Severity::Ok, "no limit");
    }

    #[test]
    fn clocks_more_than_two_seconds_apart_are_a_warning() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        check(&clock_offset(at(10_000), at(10_005), at(10_010)), Severity::Ok, "0.0 s");
        check(&clock_offset(at(10_000), at(12_500), at(10_010)), Severity::Warning, "2.5 s ahead");
        check(&clock_offset(at(10_000), at(6_000), at(10_010)), Severity::Warning, "4.0 s behind");
    }
}
