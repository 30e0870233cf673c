//! A change of one key: what travels, what is logged, what the store holds.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trilemma_core::data::BATCH_LENGTH_MAX;
use trilemma_core::{Key, Value};

use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::signatures::{SIGNED_BYTES, Signed};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub dot: Dot,
    /// When it was made, by its origin's hybrid logical clock.
    pub stamp: Stamp,
    /// The key.
    pub key: Key,
    /// The value; `None` is a tombstone.
    pub content: Option<Value>,
    /// The earlier changes of the key that it replaces. The origin's signature is with it, see [`Item::signed`].
    pub observed: Observed,
    /// Its place in its command.
    pub part: Part,
}

/// Set in `part.of` on the wire and on disk if a signature follows: what is not signed is written as it was before there were
/// signatures, and costs not a byte more.
const SIGNED: u16 = 1 << 15;
const _: () = assert!(BATCH_LENGTH_MAX < SIGNED as usize);

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_signed = self.signed().is_some();
        let mut tuple = serializer.serialize_tuple(6 + usize::from(is_signed))?;
        tuple.serialize_element(&self.dot)?;
        tuple.serialize_element(&self.stamp)?;
        tuple.serialize_element(&self.key)?;
        tuple.serialize_element(&self.content)?;
        tuple.serialize_element(&self.observed)?;
        let of = self.part.of | if is_signed { SIGNED } else { 0 };
        tuple.serialize_element(&Part { of, ..self.part })?;
        if let Some(signed) = self.signed() {
            tuple.serialize_element(signed)?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(parts: &mut A) -> Result<T, A::Error> {
            let part = parts.next_element()?;
            part.ok_or_else(|| A::Error::custom("a change that ends early"))
        }

        impl<'de> Visitor<'de> for Parts {
            type Value = Item;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a change")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Item, A::Error> {
                let mut item = Item {
                    dot: next(&mut parts)?,
                    stamp: next(&mut parts)?,
                    key: next(&mut parts)?,
                    content: next(&mut parts)?,
                    observed: next(&mut parts)?,
                    part: next(&mut parts)?,
                };
                if item.part.of & SIGNED != 0 {
                    item.part.of ^= SIGNED;
                    item.set_signed(Some(&next(&mut parts)?));
                }
                Ok(item)
            }
        }

        deserializer.deserialize_tuple(7, Parts)
    }
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

    /// That its origin made it, where the keyspace asks for [`signatures`](crate::signatures).
    #[must_use]
    pub fn signed(&self) -> Option<&Signed> {
        self.observed.signed()
    }

    /// Gives it another signature, or none.
    pub fn set_signed(&mut self, signed: Option<&Signed>) {
        self.observed.set_signed(signed);
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
        let signed = if self.signed().is_some() { SIGNED_BYTES } else { 0 };
        ITEM_BYTES + self.key.len() + content + DOT_BYTES_MAX * self.observed.len() + signed
    }
}
