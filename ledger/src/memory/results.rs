//! Keeps the results of one job by index, and the newest errors of its subtasks; reads pages.
//!
//! A result run is kept as it was committed, so a run costs one entry however many subtasks it
//! covers. Runs never cross a multiple of `RESULT_STRIDE`, which bounds how far before an index its
//! run may begin.

use std::collections::BTreeMap;
use std::ops::Range;

use longshore_protocol::{ErrorEntry, RESULT_STRIDE, ResultBody, ResultRun, ResultsPage};

use crate::op::MAX_ERRORS;

/// Results by the index of their run's first subtask.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    runs: BTreeMap<u64, Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    count: u64,
    body: ResultBody,
}

impl Results {
    /// Stores the part `kept` of a committed run; `body` is that of the whole run, which begins at
    /// `from`.
    pub(super) fn keep(&mut self, from: u64, kept: Range<u64>, body: &ResultBody) {
        let body = body.part(kept.start - from, kept.end - kept.start);
        self.runs.insert(kept.start, Kept { count: kept.end - kept.start, body });
    }

    /// The runs that overlap `range`, until their lines reach `max_bytes`.
    pub(super) fn page(&self, range: Range<u64>, max_bytes: u64) -> ResultsPage {
        let mut page = ResultsPage { runs: Vec::new(), next: range.end };
        if range.is_empty() {
            return page;
        }
        let mut bytes = 0;
        let first = range.start - range.start % RESULT_STRIDE;
        for (&from, kept) in self.runs.range(first..range.end) {
            let end = from + kept.count;
            if end <= range.start {
                continue;
            }
            page.runs.push(ResultRun { from, body: kept.body.clone(), count: kept.count });
            bytes += kept.body.text().len() as u64;
            if bytes >= max_bytes {
                page.next = end.min(range.end);
                break;
            }
        }
        page
    }
}

/// The errors of failed subtasks; the newest [`MAX_ERRORS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Errors {
    entries: BTreeMap<u64, (u64, ErrorEntry)>,
    by_age: BTreeMap<u64, u64>,
    next_age: u64,
}

impl Errors {
    pub(super) fn keep(&mut self, entry: ErrorEntry) {
        let index = entry.index;
        self.forget(index);
        self.by_age.insert(self.next_age, index);
        self.entries.insert(index, (self.next_age, entry));
        self.next_age += 1;
        if self.entries.len() > MAX_ERRORS {
            let (_, oldest) = self.by_age.pop_first().expect("as long as the entries");
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn forget(&mut self, index: u64) {
        if let Some((age, _)) = self.entries.remove(&index) {
            self.by_age.remove(&age);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn page(&self, from: u64, limit: usize) -> Vec<ErrorEntry> {
        self.entries.range(from..).take(limit).map(|(_, (_, entry))| entry.clone()).collect()
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use longshore_protocol::{NodeId, Timestamp};

    use super::*;

    #[test]
    fn of_too_many_errors_the_newest_are_kept() {
        let mut errors = Errors::default();
        let entry = |index| ErrorEntry {
            index,
            error: "no".into(),
            attempts: 1,
            node: NodeId::new("n"),
            at: Timestamp::from_millis(1),
            deaths: Vec::new(),
        };
        for index in 0..MAX_ERRORS as u64 {
            errors.keep(entry(index));
        }
        // Index 0 fails again and is the newest now; one more pushes out index 1.
        errors.keep(entry(0));
        errors.keep(entry(MAX_ERRORS as u64));
        let kept: Vec<u64> = errors.page(0, 2).iter().map(|entry| entry.index).collect();
        assert_eq!(kept, [0, 2]);
        assert_eq!(errors.page(0, usize::MAX).len(), MAX_ERRORS);
        assert_eq!(errors.by_age.len(), MAX_ERRORS);
    }
}
