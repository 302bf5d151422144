//! Chunks that the ledger has a living worker hold, of which the worker knows nothing.
//!
//! After a rollback of the ledger a chunk runs again in the books that its holder committed long ago. And a claim that was
//! given up can arrive after all. Nobody would free such a chunk: its holder lives, and has nothing to say about it. But each
//! heartbeat names the jobs of which the worker held anything since the one before; so two looks at the holders, and some
//! heartbeats in between that don't name the job, are proof enough. The second look is made once those heartbeats have
//! come. Deliberately absent: holders that are on no list (see
//! `fleet`).

use std::collections::{BTreeMap, BTreeSet};

use longshore_protocol::{JobId, NodeId};

/// So many heartbeats after the look at the holders the worker surely knew of what it held then: the next one may have been
/// on its way already, and the list of workers may be one behind.
const BEATS: u64 = 3;

/// What a living worker said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    /// The number of the heartbeat.
    pub(super) seq: u64,
    /// Whether it names the job; `None` if the worker names none ever.
    pub(super) names: Option<bool>,
    /// Who said it.
    pub(super) node: &'a NodeId,
}

/// Workers that may hold chunks of a job without knowing it, and their heartbeats when that was first seen.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    suspects: BTreeMap<(JobId, NodeId), u64>,
}

impl Orphans {
    /// The ledger was asked who holds chunks of a job; `holders` are those of them that live. Gives those that surely know
    /// nothing of it, and forgets them.
    pub(super) fn asked(&mut self, job: JobId, holders: &[Word<'_>]) -> Vec<NodeId> {
        let mut before = self.take(job);
        let mut orphaned = Vec::new();
        for Word { seq, names, node } in holders {
            if *names != Some(false) {
                continue;
            }
            match before.remove(*node) {
                Some(since) if *seq >= since + BEATS => orphaned.push((*node).clone()),
                since => {
                    self.suspects.insert((job, (*node).clone()), since.unwrap_or(*seq));
                }
            }
        }
        orphaned
    }

    /// Workers were heard: whoever names a job does not hold anything of it unknowingly.
    pub(super) fn heard(&mut self, names: impl Fn(&NodeId, JobId) -> bool) {
        self.suspects.retain(|(job, node), _| !names(node, *job));
    }

    /// Jobs whose holders are worth a second look, by the number of each node's last heartbeat.
    pub(super) fn ripe(&self, seq: impl Fn(&NodeId) -> Option<u64>) -> BTreeSet<JobId> {
        let beat_on = |node: &NodeId, since: u64| seq(node).is_some_and(|seq| seq >= since + BEATS);
        let ripe = self.suspects.iter().filter(|((_, node), since)| beat_on(node, **since));
        ripe.map(|((job, _), _)| *job).collect()
    }

    fn take(&mut self, job: JobId) -> BTreeMap<NodeId, u64> {
        let of_job = self.suspects.extract_if(.., |(of, _), _| *of == job);
        of_job.map(|((_, node), seq)| (node, seq)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        "00000000-0000-4000-8000-000000000001".parse().expect("an id")
    }

    /// Asks once for each of these heartbeats; gives how often it took.
    #[track_caller]
    fn takes(words: &[(u64, Option<bool>)], expected: Option<usize>) {
        let (node, mut orphans) = (NodeId::new("n"), Orphans::default());
        let found = words.iter().position(|&(seq, names)| {
            orphans.heard(|_, _| names == Some(true));
            !orphans.asked(job(), &[Word { seq, names, node: &node }]).is_empty()
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

    #[test]
    fn a_second_look_is_due_after_those_heartbeats() {
        let (node, mut orphans) = (NodeId::new("n"), Orphans::default());
        assert!(orphans.asked(job(), &[Word { seq: 7, names: NO, node: &node }]).is_empty());
        for (seq, due) in [(Some(7), false), (Some(9), false), (Some(10), true), (None, false)] {
            assert_eq!(!orphans.ripe(|_| seq).is_empty(), due, "{seq:?}");
        }
        orphans.heard(|_, _| true);
        assert!(orphans.ripe(|_| Some(10)).is_empty(), "it named the job after all");
    }

    #[test]
    fn one_that_held_nothing_meanwhile_begins_anew() {
        let (node, mut orphans) = (NodeId::new("n"), Orphans::default());
        let word = |seq| [Word { seq, names: NO, node: &node }];
        assert!(orphans.asked(job(), &word(1)).is_empty());
        assert!(orphans.asked(job(), &[]).is_empty());
        assert!(orphans.asked(job(), &word(20)).is_empty());
        assert_eq!(orphans.asked(job(), &word(30)), std::slice::from_ref(&node));
    }
}
