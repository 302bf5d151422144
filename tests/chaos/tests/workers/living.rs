//! Workers that live, whatever their connections and their settings look like from outside.

use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::link::Weather;
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, Reply, wait_until};
use serde_json::json;

use super::silence::{all_is_well, nothing_ran_twice};

/// Between cuts: more than a worker needs to replace its connections over the slow link.
const BETWEEN: Duration = Duration::from_secs(4);

#[test]
fn a_worker_behind_a_slow_link_whose_connections_are_cut_lives() {
    // All connections of a kind are cut, so nobody shares it.
    let redis = Redis::start();
    let mut crew = Crew::on(Rabbit::shared(), &redis);
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, 1);
    let link = crew.members[1].redis.as_ref().expect("there are links");
    link.set(Weather::slow(Duration::from_millis(80)));
    let round_trip = || {
        let keys = crew.ask_redis(&["KEYS", &format!("{}:node:*", crew.namespace())])?;
        let Reply::List(keys) = keys else { return None };
        let told = crew.ask_redis(&["HGET", &keys.first()?.text()?, "round_trip"])?;
        told.text()?.parse::<u64>().ok()
    };
    wait_until("it tells how far it is away", LONG, || round_trip() >= Some(160));
    let job = crew.submit(MARK, 2, &json!({"ms": 26_000}), &json!({"chunk": 1}));
    wait_until("it runs", LONG, || !crew.history().marks.is_empty());
    for _ in 0..3 {
        redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        sleep(BETWEEN);
    }
    // Also all at once, as a router does that forgets what it knew.
    for _ in 0..3 {
        link.reset();
        sleep(BETWEEN);
    }
    crew.await_end(job);
    assert_eq!(crew.field(job, "crashes"), "", "deaths told of a worker that lives");
    all_is_well(&crew);
    nothing_ran_twice(&crew, job, 2);
}

#[test]
fn a_worker_that_beats_more_rarely_than_a_scheduler_would_lives() {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.hire(Role::Scheduler, 1);
    crew.set("LONGSHORE_HEARTBEAT", "8s");
    crew.set("LONGSHORE_DEAD_AFTER", "24s");
    crew.hire(Role::Worker, 1);
    let job = crew.submit(MARK, 2, &json!({"ms": 9_000}), &json!({"chunk": 1}));
    crew.await_end(job);
    assert_eq!(crew.field(job, "crashes"), "", "deaths told of a worker that lives");
    all_is_well(&crew);
    nothing_ran_twice(&crew, job, 2);
}
