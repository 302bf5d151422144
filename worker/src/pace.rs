//! Whether chunks are so short that the next ones have to be fetched and claimed before a slot is free.
//!
//! A slot that asks for its next chunk when it has nothing to do waits for two round trips. That is nothing beside a chunk of a
//! quarter of a second, and many times what a chunk of one no-op takes. Work that is fetched ahead can't go to anybody else
//! meanwhile, so nothing is fetched ahead until many chunks in a row were short, and all is given back when one is long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// A chunk that keeps a slot for less is short: about what the round trips take.
const SHORT: Duration = Duration::from_millis(5);

/// A chunk that keeps a slot for longer is long.
const LONG: Duration = Duration::from_millis(50);

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gait {
    /// A chunk is claimed when there is a slot for it.
    Walk,
    /// Chunks are fetched and claimed ahead.
    Run,
}

/// The pace of a worker, from how long its chunks keep their slots.
#[derive(Debug)]
pub(crate) struct Pace {
    /// So many short chunks in a row are believed.
    enough: u32,
    short: AtomicU32,
    gait: watch::Sender<Gait>,
}

impl Pace {
    /// Believes in so many short chunks in a row, which are at least some for each slot: the first chunks of a job are short while
    /// their right size is being found.
    pub(crate) fn new(enough: u32) -> Self {
        Self { enough, short: AtomicU32::new(0), gait: watch::Sender::new(Gait::Walk) }
    }

    pub(crate) fn gait(&self) -> Gait {
        *self.gait.borrow()
    }

    /// Waits until it goes like this.
    pub(crate) async fn until(&self, gait: Gait) {
        // The sender is ours, so it is there.
        let _ = self.gait.subscribe().wait_for(|now| *now == gait).await;
    }

    /// A chunk kept its slot for so long.
    pub(crate) fn took(&self, busy: Duration) {
        if busy >= LONG {
            self.slow_down();
        } else if busy < SHORT {
            let short = self.short.fetch_add(1, Ordering::Relaxed) + 1;
            if short == self.enough {
                self.gait.send_replace(Gait::Run);
            }
        }
    }

    /// Something waits for a slot longer than work that is short would have it wait.
    pub(crate) fn slow_down(&self) {
        self.short.store(0, Ordering::Relaxed);
        self.gait.send_if_modified(|gait| std::mem::replace(gait, Gait::Walk) == Gait::Run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gait after chunks that took so many milliseconds.
    #[track_caller]
    fn after(chunks: &[(u64, u32)], expected: Gait) {
        let pace = Pace::new(128);
        for (ms, count) in chunks {
            (0..*count).for_each(|_| pace.took(Duration::from_millis(*ms)));
        }
        assert_eq!(pace.gait(), expected, "{chunks:?}");
    }

    #[test]
    fn many_short_chunks_in_a_row_make_it_run_and_a_long_one_makes_it_walk() {
        after(&[(1, 127)], Gait::Walk);
        after(&[(1, 128)], Gait::Run);
        after(&[(1, 127), (60, 1), (1, 127)], Gait::Walk);
        after(&[(1, 128), (60, 1)], Gait::Walk);
        after(&[(1, 128), (60, 1), (1, 128)], Gait::Run);
    }

    #[test]
    fn what_is_neither_short_nor_long_changes_nothing() {
        after(&[(1, 127), (20, 5)], Gait::Walk);
        after(&[(1, 127), (20, 5), (1, 1)], Gait::Run);
        after(&[(1, 200), (20, 5)], Gait::Run);
    }
}
