//! Holders of chunks that are not what they should be: workers that nobody lists, and living workers
//! that know nothing of what they hold.
//!
//! Whoever holds chunks and is neither on the list of those that beat nor on that of the lost can't be told from one whose
//! heartbeat is late, so it gets as long as it takes to die.
//!
//! After a rollback of the ledger a chunk runs again in the books that its holder committed long ago. And a claim that was
//! given up can arrive after all. Nobody would free such a chunk: its holder lives, and has nothing to say about it. But each
//! heartbeat names the jobs of which the worker held anything since the one before; so it is proof enough that a claim is
//! there at two looks at the holders, and that a heartbeat from some time after the first does not name the job. What was
//! claimed after the first look proves nothing: a worker without work claims some between its heartbeat and the second look,
//! and what it held and named in the meantime may have escaped us. The second look is made once the heartbeat has come.
//! Deliberately absent: holders that are lost (see `recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_ledger::Holder;
use longshore_protocol::{JobId, NodeId, Timestamp};

/// So many heartbeats after the look at the holders the worker surely knew of what it held then: the next one may have been
/// on its way already, and the list of workers may be one behind.
const BEATS: u64 = 3;

/// Who holds chunks without being on any list, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Unlisted {
    since: BTreeMap<NodeId, Timestamp>,
}

impl Unlisted {
    /// This one holds something.
    pub(super) fn met(&mut self, now: Timestamp, node: &NodeId) {
        self.since.entry(node.clone()).or_insert(now);
    }

    /// The lists were read: those are forgotten who are on one of them.
    pub(super) fn found(&mut self, is_listed: impl Fn(&NodeId) -> bool) {
        self.since.retain(|id, _| !is_listed(id));
    }

    /// Those that have been on no list for as long as it takes to die, as of lists that were read at `read_at`. Lists that could
    /// not be read prove nothing.
    pub(super) fn lost(&self, read_at: Timestamp, dead_after: Duration) -> Vec<NodeId> {
        let is_lost = |since: &Timestamp| read_at.since(*since) >= dead_after;
        let lost = self.since.iter().filter(|(_, since)| is_lost(since));
        lost.map(|(id, _)| id.clone()).collect()
    }
}

/// A holder of chunks that lives, and what it said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    /// How often it has been heard.
    pub(super) beats: u64,
    /// Whether it names the job; `None` if the worker names none ever.
    pub(super) names: Option<bool>,
    /// Who said it, and when it claimed what it holds.
    pub(super) holder: &'a Holder,
}

/// What was found at the first look.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// How often it had been heard.
    beats: u64,
    /// When the newest of its claims was granted.
    newest: Timestamp,
}

/// Workers that may hold chunks of a job without knowing it.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    suspects: BTreeMap<(JobId, NodeId), Suspicion>,
}

