//! A subtask that takes its worker down with it.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::tasks::{POISON, POISONED};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};

/// The most workers that one poisoned subtask may cost: two until its chunk is cut, one for each further cut that it is in, and
/// three with it alone.
const MOST_DEATHS: usize = 8;

#[test]
fn a_poisoned_subtask_fails_alone_and_costs_few_workers() {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, 4);
    let job = crew.submit(POISON, 100_000, &json!({}), &json!({}));
    let mut deaths = 0;
    wait_until("the poisoned job ends", LONG, || {
        let dead = crew.members.iter_mut().filter(|member| !member.is_running());
        for member in dead {
            member.start_again();
            deaths += 1;
        }
        crew.field(job, "state") == "failed"
    });
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    assert!((1..=MOST_DEATHS).contains(&deaths), "it cost {deaths} workers");
    let errors = crew.longshore(&["errors", &job.to_string(), "--json"]).ok();
    let errors: Vec<Value> =
        errors.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["index"], POISONED);
}
