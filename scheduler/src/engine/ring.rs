//! Assigns keys to nodes on a ring of hashes with bounded loads.
//!
//! Consistent hashing with bounded loads after Mirrokni, Thorup and Zadimoghaddam (2016): a key
//! goes to the first node clockwise from it that is not full. Deliberately absent: which nodes are
//! alive (see `fleet`).

use std::collections::BTreeMap;

use longshore_protocol::NodeId;
pub(crate) use longshore_protocol::rendezvous::hash;
use longshore_protocol::rendezvous::mix;

/// The points of a node on the ring. With 128 the shares of nodes differ by about a tenth.
const POINTS: u64 = 128;

/// A node is full when it carries this many times the mean load.
const BOUND: f64 = 1.25;

/// Live nodes on a circle of hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    points: BTreeMap<u64, NodeId>,
    nodes: usize,
}

impl Ring {
    /// A ring of these nodes.
    pub(crate) fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> Self {
        let mut ring = Self::default();
        for node in nodes {
            let seed = hash(node.as_str().as_bytes());
            for point in 0..POINTS {
                ring.points.insert(mix(seed ^ mix(point)), node.clone());
            }
            ring.nodes += 1;
        }
        ring
    }

    /// The node for a key: the first one clockwise that takes part (its `load` is not `None`) and
    /// carries less than the bound; `None` if none takes part. Only whole chunks count: loads that
    /// are forgotten bit by bit, all of them less than one, would else be above each bound.
    pub(crate) fn pick(&self, key: u64, load: impl Fn(&NodeId) -> Option<f64>) -> Option<&NodeId> {
        let mut loads: BTreeMap<&NodeId, f64> = BTreeMap::new();
        for node in self.points.values() {
            if loads.len() == self.nodes {
                break;
            }
            if !loads.contains_key(node)
                && let Some(load) = load(node)
            {
                loads.insert(node, load);
            }
        }
        if loads.is_empty() {
            return None;
        }
        let full = (BOUND * (loads.values().sum::<f64>() + 1.0) / loads.len() as f64).ceil();
        self.points
            .range(key..)
            .chain(self.points.range(..key))
            .map(|(_, node)| node)
            .find(|node| loads.get(node).is_some_and(|load| load.floor() + 1.0 <= full))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|i| NodeId::new(format!("host-{i}"))).collect()
    }

    #[test]
    fn one_node_takes_the_next_key_whatever_the_loads() {
        for count in 1..6 {
            let nodes = nodes(count);
            let ring = Ring::new(&nodes);
            for tenths in 0..1_000_u64 {
                let load = |node: &NodeId| Some((hash(node.as_str().as_bytes()) ^ tenths) % 40);
                let load = |node: &NodeId| load(node).map(|tenths| tenths as f64 / 10.0);
                assert!(ring.pick(mix(tenths), load).is_some(), "{count} nodes, {tenths}");
                let even = |_: &NodeId| Some(tenths as f64 / 10.0);
                assert!(ring.pick(mix(tenths), even).is_some(), "{count} nodes, {tenths}");
            }
        }
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..10_000).map(|i: u32| hash(format!("customer-{i}").as_bytes()))
    }

    fn unloaded(ring: &Ring) -> Vec<NodeId> {
        keys().map(|key| ring.pick(key, |_| Some(0.0)).unwrap().clone()).collect()
    }

    #[track_caller]
    fn moved(before: usize, after: usize) {
        let one = unloaded(&Ring::new(&nodes(before)));
        let two = unloaded(&Ring::new(&nodes(after)));
        let moved = one.iter().zip(&two).filter(|(a, b)| a != b).count() as f64 / 10_000.0;
        let fair = 1.0 / before.max(after) as f64;
        assert!((0.5 * fair..1.6 * fair).contains(&moved), "{moved} of the keys moved, not {fair}");
    }

    #[test]
    fn a_node_that_joins_or_leaves_moves_its_share_of_the_keys() {
        moved(4, 5);
        moved(5, 4);
        moved(10, 11);
        moved(20, 19);
    }

    #[test]
    fn keys_move_only_to_the_new_node() {
        let new_node = NodeId::new("host-5");
        let before = unloaded(&Ring::new(&nodes(5)));
        let after = unloaded(&Ring::new(&nodes(6)));
        assert!(before.iter().zip(&after).all(|(a, b)| a == b || *b == new_node));
    }

    #[test]
    fn one_hot_key_overflows_to_others_and_no_node_passes_the_bound() {
        let ring = Ring::new(&nodes(4));
        let loads: RefCell<BTreeMap<NodeId, f64>> = RefCell::default();
        for _ in 0..1_000 {
            let load = |node: &NodeId| Some(*loads.borrow().get(node).unwrap_or(&0.0));
            let node = ring.pick(hash(b"hot"), load).unwrap();
            *loads.borrow_mut().entry(node.clone()).or_default() += 1.0;
        }
        let greatest = loads.borrow().values().copied().fold(0.0, f64::max);
        assert!(greatest <= 1.25 * 1_000.0 / 4.0 + 1.0, "{greatest}");
        assert_eq!(loads.borrow().values().sum::<f64>(), 1_000.0);
    }

    #[test]
    fn no_node_is_picked_where_none_takes_part() {
        assert_eq!(Ring::new(&[]).pick(7, |_| Some(0.0)), None);
        assert_eq!(Ring::new(&nodes(3)).pick(7, |_| None), None);
    }
}
