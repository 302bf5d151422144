//! Formats the recoveries of a job as text: the lost nodes and what happened to their chunks.

use std::time::Duration;

use longshore_protocol::{JobSummary, LossKind, Recovery};

/// The number of lost nodes that are shown one by one.
const SHOWN: usize = 3;

/// A line for all recoveries, then a line for each of the newest; nothing without recoveries.
pub(super) fn facts(job: &JobSummary, newest_first: &[Recovery]) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut parts = Vec::new();
    if job.recoveries > 0 {
        let (chunks, subtasks) = (counted(job.reissued, "chunk"), counted(job.lost, "subtask"));
        parts.push(format!("{}, {chunks} ({subtasks}) handed out again", causes(job)));
    }
    if job.fenced > 0 {
        parts.push(format!("{} refused", counted(job.fenced, "stale commit")));
    }
    if !parts.is_empty() {
        facts.push(("recovered", parts.join("; ")));
    }
    facts.extend(newest_first.iter().take(SHOWN).map(|recovery| ("node", told(recovery))));
    facts
}

/// The numbers of nodes whose work was taken back, by cause.
fn causes(job: &JobSummary) -> String {
    let lost = job.recoveries.saturating_sub(job.orphaned);
    let mut causes = Vec::new();
    if lost > 0 {
        let left = match lost.saturating_sub(job.crashes) {
            0 => String::new(),
            left => format!(" ({left} left without a word)"),
        };
        causes.push(format!("{} lost{left}", counted(lost, "node")));
    }
    if job.orphaned > 0 {
        let held = if job.orphaned == 1 { "it held" } else { "they held" };
        causes.push(format!("{} unaware of what {held}", counted(job.orphaned, "node")));
    }
    causes.join(", ")
}

fn told(recovery: &Recovery) -> String {
    let Recovery { node, chunks, subtasks, cut, waiting, .. } = recovery;
    let how = match recovery.lost {
        LossKind::Died => "died",
        LossKind::Left => "left",
        LossKind::Orphaned => "had no record of what it held",
    };
    let mut told = format!("{node} {how}");
    if let Some(how) = &recovery.how {
        // The cause can have many lines; the first is enough here.
        told += &format!(" ({})", how.lines().next().unwrap_or_default());
    }
    if *chunks > 0 {
        told += &format!(": {} ({})", counted(*chunks, "chunk"), counted(*subtasks, "subtask"));
        told += &match recovery.again_after {
            Some(after) => format!(" ran again after {}", brief(after)),
            None if *waiting > 0 => format!(" queued again, {waiting} not claimed yet"),
            None => String::new(),
        };
    }
    if *cut > 0 {
        told += &format!("; {} cut", counted(*cut, "chunk"));
    }
    for index in &recovery.given_up {
        told += &format!("; {index} given up");
    }
    told
}

pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    super::job::seconds(duration)
}

#[cfg(test)]
mod tests {
    use longshore_protocol::{NodeId, Timestamp};

    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Recovery), expected: &str) {
        let mut recovery = Recovery {
            at: Timestamp::from_millis(1),
            node: NodeId::new("box-1"),
            lost: LossKind::Died,
            how: None,
            chunks: 5,
            subtasks: 120,
            cut: 0,
            given_up: vec![],
            waiting: 0,
            again_after: Some(Duration::from_millis(180)),
        };
        change(&mut recovery);
        assert_eq!(told(&recovery), expected);
    }

    #[test]
    fn a_recovery_reads_as_a_sentence() {
        check(|_| (), "box-1 died: 5 chunks (120 subtasks) ran again after 180 ms");
        check(
            |it| (it.how, it.chunks) = (Some("killed by SIGABRT".into()), 0),
            "box-1 died (killed by SIGABRT)",
        );
        check(
            |it| (it.lost, it.waiting, it.again_after) = (LossKind::Left, 2, None),
            "box-1 left: 5 chunks (120 subtasks) queued again, 2 not claimed yet",
        );
        check(
            |it| (it.lost, it.chunks, it.subtasks) = (LossKind::Orphaned, 1, 3),
            "box-1 had no record of what it held: 1 chunk (3 subtasks) ran again after 180 ms",
        );
        check(
            |it| (it.cut, it.again_after) = (1, Some(Duration::from_millis(2_300))),
            "box-1 died: 5 chunks (120 subtasks) ran again after 2.3s; 1 chunk cut",
        );
        check(
            |it| (it.chunks, it.again_after, it.given_up) = (0, None, vec![7]),
            "box-1 died; 7 given up",
        );
        check(
            |it| (it.chunks, it.subtasks) = (1, 1),
            "box-1 died: 1 chunk (1 subtask) ran again after 180 ms",
        );
    }
}
