//! A pool of threads for work that computes or blocks; the thread that became free last works next.
//!
//! The thread that became free last gets the next work: its processor has just become free too, and
//! that is where the system wakes the thread. A pool that hands out work in turn wakes a thread
//! whose processor is busy with other work, while the free one is idle. Subtasks of one chunk run
//! on one thread ([`run_on_a_thread`]), which does not wait between them.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use longshore_protocol::Outcome;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::outcome_buffer::{OutcomeReceiver, TimedOutcome, outcome_buffer};
use super::{panic_text, retryable};

/// A thread without work ends after this time.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// All workers of a process share their threads.
static SHARED: Threads = Threads::new(IDLE_FOR);

/// Runs one piece of work on a thread where blocking is allowed; a panic there is a failed attempt.
/// Work that has begun goes on to its end, also after the caller has gone.
pub(super) async fn run_one_on_a_thread(run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    SHARED.run(run).await
}

/// Runs the numbers one after another on one thread, each if it `may_begin` when its turn comes;
/// the first that may not ends the run. So does dropping the receiver, once the number that runs is
/// done.
pub(crate) fn run_on_a_thread(
    numbers: Range<u64>,
    may_begin: impl Fn() -> bool + Send + 'static,
    run: impl Fn(u64) -> Outcome + Send + 'static,
) -> io::Result<OutcomeReceiver> {
    SHARED.run_all(numbers, may_begin, run)
}

/// The outcome of work for which no thread can be started.
pub(crate) fn no_thread(error: &io::Error) -> Outcome {
    retryable(format!("no thread to run on: {error}"))
}

struct Threads {
    idle_for: Duration,
    /// Threads without work; the last one became free last.
    free: Mutex<Vec<Thread>>,
}

struct Thread {
    id: ThreadId,
    work_tx: mpsc::SyncSender<Work>,
}

/// Work for a thread; what it returns is called when the thread is free again.
type Work = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// Makes a panic a failed attempt.
fn guarded(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| retryable(panic_text(panic.as_ref())))
}

impl Threads {
    const fn new(idle_for: Duration) -> Self {
        Self { idle_for, free: Mutex::new(Vec::new()) }
    }

    async fn run(&'static self, run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
        let (outcome_tx, outcome_rx) = oneshot::channel();
        let work: Work = Box::new(move || {
            let outcome = guarded(run);
            Box::new(move || {
                let _ = outcome_tx.send(outcome);
            })
        });
        match self.hand_out(work) {
            Ok(()) => outcome_rx.await.expect("a thread sends the outcome of its work"),
            Err(error) => no_thread(&error),
        }
    }

    fn run_all(
        &'static self,
        numbers: Range<u64>,
        may_begin: impl Fn() -> bool + Send + 'static,
        run: impl Fn(u64) -> Outcome + Send + 'static,
    ) -> io::Result<OutcomeReceiver> {
        let (sender, receiver) = outcome_buffer();
        let work: Work = Box::new(move || {
            let mut last = None;
            for number in numbers.clone() {
                if !may_begin() {
                    break;
                }
                let begun = Instant::now();
                let outcome = guarded(|| run(number));
                let timed = TimedOutcome { outcome, took: begun.elapsed() };
                if number + 1 == numbers.end {
                    last = Some(timed);
                } else if !sender.send(timed) {
                    break;
                }
            }
            Box::new(move || sender.finish(last))
        });
        self.hand_out(work)?;
        Ok(receiver)
    }

    fn hand_out(&'static self, work: Work) -> io::Result<()> {
        let last = self.free.lock().pop();
        let work_tx = match last {
            Some(thread) => thread.work_tx,
            None => self.start()?,
        };
        work_tx.send(work).expect("a thread stays until it has taken itself off the list");
        Ok(())
    }

    fn start(&'static self) -> io::Result<mpsc::SyncSender<Work>> {
        let (work_tx, work_rx) = mpsc::sync_channel(1);
        let own = work_tx.clone();
        let named = thread::Builder::new().name("longshore-task".into());
        named.spawn(move || self.work_off(&own, &work_rx))?;
        Ok(work_tx)
    }

