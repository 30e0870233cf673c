//! Answers that wait for the disk. Each is given once: when its records are durable, or at its deadline as unknown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trilemma_core::{AppendSeq, Instant, OpId, Reason, Reply, Ticket, UnknownCause, WriteError};

/// Most answers that wait at the same time; more writes are refused as overload.
const WAITING_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order of the records they wait for. Answers given at their deadline are gone from `answers` only.
    order: VecDeque<(AppendSeq, Ticket)>,
    answers: BTreeMap<Ticket, (Instant, OpId, Reply)>,
    deadlines: BTreeSet<(Instant, Ticket)>,
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.order.len() >= WAITING_MAX
    }

    pub(super) fn add(&mut self, seq: AppendSeq, ticket: Ticket, deadline: Instant, op: OpId, reply: Reply) {
        self.order.push_back((seq, ticket));
        self.deadlines.insert((deadline, ticket));
        self.answers.insert(ticket, (deadline, op, reply));
    }

    /// The answers whose records, up to `persisted`, are durable.
    pub(super) fn take(&mut self, persisted: AppendSeq) -> Vec<(Ticket, Reply)> {
        let mut ready = Vec::new();
        while let Some(&(seq, ticket)) = self.order.front()
            && seq <= persisted
        {
            self.order.pop_front();
            if let Some((deadline, _, reply)) = self.answers.remove(&ticket) {
                self.deadlines.remove(&(deadline, ticket));
                ready.push((ticket, reply));
            }
        }
        ready
    }

    /// The answers for those whose time is up: the record was handed to the disk and may yet become durable.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Ticket, Reply)> {
        let mut late = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some((_, op, reply)) = self.answers.remove(&ticket) else {
                continue;
            };
            let cause = UnknownCause::Deadline;
            let reply = match reply {
                Reply::Outcome(_) => Reply::Outcome(Err(Reason::Deadline.into())),
                _ => Reply::Write(Err(WriteError::Unknown { op, cause })),
            };
            late.push((ticket, reply));
        }
        late
    }

    /// The module's own invariants.
    pub(super) fn check(&self, persisted: AppendSeq) {
        assert_eq!(self.answers.len(), self.deadlines.len(), "answers and deadlines");
        assert!(
            self.answers.len() <= self.order.len(),
            "an answer that waits for no record"
        );
        let first = self.order.front();
        assert!(
            first.is_none_or(|(seq, _)| *seq > persisted),
            "an answer that is due waits"
        );
        debug_assert!(
            self.order.iter().is_sorted_by_key(|(seq, _)| *seq),
            "answers out of order"
        );
    }

    pub(super) fn first_deadline(&self) -> Instant {
        self.deadlines
            .first()
            .map_or(Instant::NEVER, |(deadline, _)| *deadline)
    }
}
