//! The invariants of a key's rounds.

use trilemma_core::{Instant, Key, NodeId};

use super::{Accepting, Phase, Round, Shared};

/// Operations of one key up to which a build with debug assertions looks at each after every step.
const CHECKED_OPERATIONS_MAX: usize = 64;

impl Round {
    /// The invariants of a key's rounds, between two inputs.
    pub(in crate::proposer) fn check(&self, key: &Key, shared: &Shared) {
        assert_eq!(
            self.is_idle(),
            self.due == Instant::NEVER,
            "key {key:?}: every phase has an end, and only a phase has one"
        );
        assert!(
            self.batch.len() <= shared.config.combine_max,
            "key {key:?}: a batch is bounded"
        );
        assert!(
            self.syncs <= self.trips,
            "key {key:?}: a phase syncs once at most"
        );
        match &self.phase {
            Phase::Idle => assert_eq!(self.len(), 0, "key {key:?}: what waits has a phase"),
            Phase::BackingOff => {
                assert!(
                    self.batch.is_empty(),
                    "key {key:?}: nobody is served while backing off"
                );
                assert!(
                    self.failures > 0,
                    "key {key:?}: only a conflict makes a proposer back off"
                );
            }
            Phase::Reading { round, votes } => {
                assert!(!self.batch.is_empty(), "key {key:?}: a read serves somebody");
                assert!(
                    *round <= shared.clock.last(),
                    "key {key:?}: reads are numbered by the clock"
                );
                assert!(
                    votes.len() <= shared.members.len(),
                    "key {key:?}: a member votes once"
                );
            }
            Phase::Preparing {
                ballot,
                votes,
                refused,
            } => {
                assert!(!self.batch.is_empty(), "key {key:?}: a prepare serves somebody");
                assert!(shared.clock.has_made(*ballot), "key {key:?}: {ballot} is our own");
                assert!(
                    votes.len() < shared.quorum,
                    "key {key:?}: a majority of promises ends the phase"
                );
                let voted = |node: &NodeId| votes.iter().any(|vote| vote.node == *node);
                assert!(
                    !refused.iter().any(voted),
                    "key {key:?}: no acceptor promises and refuses"
                );
            }
            Phase::Accepting(accepting) => self.check_accepting(key, accepting, shared),
        }
        if cfg!(debug_assertions) && self.len() <= CHECKED_OPERATIONS_MAX {
            for operation in self.batch.iter().chain(&self.queue) {
                let owner = operation.ticket.map(|ticket| shared.tickets.get(&ticket));
                assert!(
                    owner.is_none_or(|owner| owner == Some(key)),
                    "key {key:?}: an operation that waits has a ticket for this key"
                );
            }
        }
    }

    fn check_accepting(&self, key: &Key, accepting: &Accepting, shared: &Shared) {
        let Accepting { ballot, next, .. } = accepting;
        assert_eq!(
            self.batch.len(),
            accepting.verdicts.len(),
            "key {key:?}: one verdict for each operation"
        );
        assert!(shared.clock.has_made(*ballot), "key {key:?}: {ballot} is our own");
        assert!(shared.clock.has_made(*next), "key {key:?}: {next} is our own");
        assert!(next > ballot, "key {key:?}: {next} follows {ballot}");
        assert!(
            accepting.accepted.len() < shared.quorum,
            "key {key:?}: a majority of accepts ends the phase"
        );
    }
}
