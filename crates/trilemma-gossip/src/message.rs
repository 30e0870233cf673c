//! What gossip nodes send each other. The format is frozen by golden tests.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_bytes, bounded_vec};
use trilemma_core::data::BATCH_LENGTH_MAX;
use trilemma_core::{Incarnation, Lane, NodeId};

use crate::context::WireContext;
use crate::dot::Dot;
use crate::reconcile::{OUTLINE_BYTES_MAX, SYMBOL_BYTES, SYMBOLS_MAX};
use crate::replica::Item;

/// Most items of one message or record: exactly one whole command of the greatest length must fit.
pub const ITEMS_MAX: usize = BATCH_LENGTH_MAX;
/// Changes after which an anti-entropy page takes no further command, though one may be larger: a receiver takes that many
/// in within a few milliseconds.
pub const PAGE_ITEMS_MAX: usize = 1024;
/// Most deferred changes that a pull names.
pub const DEFERRED_MAX: usize = 4096;
/// Most deferred changes that a comparison names: it must fit into a datagram. A node that defers more pulls instead.
pub const COMPARE_DEFERRED_MAX: usize = 32;
/// Greatest size of the changes of one command, in bytes: they travel in one message (4 MiB on the bulk lane) and are
/// logged in one record (8 MiB).
pub const COMMAND_ITEMS_BYTES_MAX: usize = 3 << 20;
/// Largest message that travels as a datagram, in bytes: QUIC's smallest path (1200) less frame and header.
pub const DATAGRAM_BYTES_MAX: usize = 1100;
/// Usual size of a command's changes above which it is sent once, and then by name.
pub(crate) const LAZY_BYTES: usize = 128;
/// Most bytes of symbols in one message: all that a node keeps.
const SYMBOLS_BYTES_MAX: usize = SYMBOLS_MAX * SYMBOL_BYTES;

/// Upper estimate of the bytes of a command's name on the wire: the origin, two numbers of some billions, a length.
pub(crate) const COMMAND_NAME_BYTES: usize = 20;

/// A message between two replicas of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To random peers each tick, and at once after a local write: changes that the receiver may not have. `context`
    /// is the sender's, if small, so that the receiver need not send what the sender has.
    Rumors {
        /// What the sender reflects, not necessarily durably.
        context: Option<WireContext>,
        /// The changes. Those of one command are never spread over two messages.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
    },
    /// To one random peer every few ticks, and to one that has come back: opens a comparison. Small; equal replicas
    /// send nothing further. Leaves when everything it stands for is durable.
    Compare(Compare),
    /// To a peer whose context differs: asks for everything outside of the sender's context, and acknowledges that
    /// context. Leaves when everything acknowledged is durable.
    Pull {
        /// Names the exchange.
        session: u64,
        /// The incarnation of the sender.
        incarnation: Incarnation,
        /// What the sender durably reflects, deferred changes included.
        context: WireContext,
        /// Changes in that context that the sender defers: it does not show them yet, nor do its writes observe them.
        #[serde(deserialize_with = "bounded_vec::<_, _, DEFERRED_MAX>")]
        deferred: Vec<Dot>,
        /// Whether the receiver should pull as well if the sender has more.
        mutual: bool,
        /// Whether everything is wanted, not only what is outside of the context.
        whole: bool,
        /// The outline of what the sender holds, if it may differ little from what the receiver holds: then symbols may be
        /// answered instead of everything. Empty: they may not.
        #[serde(deserialize_with = "bounded_bytes::<_, OUTLINE_BYTES_MAX>")]
        outline: Bytes,
    },
    /// Answers `Pull` and `More`: the next changes, from one snapshot of the sender.
    Page {
        /// The exchange.
        session: u64,
        /// The incarnation of the sender.
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
    /// Answers a `Pull` with an outline, and `MoreSymbols`: the next symbols of a snapshot of the sender.
    Symbols {
        /// The exchange.
        session: u64,
        /// The incarnation of the sender.
        incarnation: Incarnation,
        /// The snapshot.
        snapshot: u64,
        /// The number of the first symbol.
        first: u32,
        /// The symbols, 26 bytes each.
        #[serde(deserialize_with = "bounded_bytes::<_, SYMBOLS_BYTES_MAX>")]
        symbols: Bytes,
    },
    /// Asks for the symbols from this number on.
    MoreSymbols {
        /// The exchange.
        session: u64,
        /// The snapshot.
        snapshot: u64,
        /// The number of the first symbol that is missing.
        first: u32,
    },
    /// Ends the symbols: asks for pages of these changes, and for the context.
    Want {
        /// The exchange.
        session: u64,
        /// The snapshot.
        snapshot: u64,
        /// The changes.
        dots: WireDots,
    },
    /// Answers a `Pull` that is not served, because enough others are.
    Busy {
        /// The exchange.
        session: u64,
        /// When to ask again, in milliseconds from now.
        retry_after_ms: u32,
    },
    /// To the targets of a tick: names of commands too large to be sent to all who may have them. Who lacks one fetches it.
    Advertise {
        /// The first dot of each, and the number of its changes.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        commands: Vec<(Dot, u16)>,
    },
    /// Answers `Advertise`: asks for commands. `Rumors` follow.
    Fetch {
        /// As in `Advertise`.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        commands: Vec<(Dot, u16)>,
    },
}

