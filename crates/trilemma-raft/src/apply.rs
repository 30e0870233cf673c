//! Applying what is committed, and answering those who wait for it.

use trilemma_core::pending::PendingKind;
use trilemma_core::session::OpResult;
use trilemma_core::{Achieved, ChangeBatch, NodeSet, OpId, Receipt, Reply, UnknownCause, Version};

use crate::Out;
use crate::config::RaftConfig;
use crate::log::{Entry, Index, Payload};
use crate::pending::{InLog, ReplyTo, lost};
use crate::shared::Shared;

/// What one turn may still apply, or free. Its end is no end of anything: the next turn goes on.
#[derive(Debug)]
pub(crate) struct Slice {
    /// As [`Entry::keys`] counts.
    keys: usize,
    bytes: usize,
}

impl Slice {
    pub(crate) fn to_apply(config: &RaftConfig) -> Self {
        Self {
            keys: config.apply_entries_max.max(1),
            bytes: config.apply_bytes.max(1),
        }
    }

    /// Twice what may be applied, so that what is applied and not needed never piles up.
    pub(crate) fn to_free(config: &RaftConfig) -> Self {
        let Self { keys, bytes } = Self::to_apply(config);
        Self {
            keys: keys.saturating_mul(2),
            bytes: bytes.saturating_mul(2),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.keys > 0 && self.bytes > 0
    }

    /// Notes that this entry was applied, or freed.
    pub(crate) fn take(&mut self, entry: &Entry) {
        self.keys = self.keys.saturating_sub(entry.keys());
        self.bytes = self.bytes.saturating_sub(entry.size());
    }
}

/// Up to where entries can be applied: they are committed *and* durable here.
pub(crate) fn ready(shared: &Shared) -> Index {
    shared.commit.min(shared.log.durable())
}

/// Applies the next entry that is committed *and* durable here, so that no restart undoes what somebody has read.
/// A node that has restarted shows less than that, in local reads, until a leader tells what is committed. Returns its index
/// and its size, and takes it from `slice`; `None` if there is none, or no room for any. `holders` are the other nodes that
/// hold it durably.
pub(crate) fn next(
    shared: &mut Shared,
    slice: &mut Slice,
    holders: impl FnOnce(Index) -> NodeSet,
    effects: &mut Out,
) -> Option<(Index, usize)> {
    let index = shared.applied().next();
    if index > ready(shared) || !slice.has_room() {
        return None;
    }
    let at = Version(index.0);
    let entry = shared.log.get(index).expect("what is not applied is held");
    let (term, size) = (entry.term, entry.size());
    slice.take(entry);
    let mut changes = Vec::new();
    let result = match &entry.payload {
        Payload::Noop => {
            shared.table.advance(at);
            None
        }
        Payload::Write { op, command } => {
            let effect = shared.table.apply(*op, command, at);
            changes = effect.changes;
            Some(effect.result)
        }
        Payload::Fence { op } => Some(shared.table.fence(*op, at)),
    };
    // Without changes, too: a watch that begins at this version must learn that it is reached.
    let position = index.0;
    effects.publish(ChangeBatch { position, changes });
    assert_eq!(shared.applied(), index, "entries are applied one by one");
    if let Some(waiting) = shared.pending.take_in_log(index) {
        let reply_to = waiting.reply_to;
        let answer = if waiting.term == term {
            answer(shared, index, &waiting, result, holders)
        } else {
            lost(waiting.kind, UnknownCause::LeaderLost)
        };
        reply_to.answer(answer, effects);
    }
    Some((index, size))
}

fn answer(
    shared: &Shared,
    index: Index,
    waiting: &InLog,
    result: Option<Option<OpResult>>,
    holders: impl FnOnce(Index) -> NodeSet,
) -> Reply {
    let Some(result) = result else {
        unreachable!("nobody waits for a no-op");
    };
    resolved(shared, waiting.reply_to, waiting.kind, result, |_| holders(index))
}

/// The answer to who has asked for an operation whose final result is known. `holders` are the other nodes that hold the
/// entry of this index durably.
pub(crate) fn resolved(
    shared: &Shared,
    reply_to: ReplyTo,
    kind: PendingKind,
    result: Option<OpResult>,
    holders: impl FnOnce(Index) -> NodeSet,
) -> Reply {
    kind.resolved(result, |op, result| {
        let (_, version, _) = result;
        let mut durable_on = holders(Index(version.0));
        durable_on.0.insert(shared.node());
        receipt(shared, reply_to, op, durable_on, result)
    })
}

fn receipt(
    shared: &Shared,
    reply_to: ReplyTo,
    op: OpId,
    durable_on: NodeSet,
    (succeeded, version, found): (bool, Version, Version),
) -> Receipt {
    let to_followers = u8::from(shared.config.members.len() > 1);
    let forwarded = u8::from(matches!(reply_to, ReplyTo::Peer(..)));
    Receipt {
        op,
        succeeded,
        version,
        found,
        epoch: shared.config.epoch,
        achieved: Achieved::StrictSerializable,
        durable_on,
        served_by: shared.node(),
        round_trips: to_followers + forwarded,
        syncs: 1,
    }
}
