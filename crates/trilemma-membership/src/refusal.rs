//! What was refused, from whom, and about whom: counted and named for operators.

use trilemma_core::NodeId;

/// Why a statement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A leave or an eviction without a signature.
    Unsigned,
    /// A leave or an eviction whose signature is not right.
    BadSignature,
    /// An incarnation further ahead than one message may raise it.
    OutOfReach,
    /// A statement about an incarnation that newer ones have replaced, such as an old `alive` of a dead member. Not a fault:
    /// messages are delayed and repeated.
    Outdated,
    /// A member beyond the greatest number of members.
    TooManyMembers,
    /// A record that belongs to another member, or exceeds its limits.
    BadRecord,
    /// A detail that does not belong to the state.
    Malformed,
    /// More requests for the member list, or to probe others, than are served.
    TooManyRequests,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 8] = [
        Refusal::Unsigned,
        Refusal::BadSignature,
        Refusal::OutOfReach,
        Refusal::Outdated,
        Refusal::TooManyMembers,
        Refusal::BadRecord,
        Refusal::Malformed,
        Refusal::TooManyRequests,
    ];
}

impl Refusal {
    /// The name, for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Unsigned => "unsigned",
            Refusal::BadSignature => "bad-signature",
            Refusal::OutOfReach => "out-of-reach",
            Refusal::Outdated => "outdated",
            Refusal::TooManyMembers => "too-many-members",
            Refusal::BadRecord => "bad-record",
            Refusal::Malformed => "malformed",
            Refusal::TooManyRequests => "too-many-requests",
        }
    }
}

/// How often something was refused for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How often.
    pub count: u64,
    /// Who said it last.
    pub from: Option<NodeId>,
    /// Whom it was about, the last time.
    pub about: Option<NodeId>,
}

/// The counts of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals([Refused; Refusal::ALL.len()]);

impl Refusals {
    /// What was refused for this reason.
    #[must_use]
    pub fn of(&self, reason: Refusal) -> Refused {
        self.0[reason as usize]
    }

    /// Counts one.
    pub(crate) fn count(&mut self, reason: Refusal, from: NodeId, about: NodeId) {
        let refused = &mut self.0[reason as usize];
        refused.count += 1;
        refused.from = Some(from);
        refused.about = Some(about);
    }
}
