//! Decides when the reasons that block jobs of own queues are published, and when withdrawn.
//!
//! A full window has room for a moment after each chunk that ends, and a short job is blocked for
//! no longer than it lasts. So a reason is published once it has held for a second, and withdrawn
//! once it has not been found for a second; what changes more often costs nothing. Only the
//! reason is compared: how many subtasks wait is in the job itself.
//!
//! Deliberately absent: what blocks a job (see `job` and `fill`).

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_ledger::ReportBlockedParams;
use longshore_protocol::{Blocked, BlockedScope, ReasonCode, Timestamp};

/// How long a reason holds before it is published, and is missing before it is withdrawn.
const STEADY: Duration = Duration::from_secs(1);

/// The reports about all queues of this scheduler.
#[derive(Debug, Default)]
pub(super) struct BlockedReports {
    queues: BTreeMap<String, Reports>,
}

/// The reports about one queue.
#[derive(Debug)]
struct Reports {
    /// When this scheduler looked at a job of the queue first.
    known_since: Timestamp,
    scopes: BTreeMap<BlockedScope, Report>,
    /// The ledger has what is `published` here, and nothing else about the queue.
    is_in_sync: bool,
    is_in_flight: bool,
}

/// What is known of one scope.
#[derive(Debug, Default)]
struct Report {
    found: Option<Found>,
    published: Option<Blocked>,
}

/// A reason that was found.
#[derive(Debug)]
struct Found {
    blocked: Blocked,
    /// When it was found first and last, by the clock of this process.
    first_at: Timestamp,
    last_at: Timestamp,
    /// Whether it was found when the scope was looked at last.
    holds: bool,
}

impl BlockedReports {
    /// A scope was looked at: this blocks its jobs, or nothing does.
    pub(super) fn found(
        &mut self,
        now: Timestamp,
        ledger_now: Option<Timestamp>,
        queue: &str,
        scope: BlockedScope,
        reason: Option<ReasonCode>,
    ) {
        if !self.queues.contains_key(queue) {
            self.queues.insert(queue.to_owned(), Reports::new(now));
        }
        let reports = self.queues.get_mut(queue).expect("it is there now");
        let Some(reason) = reason else {
            let report = reports.scopes.get_mut(&scope);
            if let Some(found) = report.and_then(|report| report.found.as_mut()) {
                found.holds = false;
            }
            return;
        };
        let report = reports.scopes.entry(scope).or_default();
        match &mut report.found {
            Some(found) if found.blocked.reason == reason => {
                (found.last_at, found.holds) = (now, true);
            }
            found => {
                let since = ledger_now.unwrap_or_default();
                let blocked = Blocked { reason, since };
                *found = Some(Found { blocked, first_at: now, last_at: now, holds: true });
            }
        }
    }

    /// Forgets the queues that went to other schedulers, which report everything anew, and the
    /// idle ones that have no job.
    pub(super) fn retain_queues(
        &mut self,
        is_ours: impl Fn(&str) -> bool,
        has_jobs: impl Fn(&str) -> bool,
    ) {
        let is_idle = |reports: &Reports| reports.scopes.is_empty() && !reports.is_in_flight;
        self.queues
            .retain(|queue, reports| is_ours(queue) && (!is_idle(reports) || has_jobs(queue)));
    }

    /// Nothing blocks the jobs of scopes that are gone: the job has ended, or none of our jobs
    /// needs the task.
    pub(super) fn retain_scopes(&mut self, exists: impl Fn(&str, &BlockedScope) -> bool) {
        for (queue, reports) in &mut self.queues {
            for (scope, report) in &mut reports.scopes {
                report.found.take_if(|_| !exists(queue, scope));
            }
        }
    }

    /// What the ledger is to be told now.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<ReportBlockedParams> {
        self.queues.iter_mut().filter_map(|(queue, reports)| reports.take_due(now, queue)).collect()
    }

    /// The ledger was told, or could not be.
    pub(super) fn reported(&mut self, queue: &str, is_done: bool) {
        if let Some(reports) = self.queues.get_mut(queue) {
            (reports.is_in_flight, reports.is_in_sync) = (false, is_done);
        }
    }
}

impl Reports {
    fn new(now: Timestamp) -> Self {
        Self { known_since: now, scopes: BTreeMap::new(), is_in_sync: false, is_in_flight: false }
    }

