//! The log in memory: entries behind a base, and which of them are durable.

mod entries;

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};
use trilemma_core::data::CommandRef;
use trilemma_core::{AppendSeq, LoggedCommand, OpId};

use crate::apply::Slice;
use crate::config::RaftConfig;
use crate::message::LogEnd;

use entries::Entries;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The one before this; 0 stays 0.
            #[must_use]
            pub const fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }
    };
}

number!(
    /// A term: at most one leader each (Raft section 5.1).
    Term, "term "
);
number!(
    /// A place in the log, from 1.
    Index, ""
);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// What it does.
    pub payload: Payload,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a new leader's first entry, whose commit commits everything before it.
    Noop,
    /// A client's write.
    Write {
        /// The operation.
        op: OpId,
        /// The change. It goes into the log, a record, and a message to each follower.
        command: LoggedCommand,
    },
    /// Resolves an operation: if it has not run, it never will.
    Fence {
        /// The operation.
        op: OpId,
    },
}

impl Entry {
    /// Keys that it names, at least one: what it takes to apply it.
    pub(crate) fn keys(&self) -> usize {
        match &self.payload {
            Payload::Write { command, .. } => {
                let CommandRef { guards, mutations } = command.parts();
                (guards.len() + mutations.len()).max(1)
            }
            Payload::Noop | Payload::Fence { .. } => 1,
        }
    }

    /// Size in bytes as limits count it.
    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 48;
        OVERHEAD
            + match &self.payload {
                Payload::Write { command, .. } => command.size(),
                Payload::Noop | Payload::Fence { .. } => 0,
            }
    }
}

/// Where a stored log may begin, so that an index never overflows: no log gets there.
pub(crate) const INDEX_MAX: Index = Index(u64::MAX / 2);

/// Whether the terms of `entries` only grow, from that of the entry before them.
pub(crate) fn is_growing(before: Term, entries: &[Entry]) -> bool {
    let terms = entries.iter().map(|entry| entry.term);
    std::iter::once(before).chain(terms).is_sorted()
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    base: LogEnd,
    entries: Entries,
    bytes: usize,
    /// The last entry that is in a record. A leader's newest ones wait for the end of the turn.
    handed: Index,
    /// Appends that are not durable: their number and their first index.
    pending: VecDeque<(AppendSeq, Index)>,
}

impl Log {
    pub(crate) fn at(base: LogEnd) -> Self {
        Self {
            base,
            handed: base.index,
            ..Self::default()
        }
    }

    /// The entry before the first one held.
    pub(crate) fn base(&self) -> LogEnd {
        self.base
    }

    pub(crate) fn end(&self) -> LogEnd {
        let index = Index(self.base.index.0 + self.entries.len() as u64);
        LogEnd {
            term: self.entries.back().map_or(self.base.term, |entry| entry.term),
            index,
        }
    }

    pub(crate) fn last(&self) -> Index {
        self.end().index
    }

    /// The last entry that is in a record: what a crash may leave, and what may be sent.
    pub(crate) fn handed(&self) -> Index {
        self.handed
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the entries that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn slot(&self, index: Index) -> Option<usize> {
        index
            .0
            .checked_sub(self.base.index.0 + 1)
            .map(|slot| slot as usize)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.slot(index)?)
    }

