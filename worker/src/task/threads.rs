//! Threads for work that computes or blocks.
//!
//! The one that became free last gets the next work: its processor has just become free too, and that is where the system
//! wakes it. A pool that hands out work in turn wakes a thread whose processor is busy with somebody else's, while the free
//! one stands still.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use longshore_protocol::Outcome;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{panic_text, retryable};

/// A thread without work ends after this time.
const KEPT: Duration = Duration::from_secs(10);

/// All workers of a process share their threads.
static SHARED: Threads = Threads::new(KEPT);

/// Computes on a thread where blocking is allowed; a panic there is a failed attempt. What has begun goes on to its end, also
/// when nobody waits for it any more.
pub(super) async fn on_a_thread(run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    SHARED.run(Box::new(run)).await
}

struct Threads {
    kept: Duration,
    /// Those without work; the last one became free last.
    free: Mutex<Vec<Thread>>,
}

struct Thread {
    id: ThreadId,
    desk: mpsc::SyncSender<Work>,
}

struct Work {
    run: Box<dyn FnOnce() -> Outcome + Send>,
    tell: oneshot::Sender<Outcome>,
}

impl Threads {
    const fn new(kept: Duration) -> Self {
        Self { kept, free: Mutex::new(Vec::new()) }
    }

    async fn run(&'static self, run: Box<dyn FnOnce() -> Outcome + Send>) -> Outcome {
        let (tell, told) = oneshot::channel();
        match self.hand_out(Work { run, tell }) {
            Ok(()) => told.await.expect("a thread tells how its work ended"),
            Err(error) => retryable(format!("no thread to run on: {error}")),
        }
    }

    fn hand_out(&'static self, work: Work) -> io::Result<()> {
        let last = self.free.lock().pop();
        let desk = match last {
            Some(thread) => thread.desk,
            None => self.start()?,
        };
        desk.send(work).expect("a thread stays until it has taken itself off the list");
        Ok(())
    }

    fn start(&'static self) -> io::Result<mpsc::SyncSender<Work>> {
        let (desk, works) = mpsc::sync_channel(1);
        let own = desk.clone();
        let named = thread::Builder::new().name("longshore-task".into());
        named.spawn(move || self.work_off(&own, &works))?;
        Ok(desk)
    }

    /// What each thread does.
    fn work_off(&self, desk: &mpsc::SyncSender<Work>, works: &mpsc::Receiver<Work>) {
        let id = thread::current().id();
        loop {
            match works.recv_timeout(self.kept) {
                Ok(Work { run, tell }) => {
                    let outcome = catch_unwind(AssertUnwindSafe(run))
                        .unwrap_or_else(|panic| retryable(panic_text(panic.as_ref())));
                    // Free before anybody hears of it: what comes next is to come here.
                    self.free.lock().push(Thread { id, desk: desk.clone() });
                    let _ = tell.send(outcome);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let mut free = self.free.lock();
                    // If it is not there, somebody has just taken it off to give it work.
                    if let Some(place) = free.iter().position(|thread| thread.id == id) {
                        free.remove(place);
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("its own end is here"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::fixtures::{failure, success};
    use super::*;

    /// Which thread the work ran on.
    async fn ran_on(threads: &'static Threads) -> Outcome {
        threads.run(Box::new(|| success(format!("{:?}", thread::current().id())))).await
    }

    async fn nobody_is_free(threads: &Threads) {
        let wait = async {
            while !threads.free.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("within ten seconds");
    }

    #[tokio::test]
    async fn the_thread_that_became_free_last_gets_the_next_work() {
        static THREADS: Threads = Threads::new(KEPT);
        let first = ran_on(&THREADS).await;
        let (go, gone) = mpsc::sync_channel::<()>(1);
        let wait = move || {
            let _ = gone.recv();
            Outcome::Success(String::new())
        };
        let busy = tokio::spawn(THREADS.run(Box::new(wait)));
        nobody_is_free(&THREADS).await;
        let second = ran_on(&THREADS).await;
        assert_ne!(second, first, "the first one is busy");
        assert_eq!(ran_on(&THREADS).await, second);
        drop(go);
        busy.await.expect("it ends");
        assert_eq!(ran_on(&THREADS).await, first);
        assert_eq!(ran_on(&THREADS).await, first);
    }

    #[tokio::test]
    async fn a_thread_without_work_ends_and_loses_none() {
        static THREADS: Threads = Threads::new(Duration::from_millis(1));
        let begun = Instant::now();
        // Again and again about when its time is up.
        while begun.elapsed() < Duration::from_millis(300) {
            ran_on(&THREADS).await;
            thread::sleep(Duration::from_millis(1));
        }
        nobody_is_free(&THREADS).await;
    }

    #[tokio::test]
    async fn a_thread_outlives_a_panic() {
        static THREADS: Threads = Threads::new(KEPT);
        let before = ran_on(&THREADS).await;
        let told = failure(THREADS.run(Box::new(|| panic!("a knot"))).await);
        assert_eq!(told, ("the handler panicked: a knot".into(), true));
        assert_eq!(ran_on(&THREADS).await, before);
    }
}
