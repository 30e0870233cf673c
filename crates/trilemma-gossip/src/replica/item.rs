//! A change of one key: what travels, what is logged, what the store holds.

use serde::{Deserialize, Serialize};
use trilemma_core::data::BATCH_LENGTH_MAX;
use trilemma_core::{Key, Value};

use crate::clock::Stamp;
use crate::dot::{Dot, Observed};

/// Greatest size of a dot on the wire: three numbers of 32, 64 and 64 bits, 7 bits to the byte.
const DOT_BYTES_MAX: usize = 25;
/// Greatest size of an item without key, content and observed set: dot, stamp, part and the lengths of the others.
const ITEM_BYTES: usize = 56;

/// Place of a change within the command that made it. The parts of one command have consecutive dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Position in the command, from 0.
    pub index: u16,
    /// Number of keys that the command changed.
    pub of: u16,
}

/// One change of one key, as it travels and as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub dot: Dot,
    /// When it was made, by its origin's hybrid logical clock.
    pub stamp: Stamp,
    /// The key.
    pub key: Key,
    /// The value; `None` is a tombstone.
    pub content: Option<Value>,
    /// The earlier changes of the key that it replaces.
    pub observed: Observed,
    /// Its place in its command.
    pub part: Part,
}

impl Item {
    /// Why no correct node sends this, if so.
    #[must_use]
    pub fn defect(&self) -> Option<&'static str> {
        if self.key.is_empty() {
            Some("an empty key")
        } else if self.part.index >= self.part.of
            || usize::from(self.part.of) > BATCH_LENGTH_MAX
            || self.dot.seq <= u64::from(self.part.index)
        {
            Some("a part outside of its command")
        } else if !self.observed.is_valid() {
            Some("an observed set out of order")
        } else if self.observed.covers(self.dot) {
            Some("a change that observed itself")
        } else {
            None
        }
    }

    /// The dot of the first change of the same command.
    #[must_use]
    pub fn command(&self) -> Dot {
        Dot {
            seq: self.dot.seq.saturating_sub(u64::from(self.part.index)),
            ..self.dot
        }
    }

    /// Whether `dot` is a later part of the same command.
    #[must_use]
    pub fn is_followed_by(&self, dot: Dot) -> bool {
        let end = self.command().seq.saturating_add(u64::from(self.part.of));
        dot.source() == self.dot.source() && self.dot.seq < dot.seq && dot.seq < end
    }

    /// Whether `other` is the same change, whatever the two have observed: collection forgets that.
    pub(crate) fn is_same_but_for_observed(&self, other: &Item) -> bool {
        let change = |item: &Item| (item.dot, item.stamp, item.part);
        change(self) == change(other) && self.key == other.key && self.content == other.content
    }

    /// Whether collection can do something for it: for a tombstone, and for what it has observed.
    pub(crate) fn is_uncollected(&self) -> bool {
        self.content.is_none() || !self.observed.is_empty()
    }

    /// Greatest size on the wire in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let content = self.content.as_ref().map_or(0, |value| value.len());
        ITEM_BYTES + self.key.len() + content + DOT_BYTES_MAX * self.observed.len()
    }
}
