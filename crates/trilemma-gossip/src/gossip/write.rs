//! Clients' writes, the recognition of repeats, and the question what became of an operation.

use std::collections::BTreeMap;

use trilemma_core::session::{Admission, OpResult};
use trilemma_core::{
    Achieved, AppendSeq, Attempt, Command, Epoch, Instant, Key, Mutation, NodeSet, NotApplied, Now, OpId,
    Outcome, Reason, Receipt, Reply, Ticket, UnknownCause, Value, Version, WriteError,
};

use super::{Gossip, Out};
use crate::config::Durability;
use crate::dot::{Dot, OBSERVED_MAX};
use crate::hlc::{Stamp, is_acceptable};
use crate::message::Record;
use crate::replica::{Item, Part};

/// A write without its command.
pub(super) struct Write {
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
    pub(super) op: OpId,
    pub(super) attempt: Attempt,
}

impl Gossip {
    pub(super) fn write(&mut self, now: Now, write: Write, command: &Command, effects: Out<'_>) {
        let answer = |result| Reply::Write(result);
        if let Err(refusal) = refuse(command).map_or(Ok(()), Err).and(command.validate()) {
            return effects.reply(write.ticket, answer(Err(refusal.into())));
        }
        match self.admit(now, write.op) {
            Admission::Repeat(OpResult::Applied { version, .. }) => {
                let receipt = self.receipt(write.op, version);
                return self.reply_when_durable(&write, answer(Ok(receipt)), effects);
            }
            Admission::Repeat(OpResult::Fenced) => {
                let refusal = NotApplied::never(Reason::Fenced);
                return effects.reply(write.ticket, answer(Err(refusal.into())));
            }
            Admission::Expired => {
                let error = match write.attempt {
                    Attempt::First => Reason::SessionExpired.into(),
                    Attempt::Retry => WriteError::Unknown {
                        op: write.op,
                        cause: UnknownCause::SessionExpired,
                    },
                };
                return effects.reply(write.ticket, answer(Err(error)));
            }
            Admission::New => {}
        }
        let result = if write.deadline <= now.instant {
            Err(Reason::Deadline.into())
        } else {
            self.execute(now, write.op, command, effects)
        };
        match result {
            Ok(stamp) => {
                let receipt = self.receipt(write.op, stamp.version());
                self.reply_when_durable(&write, answer(Ok(receipt)), effects);
            }
            Err(refusal) => effects.reply(write.ticket, answer(Err(refusal.into()))),
        }
    }

    /// What to do with an operation. Its session was made at a position that its client knew of, perhaps from another
    /// node: our stamps go beyond that, or the record of evicted sessions could not tell it from a new one. A position
    /// further ahead than we follow is refused; the client opens a new session here.
    fn admit(&mut self, now: Now, op: OpId) -> Admission {
        let basis = Stamp(op.session.basis.0);
        if basis > self.clock.last() {
            if !is_acceptable(basis, now.wall, self.config.accept_drift) {
                return Admission::Expired;
            }
            self.clock.observe(basis);
        }
        self.sessions.admit(op)
    }

    /// Makes the changes of a new operation: one stamp, consecutive dots, visible and logged together.
    fn execute(
        &mut self,
        now: Now,
        op: OpId,
        command: &Command,
        effects: Out<'_>,
    ) -> Result<Stamp, NotApplied> {
        if self.waiting.is_full() {
            return Err(overloaded("too many writes wait for the disk"));
        }
        // Of several mutations of one key the last one counts; nobody could see the others.
        let mut last: BTreeMap<&Key, Option<&Value>> = BTreeMap::new();
        for mutation in &command.mutations {
            last.insert(mutation.key(), mutation.value());
        }
        let observed: Vec<_> = last.keys().map(|key| self.replica.observed(key)).collect();
        if observed.iter().any(|observed| observed.len() >= OBSERVED_MAX) {
            return Err(overloaded(
                "the key was written by too many lives of nodes since all members last agreed on it",
            ));
        }
        let stamp = self.clock.issue(now.wall).ok_or_else(|| {
            NotApplied::never(Reason::Invalid {
                what: "the hybrid logical clock is at its end; the wall clock of some node is wrong".into(),
            })
        })?;
        self.extend_lease(effects);
        let of = last.len() as u16;
        let items: Vec<Item> = last
            .into_iter()
            .zip(observed)
            .zip(0..)
            .map(|(((key, value), observed), index)| Item {
                dot: self.next_dot(),
                stamp,
                key: key.clone(),
                content: value.cloned(),
                observed,
                part: Part { index, of },
            })
            .collect();
        let result = OpResult::Applied {
            won: true,
            version: stamp.version(),
            found: Version::ABSENT,
        };
        self.sessions.record(op, result, stamp.version());
        let items = self.take_in(items, effects);
        assert_eq!(items.len(), usize::from(of), "our own new dots are new");
        let first = items.first().map(|item| item.dot);
        let record = Record::Write { op, stamp, items };
        self.log(record, effects);
        if let Some(first) = first {
            self.rumours.add_fresh(first, of);
        }
        Ok(stamp)
    }

