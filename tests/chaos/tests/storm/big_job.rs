//! One big job of short subtasks, with something happening to the crew every second.

use std::time::Duration;

use longshore_chaos::crew::Role;
use longshore_chaos::inquest::Course;
use longshore_chaos::nemesis::{Deck, Mishap, mishaps};
use longshore_chaos::tasks::MARK;
use serde_json::json;

use crate::Storm;

const SLOTS: u32 = 8;

#[test]
fn a_big_job_is_done_to_the_last_subtask_while_the_crew_is_struck_and_rabbitmq_wiped_twice() {
    // A short run has time for little more than the two wipes, each of which takes ten seconds and more on a loaded machine.
    let seen = ride(Duration::from_secs(35), &[Mishap::RabbitWipe; 2], mishaps());
    assert!(seen("RabbitWipe") >= 2, "RabbitMQ was wiped {} times", seen("RabbitWipe"));
}

#[test]
fn a_big_job_is_done_to_the_last_subtask_while_the_crew_is_struck_and_redis_wiped() {
    let mut rest = mishaps();
    rest.retain(|mishap| !matches!(mishap, Mishap::RabbitWipe));
    let seen = ride(Duration::from_secs(10), &[Mishap::Flushall], rest);
    assert_eq!(seen("Flushall"), 1);
}

/// Goes through these mishaps, first and then, with a big job; tells how often each was seen.
fn ride(least: Duration, first: &[Mishap], then: Vec<Mishap>) -> impl Fn(&str) -> usize {
    let course = Course::from_env(least);
    let total = if course.is_long { 1_000_000 } else { 50_000 };
    let mut storm = Storm::gather(course, SLOTS, [Role::Worker; 4]);
    // So short that the job lasts about as long as the nemesis stays; twice as long in a short run, since the nemesis may take
    // its time to come. A millisecond is what a short sleep costs more.
    let lasts = if course.is_long { course.length } else { 2 * course.length };
    let ms = (lasts * 4 * SLOTS / total).as_millis().saturating_sub(1).max(1) as u64;
    let job = storm.crew.submit(MARK, total.into(), &json!({"ms": ms}), &json!({}));
    storm.crew.await_done(job, 100);
    let before = storm.baseline();
    let deck = Deck::new(then, course.seed).after(first);
    let begun = storm.crew.done(job);
    let mishaps = storm.rage(deck, |_, _| {});
    let done = storm.crew.done(job);
    println!("done: {begun} when the nemesis came, {done} of {total} when it left");
    storm.judge(&before);
    move |mishap| mishaps.lines.iter().filter(|line| line.contains(mishap)).count()
}
