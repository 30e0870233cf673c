//! The answers to a pre-vote or a vote, counted.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::NodeId;

/// The answers so far. The first answer of a voter stands, so a duplicate changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Votes(BTreeMap<NodeId, bool>);

/// What the answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// More answers are needed.
    Pending,
    /// A majority has granted.
    Won,
    /// So many have denied that no majority is left.
    Lost,
}

impl Votes {
    pub(crate) fn count(&mut self, from: NodeId, granted: bool) {
        self.0.entry(from).or_insert(granted);
    }

    pub(crate) fn tally(&self, members: usize, majority: usize) -> Tally {
        assert!(
            majority * 2 > members,
            "two majorities of {majority} of {members} share a voter"
        );
        let granted = self.0.values().filter(|granted| **granted).count();
        let denied = self.0.len() - granted;
        assert!(granted + denied <= members, "each member has one vote");
        if granted >= majority {
            Tally::Won
        } else if denied > members - majority {
            Tally::Lost
        } else {
            Tally::Pending
        }
    }

    /// Only members vote, and the node that asks has granted its own.
    pub(crate) fn check(&self, node: NodeId, members: &BTreeSet<NodeId>) {
        assert_eq!(
            self.0.get(&node),
            Some(&true),
            "node {node} asks for votes without its own"
        );
        assert!(
            self.0.keys().all(|voter| members.contains(voter)),
            "a vote of a node that is no member"
        );
    }
}
