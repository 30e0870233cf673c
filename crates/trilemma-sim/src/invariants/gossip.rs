//! Hybrid logical clocks (Kulkarni et al. 2014): a clock never runs further ahead of its wall clock than the drift that
//! it accepts, so that one wrong clock cannot win over the honest ones for ever.

use std::collections::BTreeMap;

use trilemma_core::{NodeId, WallTime};
use trilemma_gossip::Gossip;

use super::Broken;

/// How far a lease reaches beyond the stamps given out, with rounding, in milliseconds. Each restart begins with it.
const LEASE_MS: u64 = 300;

/// See the module.
pub(super) struct GossipInvariants {
    accept_drift_ms: u64,
    /// The furthest that each node's wall clock has shown.
    walls: BTreeMap<NodeId, u64>,
    /// Starts of all nodes together: what one has restarted with, others may follow.
    starts: u64,
}

impl GossipInvariants {
    pub(super) fn new(accept_drift_ms: u64) -> Self {
        Self {
            accept_drift_ms,
            walls: BTreeMap::new(),
            starts: 0,
        }
    }

    pub(super) fn start(&mut self) {
        self.starts += 1;
    }

    pub(super) fn observe(&mut self, id: NodeId, gossip: &Gossip, wall: WallTime) -> Result<(), Broken> {
        let furthest = self.walls.entry(id).or_default();
        *furthest = (*furthest).max(wall.0);
        let clock = gossip.clock().millis();
        if clock > *furthest + self.accept_drift_ms + LEASE_MS * self.starts {
            let what = format!("the clock of node {id} shows {clock}, its wall clock at most {furthest}");
            return Err(("clock-drift", what));
        }
        Ok(())
    }
}
