//! The master of Redis dies, and sentinels promote its replica, which may lack the last writes.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, RedisSentinel, wait_until};
use serde_json::json;

#[test]
fn a_fail_over_of_redis_loses_no_subtask() {
    let mut sentinels = RedisSentinel::start();
    let mut crew = Crew::behind(Rabbit::shared(), &sentinels);
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 2);
    crew.hire(Role::Worker, 3);
    let job = crew.submit(MARK, 1_500, &json!({"ms": 10}), &json!({}));
    crew.await_done(job, 100);
    let first = sentinels.master_port();
    sentinels.master().kill9();
    wait_until("the replica is promoted", LONG, || sentinels.master_port() != first);
    crew.await_end(job);
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
}