    /// The loop of each thread.
    fn work_off(&self, work_tx: &mpsc::SyncSender<Work>, work_rx: &mpsc::Receiver<Work>) {
        let id = thread::current().id();
        loop {
            match work_rx.recv_timeout(self.idle_for) {
                Ok(work) => {
                    let send_outcome = work();
                    // Free before the outcome is known: the next work is to come to this thread.
                    self.free.lock().push(Thread { id, work_tx: work_tx.clone() });
                    send_outcome();
                }
                Err(RecvTimeoutError::Timeout) => {
                    let mut free = self.free.lock();
                    // A thread that is not on the list was just taken off to get work.
                    if let Some(place) = free.iter().position(|thread| thread.id == id) {
                        free.remove(place);
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("it holds a sender itself"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{failure, success};
    use super::*;

    /// The id of the thread that work runs on.
    async fn ran_on(threads: &'static Threads) -> Outcome {
        threads.run(|| success(format!("{:?}", thread::current().id()))).await
    }

    async fn until_none_is_free(threads: &Threads) {
        let wait = async {
            while !threads.free.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("within ten seconds");
    }

    #[tokio::test]
    async fn the_thread_that_became_free_last_gets_the_next_work() {
        static THREADS: Threads = Threads::new(IDLE_FOR);
        let first = ran_on(&THREADS).await;
        let (sender, receiver) = mpsc::sync_channel::<()>(1);
        let wait = move || {
            let _ = receiver.recv();
            Outcome::Success(String::new())
        };
        let busy = tokio::spawn(THREADS.run(wait));
        until_none_is_free(&THREADS).await;
        let second = ran_on(&THREADS).await;
        assert_ne!(second, first, "the first one is busy");
        assert_eq!(ran_on(&THREADS).await, second);
        drop(sender);
        busy.await.expect("it ends");
        assert_eq!(ran_on(&THREADS).await, first);
        assert_eq!(ran_on(&THREADS).await, first);
    }

    #[tokio::test]
    async fn a_thread_without_work_ends_and_loses_no_work() {
        static THREADS: Threads = Threads::new(Duration::from_millis(1));
        let begun = Instant::now();
        // Repeatedly, at about the time when the thread ends.
        while begun.elapsed() < Duration::from_millis(300) {
            ran_on(&THREADS).await;
            thread::sleep(Duration::from_millis(1));
        }
        until_none_is_free(&THREADS).await;
    }

    /// The outcomes of a run, as numbers.
    async fn all(outcomes: OutcomeReceiver) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(timed) = outcomes.recv(None).await {
            let Outcome::Success(number) = timed.outcome else { panic!("it did not succeed") };
            all.push(number);
        }
        all
    }

    fn echo(number: u64) -> Outcome {
        success(number)
    }

    #[tokio::test]
    async fn numbers_run_in_order_on_one_thread_which_is_free_when_the_last_outcome_is_known() {
        static THREADS: Threads = Threads::new(IDLE_FOR);
        let on = |_| success(format!("{:?}", thread::current().id()));
        let threads = all(THREADS.run_all(0..100, || true, on).expect("a thread")).await;
        assert_eq!(threads.len(), 100);
        assert!(threads.iter().all(|other| *other == threads[0]), "{threads:?}");
        assert_eq!(ran_on(&THREADS).await, Outcome::Success(threads[0].clone()));
        let numbers = all(THREADS.run_all(5..8, || true, echo).expect("a thread")).await;
        assert_eq!(numbers, ["5", "6", "7"]);
    }

    #[tokio::test]
    async fn a_run_ends_where_no_number_may_begin_and_where_the_receiver_is_gone() {
        static THREADS: Threads = Threads::new(IDLE_FOR);
        let left = std::sync::atomic::AtomicU8::new(3);
        let may_begin = move || left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let numbers = all(THREADS.run_all(0..10, may_begin, echo).expect("a thread")).await;
        assert_eq!(numbers, ["0", "1", "2"]);
        let endless = THREADS.run_all(0..u64::MAX, || true, echo).expect("a thread");
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
    async fn a_thread_survives_a_panic() {
        static THREADS: Threads = Threads::new(IDLE_FOR);
        let before = ran_on(&THREADS).await;
        let failed = failure(THREADS.run(|| panic!("a knot")).await);
        assert_eq!(failed, ("the handler panicked: a knot".into(), true));
        assert_eq!(ran_on(&THREADS).await, before);
    }
}
