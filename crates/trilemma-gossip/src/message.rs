//! What gossip nodes send each other, and what they log. Both formats are frozen by golden tests.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_vec;
use trilemma_core::data::BATCH_LENGTH_MAX;
use trilemma_core::{Incarnation, Lane, OpId};

use crate::context::WireContext;
use crate::dot::Dot;
use crate::hlc::Stamp;
use crate::replica::Item;

/// Most items of one message or record: exactly one whole command of the greatest length must fit.
pub const ITEMS_MAX: usize = BATCH_LENGTH_MAX;
/// Most withheld dots that a pull names.
pub const WITHHELD_MAX: usize = 4096;
/// Largest message that travels as a datagram, in bytes: QUIC's smallest path (1200) less frame and header.
pub const DATAGRAM_BYTES_MAX: usize = 1100;

/// A message between two replicas of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To random peers each tick, and at once after a local write: changes that the receiver may not have. `heard` is
    /// the sender's context, if small, so that the receiver need not send what the sender has.
    Rumours {
        /// What the sender reflects, not necessarily durably.
        heard: Option<WireContext>,
        /// The changes. Those of one command are never spread over two messages.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
    },
    /// To one random peer every few ticks, and to one that has come back: opens a comparison. Constant size; equal
    /// replicas send nothing further. Leaves when everything it stands for is durable.
    Compare {
        /// The life of the sender.
        incarnation: Incarnation,
        /// Hash of its context.
        context: u64,
    },
    /// To a peer whose context differs: asks for everything outside of the sender's context, and acknowledges that
    /// context. Leaves when everything acknowledged is durable.
    Pull {
        /// Names the exchange.
        session: u64,
        /// The life of the sender.
        incarnation: Incarnation,
        /// What the sender durably reflects.
        context: WireContext,
        /// Changes that the sender holds back (parked): not in its context, and not to be sent again.
        #[serde(deserialize_with = "bounded_vec::<_, _, WITHHELD_MAX>")]
        withheld: Vec<Dot>,
        /// Whether the receiver should pull as well if the sender has more.
        mutual: bool,
    },
    /// Answers `Pull` and `More`: the next changes, from one snapshot of the sender.
    Page {
        /// The exchange.
        session: u64,
        /// The life of the sender.
        incarnation: Incarnation,
        /// The snapshot. Pages of different snapshots are never mixed.
        snapshot: u64,
        /// The position that this page follows.
        after: Option<Dot>,
        /// The changes, whole commands.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
        /// What follows.
        end: PageEnd,
    },
    /// Asks for the page after `after`.
    More {
        /// The exchange.
        session: u64,
        /// The snapshot.
        snapshot: u64,
        /// The last dot received.
        after: Dot,
    },
}

/// What follows a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageEnd {
    /// Another page, after this dot.
    More(Dot),
    /// Nothing. The receiver joins this context, which the snapshot had and the sender durably has, now that it has
    /// all bodies.
    Last(WireContext),
}

fn size(items: &[Item]) -> usize {
    items.iter().map(Item::size).sum()
}

/// Upper estimate of a context's bytes on the wire.
pub(crate) fn context_bytes(context: &WireContext) -> usize {
    16 + 16 * context.intervals()
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::Compare { .. } => Lane::Datagram,
            Message::Rumours { heard, items } => {
                let bytes = size(items) + heard.as_ref().map_or(0, context_bytes);
                if bytes <= DATAGRAM_BYTES_MAX {
                    Lane::Datagram
                } else {
                    Lane::Bulk
                }
            }
            Message::Pull { .. } | Message::Page { .. } | Message::More { .. } => Lane::Bulk,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::Rumours { .. } => "rumours",
            Message::Compare { .. } => "compare",
            Message::Pull { .. } => "pull",
            Message::Page { .. } => "page",
            Message::More { .. } => "more",
        }
    }
}

/// What a replica logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Stamps up to this one may have been told: none is issued again.
    Lease(Stamp),
    /// A client's write, with the operation that a repeat is recognised by.
    Write {
        /// The operation.
        op: OpId,
        /// The stamp of all its changes.
        stamp: Stamp,
        /// Its changes: one for each key.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
    },
    /// Changes of peers, or a winner written back, taken in together.
    Join {
        /// The changes.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
    },
    /// A context taken in. Every body it stands for is in an earlier record.
    Context(WireContext),
    /// An operation that will never run here.
    Fence {
        /// The operation.
        op: OpId,
        /// The clock at that moment.
        stamp: Stamp,
    },
    /// The first record of each life.
    Life {
        /// The first of the unbroken row of lives, up to this one, that this disk has lived through with every change
        /// synced before it was sent. `None` without such syncs.
        whole_since: Option<Incarnation>,
    },
}

#[cfg(test)]
mod tests;
