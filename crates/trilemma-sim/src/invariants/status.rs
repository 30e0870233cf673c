//! What a node says that it can do, and what it then does. A status is what the node can tell by itself, so it is held
//! against what the node decides by itself: it serves nothing that came while it said that it reaches no majority, and does
//! not refuse for want of others, or of room on its disk, while it says that it can.

use std::collections::BTreeMap;

use trilemma_core::{
    Backend, LiveStatus, NodeId, NotApplied, ReadError, ReadLevel, Reason, Reply, Ticket, WriteError,
};

use super::Broken;

/// A request that waits for its answer.
struct Asked {
    /// Whether it changes something, or makes sure that nothing does.
    is_write: bool,
    /// Whether its node said that it reaches no majority when it came.
    was_alone: bool,
    /// When it came.
    at: u64,
}

/// See the module.
pub(super) struct Statuses {
    nodes: usize,
    asked: BTreeMap<(NodeId, usize, Ticket), Asked>,
}

/// The reason of a refusal.
fn reason(reply: &Reply) -> Option<&Reason> {
    match reply {
        Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. })))
        | Reply::Read(Err(ReadError { reason, .. }))
        | Reply::Outcome(Err(ReadError { reason, .. })) => Some(reason),
        _ => None,
    }
}

/// Whether a request was served, and not from the node's own state alone.
fn is_served(reply: &Reply) -> bool {
    match reply {
        Reply::Write(result) => result.is_ok(),
        Reply::Read(Ok(read)) => read.achieved == ReadLevel::Linearizable,
        Reply::Read(Err(_)) => false,
        Reply::Outcome(result) => result.is_ok(),
    }
}

/// Whether a node did not serve because others are not there, as far as it can tell.
pub(crate) fn lacks_others(reply: &Reply) -> bool {
    matches!(
        reason(reply),
        Some(Reason::NoQuorum { .. } | Reason::NoSequencer { .. })
    )
}

/// Whether a node did not serve because its disk has no room.
fn lacks_space(reply: &Reply) -> bool {
    matches!(reason(reply), Some(Reason::NoSpace { .. }))
}

impl Statuses {
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            nodes: nodes as usize,
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn crashed(&mut self, id: NodeId) {
        self.asked.retain(|(node, ..), _| *node != id);
    }

    /// A request comes to a node that says this of itself.
    pub(super) fn asked(
        &mut self,
        (id, slot): (NodeId, usize),
        ticket: Ticket,
        is_write: bool,
        (status, at): (&LiveStatus, u64),
    ) -> Result<(), Broken> {
        if !(status.can_write && status.can_read) && status.why.is_empty() {
            let what = format!("node {id} cannot do everything and does not say why: {status:?}");
            return Err(("status", what));
        }
        let reached = self.nodes - status.missing.len();
        let was_alone = reached * 2 <= self.nodes;
        let asked = Asked {
            is_write,
            was_alone,
            at,
        };
        self.asked.insert((id, slot, ticket), asked);
        Ok(())
    }

    /// A request is answered. `is_whole`: the turn had one input, so that nothing has changed between its inputs. Only what
    /// is refused in the turn in which it came is held against the status: others may have come and gone meanwhile.
    pub(super) fn answered(
        &mut self,
        (id, slot): (NodeId, usize),
        backend: Backend,
        ticket: Ticket,
        reply: &Reply,
        (status, now, is_whole): (&LiveStatus, u64, bool),
    ) -> Result<(), Broken> {
        let Some(Asked {
            is_write,
            was_alone,
            at,
        }) = self.asked.remove(&(id, slot, ticket))
        else {
            return Ok(());
        };
        let needs_majority = matches!(backend, Backend::Raft | Backend::Paxos);
        if needs_majority && was_alone && is_served(reply) {
            let what = format!("node {id} reached no majority when {ticket} came, and serves it: {reply:?}");
            return Err(("status", what));
        }
        let can = if is_write {
            status.can_write
        } else {
            status.can_read
        };
        if (lacks_others(reply) || lacks_space(reply)) && can && is_whole && at == now {
            let what = format!("node {id} refuses {ticket} with {reply:?} and says that it can: {status:?}");
            return Err(("status", what));
        }
        Ok(())
    }
}
