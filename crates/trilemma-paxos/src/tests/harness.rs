//! Clusters of paxos nodes and short words for what tests do with them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use trilemma_core::{
    Attempt, Command, NodeId, NotApplied, Now, OpId, Outcome, Protocol, Reason, Receipt, Reply, Request,
    SessionId, Ticket, Version, WriteError,
};
use trilemma_testkit::{Cluster, Verdict};

use crate::message::{Answer, Ask, Message};
use crate::{Paxos, PaxosConfig};

pub(super) type Paxi = Cluster<Paxos>;

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

/// A cluster with the default settings.
pub(super) fn cluster(size: u32, seed: u64) -> Paxi {
    cluster_with(size, seed, |_| {})
}

/// A cluster with changed settings.
pub(super) fn cluster_with(size: u32, seed: u64, change: impl Fn(&mut PaxosConfig) + 'static) -> Paxi {
    let mut cluster = Cluster::new(size, seed, move |node, incarnation, seed| {
        let mut config = PaxosConfig::new(node, (1..=size).map(NodeId), incarnation, seed);
        change(&mut config);
        Paxos::new(config)
    });
    cluster.run_for(millis(1));
    cluster
}

/// An operation of a client's session.
pub(super) fn op_of(client: u64, seq: u64) -> OpId {
    let session = SessionId {
        basis: Version::ABSENT,
        nonce: client,
    };
    OpId { session, seq }
}

/// An operation of a session made at this node now.
pub(super) fn fresh_op(cluster: &Paxi, node: NodeId, seq: u64) -> OpId {
    let now = Now {
        instant: cluster.now(),
        ..Default::default()
    };
    let basis = cluster.protocol(node).status(now).version;
    let session = SessionId { basis, nonce: 99 };
    OpId { session, seq }
}

pub(super) fn write_as(op: OpId, attempt: Attempt, command: Command) -> Request {
    Request::Write { op, attempt, command }
}

pub(super) fn outcome_of(op: OpId, command: Command) -> Request {
    Request::Outcome {
        op,
        command: Some(command),
    }
}

/// The receipt in an answer.
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

/// The outcome in an answer.
pub(super) fn outcome(reply: Option<Reply>) -> Outcome {
    match reply {
        Some(Reply::Outcome(Ok(outcome))) => outcome,
        other => panic!("expected an outcome, found {other:?}"),
    }
}

/// The answer to a proposal, waiting for it.
pub(super) fn await_reply(cluster: &mut Paxi, node: NodeId, ticket: Ticket) -> Option<Reply> {
    cluster.run_until(5 * SECOND, |cluster| cluster.reply(node, ticket).is_some());
    cluster.reply(node, ticket).cloned()
}

/// What was sent, by kind of item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) messages: u64,
    pub(super) prepares: u64,
    pub(super) accepts: u64,
    pub(super) reads: u64,
}

/// Counts what is sent from now on.
pub(super) fn count(cluster: &mut Paxi) -> Rc<RefCell<Sent>> {
    let sent = Rc::new(RefCell::new(Sent::default()));
    let shared = Rc::clone(&sent);
    cluster.filter = Some(Box::new(move |_, _, message| {
        let mut sent = shared.borrow_mut();
        sent.messages += 1;
        if let Message::Asks(asks) = message {
            for ask in asks {
                match ask {
                    Ask::Prepare { .. } => sent.prepares += 1,
                    Ask::Accept { .. } => sent.accepts += 1,
                    Ask::Read { .. } => sent.reads += 1,
                    Ask::Chosen { .. } => {}
                }
            }
        }
        Verdict::Deliver
    }));
    sent
}

/// Drops messages that `is_lost` names: sender, receiver, message.
pub(super) fn lose(cluster: &mut Paxi, mut is_lost: impl FnMut(NodeId, NodeId, &Message) -> bool + 'static) {
    cluster.filter = Some(Box::new(move |from, to, message| {
        if is_lost(from, to, message) {
            Verdict::Drop
        } else {
            Verdict::Deliver
        }
    }));
}

pub(super) fn has_accept(message: &Message) -> bool {
    matches!(message, Message::Asks(asks) if asks.iter().any(|ask| matches!(ask, Ask::Accept { .. })))
}

pub(super) fn has_accepted(message: &Message) -> bool {
    let is_accepted = |answer: &Answer| matches!(answer, Answer::Accepted { .. });
    matches!(message, Message::Answers(answers) if answers.iter().any(is_accepted))
}
