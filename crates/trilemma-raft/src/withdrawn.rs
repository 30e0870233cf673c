//! A node that takes no part in consensus any more, because a leader's log differs from what is committed here.

use std::fmt;

use trilemma_core::{NodeId, Reason};

use crate::log::{Index, Term};
use crate::message::LogEnd;

/// A leader's log that differs from what is committed here. Committed entries are never replaced while members keep what
/// their disks had, so a member has lost its disk, or was set back. Which of the two histories clients have seen, no node
/// can tell: this one takes no part any more, until an operator has looked and it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// Its entry.
    pub found: LogEnd,
    /// The term of the entry that is committed here at the same index.
    pub committed: Term,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            leader,
            term,
            found,
            committed,
        } = self;
        write!(
            f,
            "node {leader}, leader of {term}, has an entry of {} at {}, where one of {committed} is committed here: a \
             member has lost part of its disk; this node takes no part until it is restarted; compare the members' \
             data before that, and keep each directory as it is",
            found.term, found.index
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

    pub(crate) fn contradiction(&self) -> &Contradiction {
        &self.contradiction
    }

    /// What differs is at an index that is committed here, and stays so.
    pub(crate) fn check(&self, node: NodeId, commit: Index) {
        let Contradiction {
            leader,
            found,
            committed,
            ..
        } = &self.contradiction;
        assert_ne!(
            found.term, *committed,
            "an entry contradicts one that is the same"
        );
        assert!(
            found.index <= commit,
            "entry {} contradicts nothing, {commit} is committed",
            found.index
        );
        assert_ne!(*leader, node, "a node contradicts itself");
    }

    /// Why a request is refused.
    pub(crate) fn reason(&self) -> Reason {
        let why = self.contradiction.to_string();
        Reason::Recovering { why }
    }
}
