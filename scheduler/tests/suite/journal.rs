//! Schedulers rebuild a ledger that lost data from the journal, and a lost journal from the ledger.

use longshore_ledger::RetryParams;
use std::collections::BTreeMap;
use std::time::Duration;

use longshore_broker::{Link, Queue};
use longshore_ledger::memory::Snapshot;
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, OutcomeRun};
use tokio::time::{Instant, sleep};

use crate::outage::Health;
use crate::world::{Handler, World, succeed};

/// A loss is noticed within one second, and repaired within another.
const REBUILT_WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn usual(handler: Handler) -> World {
    let mut world = World::with_journal();
    world.start_scheduler("s0");
    world.start_worker("w0", "default", 4, handler);
    world.start_worker("w1", "default", 4, handler);
    world
}

/// An empty ledger.
pub(crate) fn nothing(world: &World) -> Snapshot {
    world.memory.snapshot()
}

/// Waits until schedulers have acknowledged every document.
pub(crate) async fn settled(world: &World) {
    let start = Instant::now();
    loop {
        let left = world.ledger.journal_position().await.unwrap();
        let written = world.broker.depth(&Queue::Journal).await.unwrap().unwrap().ready;
        if left.is_some_and(|place| place.offset + 1 == written) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the ledger's place stays behind");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until controls are in the journal: within one second after a read of the job has shown
/// them.
pub(crate) async fn journaled(world: &World) {
    sleep(Duration::from_secs(3)).await;
    settled(world).await;
}

pub(crate) async fn absent(world: &World, job: JobId) -> bool {
    world.ledger.job(job).await.unwrap().is_none()
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_wiped_is_rebuilt_and_all_jobs_end() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let over = world.submit(50, "").await;
    let before = world.succeeds(over).await;
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.push(world.submit(3_000 + number, r#","reduce":{"task":"sum","fan_in":4}"#).await);
    }
    let paused = world.submit(100, "").await;
    world.until(paused, "some work", |summary| summary.counts.done > 3).await;
    world.ledger.pause(paused).await.unwrap();
    journaled(&world).await;
    world.memory.restore(&empty);
    let wiped = Instant::now();
    let back = world.until_there(over).await;
    assert!(wiped.elapsed() < REBUILT_WITHIN, "{:?}", wiped.elapsed());
    assert_eq!((back.state, back.counts, back.attempts), (before.state, before.counts, 50));
    assert_eq!(back.finished_at, before.finished_at);
    assert!(back.error.is_some_and(|error| error.contains("results")), "it says what is gone");
    for job in jobs {
        let summary = world.succeeds(job).await;
        assert_eq!(summary.reduce.done, summary.reduce.total);
    }
    let rests = world.until_there(paused).await;
    assert_eq!((rests.state, rests.counts.waiting), (JobState::Paused, 100));
    world.ledger.resume(paused).await.unwrap();
    world.succeeds(paused).await;
    // The same document again is known: nothing runs.
    world.publish_again(over, 50, "").await;
    settled(&world).await;
    assert_eq!(world.ledger.job(over).await.unwrap().unwrap().attempts, 50);
    world.stop().await;
}

/// Wipes the ledger before the nth call of a scheduler that admits jobs. With `killed_after` the
/// scheduler is killed after this number of further calls.
async fn wiped_before(nth: u64, killed_after: Option<u64>) {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let (memory, outage) = (world.memory.clone(), world.outage.clone());
    world.outage.before_call(nth, move || {
        memory.restore(&empty);
        if let Some(calls) = killed_after {
            let gone = outage.clone();
            outage.before_call(calls, move || gone.set_ledger(Health::Away));
        }
    });
    let mut jobs = BTreeMap::new();
    for number in 0..3 {
        jobs.insert(world.submit(4 + number, "").await, 4 + number);
    }
    if killed_after.is_some() {
        let start = Instant::now();
        while !world.outage.is_away() && start.elapsed().as_secs() < 20 {
            sleep(Duration::from_millis(10)).await;
        }
        world.kill_scheduler().await;
        world.outage.set_ledger(Health::Well);
        world.start_scheduler("s1");
    }
    for (job, total) in jobs {
        let summary = world.terminal(job, &format!("wiped before {nth}, {killed_after:?}")).await;
        assert_eq!(summary.state, JobState::Succeeded);
        assert_eq!((summary.counts.done, summary.counts.imbalance()), (total, 0));
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_be_wiped_before_any_call() {
    for nth in 0..120 {
        wiped_before(nth, None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_may_die_at_any_step_of_a_rebuild() {
    for nth in [12, 25, 40, 55] {
        for killed_after in 0..40 {
            wiped_before(nth, Some(killed_after)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_rolled_back_gets_the_later_changes() {
    let mut world = usual(succeed);
    world.start_scheduler("s1");
    let early = world.submit(20, "").await;
    world.succeeds(early).await;
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(world.submit(100_000, "").await);
    }
    let [cancelled, paused, resumed] = long[..] else { unreachable!("three") };
    for job in long {
        world.until(job, "some work", |summary| summary.counts.done > 10).await;
    }
    world.ledger.pause(resumed).await.unwrap();
    journaled(&world).await;
    let then = world.memory.snapshot();
    world.ledger.cancel(cancelled).await.unwrap();
    world.ledger.pause(paused).await.unwrap();
    world.ledger.resume(resumed).await.unwrap();
    let late = world.submit(30, "").await;
    let ended = world.submit(5, "").await;
    world.succeeds(ended).await;
    world.until_there(late).await;
    journaled(&world).await;
    world.memory.restore(&then);
    let rolled_back = Instant::now();
    assert!(absent(&world, late).await && absent(&world, ended).await);
    let ended = world.until_there(ended).await;
    assert_eq!((ended.state, ended.counts.done), (JobState::Succeeded, 5));
    world.succeeds(late).await;
    world.until(cancelled, "the end", |summary| summary.state == JobState::Cancelled).await;
    world.until(paused, "the pause", |summary| summary.state == JobState::Paused).await;
    world.until(resumed, "going on", |summary| summary.state != JobState::Paused).await;
    assert!(rolled_back.elapsed() < REBUILT_WITHIN, "{:?}", rolled_back.elapsed());
    let early = world.ledger.job(early).await.unwrap().unwrap();
    assert_eq!((early.attempts, early.error), (20, None), "it was not touched");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_less_than_a_second_is_noticed_too() {
    // The admitted job is lost before the ledger's position in the journal has moved.
    for wait in [0, 5, 50, 500, 990] {
        let world = usual(succeed);
        let first = world.submit(3, "").await;
        world.succeeds(first).await;
        settled(&world).await;
        let then = world.memory.snapshot();
        let job = world.submit(40, "").await;
        world.until_there(job).await;
        sleep(Duration::from_millis(wait)).await;
        world.memory.restore(&then);
        world.terminal(job, &format!("rolled back after {wait} ms")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn schedulers_that_start_with_an_empty_ledger_rebuild_it() {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(2_000, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 100).await;
    settled(&world).await;
    world.kill_scheduler().await;
    world.memory.restore(&empty);
    for name in ["s1", "s2"] {
        world.start_scheduler(name);
    }
    world.until_there(job).await;
    assert_eq!(world.succeeds(job).await.generation, 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_journal_is_begun_again_from_the_ledger() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let over = world.submit(7, "").await;
    world.succeeds(over).await;
    let (job, paused) = (world.submit(3_000, "").await, world.submit(10, "").await);
    world.until_there(paused).await;
    world.ledger.pause(paused).await.unwrap();
    for _ in 0..2 {
        settled(&world).await;
        world.broker.purge(&Queue::Journal).await.unwrap();
        settled(&world).await;
    }
    world.memory.restore(&empty);
    world.succeeds(job).await;
    assert_eq!(world.until_there(over).await.state, JobState::Succeeded);
    assert_eq!(world.until_there(paused).await.state, JobState::Paused);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reopened_job_runs_again_after_a_loss() {
    fn failing(_: u64, _: u32) -> OutcomeRun {
        OutcomeRun::Failed { error: "broken".into() }
    }
    // The records of the job in the old journal, and in a new one.
    for journal_is_lost in [false, true] {
        let world = usual(failing);
        let empty = nothing(&world);
        let job = world.submit(6, r#","deadline":"4s""#).await;
        let first = world.ended(job).await;
        assert_eq!((first.state, first.attempts), (JobState::Failed, 6));
        settled(&world).await;
        // A re-opened job has no deadline any more.
        sleep(Duration::from_secs(5)).await;
        world.ledger.pause(job).await.unwrap_err();
        world.ledger.retry(job, &RetryParams::all()).await.unwrap();
        world.ledger.pause(job).await.unwrap();
        journaled(&world).await;
        if journal_is_lost {
            world.broker.purge(&Queue::Journal).await.unwrap();
            settled(&world).await;
        }
        world.memory.restore(&empty);
        let back = world.until_there(job).await;
        assert_eq!((back.state, back.counts.waiting), (JobState::Paused, 6));
        assert_eq!(back.deadline_at, None);
        world.ledger.resume(job).await.unwrap();
        let last = world.ended(job).await;
        assert_eq!((last.state, last.counts.failed), (JobState::Failed, 6), "{:?}", last.error);
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_job_is_not_restored() {
    // Also with a `keep_for` of zero.
    for fields in ["", r#","keep_for":"0s""#] {
        let world = usual(succeed);
        for _ in 0..20 {
            let job = world.submit(1, fields).await;
            world.terminal(job, "a small job").await;
            world.ledger.delete(job).await.unwrap();
            sleep(Duration::from_millis(130)).await;
            assert!(absent(&world, job).await);
        }
        sleep(Duration::from_secs(70)).await;
        assert_eq!(world.ledger.active_jobs().await.unwrap(), []);
        assert_eq!(world.ledger.finished_jobs(99).await.unwrap(), []);
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn work_continues_without_a_writable_journal_and_is_journaled_later() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let first = world.submit(3, "").await;
    world.succeeds(first).await;
    settled(&world).await;
    world.outage.set_journal(Link::Down);
    let mut jobs = Vec::new();
    for _ in 0..100 {
        jobs.push(world.submit(2, "").await);
    }
    for job in &jobs {
        world.succeeds(*job).await;
    }
    let long = world.submit(200_000, "").await;
    world.until_there(long).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.ledger.active_jobs().await.unwrap(), [long], "the others are archived");
    world.outage.set_journal(Link::Up);
    settled(&world).await;
    sleep(Duration::from_secs(15)).await;
    settled(&world).await;
    assert!(!world.ledger.job(long).await.unwrap().unwrap().state.is_terminal());
    world.memory.restore(&empty);
    world.until_there(long).await;
    assert_eq!(world.until_there(jobs[99]).await.state, JobState::Succeeded);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_the_journal_position_between_two_schedulers_loses_nothing() {
    // The position is rolled back while one of two schedulers has read only half of it.
    for wait in 0..25 {
        let mut world = usual(succeed);
        world.start_scheduler("s1");
        let first = world.submit(20, "").await;
        world.succeeds(first).await;
        settled(&world).await;
        let then = world.memory.snapshot();
        let job = world.submit(5, "").await;
        world.succeeds(job).await;
        settled(&world).await;
        sleep(Duration::from_millis(wait * 40)).await;
        world.memory.restore(&then);
        world.terminal(job, &format!("rolled back {wait} times 40 ms later")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_before_the_loss_and_is_submitted_again_is_known() {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(50, "").await;
    world.succeeds(job).await;
    settled(&world).await;
    world.kill_scheduler().await;
    world.memory.restore(&empty);
    // The document is in the queue when the scheduler starts, which can't read the journal to its
    // end for a while.
    world.publish_again(job, 50, "").await;
    world.outage.set_journal(Link::Down);
    world.start_scheduler("s1");
    sleep(Duration::from_secs(3)).await;
    assert!(absent(&world, job).await, "it was admitted before anybody could know");
    world.outage.set_journal(Link::Up);
    let back = world.until_there(job).await;
    assert_eq!((back.state, back.attempts), (JobState::Succeeded, 50));
    journaled(&world).await;
    assert_eq!(world.until_there(job).await, back, "nothing has run");
    world.stop().await;
}
