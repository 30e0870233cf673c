//! What a node keeps of its peers: the disk on which each is counted, and the newest process of each.
//!
//! In `raft` and `paxos` a member counts towards a majority because it remembers what it has promised. A member whose
//! disk was lost has forgotten it, so it is not counted any more under its id. Otherwise: nodes 1 and 2 have made write x durable,
//! which 3 lacks; x is acknowledged. The disk of 2 is replaced by an empty one, 1 is away. 2 votes for 3, and x is gone.
//!
//! So every node keeps the disk of each peer in its own log, and a new cluster is *founded* first: a node is counted
//! once every member has said that it keeps this node's disk durably. From then on another disk under its id is a
//! stranger to all of them, and is never founded, for none of them will say so of it. Nor can nodes that were given
//! different lists of members found two clusters, for each of them needs all of its list.
//!
//! A stranger is refused as a whole, so that the node can come back with the disk that it had. `gossip` and `two-phase`
//! stand the loss of a member's disk: they go on with the new one where it was accepted by hand, or at once where no
//! majority is counted. Two processes that share an incarnation, as with copies of one directory, are refused by all.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trilemma_core::{DiskId, Incarnation, NodeId, NodeSet, PeerView, ProcessId};
use trilemma_storage::LogSeq;

/// What a node keeps of one peer in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The peer.
    pub node: NodeId,
    /// The disk on which it is counted. Once the cluster is founded it never changes.
    pub disk: DiskId,
    /// Another disk that was accepted by hand, and is not counted.
    pub accepted: Option<DiskId>,
    /// Its newest incarnation.
    pub incarnation: Incarnation,
    /// The nonce of that incarnation's process.
    pub nonce: u64,
}

/// One peer.
#[derive(Clone, Debug, Default)]
struct Peer {
    kept: Option<Kept>,
    /// Where `kept` stands in the log; `None` once that is durable, or where it has no place yet.
    at: Option<LogSeq>,
    is_durable: bool,
    /// It waits to hear that its disk is kept.
    asks: bool,
    /// The disk of this node that it keeps, as it says.
    keeps: Option<DiskId>,
    /// The disk of its newest process that was heard.
    present: Option<DiskId>,
}

/// Why a process is refused, as a sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// What a process is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The first of its node.
    First,
    /// The one that is known.
    Known,
    /// The next one of its node.
    Next,
    /// A former one, whose frames were under way meanwhile.
    Former,
}

/// What a frame has shown of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// To be kept in the log.
    pub(crate) keep: Option<Kept>,
    /// Whether some peer is counted from now on, or no more.
    pub(crate) count_changed: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Peers {
    this: ProcessId,
    /// Whether some keyspace counts majorities.
    counts_majorities: bool,
    is_founded: bool,
    peers: BTreeMap<NodeId, Peer>,
    changes: u64,
}

impl Peers {
    /// `kept` is what the log holds; a node without peers needs nobody to found its cluster.
    pub(crate) fn new(
        this: ProcessId,
        peers: impl IntoIterator<Item = NodeId>,
        counts_majorities: bool,
        is_founded: bool,
        kept: &BTreeMap<NodeId, Kept>,
    ) -> Self {
        let peer = |node: NodeId| {
            let kept = kept.get(&node).copied();
            let peer = Peer {
                kept,
                is_durable: kept.is_some(),
                ..Peer::default()
            };
            (node, peer)
        };
        let peers: BTreeMap<NodeId, Peer> = peers.into_iter().map(peer).collect();
        Self {
            this,
            counts_majorities,
            is_founded: is_founded || peers.is_empty(),
            peers,
            changes: 0,
        }
    }

    /// This node's process.
    #[must_use]
    pub fn this(&self) -> ProcessId {
        self.this
    }

