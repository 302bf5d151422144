//! Finds unlisted holders of chunks, and orphaned chunks, whose live holders don't know of them.
//!
//! Unlisted holders are workers that are on no list. A holder that is neither on the list of
//! workers nor on that of lost workers can't be told from one whose heartbeat is late, so it gets
//! the time after which a silent worker is dead.
//!
//! After a rollback of the ledger a chunk that its holder committed long ago runs again in the
//! counts. And a claim that was given up can arrive after all. No one would free such a chunk: its
//! holder is alive, and has nothing to commit. But each heartbeat names the jobs of which the
//! worker held a chunk since the heartbeat before. So it is proof enough that a claim is there at
//! two reads of the holders, and that a heartbeat from some time after the first does not name the
//! job. A claim after the first read proves nothing: a worker without work claims some chunks
//! between its heartbeat and the second read, and this scheduler may have missed a heartbeat that
//! named what it held in the meantime. The second read is made once the heartbeat has come.
//! Deliberately absent: holders that are lost (see `node_recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_ledger::Holder;
use longshore_protocol::{JobId, NodeId, Timestamp};

/// With the heartbeat that comes this many after a read of the holders, the worker surely knows
/// what it held then: the next one may have been on its way already, and the list of workers may be
/// one behind.
const BEATS: u64 = 3;

/// Workers that hold chunks and are on no list, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct UnlistedHolders {
    since: BTreeMap<NodeId, Timestamp>,
}

impl UnlistedHolders {
    /// This worker holds a chunk and is on no list.
    pub(super) fn found(&mut self, now: Timestamp, node: &NodeId) {
        self.since.entry(node.clone()).or_insert(now);
    }

    /// The lists were read: forgets the workers that are on one of them.
    pub(super) fn forget(&mut self, is_listed: impl Fn(&NodeId) -> bool) {
        self.since.retain(|id, _| !is_listed(id));
    }

    /// The workers that have been on no list for `dead_after`, as of lists that were read at
    /// `read_at`. Lists that could not be read prove nothing.
    pub(super) fn lost(&self, read_at: Timestamp, dead_after: Duration) -> Vec<NodeId> {
        let is_lost = |since: &Timestamp| read_at.since(*since) >= dead_after;
        let lost = self.since.iter().filter(|(_, since)| is_lost(since));
        lost.map(|(id, _)| id.clone()).collect()
    }
}

/// A holder of chunks that is alive, and what it announced last.
#[derive(Clone, Copy, Debug)]
pub(super) struct HolderReport<'a> {
    /// How many of its heartbeats were seen.
    pub(super) beats: u64,
    /// Whether the last one names the job; `None` if the worker never names jobs.
    pub(super) names: Option<bool>,
    /// The worker, and when it claimed what it holds.
    pub(super) holder: &'a Holder,
}

/// What the first read of the holders found.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// How many heartbeats had been seen.
    beats: u64,
    /// When the newest of the claims was granted.
    newest: Timestamp,
}

/// Finds chunks whose holder is alive and does not know that it holds them.
#[derive(Debug, Default)]
pub(super) struct OrphanDetector {
    suspects: BTreeMap<(JobId, NodeId), Suspect>,
}

