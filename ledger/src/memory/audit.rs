//! Counts a job's subtasks anew from its raw data, and compares that with the counters.
//!
//! The raw data are bitmaps, open chunks, the retry set and the cursor.

use longshore_protocol::{Audit, Counts};

use super::job::{Job, is_queued};

impl Job {
    pub(super) fn audit(&self) -> Audit {
        let (counted, reduce_counted) =
            if self.restored_at.is_some() { (self.counts, self.reduce) } else { self.recount() };
        let mut findings = Vec::new();
        let pairs =
            [("subtasks", self.counts, counted), ("reduce nodes", self.reduce, reduce_counted)];
        for (what, kept, counted) in pairs {
            if kept.imbalance() != 0 {
                findings.push(format!("the counts of the {what} are off by {}", kept.imbalance()));
            }
            for (column, kept, counted) in columns(kept, counted) {
                if kept != counted {
                    findings.push(format!("{kept} {what} are kept as {column}, {counted} counted"));
                }
            }
        }
        self.check_chunks(&mut findings);
        self.check_retries(&mut findings);
        self.check_bits(&mut findings);
        Audit {
            job: self.id(),
            state: self.state,
            kept: self.counts,
            counted,
            reduce_kept: self.reduce,
            reduce_counted,
            findings,
        }
    }

    /// The counts of subtasks and of reduce nodes by the raw data alone.
    fn recount(&self) -> (Counts, Counts) {
        let ended = self.state.is_terminal();
        let level = self.recount_level(ended);
        if self.at_leaves() {
            let total = self.reduce.total;
            // The reduce is cancelled with its leaves.
            let given_up = ended || level.cancelled > 0;
            let (waiting, cancelled) = if given_up { (0, total) } else { (total, 0) };
            return (level, Counts { total, waiting, cancelled, ..Counts::default() });
        }
        let leaves = self.counts.total;
        let done = self.done.count(0..leaves);
        // A subtask that is not done below a reduce shows as a difference.
        let subtasks =
            Counts { total: leaves, done, cancelled: leaves - done, ..Counts::default() };
        let below = self.done.count(leaves..self.level.start);
        let above = self.above();
        let (waiting, cancelled) =
            if ended || level.cancelled > 0 { (0, above) } else { (above, 0) };
        let reduce = Counts {
            total: self.reduce.total,
            waiting: level.waiting + waiting,
            done: level.done + below,
            cancelled: level.cancelled + cancelled,
            ..level
        };
        (subtasks, reduce)
    }

    fn recount_level(&self, ended: bool) -> Counts {
        let level = self.level.clone();
        let mut counts = Counts { total: level.end - level.start, ..Counts::default() };
        counts.done = self.done.count(level.clone());
        counts.failed = self.failed.count(level.clone());
        for chunk in self.chunks.values() {
            if is_queued(chunk) {
                counts.queued += chunk.len();
            } else {
                counts.running += chunk.len();
            }
        }
        counts.retrying = self.retries.len();
        if !ended {
            let rest = self.cursor..level.end;
            counts.waiting = (level.end - self.cursor) - self.done.count(rest);
        }
        // If more is counted than the total, `cancelled` is 0 and the counters differ.
        let settled = counts.open() + counts.done + counts.failed;
        counts.cancelled = counts.total.saturating_sub(settled);
        counts
    }

    fn check_chunks(&self, findings: &mut Vec<String>) {
        let mut by_start: Vec<_> = self.chunks.iter().collect();
        by_start.sort_by_key(|(_, chunk)| chunk.range.start);
        for (id, chunk) in &by_start {
            let (from, to) = (chunk.range.start, chunk.range.end);
            if from >= to || from < self.level.start || to > self.level.end {
                findings.push(format!("chunk {id} is {from}..{to}, outside the level"));
            } else if self.done.count(from..to) + self.failed.count(from..to) > 0 {
                findings.push(format!("chunk {id} has subtasks open that are settled"));
            }
        }
        for pair in by_start.windows(2) {
            let [(a, before), (b, after)] = pair else { continue };
            if before.range.end > after.range.start {
                findings.push(format!("chunks {a} and {b} overlap"));
            }
        }
    }

    fn check_retries(&self, findings: &mut Vec<String>) {
        for index in self.retries.indices() {
            if !self.level.contains(&index) {
                findings.push(format!("{index} waits for a retry outside the level"));
            } else if self.done.get(index) || self.failed.get(index) {
                findings.push(format!("{index} waits for a retry and is settled"));
            }
        }
    }

    fn check_bits(&self, findings: &mut Vec<String>) {
        if let Some(index) = self.errors.indices().find(|index| !self.failed.get(*index)) {
            findings.push(format!("{index} has an error and has not failed"));
        }
        let mut at = self.level.start;
        while let Some(index) = self.failed.next_one(at..self.level.end) {
            if self.done.get(index) {
                findings.push(format!("{index} is both done and failed"));
                break;
            }
            at = index + 1;
        }
    }
}

fn columns(kept: Counts, counted: Counts) -> [(&'static str, u64, u64); 7] {
    [
        ("waiting", kept.waiting, counted.waiting),
        ("queued", kept.queued, counted.queued),
        ("running", kept.running, counted.running),
        ("retrying", kept.retrying, counted.retrying),
        ("done", kept.done, counted.done),
        ("failed", kept.failed, counted.failed),
        ("cancelled", kept.cancelled, counted.cancelled),
    ]
}