    /// Whether there is no other member.
    #[must_use]
    pub(crate) fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether all members keep this node's disk, so that it is counted.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// What is kept of each peer.
    pub fn kept(&self) -> impl Iterator<Item = Kept> + '_ {
        self.peers.values().filter_map(|peer| peer.kept)
    }

    /// How often what [`Peers::admit`] goes by has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a process may be connected. Refused are one on another disk than the node had, the second of two processes
    /// with copies of one directory, and one whose directory was set back to an earlier copy.
    pub fn admit(&self, process: &ProcessId) -> Result<(), Refused> {
        let node = process.node;
        match self.standing(process)? {
            Standing::First | Standing::Known | Standing::Next => Ok(()),
            Standing::Former => Err(Refused(format!(
                "{process}: a later process of node {node} has been met already. Its data directory was set back to an \
                 earlier copy, or is one that it had before another was accepted; keep both, and start node {node} with \
                 the one that it had last. A single node cannot be set back: what it has promised since would be forgotten"
            ))),
        }
    }

    fn standing(&self, process: &ProcessId) -> Result<Standing, Refused> {
        let node = process.node;
        let Some(peer) = self.peers.get(&node) else {
            return Err(Refused(format!("node {node} is not a member")));
        };
        let Some(kept) = peer.kept else {
            return Ok(Standing::First);
        };
        if kept.incarnation == process.incarnation && kept.nonce != process.nonce {
            return Err(Refused(format!(
                "{process}: another process has this incarnation of node {node}, process {:016x}. Two processes run on \
                 copies of one data directory. Stop the one with the copy; keep both directories",
                kept.nonce
            )));
        }
        let is_known = process.disk == kept.disk || Some(process.disk) == kept.accepted;
        if !is_known && self.counts_majorities && self.is_founded {
            let (known, present) = (kept.disk, process.disk);
            return Err(Refused(format!(
                "node {node} is known on disk {known}, and runs on disk {present}. What it has promised and acknowledged is \
                 on the former. If that exists (a volume that is not mounted, another `data`), stop node {node} and start \
                 it with that; keep both. If it is lost for good, raft and paxos do without node {node}; for gossip and \
                 two-phase to go on with it, start each other node once with `--accept-disk {node}={present}`"
            )));
        }
        Ok(match process.incarnation.cmp(&kept.incarnation) {
            Ordering::Less => Standing::Former,
            Ordering::Equal => Standing::Known,
            Ordering::Greater => Standing::Next,
        })
    }

    /// Takes note of who has sent a frame. `Err`: the frame must be dropped.
    pub(crate) fn hear(&mut self, from: &ProcessId) -> Result<Heard, Refused> {
        let standing = self.standing(from)?;
        let mut heard = Heard::default();
        let Some(peer) = self.peers.get_mut(&from.node) else {
            return Ok(heard);
        };
        let newest = Kept {
            node: from.node,
            disk: from.disk,
            accepted: None,
            incarnation: from.incarnation,
            nonce: from.nonce,
        };
        match (standing, peer.kept) {
            (Standing::Former, _) => return Ok(heard),
            (Standing::Known, _) => {}
            (Standing::Next, Some(kept)) if self.counts_majorities && self.is_founded => {
                let (disk, accepted) = (kept.disk, kept.accepted);
                let kept = Kept {
                    disk,
                    accepted,
                    ..newest
                };
                heard.keep = Some(kept);
            }
            // Nobody has promised anything yet, or nobody counts promises.
            (Standing::First | Standing::Next, _) => {
                if peer.kept.is_some_and(|kept| kept.disk != from.disk) {
                    peer.keeps = None;
                    peer.is_durable = false;
                    peer.at = None;
                }
                heard.keep = Some(newest);
            }
        }
        if let Some(keep) = heard.keep {
            assert!(
                peer.kept.is_none_or(|kept| kept.incarnation < keep.incarnation),
                "{from} is no newer than what is kept: {:?}",
                peer.kept
            );
            peer.kept = heard.keep;
            self.changes += 1;
        }
        heard.count_changed = peer.present.replace(from.disk) != Some(from.disk);
        Ok(heard)
    }

    /// The operator has accepted another disk of a node that has lost its own. What is to be kept in the log, if that is
    /// news.
    pub(crate) fn accept(&mut self, node: NodeId, disk: DiskId) -> Option<Kept> {
        let kept = self.peers.get_mut(&node)?.kept.as_mut()?;
        if disk == kept.disk || kept.accepted == Some(disk) {
            return None;
        }
        kept.accepted = Some(disk);
        self.changes += 1;
        Some(*kept)
    }

    /// What was to be kept of a peer stands in the log here.
    pub(crate) fn appended(&mut self, node: NodeId, at: LogSeq) {
        if let Some(peer) = self.peers.get_mut(&node) {
            assert!(
                peer.kept.is_some(),
                "what stands in the log of node {node} is kept"
            );
            peer.at = Some(at);
        }
    }

    /// The log is durable up to here. Calls `tell` for each peer that waits to hear which disk of it is kept.
    pub(crate) fn persisted(&mut self, durable: LogSeq, mut tell: impl FnMut(NodeId, DiskId)) {
        for (node, peer) in &mut self.peers {
            if peer.at.is_some_and(|at| at <= durable) {
                peer.at = None;
                peer.is_durable = true;
            }
            if let (true, true, Some(kept)) = (peer.asks, peer.is_durable, peer.kept) {
                peer.asks = false;
                tell(*node, kept.disk);
            }
        }
    }

    /// A peer asks which disk of it is kept here. It is answered once that is durable.
    pub(crate) fn asked(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.asks = true;
        }
    }

    /// A peer says which disk of this node it keeps. Whether that has founded the cluster here.
    pub(crate) fn keeps(&mut self, from: NodeId, disk: DiskId) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else {
            return false;
        };
        if peer.keeps.replace(disk) != Some(disk) && disk != self.this.disk {
            let this = self.this;
            tracing::error!(peer = %from, %disk, %this, "{}", forgotten(from, disk, this.disk));
        }
        let all = |peer: &Peer| peer.keeps == Some(self.this.disk);
        let founds = !self.is_founded && self.peers.values().all(all);
        assert!(
            !founds || !self.peers.is_empty(),
            "a node without peers needs nobody to found its cluster"
        );
        self.is_founded |= founds;
        self.changes += u64::from(founds);
        founds
    }

    /// The peers that have not said yet that they keep this node's disk, where that is needed.
    pub(crate) fn unasked(&self) -> impl Iterator<Item = NodeId> + '_ {
        let missing = |(_, peer): &(&NodeId, &Peer)| !self.is_founded && peer.keeps != Some(self.this.disk);
        self.peers.iter().filter(missing).map(|(node, _)| *node)
    }

    /// Whether this process is counted towards majorities.
    #[must_use]
    pub fn is_counted(&self, process: &ProcessId) -> bool {
        let kept = self.peers.get(&process.node).and_then(|peer| peer.kept);
        self.is_founded && kept.is_some_and(|kept| kept.disk == process.disk)
    }

    /// The view for keyspaces that count majorities: who is not counted cannot be reached.
    pub(crate) fn counted_view(&self, view: &PeerView) -> PeerView {
        let mut view = view.clone();
        view.peers
            .retain(|node, _| self.is_founded && self.peers.get(node).is_some_and(Peer::is_itself));
        view
    }

    /// Why this node is not counted; `None` if it is.
    #[must_use]
    pub fn why_silent(&self) -> Option<String> {
        if self.is_founded {
            return None;
        }
        let refusing = |(node, peer): (&NodeId, &Peer)| {
            let disk = peer.keeps.filter(|disk| *disk != self.this.disk)?;
            Some(forgotten(*node, disk, self.this.disk))
        };
        let waits = || {
            let missing: NodeSet = self.unasked().collect();
            format!(
                "this node is new: before it takes part, every member must have met it once, and nodes {missing} have not"
            )
        };
        Some(self.peers.iter().find_map(refusing).unwrap_or_else(waits))
    }

    /// Why this peer is not counted here, or this node not there; `None` if both are.
    #[must_use]
    pub fn refusal(&self, node: NodeId) -> Option<String> {
        let peer = self.peers.get(&node)?;
        let here = self.this.disk;
        if let Some(kept) = peer.keeps.filter(|kept| *kept != here && !self.is_founded) {
            return Some(forgotten(node, kept, here));
        }
        let (kept, present) = (peer.kept?, peer.present?);
        (self.counts_majorities && kept.disk != present).then(|| {
            format!(
                "raft and paxos do without node {node}: it is known on disk {}, and runs on disk {present}, which was \
                 accepted for gossip and two-phase alone",
                kept.disk
            )
        })
    }

    /// The invariants.
    pub(crate) fn check(&self) {
        assert!(
            self.is_founded || !self.peers.is_empty(),
            "a node without peers waits for nobody to found its cluster"
        );
        for (node, peer) in &self.peers {
            assert!(*node != self.this.node, "a node is no peer of itself");
            assert!(
                peer.kept.is_none_or(|kept| kept.node == *node),
                "what is kept of node {node} is of another: {:?}",
                peer.kept
            );
            assert!(
                peer.kept.is_some() || (peer.present.is_none() && peer.at.is_none() && !peer.is_durable),
                "node {node} was heard and is not kept: {peer:?}"
            );
        }
    }
}

impl Peer {
    /// Whether its newest process runs on the disk that is kept.
    fn is_itself(&self) -> bool {
        self.kept.is_some_and(|kept| self.present == Some(kept.disk))
    }
}

fn forgotten(peer: NodeId, kept: DiskId, here: DiskId) -> String {
    format!(
        "node {peer} knows this node on disk {kept}, and this is disk {here}: what this node has promised and acknowledged is \
         on the former, so raft and paxos do without it"
    )
}

#[cfg(test)]
mod tests;
