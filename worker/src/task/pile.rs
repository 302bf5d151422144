//! What a thread has computed, until its follower takes it.
//!
//! To wake the follower for each costs more than a short subtask should: it takes the processor
//! from somebody who computes. So the follower says until when it has time. It is woken for the
//! first outcome after that, where half of the room is taken, and at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_protocol::Outcome;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Room for so many outcomes, and for results and errors of so many bytes, the last one's beyond
/// that. The thread waits while there is none.
const MOST: usize = 64;
const MOST_BYTES: usize = 256 << 10;

/// What came of one work.
#[derive(Debug, PartialEq)]
pub(crate) struct Computed {
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Computed {
    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Success(text)
            | Outcome::Failure { error: text, .. }
            | Outcome::NotStarted { reason: text }
            | Outcome::NotNow { reason: text, .. } => text.len(),
        }
    }
}

#[derive(Default)]
pub(super) struct Pile {
    state: Mutex<State>,
    /// Wakes the follower.
    news: Notify,
    /// Wakes the thread.
    room: Condvar,
}

#[derive(Default)]
struct State {
    outcomes: VecDeque<Computed>,
    bytes: usize,
    /// Until then the follower has time.
    due: Option<Instant>,
    /// No more will come.
    has_ended: bool,
    /// Nobody follows any more.
    is_left: bool,
}

impl State {
    /// Whether so many such parts of the room are taken.
    fn takes(&self, parts: usize) -> bool {
        self.outcomes.len() * parts >= MOST || self.bytes * parts >= MOST_BYTES
    }

    fn push(&mut self, computed: Computed) {
        self.bytes += computed.bytes();
        self.outcomes.push_back(computed);
    }
}

impl Pile {
    /// The next outcome; `None` after the last.
    pub(super) async fn take(&self, due: Option<Instant>) -> Option<Computed> {
        loop {
            if let Some(computed) = self.pop() {
                return Some(computed);
            }
            {
                let mut state = self.state.lock();
                if state.outcomes.is_empty() {
                    if state.has_ended {
                        return None;
                    }
                    state.due = due;
                }
            }
            self.news.notified().await;
        }
    }

    /// The next outcome, if there is one.
    pub(super) fn pop(&self) -> Option<Computed> {
        let mut state = self.state.lock();
        let computed = state.outcomes.pop_front()?;
        state.bytes -= computed.bytes();
        self.room.notify_one();
        Some(computed)
    }

    /// The follower goes.
    pub(super) fn leave(&self) {
        self.state.lock().is_left = true;
        self.room.notify_one();
    }

    /// What the thread puts its outcomes on.
    pub(super) fn adder(self: &Arc<Self>) -> Adder {
        Adder(Arc::clone(self))
    }
}

/// The thread's end of a pile, which has ended when that is gone.
pub(super) struct Adder(Arc<Pile>);

impl Adder {
    /// One more, as soon as there is room; more are to come. Gives false if nobody follows.
    pub(super) fn put(&self, computed: Computed) -> bool {
        let Pile { state, news, room } = &*self.0;
        let mut state = state.lock();
        room.wait_while(&mut state, |state| state.takes(1) && !state.is_left);
        state.push(computed);
        if state.takes(2) || state.due.is_none_or(|due| due <= Instant::now()) {
            news.notify_one();
        }
        !state.is_left
    }

    /// The last one, if there is one.
    pub(super) fn end(self, last: Option<Computed>) {
        if let Some(computed) = last {
            self.0.state.lock().push(computed);
        }
    }
}

impl Drop for Adder {
    fn drop(&mut self) {
        self.0.state.lock().has_ended = true;
        self.0.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::fixtures::success;
    use super::*;

    fn one() -> Computed {
        Computed { outcome: success(1), took: Duration::ZERO }
    }

    fn of_bytes(count: usize) -> Computed {
        Computed { outcome: Outcome::Success("x".repeat(count)), took: Duration::ZERO }
    }

    /// Whether the follower, who has time until then, hears of it if the thread puts down so many.
    fn hears_of(due: Option<Instant>, outcomes: impl IntoIterator<Item = Computed>) -> bool {
        let pile = Arc::new(Pile::default());
        let adder = pile.adder();
        let mut take = pin!(pile.take(due));
        let mut context = Context::from_waker(Waker::noop());
        assert!(take.as_mut().poll(&mut context).is_pending(), "there is nothing yet");
        outcomes.into_iter().for_each(|computed| assert!(adder.put(computed)));
        take.poll(&mut context).is_ready()
    }

    fn some(count: usize) -> impl Iterator<Item = Computed> {
        std::iter::repeat_with(one).take(count)
    }

    #[test]
    fn who_has_time_hears_of_many_at_once() {
        let later = Instant::now() + Duration::from_hours(1);
        assert!(!hears_of(Some(later), some(MOST / 2 - 1)));
        assert!(hears_of(Some(later), some(MOST / 2)));
        assert!(!hears_of(Some(later), [of_bytes(MOST_BYTES / 2 - 1)]));
        assert!(hears_of(Some(later), [of_bytes(MOST_BYTES / 2)]));
    }

    #[test]
    fn who_waits_or_is_late_hears_of_each() {
        assert!(hears_of(None, [one()]));
        assert!(hears_of(Some(Instant::now()), [one()]));
    }

    #[tokio::test]
    async fn the_thread_waits_for_room() {
        let pile = Arc::new(Pile::default());
        let adder = pile.adder();
        let thread = std::thread::spawn(move || {
            some(3 * MOST).for_each(|computed| assert!(adder.put(computed)));
            adder.end(Some(of_bytes(1)));
        });
        let later = Some(Instant::now() + Duration::from_hours(1));
        for _ in 0..3 * MOST {
            assert_eq!(pile.take(later).await, Some(one()));
            // The last one is put on top whether there is room or not.
            assert!(pile.state.lock().outcomes.len() <= MOST + 1);
        }
        assert_eq!(pile.take(later).await, Some(of_bytes(1)));
        assert_eq!(pile.take(later).await, None);
        thread.join().expect("it has ended");
    }

    #[test]
    fn a_thread_that_nobody_follows_waits_for_nobody() {
        let pile = Arc::new(Pile::default());
        let adder = pile.adder();
        assert!(adder.put(one()));
        pile.leave();
        assert!(!some(2 * MOST).any(|computed| adder.put(computed)));
    }
}
