//! What members send each other, with bounds on every list. The format is frozen by golden tests.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_bytes, bounded_vec};
use trilemma_core::{Lane, NodeId};

use crate::record::{Record, RecordDigest};
use crate::standing::{Incarnation, Standing};

/// Largest message that travels as a datagram, in bytes: QUIC's smallest path (1200) less its headers (100), and what the host
/// puts around a message (9).
pub const DATAGRAM_BYTES_MAX: usize = 1091;
/// Largest page of a member list, in bytes. It travels on a stream.
pub const PAGE_BYTES_MAX: usize = 48 << 10;
/// Most members of a page, and most updates of any message.
pub const UPDATES_MAX: usize = 256;
/// Most entries of a listing.
pub const LISTED_MAX: usize = 256;
/// Most members that one message asks for.
pub const WANTS_MAX: usize = 32;
/// Most bucket sums of a comparison.
pub const SUMS_MAX: usize = 64;
/// Most accusers that a suspicion names: whom it takes to shorten it fully, and the first.
pub const ACCUSERS_MAX: usize = 3;
/// Longest signature, in bytes. Ed25519 has 64.
pub const SIGNATURE_BYTES_MAX: usize = 128;

/// A message between two members. The host has checked that the sender sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Asks for an `Ack`. As a datagram; and over a stream when no answer came, for paths that lose datagrams alone.
    Ping {
        /// Names the probe at its sender; 0 if nobody waits for the answer.
        probe: u32,
        /// See [`News`].
        news: News,
    },
    /// Answers `Ping`, on the same lane.
    Ack {
        /// The probe.
        probe: u32,
        /// See [`News`].
        news: News,
    },
    /// Asks the receiver to probe `target`, because it did not answer the sender.
    PingRequest {
        /// The probe of the sender.
        probe: u32,
        /// Whom to probe.
        target: NodeId,
        /// See [`News`].
        news: News,
    },
    /// Answers `PingRequest`: the target answered.
    Reached {
        /// The probe of the receiver.
        probe: u32,
        /// See [`News`].
        news: News,
    },
    /// Answers `PingRequest`: the target did not answer in time (Lifeguard). It says as well that the receiver can be reached.
    Nack {
        /// The probe of the receiver.
        probe: u32,
        /// See [`News`].
        news: News,
    },
    /// Updates alone.
    Gossip(News),
    /// Asks for the member list, page by page.
    ListRequest {
        /// The last member of the page before.
        after: Option<NodeId>,
        /// Says who asks.
        news: News,
    },
    /// A page of the member list.
    List {
        /// The members, ascending.
        #[serde(deserialize_with = "bounded_vec::<_, _, UPDATES_MAX>")]
        members: Vec<Update>,
        /// The last member of this page, if more follow.
        more_after: Option<NodeId>,
    },
}

/// What rides on a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The sender's own incarnation: that it is alive, at first hand.
    pub sender: SenderIncarnation,
    /// The digest of its record.
    pub record: RecordDigest,
    /// Statements about members, most important first.
    #[serde(deserialize_with = "bounded_vec::<_, _, UPDATES_MAX>")]
    pub updates: Vec<Update>,
    /// Sums of some buckets of the sender's table. The receiver lists what it has in those that differ.
    pub sums: Option<Sums>,
    /// Members of buckets that differ, as the sender sees them.
    #[serde(deserialize_with = "bounded_vec::<_, _, LISTED_MAX>")]
    pub listing: Vec<Listed>,
    /// Members whose record the sender lacks.
    #[serde(deserialize_with = "bounded_vec::<_, _, WANTS_MAX>")]
    pub wants: Vec<NodeId>,
}

/// An incarnation on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, u32)", into = "(u64, u32)")]
pub struct SenderIncarnation(pub Incarnation);

impl From<SenderIncarnation> for (u64, u32) {
    fn from(SenderIncarnation(incarnation): SenderIncarnation) -> Self {
        (incarnation.epoch, incarnation.counter)
    }
}

impl TryFrom<(u64, u32)> for SenderIncarnation {
    type Error = String;

    fn try_from((epoch, counter): (u64, u32)) -> Result<Self, String> {
        let incarnation = Incarnation::new(epoch, counter);
        incarnation
            .map(SenderIncarnation)
            .ok_or_else(|| format!("no incarnation {epoch}.{counter}"))
    }
}

/// A statement about a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The member.
    pub node: NodeId,
    /// Its incarnation and state.
    pub standing: Standing,
    /// What belongs to the state.
    pub detail: Detail,
}