impl Orphans {
    /// The ledger was asked who holds chunks of a job; `holders` are those of them that live. Gives those that surely know
    /// nothing of what they claimed up to that time, and forgets them.
    pub(super) fn asked(&mut self, job: JobId, holders: &[Word<'_>]) -> Vec<(NodeId, Timestamp)> {
        let mut before = self.take(job);
        let mut orphaned = Vec::new();
        for Word { beats, names, holder: Holder { node, oldest, newest } } in holders {
            if *names != Some(false) {
                continue;
            }
            let first = before.remove(node).filter(|first| *oldest <= first.newest);
            match first {
                Some(first) if *beats >= first.beats + BEATS => {
                    orphaned.push((node.clone(), first.newest));
                }
                first => {
                    let suspicion = first.unwrap_or(Suspicion { beats: *beats, newest: *newest });
                    self.suspects.insert((job, node.clone()), suspicion);
                }
            }
        }
        orphaned
    }

    /// Workers were heard: whoever names a job does not hold anything of it unknowingly.
    pub(super) fn heard(&mut self, names: impl Fn(&NodeId, JobId) -> bool) {
        self.suspects.retain(|(job, node), _| !names(node, *job));
    }

    /// Jobs whose holders are worth a second look, by how often each node has been heard.
    pub(super) fn ripe(&self, beats: impl Fn(&NodeId) -> Option<u64>) -> BTreeSet<JobId> {
        let beat_on =
            |node: &NodeId, since: u64| beats(node).is_some_and(|beats| beats >= since + BEATS);
        let ripe = self.suspects.iter().filter(|((_, node), first)| beat_on(node, first.beats));
        ripe.map(|((job, _), _)| *job).collect()
    }

    fn take(&mut self, job: JobId) -> BTreeMap<NodeId, Suspicion> {
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

    /// Asks once for each of these heartbeats of a worker whose only claim stays; gives how often it took.
    #[track_caller]
    fn takes(words: &[(u64, Option<bool>)], expected: Option<usize>) {
        let (holder, mut orphans) = (holder("n", 5, 5), Orphans::default());
        let found = words.iter().position(|&(beats, names)| {
            orphans.heard(|_, _| names == Some(true));
            !orphans.asked(job(), &[Word { beats, names, holder: &holder }]).is_empty()
        });
        assert_eq!(found, expected, "{words:?}");
        assert!(found.is_none() || orphans.suspects.is_empty());
    }

    const NO: Option<bool> = Some(false);

    #[test]
    fn a_holder_that_never_names_the_job_is_found_out_after_some_heartbeats() {
        takes(&[(1, NO), (2, NO), (3, NO), (4, NO)], Some(3));
        takes(&[(7, NO), (17, NO)], Some(1));
    }

    #[test]
    fn one_that_names_the_job_or_does_not_beat_or_never_names_any_is_not() {
        takes(&[(7, Some(true)), (17, Some(true)), (27, NO)], None);
        takes(&[(7, NO), (8, Some(true)), (17, NO)], None);
        takes(&[(7, NO), (7, NO), (7, NO)], None);
        takes(&[(7, None), (17, None), (27, None)], None);
    }

    /// Asks about a worker whose claims are of these times (oldest and newest), long enough after one another; gives what is
    /// taken from it at last.
    #[track_caller]
    fn takes_away(claims: &[(u64, u64)], expected: Option<u64>) {
        let mut orphans = Orphans::default();
        let mut taken = Vec::new();
        for (beats, (oldest, newest)) in (0..).step_by(10).zip(claims) {
            let holder = holder("n", *oldest, *newest);
            taken = orphans.asked(job(), &[Word { beats, names: NO, holder: &holder }]);
        }
        let latest = taken.iter().map(|(_, latest)| latest.as_millis()).next();
        assert_eq!(latest, expected, "{claims:?}");
    }

    #[test]
    fn what_was_claimed_after_the_first_look_proves_nothing_and_is_not_taken() {
        takes_away(&[(5, 7), (5, 7)], Some(7));
        takes_away(&[(5, 7), (6, 9)], Some(7));
        takes_away(&[(5, 7), (8, 9)], None);
        takes_away(&[(5, 7), (8, 9), (8, 20)], Some(9));
    }

    #[test]
    fn a_second_look_is_due_after_those_heartbeats() {
        let (holder, mut orphans) = (holder("n", 5, 5), Orphans::default());
        let word = Word { beats: 7, names: NO, holder: &holder };
        assert!(orphans.asked(job(), &[word]).is_empty());
        for (beats, due) in [(Some(7), false), (Some(9), false), (Some(10), true), (None, false)] {
            assert_eq!(!orphans.ripe(|_| beats).is_empty(), due, "{beats:?}");
        }
        orphans.heard(|_, _| true);
        assert!(orphans.ripe(|_| Some(10)).is_empty(), "it named the job after all");
    }

    #[test]
    fn one_that_held_nothing_meanwhile_begins_anew() {
        let (holder, mut orphans) = (holder("n", 5, 5), Orphans::default());
        let word = |beats| [Word { beats, names: NO, holder: &holder }];
        assert!(orphans.asked(job(), &word(1)).is_empty());
        assert!(orphans.asked(job(), &[]).is_empty());
        assert!(orphans.asked(job(), &word(20)).is_empty());
        let at = Timestamp::from_millis(5);
        assert_eq!(orphans.asked(job(), &word(30)), [(holder.node.clone(), at)]);
    }

    #[test]
    fn a_holder_is_lost_once_the_lists_have_lacked_it_for_five_seconds() {
        let at = Timestamp::from_millis;
        let [ghost, late] = ["ghost", "late"].map(NodeId::new);
        let (mut unlisted, five) = (Unlisted::default(), Duration::from_secs(5));
        unlisted.met(at(1_000), &ghost);
        unlisted.met(at(1_000), &late);
        unlisted.met(at(5_000), &ghost);
        assert_eq!(unlisted.lost(at(5_900), five), []);
        unlisted.found(|id| *id == late);
        assert_eq!(unlisted.lost(at(6_000), five), [ghost]);
    }
}
