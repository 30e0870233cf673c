//! The ordered table of a totally ordered keyspace: commands in, changes out, the same on every replica.
//!
//! Raft applies its log to one, two-phase commit its chain. A clone is O(1) and shares memory (persistent B-tree),
//! so a snapshot is taken without stopping, and speculative states are cheap.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::checkpoint::CHUNK_BYTES_MAX;
use crate::codec;
use crate::data::{Change, CommandRef, Guard, Key, Mutation, Versioned, map_bounds};
use crate::id::{OpId, Version};
use crate::protocol::Corrupt;
use crate::read::{Entry, KeyRange, Query, page};
use crate::session::{Admission, CHECKED_MAX, OpResult, SessionLimits, Sessions, StoredSession, WholeRecord};
use crate::tree::Tree;
use crate::view::{Frozen, MapView};

pub use crate::checkpoint::CHUNK_BYTES;

/// Keys with their versioned values, and what each session's operations did.
#[derive(Clone, Debug, Default)]
pub struct Table {
    map: Tree<Key, Versioned>,
    sessions: Sessions,
    version: Version,
    /// The sum of [`entry_digest`] over the map.
    digest: u64,
}

/// What one entry contributes to a digest.
fn entry_digest(key: &Key, state: &Versioned) -> u64 {
    let lease = state.lease.map_or(0, |lease| lease.0.get());
    let value = xxh3_64_with_seed(&state.value, state.modified.0);
    xxh3_64_with_seed(
        key,
        value ^ state.created.0.rotate_left(32) ^ lease.rotate_left(16),
    )
}

/// What readers see of a key of a table.
type StateFn = fn(&Key, &Versioned) -> Option<Versioned>;

/// What applying one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The result for the caller, and for any repeat. `None`: the session has expired, nothing ran.
    pub result: Option<OpResult>,
    /// The keys that changed, each once.
    pub changes: Vec<Change>,
}

impl Table {
    /// An empty table whose session record has these limits.
    #[must_use]
    pub fn new(limits: impl Into<SessionLimits>) -> Self {
        Self {
            map: Tree::new(),
            sessions: Sessions::new(limits),
            version: Version::ABSENT,
            digest: 0,
        }
    }

