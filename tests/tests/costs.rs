//! Limits the number of Redis calls of a job, which does not depend on the load of the machine.
//!
//! Each limit is about twice the measured number; the regressions that it guards against cost
//! several times as much.

#![expect(clippy::print_stdout, reason = "the counts are for people: --nocapture shows them")]

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, RedisOptions, Reply};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);

/// A fleet of one scheduler and one worker on a Redis that logs every command.
struct Counted {
    redis: Redis,
    fleet: Fleet,
}

impl Counted {
    fn start() -> Self {
        let lines = ["slowlog-log-slower-than 0", "slowlog-max-len 1000000"];
        let lines = lines.map(str::to_owned).to_vec();
        let redis = Redis::start_with(&RedisOptions { lines, ..RedisOptions::default() });
        let mut fleet = Fleet::on(Rabbit::shared(), &redis);
        fleet.add_scheduler();
        fleet.add_worker(&["--slots", "2"]);
        fleet.await_workers(1);
        Self { redis, fleet }
    }

    /// The number of calls of each function for a job.
    fn calls(&self, document: &Value) -> BTreeMap<String, u64> {
        self.redis.call(&["SLOWLOG", "RESET"]);
        let job = self.fleet.submit(document);
        let status = self.fleet.await_end(&job, LONG);
        assert_eq!(status["state"], "succeeded", "{status}");
        let Reply::List(entries) = self.redis.call(&["SLOWLOG", "GET", "-1"]) else {
            panic!("a slow log is a list");
        };
        let mut calls = BTreeMap::new();
        for entry in entries {
            let Reply::List(mut fields) = entry else { panic!("{entry:?}") };
            let Reply::List(command) = fields.swap_remove(3) else { panic!("{fields:?}") };
            let words: Vec<String> = command.iter().filter_map(Reply::text).collect();
            let is_of_job = words.iter().any(|word| word.contains(&job));
            let function = words.get(1).and_then(|word| word.strip_prefix("longshore_"));
            if let Some(function) = function.filter(|_| is_of_job) {
                *calls.entry(function.to_owned()).or_default() += 1;
            }
        }
        calls
    }
}

/// Checks that these functions were called at most this often. Others may be called by the client
/// that waits for the job.
#[track_caller]
fn at_most(calls: &BTreeMap<String, u64>, bounds: &[(&str, u64)]) {
    println!("{calls:?}");
    for (function, most) in bounds {
        let count = calls.get(*function).copied().unwrap_or_default();
        assert!(count <= *most, "{function}: {count} calls, at most {most}; {calls:?}");
    }
}

fn range(total: u64, more: &Value) -> Value {
    let mut document = json!({"task": "noop", "split": {"by": "range", "start": 0, "end": total}});
    for (name, value) in more.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
    document
}

#[test]
fn a_job_costs_few_calls() {
    let counted = Counted::start();
    let one = counted.calls(&range(1, &json!({})));
    at_most(&one, &[("admit", 1), ("open", 2), ("claim", 1), ("commit", 1), ("release", 0)]);

    let million = counted.calls(&range(1_000_000, &json!({"results": "discard"})));
    at_most(&million, &[("open", 300), ("claim", 300), ("commit", 400), ("release", 10)]);

    let single = counted.calls(&range(3_000, &json!({"chunk": 1})));
    at_most(&single, &[("open", 1_000), ("claim", 1_500), ("commit", 1_500), ("release", 30)]);
}
