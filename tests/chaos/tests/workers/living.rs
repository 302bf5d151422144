//! Living workers with slow or broken connections or long heartbeats are not declared lost.

use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::link::LinkState;
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, Reply, wait_until};
use serde_json::json;

use super::silence::{check_all_jobs, nothing_ran_twice};

/// The time between two cuts: more than a worker needs to replace its connections over the slow
/// link.
const BETWEEN: Duration = Duration::from_secs(4);

#[test]
fn a_worker_with_a_slow_link_and_cut_connections_is_not_declared_lost() {
    // All connections of a kind are cut, so the test has a Redis of its own.
    let redis = Redis::start();
    let mut cluster = Cluster::on(Rabbit::shared(), &redis);
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, 1);
    let link = cluster.members[1].redis.as_ref().expect("there are links");
    link.set(LinkState::slow(Duration::from_millis(80)));
    let round_trip = || {
        let keys = cluster.ask_redis(&["KEYS", &format!("{}:node:*", cluster.namespace())])?;
        let Reply::List(keys) = keys else { return None };
        let reported = cluster.ask_redis(&["HGET", &keys.first()?.text()?, "round_trip"])?;
        reported.text()?.parse::<u64>().ok()
    };
    wait_until("it reports its round trip", LONG, || round_trip() >= Some(160));
    let job = cluster.submit(MARK, 2, &json!({"ms": 26_000}), &json!({"chunk": 1}));
    wait_until("it runs", LONG, || !cluster.history().marks.is_empty());
    for _ in 0..3 {
        redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        sleep(BETWEEN);
    }
    // Also all at once, like a router that has lost its state.
    for _ in 0..3 {
        link.reset();
        sleep(BETWEEN);
    }
    cluster.await_end(job);
    assert_eq!(cluster.field(job, "crashes"), "", "deaths of a living worker were reported");
    check_all_jobs(&cluster);
    nothing_ran_twice(&cluster, job, 2);
}

#[test]
fn a_worker_with_longer_settings_than_the_schedulers_is_not_declared_lost() {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.add(Role::Scheduler, 1);
    cluster.set("LONGSHORE_HEARTBEAT", "8s");
    cluster.set("LONGSHORE_DEAD_AFTER", "24s");
    cluster.add(Role::Worker, 1);
    let job = cluster.submit(MARK, 2, &json!({"ms": 9_000}), &json!({"chunk": 1}));
    cluster.await_end(job);
    assert_eq!(cluster.field(job, "crashes"), "", "deaths of a living worker were reported");
    check_all_jobs(&cluster);
    nothing_ran_twice(&cluster, job, 2);
}
