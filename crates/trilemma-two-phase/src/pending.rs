//! Pending requests: those of this node's clients that are not answered yet, with their deadlines.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::pending::PendingKind;
use trilemma_core::session::OpResult;
use trilemma_core::{
    Achieved, Instant, OpId, Outcome, Query, ReadLevel, Reason, Receipt, Reply, Ticket, UnknownCause, Version,
};

use crate::config::TwoPhaseConfig;
use crate::ids::BatchId;

/// Items up to which a build with debug assertions looks at each of them after every step. Beyond it that would make
/// tests with many requests quadratic.
pub(crate) const CHECKED_MAX: usize = 128;

/// Whether an operation may take effect without further ado.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not left this node and is in no batch.
    Waiting,
    /// It is in a batch, or was sent to the sequencer.
    Sent,
}

/// What a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Batch(BatchId),
    Version(Version),
}

#[derive(Debug)]
pub(crate) enum Open {
    /// A write, or the question for an outcome.
    Order { kind: PendingKind, stage: Stage },
    Read {
        query: Query,
        level: ReadLevel,
        wait: WaitFor,
    },
}

/// Open requests by ticket.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    open: BTreeMap<Ticket, (Instant, Open)>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    on_batch: BTreeMap<BatchId, Vec<Ticket>>,
    on_version: BTreeSet<(Version, Ticket)>,
    reads: usize,
}

impl PendingRequests {
    pub(crate) fn add(&mut self, ticket: Ticket, deadline: Instant, open: Open) {
        if let Open::Read { wait, .. } = &open {
            self.reads += 1;
            match wait {
                WaitFor::Batch(id) => self.on_batch.entry(*id).or_default().push(ticket),
                WaitFor::Version(version) => {
                    self.on_version.insert((*version, ticket));
                }
            }
        }
        self.deadlines.insert((deadline, ticket));
        let doubled = self.open.insert(ticket, (deadline, open));
        assert!(doubled.is_none(), "the host names request {ticket} once");
    }

    /// The invariants: every index knows the same requests, or one of them would never be answered.
    pub(crate) fn check(&self) {
        assert_eq!(
            self.open.len(),
            self.deadlines.len(),
            "each open request has one deadline"
        );
        assert!(
            self.reads <= self.open.len(),
            "{} reads among {} requests",
            self.reads,
            self.open.len()
        );
        assert!(
            self.on_version.len() <= self.reads,
            "only reads wait for versions"
        );
        assert!(self.on_batch.len() <= self.reads, "only reads wait for batches");
        if cfg!(debug_assertions) && self.open.len() <= CHECKED_MAX {
            let is_read = |open: &&(Instant, Open)| matches!(open.1, Open::Read { .. });
            let on_batch: usize = self.on_batch.values().map(Vec::len).sum();
            assert_eq!(
                self.open.values().filter(is_read).count(),
                self.reads,
                "reads are counted"
            );
            assert_eq!(
                on_batch + self.on_version.len(),
                self.reads,
                "each read waits for one thing"
            );
            assert!(
                (self.open.iter()).all(|(ticket, (at, _))| self.deadlines.contains(&(*at, *ticket))),
                "each open request is found by its deadline"
            );
        }
    }

    /// Takes a request away, to answer it.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Open> {
        self.remove(ticket).map(|(_, open)| open)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<(Instant, Open)> {
        let (deadline, open) = self.open.remove(&ticket)?;
        self.deadlines.remove(&(deadline, ticket));
        if let Open::Read { wait, .. } = &open {
            assert!(self.reads > 0, "read {ticket} was counted when it came");
            self.reads -= 1;
            match wait {
                WaitFor::Batch(id) => {
                    if let Some(tickets) = self.on_batch.get_mut(id) {
                        tickets.retain(|other| *other != ticket);
                        if tickets.is_empty() {
                            self.on_batch.remove(id);
                        }
                    }
                }
                WaitFor::Version(version) => {
                    self.on_version.remove(&(*version, ticket));
                }
            }
        }
        Some((deadline, open))
    }

    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Notes that an operation may take effect from now on.
    pub(crate) fn mark_sent(&mut self, ticket: Ticket) {
        if let Some((_, Open::Order { stage, .. })) = self.open.get_mut(&ticket) {
            *stage = Stage::Sent;
        }
    }

    /// Number of reads that wait.
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }

    /// Takes the next request whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(Ticket, Open)> {
        let (_, ticket) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)?;
        self.take(ticket).map(|open| (ticket, open))
    }

    /// Takes the reads that wait for exactly this batch.
    pub(crate) fn reads_on(&mut self, id: BatchId) -> Vec<(Ticket, Instant, Open)> {
        let tickets = self.on_batch.remove(&id).unwrap_or_default();
        let taken = tickets.into_iter().filter_map(|ticket| {
            self.remove(ticket)
                .map(|(deadline, open)| (ticket, deadline, open))
        });
        taken.collect()
    }

    /// Takes all reads that wait.
    pub(crate) fn take_reads(&mut self) -> Vec<Ticket> {
        let is_read = |(ticket, (_, open)): (&Ticket, &(Instant, Open))| {
            matches!(open, Open::Read { .. }).then_some(*ticket)
        };
        let reads: Vec<Ticket> = self.open.iter().filter_map(is_read).collect();
        for ticket in &reads {
            self.remove(*ticket);
        }
        reads
    }

    /// Takes the next read that waits for this version or an older one.
    pub(crate) fn read_at(&mut self, version: Version) -> Option<(Ticket, Open)> {
        let (_, ticket) = self
            .on_version
            .first()
            .copied()
            .filter(|(wanted, _)| *wanted <= version)?;
        self.take(ticket).map(|open| (ticket, open))
    }
}

/// The answer when nobody here can tell. A question for an outcome is a fence, which is on its way.
pub(crate) fn unknown(kind: PendingKind, cause: UnknownCause) -> Reply {
    match kind {
        PendingKind::Outcome { .. } => Reply::Outcome(Ok(Outcome::Pending)),
        PendingKind::Write { .. } | PendingKind::Read => kind.lost(cause, Reason::Deadline),
    }
}

/// The answer when the operation's final result is known.
pub(crate) fn resolve(kind: PendingKind, result: Option<OpResult>, config: &TwoPhaseConfig) -> Reply {
    kind.resolved(result, |op, result| receipt(op, result, config))
}

fn receipt(
    op: OpId,
    (succeeded, version, found): (bool, Version, Version),
    config: &TwoPhaseConfig,
) -> Receipt {
    let is_alone = config.members.len() == 1;
    let is_forwarded = config.node != config.sequencer;
    Receipt {
        op,
        succeeded,
        version,
        found,
        epoch: config.epoch,
        achieved: Achieved::StrictSerializable,
        durable_on: config.members.iter().copied().collect(),
        served_by: config.sequencer,
        round_trips: if is_alone { 0 } else { 1 + u8::from(is_forwarded) },
        syncs: if is_alone { 1 } else { 2 },
    }
}

#[cfg(test)]
mod tests;
