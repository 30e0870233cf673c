//! A node as it sees itself.

use std::net::SocketAddr;

use trilemma_client::wire::{KeyspaceOverview, LoadOverview, LogOverview, NodeOverview, PeerOverview};
use trilemma_core::{NodeId, Now};
use trilemma_node::Replica;

use super::Driver;

/// Longest refusal shown in an overview, in bytes.
const REFUSAL_BYTES_MAX: usize = 4096;

impl Driver {
    /// This node as it sees itself.
    pub(super) fn overview(&self) -> NodeOverview {
        let now = self.clock.now();
        let identity = &self.identity;
        let peer = |(node, address): (&NodeId, &SocketAddr)| PeerOverview {
            node: *node,
            address: address.to_string(),
            connected: self.node.view().is_connected(*node),
            refused: identity
                .refused
                .get(node)
                .cloned()
                .or_else(|| self.node.peers().refusal(*node))
                .map_or(String::new(), |why| clip(&why)),
        };
        NodeOverview {
            cluster: identity.cluster.clone(),
            node: self.node.id(),
            incarnation: self.node.incarnation(),
            disk: self.node.process().disk,
            peers: identity.peers.iter().map(peer).collect(),
            keyspaces: self
                .node
                .replicas()
                .iter()
                .map(|replica| keyspace_overview(replica, now))
                .collect(),
            log: self.log_overview(),
            load: self.load_overview(),
            certificate: identity.certificate,
            snapshot_failure: self.node.snapshots().failure().map_or(String::new(), clip),
        }
    }

    /// The log's figures.
    fn log_overview(&self) -> LogOverview {
        let counters = self.log.counters();
        LogOverview {
            last: self.log.last().0,
            durable: self.node.progress().durable.0,
            snapshot: self.node.snapshots().covered().0,
            syncs: counters.syncs,
            records: counters.records,
            bytes: counters.bytes,
            sync_micros: counters.sync_micros,
            cpu_ms: cpu_ms(),
        }
    }

    /// What there is to do, and what was refused.
    fn load_overview(&self) -> LoadOverview {
        let (admission, counters) = (self.node.admission(), self.transport.counters());
        LoadOverview {
            pending: self.node.pending() as u64,
            pending_bytes: self.node.pending_bytes() as u64,
            log_bytes: admission.log_bytes() as u64,
            answer_bytes: self.transport.answer_bytes() as u64,
            refused: admission.refused(),
            messages_dropped: admission.dropped(),
            frames_dropped: self.frames_dropped,
            handshakes_put_off: counters.put_off,
            clients_cut_off: counters.clients_cut_off,
            ..self.load
        }
    }
}

pub(crate) fn keyspace_overview(replica: &Replica, now: Now) -> KeyspaceOverview {
    KeyspaceOverview {
        name: replica.name().to_owned(),
        id: replica.id(),
        backend: replica.backend(),
        status: replica.status(now),
    }
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(REFUSAL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// CPU time of this process so far in milliseconds (Linux; 0 elsewhere).
fn cpu_ms() -> u64 {
    /// Linux fixes the unit of /proc figures at 100 a second for user space.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |field: usize| {
        after_name
            .split_whitespace()
            .nth(field)
            .and_then(|text| text.parse::<u64>().ok())
    };
    (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)) * TICK_MS
}
