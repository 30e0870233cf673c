//! What must go on while faults touch some nodes only, where the scenario demands progress: nodes that no fault touches
//! see each other as connected, and where they are a majority, they rule on writes.

use std::collections::BTreeMap;

use trilemma_core::NodeId;

use super::{MS, World};
use crate::scenario::{Action, Demand};

/// Time after which two nodes that no fault touches are connected: ten pings, and as much again for their ways.
const CONNECTED: u64 = 1000 * MS;
/// Writes that must have been asked for before it counts that none was ruled on.
const ASKED_MIN: u32 = 5;
/// A network that loses more than this, per mille, touches everybody.
const LOSS_MAX: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Untouched {
    /// Since when no fault has touched a node that runs.
    since: BTreeMap<NodeId, u64>,
    /// By keyspace, when a majority last ruled on a write, and how many were asked of each node since.
    wrote: BTreeMap<usize, u64>,
    asked: BTreeMap<(usize, NodeId), u32>,
}

impl Untouched {
    pub(super) fn asked(&mut self, slot: usize, id: NodeId) {
        *self.asked.entry((slot, id)).or_default() += 1;
    }

    pub(super) fn wrote(&mut self, slot: usize, now: u64) {
        self.wrote.insert(slot, now);
        self.asked.retain(|(of, _), _| *of != slot);
    }

    pub(super) fn touch(&mut self, id: NodeId, now: u64) {
        self.since.insert(id, now);
    }

    /// The nodes that no fault has touched for this long.
    fn for_long(&self, time: u64, now: u64) -> Vec<NodeId> {
        let long = self.since.iter().filter(|(_, since)| now - **since > time);
        long.map(|(id, _)| *id).collect()
    }
}

impl World<'_> {
    /// A fault has begun or ended.
    pub(super) fn touched_by(&mut self, action: &Action) {
        let now = self.now;
        let everywhere = matches!(action, Action::Noise { .. });
        let all = self.nodes.iter().map(|node| node.id);
        let touched = if everywhere {
            all.collect()
        } else {
            self.concerned(action)
        };
        for id in touched {
            self.untouched.touch(id, now);
        }
    }

    /// Looks at the nodes that no fault touches.
    pub(super) fn look_at_untouched(&mut self, demand: Demand) {
        let now = self.now;
        if self.scenario.network.loss > LOSS_MAX {
            return;
        }
        for index in self.active.clone() {
            self.touched_by(&self.scenario.faults[index].action);
        }
        for node in &self.nodes {
            if node.process.is_none() || node.paused_until > now {
                self.untouched.touch(node.id, now);
            }
        }
        self.pairs_connect();
        self.majorities_write(demand);
    }

    fn pairs_connect(&mut self) {
        let untouched = self.untouched.for_long(CONNECTED, self.now);
        for from in &untouched {
            let process = self.nodes[from.0 as usize - 1].process.as_ref();
            let view = process.map(|process| process.node.view());
            let missing = |to: &&NodeId| *to != from && view.is_some_and(|view| !view.is_connected(**to));
            if let Some(to) = untouched.iter().find(missing) {
                let what =
                    format!("no fault touches nodes {from} and {to}, and {from} cannot reach {to}: {view:?}");
                return self.fail("connected", what);
            }
        }
    }

    fn majorities_write(&mut self, demand: Demand) {
        let untouched = self.untouched.for_long(demand.write, self.now);
        let over = self.asked >= u64::from(self.scenario.workload.operations);
        if over || 2 * untouched.len() <= self.nodes.len() {
            return;
        }
        for slot in 0..self.parts.len() {
            if !self.parts[slot].counts_majorities() {
                continue;
            }
            let Untouched { since, wrote, asked } = &self.untouched;
            let since = untouched.iter().filter_map(|id| since.get(id)).max();
            let since = since.max(wrote.get(&slot)).copied().unwrap_or_default();
            let asked: u32 = untouched.iter().filter_map(|id| asked.get(&(slot, *id))).sum();
            if self.now - since > demand.write && asked >= ASKED_MIN {
                let what = format!(
                    "no fault touches nodes {untouched:?}, a majority, and they have ruled on none of {asked} writes of {} \
                     for {} ms",
                    self.parts[slot],
                    (self.now - since) / MS,
                );
                return self.fail("majority", what);
            }
            if !self.active.is_empty() {
                self.coverage.event("write-during", "fault");
            }
        }
    }
}