    /// The position of the last operation applied.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no key exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The session record.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The state of one key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.map.get(key)
    }

    /// The entries of a range in key order.
    pub fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a Key, &'a Versioned)> + 'a {
        self.map.range::<[u8]>(map_bounds(range))
    }

    /// The entries of a range as they are now, to be read later.
    pub fn view(&self, range: &KeyRange) -> MapView<Versioned, StateFn> {
        MapView::new(&self.map, range, |_, state| Some(state.clone()))
    }

    /// One page of the answer to `query`.
    #[must_use]
    pub fn query(&self, query: &Query) -> (Vec<Entry>, bool) {
        if let Query::Get(key) = query {
            let entry = self.get(key).map(|state| Entry {
                key: key.clone(),
                state: state.clone(),
            });
            return (entry.into_iter().collect(), false);
        }
        let range = query.range();
        page(
            query,
            self.range(&range).map(|(key, state)| Entry {
                key: key.clone(),
                state: state.clone(),
            }),
        )
    }

    /// The first guard of `command` that does not hold.
    #[must_use]
    pub fn failed_guard<'a>(&self, command: impl Into<CommandRef<'a>>) -> Option<&'a Guard> {
        let CommandRef { guards, .. } = command.into();
        guards.iter().find(|guard| !guard.holds(self.get(guard.key())))
    }

    /// Applies one operation at position `at`, exactly once however often it comes.
    ///
    /// `at` must be greater than every earlier position; the caller's log or chain guarantees it.
    pub fn apply<'a>(&mut self, op: OpId, command: impl Into<CommandRef<'a>>, at: Version) -> Effect {
        self.advance(at);
        match self.sessions.admit(op) {
            Admission::Repeat(result) => Effect {
                result: Some(result),
                changes: Vec::new(),
            },
            Admission::Expired => Effect {
                result: None,
                changes: Vec::new(),
            },
            Admission::New => {
                let (result, changes) = self.run(command.into(), at);
                self.sessions.record(op, result, at);
                self.check(&changes);
                Effect {
                    result: Some(result),
                    changes,
                }
            }
        }
    }

    /// Resolves `op` at position `at`: if it has not run it is fenced and never will. Returns what it did.
    /// `None`: its record may have been evicted.
    pub fn fence(&mut self, op: OpId, at: Version) -> Option<OpResult> {
        self.advance(at);
        match self.sessions.admit(op) {
            Admission::Repeat(result) => Some(result),
            Admission::Expired => None,
            Admission::New => {
                self.sessions.record(op, OpResult::Fenced, at);
                Some(OpResult::Fenced)
            }
        }
    }

    /// Moves the position on without an operation (a no-op or configuration entry).
    ///
    /// # Panics
    /// If `at` is not greater than the current position: the caller applied something twice.
    pub fn advance(&mut self, at: Version) {
        assert!(at > self.version, "position {at} applied after {}", self.version);
        self.version = at;
    }

    /// The table's invariants after these changes: they say what the table holds, and were made now.
    fn check(&self, changes: &[Change]) {
        if let Some(Change { key, now }) = changes.last() {
            let (held, noted) = (self.get(key), now.as_ref());
            let held = held.map(|state| state.modified);
            assert_eq!(
                held,
                noted.map(|state| state.modified),
                "the change of key {key:?} is what the table holds"
            );
            assert!(
                held.is_none_or(|at| at == self.version),
                "key {key:?} changed at the last position"
            );
        }
        if cfg!(debug_assertions) && self.map.len() <= CHECKED_MAX {
            for (key, state) in &self.map {
                assert!(
                    state.created <= state.modified && state.modified <= self.version,
                    "key {key:?} was created at {} and modified at {}, the table is at {}",
                    state.created,
                    state.modified,
                    self.version
                );
            }
            let entries = self.map.iter();
            let digest = entries.fold(0, |sum: u64, (key, state)| {
                sum.wrapping_add(entry_digest(key, state))
            });
            assert_eq!(digest, self.digest, "the digest is that of the entries");
        }
    }

    fn run(&mut self, command: CommandRef<'_>, at: Version) -> (OpResult, Vec<Change>) {
        if let Some(guard) = self.failed_guard(command) {
            let found = self
                .get(guard.key())
                .map_or(Version::ABSENT, |state| state.modified);
            return (
                OpResult::Applied {
                    succeeded: false,
                    version: at,
                    found,
                },
                Vec::new(),
            );
        }
        let mut changes: Vec<Change> = Vec::with_capacity(command.mutations.len());
        let mut places = BTreeMap::new();
        // A node admits no update of a data type where there is a table. If one is in a log all the same, it does nothing on any
        // replica.
        let is_plain = |mutation: &&Mutation| !matches!(mutation, Mutation::Update { .. });
        for mutation in command.mutations.iter().filter(is_plain) {
            let key = mutation.key();
            let now = self.mutate(mutation, at);
            // A key that one command changes twice is one change to everybody else.
            let place = match command.mutations.len() {
                1 => 0,
                _ => *places.entry(key).or_insert(changes.len()),
            };
            match changes.get_mut(place) {
                Some(change) => change.now = now,
                None => changes.push(Change {
                    key: key.clone(),
                    now,
                }),
            }
        }
        (
            OpResult::Applied {
                succeeded: true,
                version: at,
                found: Version::ABSENT,
            },
            changes,
        )
    }

    /// Takes an entry of another table.
    fn load(&mut self, key: Key, state: Versioned) {
        self.digest = self.digest.wrapping_add(entry_digest(&key, &state));
        // A peer, or a disk, may say a key twice.
        if let Some(before) = self.map.insert(key.clone(), state) {
            self.digest = self.digest.wrapping_sub(entry_digest(&key, &before));
        }
    }

    fn mutate(&mut self, mutation: &Mutation, at: Version) -> Option<Versioned> {
        match mutation {
            Mutation::Put { key, value, lease } => {
                let mut state = Versioned {
                    value: value.clone(),
                    created: at,
                    modified: at,
                    lease: *lease,
                };
                // One descent where the key exists, which is the rule.
                if let Some(present) = self.map.get_mut(&key[..]) {
                    state.created = present.created;
                    self.digest = self.digest.wrapping_sub(entry_digest(key, present));
                    *present = state.clone();
                } else {
                    self.map.insert(key.clone(), state.clone());
                }
                self.digest = self.digest.wrapping_add(entry_digest(key, &state));
                Some(state)
            }
            Mutation::Delete { key } => {
                if let Some(before) = self.map.remove(&key[..]) {
                    self.digest = self.digest.wrapping_sub(entry_digest(key, &before));
                }
                None
            }
            Mutation::Update { .. } => unreachable!("it was left out"),
        }
    }

    /// The table as chunks of about `chunk_bytes`, from 1 to [`CHUNK_BYTES`], to be given to [`TableLoader`] in the same
    /// order. Each holds one entry, or one session, at least. Cheap to call: the chunks are made as they are taken.
    pub fn chunks(&self, chunk_bytes: usize) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES);
        let head = TableChunk::Head {
            version: self.version,
            horizon: self.sessions.horizon(),
        };
        let sessions = self.sessions.parts(chunk_bytes).map(TableChunk::Sessions);
        let mut rest = Frozen::new(&self.map).peekable();
        let entries = std::iter::from_fn(move || {
            rest.peek()?;
            let mut entries = Vec::new();
            let mut bytes = 0;
            while bytes < chunk_bytes
                && let Some((key, state)) = rest.next()
            {
                bytes += key.len() + state.value.len() + 32;
                entries.push((key, state));
            }
            Some(TableChunk::Entries(entries))
        });
        let chunks = std::iter::once(head).chain(sessions).chain(entries);
        chunks.map(|chunk| {
            let bytes = codec::encode_vec(&chunk);
            assert!(
                bytes.len() + WRAPPING <= CHUNK_BYTES_MAX,
                "a chunk of {} bytes, larger than the largest key and value",
                bytes.len()
            );
            bytes
        })
    }

    /// A digest of keys, values, versions and leases: equal on replicas that have applied the same history, whether they
    /// did it entry by entry or were given the table. O(1): each change keeps it up to date. It tells accidents apart, not
    /// forgeries.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