impl OrphanDetector {
    /// The holders of a job's chunks were read; `reports` are about those of them that are alive.
    /// Returns, and forgets, those that surely do not know what they claimed up to the time beside
    /// them.
    pub(super) fn compare(
        &mut self,
        job: JobId,
        reports: &[HolderReport<'_>],
    ) -> Vec<(NodeId, Timestamp)> {
        let mut before = self.take(job);
        let mut orphaned = Vec::new();
        for HolderReport { beats, names, holder: Holder { node, oldest, newest } } in reports {
            if *names != Some(false) {
                continue;
            }
            let first = before.remove(node).filter(|first| *oldest <= first.newest);
            match first {
                Some(first) if *beats >= first.beats + BEATS => {
                    orphaned.push((node.clone(), first.newest));
                }
                first => {
                    let suspect = first.unwrap_or(Suspect { beats: *beats, newest: *newest });
                    self.suspects.insert((job, node.clone()), suspect);
                }
            }
        }
        orphaned
    }

    /// Heartbeats came: a worker that names a job knows what it holds of it.
    pub(super) fn heard(&mut self, names: impl Fn(&NodeId, JobId) -> bool) {
        self.suspects.retain(|(job, node), _| !names(node, *job));
    }

    /// The jobs whose holders are to be read a second time, given the heartbeats seen of each node.
    pub(super) fn ripe(&self, beats: impl Fn(&NodeId) -> Option<u64>) -> BTreeSet<JobId> {
        let has_beaten =
            |node: &NodeId, since: u64| beats(node).is_some_and(|beats| beats >= since + BEATS);
        let ripe = self.suspects.iter().filter(|((_, node), first)| has_beaten(node, first.beats));
        ripe.map(|((job, _), _)| *job).collect()
    }

    fn take(&mut self, job: JobId) -> BTreeMap<NodeId, Suspect> {
        let of_job = self.suspects.extract_if(.., |(of, _), _| *of == job);
        of_job.map(|((_, node), first)| (node, first)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::holder;
    use super::*;

    fn job() -> JobId {
        "00000000-0000-4000-8000-000000000001".parse().expect("an id")
    }

    /// Compares once for each of these heartbeats of a worker whose only claim stays; `expected` is
    /// the first time that finds it out.
    #[track_caller]
    fn found_out(heartbeats: &[(u64, Option<bool>)], expected: Option<usize>) {
        let (holder, mut orphans) = (holder("n", 5, 5), OrphanDetector::default());
        let found = heartbeats.iter().position(|&(beats, names)| {
            orphans.heard(|_, _| names == Some(true));
            !orphans.compare(job(), &[HolderReport { beats, names, holder: &holder }]).is_empty()
        });
        assert_eq!(found, expected, "{heartbeats:?}");
        assert!(found.is_none() || orphans.suspects.is_empty());
    }

    const NO: Option<bool> = Some(false);

    #[test]
    fn a_holder_that_never_names_the_job_is_found_out_after_some_heartbeats() {
        found_out(&[(1, NO), (2, NO), (3, NO), (4, NO)], Some(3));
        found_out(&[(7, NO), (17, NO)], Some(1));
    }

    #[test]
    fn a_holder_that_names_the_job_or_sends_no_heartbeat_or_never_names_jobs_is_not() {
        found_out(&[(7, Some(true)), (17, Some(true)), (27, NO)], None);
        found_out(&[(7, NO), (8, Some(true)), (17, NO)], None);
        found_out(&[(7, NO), (7, NO), (7, NO)], None);
        found_out(&[(7, None), (17, None), (27, None)], None);
    }

    /// Compares several times, long enough after one another, while a worker's claims are of these
    /// times (oldest and newest). `expected` is the time up to which claims are revoked at last.
    #[track_caller]
    fn revokes(claims: &[(u64, u64)], expected: Option<u64>) {
        let mut orphans = OrphanDetector::default();
        let mut revoked = Vec::new();
        for (beats, (oldest, newest)) in (0..).step_by(10).zip(claims) {
            let holder = holder("n", *oldest, *newest);
            revoked = orphans.compare(job(), &[HolderReport { beats, names: NO, holder: &holder }]);
        }
        let latest = revoked.iter().map(|(_, latest)| latest.as_millis()).next();
        assert_eq!(latest, expected, "{claims:?}");
    }

    #[test]
    fn a_claim_after_the_first_look_proves_nothing_and_is_kept() {
        revokes(&[(5, 7), (5, 7)], Some(7));
        revokes(&[(5, 7), (6, 9)], Some(7));
        revokes(&[(5, 7), (8, 9)], None);
        revokes(&[(5, 7), (8, 9), (8, 20)], Some(9));
    }

    #[test]
    fn a_second_look_is_due_after_those_heartbeats() {
        let (holder, mut orphans) = (holder("n", 5, 5), OrphanDetector::default());
        let report = HolderReport { beats: 7, names: NO, holder: &holder };
        assert!(orphans.compare(job(), &[report]).is_empty());
        for (beats, due) in [(Some(7), false), (Some(9), false), (Some(10), true), (None, false)] {
            assert_eq!(!orphans.ripe(|_| beats).is_empty(), due, "{beats:?}");
        }
        orphans.heard(|_, _| true);
        assert!(orphans.ripe(|_| Some(10)).is_empty(), "it named the job after all");
    }

    #[test]
    fn a_holder_that_held_nothing_meanwhile_is_a_new_suspect() {
        let (holder, mut orphans) = (holder("n", 5, 5), OrphanDetector::default());
        let report = |beats| [HolderReport { beats, names: NO, holder: &holder }];
        assert!(orphans.compare(job(), &report(1)).is_empty());
        assert!(orphans.compare(job(), &[]).is_empty());
        assert!(orphans.compare(job(), &report(20)).is_empty());
        let at = Timestamp::from_millis(5);
        assert_eq!(orphans.compare(job(), &report(30)), [(holder.node.clone(), at)]);
    }

    #[test]
    fn a_holder_is_lost_once_the_lists_have_lacked_it_for_five_seconds() {
        let at = Timestamp::from_millis;
        let [ghost, late] = ["ghost", "late"].map(NodeId::new);
        let (mut unlisted, five) = (UnlistedHolders::default(), Duration::from_secs(5));
        unlisted.found(at(1_000), &ghost);
        unlisted.found(at(1_000), &late);
        unlisted.found(at(5_000), &ghost);
        assert_eq!(unlisted.lost(at(5_900), five), []);
        unlisted.forget(|id| *id == late);
        assert_eq!(unlisted.lost(at(6_000), five), [ghost]);
    }
}
