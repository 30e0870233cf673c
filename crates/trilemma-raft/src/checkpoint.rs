//! Checkpoints: what replaying every record so far would give; and what a node makes of stored chunks and records.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::{CHUNK_BYTES_MAX, STORED_CHUNK_BYTES_MAX};
use trilemma_core::codec::{bounded_bytes, bounded_vec};
use trilemma_core::table::{self, CHUNK_BYTES, TableLoader};
use trilemma_core::{Checkpoint, Corrupt, NodeId, codec};

use crate::hard_state::HardState;
use crate::log::{Entry, INDEX_MAX, Index, Log, Term};
use crate::message::{ENTRIES_MAX, LogEnd};
use crate::record::Record;
use crate::shared::Shared;
use crate::transfer::{self, Incoming};

/// One chunk of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Chunk {
    /// The first chunk.
    Head {
        term: Term,
        vote: Option<NodeId>,
        /// The entry before the first that the log holds.
        base: LogEnd,
    },
    /// A chunk of the table.
    Table(#[serde(deserialize_with = "bounded_bytes::<_, STORED_CHUNK_BYTES_MAX>")] Bytes),
    /// Entries that follow those of earlier chunks.
    Entries(#[serde(deserialize_with = "bounded_vec::<_, _, ENTRIES_MAX>")] Vec<Entry>),
    /// The last chunk.
    End,
    /// A part of a state that is being received, in order: not as it was sent, but to the same effect. Stands before the last
    /// chunk.
    Part(#[serde(deserialize_with = "bounded_bytes::<_, CHUNK_BYTES_MAX>")] Bytes),
}

/// The state as chunks, with what has come of a transfer under way.
pub(crate) fn chunks(shared: &Shared, incoming: Option<&Incoming>) -> Checkpoint {
    /// Entries of one chunk: at most a few MiB even with the largest commands in a row being split by bytes.
    const ENTRIES_PER_CHUNK: usize = 1024;
    let chunk_bytes = shared.config.chunk_bytes.clamp(1, CHUNK_BYTES);
    let mut kept = shared.log.for_checkpoint(shared.applied(), &shared.config);
    let head = Chunk::Head {
        term: shared.term(),
        vote: shared.hard.vote(),
        base: kept.base(),
    };
    let table = shared.table.chunks(chunk_bytes);
    let table = table.map(|chunk| Chunk::Table(chunk.into()));
    let entries = std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < ENTRIES_PER_CHUNK
            && bytes < chunk_bytes
            && let Some(entry) = kept.next()
        {
            bytes += entry.size();
            chunk.push(entry);
        }
        (!chunk.is_empty()).then_some(Chunk::Entries(chunk))
    });
    let parts = incoming
        .map(|incoming| incoming.chunks(chunk_bytes))
        .into_iter()
        .flatten();
    let parts = parts.map(|part| Chunk::Part(part.into()));
    let chunks = std::iter::once(head)
        .chain(table)
        .chain(entries)
        .chain(parts)
        .chain([Chunk::End]);
    Checkpoint::new(chunks.map(|chunk| codec::encode_vec(&chunk)), check_chunk)
}

/// Whether `restore` could read this chunk of a checkpoint.
fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    match codec::decode(chunk)? {
        Chunk::Table(bytes) | Chunk::Part(bytes) => table::check_chunk(&bytes),
        Chunk::Head { .. } | Chunk::Entries(_) | Chunk::End => Ok(()),
    }
}

/// What a node has read of its disk and not finished. Empty once it has started.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// The table of a checkpoint.
    table: Option<TableLoader>,
    /// What the parts of a snapshot so far have made.
    parts: Option<TableLoader>,
}

