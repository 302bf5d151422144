//! Keeps the newest [`MAX_RECOVERIES`] recoveries of a job from lost nodes, numbered from 1.

use std::collections::VecDeque;

use longshore_protocol::{Recovery, Timestamp};

use crate::op::MAX_RECOVERIES;

/// The recoveries of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Recoveries {
    newest_first: VecDeque<Recovery>,
    count: u64,
}

impl Recoveries {
    /// The number of all recoveries so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The number of the next recovery.
    pub(super) fn next(&self) -> u64 {
        self.count + 1
    }

    pub(super) fn keep(&mut self, recovery: Recovery) {
        self.count += 1;
        self.newest_first.push_front(recovery);
        self.newest_first.truncate(MAX_RECOVERIES);
    }

    /// Records that a chunk that this recovery queued again was claimed.
    pub(super) fn claimed(&mut self, number: u64, now: Timestamp) {
        let from_newest = usize::try_from(self.count - number).unwrap_or(usize::MAX);
        if let Some(recovery) = self.newest_first.get_mut(from_newest) {
            recovery.waiting -= 1;
            if recovery.waiting == 0 {
                recovery.again_after = Some(now.since(recovery.at));
            }
        }
    }

    pub(super) fn newest(&self, limit: usize) -> Vec<Recovery> {
        self.newest_first.iter().take(limit).cloned().collect()
    }
}
