//! The data model that all backends share: ordered keys, versioned values, guarded batches, ranges.
//!
//! Every write is one [`Command`]: guards that must all hold, and mutations that then happen together. A plain put
//! has no guard; a compare-and-set has one. Which commands a keyspace accepts is its backend's descriptor's matter.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{bounded_octets, bounded_vec};
use crate::datatype::Update;
use crate::error::{NotApplied, Reason};
use crate::id::{LeaseId, Version};
use crate::read::KeyRange;

/// Longest key, in bytes. Keys travel in every message about them, so they are kept short.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value, in bytes. A larger object belongs in an object store, its address here.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Most guards, and most mutations, of one command.
pub const BATCH_LENGTH_MAX: usize = 4096;
/// Most bytes of one command: it must fit a log record and a frame of the log lane.
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;

// Neither is a slice of what it was read from, which one small key would keep in memory.
macro_rules! byte_string {
    ($(#[$meta:meta])* $name:ident($inner:ty), $max:expr) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl std::ops::Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl std::borrow::Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.as_bytes().into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.as_bytes().into())
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes.into())
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes[..].into())
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> Self {
                Self(bytes[..].into())
            }
        }

        impl fmt::Display for $name {
            /// As text where it is text; other bytes are escaped.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match std::str::from_utf8(&self.0) {
                    Ok(text) => f.write_str(text),
                    Err(_) => write!(f, "{}", self.0.escape_ascii()),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const SHOWN: usize = 48;
                let shown = &self.0[..self.0.len().min(SHOWN)];
                let more = if self.0.len() > SHOWN { "…" } else { "" };
                write!(f, "\"{}\"{more}", shown.escape_ascii())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                bounded_octets::<D, _, { $max }>(deserializer).map(Self)
            }
        }
    };
}

/// A byte string that holds a short one in itself: to compare it, to copy it and to make it touches no other memory. Most
/// keys are so short, and what a map does is to compare keys.
#[derive(Clone)]
enum Inlined {
    /// The first `length` of these.
    Short { length: u8, bytes: [u8; INLINED_MAX] },
    /// Longer than that: one allocation, with its counter in it.
    Long(Arc<[u8]>),
}

/// Longest byte string that is held in itself: what a pointer, its length and the tag leave room for.
const INLINED_MAX: usize = 22;

impl std::ops::Deref for Inlined {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Inlined::Short { length, bytes } => &bytes[..usize::from(*length)],
            Inlined::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Inlined {
    fn from(from: &[u8]) -> Self {
        let mut bytes = [0; INLINED_MAX];
        match bytes.get_mut(..from.len()) {
            Some(place) => {
                place.copy_from_slice(from);
                let length = from.len() as u8;
                Inlined::Short { length, bytes }
            }
            None => Inlined::Long(from.into()),
        }
    }
}

impl Default for Inlined {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl PartialEq for Inlined {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Inlined {}

impl PartialOrd for Inlined {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Inlined {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// As its bytes hash, which stand for it in a map that is asked for them.
impl Hash for Inlined {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

byte_string!(
    /// A key: 1 to [`KEY_BYTES_MAX`] bytes, ordered bytewise. By convention a path with `/` between segments.
    Key(Inlined),
    KEY_BYTES_MAX
);
byte_string!(
    /// A value: up to [`VALUE_BYTES_MAX`] bytes that Trilemma does not interpret.
    Value(Arc<[u8]>),
    VALUE_BYTES_MAX
);

impl Key {
    /// Checks the length. A backend sees only valid keys.
    pub fn validate(&self) -> Result<(), Reason> {
        match self.len() {
            0 => Err(Reason::Invalid {
                what: "a key is empty".into(),
            }),
            1..=KEY_BYTES_MAX => Ok(()),
            size => Err(too_large("key", size, KEY_BYTES_MAX)),
        }
    }
}

pub(crate) fn too_large(what: &str, size: usize, limit: usize) -> Reason {
    Reason::TooLarge {
        what: what.into(),
        size: size as u64,
        limit: limit as u64,
    }
}

/// A value with where in the keyspace's history it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value.
    pub value: Value,
    /// The version at which the key came into existence (again).
    pub created: Version,
    /// The version of the write that made this value.
    pub modified: Version,
    /// The lease under which the value lives, if any.
    pub lease: Option<LeaseId>,
}

// What a key costs in a map, beyond one allocation for its value, and one for a key that is long.
const _: () = assert!(size_of::<(Key, Versioned)>() <= 64);

/// A condition on one key. All guards of a command are checked against one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The key's modify version is `is`; [`Version::ABSENT`] means the key does not exist.
    Version {
        /// The key.
        key: Key,
        /// The version it must have.
        is: Version,
    },
    /// The key holds exactly this value; `None` means the key does not exist.
    Value {
        /// The key.
        key: Key,
        /// The value it must hold.
        is: Option<Value>,
    },
}

impl Guard {
    /// The key that the guard looks at.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Guard::Version { key, .. } | Guard::Value { key, .. } => key,
        }
    }

