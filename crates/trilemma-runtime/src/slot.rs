//! One keyspace of a node: its protocol instance, what of its appends is not durable yet, its watchers.

use std::collections::VecDeque;

use trilemma_core::host::{Group, GroupInput, Output};
use trilemma_core::{AppendSeq, Applied, Backend, KeyspaceId, Now, StatusWatch};
use trilemma_storage::{LogSeq, Progress};

use crate::config::{Durability, KeyspaceConfig};
use crate::watchers::Watchers;

/// See the module.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) id: KeyspaceId,
    pub(crate) backend: Backend,
    durability: Durability,
    pub(crate) group: Box<dyn Group>,
    pub(crate) watchers: Watchers,
    pub(crate) status: StatusWatch,
    /// What the group's steps of this turn want done.
    pub(crate) output: Output,
    /// Appends that are not known to be durable: their number here and in the node's log.
    pending: VecDeque<(AppendSeq, LogSeq)>,
}

impl Slot {
    pub(crate) fn new(
        name: String,
        id: KeyspaceId,
        config: &KeyspaceConfig,
        group: Box<dyn Group>,
        watchers: Watchers,
    ) -> Self {
        Self {
            name,
            id,
            backend: config.backend,
            durability: config.effective_durability(),
            group,
            watchers,
            status: StatusWatch::new(),
            output: Output::default(),
            pending: VecDeque::new(),
        }
    }

    /// Steps the group; what it wants is added to `output`.
    pub(crate) fn step(&mut self, now: Now, input: GroupInput) {
        self.group.step(now, input, &mut self.output);
        if let Some((from, error)) = self.output.rejected.take() {
            tracing::warn!(keyspace = %self.name, %from, %error, "a peer's message does not decode; it is dropped");
        }
    }

    /// Notes that an append of this group has a place in the node's log.
    pub(crate) fn appended(&mut self, seq: AppendSeq, at: LogSeq) {
        self.pending.push_back((seq, at));
    }

    /// Tells the group what has become as durable as its keyspace promises.
    pub(crate) fn persisted(&mut self, now: Now, progress: Progress) {
        let reached = match self.durability {
            Durability::Fsync => progress.durable,
            Durability::None | Durability::Os => progress.written,
        };
        let mut up_to = None;
        while let Some((seq, at)) = self.pending.front()
            && *at <= reached
        {
            up_to = Some(*seq);
            self.pending.pop_front();
        }
        if let Some(up_to) = up_to {
            self.step(now, GroupInput::Persisted { up_to });
        }
    }

    /// Shows watchers what has changed.
    pub(crate) fn publish(&mut self, applied: impl Iterator<Item = Applied>) {
        for applied in applied {
            self.watchers.publish(applied);
        }
        self.watchers.pump();
    }

    /// Starts watchers anew after the state has jumped.
    pub(crate) fn reset_watchers(&mut self, position: u64) {
        let group = &self.group;
        self.watchers
            .reset(position, |range| group.scan(range, usize::MAX));
    }

    /// Computes the live status.
    pub(crate) fn refresh_status(&self, now: Now) {
        self.status.set(self.group.status(now));
    }
}

#[cfg(test)]
mod tests;
