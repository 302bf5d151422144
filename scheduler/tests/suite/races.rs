//! The ledger loses data between any two steps of an admission, a start or a rebuild.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_broker::{Link, Queue};
use longshore_protocol::JobId;
use longshore_protocol::state::JobState;
use tokio::time::{Instant, sleep};

use crate::journal::{journaled, nothing, settled, usual};
use crate::outage::Health;
use crate::world::{World, succeed};

/// More subtasks than the workers finish in a test.
const ENDLESS: u64 = 1_000_000;

/// Injects faults into the ledger, each a number of schedulers' calls after the one before.
struct Faults(Arc<AtomicU32>);

type Fault = Box<dyn FnOnce() + Send>;

impl Faults {
    fn before(world: &World, faults: Vec<(u64, Fault)>) -> Self {
        fn chain(
            outage: &crate::outage::Outage,
            mut rest: std::vec::IntoIter<(u64, Fault)>,
            left: Arc<AtomicU32>,
        ) {
            let Some((calls, fault)) = rest.next() else { return };
            let later = outage.clone();
            outage.before_call(calls, move || {
                fault();
                left.fetch_sub(1, Ordering::Relaxed);
                chain(&later, rest, left);
            });
        }
        let left = Arc::new(AtomicU32::new(faults.len() as u32));
        chain(&world.outage, faults.into_iter(), left.clone());
        Self(left)
    }

