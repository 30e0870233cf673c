//! A transfer as the follower sees it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trilemma_core::session::SessionLimits;
use trilemma_core::table::{Table, TableLoader};
use trilemma_core::{AppendSeq, Corrupt, NodeId};

use crate::Out;
use crate::log::Term;
use crate::message::LogEnd;
use crate::record::Record;

/// Most parts of a snapshot that a follower accepts, and most bytes. A state beyond it does not fit this backend.
const PARTS_MAX: u32 = 1 << 20;
const BYTES_MAX: u64 = 16 << 30;
/// Parts that a follower keeps although one before them is missing.
const PARTS_AHEAD: u32 = 64;
/// Bytes of parts that wait for a follower's disk, beyond which it asks for more only when they are durable. A sync of a
/// few MiB costs little more than one of nothing, and the log has room for many keyspaces' worth of it.
const PARTS_UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Incoming {
    from: NodeId,
    term: Term,
    at: LogEnd,
    /// What the parts so far have made.
    table: TableLoader,
    /// How many parts these are.
    next: u32,
    /// Parts after one that is missing.
    ahead: BTreeMap<u32, Bytes>,
    /// The number of the last part, once it is known.
    last: Option<u32>,
    bytes: u64,
    /// Appends of parts that are not known to be durable, and their bytes.
    unwritten: VecDeque<(AppendSeq, usize)>,
}

impl Incoming {
    pub(crate) fn new(from: NodeId, term: Term, at: LogEnd, limits: SessionLimits) -> Self {
        Self {
            from,
            term,
            at,
            table: TableLoader::new(limits),
            next: 0,
            ahead: BTreeMap::new(),
            last: None,
            bytes: 0,
            unwritten: VecDeque::new(),
        }
    }

    /// Whether this is the transfer that a part belongs to.
    pub(crate) fn is_of(&self, from: NodeId, term: Term, at: LogEnd) -> bool {
        (self.from, self.term, self.at) == (from, term, at)
    }

    /// The number of the part that is needed next.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// What the parts so far have made, as chunks that make the same: for a checkpoint that is taken before the last part
    /// has come.
    pub(crate) fn chunks(&self, chunk_bytes: usize) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        self.table.chunks(chunk_bytes)
    }

    /// Keeps a part, in whatever order they come, until those before it are there.
    pub(crate) fn keep(&mut self, part: u32, last: bool, chunk: Bytes) {
        let fits = part < PARTS_MAX && self.bytes + chunk.len() as u64 <= BYTES_MAX;
        let near = part >= self.next() && part - self.next() < PARTS_AHEAD;
        if !fits || !near || self.ahead.contains_key(&part) {
            return;
        }
        if last {
            self.last = Some(part);
        }
        self.bytes += chunk.len() as u64;
        self.ahead.insert(part, chunk);
    }

    /// Reads the parts whose turn has come, and appends those that can be read.
    pub(crate) fn read(&mut self, effects: &mut Out) -> Result<(), Corrupt> {
        while let Some(chunk) = self.ahead.remove(&self.next()) {
            self.table.add(&chunk)?;
            self.next += 1;
            let bytes = chunk.len();
            let seq = effects.append_lazy(Record::SnapshotPart(chunk));
            self.unwritten.push_back((seq, bytes));
        }
        Ok(())
    }

    /// Whether all parts are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| self.next() > last)
    }

    /// Whether the disk is so far behind that further parts had better wait.
    pub(crate) fn is_ahead_of_disk(&mut self, persisted: AppendSeq) -> bool {
        while self
            .unwritten
            .pop_front_if(|(seq, _)| *seq <= persisted)
            .is_some()
        {}
        let bytes: usize = self.unwritten.iter().map(|(_, bytes)| bytes).sum();
        bytes > PARTS_UNWRITTEN_BYTES_MAX
    }

    /// The state that the parts have made.
    pub(crate) fn finish(self) -> Result<Table, String> {
        super::finish(self.table, self.at)
    }

    pub(crate) fn check(&self, term: Term) {
        let next = self.next();
        assert!(
            self.at.term <= self.term && self.term <= term,
            "a state of {} from a leader of {}, in {term}",
            self.at.term,
            self.term
        );
        let furthest = self.ahead.last_key_value().map(|(part, _)| *part);
        assert!(
            furthest.is_none_or(|part| part >= next),
            "part {furthest:?} was read before, next is {next}"
        );
        assert!(!self.is_whole(), "a transfer that is whole has become the state");
        assert!(
            !self.ahead.contains_key(&next),
            "part {next} is there and has not been read"
        );
        assert!(
            self.ahead.len() <= PARTS_AHEAD as usize,
            "{} parts are ahead",
            self.ahead.len()
        );
    }
}