    /// Whether the guard holds when its key has this state.
    #[must_use]
    pub fn holds(&self, found: Option<&Versioned>) -> bool {
        match self {
            Guard::Version { is, .. } => found.map_or(Version::ABSENT, |found| found.modified) == *is,
            Guard::Value { is, .. } => found.map(|found| &found.value) == is.as_ref(),
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// The key holds this value from now on.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// The lease under which the value lives, if any.
        lease: Option<LeaseId>,
    },
    /// The key does not exist from now on. Deleting an absent key is not an error.
    Delete {
        /// The key.
        key: Key,
    },
    /// The value of a data type that the key holds changes. Only convergent backends have such values.
    Update {
        /// The key.
        key: Key,
        /// What changes.
        update: Box<Update>,
    },
}

// A log holds millions of them.
const _: () = assert!(size_of::<Mutation>() <= 56);

impl Mutation {
    /// The key that changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Mutation::Put { key, .. } | Mutation::Delete { key } | Mutation::Update { key, .. } => key,
        }
    }

    /// The value that the key gets; `None` for a delete, and for a change of a data type.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Mutation::Put { value, .. } => Some(value),
            Mutation::Delete { .. } | Mutation::Update { .. } => None,
        }
    }

    /// What it adds to the size of a command.
    pub(crate) fn size(&self) -> usize {
        let content = match self {
            Mutation::Put { value, .. } => value.len(),
            Mutation::Update { update, .. } => update.size(),
            Mutation::Delete { .. } => 0,
        };
        self.key().len() + content + SIZE_OVERHEAD
    }
}

/// What each guard and mutation adds to the size of a command, beyond keys and values.
const SIZE_OVERHEAD: usize = 16;

/// One write: if all guards hold, all mutations happen, together and in order; else nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What must hold. Empty: always.
    #[serde(deserialize_with = "bounded_vec::<_, _, BATCH_LENGTH_MAX>")]
    pub guards: Vec<Guard>,
    /// What then happens.
    #[serde(deserialize_with = "bounded_vec::<_, _, BATCH_LENGTH_MAX>")]
    pub mutations: Vec<Mutation>,
}

/// The parts of a [`Command`], wherever they are held. It is written as the command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename = "Command")]
pub struct CommandRef<'a> {
    /// What must hold. Empty: always.
    pub guards: &'a [Guard],
    /// What then happens.
    pub mutations: &'a [Mutation],
}

impl<'a> From<&'a Command> for CommandRef<'a> {
    fn from(command: &'a Command) -> Self {
        Self {
            guards: &command.guards,
            mutations: &command.mutations,
        }
    }
}

