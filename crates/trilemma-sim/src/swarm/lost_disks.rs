//! Disks that members of a two-phase cluster lose: at a time, and at something that a node does.

use trilemma_core::NodeId;

use super::{MS, Swarm, TWO_PHASE_KINDS};
use crate::scenario::{Action, Fault, When};

impl Swarm {
    /// Adds them in a quarter of the seeds: a cluster that fetches states again and again votes for little.
    pub(super) fn lose_disks(&mut self, faults: &mut Vec<Fault>) {
        let ids = (1..=self.nodes).map(NodeId);
        let members: Vec<NodeId> = ids.filter(|id| self.protocol.may_lose_disk(*id)).collect();
        if members.is_empty() || !self.rng.per_mille(250) {
            return;
        }
        let mut lose = |when: When, node: NodeId, length: u64| {
            let action = Action::Wipe { node, length };
            faults.push(Fault { when, action });
        };
        for _ in 0..1 + self.rng.below(3) {
            let at = 50 * MS + self.rng.below(self.heal * 9 / 10);
            lose(When::At(at), self.pick(&members), self.length());
        }
        for _ in 0..self.rng.below(6) {
            let node = self.node();
            let probe = self.probe(TWO_PHASE_KINDS);
            let count = 1 + self.rng.below(60) as u32;
            // Mostly of the node that does something, or another must live with it.
            let itself = self.protocol.may_lose_disk(node) && self.rng.per_mille(700);
            let victim = if itself { node } else { self.pick(&members) };
            lose(When::On { node, probe, count }, victim, self.length());
        }
    }
}
