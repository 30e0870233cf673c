//! Which faults met which phases of a protocol: the proof that they happened while it mattered.
//!
//! A phase is what a node was doing within [`PHASE_LENGTH`] before the fault: the kinds of messages that it sent or
//! handled, whether it had just started, was syncing, or was making a snapshot. A fault on a message meets the phase of
//! that message alone.
//!
//! Each [`Profile`] but `standard` has events of its own, which it exists for, and what they must have met: [`events`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::profile::Profile;
use crate::scenario::Protocol;
use crate::swarm::kinds;

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

/// Whether messages of this kind carry parts of a state, or ask for them.
#[must_use]
pub fn is_transfer(kind: &str) -> bool {
    TRANSFERS.contains(&kind)
}

/// Cells that cannot be hit, with the reason.
fn infeasible(protocol: Protocol, class: &str, phase: &str) -> Option<&'static str> {
    match (protocol, class, phase) {
        (Protocol::Gossip | Protocol::TwoPhase, "wipe", _) => None,
        (_, "wipe", _) => {
            Some("a node that has lost its disk is not counted: profile restart loses those of a minority")
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

/// The events of a profile and what they meet: a row for each first name. See [`Coverage::event`].
const EVENTS: &[(Profile, &str, &[&str])] = &[
    // Parts of a state are on their way when a fault strikes at one of their ends; all of them have come.
    (
        Profile::Large,
        "transfer",
        &["crash", "kill", "pause", "cut", "split", "slow-disk", "done"],
    ),
    // A write is refused because too much waits.
    (Profile::Large, "write", &["overloaded"]),
    // A write that was demanded succeeds after a fault has ended.
    (
        Profile::Load,
        "write-after",
        &["crash", "kill", "pause", "slow-disk", "split"],
    ),
    // A node has started again after that, and has come to have what the others had.
    (Profile::Load, "caught-up-after", &["crash", "kill"]),
    // A majority that no fault touches takes writes while one lasts elsewhere.
    (Profile::Load, "write-during", &["fault"]),
    // A start finds: nothing, a log, a snapshot; power fails in it, or in it and in the one before; it has new settings.
    (
        Profile::Restart,
        "start",
        &["empty", "log", "snapshot", "torn", "torn-again", "settings"],
    ),
    // A clean stop of a node that hands over, or has nothing to hand over.
    (Profile::Restart, "stop", &["handed-over", "at-once"]),
    // A founded cluster loses a disk.
    (Profile::Restart, "disk", &["lost"]),
    // Faults of more than ten seconds, jumps of more than an hour.
    (
        Profile::Long,
        "lasting",
        &["crash", "kill", "cut", "split", "slow-disk", "full-disk"],
    ),
    (Profile::Long, "jump", &["hours"]),
    (Profile::Long, "wipe", &["idle"]),
    // A watch goes on where it was: at the node it had left, at another, at another because its node died.
    (
        Profile::Watch,
        "resume",
        &["same-node", "other-node", "after-death"],
    ),
    // A watcher that resumes gets changes, or the state instead; its node dies meanwhile.
    (Profile::Watch, "resumed", &["changes", "reset"]),
    (Profile::Watch, "crash", &["resume"]),
    (Profile::Watch, "kill", &["resume"]),
    // A reader leaves without a word, and in the middle of a reset; it does not read for long, or nothing gets to it.
    (
        Profile::Watch,
        "reader",
        &["left", "left-in-reset", "slow", "full-link"],
    ),
    // A watch begins with the state, the state of a place or a later one, what follows, what follows a token.
    (Profile::Watch, "begins", &["state", "state-from", "now", "token"]),
    // A connection is lost with a write under way, or with a watch; after a silence.
    (Profile::Client, "lost", &["write", "watch", "silence"]),
    // The node has forgotten the session of a repeat; of a first attempt, which goes again in a new one.
    (Profile::Client, "evicted", &["repeat", "first"]),
    // An operation is put to a second node; its caller leaves it.
    (Profile::Client, "operation", &["other-node", "dropped"]),
    // A watch goes on at another node.
    (Profile::Client, "resume", &["other-node"]),
];

/// Events that a protocol does not have, with the reason.
fn without(protocol: Protocol, event: &str, met: &str) -> Option<&'static str> {
    match (protocol, event, met) {
        (Protocol::Paxos | Protocol::Gossip, "transfer", "done") => {
            Some("values are taken over one by one, there is no moment at which a state is installed")
        }
        (Protocol::Gossip, "wipe", _) => None,
        (_, "wipe", _) => {
            Some("what a lost disk does is seen in minutes of gossip, and elsewhere in profile restart")
        }
        (Protocol::Gossip | Protocol::TwoPhase, "write-during", _) => Some("it counts no majorities"),
        (Protocol::Gossip | Protocol::Paxos | Protocol::TwoPhase, "stop", "handed-over") => {
            Some("raft alone has something to hand over")
        }
        (Protocol::Mixed, "disk", _) => Some("no disk is lost there"),
        (Protocol::Gossip, "operation", "other-node") => Some(
            "one node alone knows an operation of gossip, so no other is asked once it may have run there",
        ),
        _ => None,
    }
}

/// What a profile is there for: its events, each with what it must have met.
#[must_use]
pub fn events(profile: Profile, protocol: Protocol) -> Vec<(&'static str, &'static str)> {
    EVENTS
        .iter()
        .filter(|(of, _, _)| *of == profile)
        .flat_map(|(_, event, met)| met.iter().map(|met| (*event, *met)))
        .filter(|(event, met)| without(protocol, event, met).is_none())
        .collect()
}

/// What a campaign of a profile must hit: of `standard` each class of faults in each phase, of others their events.
#[must_use]
pub fn required(profile: Profile, protocol: Protocol) -> Vec<(&'static str, &'static str)> {
    if profile == Profile::Standard {
        cells(protocol)
    } else {
        events(profile, protocol)
    }
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

    /// Counts an event of a profile, see [`events`], with what it met.
    pub fn event(&mut self, event: &'static str, met: &'static str) {
        self.hit(event, met);
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

    /// What a campaign of this profile must hit and did not.
    #[must_use]
    pub fn empty(&self, profile: Profile, protocol: Protocol) -> Vec<(&'static str, &'static str)> {
        let mut required = required(profile, protocol);
        required.retain(|(class, phase)| self.count(class, phase) == 0);
        required
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
            .chain(
                Profile::ALL
                    .into_iter()
                    .flat_map(|profile| events(profile, protocol)),
            )
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
