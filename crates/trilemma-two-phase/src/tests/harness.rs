//! Clusters of two-phase nodes and short words for what tests do with them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use trilemma_core::host::GroupInput;
use trilemma_core::session::{Admission, OpResult};
use trilemma_core::{
    Attempt, Command, Epoch, Incarnation, NodeId, NotApplied, Now, OpId, Outcome, Protocol, Reason, Receipt,
    Reply, Request, Ticket, Version, WriteError, codec,
};
use trilemma_testkit::{Cluster, Verdict, op, write};

use crate::batch::{Batch, Transaction};
use crate::core::Core;
use crate::ids::BatchId;
use crate::two_phase::Role;
use crate::{Message, TwoPhase, TwoPhaseConfig};

pub(super) type TestCluster = Cluster<TwoPhase>;

pub(super) const N1: NodeId = NodeId(1);
pub(super) const N2: NodeId = NodeId(2);
pub(super) const N3: NodeId = NodeId(3);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a check says when it fails.
///
/// # Panics
/// If it does not fail.
pub(crate) fn caught(check: impl FnOnce()) -> String {
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    let said = failed.expect_err("the check sees nothing");
    let text = said.downcast_ref::<String>().cloned();
    text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}

/// A batch of one transaction, the `seq`-th of an incarnation, that follows the one before it.
pub(crate) fn batch(seq: u64) -> std::sync::Arc<Batch> {
    let id = |seq| BatchId {
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        seq,
    };
    let prev = if seq == 1 { BatchId::ORIGIN } else { id(seq - 1) };
    let command = Command::put("x", format!("{seq}"));
    std::sync::Arc::new(Batch {
        id: id(seq),
        prev,
        first: Version(seq),
        transactions: vec![Transaction::Write { op: op(seq), command }],
    })
}

/// What both roles share at a node of three that holds the state of a new keyspace.
pub(crate) fn core_of(node: u32) -> Core {
    let mut core = Core::new(TwoPhaseConfig::new(
        NodeId(node),
        [1, 2, 3].map(NodeId),
        Incarnation(1),
        7,
    ));
    core.ledger.is_joined = true;
    core.check();
    core
}

/// A cluster with the default settings, ready to write.
pub(super) fn cluster(size: u32, seed: u64) -> TestCluster {
    cluster_with(size, seed, |_| {})
}

/// A cluster with changed settings, ready to write.
pub(super) fn cluster_with(
    size: u32,
    seed: u64,
    change: impl Fn(&mut TwoPhaseConfig) + 'static,
) -> TestCluster {
    let mut cluster = Cluster::new(size, seed, move |node, incarnation, seed| {
        let mut config = TwoPhaseConfig::new(node, (1..=size).map(NodeId), incarnation, seed);
        change(&mut config);
        TwoPhase::new(config)
    });
    assert!(
        cluster.run_until(5 * SECOND, is_ready),
        "a new cluster becomes ready"
    );
    cluster
}

pub(super) fn now(cluster: &TestCluster) -> Now {
    Now {
        instant: cluster.now(),
        ..Now::default()
    }
}

/// Whether every node would accept a write, and nothing is in doubt.
pub(super) fn is_ready(cluster: &TestCluster) -> bool {
    cluster.ids().into_iter().all(|node| {
        cluster.is_up(node) && {
            let status = cluster.protocol(node).status(now(cluster));
            status.can_write && status.can_read && status.in_doubt == 0
        }
    })
}

/// Whether all nodes show the same history.
pub(super) fn is_converged(cluster: &TestCluster) -> bool {
    let ids = cluster.ids();
    let shown = |node: &NodeId| {
        let protocol = cluster.protocol(*node);
        (protocol.decided(), protocol.digest())
    };
    ids.iter().all(|node| cluster.is_up(*node)) && ids.iter().all(|node| shown(node) == shown(&ids[0]))
}

/// Waits until all nodes agree and can write.
pub(super) fn resolve(cluster: &mut TestCluster) {
    let resolved = cluster.run_until(10 * SECOND, |cluster| is_ready(cluster) && is_converged(cluster));
    if !resolved {
        for node in cluster.ids() {
            if cluster.is_up(node) {
                eprintln!("{node}: {:?}", cluster.protocol(node).status(now(cluster)));
            }
        }
    }
    assert!(resolved, "the cluster does not resolve after a heal");
    cluster.catch_up();
}

/// Lets whatever is left of a write reach everybody: decided, announced, acknowledged.
pub(super) fn rest(cluster: &mut TestCluster) {
    cluster.run_for(millis(300));
}

