//! The subtasks of a job that wait for their next attempt, and the choice of those that are due.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use longshore_protocol::{NodeId, Timestamp};

/// The most due retries that one `open` examines: bounds how long the ledger is busy with one call.
const LOOKED_AT: usize = 1_000;

/// An index that waits. Retries are handed out in the order of these fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) attempt: u32,
    pub(super) deferrals: u32,
    pub(super) index: u64,
    /// The nodes on which attempts failed, oldest first.
    pub(super) tried: Vec<NodeId>,
}

impl Waiting {
    /// Removes the failures on these nodes, and the attempts that they took.
    pub(super) fn refund_attempts(mut self, refunded: &[NodeId]) -> Self {
        let before = self.tried.len();
        self.tried.retain(|node| !refunded.contains(node));
        let wasted = (before - self.tried.len()) as u32;
        self.attempt = self.attempt.saturating_sub(wasted).max(1);
        self
    }
}

/// Consecutive indices with equal attempt, deferrals and nodes on which they failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IndexRun {
    pub(super) range: Range<u64>,
    pub(super) attempt: u32,
    pub(super) deferrals: u32,
    pub(super) tried: Vec<NodeId>,
}

impl IndexRun {
    fn continues_with(&self, waiting: &Waiting, size: u64) -> bool {
        self.range.end == waiting.index
            && (self.attempt, self.deferrals) == (waiting.attempt, waiting.deferrals)
            && self.tried == waiting.tried
            && self.range.end - self.range.start < size
    }
}

/// The retry set. An index is in it at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    by_due: BTreeSet<(Timestamp, u64)>,
    by_index: BTreeMap<u64, (Timestamp, Waiting)>,
}

impl Retries {
    pub(super) fn len(&self) -> u64 {
        self.by_index.len() as u64
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.by_due.first().map(|(due, _)| *due)
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_index.keys().copied()
    }

    pub(super) fn insert(&mut self, waiting: Waiting, due: Timestamp) {
        let index = waiting.index;
        if let Some((old, _)) = self.by_index.insert(index, (due, waiting)) {
            self.by_due.remove(&(old, index));
        }
        self.by_due.insert((due, index));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes and returns up to `chunks` runs of due indices, each of at most `size`.
    pub(super) fn take_due(
        &mut self,
        now: Timestamp,
        chunks: usize,
        size: u64,
        refunded: &[NodeId],
    ) -> Vec<IndexRun> {
        if chunks == 0 || self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut due: Vec<Waiting> = self
            .by_due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(LOOKED_AT)
            .map(|(_, index)| self.by_index[index].1.clone().refund_attempts(refunded))
            .collect();
        due.sort_unstable();
        let mut taken: Vec<IndexRun> = Vec::new();
        for waiting in due {
            let full = taken.len() == chunks;
            match taken.last_mut() {
                Some(last) if last.continues_with(&waiting, size) => {
                    last.range.end += 1;
                }
                _ if full => break,
                _ => {
                    let Waiting { attempt, deferrals, index, ref tried } = waiting;
                    let (range, tried) = (index..index + 1, tried.clone());
                    taken.push(IndexRun { range, attempt, deferrals, tried });
                }
            }
            let index = waiting.index;
            let (due, _) = self.by_index.remove(&index).expect("listed under its due time");
            self.by_due.remove(&(due, index));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn due_retries_are_grouped_by_attempt_and_what_finds_no_chunk_stays() {
        let mut retries = Retries::default();
        for (index, attempt, due) in
            [(3, 2, 0), (1, 2, 5), (2, 2, 0), (4, 3, 0), (8, 2, 0), (5, 2, 99)]
        {
            let tried = Vec::new();
            retries.insert(Waiting { attempt, deferrals: 0, index, tried }, at(due));
        }
        let run = |range| IndexRun { range, attempt: 2, deferrals: 0, tried: Vec::new() };
        let taken = retries.take_due(at(5), 2, 2, &[]);
        assert_eq!(taken, [run(1..3), run(3..4)]);
        assert_eq!(retries.indices().collect::<Vec<_>>(), [4, 5, 8]);
        assert_eq!(retries.take_due(at(5), 9, 9, &[]).len(), 2);
        assert_eq!(retries.next_due(), Some(at(99)));
        assert_eq!(retries.take_due(at(98), 9, 9, &[]), []);
    }
}