    /// Waits until all faults were injected.
    async fn injected(self) {
        let start = Instant::now();
        while self.0.load(Ordering::Relaxed) > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "there are no more calls");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A job that keeps running, on one slot, because simulated work costs real time.
async fn running(world: &World) -> JobId {
    let job = world.submit(ENDLESS, r#","max_parallel":1"#).await;
    world.until(job, "some work", |summary| summary.counts.done > 3).await;
    job
}

#[track_caller]
fn state<'a>(world: &'a World, job: JobId, state: JobState, what: &'a str) -> impl Future + 'a {
    world.until(job, what, move |summary| summary.state == state)
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_be_wiped_again_at_any_step_of_a_rebuild() {
    for again in 0..60 {
        let world = usual(succeed);
        let empty = Arc::new(nothing(&world));
        let over = world.submit(3, "").await;
        world.succeeds(over).await;
        let job = running(&world).await;
        settled(&world).await;
        let wipe = || -> Fault {
            let (memory, empty) = (world.memory.clone(), empty.clone());
            Box::new(move || memory.restore(&empty))
        };
        Faults::before(&world, vec![(0, wipe()), (again, wipe())]).injected().await;
        let what = format!("wiped again {again} calls later");
        state(&world, over, JobState::Succeeded, &what).await;
        state(&world, job, JobState::Running, &what).await;
        world.stop().await;
    }
}

/// Wipes the ledger, or rolls it back, before the nth call of a starting scheduler.
async fn damaged_at_a_start(nth: u64, wiped: bool) {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let over = world.submit(3, "").await;
    world.succeeds(over).await;
    let cancelled = running(&world).await;
    journaled(&world).await;
    let older = world.memory.snapshot();
    world.ledger.cancel(cancelled).await.unwrap();
    let late = running(&world).await;
    journaled(&world).await;
    world.kill_scheduler().await;
    let memory = world.memory.clone();
    let fault: Fault = Box::new(move || memory.restore(if wiped { &empty } else { &older }));
    let faults = Faults::before(&world, vec![(nth, fault)]);
    world.start_scheduler("s1");
    faults.injected().await;
    let what = format!("before {nth}, wiped: {wiped}");
    state(&world, over, JobState::Succeeded, &what).await;
    state(&world, late, JobState::Running, &what).await;
    state(&world, cancelled, JobState::Cancelled, &what).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_be_wiped_at_any_step_of_a_start() {
    for nth in 0..40 {
        damaged_at_a_start(nth, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_be_rolled_back_at_any_step_of_a_start() {
    for nth in 0..40 {
        damaged_at_a_start(nth, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_be_rolled_back_at_any_step_of_an_admission() {
    for nth in 0..60 {
        let world = usual(succeed);
        let first = world.submit(3, "").await;
        world.succeeds(first).await;
        settled(&world).await;
        let (memory, then) = (world.memory.clone(), world.memory.snapshot());
        let rollback: Fault = Box::new(move || memory.restore(&then));
        let faults = Faults::before(&world, vec![(nth, rollback)]);
        let job = world.submit(40, "").await;
        faults.injected().await;
        world.terminal(job, &format!("rolled back before {nth}")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_repeated_when_only_a_lost_job_shows_the_loss() {
    for wait in [0, 30, 300, 600, 900] {
        let world = usual(succeed);
        let job = running(&world).await;
        settled(&world).await;
        sleep(Duration::from_millis(wait)).await;
        let then = world.memory.snapshot();
        world.ledger.cancel(job).await.unwrap();
        let late = world.submit(30, "").await;
        world.until_there(late).await;
        // Both are in the journal; the ledger's position in it moves once a second.
        sleep(Duration::from_millis(20)).await;
        world.memory.restore(&then);
        world.terminal(late, "the job that was lost").await;
        state(&world, job, JobState::Cancelled, &format!("cancelled {wait} ms later")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_repeated_when_only_a_lost_job_shows_the_loss() {
    for wait in [0, 300, 600, 900] {
        let world = usual(succeed);
        let job = running(&world).await;
        settled(&world).await;
        sleep(Duration::from_millis(wait)).await;
        let then = world.memory.snapshot();
        world.ledger.pause(job).await.unwrap();
        let written = async || world.broker.depth(&Queue::Journal).await.unwrap().unwrap().ready;
        let before = written().await;
        while written().await == before {
            sleep(Duration::from_millis(2)).await;
        }
        // It has just been journaled; the ledger's position in the journal has not moved.
        let late = world.submit(30, "").await;
        world.until_there(late).await;
        sleep(Duration::from_millis(20)).await;
        world.memory.restore(&then);
        world.terminal(late, "the job that was lost").await;
        state(&world, job, JobState::Paused, &format!("paused {wait} ms later")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_repeated_that_was_lost_while_a_scheduler_starts() {
    let mut world = usual(succeed);
    let job = running(&world).await;
    journaled(&world).await;
    let older = world.memory.snapshot();
    world.ledger.pause(job).await.unwrap();
    journaled(&world).await;
    world.kill_scheduler().await;
    world.outage.set_reading(Link::Down);
    world.start_scheduler("s1");
    // It knows the position of the ledger, and reads the records after it.
    sleep(Duration::from_secs(1)).await;
    world.memory.restore(&older);
    world.outage.set_reading(Link::Up);
    state(&world, job, JobState::Paused, "the pause").await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_survives_consecutive_losses() {
    for wait in (0..1_000).step_by(60) {
        let world = usual(succeed);
        let empty = nothing(&world);
        let job = running(&world).await;
        settled(&world).await;
        let then = world.memory.snapshot();
        world.ledger.pause(job).await.unwrap();
        journaled(&world).await;
        sleep(Duration::from_millis(wait)).await;
        world.memory.restore(&then);
        let what = format!("paused; lost {wait} ms later");
        state(&world, job, JobState::Paused, &what).await;
        sleep(Duration::from_millis(wait * 2)).await;
        world.memory.restore(&empty);
        assert_eq!(world.until_there(job).await.state, JobState::Paused, "{what}, twice");
        journaled(&world).await;
        assert_eq!(world.until_there(job).await.state, JobState::Paused, "{what}, twice");
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_a_rebuild_has_not_repeated_yet_is_not_taken_for_a_resume() {
    for wait in (0..2_500).step_by(100) {
        let mut world = World::with_journal();
        world.outage.lose_hints();
        world.start_scheduler("s0");
        world.start_worker("w0", "default", 1, succeed);
        let empty = nothing(&world);
        let job = running(&world).await;
        journaled(&world).await;
        let then = world.memory.snapshot();
        world.ledger.pause(job).await.unwrap();
        journaled(&world).await;
        // The rebuild takes time, and meanwhile the job is seen running.
        world.outage.set_reading(Link::Down);
        world.memory.restore(&then);
        sleep(Duration::from_secs(4)).await;
        world.outage.set_reading(Link::Up);
        let what = format!("lost again {wait} ms later");
        state(&world, job, JobState::Paused, &what).await;
        sleep(Duration::from_millis(wait)).await;
        world.memory.restore(&empty);
        assert_eq!(world.until_there(job).await.state, JobState::Paused, "{what}");
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_may_lose_the_last_journaled_changes_in_an_outage() {
    for wait in [0, 300, 600, 900] {
        let world = usual(succeed);
        let first = world.submit(3, "").await;
        world.succeeds(first).await;
        settled(&world).await;
        sleep(Duration::from_millis(wait)).await;
        let then = world.memory.snapshot();
        let job = world.submit(40, "").await;
        world.until_there(job).await;
        sleep(Duration::from_millis(20)).await;
        world.outage.set_ledger(Health::Away);
        sleep(Duration::from_millis(1_500)).await;
        world.memory.restore(&then);
        world.outage.set_ledger(Health::Well);
        world.terminal(job, &format!("away {wait} ms later")).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_right_before_an_outage_is_journaled_after_it() {
    for wait in [0, 300, 600, 900] {
        let world = usual(succeed);
        let empty = nothing(&world);
        let job = running(&world).await;
        journaled(&world).await;
        sleep(Duration::from_millis(wait)).await;
        world.ledger.pause(job).await.unwrap();
        // A hint causes a read within 50 ms.
        sleep(Duration::from_millis(70)).await;
        world.outage.set_ledger(Health::Away);
        sleep(Duration::from_millis(1_500)).await;
        world.outage.set_ledger(Health::Well);
        journaled(&world).await;
        world.memory.restore(&empty);
        let back = world.until_there(job).await;
        assert_eq!(back.state, JobState::Paused, "away {wait} ms later");
        world.stop().await;
    }
}

/// Empties the ledger for a number of calls, then restores it, as if another scheduler had rebuilt
/// it.
async fn absent_for(nth: u64, calls: u64) {
    let world = usual(succeed);
    let empty = Arc::new(nothing(&world));
    let lost = empty.clone();
    let job = running(&world).await;
    settled(&world).await;
    let (memory, again) = (world.memory.clone(), world.memory.clone());
    let full = Arc::new(Mutex::new(None));
    let kept = full.clone();
    let wipe: Fault = Box::new(move || {
        *kept.lock().unwrap() = Some(memory.snapshot());
        memory.restore(&lost);
    });
    let undo: Fault = Box::new(move || again.restore(&full.lock().unwrap().take().unwrap()));
    Faults::before(&world, vec![(nth, wipe), (calls, undo)]).injected().await;
    journaled(&world).await;
    world.memory.restore(&empty);
    state(&world, job, JobState::Running, &format!("absent before {nth} for {calls}")).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_missing_for_a_moment_does_not_count_as_deleted() {
    for nth in 0..30 {
        for calls in 1..4 {
            absent_for(nth, calls).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_may_die_at_any_step_of_an_admission() {
    for nth in 0..30 {
        let mut world = usual(succeed);
        let empty = nothing(&world);
        let first = world.submit(3, "").await;
        world.succeeds(first).await;
        settled(&world).await;
        let outage = world.outage.clone();
        let death: Fault = Box::new(move || outage.set_ledger(Health::Away));
        let faults = Faults::before(&world, vec![(nth, death)]);
        let job = world.submit(ENDLESS, r#","max_parallel":1"#).await;
        faults.injected().await;
        world.kill_scheduler().await;
        world.outage.set_ledger(Health::Well);
        world.start_scheduler("s1");
        world.until_there(job).await;
        journaled(&world).await;
        world.memory.restore(&empty);
        state(&world, job, JobState::Running, &format!("died before {nth}")).await;
        world.stop().await;
    }
}