/// What the decided state of a node says about an operation.
pub(super) fn result_at(cluster: &TestCluster, node: NodeId, op: OpId) -> Option<OpResult> {
    match cluster.protocol(node).core.ledger.table.sessions().admit(op) {
        Admission::Repeat(result) => Some(result),
        Admission::New | Admission::Expired => None,
    }
}

pub(super) fn local(cluster: &TestCluster, node: NodeId, key: &str) -> Option<String> {
    let table = &cluster.protocol(node).core.ledger.table;
    table.get(key.as_bytes()).map(|state| state.value.to_string())
}

pub(super) fn propose_put(
    cluster: &mut TestCluster,
    node: NodeId,
    seq: u64,
    key: &str,
    timeout: Duration,
) -> Ticket {
    let command = Command::put(key, format!("{seq}"));
    cluster.propose(node, write(seq, Attempt::First, command), timeout)
}

pub(super) fn put(cluster: &mut TestCluster, node: NodeId, seq: u64, key: &str) -> Option<Reply> {
    cluster.write(node, seq, Command::put(key, format!("{seq}")))
}

pub(super) fn ask_outcome(cluster: &mut TestCluster, node: NodeId, seq: u64) -> Option<Reply> {
    let request = Request::Outcome {
        op: op(seq),
        command: None,
    };
    cluster.ask(node, request, 2 * SECOND)
}

pub(super) fn receipt(reply: Option<Reply>) -> Receipt {
    match reply {
        Some(Reply::Write(Ok(receipt))) => receipt,
        other => panic!("expected a receipt, found {other:?}"),
    }
}

/// The reason in a refusal that is certain.
pub(super) fn refusal(reply: Option<Reply>) -> Reason {
    match reply {
        Some(Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. })))) => reason,
        Some(Reply::Read(Err(error)) | Reply::Outcome(Err(error))) => error.reason,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

pub(super) fn is_unknown(reply: Option<&Reply>) -> bool {
    matches!(reply, Some(Reply::Write(Err(WriteError::Unknown { .. }))))
}

pub(super) fn outcome(reply: Option<Reply>) -> Outcome {
    match reply {
        Some(Reply::Outcome(Ok(outcome))) => outcome,
        other => panic!("expected an outcome, found {other:?}"),
    }
}

/// Waits for the answer to a proposal.
pub(super) fn await_reply(cluster: &mut TestCluster, node: NodeId, ticket: Ticket) -> Option<Reply> {
    cluster.run_until(6 * SECOND, |cluster| cluster.reply(node, ticket).is_some());
    cluster.reply(node, ticket).cloned()
}

pub(super) type Sent = Rc<RefCell<Vec<(NodeId, NodeId, Message)>>>;

/// Keeps a copy of everything that is sent from now on, and drops what `is_lost` names.
pub(super) fn tap(
    cluster: &mut TestCluster,
    mut is_lost: impl FnMut(NodeId, NodeId, &Message) -> bool + 'static,
) -> Sent {
    let sent = Sent::default();
    let shared = Rc::clone(&sent);
    cluster.filter = Some(Box::new(move |from, to, message| {
        shared.borrow_mut().push((from, to, message.clone()));
        if is_lost(from, to, message) {
            Verdict::Drop
        } else {
            Verdict::Deliver
        }
    }));
    sent
}

/// Drops messages of these kinds from now on.
pub(super) fn lose(cluster: &mut TestCluster, kinds: &'static [&'static str]) -> Sent {
    tap(cluster, move |_, _, message| {
        kinds.contains(&trilemma_core::Message::kind(message))
    })
}

/// Delivers a message of the past again.
pub(super) fn inject(cluster: &mut TestCluster, from: NodeId, to: NodeId, message: &Message) {
    let bytes = codec::encode(message);
    cluster.input(to, GroupInput::Receive { from, bytes });
}

/// The first message of this kind that went to `to`.
pub(super) fn first(sent: &Sent, kind: &str, to: NodeId) -> Option<Message> {
    let sent = sent.borrow();
    let mut found = sent
        .iter()
        .filter(|(_, receiver, message)| *receiver == to && trilemma_core::Message::kind(message) == kind);
    found.next().map(|(_, _, message)| message.clone())
}

pub(super) fn count(sent: &Sent, kind: &str) -> usize {
    let sent = sent.borrow();
    let of_kind = sent
        .iter()
        .filter(|(_, _, message)| trilemma_core::Message::kind(message) == kind);
    of_kind.count()
}

/// Number of batches in doubt at a node.
pub(super) fn in_doubt(cluster: &TestCluster, node: NodeId) -> usize {
    match &cluster.protocol(node).role {
        Role::Member(member) => member.chain.len(),
        Role::Sequencer(_) => 0,
    }
}