impl Message {
    /// The incarnation of the sender, where it matters to the receiver.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Message::Compare(Compare { incarnation, .. })
            | Message::Pull { incarnation, .. }
            | Message::Page { incarnation, .. }
            | Message::Symbols { incarnation, .. } => Some(*incarnation),
            Message::Rumors { .. }
            | Message::More { .. }
            | Message::MoreSymbols { .. }
            | Message::Want { .. }
            | Message::Busy { .. }
            | Message::Advertise { .. }
            | Message::Fetch { .. } => None,
        }
    }
}

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The incarnation of the sender.
    pub incarnation: Incarnation,
    /// Hash of its context.
    pub context: u64,
    /// Digest of what its reads can see. Equal contexts have equal ones; if not, something is broken.
    pub digest: u64,
    /// The changes that it defers.
    #[serde(deserialize_with = "bounded_vec::<_, _, COMPARE_DEFERRED_MAX>")]
    pub deferred: Vec<Dot>,
}

/// Some changes by name, ascending: of each incarnation of an origin the first number, and how much greater each next one is.
/// A name costs a byte or two where there are many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDots(#[serde(deserialize_with = "bounded_vec::<_, _, SYMBOLS_MAX>")] Vec<WireRow>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireRow {
    origin: NodeId,
    incarnation: Incarnation,
    #[serde(deserialize_with = "bounded_vec::<_, _, SYMBOLS_MAX>")]
    steps: Vec<u64>,
}

impl From<&BTreeSet<Dot>> for WireDots {
    fn from(dots: &BTreeSet<Dot>) -> Self {
        let dots: Vec<Dot> = dots.iter().copied().collect();
        let rows = dots.chunk_by(|a, b| a.source() == b.source());
        let row = |dots: &[Dot]| {
            let mut last = 0;
            let step = |dot: &Dot| dot.seq - std::mem::replace(&mut last, dot.seq);
            WireRow {
                origin: dots[0].origin,
                incarnation: dots[0].incarnation,
                steps: dots.iter().map(step).collect(),
            }
        };
        Self(rows.map(row).collect())
    }
}

impl WireDots {
    /// The changes. What a peer sends may not be in order, or too much: then there is none.
    #[must_use]
    pub fn read(&self) -> Option<Vec<Dot>> {
        let count = self.0.iter().map(|row| row.steps.len());
        if count.sum::<usize>() > SYMBOLS_MAX {
            return None;
        }
        let mut dots: Vec<Dot> = Vec::new();
        for row in &self.0 {
            let mut seq = 0_u64;
            for step in &row.steps {
                seq = seq.checked_add(*step)?;
                let dot = Dot::new(row.origin, row.incarnation, seq);
                if dots.last().is_some_and(|last| *last >= dot) {
                    return None;
                }
                dots.push(dot);
            }
        }
        Some(dots)
    }
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

/// Greatest size of some changes on the wire.
pub(crate) fn size(items: &[Item]) -> usize {
    items.iter().map(Item::size).sum()
}

/// Whether a command is among them that is sent once: then its loss would cost ticks, and not a repetition.
fn has_large(items: &[Item]) -> bool {
    let mut command = 0;
    items.iter().any(|item| {
        if item.part.index == 0 {
            command = 0;
        }
        command += item.size();
        command > LAZY_BYTES
    })
}

/// A datagram if it fits.
fn lane(bytes: usize) -> Lane {
    if bytes <= DATAGRAM_BYTES_MAX {
        Lane::Datagram
    } else {
        Lane::Bulk
    }
}

/// Upper estimate of a context's bytes on the wire.
pub(crate) fn context_bytes(context: &WireContext) -> usize {
    16 + 16 * context.intervals()
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::Compare(_) => Lane::Datagram,
            Message::Rumors { items, .. } if has_large(items) => Lane::Bulk,
            Message::Rumors { context, items } => {
                lane(size(items) + context.as_ref().map_or(0, context_bytes))
            }
            Message::Advertise { commands } => lane(COMMAND_NAME_BYTES * commands.len()),
            // A name that is lost comes again; a request that is lost would cost ticks.
            Message::Fetch { .. } => Lane::Control,
            Message::Pull { .. }
            | Message::Page { .. }
            | Message::More { .. }
            | Message::Symbols { .. }
            | Message::MoreSymbols { .. }
            | Message::Want { .. }
            | Message::Busy { .. } => Lane::Bulk,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::Rumors { .. } => "rumors",
            Message::Compare(_) => "compare",
            Message::Pull { .. } => "pull",
            Message::Page { .. } => "page",
            Message::More { .. } => "more",
            Message::Symbols { .. } => "symbols",
            Message::MoreSymbols { .. } => "more-symbols",
            Message::Want { .. } => "want",
            Message::Busy { .. } => "busy",
            Message::Advertise { .. } => "advertise",
            Message::Fetch { .. } => "fetch",
        }
    }
}

#[cfg(test)]
mod tests;
