//! What nodes say to each other beside the messages of their keyspaces, under the keyspace id
//! [`crate::config::NODE_RECORDS`]; and those of membership, under [`crate::config::MEMBERSHIP`].

use serde::{Deserialize, Serialize};
use trilemma_core::DiskId;
use trilemma_core::liveness::Ping;
use trilemma_membership::Message;

/// What members say to each other about members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberMessage {
    /// It was sent over a stream, and its answer is to be: some paths lose datagrams alone.
    pub stream: bool,
    /// The message.
    pub message: Message,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// The sender is there.
    Ping(Ping),
    /// The sender is new: which disk of it is kept there?
    Meet,
    /// To `Meet`: this disk of the receiver's is kept, durably.
    Keeps(DiskId),
}

impl NodeMessage {
    /// The names of all kinds.
    pub const KINDS: [&'static str; 3] = ["ping", "meet", "keeps"];

    /// The kind's name, for traces and the simulator's filters.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            NodeMessage::Ping(_) => "ping",
            NodeMessage::Meet => "meet",
            NodeMessage::Keeps(_) => "keeps",
        }
    }
}
