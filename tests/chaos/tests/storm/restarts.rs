//! A new version is rolled out: everybody is stopped cleanly and started again, one after the other, under load.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;

/// Subtasks of 20 ms in a chunk of automatic size, which aims at a quarter of a second.
const MOST_A_CHUNK: u64 = 13;

#[test]
fn a_rolling_restart_of_everything_under_load_runs_nothing_twice() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut crew = Crew::on(&rabbit, &redis);
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 2);
    crew.hire(Role::Worker, 2);
    crew.hire(Role::Server, 2);
    let total = 4_000;
    let job = crew.submit(MARK, total, &json!({"ms": 20}), &json!({}));
    crew.await_done(job, 100);
    for number in 0..crew.members.len() {
        let done = crew.done(job);
        crew.members[number].ask_to_leave();
        wait_until("it has left", LONG, || !crew.members[number].is_running());
        crew.members[number].start_again();
        crew.await_done(job, (done + 50).min(total));
    }
    redis.restart();
    rabbit.restart();
    crew.await_end(job);
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    let twice = history.starts().values().filter(|count| **count > 1).count() as u64;
    // Where a restart takes long an idle worker may run the last of the job as well.
    let copies = crew.copies(&history);
    assert!(
        twice <= MOST_A_CHUNK * copies,
        "of {total} subtasks {twice} ran twice; {copies} chunks were copied"
    );
}