impl Loading {
    /// Whether all that was read is finished.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_none() && self.parts.is_none()
    }

    /// Takes the next chunk of a checkpoint.
    pub(crate) fn restore(&mut self, shared: &mut Shared, chunk: &[u8]) -> Result<(), Corrupt> {
        match codec::decode(chunk)? {
            Chunk::Head { term, vote, base } => {
                if base.index > INDEX_MAX {
                    let base = base.index;
                    return Err(Corrupt(format!(
                        "a log that begins at {base}, beyond {INDEX_MAX}"
                    )));
                }
                shared.hard = HardState::restored(term, vote);
                shared.log = Log::at(base);
                self.table = Some(TableLoader::new(shared.config.session_limits()));
            }
            Chunk::Table(bytes) => {
                let table = self.table.as_mut();
                let table = table.ok_or_else(|| Corrupt("a chunk before the head".into()))?;
                table.add(&bytes)?;
            }
            Chunk::Entries(entries) => extend(shared, entries)?,
            Chunk::Part(part) => self.add_part(shared, &part)?,
            Chunk::End => {
                let table = self.table.take();
                let table = table.ok_or_else(|| Corrupt("an end before the head".into()))?;
                let table = table.finish();
                shared.table = table.ok_or_else(|| Corrupt("no table in it".into()))?;
                shared.commit = shared.applied();
                let held = shared.log.base().index..=shared.log.last();
                if !held.contains(&shared.commit) {
                    let applied = shared.commit;
                    return Err(Corrupt(format!(
                        "applied up to {applied}, the log holds {held:?}"
                    )));
                }
                is_of_own_term(shared)?;
            }
        }
        Ok(())
    }

    fn add_part(&mut self, shared: &Shared, part: &[u8]) -> Result<(), Corrupt> {
        let limits = shared.config.session_limits();
        let parts = self.parts.get_or_insert_with(|| TableLoader::new(limits));
        parts.add(part)
    }

    /// Takes the next record.
    pub(crate) fn replay(&mut self, shared: &mut Shared, record: Record) -> Result<(), Corrupt> {
        if self.table.is_some() {
            return Err(Corrupt("a record after a checkpoint without its end".into()));
        }
        match record {
            Record::HardState { term, vote } => {
                if term < shared.term() {
                    return Err(Corrupt(format!("{term} follows {}", shared.term())));
                }
                shared.hard = HardState::restored(term, vote);
            }
            Record::Entries { first, entries } => replay_entries(shared, first, entries)?,
            Record::SnapshotPart(part) => self.add_part(shared, &part)?,
            Record::SnapshotEnd { at } => {
                let parts = self.parts.take();
                let parts = parts
                    .ok_or_else(|| Corrupt(format!("the end of a snapshot at {} without parts", at.index)))?;
                let table = transfer::finish(parts, at).map_err(Corrupt)?;
                if at.index <= shared.applied() {
                    return Err(Corrupt(format!(
                        "a snapshot at {} after {} was applied",
                        at.index,
                        shared.applied()
                    )));
                }
                shared.install(at, table);
                is_of_own_term(shared)?;
            }
        }
        Ok(())
    }
}

/// No entry is of a later term than its node: a node in an earlier one would lead a term that is over.
fn is_of_own_term(shared: &Shared) -> Result<(), Corrupt> {
    let (own, end) = (shared.hard.term(), shared.log.end().term);
    if own < end {
        return Err(Corrupt(format!("in {own}, with an entry of {end}")));
    }
    Ok(())
}

fn replay_entries(shared: &mut Shared, first: Index, entries: Vec<Entry>) -> Result<(), Corrupt> {
    if first > shared.log.last().next() || first <= shared.commit {
        let (last, commit) = (shared.log.last(), shared.commit);
        return Err(Corrupt(format!(
            "entries from {first}, the log ends at {last}, committed {commit}"
        )));
    }
    shared.log.truncate(first);
    extend(shared, entries)?;
    is_of_own_term(shared)
}

fn extend(shared: &mut Shared, entries: Vec<Entry>) -> Result<(), Corrupt> {
    if !shared.log.can_extend(&entries) {
        let end = shared.log.end();
        return Err(Corrupt(format!(
            "terms go back in the entries after {} of {}",
            end.index, end.term
        )));
    }
    shared.log.extend(entries);
    Ok(())
}
