//! Linearizable reads by read index (dissertation section 6.4), and reads that wait for a version.
//!
//! The leader numbers rounds of heartbeats. A read registers for the *next* round; when a majority has echoed that
//! round in this term, nobody else led when it was sent, so the commit index at registration covers every write that
//! was acknowledged before the read began. It is served when that index is applied. A new leader waits for its first
//! entry too: before, its commit index may lag behind what its predecessor acknowledged.

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::read::Query;
use trilemma_core::{Instant, ReadLevel};

use crate::log::Index;
use crate::pending::ReplyTo;

/// Reads that wait at one node: at most so many for a round, and as many for a version.
pub(crate) const READS_MAX: usize = 65_536;

/// A read that waits.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) reply_to: ReplyTo,
    pub(crate) query: Query,
    pub(crate) deadline: Instant,
}

/// The rounds of a leader and the reads that wait for them.
#[derive(Debug)]
pub(crate) struct Rounds {
    newest: u64,
    is_wanted: bool,
    /// Round that must be echoed, index that must be applied. Rounds only grow.
    registered: VecDeque<(u64, Index, Read)>,
    /// No read that waits is due before this.
    due: Instant,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            newest: 0,
            is_wanted: false,
            registered: VecDeque::new(),
            due: Instant::NEVER,
        }
    }
}

impl Rounds {
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Whether a read waits for a round that has not begun.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    pub(crate) fn start(&mut self) {
        assert!(self.is_wanted, "a round begins for reads that wait");
        self.newest += 1;
        self.is_wanted = false;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.registered.len() >= READS_MAX
    }

    /// Registers a read for the next round, and for the state at `index`.
    pub(crate) fn register(&mut self, index: Index, read: Read) {
        self.due = self.due.min(read.deadline);
        self.is_wanted = true;
        let round = self.newest + 1;
        self.registered.push_back((round, index, read));
    }

    /// Whether any read waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.registered.is_empty()
    }

    /// The reads whose round a majority has echoed and whose index is applied.
    pub(crate) fn release(&mut self, echoed: u64, applied: Index) -> Vec<Read> {
        let mut released = Vec::new();
        while let Some((round, index, _)) = self.registered.front()
            && *round <= echoed
            && *index <= applied
        {
            released.extend(self.registered.pop_front().map(|(_, _, read)| read));
        }
        released
    }

    /// Takes the reads that are overdue; returns who waits for them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        let mut overdue = Vec::new();
        if self.due > now {
            return overdue;
        }
        let mut due = Instant::NEVER;
        self.registered.retain(|(_, _, read)| {
            let keep = read.deadline > now;
            due = if keep { due.min(read.deadline) } else { due };
            if !keep {
                overdue.push(read.reply_to);
            }
            keep
        });
        self.due = due;
        overdue
    }

    /// Who waits.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = ReplyTo> + '_ {
        self.registered.iter().map(|(_, _, read)| read.reply_to)
    }

    pub(crate) fn check(&self) {
        assert!(
            self.registered.len() <= READS_MAX,
            "{} reads wait",
            self.registered.len()
        );
        let last = self.registered.back().map_or(0, |(round, ..)| *round);
        let begun = self.newest + u64::from(self.is_wanted);
        assert!(
            last <= begun,
            "a read waits for round {last}; {begun} is the last that will begin"
        );
        debug_assert!(
            self.registered.len() > 64 || self.registered.iter().is_sorted_by_key(|(round, ..)| *round),
            "rounds only grow"
        );
        debug_assert!(
            self.registered.len() > 64
                || self
                    .registered
                    .iter()
                    .all(|(_, _, read)| self.due <= read.deadline),
            "a read is due before the alarm"
        );
    }
}

/// Reads that wait for the state to reach a version, at any node.
#[derive(Debug)]
pub(crate) struct VersionReads {
    waiting: BTreeMap<Index, Vec<(Read, ReadLevel)>>,
    count: usize,
    /// No read that waits is due before this.
    due: Instant,
}

impl Default for VersionReads {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            count: 0,
            due: Instant::NEVER,
        }
    }
}

impl VersionReads {
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= READS_MAX
    }

    pub(crate) fn register(&mut self, index: Index, read: Read, level: ReadLevel) {
        self.count += 1;
        self.due = self.due.min(read.deadline);
        self.waiting.entry(index).or_default().push((read, level));
    }

    /// The reads whose version the state has reached.
    pub(crate) fn release(&mut self, applied: Index) -> Vec<(Read, ReadLevel)> {
        let mut released = Vec::new();
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= applied
        {
            released.append(&mut entry.remove());
        }
        self.count -= released.len();
        released
    }

    /// Takes the reads that are overdue; returns who waits for them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        let mut overdue = Vec::new();
        if self.due > now {
            return overdue;
        }
        let mut due = Instant::NEVER;
        for reads in self.waiting.values_mut() {
            reads.retain(|(read, _)| {
                let keep = read.deadline > now;
                due = if keep { due.min(read.deadline) } else { due };
                if !keep {
                    overdue.push(read.reply_to);
                }
                keep
            });
        }
        self.count -= overdue.len();
        self.waiting.retain(|_, reads| !reads.is_empty());
        self.due = due;
        overdue
    }

    /// Takes all reads that wait; returns who waits for them.
    pub(crate) fn take_all(&mut self) -> Vec<ReplyTo> {
        let waiting = std::mem::take(self).waiting;
        waiting
            .into_values()
            .flatten()
            .map(|(read, _)| read.reply_to)
            .collect()
    }

    pub(crate) fn check(&self, applied: Index) {
        assert!(self.count <= READS_MAX, "{} reads wait for a version", self.count);
        let first = self.waiting.first_key_value().map(|(index, _)| *index);
        assert!(
            first.is_none_or(|first| first > applied),
            "a read waits for {first:?}, applied is {applied}"
        );
        debug_assert_eq!(
            self.count,
            self.waiting.values().map(Vec::len).sum::<usize>(),
            "reads that wait"
        );
        let reads = || self.waiting.values().flatten();
        debug_assert!(
            self.count > 64 || reads().all(|(read, _)| self.due <= read.deadline),
            "a read is due before the alarm"
        );
    }
}
