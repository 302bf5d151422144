//! Assigns queues to schedulers by rendezvous hashing.
//!
//! The hash is written out here because schedulers of different builds have to agree on it, and
//! because clients show which scheduler feeds a queue.

use crate::SchedulerId;

/// A 64-bit hash of a text: FNV-1a, then the finalizer of SplitMix64, which spreads short and
/// similar texts.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// The finalizer of SplitMix64.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The owner of the queue or the worker called `name`, by rendezvous hashing: of all living
/// schedulers, `owners`, the one with the greatest hash of both names together. An owner that
/// leaves gives away only what was its own.
pub fn owner<'a>(name: &str, owners: &'a [SchedulerId]) -> Option<&'a SchedulerId> {
    let name = hash(name.as_bytes());
    owners.iter().max_by_key(|owner| (mix(name ^ hash(owner.as_str().as_bytes())), *owner))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn queues_spread_over_schedulers_and_move_only_from_one_that_left() {
        let owners: Vec<SchedulerId> =
            (0..4).map(|i| SchedulerId::new(format!("scheduler-{i}"))).collect();
        let mut counts = BTreeMap::new();
        for i in 0..1_000 {
            let queue = format!("queue-{i}");
            let before = owner(&queue, &owners).unwrap();
            let after = owner(&queue, &owners[..3]).unwrap();
            assert!(before == after || *before == owners[3]);
            *counts.entry(before).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| (200..300).contains(count)), "{counts:?}");
        assert_eq!(owner("queue", &[]), None);
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b"default"), 9_775_234_547_051_022_888);
    }
}