    pub(super) fn next_dot(&mut self) -> Dot {
        self.seq += 1;
        Dot::new(self.config.node, self.config.incarnation, self.seq)
    }

    fn log(&self, record: Record, effects: Out<'_>) -> AppendSeq {
        if self.is_durable() {
            effects.append(record)
        } else {
            effects.append_lazy(record)
        }
    }

    fn extend_lease(&mut self, effects: Out<'_>) {
        if let Some(lease) = self.clock.extend_lease() {
            // With durability `None` an answer may wait for this record, see `reply_when_durable`.
            let seq = effects.append(Record::Lease(lease));
            self.leases.push_back((seq, lease));
        }
    }

    /// Answers when what the answer promises holds over a crash: the write itself where the keyspace is durable, and
    /// in any case that no later stamp will be below the one told.
    fn reply_when_durable(&mut self, write: &Write, reply: Reply, effects: Out<'_>) {
        let told = match &reply {
            Reply::Write(Ok(receipt)) => receipt.version,
            _ => Version::ABSENT,
        };
        self.answer(write.ticket, write.deadline, write.op, told, reply, effects);
    }

    fn answer(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        op: OpId,
        told: Version,
        reply: Reply,
        effects: Out<'_>,
    ) {
        let waits = self.is_durable() || told > self.lease_durable.version();
        let last = effects.last_append();
        if waits && last > self.persisted {
            self.waiting.add(last, ticket, deadline, op, reply);
        } else {
            effects.reply(ticket, reply);
        }
    }

    fn receipt(&self, op: OpId, version: Version) -> Receipt {
        let durable_on = if self.is_durable() {
            NodeSet::of(self.config.node)
        } else {
            NodeSet::default()
        };
        Receipt {
            op,
            won: true,
            version,
            found: Version::ABSENT,
            epoch: Epoch::default(),
            achieved: Achieved::Convergent,
            durable_on,
            served_by: self.config.node,
            round_trips: 0,
            syncs: u8::from(self.config.durability == Durability::Fsync),
        }
    }

    /// Settles what became of an operation *at this node*: if it has not run here, it never will.
    pub(super) fn outcome(
        &mut self,
        now: Now,
        ticket: Ticket,
        deadline: Instant,
        op: OpId,
        effects: Out<'_>,
    ) {
        let outcome = match self.admit(now, op) {
            Admission::Repeat(OpResult::Applied { version, .. }) => {
                Outcome::Applied(self.receipt(op, version))
            }
            Admission::Repeat(OpResult::Fenced) => Outcome::NotApplied,
            Admission::Expired => Outcome::Expired,
            Admission::New => {
                let stamp = self.clock.issue(now.wall).unwrap_or(self.clock.last());
                self.extend_lease(effects);
                self.sessions.record(op, OpResult::Fenced, stamp.version());
                self.log(Record::Fence { op, stamp }, effects);
                Outcome::NotApplied
            }
        };
        let told = match &outcome {
            Outcome::Applied(receipt) => receipt.version,
            _ => Version::ABSENT,
        };
        self.answer(ticket, deadline, op, told, Reply::Outcome(Ok(outcome)), effects);
    }

    /// Writes the winner of keys with too many siblings back under a new dot that has observed them all. The stamp
    /// stays the winner's: the write-back is no newer than what it repeats, and reads see no change.
    pub(super) fn write_back(&mut self, effects: Out<'_>) {
        let now = self.ticks;
        let due: Vec<Key> = self
            .crowded
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.crowded.remove(&key);
            if !self.is_crowded(&key) {
                continue;
            }
            let observed = self.replica.observed(&key);
            let Some(winner) = self.replica.winner(&key).map(|winner| winner.item.clone()) else {
                continue;
            };
            if observed.len() >= OBSERVED_MAX {
                continue;
            }
            let dot = self.next_dot();
            let part = Part { index: 0, of: 1 };
            self.apply(
                vec![Item {
                    dot,
                    observed,
                    part,
                    ..winner
                }],
                effects,
            );
            self.rumours.add_fresh(dot, 1);
        }
    }
}

/// Why the backend cannot run a command at all, if so.
fn refuse(command: &Command) -> Option<NotApplied> {
    let unsupported = |asked: &str, strongest: &str| {
        NotApplied::never(Reason::Unsupported {
            asked: asked.into(),
            strongest: strongest.into(),
        })
    };
    if !command.guards.is_empty() {
        return Some(unsupported(
            "a guarded write (compare-and-set), which would be checked against one node's view",
            "an unguarded batch, visible at once on each node",
        ));
    }
    let leased = |mutation: &Mutation| matches!(mutation, Mutation::Put { lease: Some(_), .. });
    command
        .mutations
        .iter()
        .any(leased)
        .then(|| unsupported("a value under a lease", "a value without a lease"))
}

fn overloaded(what: &str) -> NotApplied {
    Reason::Overloaded { what: what.into() }.into()
}