impl Command {
    /// Sets one key.
    #[must_use]
    pub fn put(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        let mutation = Mutation::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        };
        Self {
            guards: Vec::new(),
            mutations: vec![mutation],
        }
    }

    /// Removes one key.
    #[must_use]
    pub fn delete(key: impl Into<Key>) -> Self {
        Self {
            guards: Vec::new(),
            mutations: vec![Mutation::Delete { key: key.into() }],
        }
    }

    /// Changes the value of a data type.
    #[must_use]
    pub fn update(key: impl Into<Key>, update: Update) -> Self {
        Self {
            guards: Vec::new(),
            mutations: vec![Mutation::Update {
                key: key.into(),
                update: Box::new(update),
            }],
        }
    }

    /// The first change of a data type in it, with its key.
    #[must_use]
    pub fn first_update(&self) -> Option<(&Key, &Update)> {
        self.mutations.iter().find_map(|mutation| match mutation {
            Mutation::Update { key, update } => Some((key, &**update)),
            Mutation::Put { .. } | Mutation::Delete { .. } => None,
        })
    }

    /// Sets one key (`None`: removes it) if it holds exactly `expected` (`None`: does not exist).
    #[must_use]
    pub fn compare_and_set(key: impl Into<Key>, expected: Option<Value>, value: Option<Value>) -> Self {
        let key = key.into();
        let mutation = match value {
            Some(value) => Mutation::Put {
                key: key.clone(),
                value,
                lease: None,
            },
            None => Mutation::Delete { key: key.clone() },
        };
        Self {
            guards: vec![Guard::Value { key, is: expected }],
            mutations: vec![mutation],
        }
    }

    /// The one key that the command touches, or `None` if it touches several (or none).
    #[must_use]
    pub fn single_key(&self) -> Option<&Key> {
        let mut keys = self.keys();
        let first = keys.next()?;
        keys.all(|key| key == first).then_some(first)
    }

    /// Every key that a guard or mutation names, in the command's order, with repeats.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.guards
            .iter()
            .map(Guard::key)
            .chain(self.mutations.iter().map(Mutation::key))
    }

    /// Whether some guard or mutation falls into `range`.
    #[must_use]
    pub fn touches(&self, range: &KeyRange) -> bool {
        self.keys().any(|key| range.contains(key))
    }

    /// Size of keys and values in bytes, with 16 bytes for each guard and mutation.
    #[must_use]
    pub fn size(&self) -> usize {
        let guards = self.guards.iter().map(|guard| match guard {
            Guard::Version { key, .. } => key.len() + SIZE_OVERHEAD,
            Guard::Value { key, is } => {
                key.len() + is.as_ref().map_or(0, |value| value.len()) + SIZE_OVERHEAD
            }
        });
        guards.sum::<usize>() + self.mutations.iter().map(Mutation::size).sum::<usize>()
    }

    /// Checks lengths and counts against this module's limits. A backend sees only valid commands.
    pub fn validate(&self) -> Result<(), NotApplied> {
        let too_large =
            |what: &str, size: usize, limit: usize| Err(NotApplied::never(too_large(what, size, limit)));
        if self.guards.len() > BATCH_LENGTH_MAX || self.mutations.len() > BATCH_LENGTH_MAX {
            let count = self.guards.len().max(self.mutations.len());
            return too_large("number of guards or mutations", count, BATCH_LENGTH_MAX);
        }
        // Never weaker than asked: a value under a lease that nothing ends would live on without it.
        let leased = |mutation: &Mutation| matches!(mutation, Mutation::Put { lease: Some(_), .. });
        if self.mutations.iter().any(leased) {
            return Err(NotApplied::never(Reason::Unsupported {
                asked: "a value under a lease".into(),
                strongest: "a value without a lease".into(),
            }));
        }
        for key in self.keys() {
            key.validate().map_err(NotApplied::never)?;
        }
        for mutation in &self.mutations {
            if let Mutation::Update { key, update } = mutation {
                update.validate(key).map_err(NotApplied::never)?;
            }
        }
        let values = self.mutations.iter().filter_map(Mutation::value);
        let expected = self.guards.iter().filter_map(|guard| match guard {
            Guard::Value { is, .. } => is.as_ref(),
            Guard::Version { .. } => None,
        });
        if let Some(value) = values.chain(expected).find(|value| value.len() > VALUE_BYTES_MAX) {
            return too_large("value", value.len(), VALUE_BYTES_MAX);
        }
        if self.size() > COMMAND_BYTES_MAX {
            return too_large("command", self.size(), COMMAND_BYTES_MAX);
        }
        Ok(())
    }
}

/// One key's new state, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its new state; `None` when it was deleted.
    pub now: Option<Versioned>,
}

impl Change {
    /// What it costs in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        96 + self.key.len() + self.now.as_ref().map_or(0, |state| state.value.len())
    }
}

/// Changes that became visible together: one command's, or what one merge brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBatch {
    /// Where in the keyspace's change stream this stands; grows by any amount from one `ChangeBatch` to the next.
    pub position: u64,
    /// The changes, each key at most once.
    #[serde(deserialize_with = "bounded_vec::<_, _, BATCH_LENGTH_MAX>")]
    pub changes: Vec<Change>,
}

/// The half-open range of keys as the bounds that ordered maps take.
#[must_use]
pub fn map_bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range
        .end
        .as_ref()
        .map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
    (Bound::Included(&range.start[..]), end)
}

#[cfg(test)]
mod tests;
