//! Documents whose files can't be reached or take long don't delay other documents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use longshore_broker::Queue;
use longshore_ledger::Cancelled;
use longshore_protocol::state::JobState;
use longshore_protocol::{InputFile, JobId, Manifest};
use longshore_storage::Error;
use tokio::time::Instant;

use crate::world::{World, succeed};

/// A file system with globs that fail under `/away` or take long under `/slow`. Other globs match
/// one file.
#[derive(Clone, Default)]
struct Files {
    is_back: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Files {
    fn world(&self) -> World {
        let files = self.clone();
        let mut world = World::new();
        world.expand = Some(Arc::new(move |globs| files.clone().expand(globs).boxed()));
        world.start_scheduler("s0");
        world.start_worker("w0", "default", 4, succeed);
        world
    }

    async fn expand(self, globs: Vec<String>) -> Result<Manifest, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (glob, is_back) = (globs[0].clone(), self.is_back.load(Ordering::Relaxed));
        if glob.starts_with("/poison") {
            panic!("a glob to stumble over");
        }
        if glob.starts_with("/slow") {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        if glob.starts_with("/hangs") && !is_back {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        if (glob.starts_with("/away") || glob.starts_with("/hangs")) && !is_back {
            return Err(Error::Io { path: glob, reason: "stale file handle".into() });
        }
        Ok(Manifest::new(vec![InputFile { path: "/data/x".into(), size: 1, version: None }]))
    }
}

fn job(number: u128) -> JobId {
    JobId::from_uuid(uuid::Uuid::from_u128(0x40 << 64 | number))
}

async fn publish(world: &World, glob: &str, number: u128) -> JobId {
    let (id, split) = (job(number), format!(r#"{{"by":"files","files":["{glob}"]}}"#));
    world.publish(format!(r#"{{"id":"{id}","task":"noop","split":{split}}}"#)).await;
    id
}

/// Publishes far more documents with this glob than schedulers handle at once, then checks that
/// other documents are admitted as fast as without them.
async fn others_do_not_wait_for(glob: &str) {
    let files = Files::default();
    let world = files.world();
    let mut stuck = Vec::new();
    for number in 0..200 {
        stuck.push(publish(&world, glob, number).await);
    }
    let begun = Instant::now();
    let other = world.submit(3, "").await;
    world.succeeds(other).await;
    let of_files = publish(&world, "/data/*", 1_000).await;
    world.succeeds(of_files).await;
    assert!(begun.elapsed() <= Duration::from_secs(5), "{glob}: {:?}", begun.elapsed());
    files.is_back.store(true, Ordering::Relaxed);
    for job in stuck {
        world.succeeds(job).await;
    }
    assert_eq!(world.broker.depth(&Queue::Waiting).await.unwrap().unwrap().ready, 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn documents_whose_files_are_away_delay_no_others() {
    others_do_not_wait_for("/away/*").await;
}

#[tokio::test(start_paused = true)]
async fn documents_whose_file_system_hangs_delay_no_others() {
    others_do_not_wait_for("/hangs/*").await;
}

#[tokio::test(start_paused = true)]
async fn documents_whose_globs_take_long_delay_no_others() {
    others_do_not_wait_for("/slow/*").await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_document_is_reported_retried_with_pauses_and_survives_a_scheduler() {
    let files = Files::default();
    let mut world = files.world();
    let job = publish(&world, "/away/*", 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reason = world.ledger.postponed(job).await.unwrap();
    assert_eq!(reason.as_deref(), Some("split.files: /away/*: stale file handle"));
    let asked = files.asked.load(Ordering::Relaxed);
    assert!((10..=15).contains(&asked), "{asked} times within a minute");
    world.kill_scheduler().await;
    world.start_scheduler("s1");
    files.is_back.store(true, Ordering::Relaxed);
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_document_that_is_cancelled_never_runs() {
    let files = Files::default();
    let world = files.world();
    let job = publish(&world, "/away/*", 1).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(world.ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
    let begun = Instant::now();
    let ended = world.until_there(job).await;
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
    let reason = "cancelled before it was admitted, while it could not be judged: \
                split.files: /away/*: stale file handle";
    assert_eq!((ended.state, ended.error.as_deref()), (JobState::Rejected, Some(reason)));
    // The same document published again does not run either, now or once its files are back.
    publish(&world, "/away/*", 1).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(world.ledger.job(job).await.unwrap().unwrap(), ended);
    assert_eq!(world.broker.depth(&Queue::Waiting).await.unwrap().unwrap().ready, 0);
    files.is_back.store(true, Ordering::Relaxed);
    publish(&world, "/away/*", 1).await;
    let ended = world.until(job, "a decision", |it| it.state != JobState::Rejected).await;
    assert_eq!((ended.state, ended.counts.cancelled), (JobState::Cancelled, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_makes_the_scheduler_panic_is_refused_and_keeps_no_place() {
    let world = Files::default().world();
    let mut dead = world.broker.subscribe(&Queue::Dead, 100).await;
    for number in 0..100 {
        publish(&world, "/poison/*", number).await;
    }
    for _ in 0..100 {
        let delivery = dead.next().await.unwrap();
        let (_, reason) = delivery.headers.iter().find(|(name, _)| name == "reason").unwrap();
        assert!(
            reason.contains("the scheduler panicked on it: a glob to stumble over"),
            "{reason}"
        );
    }
    let other = world.submit(3, "").await;
    world.succeeds(other).await;
    world.stop().await;
}
