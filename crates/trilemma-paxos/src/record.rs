//! What a paxos node must not forget.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::Key;
use trilemma_core::codec::bounded_vec;
use trilemma_core::data::KEY_BYTES_MAX;
use trilemma_core::protocol::RECORD_BYTES_MAX;

use super::ballot::Ballot;
use super::register::{Proposed, Register};

/// Most items of each kind that a record may hold; a larger one does not decode.
pub const RECORD_ITEMS_MAX: usize = 1024;
/// Size in bytes at which a record is closed. The item that reaches it goes in whole. A sync costs the same for many small
/// records as for one large one, and small ones fit small segments.
pub const CLOSING_BYTES: usize = 16 * 1024;
/// Greatest size in bytes of a record of this backend: one that the smallest item had nearly closed, and the largest item.
pub const BYTES_MAX: usize = CLOSING_BYTES + ITEM_BYTES_MAX;

/// Greatest size in bytes of a key: its length and itself.
const KEY_ITEM_BYTES_MAX: usize = key_bytes(KEY_BYTES_MAX);
/// Greatest size in bytes of an item: a key, two ballots and a register.
const ITEM_BYTES_MAX: usize = KEY_ITEM_BYTES_MAX + 2 * Ballot::BYTES_MAX + 1 + Register::BYTES_MAX;
/// Least size of an item as it is counted.
const ITEM_BYTES_MIN: usize = key_bytes(0) + Ballot::BYTES_MAX;
/// Lengths of the three lists of a record.
const LENGTHS_BYTES: usize = 3 * 2;

const _: () = assert!(BYTES_MAX <= RECORD_BYTES_MAX, "the log takes every record");
const _: () = assert!(
    CLOSING_BYTES / ITEM_BYTES_MIN < RECORD_ITEMS_MAX,
    "a record that is closed by its bytes decodes"
);

const fn key_bytes(length: usize) -> usize {
    2 + length
}

/// What a turn of the driver changed, or a part of it, in the order promises, accepts, chosen.
///
/// Replaying a record again, or over a newer state, changes nothing: each item only moves its key forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Promises of this node's acceptor. Safety rests on them: no ballot below is accepted.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub promised: Vec<(Key, Ballot)>,
    /// Registers that this node's acceptor has accepted. Safety rests on them.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub accepted: Vec<AcceptedRecord>,
    /// What this node has learned to be chosen: soft state, anti-entropy would bring it back.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub chosen: Vec<ChosenRecord>,
}

/// A register accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecord {
    /// The key.
    pub key: Key,
    /// The ballot accepted.
    pub ballot: Ballot,
    /// What is promised from now on.
    pub promised: Ballot,
    /// The register. What makes it of another is made of the one that the records before leave accepted.
    pub register: Proposed,
}

/// A register learned to be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenRecord {
    /// The key.
    pub key: Key,
    /// The ballot under which it was chosen.
    pub ballot: Ballot,
    /// The register; `None`: the one this node has accepted under the same ballot.
    pub register: Option<Arc<Register>>,
}

impl AcceptedRecord {
    /// Greatest size in bytes.
    fn size(&self) -> usize {
        key_bytes(self.key.len()) + 2 * Ballot::BYTES_MAX + self.register.size()
    }
}

impl ChosenRecord {
    /// Greatest size in bytes.
    fn size(&self) -> usize {
        let register = self.register.as_ref().map_or(0, |register| register.size());
        key_bytes(self.key.len()) + Ballot::BYTES_MAX + 1 + register
    }
}

impl Record {
    /// Cuts it into records of at most [`BYTES_MAX`] bytes, to be appended in this order.
    ///
    /// A crash between two of them leaves the first ones. What was accepted comes first, then what was promised, each in
    /// the order in which it happened: so each key is as it was at some moment of the turn, and nothing of the turn has been
    /// answered, for answers wait for the last record. What was chosen comes at the end: it refers to what was accepted.
    pub(crate) fn cut(self) -> Vec<Record> {
        let mut cut = Cut::default();
        for item in self.accepted {
            cut.place(item.size()).accepted.push(item);
        }
        for (key, ballot) in self.promised {
            let size = key_bytes(key.len()) + Ballot::BYTES_MAX;
            cut.place(size).promised.push((key, ballot));
        }
        for item in self.chosen {
            cut.place(item.size()).chosen.push(item);
        }
        cut.records
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.promised.is_empty() && self.accepted.is_empty() && self.chosen.is_empty()
    }

    /// Whether an answer to a proposer may wait for it.
    pub(crate) fn is_forced(&self) -> bool {
        !self.promised.is_empty() || !self.accepted.is_empty()
    }
}

/// Records that are being filled.
#[derive(Default)]
struct Cut {
    records: Vec<Record>,
    /// Bytes of the last one.
    bytes: usize,
}

impl Cut {
    /// The record that an item of this size goes into.
    fn place(&mut self, size: usize) -> &mut Record {
        if self.records.is_empty() || self.bytes >= CLOSING_BYTES {
            self.records.push(Record::default());
            self.bytes = LENGTHS_BYTES;
        }
        self.bytes += size;
        assert!(self.bytes <= BYTES_MAX, "a record of {} bytes", self.bytes);
        let last = self.records.len() - 1;
        &mut self.records[last]
    }
}

#[cfg(test)]
mod tests;
