//! Decides into which parts a chunk that kills nodes is cut, and which subtask is given up. Pure.
//!
//! The death of a node shows that one of the subtasks that it held may be the cause, not which one.
//! So every chunk that the node held records the death as evidence. A chunk with [`SUSPECT`] deaths
//! or more is a *suspect*: each further death cuts it, its parts inherit the evidence, a node holds
//! only one suspect of a job at a time, and a worker commits after every subtask of a suspect. A
//! subtask that is alone in a suspect and kills three nodes is given up.
//!
//! `cut` is chosen so that a guilty subtask costs at most [`MOST_DEATHS`] nodes, whatever the size
//! of the chunk and wherever the subtask is in it: two deaths make the chunk a suspect, four cuts
//! leave the subtask alone (the first cut comes with the second death), and three more deaths give
//! the verdict. `lua/_poison.lua` does the same for Redis.
//!
//! Deliberately absent: the failures of subtasks, which have counters of their own.

use std::iter::once;
use std::ops::Range;

use longshore_protocol::Death;

/// The number of deaths from which a chunk is a suspect.
pub const SUSPECT: u32 = 2;

/// The number of cuts after which every part is a single subtask.
const CUTS: u32 = 4;

/// The number of nodes that a subtask kills, alone in a suspect, before it is given up.
const VERDICT: usize = 3;

/// The most nodes that one guilty subtask kills: 8.
pub const MOST_DEATHS: u32 = SUSPECT + (CUTS - 1) + VERDICT as u32;

/// The parts of a chunk that another node died of; the evidence counts that death.
///
/// The first part is the first subtask, since with care it is the one that ran. The rest is cut
/// evenly, into as few parts as do: with n cuts left, the n-th root of its length.
pub(crate) fn cut(range: Range<u64>, crashes: u32) -> Vec<Range<u64>> {
    let rest = range.start + 1..range.end;
    let cuts_left = (SUSPECT + CUTS).saturating_sub(crashes).max(1);
    let length = rest.end - rest.start;
    let count = (1u64..).find(|count| count.saturating_pow(cuts_left) >= length);
    let size = length.div_ceil(count.expect("a number above every length"));
    let size = usize::try_from(size).expect("a bitmap of Redis ends at 2^32 bits");
    let inner = rest.step_by(size);
    let bounds: Vec<u64> = once(range.start).chain(inner).chain(once(range.end)).collect();
    bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// The deaths that count against the subtask of a chunk of one: those in which it was a suspect of
/// its own.
fn alone(deaths: &[Death]) -> impl Iterator<Item = &Death> {
    deaths.iter().skip(SUSPECT as usize).filter(|death| death.among == 1)
}

/// Why the subtask that is left of a chunk is given up, if it is.
pub(crate) fn verdict(deaths: &[Death]) -> Option<String> {
    let kills = alone(deaths).count();
    if kills < VERDICT {
        return None;
    }
    let names: Vec<&str> = alone(deaths).map(|death| death.node.as_str()).collect();
    let (names, all) = (names.join(", "), deaths.len());
    Some(format!("{kills} nodes died running it alone ({names}), {all} in all; given up"))
}

#[cfg(test)]
mod tests {
    use longshore_protocol::{NodeId, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn deaths(among: &[u64]) -> Vec<Death> {
        let death = |(n, &among)| Death {
            node: NodeId::new(format!("n{n}")),
            at: Timestamp::from_millis(n as u64),
            among,
            how: None,
        };
        among.iter().enumerate().map(death).collect()
    }

    #[track_caller]
    fn check_cut(range: Range<u64>, crashes: u32, first: &[Range<u64>], count: usize) {
        let parts = cut(range.clone(), crashes);
        assert_eq!(parts[..first.len()], *first);
        assert_eq!(parts.len(), count, "{parts:?}");
        assert_eq!((parts[0].start, parts[count - 1].end), (range.start, range.end));
    }

    #[test]
    fn a_chunk_is_cut_into_few_parts_that_are_small_enough() {
        check_cut(0..10_000, 2, &[0..1, 1..1_001, 1_001..2_001], 11);
        check_cut(1..1_001, 3, &[1..2, 2..102], 11);
        check_cut(2..102, 4, &[2..3, 3..13], 11);
        check_cut(3..13, 5, &[3..4, 4..5, 5..6], 10);
        check_cut(7..9, 2, &[7..8, 8..9], 2);
        check_cut(7..10, 2, &[7..8, 8..9, 9..10], 3);
        check_cut(0..(1 << 32), 2, &[0..1, 1..16_777_217], 257);
    }

    #[test]
    fn a_guilty_subtask_costs_eight_nodes_at_most() {
        assert_eq!(MOST_DEATHS, 8);
    }

    #[test]
    fn only_a_subtask_that_killed_three_nodes_apart_is_guilty() {
        assert_eq!(verdict(&deaths(&[1, 1, 1, 1])), None, "two of them may have had company");
        assert_eq!(verdict(&deaths(&[9, 9, 3, 1, 1])), None);
        let told = "3 nodes died running it alone (n2, n3, n4), 5 in all; given up";
        assert_eq!(verdict(&deaths(&[1, 1, 1, 1, 1])).as_deref(), Some(told));
        let told = "3 nodes died running it alone (n3, n4, n5), 6 in all; given up";
        assert_eq!(verdict(&deaths(&[9, 9, 3, 1, 1, 1])).as_deref(), Some(told));
    }

    proptest! {
        /// However much of a chunk is settled before each death, and whichever part the guilty
        /// subtask is in.
        #[test]
        fn every_chunk_is_down_to_its_guilty_subtask_in_time(
            length in prop_oneof![1..20_000u64, 1..(1u64 << 32)],
            guilty in any::<prop::sample::Index>(),
            progress in prop::collection::vec(prop_oneof![Just(0), any::<u64>()], 8),
        ) {
            let guilty = guilty.index(length as usize) as u64;
            let (mut chunk, mut seen) = (0..length, Vec::new());
            for progress in progress {
                chunk.start += progress % (guilty - chunk.start + 1);
                seen.push(chunk.end - chunk.start);
                let evidence = deaths(&seen);
                if seen.len() >= SUSPECT as usize && chunk.end - chunk.start > 1 {
                    let parts = cut(chunk.clone(), seen.len() as u32);
                    prop_assert!(parts.iter().all(|part| part.start < part.end));
                    let in_order = parts.windows(2).all(|pair| pair[0].end == pair[1].start);
                    prop_assert!(in_order && parts[0].start == chunk.start);
                    prop_assert_eq!(parts[parts.len() - 1].end, chunk.end);
                    chunk = parts.into_iter().find(|part| part.contains(&guilty)).expect("in one");
                } else if verdict(&evidence).is_some() {
                    return Ok(());
                }
            }
            prop_assert!(false, "not after {} deaths: {seen:?}", seen.len());
        }
    }
}
