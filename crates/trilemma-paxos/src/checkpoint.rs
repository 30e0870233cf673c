//! Checkpoints: the acceptor's states, then what was learned, in chunks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES;
use trilemma_core::view::Frozen;
use trilemma_core::{Checkpoint, Corrupt, Key, codec};

use super::acceptor::Acceptor;
use super::ballot::Ballot;
use super::learner::Learner;
use super::register::Register;

/// One chunk. Read from the node's own disk, where it passed a checksum.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Chunk {
    /// Slots of the acceptor. All come before what was learned.
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

/// The chunks of this state. Clones the maps, which is O(1); the rest is done as the chunks are taken.
pub(crate) fn chunks(acceptor: &Acceptor, learner: &Learner) -> Checkpoint {
    let for_learned = acceptor.key_states().clone();
    let key_states = Frozen::new(acceptor.key_states()).map(|(key, key_state)| {
        let size = key.len() + key_state.register.size();
        let entry = KeyStateEntry {
            key,
            promised: key_state.promised,
            accepted: key_state.accepted,
            register: key_state.register,
        };
        (size, entry)
    });
    let learned = Frozen::new(learner.map()).map(move |(key, learned)| {
        let is_held = for_learned
            .get(&key)
            .is_some_and(|key_state| key_state.accepted == learned.ballot);
        let register = (!is_held).then_some(learned.register);
        let size = key.len() + register.as_ref().map_or(32, |register| register.size());
        let entry = LearnedEntry {
            key,
            ballot: learned.ballot,
            register,
        };
        (size, entry)
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
