//! What must hold after every event, whatever happens.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use trilemma_core::{NodeId, Version};
use trilemma_testkit::Verdict;

use super::harness::{N1, TestCluster};
use crate::two_phase::Role;
use crate::{BatchId, Message};

/// Watches a cluster over its whole incarnation, crashes included. The sequencer is node 1.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// Every batch that was ever sent for a vote.
    issued: BTreeSet<BatchId>,
    /// Batches that some node showed as committed, or some message called so.
    committed: BTreeSet<BatchId>,
    /// Batches that some message called aborted.
    aborted: BTreeSet<BatchId>,
    /// The last batch each member has voted for.
    voted: BTreeMap<NodeId, BatchId>,
    /// The greatest batch that the sequencer has called decided.
    announced: BatchId,
    /// What each node that acknowledged knows to be decided, whatever happens to it.
    acked: BTreeMap<NodeId, BatchId>,
    /// The one history: batch and digest at each position.
    history: BTreeMap<Version, (BatchId, u64)>,
    shown: BTreeMap<NodeId, (u64, Version)>,
    incarnations: BTreeMap<NodeId, u64>,
}

impl Invariants {
    /// Listens to everything that is sent in `cluster`.
    pub(super) fn watch(cluster: &mut TestCluster) -> Rc<RefCell<Self>> {
        let invariants = Rc::new(RefCell::new(Self::default()));
        let listener = Rc::clone(&invariants);
        cluster.filter = Some(Box::new(move |from, _, message| {
            listener.borrow_mut().on_message(from, message);
            Verdict::Deliver
        }));
        invariants
    }

    pub(super) fn on_message(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Prepare { batch, head } => {
                self.issued.insert(batch.id);
                self.decided(head.decided);
            }
            Message::Announce { head } => self.decided(head.decided),
            Message::Resolved(resolved) => {
                self.decided(resolved.head.decided);
                for id in &resolved.committed {
                    self.commit(*id);
                }
                let spoken_of = self.issued.range(resolved.after..resolved.below).copied();
                let aborted: Vec<BatchId> = spoken_of
                    .filter(|id| *id > resolved.after)
                    .filter(|id| !resolved.committed.contains(id) && !resolved.open.contains(id))
                    .collect();
                aborted.into_iter().for_each(|id| self.abort(id));
            }
            Message::Evidence {
                committed, aborted, ..
            } => {
                committed.iter().for_each(|id| self.commit(*id));
                aborted.iter().for_each(|id| self.abort(*id));
            }
            Message::Vote { prepared, acked } => {
                let voted = self.voted.entry(from).or_default();
                *voted = (*voted).max(*prepared);
                let known = self.acked.entry(from).or_default();
                *known = (*known).max(*acked);
            }
            _ => {}
        }
    }

    fn decided(&mut self, id: BatchId) {
        self.announced = self.announced.max(id);
        self.commit(id);
    }

    fn commit(&mut self, id: BatchId) {
        self.committed.insert(id);
        assert!(
            !self.aborted.contains(&id),
            "batch {id} was aborted and is committed"
        );
    }

    fn abort(&mut self, id: BatchId) {
        self.aborted.insert(id);
        assert!(
            !self.committed.contains(&id),
            "batch {id} was committed and is aborted"
        );
    }

    /// A node has crashed: it may show what it showed before again.
    pub(super) fn on_crash(&mut self, node: NodeId) {
        *self.incarnations.entry(node).or_default() += 1;
    }

    /// A node has lost its disk: it owes nothing any more.
    pub(super) fn on_wipe(&mut self, node: NodeId) {
        self.on_crash(node);
        self.voted.remove(&node);
        self.acked.remove(&node);
    }

    pub(super) fn incarnation(&self, node: NodeId) -> u64 {
        self.incarnations.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn aborts(&self) -> usize {
        self.aborted.len()
    }

    /// Looks at every running node.
    pub(super) fn check(&mut self, cluster: &TestCluster) {
        for node in cluster.ids() {
            if cluster.is_up(node) {
                self.check_node(cluster, node);
            }
        }
    }

    fn check_node(&mut self, cluster: &TestCluster, node: NodeId) {
        let protocol = cluster.protocol(node);
        let (decided, version) = protocol.decided();
        if let Role::Member(member) = &protocol.role
            && protocol.core.ledger.is_joined
        {
            let voted = self.voted.get(&node).copied().unwrap_or_default();
            assert!(
                member.fence >= voted,
                "node {node} voted for {voted} and remembers {}",
                member.fence
            );
            let mut prev = decided;
            for link in member.chain.iter() {
                assert_eq!(link.batch.prev, prev, "the chain of node {node} has a gap");
                prev = link.batch.id;
            }
        }
        if protocol.core.ledger.is_joined {
            let acked = self.acked.get(&node).copied().unwrap_or_default();
            assert!(
                decided >= acked,
                "node {node} acknowledged {acked} and shows {decided}"
            );
        }
        if node == N1 {
            assert!(
                decided >= self.announced,
                "the sequencer announced {} and knows {decided}",
                self.announced
            );
        }
        let incarnation = self.incarnation(node);
        let seen = (incarnation, version);
        match self.shown.insert(node, seen) {
            Some(before) if before == seen => return,
            Some((before, shown)) if before == incarnation => {
                assert!(
                    version >= shown,
                    "node {node} goes back from {shown} to {version}"
                );
            }
            _ => {}
        }
        if version > Version::ABSENT {
            self.commit(decided);
            let digest = protocol.digest();
            let known = self.history.entry(version).or_insert((decided, digest));
            assert_eq!(
                *known,
                (decided, digest),
                "node {node} has another history at {version}"
            );
        }
    }
}
