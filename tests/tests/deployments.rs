//! Jobs run with Redis as a cluster or behind sentinels, with quorum queues, and with placements.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, RedisCluster, RedisSentinel};
use longshore_tests::Fleet;
use serde_json::{Value, json};

/// Runs a job with a reduce and several chunks, which uses every key of a job.
#[track_caller]
fn runs_a_job(fleet: &mut Fleet) {
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let items: Vec<Value> = (0..500).map(|n| json!([n, 1])).collect();
    let job = fleet.submit(&json!({
        "task": "sum",
        "split": {"by": "items", "items": items},
        "reduce": {"task": "sum", "fan_in": 8},
        "chunk": 20,
    }));
    let status = fleet.await_end(&job, Duration::from_secs(60));
    assert_eq!(status["state"], "succeeded", "{status}");
    assert_eq!(fleet.longshore(&["results", &job]).ok(), "125250\n");
    fleet.audit(&job);
}

#[test]
fn redis_may_be_a_cluster() {
    let cluster = RedisCluster::start(3);
    runs_a_job(&mut Fleet::at(&Rabbit::shared().url(), &cluster.url()));
}

#[test]
fn redis_may_be_behind_sentinels() {
    let sentinel = RedisSentinel::start();
    runs_a_job(&mut Fleet::at(&Rabbit::shared().url(), &sentinel.url()));
}

#[test]
fn work_queues_may_be_quorum_queues() {
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    fleet.set("LONGSHORE_WORK_QUEUES", "quorum");
    runs_a_job(&mut fleet);
}

/// Runs 60 subtasks on three workers; returns the node that ran each input.
fn placed(placement: &Value) -> Vec<(u64, String)> {
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile().expect("room for it");
    let task = "[task.where]\ncommand = [\"sh\", \"-c\", \"echo $LONGSHORE_NODE\"]\n";
    config.write_all(task.as_bytes()).expect("room for it");
    let path = config.path().to_str().expect("a plain name");
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    fleet.add_scheduler();
    for _ in 0..3 {
        fleet.add_worker(&["--slots", "2", "--config", path]);
    }
    fleet.await_workers(3);
    let items: Vec<Value> = (0..60).map(|n| json!({"customer": n % 12})).collect();
    let job = fleet.submit(&json!({
        "task": "where",
        "split": {"by": "items", "items": items},
        "placement": placement,
        "chunk": 1,
    }));
    let status = fleet.await_end(&job, Duration::from_secs(60));
    assert_eq!(status["state"], "succeeded", "{status}");
    let nodes = fleet.longshore(&["results", &job]).ok();
    let node = |line: &str| serde_json::from_str(line).expect("a name");
    nodes.lines().enumerate().map(|(n, line)| (n as u64 % 12, node(line))).collect()
}

#[test]
fn round_robin_gives_each_node_its_turn() {
    let mut turns: BTreeMap<String, usize> = BTreeMap::new();
    for (_, node) in placed(&json!("round_robin")) {
        *turns.entry(node).or_default() += 1;
    }
    assert_eq!(turns.values().copied().collect::<Vec<_>>(), [20, 20, 20], "{turns:?}");
}

#[test]
fn a_hash_keeps_inputs_with_the_same_key_on_one_node() {
    let mut homes: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (customer, node) in placed(&json!({"hash": "/customer"})) {
        homes.entry(customer).or_default().insert(node);
    }
    let nodes: BTreeSet<&String> = homes.values().flatten().collect();
    assert!(nodes.len() > 1, "twelve customers spread over the nodes: {homes:?}");
    // Bounded load may move a customer when its node is full, so most of them stay on one node, not
    // all.
    let at_home = homes.values().filter(|nodes| nodes.len() == 1).count();
    assert!(at_home >= 8, "{at_home} of 12 customers stayed on one node: {homes:?}");
}
