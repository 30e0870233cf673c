//! Ordering: from the queue into batches, from votes to decisions, or back.

use std::sync::Arc;

use trilemma_core::session::Admission;
use trilemma_core::{AppendSeq, Command, Instant, NodeId, Reason};

use super::{Flight, LinkState, Queued, ReplyTo, Sequencer};
use crate::batch::{Batch, Transaction};
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{CHAIN_MAX, Message, UNFINISHED_MAX, Verdict};
use crate::pending::{Open, resolve};
use crate::record::Record;

impl Sequencer {
    /// Whether the request can be answered without ordering it; the answer, if so.
    pub(super) fn admit(&self, core: &Core, transaction: &Transaction) -> Option<Verdict> {
        let refuse = |reason: Reason| Some(Verdict::Refused(reason.into()));
        if let Some(why) = &self.diverged {
            return refuse(Reason::Recovering { why: why.clone() });
        }
        match core.ledger.table.sessions().admit(transaction.op()) {
            Admission::Repeat(result) => return Some(Verdict::Resolved(Some(result))),
            Admission::Expired => return Some(Verdict::Resolved(None)),
            Admission::New => {}
        }
        if !core.missing.is_empty() {
            let missing = core.missing.clone();
            return refuse(Reason::NotAllParticipants { missing });
        }
        let bytes = self.queue_bytes + transaction.size();
        if self.queue.len() >= core.config.queue_max || bytes > core.config.queue_bytes {
            let what = format!("{} operations wait at the sequencer already", self.queue.len());
            return refuse(Reason::Overloaded { what });
        }
        None
    }

    pub(super) fn enqueue(
        &mut self,
        now: Instant,
        transaction: Transaction,
        waiter: ReplyTo,
        deadline: Instant,
    ) {
        self.queue_bytes += transaction.size();
        self.queue.push_back(Queued {
            transaction,
            waiter,
            deadline,
            since: now,
        });
    }

    fn dequeue(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        let size = queued.transaction.size();
        assert!(self.queue_bytes >= size, "a transaction was counted when it came");
        self.queue_bytes -= size;
        Some(queued)
    }

    /// Whether every member stands on the chain, so that batches can be ordered.
    pub(super) fn can_order(&self, core: &Core) -> bool {
        core.ledger.is_joined
            && self.diverged.is_none()
            && self.links.values().all(|link| link.state == LinkState::Linked)
    }

    /// Closes batches while the pipeline has room. Returns whether a `Prepare` went to everybody.
    pub(super) fn order(&mut self, core: &mut Core, now: Instant, effects: &mut Out) -> bool {
        let depth = core.config.pipeline_depth.clamp(1, CHAIN_MAX / 2);
        let mut has_sent = false;
        while self.flights.len() < depth
            && !self.queue.is_empty()
            && core.ledger.recent.len() + self.flights.len() < UNFINISHED_MAX
            && self.can_order(core)
        {
            let Some(flight) = self.fill(core, now) else { break };
            let head = core.head();
            for node in self.links.keys() {
                let batch = Arc::clone(&flight.batch);
                effects.send(*node, Message::Prepare { batch, head });
                has_sent = true;
            }
            self.flights.push_back(flight);
        }
        self.decide(now, effects);
        has_sent
    }

    /// Makes the next batch from the front of the queue; `None` if nobody there waits any more.
    fn fill(&mut self, core: &mut Core, now: Instant) -> Option<Flight> {
        let first = self.speculative.version().next();
        let (mut transactions, mut waiters, mut done) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        while transactions.len() < core.config.transactions_max()
            && bytes < core.config.batch_bytes
            && let Some(queued) = self.dequeue()
        {
            match queued.waiter {
                // Answered at its deadline.
                ReplyTo::Local(ticket) if !core.pending.is_open(ticket) => continue,
                ReplyTo::Local(ticket) => core.pending.mark_sent(ticket),
                ReplyTo::Remote(node, incarnation, number) if queued.deadline <= now => {
                    self.answer(
                        node,
                        incarnation,
                        number,
                        Verdict::Refused(Reason::Deadline.into()),
                    );
                    continue;
                }
                ReplyTo::Remote(..) => {}
            }
            let transaction = self.reduce(queued.transaction);
            bytes += transaction.size();
            let at = self.speculative.version().next();
            done.push(transaction.apply(&mut self.speculative, at));
            transactions.push(transaction);
            waiters.push(queued.waiter);
        }
        if transactions.is_empty() {
            return None;
        }
        let id = self.next_id(core);
        self.next_seq += 1;
        let prev = self
            .flights
            .back()
            .map_or(core.ledger.decided, |flight| flight.batch.id);
        let batch = Arc::new(Batch {
            id,
            prev,
            first,
            transactions,
        });
        Some(Flight {
            batch,
            waiters,
            done,
            after: self.speculative.clone(),
            sent: now,
            resent: now,
            decision: None,
        })
    }

    /// Leaves out what will not happen: a write whose guard fails needs no more than that guard, and a repeat of one
    /// that is in flight nothing at all.
    fn reduce(&self, transaction: Transaction) -> Transaction {
        let Transaction::Write { op, command } = &transaction else {
            return transaction;
        };
        let guards = match self.speculative.sessions().admit(*op) {
            Admission::New => match self.speculative.failed_guard(command) {
                Some(guard) => vec![guard.clone()],
                None => return transaction,
            },
            Admission::Repeat(_) | Admission::Expired => Vec::new(),
        };
        Transaction::Write {
            op: *op,
            command: Command {
                guards,
                mutations: Vec::new(),
            },
        }
    }

