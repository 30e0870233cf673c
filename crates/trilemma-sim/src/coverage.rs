//! Which faults met which phases of a protocol: the proof that they happened while it mattered.
//!
//! A phase is what a node was doing within [`PHASE_LENGTH`] before the fault: the kinds of messages that it sent or
//! handled, whether it had just started, was syncing, or was making a snapshot. A fault on a message meets the phase of
//! that message alone.

use std::collections::BTreeMap;

/// How long something that a node did counts as what it is doing, in nanoseconds.
pub const PHASE_LENGTH: u64 = 20_000_000;

/// Counts of fault classes by phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    cells: BTreeMap<(&'static str, &'static str), u64>,
}

impl Coverage {
    /// Counts one fault in one phase.
    pub fn hit(&mut self, class: &'static str, phase: &'static str) {
        *self.cells.entry((class, phase)).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Coverage) {
        for (cell, count) in &other.cells {
            *self.cells.entry(*cell).or_default() += count;
        }
    }

    /// How often a class met a phase.
    #[must_use]
    pub fn count(&self, class: &str, phase: &str) -> u64 {
        let found = self.cells.iter().find(|((c, p), _)| *c == class && *p == phase);
        found.map_or(0, |(_, count)| *count)
    }

    /// All cells that were hit, by class and phase.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.cells.iter().map(|((class, phase), count)| (*class, *phase, *count))
    }
}
