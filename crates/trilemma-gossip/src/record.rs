//! What a replica logs. The format is frozen by golden tests.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_vec;
use trilemma_core::{Incarnation, OpId};

use crate::clock::Stamp;
use crate::context::WireContext;
use crate::dot::Dot;
use crate::message::{ITEMS_MAX, context_bytes, size};
use crate::replica::Item;

/// A record. Old ones stay readable: a new kind is added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Stamps up to this one may have been reported: none is issued again. A lease below the former one is that of an
    /// incarnation that left stamps which were far ahead of its wall clock.
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
    /// Changes of peers, or a winner written back, taken in together. Deferred changes whose time has come are logged
    /// here once more.
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
    /// The first record of each incarnation.
    Begin {
        /// The first of the unbroken row of incarnations, up to this one, that this disk has lived through with every
        /// change synced before it was sent. `None` without such syncs.
        durable_since: Option<Incarnation>,
    },
    /// Changes that are reflected but not shown yet: their stamps are too far ahead.
    Deferred {
        /// The changes.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        items: Vec<Item>,
    },
    /// What a whole exchange corrected.
    Repair {
        /// Changes taken in although the context held them.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        restored: Vec<Item>,
        /// Changes dropped because the peer reflects them and does not hold them.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")]
        removed: Vec<Dot>,
    },
    /// This disk was empty when the incarnation began. See `rejoin`.
    Blank,
    /// What a disk lost before this one may have promised is made good.
    Rejoined,
}

impl Record {
    /// Greatest size in bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Record::Write { items, .. } | Record::Join { items } | Record::Deferred { items } => {
                    size(items)
                }
                Record::Repair { restored, removed } => size(restored) + 25 * removed.len(),
                Record::Context(context) => 2 * context_bytes(context),
                Record::Lease(_)
                | Record::Fence { .. }
                | Record::Begin { .. }
                | Record::Blank
                | Record::Rejoined => 0,
            }
    }
}

#[cfg(test)]
mod tests;
