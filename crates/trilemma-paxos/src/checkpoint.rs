//! Checkpoints: the acceptor's slots, then what was learned, in chunks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES;
use trilemma_core::{Checkpoint, Corrupt, Key, codec};

use super::acceptor::Acceptor;
use super::ballot::Ballot;
use super::learner::Learner;
use super::register::Register;

/// One chunk. Read from the node's own disk, where it passed a checksum.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Chunk {
    /// Slots of the acceptor. All come before what was learned.
    Slots(Vec<SlotEntry>),
    /// What was learned.
    Learned(Vec<LearnedEntry>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SlotEntry {
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
    let slots = acceptor.slots().clone();
    let for_learned = slots.clone();
    let slots = slots.into_iter().map(|(key, slot)| {
        let size = key.len() + slot.register.size();
        let entry = SlotEntry {
            key,
            promised: slot.promised,
            accepted: slot.accepted,
            register: slot.register,
        };
        (size, entry)
    });
    let learned = learner.map().clone().into_iter().map(move |(key, learned)| {
        let is_held = for_learned
            .get(&key)
            .is_some_and(|slot| slot.accepted == learned.ballot);
        let register = (!is_held).then_some(learned.register);
        let size = key.len() + register.as_ref().map_or(32, |register| register.size());
        let entry = LearnedEntry {
            key,
            ballot: learned.ballot,
            register,
        };
        (size, entry)
    });
    let chunks = grouped(slots, Chunk::Slots).chain(grouped(learned, Chunk::Learned));
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