/// What a statement says beside the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing: the receiver has the record.
    None,
    /// The record of a member that is new, or has changed with its epoch.
    Record(Arc<Record>),
    /// The record is the one that the receiver probably has from a former epoch; this is its digest.
    SameRecord(RecordDigest),
    /// Who found a suspect silent.
    Accusers(#[serde(deserialize_with = "bounded_vec::<_, _, ACCUSERS_MAX>")] Vec<NodeId>),
    /// What proves a final state.
    Signature(#[serde(deserialize_with = "bounded_bytes::<_, SIGNATURE_BYTES_MAX>")] Bytes),
    /// A final state of a member whose record comes with it.
    SignedRecord(
        Arc<Record>,
        #[serde(deserialize_with = "bounded_bytes::<_, SIGNATURE_BYTES_MAX>")] Bytes,
    ),
}

/// An entry of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The member.
    pub node: NodeId,
    /// Its incarnation and state.
    pub standing: Standing,
    /// The digest of its record, at the beginning of an epoch: later, others mostly know it.
    pub record: Option<RecordDigest>,
}

/// Sums over buckets of a table, by which two members find what they know differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Binary logarithm of the number of buckets.
    pub buckets_log2: u8,
    /// The first bucket; the others follow it, round the end.
    pub first: u16,
    /// The low bits of the sum of each.
    #[serde(deserialize_with = "bounded_vec::<_, _, SUMS_MAX>")]
    pub sums: Vec<[u8; 2]>,
}

/// Bytes of a varint of up to 32 bits.
fn varint(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes of a varint of up to 64 bits.
fn varint64(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn standing_size(standing: Standing) -> usize {
    let incarnation = standing.incarnation();
    varint64(incarnation.epoch) + varint((incarnation.counter << 3) | 7)
}

impl Listed {
    /// Bytes on the wire.
    pub(crate) fn size(self) -> usize {
        varint(self.node.0) + standing_size(self.standing) + 1 + 2 * usize::from(self.record.is_some())
    }
}

impl Update {
    /// Upper estimate of its bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        let detail = match &self.detail {
            Detail::None => 0,
            Detail::Record(record) => record.size(),
            Detail::SameRecord(_) => 2,
            Detail::Accusers(accusers) => 1 + accusers.iter().map(|node| varint(node.0)).sum::<usize>(),
            Detail::Signature(signature) => 2 + signature.len(),
            Detail::SignedRecord(record, signature) => record.size() + 2 + signature.len(),
        };
        varint(self.node.0) + standing_size(self.standing) + 1 + detail
    }
}

impl News {
    /// Upper estimate of its bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        let sender = varint64(self.sender.0.epoch) + varint(self.sender.0.counter) + 2;
        let updates: usize = self.updates.iter().map(Update::size).sum();
        let sums = self
            .sums
            .as_ref()
            .map_or(0, |sums| 1 + 3 + 1 + 2 * sums.sums.len());
        let listing: usize = self.listing.iter().map(|listed| listed.size()).sum();
        let wants: usize = self.wants.iter().map(|node| varint(node.0)).sum();
        // Four lengths and whether there are sums.
        sender + 2 + updates + 1 + sums + 2 + listing + 1 + wants
    }
}

impl Message {
    /// Upper estimate of its bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + match self {
            Message::Ping { probe, news }
            | Message::Ack { probe, news }
            | Message::Reached { probe, news }
            | Message::Nack { probe, news } => varint(*probe) + news.size(),
            Message::PingRequest { probe, target, news } => varint(*probe) + varint(target.0) + news.size(),
            Message::Gossip(news) => news.size(),
            Message::ListRequest { news, .. } => 6 + news.size(),
            Message::List { members, .. } => 8 + members.iter().map(Update::size).sum::<usize>(),
        }
    }

    /// What rides on it.
    #[must_use]
    pub fn news(&self) -> Option<&News> {
        match self {
            Message::Ping { news, .. }
            | Message::Ack { news, .. }
            | Message::Reached { news, .. }
            | Message::Nack { news, .. }
            | Message::PingRequest { news, .. }
            | Message::Gossip(news)
            | Message::ListRequest { news, .. } => Some(news),
            Message::List { .. } => None,
        }
    }
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::List { .. } => Lane::Bulk,
            Message::ListRequest { .. } => Lane::Control,
            _ => Lane::Datagram,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::Ping { .. } => "ping",
            Message::Ack { .. } => "ack",
            Message::PingRequest { .. } => "ping-request",
            Message::Reached { .. } => "reached",
            Message::Nack { .. } => "nack",
            Message::Gossip(_) => "gossip",
            Message::ListRequest { .. } => "list-request",
            Message::List { .. } => "list",
        }
    }
}

#[cfg(test)]
mod tests;