    fn take_due(&mut self, now: Timestamp, queue: &str) -> Option<ReportBlockedParams> {
        if self.is_in_flight || now.since(self.known_since) < STEADY {
            return None;
        }
        let replaces = !self.is_in_sync;
        let mut changes = Vec::new();
        for (scope, report) in &mut self.scopes {
            let wanted = report.settle(now);
            let is_same =
                wanted.map(|it| it.reason) == report.published.map(|published| published.reason);
            if !is_same || replaces && wanted.is_some() {
                changes.push((scope.clone(), wanted));
            }
            report.published = wanted;
        }
        self.scopes.retain(|_, report| report.found.is_some() || report.published.is_some());
        if changes.is_empty() && !replaces {
            return None;
        }
        self.is_in_flight = true;
        Some(ReportBlockedParams { replaces, ..ReportBlockedParams::new(queue, changes) })
    }
}

impl Report {
    /// What is to be published of the scope from now on.
    fn settle(&mut self, now: Timestamp) -> Option<Blocked> {
        let is_over = |found: &Found| !found.holds && now.since(found.last_at) >= STEADY;
        self.found.take_if(|found| is_over(found));
        let found = self.found.as_ref()?;
        if now.since(found.first_at) >= STEADY { Some(found.blocked) } else { self.published }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is reported at each time (ms), when the scope is looked at with this outcome.
    #[track_caller]
    fn reports(looks: &[(u64, Option<ReasonCode>)], expected: &[(u64, Option<ReasonCode>)]) {
        let mut all = BlockedReports::default();
        let mut seen = Vec::new();
        for (ms, reason) in looks {
            let now = Timestamp::from_millis(*ms);
            all.found(now, Some(now), "q", BlockedScope::Queue, *reason);
            for params in all.take_due(now) {
                let told = params.changes.iter().map(|(_, it)| it.map(|it| it.reason));
                seen.extend(told.map(|reason| (*ms, reason)));
                all.reported("q", true);
            }
        }
        assert_eq!(seen, expected);
    }

    const BUSY: Option<ReasonCode> = Some(ReasonCode::SlotsBusy);
    const MOST: Option<ReasonCode> = Some(ReasonCode::MaxParallel);

    #[test]
    fn a_reason_is_published_after_a_second_and_once() {
        reports(&[(0, BUSY), (900, BUSY)], &[]);
        reports(&[(0, BUSY), (1_000, BUSY), (2_000, BUSY), (9_000, BUSY)], &[(1_000, BUSY)]);
    }

    #[test]
    fn a_moment_without_a_reason_changes_nothing_and_a_second_does() {
        let looks = [(0, BUSY), (500, None), (510, BUSY), (1_000, BUSY), (1_010, None)];
        reports(&looks, &[(1_000, BUSY)]);
        reports(&[&looks[..], &[(2_000, None)]].concat(), &[(1_000, BUSY), (2_000, None)]);
    }

    #[test]
    fn another_reason_replaces_the_first_once_it_has_held() {
        let looks = [(0, BUSY), (1_000, BUSY), (2_000, MOST), (2_500, MOST), (3_000, MOST)];
        reports(&looks, &[(1_000, BUSY), (3_000, MOST)]);
    }

    #[test]
    fn what_the_ledger_was_not_told_is_told_again_and_replaces_everything() {
        let mut all = BlockedReports::default();
        let at = Timestamp::from_millis;
        all.found(at(0), None, "q", BlockedScope::Queue, BUSY);
        assert_eq!(all.take_due(at(0)), [], "a short job costs nothing");
        let told = all.take_due(at(1_000));
        assert_eq!((told.len(), told[0].replaces, told[0].changes.len()), (1, true, 1));
        assert_eq!(all.take_due(at(1_500)), [], "one at a time");
        all.reported("q", false);
        let told = all.take_due(at(2_000));
        assert_eq!((told[0].replaces, told[0].changes.len()), (true, 1));
        all.reported("q", true);
        all.retain_scopes(|_, _| false);
        let told = all.take_due(at(2_500));
        assert_eq!(told[0].changes, [(BlockedScope::Queue, None)]);
        all.retain_queues(|_| true, |_| false);
        assert_eq!(all.queues.len(), 1, "the ledger has not answered");
        all.reported("q", true);
        all.retain_queues(|_| true, |_| false);
        assert_eq!(all.queues.len(), 0);
    }
}
