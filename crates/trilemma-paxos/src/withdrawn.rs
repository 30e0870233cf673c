//! A node that takes no part any more, because a peer holds another register under the same ballot.

use std::fmt;

use trilemma_core::{Key, NodeId, Reason};

use super::ballot::Ballot;

/// What a peer holds otherwise than this node. A ballot carries one value, so members that keep what their disks had never
/// differ under one: one of them has lost part of its disk, was set back, or has a fault. Which register is the right one,
/// the two cannot tell: this node takes no part any more, until an operator has looked and it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The peer.
    pub peer: NodeId,
    /// The key.
    pub key: Key,
    /// The ballot under which both hold the key.
    pub ballot: Ballot,
    /// The digest of the peer's register.
    pub found: u64,
    /// The digest of the register here.
    pub here: u64,
}

impl Contradiction {
    /// Why a request is refused.
    pub(crate) fn reason(&self) -> Reason {
        let why = self.to_string();
        Reason::Recovering { why }
    }

    /// What holds of it.
    pub(crate) fn check(&self, node: NodeId) {
        assert_ne!(self.found, self.here, "{self} contradicts what is the same");
        assert_ne!(self.peer, node, "a node contradicts itself");
        assert!(self.ballot > Ballot::ZERO, "no ballot carries {self}");
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peer,
            key,
            ballot,
            found,
            here,
        } = self;
        write!(
            f,
            "node {peer} has a register of digest {found:016x} of key {key:?} under {ballot}, where it is {here:016x} here: \
             the memory or the disk of one of them has a fault, or their programs differ; this node takes no part until it \
             is restarted; compare the members' data before that, and keep each directory as it is"
        )
    }
}
