//! The tree of a reduction: its leaves are the subtasks, and its nodes are numbered after these.
//!
//! With 10 subtasks and a fan-in of 4, indices 0 to 9 are the subtasks, 10, 11 and 12 combine 0..4,
//! 4..8 and 8..10, and 13, the root, combines 10..13. So one index space, one bitmap and one kind
//! of chunk serve both, and only arithmetic tells what a reduce node combines.

use std::ops::Range;

/// A reduction of `leaves` results, `fan_in` at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceTree {
    leaves: u64,
    fan_in: u64,
}

/// One node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReduceNode {
    /// The indices whose results the node combines, in order.
    pub children: Range<u64>,
    /// Whether its result is the job's result.
    pub is_root: bool,
}

impl ReduceTree {
    /// A tree over `leaves` ≥ 1 subtasks; `fan_in` ≥ 2.
    pub fn new(leaves: u64, fan_in: u64) -> Self {
        assert!(
            leaves >= 1 && fan_in >= 2,
            "a validated document has subtasks and a fan-in of at least 2"
        );
        Self { leaves, fan_in }
    }

    /// The index ranges of the levels above the leaves, bottom first. At least one; the last has
    /// one node.
    pub fn levels(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let fan_in = self.fan_in;
        let mut below = 0..self.leaves;
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let size = (below.end - below.start).div_ceil(fan_in);
            below = below.end..below.end + size;
            done = size == 1;
            Some(below.clone())
        })
    }

    /// The number of nodes above the leaves.
    pub fn node_count(&self) -> u64 {
        self.levels().map(|level| level.end - level.start).sum()
    }

    /// The index of the root.
    pub fn root(&self) -> u64 {
        self.leaves + self.node_count() - 1
    }

    /// The node with this index; `None` for a leaf or past the root.
    pub fn node(&self, index: u64) -> Option<ReduceNode> {
        let mut below = 0..self.leaves;
        for level in self.levels() {
            if level.contains(&index) {
                let start = below.start + (index - level.start) * self.fan_in;
                let end = (start + self.fan_in).min(below.end);
                return Some(ReduceNode { children: start..end, is_root: index == self.root() });
            }
            below = level;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_leaves_by_four_make_three_nodes_and_a_root() {
        let tree = ReduceTree::new(10, 4);
        assert_eq!(tree.levels().collect::<Vec<_>>(), [10..13, 13..14]);
        assert_eq!(tree.node(9), None);
        assert_eq!(tree.node(12), Some(ReduceNode { children: 8..10, is_root: false }));
        assert_eq!(tree.node(13), Some(ReduceNode { children: 10..13, is_root: true }));
        assert_eq!(tree.node(14), None);
        assert_eq!(tree.root(), 13);
    }

    #[test]
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "the tree has one level, and that is a range"
    )]
    fn one_leaf_still_passes_through_the_reduce_task() {
        let tree = ReduceTree::new(1, 64);
        assert_eq!(tree.levels().collect::<Vec<_>>(), [1..2]);
        assert_eq!(tree.node(1), Some(ReduceNode { children: 0..1, is_root: true }));
    }

    #[test]
    fn every_node_is_combined_exactly_once() {
        for leaves in 1..200 {
            for fan_in in 2..9 {
                let tree = ReduceTree::new(leaves, fan_in);
                let mut next = 0;
                for index in leaves..=tree.root() {
                    let node = tree.node(index).expect("every index up to the root is a node");
                    assert_eq!(node.children.start, next, "{leaves} leaves by {fan_in}");
                    next = node.children.end;
                }
                assert_eq!(next, tree.root(), "{leaves} leaves by {fan_in}");
            }
        }
    }
}