    /// The term of an entry; `None` if it is not held (any more).
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            Some(self.base.term)
        } else {
            self.get(index).map(|entry| entry.term)
        }
    }

    /// The first index of the run of entries that share the term of `index`, within what is held.
    pub(crate) fn first_of_term(&self, index: Index) -> Index {
        let Some(term) = self.term(index) else {
            return self.base.index.next();
        };
        let mut first = index;
        while first > self.base.index.next() && self.term(first.prev()) == Some(term) {
            first = first.prev();
        }
        first
    }

    /// Adds one entry at the end, which is in no record yet.
    pub(crate) fn push(&mut self, entry: Entry) -> Index {
        self.bytes += entry.size();
        self.entries.push_back(entry);
        self.last()
    }

    /// Adds entries at the end, which are in a record, or in a checkpoint.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.push(entry);
        }
        self.handed = self.last();
    }

    /// Whether `entries` can stand at the end: terms of a log only grow.
    pub(crate) fn can_extend(&self, entries: &[Entry]) -> bool {
        is_growing(self.end().term, entries)
    }

    /// Drops all entries from `first` on.
    pub(crate) fn truncate(&mut self, first: Index) {
        let keep = self
            .slot(first)
            .expect("what is applied is never truncated, and the base is applied");
        while self.entries.len() > keep {
            let dropped = self.entries.pop_back().expect("the length was checked");
            self.bytes -= dropped.size();
        }
        self.handed = self.handed.min(self.last());
        assert!(self.last() < first, "entry {first} is dropped");
    }

    /// Drops the entries that are in no record.
    pub(crate) fn drop_unhanded(&mut self) {
        self.truncate(self.handed.next());
    }

    /// The next entries for a record, and the index of the first; `None` if all are in one.
    pub(crate) fn next_to_hand(&self, config: &RaftConfig) -> Option<(Index, Vec<Entry>)> {
        let first = self.handed.next();
        let (last, _) = self.extent(first, config);
        let entries = self.slice(first, last);
        (!entries.is_empty()).then_some((first, entries))
    }

    /// How far the entries from `first` on go that one message or record may hold, and how many bytes they are: as many as
    /// there are, at most `append_entries_max` and, after the first, at most `append_bytes`. Without any, it ends before
    /// `first`.
    pub(crate) fn extent(&self, first: Index, config: &RaftConfig) -> (Index, usize) {
        let (mut last, mut bytes) = (first.prev(), 0);
        let Some(slot) = self.slot(first) else {
            return (last, bytes);
        };
        for entry in self.entries.iter_from(slot).take(config.append_entries_max) {
            let size = entry.size();
            if bytes > 0 && bytes + size > config.append_bytes {
                break;
            }
            bytes += size;
            last = last.next();
        }
        (last, bytes)
    }

    /// The entries from `first` to `last`, as far as they are held.
    pub(crate) fn slice(&self, first: Index, last: Index) -> Vec<Entry> {
        let Some(slot) = self.slot(first) else {
            return Vec::new();
        };
        let count = last.0.saturating_sub(first.prev().0) as usize;
        self.entries.iter_from(slot).take(count).cloned().collect()
    }

    /// Notes that the entries from `first` to `last` are in append `seq`.
    pub(crate) fn on_appended(&mut self, seq: AppendSeq, first: Index, last: Index) {
        let newest = self.pending.back().map(|(newest, _)| *newest);
        assert!(newest < Some(seq), "append {seq} comes after {newest:?}");
        assert!(
            first <= self.handed.next() && last <= self.last(),
            "a record of the entries from {first} to {last} leaves no gap after {}",
            self.handed
        );
        self.pending.push_back((seq, first));
        self.handed = last;
    }

    /// Notes which appends are durable.
    pub(crate) fn on_persisted(&mut self, up_to: AppendSeq) {
        while self.pending.front().is_some_and(|(seq, ..)| *seq <= up_to) {
            self.pending.pop_front();
        }
    }

    /// The last index such that it and everything before it is durable *as it stands now*: an entry that was
    /// overwritten is durable only when the append that wrote it last is.
    pub(crate) fn durable(&self) -> Index {
        let waiting = self.pending.iter().map(|(_, first)| first.prev()).min();
        waiting.unwrap_or(Index(u64::MAX)).min(self.handed)
    }

    /// Drops applied entries beyond what is kept: always up to two limits, and what stands after `needed` up to a third.
    /// No more in one turn than a slice: a follower that goes away leaves hundreds of thousands of entries behind, and to free
    /// them takes long.
    pub(crate) fn trim(&mut self, applied: Index, needed: Index, config: &RaftConfig) {
        let mut slice = Slice::to_free(config);
        while self.base.index < applied && slice.has_room() {
            let fits = self.entries.len() <= config.kept_entries && self.bytes <= config.kept_bytes;
            let is_pinned = self.base.index >= needed && self.bytes <= config.pinned_bytes_max;
            if fits || is_pinned {
                return;
            }
            let Some(dropped) = self.entries.pop_front() else {
                return;
            };
            slice.take(&dropped);
            self.bytes -= dropped.size();
            self.base = LogEnd {
                term: dropped.term,
                index: self.base.index.next(),
            };
            assert!(self.base.index <= applied, "only what is applied is trimmed");
        }
    }

    /// What a checkpoint holds of it: what is in records, without the applied entries that are kept for followers alone. However
    /// long it is, no entry is copied now.
    pub(crate) fn for_checkpoint(&self, applied: Index, config: &RaftConfig) -> Kept {
        // From the end: what is kept for a follower that is far behind may be ten times as long as what is kept for all.
        let (mut kept, mut bytes) = (0, 0);
        for entry in self.entries.iter_from(0).rev().take(config.kept_entries) {
            bytes += entry.size();
            if bytes > config.kept_bytes {
                break;
            }
            kept += 1;
        }
        let applied_here = self.slot(applied.next()).unwrap_or(0);
        let skipped = (self.entries.len() - kept).min(applied_here);
        let index = Index(self.base.index.0 + skipped as u64);
        let term = self.term(index).expect("it is the base, or held");
        assert!(index <= self.handed, "what is applied is in records");
        let mut entries = self.entries.clone();
        entries.skip(skipped);
        Kept {
            base: LogEnd { term, index },
            entries,
            count: (self.handed.0 - index.0) as usize,
        }
    }

    pub(crate) fn check(&self, appended: AppendSeq) {
        let (base, handed, last) = (self.base.index, self.handed, self.last());
        assert!(
            base <= handed && handed <= last,
            "the log begins after {base}, is in records up to {handed}, and ends at {last}"
        );
        assert!(
            self.pending.back().is_none_or(|(seq, _)| *seq <= appended),
            "entries wait for a record that was never appended"
        );
        let first = self.entries.front().map(|entry| entry.term);
        assert!(
            first.is_none_or(|first| self.base.term <= first),
            "{first:?} stands after {}",
            self.base.term
        );
        debug_assert!(
            self.pending.len() > 64 || self.pending.iter().is_sorted_by_key(|(seq, _)| *seq),
            "appends are in order"
        );
        // Beyond this, a check after every step would be most of what a test does.
        let is_short = self.entries.len() <= 64;
        debug_assert!(
            !is_short || self.bytes == self.entries.iter_from(0).map(Entry::size).sum::<usize>(),
            "the log counts {} bytes",
            self.bytes
        );
        debug_assert!(
            !is_short || self.entries.iter_from(0).map(|entry| entry.term).is_sorted(),
            "terms of the log only grow"
        );
    }
}

/// What a checkpoint holds of a log: the entries from a base on, one after the other.
#[derive(Debug)]
pub(crate) struct Kept {
    base: LogEnd,
    entries: Entries,
    /// How many of them are left.
    count: usize,
}

impl Kept {
    /// The entry before the first.
    pub(crate) fn base(&self) -> LogEnd {
        self.base
    }
}

impl Iterator for Kept {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.count = self.count.checked_sub(1)?;
        self.entries.pop_front()
    }
}
