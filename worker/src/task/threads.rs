//! Threads for work that computes or blocks.
//!
//! The one that became free last gets the next work: its processor has just become free too, and
//! that is where the system wakes it. A pool that hands out work in turn wakes a thread whose
//! processor is busy with somebody else's, while the free one stands still. What belongs together
//! is a [`Series`], for which the thread waits for nobody.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use longshore_protocol::Outcome;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::pile::{Computed, Pile};
use super::{panic_text, retryable};

/// A thread without work ends after this time.
const KEPT: Duration = Duration::from_secs(10);

/// All workers of a process share their threads.
static SHARED: Threads = Threads::new(KEPT);

/// Computes on a thread where blocking is allowed; a panic there is a failed attempt. What has
/// begun goes on to its end, also when nobody waits for it any more.
pub(super) async fn on_a_thread(run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    SHARED.run(run).await
}

/// Why there is no outcome of work for which there is no thread.
pub(crate) fn no_thread(error: &io::Error) -> Outcome {
    retryable(format!("no thread to run on: {error}"))
}

/// Numbered works, one after the other on one thread, with what came of each.
pub(crate) struct Series(Arc<Pile>);

impl Series {
    /// Runs these numbers, each if it `may_begin` when its turn comes; the first that may not ends
    /// the series. So does whoever drops it, but for the work that has begun.
    pub(crate) fn start(
        numbers: Range<u64>,
        may_begin: impl Fn() -> bool + Send + 'static,
        run: impl Fn(u64) -> Outcome + Send + 'static,
    ) -> io::Result<Self> {
        SHARED.start_series(numbers, may_begin, run)
    }

    /// What came of the next number; `None` when none is left, or none may begin any more. Who has
    /// time until `due` may be told of some at once then, and should look by itself when that time
    /// has come. What is not awaited to its end is not lost.
    pub(crate) async fn next(&self, due: Option<Instant>) -> Option<Computed> {
        self.0.take(due).await
    }

    /// The same, if it is there already.
    pub(crate) fn ready(&self) -> Option<Computed> {
        self.0.pop()
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.0.leave();
    }
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

/// What a thread is given to do; what that gives is done when the thread is free again.
type Work = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// A panic is a failed attempt.
fn guarded(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| retryable(panic_text(panic.as_ref())))
}

impl Threads {
    const fn new(kept: Duration) -> Self {
        Self { kept, free: Mutex::new(Vec::new()) }
    }

    async fn run(&'static self, run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move || {
            let outcome = guarded(run);
            Box::new(move || {
                let _ = tell.send(outcome);
            })
        });
        match self.hand_out(work) {
            Ok(()) => told.await.expect("a thread tells how its work ended"),
            Err(error) => no_thread(&error),
        }
    }

    fn start_series(
        &'static self,
        numbers: Range<u64>,
        may_begin: impl Fn() -> bool + Send + 'static,
        run: impl Fn(u64) -> Outcome + Send + 'static,
    ) -> io::Result<Series> {
        let pile = Arc::new(Pile::default());
        let adder = pile.adder();
        let work: Work = Box::new(move || {
            let mut last = None;
            for number in numbers.clone() {
                if !may_begin() {
                    break;
                }
                let begun = Instant::now();
                let outcome = guarded(|| run(number));
                let computed = Computed { outcome, took: begun.elapsed() };
                if number + 1 == numbers.end {
                    last = Some(computed);
                } else if !adder.put(computed) {
                    break;
                }
            }
            Box::new(move || adder.end(last))
        });
        self.hand_out(work)?;
        Ok(Series(pile))
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
                Ok(work) => {
                    let tell = work();
                    // Free before anybody hears of it: what comes next is to come here.
                    self.free.lock().push(Thread { id, desk: desk.clone() });
                    tell();
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
    use super::super::fixtures::{failure, success};
    use super::*;

    /// Which thread the work ran on.
    async fn ran_on(threads: &'static Threads) -> Outcome {
        threads.run(|| success(format!("{:?}", thread::current().id()))).await
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
        let busy = tokio::spawn(THREADS.run(wait));
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

    /// What came of a series, as numbers.
    async fn all(series: Series) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(computed) = series.next(None).await {
            let Outcome::Success(number) = computed.outcome else { panic!("it did not succeed") };
            all.push(number);
        }
        all
    }

    fn echo(number: u64) -> Outcome {
        success(number)
    }

    #[tokio::test]
    async fn a_series_runs_in_order_on_one_thread_which_is_free_when_the_last_is_told() {
        static THREADS: Threads = Threads::new(KEPT);
        let on = |_| success(format!("{:?}", thread::current().id()));
        let threads = all(THREADS.start_series(0..100, || true, on).expect("a thread")).await;
        assert_eq!(threads.len(), 100);
        assert!(threads.iter().all(|other| *other == threads[0]), "{threads:?}");
        assert_eq!(ran_on(&THREADS).await, Outcome::Success(threads[0].clone()));
        let numbers = all(THREADS.start_series(5..8, || true, echo).expect("a thread")).await;
        assert_eq!(numbers, ["5", "6", "7"]);
    }

    #[tokio::test]
    async fn a_series_ends_where_none_may_begin_and_where_nobody_follows() {
        static THREADS: Threads = Threads::new(KEPT);
        let left = std::sync::atomic::AtomicU8::new(3);
        let may_begin = move || left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let numbers = all(THREADS.start_series(0..10, may_begin, echo).expect("a thread")).await;
        assert_eq!(numbers, ["0", "1", "2"]);
        let endless = THREADS.start_series(0..u64::MAX, || true, echo).expect("a thread");
        drop(endless);
        ran_on(&THREADS).await;
        let free = || THREADS.free.lock().len();
        let begun = Instant::now();
        while free() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "its thread is not free");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn a_thread_outlives_a_panic() {
        static THREADS: Threads = Threads::new(KEPT);
        let before = ran_on(&THREADS).await;
        let told = failure(THREADS.run(|| panic!("a knot")).await);
        assert_eq!(told, ("the handler panicked: a knot".into(), true));
        assert_eq!(ran_on(&THREADS).await, before);
    }
}
