//! Lapses of the journal, alone and together with losses of the ledger.
//!
//! In a lapse it can't be written, can't be read, or is lost silently.

use std::time::Duration;

use longshore_broker::{Link, Outgoing, Queue};
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JournalEvent, JournalRecord};
use tokio::time::sleep;

use crate::journal::{absent, journaled, nothing, settled, usual};
use crate::outage::Outage;
use crate::world::{World, succeed};

const ENDLESS: u64 = 1_000_000;

/// The journal lapses after this time without reads, or after about the same time without writes,
/// while the broker is available.
const LAPSES_AFTER: Duration = Duration::from_secs(25);

/// A lapse ends soon after the journal works again, because schedulers retry every ten seconds.
const RESUMED_AFTER: Duration = Duration::from_secs(15);

async fn running(world: &World) -> JobId {
    let job = world.submit(ENDLESS, r#","max_parallel":1"#).await;
    world.until(job, "some work", |summary| summary.counts.done > 3).await;
    job
}

async fn is_succeeded(world: &World, job: JobId, attempts: u64) {
    let back = world.until_there(job).await;
    assert_eq!((back.state, back.attempts), (JobState::Succeeded, attempts), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn no_document_is_admitted_while_a_running_scheduler_rebuilds() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(50, "").await;
    world.succeeds(job).await;
    journaled(&world).await;
    world.outage.set_reading(Link::Down);
    world.memory.restore(&empty);
    // The loss is noticed, but the rebuild can't continue.
    sleep(Duration::from_millis(1_500)).await;
    world.publish_again(job, 50, "").await;
    sleep(Duration::from_secs(3)).await;
    assert!(absent(&world, job).await, "it was admitted before the schedulers could know");
    world.outage.set_reading(Link::Up);
    is_succeeded(&world, job, 50).await;
    journaled(&world).await;
    is_succeeded(&world, job, 50).await;
    world.stop().await;
}

/// A job ends, the ledger is lost, and the job is submitted again while a scheduler starts that
/// can't reach the journal for this time.
async fn known_after(fault: fn(&Outage, Link), lasts: Duration) {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(50, "").await;
    world.succeeds(job).await;
    journaled(&world).await;
    world.kill_scheduler().await;
    world.memory.restore(&empty);
    world.publish_again(job, 50, "").await;
    fault(&world.outage, Link::Down);
    world.start_scheduler("s1");
    sleep(lasts).await;
    assert!(absent(&world, job).await, "it was admitted before the schedulers could know");
    fault(&world.outage, Link::Up);
    is_succeeded(&world, job, 50).await;
    journaled(&world).await;
    is_succeeded(&world, job, 50).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_waits_for_a_journal_that_was_never_reached() {
    known_after(Outage::set_reading, Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_document_waits_for_the_broker_for_any_time() {
    let all = |outage: &Outage, link| {
        outage.set_reading(link);
        outage.set_link(link);
    };
    known_after(all, 4 * LAPSES_AFTER).await;
}

#[tokio::test(start_paused = true)]
async fn a_document_stays_in_its_queue_until_the_journal_has_it() {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let first = world.submit(3, "").await;
    world.succeeds(first).await;
    settled(&world).await;
    world.outage.set_link(Link::Down);
    let job = world.submit(5, "").await;
    world.until_there(job).await;
    sleep(4 * LAPSES_AFTER).await;
    world.kill_scheduler().await;
    world.memory.restore(&empty);
    world.outage.set_link(Link::Up);
    world.start_scheduler("s1");
    world.until_there(job).await;
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_ledger_lost_before_it_was_journaled_is_admitted_again() {
    let world = usual(succeed);
    let first = world.submit(3, "").await;
    world.succeeds(first).await;
    settled(&world).await;
    world.outage.set_journal(Link::Down);
    sleep(Duration::from_millis(1_500)).await;
    let before = world.memory.snapshot();
    let job = world.submit(5, "").await;
    world.until_there(job).await;
    world.memory.restore(&before);
    assert!(absent(&world, job).await);
    // The job never gets into the journal, which lapses.
    sleep(2 * LAPSES_AFTER).await;
    world.until_there(job).await;
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_far_apart_cause_no_lapse() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let first = world.submit(3, "").await;
    world.succeeds(first).await;
    settled(&world).await;
    let mut last = first;
    for _ in 0..12 {
        world.outage.set_journal(Link::Down);
        last = world.submit(2, "").await;
        world.until_there(last).await;
        sleep(Duration::from_millis(50)).await;
        world.outage.set_journal(Link::Up);
        sleep(Duration::from_secs(2)).await;
    }
    // After a lapse, the journal would not contain this job for a while.
    let job = world.submit(2, "").await;
    world.succeeds(job).await;
    sleep(Duration::from_millis(100)).await;
    world.memory.restore(&empty);
    is_succeeded(&world, last, 2).await;
    is_succeeded(&world, job, 2).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_journaled_is_journaled_later() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(200, r#","max_parallel":1"#).await;
    world.until(job, "some work", |summary| summary.counts.done > 3).await;
    settled(&world).await;
    world.outage.set_journal(Link::Down);
    world.succeeds(job).await;
    sleep(Duration::from_secs(2)).await;
    world.outage.set_journal(Link::Up);
    journaled(&world).await;
    world.memory.restore(&empty);
    is_succeeded(&world, job, 200).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_during_a_lapse_does_not_run_again() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(8_000, r#","max_parallel":1"#).await;
    world.until(job, "some work", |summary| summary.counts.done > 3).await;
    settled(&world).await;
    world.outage.set_journal(Link::Down);
    // A change that has to be journaled, so that the journal lapses.
    let other = world.submit(2, "").await;
    world.succeeds(other).await;
    world.succeeds(job).await;
    sleep(LAPSES_AFTER).await;
    assert_eq!(world.ledger.active_jobs().await.unwrap(), [], "both are archived");
    world.outage.set_journal(Link::Up);
    sleep(RESUMED_AFTER).await;
    journaled(&world).await;
    world.memory.restore(&empty);
    is_succeeded(&world, job, 8_000).await;
    is_succeeded(&world, other, 2).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_admitted_during_a_read_outage_is_journaled_later() {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let first = world.submit(3, "").await;
    world.succeeds(first).await;
    settled(&world).await;
    world.kill_scheduler().await;
    world.outage.set_reading(Link::Down);
    world.start_scheduler("s1");
    // The broker is available, so the wait for the journal is limited.
    let job = world.submit(ENDLESS, r#","max_parallel":1"#).await;
    sleep(LAPSES_AFTER).await;
    world.until_there(job).await;
    world.outage.set_reading(Link::Up);
    sleep(RESUMED_AFTER).await;
    journaled(&world).await;
    world.memory.restore(&empty);
    world.until_there(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silently_lost_journal_is_begun_again_from_the_ledger() {
    // RabbitMQ lets a reader wait beyond the end of a stream that is shorter than the reader's
    // position, connected or not.
    for connected in [true, false] {
        let world = usual(succeed);
        world.outage.hide_losses();
        let empty = nothing(&world);
        let over = world.submit(7, "").await;
        world.succeeds(over).await;
        let job = running(&world).await;
        journaled(&world).await;
        if !connected {
            world.outage.set_reading(Link::Down);
        }
        world.broker.purge(&Queue::Journal).await.unwrap();
        world.outage.set_reading(Link::Down);
        sleep(Duration::from_secs(1)).await;
        world.outage.set_reading(Link::Up);
        sleep(Duration::from_secs(12)).await;
        journaled(&world).await;
        world.memory.restore(&empty);
        is_succeeded(&world, over, 7).await;
        world.until_there(job).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_without_a_scheduler_is_journaled_by_the_next_one() {
    let mut world = usual(succeed);
    let empty = nothing(&world);
    let job = running(&world).await;
    settled(&world).await;
    world.kill_scheduler().await;
    world.ledger.pause(job).await.unwrap();
    world.start_scheduler("s1");
    journaled(&world).await;
    world.memory.restore(&empty);
    assert_eq!(world.until_there(job).await.state, JobState::Paused);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_jobs_with_the_same_id_the_later_is_restored() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(5, "").await;
    world.succeeds(job).await;
    journaled(&world).await;
    world.ledger.delete(job).await.unwrap();
    journaled(&world).await;
    world.publish_again(job, 7, "").await;
    world.until_there(job).await;
    world.succeeds(job).await;
    journaled(&world).await;
    world.memory.restore(&empty);
    is_succeeded(&world, job, 7).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_job_does_not_prevent_a_rebuild() {
    let world = usual(succeed);
    let empty = nothing(&world);
    let over = world.submit(5, "").await;
    world.succeeds(over).await;
    let (job, at) = (JobId::from_uuid(uuid::Uuid::from_u128(7 << 64)), world.ledger.now().await);
    let (document, keep_for_ms) = (r#"{"of":"a newer version"}"#.to_owned(), 3_600_000);
    let event =
        JournalEvent::Admitted { job, at: at.unwrap(), keep_for_ms, document, manifest: None };
    for body in JournalRecord::encode(&event) {
        let message = Outgoing { body: body.into(), ..Outgoing::default() };
        world.broker.publish(&Queue::Journal, message).await.unwrap();
    }
    journaled(&world).await;
    world.memory.restore(&empty);
    is_succeeded(&world, over, 5).await;
    let next = world.submit(5, "").await;
    world.until_there(next).await;
    world.succeeds(next).await;
    assert!(absent(&world, job).await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_starting_scheduler_journals_nothing_twice() {
    let mut world = usual(succeed);
    for _ in 0..20 {
        let job = world.submit(1, "").await;
        world.succeeds(job).await;
    }
    journaled(&world).await;
    let written =
        async |world: &World| world.broker.depth(&Queue::Journal).await.unwrap().unwrap().ready;
    let before = written(&world).await;
    world.kill_scheduler().await;
    world.start_scheduler("s1");
    journaled(&world).await;
    // The mark of the start.
    assert_eq!(written(&world).await, before + 1);
    world.stop().await;
}
