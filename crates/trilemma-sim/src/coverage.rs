//! Which faults met which phases of a protocol: the proof that they happened while it mattered.
//!
//! A phase is what a node was doing within [`PHASE_LENGTH`] before the fault: the kinds of messages that it sent or
//! handled, whether it had just started, was syncing, or was making a snapshot. A fault on a message meets the phase of
//! that message alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::scenario::Protocol;
use crate::swarm::kinds;

/// Things that happen to or between nodes and are no fault, counted beside the matrix: a node took over the state of
/// another; it died while parts of a state went to or from it; it refused a write because too much waited; power failed
/// while it started; it has another setting; a write was demanded and came; a node that had started
/// was demanded to catch up and did.
const MARKS: &[&str] = &[
    "state-installed",
    "death-in-transfer",
    "write-refused-overloaded",
    "start-torn",
    "setting-changed",
    "write-under-load",
    "caught-up-under-load",
];
/// The class under which marks are saved.
const MARK: &str = "mark";

/// How long something that a node did counts as what it is doing, in nanoseconds.
pub const PHASE_LENGTH: u64 = 20_000_000;

/// Faults of one node or of its links.
const NODE_CLASSES: &[&str] = &[
    "crash",
    "kill",
    "tear",
    "rot",
    "wipe",
    "pause",
    "slow-disk",
    "full-disk",
    "fail-sync",
    "fail-write",
    "jump",
    "snapshot",
    "cut",
    "split",
    "drop",
    "triggered",
];
/// Faults of one message.
const MESSAGE_CLASSES: &[&str] = &["loss", "duplication", "delay", "cut-message", "drop-message"];
/// What a node does beside sending and handling messages.
const NODE_PHASES: &[&str] = &["starting", "syncing", "snapshotting", "idle"];

/// Messages that carry parts of a state.
const TRANSFERS: &[&str] = &[
    "snapshot",
    "snapshot-reply",
    "install",
    "fetch",
    "piece",
    "page",
    "values",
];

/// Whether a fault of this class in this phase ends a node in the middle of a transfer.
#[must_use]
pub fn is_death_in_transfer(class: &str, phase: &str) -> bool {
    matches!(class, "crash" | "kill" | "wipe" | "rot") && TRANSFERS.contains(&phase)
}

/// Cells that cannot be hit, with the reason.
fn infeasible(protocol: Protocol, class: &str, phase: &str) -> Option<&'static str> {
    match (protocol, class, phase) {
        (Protocol::Gossip, "wipe", _) => None,
        (_, "wipe", _) => {
            Some("a node that lost its disk must not come back under its old name where votes count")
        }
        _ => None,
    }
}

/// The cells of a protocol's matrix: fault class and phase. `mixed` is covered by its parts.
#[must_use]
pub fn cells(protocol: Protocol) -> Vec<(&'static str, &'static str)> {
    if protocol == Protocol::Mixed {
        return Vec::new();
    }
    let phases = || kinds(protocol).iter().copied();
    let of_nodes = NODE_CLASSES.iter().flat_map(|class| {
        let phases = phases().chain(NODE_PHASES.iter().copied());
        phases.map(move |phase| (*class, phase))
    });
    let of_messages = MESSAGE_CLASSES
        .iter()
        .flat_map(|class| phases().map(move |phase| (*class, phase)));
    of_nodes
        .chain(of_messages)
        .filter(|(class, phase)| infeasible(protocol, class, phase).is_none())
        .collect()
}

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

    /// Counts something that is no fault.
    pub fn mark(&mut self, name: &'static str) {
        self.hit(MARK, name);
    }

    /// The counts of [`Coverage::mark`], by name.
    pub fn marks(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        MARKS.iter().map(|name| (*name, self.count(MARK, name)))
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

    /// The feasible cells of a protocol that were never hit.
    #[must_use]
    pub fn empty(&self, protocol: Protocol) -> Vec<(&'static str, &'static str)> {
        let mut cells = cells(protocol);
        cells.retain(|(class, phase)| self.count(class, phase) == 0);
        cells
    }

    /// The matrix of a protocol as text: a row for each class, a column for each phase; `-` is infeasible.
    #[must_use]
    pub fn matrix(&self, protocol: Protocol) -> String {
        let cells = cells(protocol);
        let mut phases: Vec<&str> = Vec::new();
        let mut classes: Vec<&str> = Vec::new();
        for (class, phase) in &cells {
            if !phases.contains(phase) {
                phases.push(phase);
            }
            if !classes.contains(class) {
                classes.push(class);
            }
        }
        let mut text = format!("{:<14}", protocol.name());
        for phase in &phases {
            let _ = write!(text, " {phase:>14}");
        }
        for class in &classes {
            let _ = write!(text, "\n{class:<14}");
            for phase in &phases {
                let count = if cells.contains(&(class, phase)) {
                    self.count(class, phase).to_string()
                } else {
                    "-".to_owned()
                };
                let _ = write!(text, " {count:>14}");
            }
        }
        text
    }

    /// Adds counts that an earlier campaign has saved: the names are those of the protocol's cells.
    pub fn add(&mut self, protocol: Protocol, class: &str, phase: &str, count: u64) {
        let known = cells(protocol)
            .into_iter()
            .chain(MARKS.iter().map(|name| (MARK, *name)))
            .find(|(c, p)| *c == class && *p == phase);
        if let Some(cell) = known {
            *self.cells.entry(cell).or_default() += count;
        }
    }

    /// All cells that were hit, by class and phase.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.cells
            .iter()
            .map(|((class, phase), count)| (*class, *phase, *count))
    }
}
