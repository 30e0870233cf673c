//! Reads: what is asked, at which level, and what came back.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{bounded_bytes, bounded_vec};
use crate::data::{KEY_BYTES_MAX, Key, Value, Versioned, too_large};
use crate::datatype::{DataType, ELEMENT_BYTES_MAX, TYPED_KEY_BYTES_MAX};
use crate::error::Reason;
use crate::id::{NodeId, Version};

/// Most entries of one reply to a range read. More are read page by page.
pub const RANGE_ENTRIES_MAX: u32 = 10_000;
/// Most bytes of keys and values in one reply; the entry that passes it is the page's last.
pub const RANGE_BYTES_MAX: usize = 1024 * 1024;

/// How fresh a read must be. A read is never served weaker than asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Sees every write that was acknowledged before the read began (Herlihy and Wing 1990).
    Linearizable,
    /// What this node has now. May be stale by any amount; answers in any partition.
    Local,
    /// Reflects everything up to this version of the keyspace; waits for it, up to the deadline.
    MinVersion(Version),
}

impl ReadLevel {
    /// Whether serving at `self` satisfies a request for `asked`.
    #[must_use]
    pub fn satisfies(self, asked: ReadLevel) -> bool {
        match (self, asked) {
            (_, ReadLevel::Local) | (ReadLevel::Linearizable, _) => true,
            (ReadLevel::MinVersion(has), ReadLevel::MinVersion(wants)) => has >= wants,
            _ => false,
        }
    }
}

impl std::fmt::Display for ReadLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadLevel::Linearizable => f.write_str("linearizable"),
            ReadLevel::Local => f.write_str("local"),
            ReadLevel::MinVersion(version) => write!(f, "at least {version}"),
        }
    }
}

/// Longest bound of a range: what follows the longest key directly.
const BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// A half-open range of keys: `start` inclusive, `end` exclusive (`None`: to the last key). Bounds may be empty, and one
/// byte longer than keys: what follows the longest key directly is a bound, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key that may be in the range.
    #[serde(deserialize_with = "bound")]
    pub start: Key,
    /// First key after the range.
    #[serde(deserialize_with = "end_bound")]
    pub end: Option<Key>,
}

fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
    bounded_bytes::<D, BOUND_BYTES_MAX>(deserializer).map(Key::from)
}

fn end_bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Key>, D::Error> {
    #[derive(Deserialize)]
    struct Bound(#[serde(deserialize_with = "bound")] Key);

    let end = Option::<Bound>::deserialize(deserializer)?;
    Ok(end.map(|Bound(key)| key))
}

impl KeyRange {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.last_mut() {
            if *last < u8::MAX {
                *last += 1;
                return Self {
                    start,
                    end: Some(end.into()),
                };
            }
            end.pop();
        }
        Self { start, end: None }
    }

    /// Exactly this key.
    #[must_use]
    pub fn key(key: &Key) -> Self {
        let mut end = key.to_vec();
        end.push(0);
        Self {
            start: key.clone(),
            end: Some(end.into()),
        }
    }

    /// Checks the lengths of the bounds.
    pub fn validate(&self) -> Result<(), Reason> {
        let longest = self.start.len().max(self.end.as_ref().map_or(0, |end| end.len()));
        if longest > BOUND_BYTES_MAX {
            return Err(too_large("key", longest, KEY_BYTES_MAX));
        }
        Ok(())
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// What a read asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One key.
    Get(Key),
    /// The keys of a range in order, at most `limit` of them (0: [`RANGE_ENTRIES_MAX`]).
    Range {
        /// Which keys.
        range: KeyRange,
        /// Most entries to return.
        limit: u32,
    },
    /// Every concurrent value of one key. Only convergent backends have more than one.
    Siblings(Key),
    /// The value of a data type that a key holds. Of a set or map: its elements or fields in a range, in order, each as the
    /// key of an entry. Of a multi-value register: an entry for each value, the newest first. Of the others: one entry with what [`crate::datatype::Number`] or [`crate::datatype::Escrow`] reads,
    /// none if the value does not exist. Only convergent backends have such values.
    Typed {
        /// The key.
        key: Key,
        /// What it holds.
        of: DataType,
        /// Which elements or fields; all, where there are none.
        range: KeyRange,
        /// Most entries to return (0: [`RANGE_ENTRIES_MAX`]).
        limit: u32,
    },
}

impl Query {
    /// The keys that the query looks at.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        match self {
            Query::Get(key) | Query::Siblings(key) | Query::Typed { key, .. } => KeyRange::key(key),
            Query::Range { range, .. } => range.clone(),
        }
    }

    /// Checks lengths of keys. A backend sees only valid queries.
    pub fn validate(&self) -> Result<(), Reason> {
        match self {
            Query::Get(key) | Query::Siblings(key) => key.validate(),
            Query::Range { range, .. } => range.validate(),
            Query::Typed { key, range, .. } => {
                if key.len() > TYPED_KEY_BYTES_MAX {
                    return Err(too_large(
                        "the key of a data type",
                        key.len(),
                        TYPED_KEY_BYTES_MAX,
                    ));
                }
                // As with keys: what follows the longest element directly is a bound, too.
                let longest = range
                    .start
                    .len()
                    .max(range.end.as_ref().map_or(0, |end| end.len()));
                if longest > ELEMENT_BYTES_MAX + 1 {
                    return Err(too_large("element or field", longest, ELEMENT_BYTES_MAX));
                }
                key.validate()
            }
        }
    }

    /// Most entries the answer may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        match self {
            Query::Get(_) => 1,
            Query::Siblings(_) | Query::Range { limit: 0, .. } | Query::Typed { limit: 0, .. } => {
                RANGE_ENTRIES_MAX as usize
            }
            Query::Range { limit, .. } | Query::Typed { limit, .. } => {
                (*limit).min(RANGE_ENTRIES_MAX) as usize
            }
        }
    }
}

/// A read: what, and how fresh it must be at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// What is asked.
    pub query: Query,
    /// The level asked for; `None` is the strongest that the backend has.
    pub level: Option<ReadLevel>,
}

/// One key with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value and versions.
    pub state: Versioned,
}

impl Entry {
    /// What it costs in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        96 + self.key.len() + self.state.value.len()
    }
}

/// The answer to a read, with what was achieved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply {
    /// What was found, in key order. A `Get` has at most one entry.
    #[serde(deserialize_with = "bounded_vec::<_, _, { RANGE_ENTRIES_MAX as usize + 1 }>")]
    pub entries: Vec<Entry>,
    /// Whether the range goes on after the last entry (a limit was met).
    pub more: bool,
    /// The keyspace version that the answer reflects; [`Version::ABSENT`] where the backend has no such order.
    pub version: Version,
    /// The level at which the read was served.
    pub achieved: ReadLevel,
    /// The node that answered.
    pub served_by: NodeId,
    /// Message round trips on the path of this read.
    pub round_trips: u8,
}

impl ReadReply {
    /// The value of the first entry: what a `Get` found.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        self.entries.first().map(|entry| &entry.state.value)
    }
}

/// Collects a page of entries up to the limits of `query` and [`RANGE_BYTES_MAX`]; tells whether more follow.
pub fn page(query: &Query, entries: impl IntoIterator<Item = Entry>) -> (Vec<Entry>, bool) {
    let limit = query.limit();
    let mut page = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        if page.len() == limit || bytes >= RANGE_BYTES_MAX {
            return (page, true);
        }
        bytes += entry.key.len() + entry.state.value.len();
        page.push(entry);
    }
    (page, false)
}

/// How long an operation may take when its caller does not say.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
