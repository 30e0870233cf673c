//! Writes proposed at a member: passed to the sequencer, answered from the chain.
//!
//! A committed operation is answered when this member learns of the commit, so the answer cannot be lost, and a read
//! here that follows it sees it at once. Only refusals come back as messages.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::session::Admission;
use trilemma_core::{Incarnation, Instant, OpId, Reason, Ticket, UnknownCause};

use super::Member;
use crate::batch::{Batch, Done, Transaction};
use crate::core::{Core, Out};
use crate::message::{Answer, FORWARDS_MAX, Forward, Message, Verdict};
use crate::pending::{CHECKED_MAX, Open, Stage, resolve, unknown};

/// Time without an answer after which an operation is passed on again (under the same number).
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Operations under way.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    items: BTreeMap<u64, Pending>,
    by_op: BTreeMap<OpId, Vec<u64>>,
    by_ticket: BTreeMap<Ticket, u64>,
    unsent: Vec<u64>,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    deadline: Instant,
    transaction: Transaction,
    /// The sequencer's incarnation that it was sent to last, and when.
    sent: Option<(Incarnation, Instant)>,
}

impl Forwards {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How far the next number is beyond the oldest under way. The sequencer remembers no more than a window of them.
    fn ahead(&self) -> u64 {
        let oldest = self.items.first_key_value();
        oldest.map_or(0, |(oldest, _)| self.last + 1 - oldest)
    }

    /// The invariants of what is under way: every index knows the same operations, and each has a client that waits.
    pub(super) fn check(&self, core: &Core) {
        assert_eq!(
            self.items.len(),
            self.by_ticket.len(),
            "each operation has one ticket"
        );
        assert_eq!(self.items.is_empty(), self.bytes == 0, "bytes are counted");
        assert!(
            self.by_op.len() <= self.items.len(),
            "only operations under way are found"
        );
        assert!(
            self.items.len() <= FORWARDS_MAX,
            "operations under way are bounded"
        );
        let newest = self.items.last_key_value().map_or(0, |(number, _)| *number);
        assert!(newest <= self.last, "number {newest} was given out");
        if cfg!(debug_assertions) && self.items.len() <= CHECKED_MAX {
            let bytes: usize = self
                .items
                .values()
                .map(|pending| pending.transaction.size())
                .sum();
            assert_eq!(bytes, self.bytes, "bytes are counted");
            let found: usize = self.by_op.values().map(Vec::len).sum();
            assert_eq!(found, self.items.len(), "each operation is found by its id");
            for pending in self.items.values() {
                assert!(
                    core.pending.is_open(pending.ticket),
                    "request {} waits",
                    pending.ticket
                );
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.items.remove(&number)?;
        let op = pending.transaction.op();
        if let Some(numbers) = self.by_op.get_mut(&op) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_op.remove(&op);
            }
        }
        self.by_ticket.remove(&pending.ticket);
        self.bytes -= pending.transaction.size();
        Some(pending)
    }
}

impl Member {
    pub(super) fn forward(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        deadline: Instant,
        kind: PendingKind,
        transaction: Transaction,
        effects: &mut Out,
    ) {
        if let Some(why) = self.unready(core) {
            effects.reply(ticket, kind.refused(Reason::Recovering { why }));
            return;
        }
        let op = transaction.op();
        // What is decided stays so: a repeat is answered here, in any partition.
        match core.ledger.table.sessions().admit(op) {
            Admission::Repeat(result) => {
                effects.reply(ticket, resolve(kind, Some(result), &core.config));
                return;
            }
            Admission::Expired => {
                effects.reply(ticket, resolve(kind, None, &core.config));
                return;
            }
            Admission::New => {}
        }
        let node = core.config.sequencer;
        if !core.is_connected(node) {
            effects.reply(ticket, kind.refused(Reason::NoSequencer { node }));
            return;
        }
        let forwards = &mut self.forwards;
        let size = transaction.size();
        if forwards.ahead() >= core.config.forwards_window() as u64 {
            let what = format!(
                "an operation that was passed to the sequencer waits for its answer, and {} came after it",
                forwards.ahead()
            );
            effects.reply(ticket, kind.refused(Reason::Overloaded { what }));
            return;
        }
        if forwards.items.len() >= core.config.queue_max.min(core.config.forwards_max)
            || forwards.bytes + size > core.config.queue_bytes
        {
            let what = format!(
                "{} operations are under way to the sequencer",
                forwards.items.len()
            );
            effects.reply(ticket, kind.refused(Reason::Overloaded { what }));
            return;
        }
        forwards.last += 1;
        let number = forwards.last;
        forwards.by_op.entry(op).or_default().push(number);
        forwards.by_ticket.insert(ticket, number);
        forwards.unsent.push(number);
        forwards.bytes += size;
        let pending = Pending {
            ticket,
            deadline,
            transaction,
            sent: None,
        };
        let doubled = forwards.items.insert(number, pending);
        assert!(doubled.is_none(), "number {number} is given out once");
        let stage = Stage::Waiting;
        core.pending.add(ticket, deadline, Open::Order { kind, stage });
    }

