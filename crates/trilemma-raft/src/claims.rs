//! Comparing states (inside/raft#states-that-differ): a leader says now and then what its state is, and a follower that comes
//! to the same entry compares its own.

use trilemma_core::NodeId;
use trilemma_core::table::Table;

use crate::log::{Index, Term};
use crate::withdrawn::{Contradiction, Differs};

/// Heartbeats from one digest that a leader sends to the next: with those of 50 ms, 0.8 s.
pub(crate) const HEARTBEATS_BETWEEN: u32 = 16;

/// What a leader says of its state: the fields of [`crate::Message::StateDigest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) leader: NodeId,
    pub(crate) term: Term,
    pub(crate) at: Index,
    pub(crate) digest: u64,
}

/// The claim that is compared next.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    next: Option<Claim>,
}

impl Claims {
    /// Takes note of a claim, if it can be compared, and sooner than the one that waits.
    pub(crate) fn hear(&mut self, applied: Index, claim: Claim) {
        let is_sooner = |next: Claim| next.at < applied || claim.at < next.at;
        if claim.at >= applied && self.next.is_none_or(is_sooner) {
            self.next = Some(claim);
        }
    }

    /// Compares a state with what the leader has said of it, if anything. Called after every entry that is applied.
    pub(crate) fn compare(&mut self, table: &Table) -> Option<Contradiction> {
        let applied = Index(table.version().0);
        let claim = self.next.filter(|claim| claim.at <= applied)?;
        self.next = None;
        let (at, found, here) = (claim.at, claim.digest, table.digest());
        (at == applied && found != here).then_some(Contradiction {
            leader: claim.leader,
            term: claim.term,
            differs: Differs::State { at, found, here },
        })
    }
}

#[cfg(test)]
mod tests;
