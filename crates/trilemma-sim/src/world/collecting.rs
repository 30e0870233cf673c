//! What a convergent keyspace owes after it has come to rest: every node hears from every other what that one durably
//! reflects, so that what nobody needs any more is forgotten everywhere.
//!
//! Anti-entropy picks its peers at random, and each node must be picked by each other one: after `n` comparisons a given
//! peer of `p` was missed with probability `(1 - 1/p)^n`, below e^-25 for `n = 25 p`.

use std::time::Duration;

use trilemma_gossip::Gossip;
use trilemma_node::Engine;

use super::{MS, World};
use crate::scenario::Action;

/// Longest time between two comparisons of one node for which it is worth waiting, and the longest age.
const INTERVAL_MAX: Duration = Duration::from_millis(300);
const AGE_MAX: Duration = Duration::from_millis(100);
/// Comparisons of a node, for each peer, in which that peer is surely picked.
const COMPARISONS: u32 = 25;
/// A comparison, the acknowledgement that it leads to, and the same again for what is written back.
const ROUNDS: u32 = 4;
/// Ticks after which the last of all nodes has written a winner back, for each node.
const WRITE_BACK_TICKS: u32 = 40;
/// Time in which stamps that were ahead of some clock no longer are.
const DEFERRED: Duration = Duration::from_secs(20);

impl World<'_> {
    /// Whether something waits for collection that should not. Fails if it has waited for too long since `rest`, when
    /// all nodes began to show the same.
    pub(super) fn is_collecting(&mut self, rest: u64) -> bool {
        let Some(bound) = self.collection_bound() else {
            return false;
        };
        let waiting = self.nodes.iter().find_map(|node| {
            let (gossip, slot) = self
                .gossips(node)
                .find(|(gossip, _)| gossip.replica().uncollected() > 0)?;
            Some((node.id, slot, gossip.replica().uncollected(), gossip.deferred()))
        });
        let Some((id, slot, count, deferred)) = waiting else {
            return false;
        };
        if self.now <= rest + bound {
            return true;
        }
        if deferred == 0 {
            let what = format!(
                "{} ms after all nodes began to show the same, node {id} still holds {count} changes of {} that wait for \
                 collection; {}",
                bound / MS,
                self.parts[slot],
                self.why(id, slot)
            );
            self.fail("collection", what);
        }
        false
    }

    /// How long collection may take, in nanoseconds. `None` where it may wait without end, or for too long to wait for it.
    fn collection_bound(&self) -> Option<u64> {
        let drifts = self.scenario.clocks.iter().any(|clock| clock.drift_ppm != 0);
        let durability =
            |action: &Action| matches!(action, Action::Set { name, .. } if name == "node.durability");
        let changes = self.scenario.faults.iter().any(|fault| durability(&fault.action));
        if self.nodes.len() == 1 || drifts || changes || self.scenario.may_forget() {
            return None;
        }
        let mut bound = None;
        for (gossip, _) in self.nodes.iter().flat_map(|node| self.gossips(node)) {
            let config = gossip.config();
            let interval = config.tick * config.sync_ticks;
            if interval > INTERVAL_MAX || config.tombstone_age_min > AGE_MAX {
                return None;
            }
            let peers = config.peers().count() as u32;
            let rounds = (interval * COMPARISONS * peers + config.tombstone_age_min) * ROUNDS;
            let needed = rounds + config.tick * WRITE_BACK_TICKS * (peers + 1) + DEFERRED;
            bound = bound.max(Some(needed.as_nanos() as u64));
        }
        bound
    }

    /// The convergent keyspaces of a node that runs.
    fn gossips<'a>(&'a self, node: &'a super::Node) -> impl Iterator<Item = (&'a Gossip, usize)> {
        let process = node.process.iter();
        process.flat_map(|process| {
            let engines = (0..self.parts.len()).map(|slot| (process.engine(slot), slot));
            engines.filter_map(|(engine, slot)| match engine {
                Engine::Gossip(host) => Some((host.protocol(), slot)),
                _ => None,
            })
        })
    }

    fn why(&self, id: trilemma_core::NodeId, slot: usize) -> String {
        let node = &self.nodes[id.0 as usize - 1];
        let now = node.clock.now(self.now);
        let process = node.process.as_ref();
        let status = process.map(|process| process.engine(slot).status(now));
        status.map_or_else(
            || "it is down".to_owned(),
            |status| format!("{:?}", status.details),
        )
    }
}
