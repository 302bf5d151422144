//! Jobs that are cancelled before their admission never run, also after a loss of the ledger.

use std::time::Duration;

use longshore_ledger::Cancelled;
use longshore_protocol::JobId;
use longshore_protocol::state::JobState;
use tokio::time::sleep;
use uuid::Uuid;

use crate::journal::{journaled, nothing, settled};
use crate::world::{World, succeed};

const JOB: JobId = JobId::from_uuid(Uuid::from_u128(0x41 << 64));

/// Publishes and cancels a job before the scheduler starts.
async fn cancelled_first() -> World {
    let mut world = World::with_journal();
    world.start_worker("w0", "default", 4, succeed);
    world.publish_again(JOB, 100, "").await;
    assert_eq!(world.ledger.cancel(JOB).await.unwrap(), Cancelled::BeforeAdmission);
    world.start_scheduler("s0");
    world
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cancelled_first_is_admitted_as_cancelled_and_runs_nothing() {
    let world = cancelled_first().await;
    let ended = world.ended(JOB).await;
    assert_eq!((ended.state, ended.counts.cancelled), (JobState::Cancelled, 100));
    assert_eq!((ended.attempts, ended.started_at), (0, None));
    // Other jobs run, and publishing the document again changes nothing.
    world.publish_again(JOB, 100, "").await;
    let other = world.submit(3, "").await;
    world.succeeds(other).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.ledger.job(JOB).await.unwrap().unwrap(), ended);
    assert_eq!(world.ledger.active_jobs().await.unwrap(), [], "it is archived like any other");
    assert!(world.ledger.finished_jobs(9).await.unwrap().contains(&JOB));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_admission_survives_a_later_wipe_of_the_ledger() {
    let world = cancelled_first().await;
    world.ended(JOB).await;
    let empty = nothing(&World::new());
    journaled(&world).await;
    settled(&world).await;
    world.memory.restore(&empty);
    let back = world.until_there(JOB).await;
    assert_eq!((back.state, back.counts.cancelled), (JobState::Cancelled, 100));
    assert!(back.restored_at.is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_the_ledger_has_lost_it_is_restored_as_cancelled() {
    let mut world = crate::journal::usual(succeed);
    let empty = nothing(&world);
    let job = world.submit(100_000, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 10).await;
    journaled(&world).await;
    world.kill_scheduler().await;
    world.memory.restore(&empty);
    assert_eq!(world.ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
    world.start_scheduler("s1");
    let back = world.until_there(job).await;
    assert_eq!((back.state, back.attempts), (JobState::Cancelled, 0));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.ledger.active_jobs().await.unwrap(), []);
    world.stop().await;
}
