//! What a node believes of the members of its cluster, as it tells clients.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{NodeId, WallTime};

/// The members of a cluster as one node sees them, and what it has done to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipOverview {
    /// The members that it knows, ascending, itself among them.
    #[serde(deserialize_with = "bounded_vec::<_, _, 16384>")]
    pub members: Vec<MemberOverview>,
    /// How far it trusts itself, from 0, wholly, to 8: it waits so many times longer, and once more, before it accuses others.
    pub health: u8,
    /// Statements about members that it passes on now.
    pub pending_updates: u64,
    /// Counts since the start of the process.
    pub counts: MembershipCounts,
    /// Statements that it has refused, by reason.
    #[serde(deserialize_with = "bounded_vec::<_, _, 64>")]
    pub refused: Vec<RefusedOverview>,
}

/// What a node has counted of its members since the start of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipCounts {
    /// Members that became suspect.
    pub suspected: u64,
    /// Suspects that refuted it in time: they were taken for silent by mistake.
    pub refuted: u64,
    /// Members that were declared dead.
    pub died: u64,
    /// Accusations of the node itself that it has refuted.
    pub accused: u64,
    /// Messages of membership sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages of membership received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

/// Statements about members that a node has refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedOverview {
    /// The reason.
    #[serde(deserialize_with = "bounded_text::<_, 64>")]
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Who said the last one.
    pub from: Option<NodeId>,
}

/// What a node believes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// It works, as far as the node knows.
    Alive,
    /// It did not answer somebody; it is dead unless it refutes that in time.
    Suspect,
    /// It did not refute. It may come back.
    Dead,
    /// It has left.
    Left,
    /// It was excluded.
    Evicted,
}

impl MemberState {
    /// The name, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
            MemberState::Left => "left",
            MemberState::Evicted => "evicted",
        }
    }
}

/// One member as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberOverview {
    /// The member.
    pub node: NodeId,
    /// What is believed of it.
    pub state: MemberState,
    /// Its run: grows with every start of its process.
    pub epoch: u64,
    /// Accusations that it has refuted in that run.
    pub counter: u32,
    /// Where it listens, as it says.
    #[serde(deserialize_with = "bounded_text::<_, 128>")]
    pub address: String,
    /// The failure domain that it is in; empty if none.
    #[serde(deserialize_with = "bounded_text::<_, 32>")]
    pub zone: String,
    /// Whether it holds no data.
    pub observer: bool,
    /// Round-trip time of its answers in microseconds, smoothed; `None` where it has answered none, as the node itself.
    pub round_trip_micros: Option<u64>,
    /// When its state changed here last; `None` for the node itself.
    pub since: Option<WallTime>,
}
