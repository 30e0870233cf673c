//! Checkpoints: the acceptor's states, then what was learned, in chunks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES;
use trilemma_core::{Checkpoint, Corrupt, Key, codec};

use super::ballot::Ballot;
use super::key_states::{KeyState, KeyStates};
use super::register::Register;

/// One chunk. Read from the node's own disk, where it passed a checksum.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Chunk {
    /// KeyStates of the acceptor. All come before what was learned.
    KeyStates(Vec<KeyStateEntry>),
    /// What was learned.
    Learned(Vec<LearnedEntry>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyStateEntry {
    pub(crate) key: Key,
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) register: Arc<Register>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LearnedEntry {
    pub(crate) key: Key,
    pub(crate) ballot: Ballot,
    /// `None`: the one that the acceptor holds under the same ballot.
    pub(crate) register: Option<Arc<Register>>,
}

/// The chunks of this state. Clones the map, which is O(1); the rest is done as the chunks are taken.
pub(crate) fn chunks(slots: &KeyStates) -> Checkpoint {
    let is_promised = |(_, slot): &(Key, Arc<KeyState>)| slot.promised > Ballot::ZERO;
    let key_states = slots.frozen().filter(is_promised).map(|(key, slot)| {
        let size = key.len() + slot.register.size();
        let entry = KeyStateEntry {
            key,
            promised: slot.promised,
            accepted: slot.accepted,
            register: Arc::clone(&slot.register),
        };
        (size, entry)
    });
    let learned = slots.frozen().filter_map(|(key, slot)| {
        let ballot = slot.learned();
        let register = slot.shown()?;
        let register = (slot.accepted != ballot).then(|| Arc::clone(register));
        let size = key.len() + register.as_ref().map_or(32, |register| register.size());
        let entry = LearnedEntry {
            key,
            ballot,
            register,
        };
        Some((size, entry))
    });
    let chunks = grouped(key_states, Chunk::KeyStates).chain(grouped(learned, Chunk::Learned));
    Checkpoint::new(chunks, check_chunk)
}

/// Whether this chunk could be read.
fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    Ok(codec::decode::<Chunk>(chunk).map(drop)?)
}

fn grouped<T: Send + 'static>(
    entries: impl Iterator<Item = (usize, T)> + Send + 'static,
    chunk: fn(Vec<T>) -> Chunk,
) -> impl Iterator<Item = Vec<u8>> + Send + 'static {
    let mut entries = entries.fuse();
    std::iter::from_fn(move || {
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES
            && let Some((size, entry)) = entries.next()
        {
            bytes += size;
            group.push(entry);
        }
        (!group.is_empty()).then(|| codec::encode_vec(&chunk(group)))
    })
}
