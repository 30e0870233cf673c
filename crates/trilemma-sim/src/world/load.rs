//! Progress under load, where the scenario demands it: while no fault is going on and clients write, a write must succeed
//! within a bound, and what the others had when a node started, that node must have within another.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Key, NodeId, Version};

use super::{Event, MS, World};
use crate::engine::entries;
use crate::scenario::{Action, Demand, Protocol};

/// Time between two looks.
pub(super) const INTERVAL: u64 = 100 * MS;
/// Writes that must have been asked for before it counts that none succeeded.
const ASKED_MIN: u32 = 5;

/// States that a node may take over while nothing disturbs it: for each keyspace one that was under way, one that it
/// needs, and one because the leader has changed.
const TAKEN_OVER_MAX: u32 = 6;

/// What a node must come to have of one keyspace.
#[derive(Debug)]
enum Target {
    /// Where changes have the same positions everywhere: this position.
    Position(Version),
    /// Elsewhere: of each key at least this version.
    Keys(BTreeMap<Key, Version>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// A fault has last begun or ended then, or a node has started.
    quiet_since: u64,
    /// The class of the last fault.
    after: Option<&'static str>,
    /// Keyspaces of which a write has succeeded since.
    wrote_after: BTreeSet<usize>,
    /// The class of the fault that ended a node's last incarnation.
    died_by: BTreeMap<NodeId, &'static str>,
    /// By keyspace, when a write last succeeded, and how many were asked for since.
    wrote: BTreeMap<usize, u64>,
    asked: BTreeMap<usize, u32>,
    targets: BTreeMap<(NodeId, usize), Target>,
    /// States that each node has taken over since then.
    taken_over: BTreeMap<NodeId, u32>,
}

impl Load {
    /// When a fault last began or ended, or a node started.
    pub(super) fn quiet_since(&self) -> u64 {
        self.quiet_since
    }

    pub(super) fn asked(&mut self, slot: usize) {
        *self.asked.entry(slot).or_default() += 1;
    }

    pub(super) fn wrote(&mut self, slot: usize, now: u64) {
        self.wrote.insert(slot, now);
        self.asked.remove(&slot);
    }
}

impl World<'_> {
    pub(super) fn load_disturbed(&mut self) {
        self.load.quiet_since = self.now;
        self.load.asked.clear();
        self.load.taken_over.clear();
    }

    /// A fault of this class begins.
    pub(super) fn load_disturbed_by(&mut self, class: &'static str, action: &Action) {
        self.load_disturbed();
        self.load.after = Some(class);
        self.load.wrote_after.clear();
        if let (Action::Crash { node, .. } | Action::Kill { node, .. }, true) =
            (action, self.scenario.demand.is_some())
        {
            self.load.died_by.insert(*node, class);
        }
    }

    pub(super) fn load_stopped(&mut self, id: NodeId) {
        self.load.targets.retain(|(node, _), _| *node != id);
    }

    /// A node has taken over a state. One is enough to follow the log from there on, if the log is kept for it meanwhile.
    pub(super) fn load_taken_over(&mut self, id: NodeId) {
        if self.scenario.demand.is_none() || self.healed {
            return;
        }
        let count = self.load.taken_over.entry(id).or_default();
        *count += 1;
        if *count > TAKEN_OVER_MAX {
            let what = format!("node {id} takes over state after state, and never follows the log");
            self.fail("load", what);
        }
    }

    /// A node has started: what the others have now, it must come to have.
    pub(super) fn load_started(&mut self, id: NodeId) {
        self.load_disturbed();
        self.untouched.touch(id, self.now);
        if self.scenario.demand.is_none() {
            return;
        }
        for slot in 0..self.parts.len() {
            let target = self.target(id, slot);
            self.load.targets.insert((id, slot), target);
        }
    }

    fn target(&self, id: NodeId, slot: usize) -> Target {
        let others = self.nodes.iter().filter(|node| node.id != id);
        let running = others.filter_map(|node| Some((node, node.process.as_ref()?)));
        if matches!(self.parts[slot], Protocol::Raft | Protocol::TwoPhase) {
            let version = |(node, process): (&super::Node, &crate::node::Process)| {
                process.engine(slot).status(node.clock.now(self.now)).version
            };
            return Target::Position(running.map(version).max().unwrap_or_default());
        }
        let mut keys = BTreeMap::<Key, Version>::new();
        for entry in running.flat_map(|(_, process)| entries(process.engine(slot))) {
            let newest = keys.entry(entry.key).or_default();
            *newest = (*newest).max(entry.state.modified);
        }
        Target::Keys(keys)
    }

