//! Ballots and the clock that makes them.
//!
//! CASPaxos (Rystsov 2018) section 2.1. A ballot here names the incarnation of the proposer's process too, so that a
//! proposer that has forgotten its counter after a restart can never make a ballot twice.

use std::fmt;

use serde::{Deserialize, Serialize};
use trilemma_core::{Incarnation, NodeId, Version};

/// Highest counter that is accepted from a peer. A peer that sends more is broken; believing it would use up the
/// counters that are left.
pub(crate) const COUNTER_MAX: u64 = 1 << 62;

/// How far the basis of a session may be ahead of a node's clock. A client knows it from another node, whose clock may be
/// ahead by the reads that it has served; this many take years. A basis that a client has made up must not use up the
/// counters.
const AHEAD_MAX: u64 = 1 << 48;

/// A ballot: ordered by counter, then node, then incarnation. **Carries at most one accept value, ever.**
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every ballot that the proposer makes, over all keys.
    pub counter: u64,
    /// The proposer.
    pub node: NodeId,
    /// The incarnation of the proposer's process; durable before the proposer starts.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// Greatest size in bytes: numbers of 64, 32 and 64 bits, 7 bits to the byte.
    pub(crate) const BYTES_MAX: usize = 25;

    /// Below every ballot of a proposer: nothing was promised or accepted.
    pub const ZERO: Ballot = Ballot {
        counter: 0,
        node: NodeId(0),
        incarnation: Incarnation(0),
    };

    /// Whether a peer may have sent this ballot as its own.
    pub(crate) fn is_of(&self, node: NodeId) -> bool {
        self.node == node && (1..=COUNTER_MAX).contains(&self.counter)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{}.{}", self.counter, self.node, self.incarnation)
    }
}

/// A logical clock (Lamport 1978) over all ballots seen. Its readings are ballot counters and positions of the
/// node's change stream: one number that grows with everything this node does.
#[derive(Debug)]
pub(crate) struct Clock {
    node: NodeId,
    incarnation: Incarnation,
    last: u64,
}

impl Clock {
    pub(crate) fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            last: 0,
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Moves past a ballot that somebody used.
    pub(crate) fn observe(&mut self, ballot: Ballot) {
        if ballot.counter <= COUNTER_MAX {
            self.last = self.last.max(ballot.counter);
        }
    }

    /// Whether some node's clock may have shown this position to a client.
    pub(crate) fn may_reach(&self, position: Version) -> bool {
        position.0 <= self.last.saturating_add(AHEAD_MAX).min(COUNTER_MAX)
    }

    /// Moves to a position that a client knew of, if it may be one.
    pub(crate) fn reach(&mut self, position: Version) {
        if self.may_reach(position) {
            self.last = self.last.max(position.0);
        }
    }

    /// A number never returned before in this incarnation and greater than everything observed.
    pub(crate) fn tick(&mut self) -> u64 {
        self.last = self
            .last
            .checked_add(1)
            .expect("2^62 ticks of one incarnation do not happen");
        self.last
    }

    /// A ballot never made before.
    pub(crate) fn ballot(&mut self) -> Ballot {
        Ballot {
            counter: self.tick(),
            node: self.node,
            incarnation: self.incarnation,
        }
    }

    /// Whether this clock may have made the ballot: it is of this incarnation, and not ahead of the clock.
    pub(crate) fn has_made(&self, ballot: Ballot) -> bool {
        ballot.node == self.node
            && ballot.incarnation == self.incarnation
            && (1..=self.last).contains(&ballot.counter)
    }
}
