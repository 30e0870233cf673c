//! A node that takes no part in consensus any more, because a leader's log or state differs from its own.

use std::fmt;

use trilemma_core::{NodeId, Reason};

use crate::log::{Index, Term};
use crate::message::LogEnd;
use crate::role::Role;

/// What a leader has and this node has otherwise. Members that keep what their disks had, and apply one log, never differ: a
/// member has lost its disk, was set back, or has a fault. Which of two histories, or states, is the right one, no node can
/// tell: this one takes no part any more, until an operator has looked and it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// What differs.
    pub differs: Differs,
}

/// What a leader has otherwise than this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// An entry of its log, where another one is committed here.
    Entry {
        /// The leader's entry.
        found: LogEnd,
        /// The term of the entry that is committed here at the same index.
        committed: Term,
    },
    /// The state after an entry.
    State {
        /// The entry.
        at: Index,
        /// The digest of the leader's state.
        found: u64,
        /// The digest of the state here.
        here: u64,
    },
}

impl Differs {
    fn at(&self) -> Index {
        match self {
            Differs::Entry { found, .. } => found.index,
            Differs::State { at, .. } => *at,
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            leader,
            term,
            differs,
        } = self;
        write!(f, "node {leader}, leader of {term}, has ")?;
        match differs {
            Differs::Entry { found, committed } => write!(
                f,
                "an entry of {} at {}, where one of {committed} is committed here: a member has lost part of its disk",
                found.term, found.index
            )?,
            Differs::State { at, found, here } => write!(
                f,
                "a state of digest {found:016x} after {at}, where it is {here:016x} here: the memory or the disk of one of \
                 them has a fault, or their programs differ"
            )?,
        }
        f.write_str(
            "; this node takes no part until it is restarted; compare the members' data before that, and keep each \
             directory as it is",
        )
    }
}

/// See the module. It follows nobody, asks for nothing, gives no vote and no acknowledgement, and refuses requests.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    contradiction: Contradiction,
}

impl Withdrawn {
    pub(crate) fn new(contradiction: Contradiction) -> Self {
        Self { contradiction }
    }

    /// The role of a node that has found this.
    pub(crate) fn because(contradiction: Contradiction, node: NodeId) -> Role {
        tracing::error!(%node, "{contradiction}");
        Role::Withdrawn(Self::new(contradiction))
    }

    pub(crate) fn contradiction(&self) -> &Contradiction {
        &self.contradiction
    }

    /// What differs is at an index that is committed here, and stays so.
    pub(crate) fn check(&self, node: NodeId, commit: Index) {
        let Contradiction { leader, differs, .. } = &self.contradiction;
        let is_same = match differs {
            Differs::Entry { found, committed } => found.term == *committed,
            Differs::State { found, here, .. } => found == here,
        };
        assert!(!is_same, "{differs:?} contradicts one that is the same");
        assert!(
            differs.at() <= commit,
            "entry {} contradicts nothing, {commit} is committed",
            differs.at()
        );
        assert_ne!(*leader, node, "a node contradicts itself");
    }

    /// Why a request is refused.
    pub(crate) fn reason(&self) -> Reason {
        let why = self.contradiction.to_string();
        Reason::Recovering { why }
    }
}
