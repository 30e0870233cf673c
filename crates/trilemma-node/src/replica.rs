//! One keyspace of a node: its protocol instance, what of its appends is not durable yet, its watchers.

use std::collections::VecDeque;

use bytes::Bytes;
use trilemma_core::host::{Appended, GroupInput, Output};
use trilemma_core::protocol::Force;
use trilemma_core::{AppendSeq, Backend, KeyspaceId, LiveStatus, Now, StatusWatch};
use trilemma_storage::{LogSeq, Progress};

use crate::admission::RECORD_OVERHEAD_BYTES;
use crate::config::{Durability, KeyspaceConfig};
use crate::engine::Engine;
use crate::watchers::Watchers;

/// An append that has got its place in the log.
pub(crate) struct Given {
    pub(crate) seq: AppendSeq,
    pub(crate) force: Force,
    pub(crate) bytes: Bytes,
    /// What it costs until it is durable.
    pub(crate) cost: usize,
}

/// What an append costs until it is durable.
fn cost(append: &Appended) -> usize {
    RECORD_OVERHEAD_BYTES + append.bytes.len()
}

/// See the module.
pub struct Replica {
    name: String,
    id: KeyspaceId,
    backend: Backend,
    durability: Durability,
    counts_majorities: bool,
    pub(crate) engine: Engine,
    pub(crate) watchers: Watchers,
    status: StatusWatch,
    /// What the engine's steps of this turn want done.
    pub(crate) output: Output,
    /// Why it takes no part, if it does not.
    silent: Option<String>,
    /// Why the disk has no room for more of the log, while it has none.
    no_space: Option<String>,
    /// Messages of peers that the engine was handed.
    received: u64,
    /// Appends that wait for their turn to be given to the log, and what they cost together.
    waiting: VecDeque<Appended>,
    waiting_cost: usize,
    /// Appends that the log was given and that are not known to be durable: their number here and in the log, and their
    /// cost.
    appends: VecDeque<(AppendSeq, LogSeq, usize)>,
    /// The last append that the engine knows to be durable, and the log's progress at the last look.
    persisted: AppendSeq,
    reached: LogSeq,
}

impl Replica {
    pub(crate) fn new(
        name: String,
        id: KeyspaceId,
        config: &KeyspaceConfig,
        engine: Engine,
        watchers: Watchers,
    ) -> Self {
        Self {
            name,
            id,
            backend: config.backend,
            durability: config.effective_durability(),
            counts_majorities: config.counts_majorities(),
            engine,
            watchers,
            status: StatusWatch::new(),
            output: Output::default(),
            silent: None,
            no_space: None,
            received: 0,
            waiting: VecDeque::new(),
            waiting_cost: 0,
            appends: VecDeque::new(),
            persisted: AppendSeq::default(),
            reached: LogSeq::default(),
        }
    }

    /// The keyspace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The keyspace's id.
    #[must_use]
    pub fn id(&self) -> KeyspaceId {
        self.id
    }

    /// The keyspace's backend.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The protocol instance.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The keyspace's watches.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// The live status, refreshed a few times a second.
    #[must_use]
    pub fn status_watch(&self) -> StatusWatch {
        self.status.clone()
    }

    /// The live status, computed now.
    #[must_use]
    pub fn status(&self, now: Now) -> LiveStatus {
        let mut status = self.engine.status(now);
        if let (Some(why), false) = (&self.silent, status.can_write) {
            status.why.clone_from(why);
        }
        if let Some(why) = &self.no_space {
            status.can_write = false;
            status.why.clone_from(why);
        }
        status.clipped()
    }

    pub(crate) fn refresh_status(&self, now: Now) {
        self.status.set(self.status(now));
    }

    /// Messages of peers that the protocol instance was handed since the start.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// See [`KeyspaceConfig::counts_majorities`].
    pub(crate) fn counts_majorities(&self) -> bool {
        self.counts_majorities
    }

    pub(crate) fn set_silent(&mut self, why: Option<String>) {
        self.silent = why;
    }

    pub(crate) fn set_no_space(&mut self, why: Option<String>) {
        self.no_space = why;
    }

    /// Whether its acknowledgements wait for less than the disk.
    pub(crate) fn waits_for_written(&self) -> bool {
        self.durability != Durability::Fsync
    }

