//! A fail-over of Redis to a replica, which may lack the last writes, loses no subtask.
//!
//! The master dies, and sentinels promote its replica.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, RedisSentinel, wait_until};
use serde_json::json;

#[test]
fn a_fail_over_of_redis_loses_no_subtask() {
    let mut sentinels = RedisSentinel::start();
    let mut cluster = Cluster::behind(Rabbit::shared(), &sentinels);
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 2);
    cluster.add(Role::Worker, 3);
    let job = cluster.submit(MARK, 1_500, &json!({"ms": 10}), &json!({}));
    cluster.await_done(job, 100);
    let first = sentinels.master_port();
    sentinels.master().kill9();
    wait_until("the replica is promoted", LONG, || sentinels.master_port() != first);
    cluster.await_end(job);
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
}
