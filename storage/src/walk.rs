//! Bounds a walk over a file system: its duration, its names, and each system call.
//!
//! A walk runs on a thread of its own and never blocks its caller.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Error;

/// The longest duration of the expansion of one document's globs. A million files on a slow network
/// file system take about three minutes.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// The most names that one expansion visits, including those that don't match.
pub(crate) const MAX_SEEN: u64 = 20_000_000;

/// The longest duration of a system call or of a page of an object store's list; afterwards the
/// file system counts as unavailable. The object store's client itself repeats requests for 20 s.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// The interval of the checks of a walk.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The number of walks in progress in this process. A thread that hangs in a system call can't be
/// stopped, so the number of walks is limited; the runtime has 512 threads for such calls.
const MAX_WALKS: usize = 64;

static WALKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_WALKS)));

/// The progress of a walk, and whether its caller still waits.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    seen: AtomicU64,
    is_abandoned: AtomicBool,
}

impl Progress {
    /// Counts one name. The error ends the walk.
    pub(crate) fn step(&self, glob: &str) -> Result<(), Error> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if seen > MAX_SEEN || self.is_abandoned.load(Ordering::Relaxed) {
            return Err(Error::TooFar { glob: glob.to_owned(), seen });
        }
        Ok(())
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

/// Ends the walk at its next step when the caller stops waiting.
struct Abandon(Arc<Progress>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::Relaxed);
    }
}

/// Runs `walk` on a thread of its own, at most until `deadline`.
pub(crate) async fn watched<T: Send + 'static>(
    glob: &str,
    deadline: Instant,
    walk: impl FnOnce(&Progress) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let Ok(permit) = Arc::clone(&WALKS).try_acquire_owned() else {
        let reason = format!("{MAX_WALKS} walks over file systems run or hang");
        return Err(Error::Io { path: glob.to_owned(), reason });
    };
    let progress = Arc::new(Progress::default());
    let _abandon = Abandon(progress.clone());
    let thread = start(permit, progress.clone(), walk);
    watch(glob, deadline, &progress, thread).await
}

fn start<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    progress: Arc<Progress>,
    walk: impl FnOnce(&Progress) -> Result<T, Error> + Send + 'static,
) -> JoinHandle<Result<T, Error>> {
    tokio::task::spawn_blocking(move || {
        let walked = walk(&progress);
        drop(permit);
        walked
    })
}

async fn watch<T>(
    glob: &str,
    deadline: Instant,
    progress: &Progress,
    mut thread: JoinHandle<Result<T, Error>>,
) -> Result<T, Error> {
    let (mut seen, mut moved) = (progress.seen(), Instant::now());
    loop {
        if let Ok(walked) = tokio::time::timeout(LOOK_EVERY, &mut thread).await {
            return walked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        }
        let now = progress.seen();
        if now != seen {
            (seen, moved) = (now, Instant::now());
        } else if moved.elapsed() >= STALL {
            return Err(stalled(glob));
        }
        if Instant::now() >= deadline {
            return Err(Error::TooFar { glob: glob.to_owned(), seen });
        }
    }
}

/// The error of a system call that does not return.
pub(crate) fn stalled(glob: &str) -> Error {
    let reason = format!("no answer for {} s", STALL.as_secs());
    Error::Io { path: glob.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A walk that never ends and visits `steps` names each second.
    async fn judged(steps: u64) -> (Error, Duration) {
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        let walks = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.seen.fetch_add(steps, Ordering::Relaxed);
            }
        });
        let hangs = tokio::spawn(std::future::pending::<Result<(), Error>>());
        let begun = Instant::now();
        let error = watch("/net/*", begun + LONGEST, &progress, hangs).await.unwrap_err();
        walks.abort();
        (error, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_is_not_the_users_fault() {
        let (error, after) = judged(0).await;
        assert_eq!(error.to_string(), "/net/*: no answer for 30 s");
        assert!(!error.is_users_fault());
        assert!(after <= STALL + LOOK_EVERY, "after {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_without_an_end_is_refused_with_the_number_of_names_it_visited() {
        let (error, after) = judged(10).await;
        assert!(error.to_string().starts_with("`/net/*` reaches too far: "), "{error}");
        assert!(error.is_users_fault());
        assert!(after <= LONGEST + LOOK_EVERY, "after {after:?}");
    }

    #[tokio::test]
    async fn a_walk_whose_caller_has_gone_ends_at_its_next_step() {
        let (sender, ended) = std::sync::mpsc::sync_channel(1);
        let deadline = Instant::now() + LONGEST;
        let walk = watched("/x", deadline, move |progress| {
            let error = loop {
                if let Err(error) = progress.step("/x") {
                    break error;
                }
            };
            let _ = sender.send(progress.seen() < MAX_SEEN);
            Err::<(), _>(error)
        });
        let waited = tokio::time::timeout(Duration::from_millis(20), walk).await;
        let by_count = waited.is_ok();
        let was_abandoned = ended.recv_timeout(Duration::from_secs(30)).expect("it ends");
        assert!(was_abandoned || by_count);
    }
}