    /// What a node lacks of its target.
    fn lacks(&self, id: NodeId, slot: usize, target: &Target) -> Option<String> {
        let node = &self.nodes[id.0 as usize - 1];
        let engine = node.process.as_ref()?.engine(slot);
        match target {
            Target::Position(wanted) => {
                let found = engine.status(node.clock.now(self.now)).version;
                (found < *wanted).then(|| format!("it is at {found:?}, they were at {wanted:?}"))
            }
            Target::Keys(wanted) => {
                let shown = |node: &super::Node| -> Option<BTreeMap<Key, Version>> {
                    let entries = entries(node.process.as_ref()?.engine(slot)).into_iter();
                    Some(entries.map(|entry| (entry.key, entry.state.modified)).collect())
                };
                let found = shown(node)?;
                let others: Vec<_> = self
                    .nodes
                    .iter()
                    .filter(|other| other.id != id)
                    .filter_map(shown)
                    .collect();
                wanted.iter().find_map(|(key, wanted)| match found.get(key) {
                    Some(found) => (found < wanted).then(|| {
                        format!("it has {key} as of {found:?}, one of them had it as of {wanted:?}")
                    }),
                    // What another does not show either is deleted.
                    None => others
                        .iter()
                        .all(|other| other.contains_key(key))
                        .then(|| format!("it lacks {key}, which one of them had as of {wanted:?}")),
                })
            }
        }
    }

    pub(super) fn look_at_load(&mut self) {
        let Some(demand) = self.scenario.demand else {
            return;
        };
        if self.healed {
            return;
        }
        self.schedule(INTERVAL, Event::Load);
        self.look_at_untouched(demand);
        let now = self.now;
        let disturbed = |node: &super::Node| node.process.is_none() || node.paused_until > now;
        if !self.active.is_empty() || self.nodes.iter().any(disturbed) {
            return self.load_disturbed();
        }
        self.writes_succeed(demand);
        self.nodes_catch_up(demand);
    }

    fn writes_succeed(&mut self, demand: Demand) {
        if self.asked >= u64::from(self.scenario.workload.operations) {
            return;
        }
        for slot in 0..self.parts.len() {
            let wrote = self.load.wrote.get(&slot).copied().unwrap_or_default();
            if wrote > self.load.quiet_since
                && let Some(class) = self.load.after
                && self.load.wrote_after.insert(slot)
            {
                self.coverage.event("write-after", class);
            }
            let since = wrote.max(self.load.quiet_since);
            let asked = self.load.asked.get(&slot).copied().unwrap_or_default();
            if self.now - since > demand.write && asked >= ASKED_MIN {
                let statuses: Vec<_> = self
                    .nodes
                    .iter()
                    .filter_map(|node| {
                        Some(
                            node.process
                                .as_ref()?
                                .engine(slot)
                                .status(node.clock.now(self.now)),
                        )
                    })
                    .collect();
                let what = format!(
                    "no fault is going on, and of {asked} writes of {} none has succeeded for {} ms: {statuses:?}",
                    self.parts[slot],
                    (self.now - since) / MS,
                );
                return self.fail("progress", what);
            }
        }
    }

    fn nodes_catch_up(&mut self, demand: Demand) {
        let targets = std::mem::take(&mut self.load.targets);
        for ((id, slot), target) in targets {
            match self.lacks(id, slot, &target) {
                None => {
                    if let Some(class) = self.load.died_by.get(&id) {
                        self.coverage.event("caught-up-after", class);
                    }
                }
                Some(lacks) if self.now - self.load.quiet_since > demand.catch_up => {
                    let what = format!(
                        "{} ms after its start and without a fault, node {id} has not caught up with what the others had of {} then: {lacks}",
                        (self.now - self.load.quiet_since) / MS,
                        self.parts[slot],
                    );
                    return self.fail("catch-up", what);
                }
                Some(_) => {
                    self.load.targets.insert((id, slot), target);
                }
            }
        }
    }
}