    /// Sends what waits, if the sequencer's incarnation is known, as much as a turn may; returns whether there is more.
    pub(super) fn send_forwards(&mut self, core: &mut Core, now: Instant, effects: &mut Out) -> bool {
        let Some(sequencer) = self.linked.filter(|_| !self.forwards.unsent.is_empty()) else {
            return false;
        };
        let forwards = &mut self.forwards;
        let done_below = forwards.items.keys().next().copied().unwrap_or(forwards.last + 1);
        let mut items: Vec<Forward> = Vec::new();
        let (mut bytes, mut all_bytes, mut count) = (0, 0, 0);
        let to = core.config.sequencer;
        let incarnation = core.config.incarnation;
        let message = |items: Vec<Forward>| Message::Forwards {
            sequencer,
            incarnation,
            done_below,
            items,
        };
        let mut unsent = std::mem::take(&mut forwards.unsent).into_iter();
        while all_bytes < core.config.turn_bytes.max(1)
            && count < core.config.turn_operations.max(1)
            && let Some(number) = unsent.next()
        {
            let Some(pending) = forwards.items.get_mut(&number) else {
                continue;
            };
            count += 1;
            all_bytes += pending.transaction.size();
            pending.sent = Some((sequencer, now));
            core.pending.mark_sent(pending.ticket);
            bytes += pending.transaction.size();
            let timeout = pending.deadline.since(now).as_millis();
            items.push(Forward {
                number,
                timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
                transaction: pending.transaction.clone(),
            });
            if items.len() == FORWARDS_MAX || bytes >= core.config.batch_bytes {
                bytes = 0;
                effects.send(to, message(std::mem::take(&mut items)));
            }
        }
        if !items.is_empty() {
            effects.send(to, message(items));
        }
        forwards.unsent = unsent.collect();
        !forwards.unsent.is_empty()
    }

    /// Repeats what has gone unanswered for long.
    pub(super) fn forward_again(&mut self, now: Instant) {
        let forwards = &mut self.forwards;
        let late = forwards
            .items
            .iter()
            .filter(|(_, pending)| pending.sent.is_some_and(|(_, at)| now.since(at) >= AGAIN_AFTER));
        let late: Vec<u64> = late.map(|(number, _)| *number).collect();
        if !late.is_empty() {
            forwards.unsent.extend(late);
            forwards.unsent.sort_unstable();
            forwards.unsent.dedup();
        }
    }

    /// The sequencer has a new incarnation: it knows of nothing that it had not decided before.
    pub(super) fn forward_all_again(&mut self) {
        self.forwards.unsent = self.forwards.items.keys().copied().collect();
    }

    /// The sequencer cannot be reached: what was not sent is refused for certain.
    pub(super) fn refuse_unsent(&mut self, core: &mut Core, effects: &mut Out) {
        let node = core.config.sequencer;
        let unsent = self
            .forwards
            .items
            .iter()
            .filter(|(_, pending)| pending.sent.is_none());
        let unsent: Vec<u64> = unsent.map(|(number, _)| *number).collect();
        for number in unsent {
            if let Some(pending) = self.forwards.remove(number)
                && let Some(Open::Order { kind, .. }) = core.pending.take(pending.ticket)
            {
                effects.reply(pending.ticket, kind.refused(Reason::NoSequencer { node }));
            }
        }
    }

    /// A batch is committed: the caller that waits for one of its operations gets its answer.
    pub(super) fn resolve_forwards(
        &mut self,
        core: &mut Core,
        batch: &Batch,
        done: &[Done],
        effects: &mut Out,
    ) {
        // A result that was found on a state which is not to be believed is no answer.
        if self.forwards.is_empty() || self.diverged.is_some() {
            return;
        }
        for (transaction, done) in batch.transactions.iter().zip(done) {
            let numbers = self.forwards.by_op.get(&transaction.op()).cloned();
            for number in numbers.into_iter().flatten() {
                if let Some(pending) = self.forwards.remove(number)
                    && let Some(Open::Order { kind, .. }) = core.pending.take(pending.ticket)
                {
                    effects.reply(pending.ticket, resolve(kind, done.result, &core.config));
                }
            }
        }
    }

    pub(super) fn on_answers(
        &mut self,
        core: &mut Core,
        sequencer: Incarnation,
        items: Vec<Answer>,
        effects: &mut Out,
    ) {
        for Answer { number, verdict } in items {
            // A refusal counts if nobody but its sender can have the request.
            let is_current = self.forwards.items.get(&number).is_some_and(|pending| {
                pending
                    .sent
                    .is_some_and(|(incarnation, _)| incarnation == sequencer)
            });
            if !is_current {
                continue;
            }
            let Some(pending) = self.forwards.remove(number) else {
                continue;
            };
            let Some(Open::Order { kind, .. }) = core.pending.take(pending.ticket) else {
                continue;
            };
            let reply = match verdict {
                Verdict::Refused(refusal) => kind.refused(refusal.reason),
                Verdict::Unknown(cause) => unknown(kind, cause),
                Verdict::Resolved(result) => resolve(kind, result, &core.config),
            };
            effects.reply(pending.ticket, reply);
        }
    }

    /// The deadline of a forwarded operation has come: why its outcome is unknown.
    pub(crate) fn give_up(&mut self, core: &Core, ticket: Ticket) -> UnknownCause {
        if let Some(number) = self.forwards.by_ticket.get(&ticket).copied() {
            self.forwards.remove(number);
        }
        if core.is_connected(core.config.sequencer) {
            UnknownCause::Deadline
        } else {
            UnknownCause::LeaderLost
        }
    }
}

#[cfg(test)]
mod tests;
