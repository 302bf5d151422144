//! Buffers the outcomes of a thread until the task that follows it takes them.
//!
//! Waking the follower for each outcome costs more than a short subtask should: it takes the
//! processor from a thread that computes. So the follower says until when it can wait. It is woken
//! for the first outcome after that, when half of the buffer is full, and at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_protocol::Outcome;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// The buffer is full with this many outcomes, or with results and errors of this many bytes, not
/// counting those of the last outcome. The thread waits while it is full.
const CAPACITY: usize = 64;
const CAPACITY_BYTES: usize = 256 << 10;

/// The outcome of one subtask, and how long the subtask took.
#[derive(Debug, PartialEq)]
pub(crate) struct TimedOutcome {
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl TimedOutcome {
    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Success(text)
            | Outcome::Failure { error: text, .. }
            | Outcome::NotStarted { reason: text }
            | Outcome::NotNow { reason: text, .. } => text.len(),
        }
    }
}

/// What a thread and its follower share.
#[derive(Default)]
struct OutcomeBuffer {
    state: Mutex<State>,
    /// Wakes the follower.
    filled: Notify,
    /// Wakes the thread.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    outcomes: VecDeque<TimedOutcome>,
    bytes: usize,
    /// Until when the follower can wait.
    due: Option<Instant>,
    /// The sender is gone: no more outcomes will come.
    has_ended: bool,
    /// The receiver is gone.
    is_abandoned: bool,
}

impl State {
    /// Whether one of this many equal parts of the buffer is full.
    fn is_filled(&self, parts: usize) -> bool {
        self.outcomes.len() * parts >= CAPACITY || self.bytes * parts >= CAPACITY_BYTES
    }

    fn push(&mut self, timed: TimedOutcome) {
        self.bytes += timed.bytes();
        self.outcomes.push_back(timed);
    }
}

/// The two ends of a new buffer.
pub(super) fn outcome_buffer() -> (OutcomeSender, OutcomeReceiver) {
    let buffer = Arc::new(OutcomeBuffer::default());
    (OutcomeSender(Arc::clone(&buffer)), OutcomeReceiver(buffer))
}

/// The follower's end. Dropping it stops the thread after the subtask that runs.
pub(crate) struct OutcomeReceiver(Arc<OutcomeBuffer>);

impl OutcomeReceiver {
    /// The next outcome; `None` after the last. A caller that can wait until `due` may get several
    /// outcomes at once then, and should look by itself at that time ([`Self::try_recv`]). Dropping
    /// the future loses nothing.
    pub(crate) async fn recv(&self, due: Option<Instant>) -> Option<TimedOutcome> {
        loop {
            if let Some(timed) = self.try_recv() {
                return Some(timed);
            }
            {
                let mut state = self.0.state.lock();
                if state.outcomes.is_empty() {
                    if state.has_ended {
                        return None;
                    }
                    state.due = due;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next outcome, if there is one already.
    pub(crate) fn try_recv(&self) -> Option<TimedOutcome> {
        let mut state = self.0.state.lock();
        let timed = state.outcomes.pop_front()?;
        state.bytes -= timed.bytes();
        self.0.taken.notify_one();
        Some(timed)
    }
}

impl Drop for OutcomeReceiver {
    fn drop(&mut self) {
        self.0.state.lock().is_abandoned = true;
        self.0.taken.notify_one();
    }
}

/// The thread's end. The buffer has ended when this is dropped.
pub(super) struct OutcomeSender(Arc<OutcomeBuffer>);

impl OutcomeSender {
    /// Sends one outcome, as soon as there is room; more are to come. Gives false if the receiver
    /// is gone.
    pub(super) fn send(&self, timed: TimedOutcome) -> bool {
        let OutcomeBuffer { state, filled, taken } = &*self.0;
        let mut state = state.lock();
        taken.wait_while(&mut state, |state| state.is_filled(1) && !state.is_abandoned);
        state.push(timed);
        if state.is_filled(2) || state.due.is_none_or(|due| due <= Instant::now()) {
            filled.notify_one();
        }
        !state.is_abandoned
    }

    /// Sends the last outcome, if there is one.
    pub(super) fn finish(self, last: Option<TimedOutcome>) {
        if let Some(timed) = last {
            self.0.state.lock().push(timed);
        }
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        self.0.state.lock().has_ended = true;
        self.0.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::fixtures::success;
    use super::*;

    fn one() -> TimedOutcome {
        TimedOutcome { outcome: success(1), took: Duration::ZERO }
    }

    fn of_bytes(count: usize) -> TimedOutcome {
        TimedOutcome { outcome: Outcome::Success("x".repeat(count)), took: Duration::ZERO }
    }

    /// Whether a follower that can wait until `due` is woken by these outcomes.
    fn is_woken(due: Option<Instant>, outcomes: impl IntoIterator<Item = TimedOutcome>) -> bool {
        let (sender, receiver) = outcome_buffer();
        let mut recv = pin!(receiver.recv(due));
        let mut context = Context::from_waker(Waker::noop());
        assert!(recv.as_mut().poll(&mut context).is_pending(), "the buffer is empty");
        outcomes.into_iter().for_each(|timed| assert!(sender.send(timed)));
        recv.poll(&mut context).is_ready()
    }

    fn some(count: usize) -> impl Iterator<Item = TimedOutcome> {
        std::iter::repeat_with(one).take(count)
    }

    #[test]
    fn a_follower_that_can_wait_is_woken_once_half_of_the_buffer_is_full() {
        let later = Instant::now() + Duration::from_hours(1);
        assert!(!is_woken(Some(later), some(CAPACITY / 2 - 1)));
        assert!(is_woken(Some(later), some(CAPACITY / 2)));
        assert!(!is_woken(Some(later), [of_bytes(CAPACITY_BYTES / 2 - 1)]));
        assert!(is_woken(Some(later), [of_bytes(CAPACITY_BYTES / 2)]));
    }

    #[test]
    fn a_follower_that_can_not_wait_is_woken_for_each_outcome() {
        assert!(is_woken(None, [one()]));
        assert!(is_woken(Some(Instant::now()), [one()]));
    }

    #[tokio::test]
    async fn the_thread_waits_for_room() {
        let (sender, receiver) = outcome_buffer();
        let thread = std::thread::spawn(move || {
            some(3 * CAPACITY).for_each(|timed| assert!(sender.send(timed)));
            sender.finish(Some(of_bytes(1)));
        });
        let later = Some(Instant::now() + Duration::from_hours(1));
        for _ in 0..3 * CAPACITY {
            assert_eq!(receiver.recv(later).await, Some(one()));
            // The last outcome is added whether there is room or not.
            assert!(receiver.0.state.lock().outcomes.len() <= CAPACITY + 1);
        }
        assert_eq!(receiver.recv(later).await, Some(of_bytes(1)));
        assert_eq!(receiver.recv(later).await, None);
        thread.join().expect("it has ended");
    }

    #[test]
    fn a_thread_without_a_follower_waits_for_no_room() {
        let (sender, receiver) = outcome_buffer();
        assert!(sender.send(one()));
        drop(receiver);
        assert!(!some(2 * CAPACITY).any(|timed| sender.send(timed)));
    }
}
