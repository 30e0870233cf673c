//! What a test does to nodes, disks, clocks and links.

use std::time::Duration;

use bytes::Bytes;
use trilemma_core::host::{DynProtocol, GroupInput};
use trilemma_core::id::NodeId;
use trilemma_core::protocol::Protocol;
use trilemma_core::time::Instant;

use super::{Cluster, Event};

impl<P: Protocol> Cluster<P> {
    /// Gives a node that is down another disk: these records and no checkpoint.
    ///
    /// # Panics
    /// If the node is up.
    pub fn replace_disk(&mut self, id: NodeId, records: Vec<Bytes>) {
        let node = self.node(id);
        assert!(node.host.is_none(), "{id} is up: its disk is in use");
        node.checkpoint.clear();
        node.durable = records;
    }

    /// Stops the timers of a node (`true`), so that it only reacts, or lets them run (`false`). Timers that were due
    /// meanwhile fire then.
    pub fn hold_timers(&mut self, id: NodeId, held: bool) {
        self.node(id).timers_held = held;
        let node = &self.nodes[&id];
        if let (false, Some(host)) = (held, &node.host)
            && host.wake_at() != Instant::NEVER
        {
            let (delay, incarnation) = (host.wake_at().since(self.now), node.incarnation);
            self.schedule(
                delay,
                Event::Wake {
                    node: id,
                    incarnation,
                },
            );
        }
    }

    /// Sets what the node's wall clock shows beyond virtual time.
    pub fn set_wall_offset(&mut self, id: NodeId, millis: i64) {
        self.node(id).wall_offset = millis;
    }

    /// Stops a node cleanly: it hands over what others would have to wait for, then what it has appended becomes durable. Returns
    /// how long that took.
    ///
    /// # Panics
    /// If it still hands over after five seconds, or its disk does not finish.
    pub fn stop(&mut self, id: NodeId) -> Duration {
        let begun = self.now;
        self.input(id, GroupInput::Stopping);
        let is_done = self.run_until(Duration::from_secs(5), |cluster| {
            let node = &cluster.nodes[&id];
            let is_handing_over = node.host.as_ref().is_some_and(|host| host.is_handing_over());
            !is_handing_over && node.pending.is_empty() && !node.is_in_turn
        });
        assert!(is_done, "{id} does not stop");
        self.crash(id);
        self.now.since(begun)
    }

    /// Stops a node at once. Keeps what is durable and a random prefix of what was appended after it.
    pub fn crash(&mut self, id: NodeId) {
        let mut rng = self.rng.fork();
        let node = self.node(id);
        node.host = None;
        node.is_in_turn = false;
        node.output.clear();
        let kept = rng.below(node.pending.len() as u64 + 1) as usize;
        let survivors: Vec<Bytes> = node
            .pending
            .drain(..)
            .take(kept)
            .map(|record| record.bytes)
            .collect();
        node.durable.extend(survivors);
        self.announce_peers();
    }

    /// Stops a node and loses everything that was not durable.
    pub fn crash_losing_all(&mut self, id: NodeId) {
        self.node(id).pending.clear();
        self.crash(id);
    }

    /// Stops a node and loses its disk. Its incarnation still grows with the next start.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash_losing_all(id);
        let node = self.node(id);
        node.durable.clear();
        node.checkpoint.clear();
    }

    /// Stops acknowledging appends of a node (`true`), or acknowledges what has waited (`false`).
    pub fn hold_disk(&mut self, id: NodeId, held: bool) {
        self.node(id).disk_held = held;
        if !held {
            self.schedule_durable(id);
        }
    }

    /// Cuts the link from one node to another, in this direction only.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
        self.announce_peers();
    }

    /// Cuts all links between `side` and the rest, both ways.
    pub fn split(&mut self, side: &[NodeId]) {
        for a in self.ids() {
            for b in self.ids() {
                if side.contains(&a) != side.contains(&b) {
                    self.cuts.insert((a, b));
                }
            }
        }
        self.announce_peers();
    }

    /// Restores all links.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.announce_peers();
    }
}