/// What a backend may put around a chunk of a table to make it one of its own.
const WRAPPING: usize = 64;

#[derive(Serialize, Deserialize)]
enum TableChunk {
    /// The first chunk, as earlier versions wrote it: with the whole session record. It is read, not written.
    WholeHead {
        version: Version,
        sessions: WholeRecord,
    },
    Entries(Vec<(Key, Versioned)>),
    /// The first chunk.
    Head {
        version: Version,
        /// See [`Sessions::horizon`].
        horizon: Version,
    },
    Sessions(Vec<StoredSession>),
}

/// Whether a [`TableLoader`] could read this chunk of a table.
pub fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    TableLoader::new(1).add(chunk)
}

/// Builds a table from the chunks of another.
#[derive(Debug)]
pub struct TableLoader {
    table: Table,
    limits: SessionLimits,
    has_head: bool,
}

impl TableLoader {
    /// A loader for a table whose session record has these limits.
    #[must_use]
    pub fn new(limits: impl Into<SessionLimits>) -> Self {
        let limits = limits.into();
        Self {
            table: Table::new(limits),
            limits,
            has_head: false,
        }
    }

    /// Takes the next chunk.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        match codec::decode(chunk)? {
            TableChunk::Head { version, horizon } => {
                self.begin(version, Sessions::restoring(horizon, self.limits));
            }
            TableChunk::WholeHead { version, sessions } => {
                self.begin(version, Sessions::from_whole(sessions, self.limits)?);
            }
            TableChunk::Sessions(part) => self.table.sessions.add(&part)?,
            TableChunk::Entries(entries) => {
                let newest = if self.has_head {
                    self.table.version
                } else {
                    Version(u64::MAX)
                };
                let misplaced = |state: &Versioned| state.created > state.modified || state.modified > newest;
                if let Some((key, state)) = entries.iter().find(|(_, state)| misplaced(state)) {
                    return Err(Corrupt(format!(
                        "key {key:?} was created at {} and modified at {}, in a table at {newest}",
                        state.created, state.modified
                    )));
                }
                for (key, state) in entries {
                    self.table.load(key, state);
                }
            }
        }
        Ok(())
    }

    /// What the chunks so far have made, as chunks that make the same. Cheap to call, as [`Table::chunks`] is.
    pub fn chunks(&self, chunk_bytes: usize) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        self.table.chunks(chunk_bytes).skip(usize::from(!self.has_head))
    }

    /// A table begins here: of one before, whose chunks broke off, nothing may stay.
    fn begin(&mut self, version: Version, sessions: Sessions) {
        self.table = Table::new(self.limits);
        self.table.version = version;
        self.table.sessions = sessions;
        self.has_head = true;
    }

    /// The table, or `None` if the chunk that opens every table never came.
    #[must_use]
    pub fn finish(self) -> Option<Table> {
        self.has_head.then_some(self.table)
    }
}

#[cfg(test)]
mod tests;