    /// Appends the decision of every batch that all members have voted for, in chain order.
    fn decide(&mut self, now: Instant, effects: &mut Out) {
        let voted = self.links.values().map(|link| link.voted).min();
        for flight in &mut self.flights {
            if flight.decision.is_some() {
                continue;
            }
            if voted.is_some_and(|voted| voted < flight.batch.id) {
                break;
            }
            let all = self.links.values().all(|link| link.voted >= flight.batch.id);
            assert!(all, "batch {} is decided without a vote", flight.batch.id);
            flight.decision = Some(effects.append(Record::Decision(Arc::clone(&flight.batch))));
            self.votes.answered(now - flight.sent);
            self.in_vain = 0;
        }
    }

    /// Decisions up to this record are durable: their batches are committed, and those who wait get their answers.
    pub(super) fn land(&mut self, core: &mut Core, up_to: AppendSeq, effects: &mut Out) {
        let mut has_landed = false;
        while let Some(front) = self.flights.front()
            && front.decision.is_some_and(|seq| seq <= up_to)
            && let Some(flight) = self.flights.pop_front()
        {
            assert_eq!(
                flight.batch.prev, core.ledger.decided,
                "batches are decided in the chain's order"
            );
            core.ledger.table = flight.after;
            core.ledger.advance(flight.batch.id);
            for (waiter, done) in flight.waiters.into_iter().zip(&flight.done) {
                // A forwarder answers its client itself when it learns that the batch is committed.
                if let ReplyTo::Local(ticket) = waiter
                    && let Some(Open::Order { kind, .. }) = core.pending.take(ticket)
                {
                    effects.reply(ticket, resolve(kind, done.result, &core.config));
                }
            }
            Core::tell_watchers(flight.batch.first, flight.done, effects);
            has_landed = true;
        }
        if has_landed {
            core.wake_versions(effects);
        }
    }

    /// Gives up the batch at `index` and all after it: none of them has a `Decision`, so none can be committed.
    pub(super) fn abort_from(&mut self, core: &mut Core, index: usize, reason: &Reason, effects: &mut Out) {
        let aborted = self.flights.split_off(index);
        let Some(first) = aborted.front() else { return };
        tracing::info!(batch = %first.batch.id, count = aborted.len(), %reason, "batches are aborted");
        assert!(
            aborted.iter().all(|flight| flight.decision.is_none()),
            "a batch is aborted after its decision was appended"
        );
        let tip = self.flights.back();
        let tip_id = tip.map_or(core.ledger.decided, |flight| flight.batch.id);
        self.speculative = tip.map_or(&core.ledger.table, |flight| &flight.after).clone();
        for link in self.links.values_mut() {
            link.voted = link.voted.min(tip_id);
        }
        for waiter in aborted.into_iter().flat_map(|flight| flight.waiters) {
            self.refuse(core, waiter, reason, effects);
        }
        let resolved = self.resolved(core, core.ledger.floor);
        for (node, link) in &self.links {
            if link.state == LinkState::Linked {
                effects.send(*node, Message::Resolved(resolved.clone()));
            }
        }
    }

    /// Whatever waits for a batch is to be refused.
    pub(super) fn refuse_queue(&mut self, reason: Reason) {
        if !self.queue.is_empty() {
            self.queue_bytes = 0;
            self.refused.push_back((std::mem::take(&mut self.queue), reason));
        }
    }

    /// Refuses the next operations of those that are to be refused; returns whether there are more.
    pub(super) fn refuse_some(&mut self, core: &mut Core, effects: &mut Out) -> bool {
        for _ in 0..core.config.turn_operations.max(1) {
            let Some((queue, reason)) = self.refused.front_mut() else {
                break;
            };
            let reason = reason.clone();
            match queue.pop_front() {
                Some(queued) => self.refuse(core, queued.waiter, &reason, effects),
                None => drop(self.refused.pop_front()),
            }
        }
        !self.refused.is_empty()
    }

    fn refuse(&mut self, core: &mut Core, waiter: ReplyTo, reason: &Reason, effects: &mut Out) {
        match waiter {
            ReplyTo::Local(ticket) => {
                if let Some(Open::Order { kind, .. }) = core.pending.take(ticket) {
                    effects.reply(ticket, kind.refused(reason.clone()));
                }
            }
            ReplyTo::Remote(node, incarnation, number) => {
                self.answer(node, incarnation, number, Verdict::Refused(reason.clone().into()));
            }
        }
    }

    /// Counts a vote. What all have voted for is decided at the end of the turn.
    pub(super) fn on_vote(&mut self, core: &mut Core, from: NodeId, prepared: BatchId, acked: BatchId) {
        let decided = core.ledger.decided;
        let is_in_flight = self.flights.iter().any(|flight| flight.batch.id == prepared);
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        if link.state != LinkState::Linked {
            return;
        }
        if acked <= decided {
            link.acked = link.acked.max(acked);
        }
        // A vote for a batch that is not in flight (any more) says nothing about those that are.
        if is_in_flight && prepared > link.voted {
            link.voted = prepared;
        }
        self.update_watermark(core);
    }

    pub(super) fn on_refusal(
        &mut self,
        core: &mut Core,
        from: NodeId,
        id: BatchId,
        why: String,
        effects: &mut Out,
    ) {
        let index = self.flights.iter().position(|flight| flight.batch.id == id);
        let Some(index) = index else { return };
        if self.flights[index].decision.is_some() {
            // It had voted before. Only a member that lost its data, or a broken one, refuses then.
            tracing::error!(%from, batch = %id, "a member refuses a batch that it has voted for");
            return;
        }
        self.abort_from(core, index, &Reason::Refused { node: from, why }, effects);
    }
}
