//! What a node knows to be decided.

use std::collections::VecDeque;

use trilemma_core::Version;
use trilemma_core::session::SessionLimits;
use trilemma_core::table::Table;

use crate::ids::BatchId;

/// The decided state and how it came about.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The state after the last decided batch.
    pub(crate) table: Table,
    /// The last decided batch.
    pub(crate) decided: BatchId,
    /// The last decided batch that is finished.
    pub(crate) floor: BatchId,
    /// Decided batches after `floor`, ascending.
    pub(crate) recent: VecDeque<BatchId>,
    /// The watermark: every batch below is finished.
    pub(crate) finished: BatchId,
    /// Whether this node holds the keyspace's state (of a new keyspace: the empty one), and so knows what it voted.
    pub(crate) is_joined: bool,
    /// Of batches up to here that it did not learn to be decided, this node has no information (its data was lost).
    pub(crate) unknown_through: BatchId,
}

impl Ledger {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            table: Table::new(limits),
            decided: BatchId::ORIGIN,
            floor: BatchId::ORIGIN,
            recent: VecDeque::new(),
            finished: BatchId::ORIGIN,
            is_joined: false,
            unknown_through: BatchId::ORIGIN,
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.table.version()
    }

    /// Notes that `id`, which follows the decided batches, is committed and applied.
    pub(crate) fn advance(&mut self, id: BatchId) {
        assert!(id > self.decided, "batch {id} is decided after {}", self.decided);
        self.decided = id;
        self.recent.push_back(id);
        self.check();
    }

    /// The ledger's invariants: the remembered decisions lead, in order, from the floor to the last one.
    pub(crate) fn check(&self) {
        let last = self.recent.back().copied().unwrap_or(self.floor);
        assert_eq!(last, self.decided, "the last decision is the last remembered one");
        assert!(
            self.recent.front().is_none_or(|first| *first > self.floor),
            "what is remembered was decided after the floor {}",
            self.floor
        );
        assert!(self.floor <= self.decided, "the floor {} is decided", self.floor);
        debug_assert!(
            self.recent.iter().is_sorted_by(|a, b| a < b),
            "decisions are remembered in order"
        );
    }

    /// Moves the watermark on. Returns whether it moved.
    pub(crate) fn finish(&mut self, below: BatchId) -> bool {
        if below <= self.finished {
            return false;
        }
        self.finished = below;
        while let Some(front) = self.recent.front()
            && *front < below
        {
            self.floor = *front;
            self.recent.pop_front();
        }
        self.check();
        true
    }

    /// Whether `id` is known to be committed, as far as that is remembered.
    pub(crate) fn is_committed(&self, id: BatchId) -> bool {
        id == self.decided || id == self.floor || self.recent.binary_search(&id).is_ok()
    }

    /// Takes over a transferred state. Returns the one before, which may take long to free.
    pub(crate) fn install(&mut self, table: Table, decided: BatchId, unknown_through: BatchId) -> Table {
        let before = std::mem::replace(&mut self.table, table);
        self.decided = decided;
        self.floor = decided;
        self.recent.clear();
        self.is_joined = true;
        self.unknown_through = self.unknown_through.max(unknown_through);
        self.check();
        before
    }
}

#[cfg(test)]
mod tests;