    /// Whether appends wait for the disk.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.appends.is_empty() || !self.waiting.is_empty()
    }

    /// Steps the engine; what it wants is added to the turn's output.
    pub(crate) fn step(&mut self, now: Now, input: GroupInput) {
        self.received += u64::from(matches!(input, GroupInput::Receive { .. }));
        self.engine.step(now, input, &mut self.output);
        if let Some((from, error)) = self.output.rejected.take() {
            tracing::warn!(keyspace = %self.name, %from, %error, "a peer's message does not decode; it is dropped");
        }
    }

    /// Takes an append, to be given to the log in its turn. Returns what it costs until it is durable.
    pub(crate) fn appended(&mut self, append: Appended) -> usize {
        let cost = cost(&append);
        self.waiting.push_back(append);
        self.waiting_cost += cost;
        cost
    }

    /// What the first append costs that waits for its turn.
    pub(crate) fn first_waiting(&self) -> Option<usize> {
        self.waiting.front().map(cost)
    }

    /// The last append that waits for its turn.
    pub(crate) fn last_waiting(&self) -> Option<AppendSeq> {
        self.waiting.back().map(|append| append.seq)
    }

    /// Gives the first append that waits its place in the node's log.
    pub(crate) fn give(&mut self, at: LogSeq) -> Option<Given> {
        let Appended { seq, force, bytes } = self.waiting.pop_front()?;
        let cost = RECORD_OVERHEAD_BYTES + bytes.len();
        self.waiting_cost -= cost;
        if let Some((last, last_at, _)) = self.appends.back() {
            assert!(*last < seq && *last_at < at, "appends get places in their order");
        }
        assert!(
            seq > self.persisted && at > self.reached,
            "append {seq} at {at} is durable before it is appended"
        );
        self.appends.push_back((seq, at, cost));
        Some(Given {
            seq,
            force,
            bytes,
            cost,
        })
    }

    /// What has become as durable as the keyspace promises, if the log has gone on: the last append, and the cost of all
    /// that no longer wait. The same append again where the log has gone on with the records of other keyspaces alone: a
    /// queue is no disk that stands still.
    pub(crate) fn persisted(&mut self, progress: Progress) -> Option<(AppendSeq, usize)> {
        let reached = match self.durability {
            Durability::Fsync => progress.durable,
            Durability::None | Durability::Os => progress.written,
        };
        if reached <= self.reached {
            return None;
        }
        self.reached = reached;
        if !self.is_writing() {
            return None;
        }
        let mut freed = 0;
        while let Some((seq, at, cost)) = self.appends.front()
            && *at <= reached
        {
            assert!(*seq > self.persisted, "appends become durable in their order");
            self.persisted = *seq;
            freed += cost;
            self.appends.pop_front();
        }
        Some((self.persisted, freed))
    }

    /// What the appends cost that the log was given and that are not durable.
    pub(crate) fn given_bytes(&self) -> usize {
        self.appends.iter().map(|(_, _, cost)| cost).sum()
    }

    /// What all appends cost that are not durable.
    pub(crate) fn undurable_bytes(&self) -> usize {
        self.given_bytes() + self.waiting_cost
    }

    /// The invariants: appends stand in the order of their numbers and places, and none that waits is durable.
    pub(crate) fn check(&self) {
        if let (Some((first, at, _)), Some((last, end, _))) = (self.appends.front(), self.appends.back()) {
            assert!(
                self.persisted < *first && self.reached < *at,
                "{}: append {first} at {at} waits, and {} at {} is durable",
                self.name,
                self.persisted,
                self.reached
            );
            assert!(
                first <= last && at <= end && last.0 - first.0 < self.appends.len() as u64,
                "{}: appends {first} to {last} wait",
                self.name
            );
        }
        if let (Some((last, _, _)), Some(first)) = (self.appends.back(), self.waiting.front()) {
            assert!(
                *last < first.seq,
                "{}: appends are given in their order",
                self.name
            );
        }
        debug_assert_eq!(
            self.waiting.iter().map(cost).sum::<usize>(),
            self.waiting_cost,
            "{}: what waits is counted as it is",
            self.name
        );
        debug_assert!(
            self.output.records.is_empty() && self.output.sends.is_empty() && self.output.replies.is_empty(),
            "{}: what a turn wants is carried out",
            self.name
        );
        assert!(
            self.output.reset.is_none() && self.output.applied.is_empty(),
            "{}: what a turn shows is shown",
            self.name
        );
        self.watchers.check();
    }
}
