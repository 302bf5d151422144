//! Counts the states of a job's subtasks for equal ranges of their indices.

use std::ops::Range;

use longshore_protocol::{Counts, JobMap, MapCell};

use super::job::{Job, is_queued};
use crate::op::MapParams;

impl Job {
    pub(super) fn map(&self, params: &MapParams) -> JobMap {
        let cell = |cell| {
            let range = params.cell(cell);
            MapCell { from: range.start, counts: self.counts_of(range) }
        };
        let cells = (0..params.cells).map(cell).collect();
        JobMap { id: self.admission.job, from: params.indices.start, to: params.indices.end, cells }
    }

    fn counts_of(&self, range: Range<u64>) -> Counts {
        let mut counts = Counts { total: range.end - range.start, ..Counts::default() };
        counts.done = self.done.count(range.clone());
        counts.failed = self.failed.count(range.clone());
        for chunk in self.chunks.values() {
            let (from, to) = (chunk.range.start.max(range.start), chunk.range.end.min(range.end));
            let number = if is_queued(chunk) { &mut counts.queued } else { &mut counts.running };
            *number += to.saturating_sub(from);
        }
        counts.retrying =
            self.retries.indices().filter(|index| range.contains(index)).count() as u64;
        if !self.state.is_terminal() && self.level.start < self.counts.total {
            let rest = self.cursor.max(range.start)..range.end;
            if !rest.is_empty() {
                counts.waiting = (rest.end - rest.start) - self.done.count(rest);
            }
        }
        let placed = counts.open() + counts.done + counts.failed;
        counts.cancelled = counts.total.saturating_sub(placed);
        counts
    }
}
