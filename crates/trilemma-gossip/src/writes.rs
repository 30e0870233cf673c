//! Clients' writes, the recognition of repeats, and the question what became of an operation.

mod waiting;

use std::collections::VecDeque;

use trilemma_core::pending::refused_write;
use trilemma_core::session::{Admission, OpResult, Sessions};
use trilemma_core::{
    Achieved, AppendSeq, Attempt, Command, Epoch, Instant, NodeSet, NotApplied, Now, OpId, Outcome, Reason,
    Receipt, Reply, Ticket, Version, WriteError,
};

use crate::clock::{Stamp, is_acceptable};
use crate::config::{Durability, GossipConfig};
use crate::dot::{Dot, OBSERVED_MAX};
use crate::gossip::Out;
use crate::message::{COMMAND_ITEMS_BYTES_MAX, ITEMS_MAX, size};
use crate::record::Record;
use crate::replica::{Item, Part};
use crate::shared::Shared;
use crate::store::Store;
use crate::typed::Draft;
use waiting::Waiting;

/// A write without its command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Instant,
    pub(crate) op: OpId,
    pub(crate) attempt: Attempt,
}

/// What clients are owed, and what they have done.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) sessions: Sessions,
    waiting: Waiting,
    /// Leases whose records are not durable yet, and the newest that is.
    leases: VecDeque<(AppendSeq, Stamp)>,
    lease_durable: Stamp,
}

impl Writes {
    pub(crate) fn new(config: &GossipConfig) -> Self {
        Self {
            sessions: Sessions::new(config.session_limits()),
            waiting: Waiting::default(),
            leases: VecDeque::new(),
            lease_durable: Stamp::default(),
        }
    }

    /// Runs a client's write and answers it. Returns the changes that it made.
    pub(crate) fn on_write(
        &mut self,
        shared: &mut Shared,
        store: &mut Store,
        now: Now,
        write: Write,
        command: &Command,
        effects: &mut Out,
    ) -> Vec<Item> {
        if let Err(refusal) = refuse(command).map_or(Ok(()), Err).and(command.validate()) {
            effects.reply(write.ticket, Reply::Write(Err(refusal.into())));
            return Vec::new();
        }
        let refuse = |error: WriteError, effects: &mut Out| {
            effects.reply(write.ticket, Reply::Write(Err(error)));
            Vec::new()
        };
        match self.admit(shared, now, write.op) {
            Admission::Repeat(OpResult::Applied { version, .. }) => {
                let receipt = receipt(&shared.config, write.op, version);
                self.answer(shared, write, version, Reply::Write(Ok(receipt)), effects);
                return Vec::new();
            }
            Admission::Repeat(OpResult::Fenced) => {
                return refuse(NotApplied::never(Reason::Fenced).into(), effects);
            }
            Admission::Expired => return refuse(expired(write), effects),
            Admission::New => {}
        }
        let result = if write.deadline <= now.instant {
            Err(Reason::Deadline.into())
        } else {
            self.execute(shared, store, now, write.op, command, effects)
        };
        match result {
            Ok((stamp, made)) => {
                let receipt = receipt(&shared.config, write.op, stamp.version());
                self.answer(shared, write, stamp.version(), Reply::Write(Ok(receipt)), effects);
                made
            }
            Err(refusal) => refuse(refusal.into(), effects),
        }
    }

    /// What to do with an operation. Its session was made at a position that its client knew of, perhaps from another
    /// node: our stamps go beyond that, or the record of evicted sessions could not tell it from a new one. A position
    /// further ahead than we follow is refused; the client opens a new session here.
    fn admit(&mut self, shared: &mut Shared, now: Now, op: OpId) -> Admission {
        let basis = Stamp(op.session.basis.0);
        if basis > shared.clock.position() {
            if !is_acceptable(basis, now.wall, shared.config.accept_drift) {
                return Admission::Expired;
            }
            shared.clock.observe(basis);
        }
        self.sessions.admit(op)
    }

    /// Makes the changes of a new operation: one stamp, consecutive dots, visible and logged together.
    fn execute(
        &mut self,
        shared: &mut Shared,
        store: &mut Store,
        now: Now,
        op: OpId,
        command: &Command,
        effects: &mut Out,
    ) -> Result<(Stamp, Vec<Item>), NotApplied> {
        if let Some(refusal) = refuse_here(shared) {
            return Err(refusal);
        }
        if self.waiting.is_full() {
            return Err(overloaded("too many writes wait for the disk"));
        }
        if shared.is_backlogged() {
            return Err(overloaded("too many bytes of this keyspace wait for the disk"));
        }
        let mut items = changes(shared, store, command)?;
        let stamp = shared.clock.issue(now.wall).ok_or_else(|| {
            NotApplied::never(Reason::Invalid {
                what: "the hybrid logical clock is at its end; the wall clock of some node is wrong".into(),
            })
        })?;
        self.extend_lease(shared, effects);
        for item in &mut items {
            (item.dot, item.stamp) = (shared.next_dot(), stamp);
            shared.sign(item);
        }
        debug_assert!(
            items.iter().all(|item| item.defect().is_none()),
            "a change that no peer would take"
        );
        self.record(shared, op, applied(stamp), stamp);
        let made = items.clone();
        let items = store.take_in(shared, items, effects);
        assert_eq!(items.len(), made.len(), "our own new dots are new");
        // A command may be empty; its operation has run all the same.
        log(shared, Record::Write { op, stamp, items }, effects);
        Ok((stamp, made))
    }

    fn record(&mut self, shared: &mut Shared, op: OpId, result: OpResult, stamp: Stamp) {
        let at = shared.clock.record(stamp, op.session.basis);
        self.sessions.record(op, result, at);
    }

    fn extend_lease(&mut self, shared: &mut Shared, effects: &mut Out) {
        if let Some(lease) = shared.clock.extend_lease() {
            // With durability `None` an answer may wait for this record, see `answer`.
            let seq = shared.append(Record::Lease(lease), effects);
            self.leases.push_back((seq, lease));
        }
        assert!(
            shared.clock.last() <= shared.clock.lease(),
            "a stamp beyond the lease would be reported"
        );
    }

    /// Answers when what the answer promises holds over a crash: the write itself where the keyspace is durable, and
    /// in any case that no later stamp will be below the one reported.
    fn answer(&mut self, shared: &Shared, write: Write, reported: Version, reply: Reply, effects: &mut Out) {
        let waits = shared.config.is_durable() || reported > self.lease_durable.version();
        let last = effects.last_append();
        if waits && last > shared.persisted {
            self.waiting
                .add(last, write.ticket, write.deadline, write.op, reply);
        } else {
            effects.reply(write.ticket, reply);
        }
    }

    /// Answers finally what became of an operation *at this node*: if it has not run here, it never will.
    pub(crate) fn on_outcome(&mut self, shared: &mut Shared, now: Now, asked: Write, effects: &mut Out) {
        let op = asked.op;
        let (outcome, reported) = match self.admit(shared, now, op) {
            Admission::Repeat(OpResult::Applied { version, .. }) => {
                (Outcome::Applied(receipt(&shared.config, op, version)), version)
            }
            Admission::Repeat(OpResult::Fenced) => (Outcome::NotApplied, Version::ABSENT),
            Admission::Expired => (Outcome::Expired, Version::ABSENT),
            Admission::New => {
                let stamp = shared.clock.issue(now.wall).unwrap_or(shared.clock.last());
                self.extend_lease(shared, effects);
                self.record(shared, op, OpResult::Fenced, stamp);
                log(shared, Record::Fence { op, stamp }, effects);
                (Outcome::NotApplied, Version::ABSENT)
            }
        };
        self.answer(shared, asked, reported, Reply::Outcome(Ok(outcome)), effects);
    }

    /// Answers what has become durable.
    pub(crate) fn on_persisted(&mut self, shared: &Shared, effects: &mut Out) {
        while let Some((seq, lease)) = self.leases.front().copied()
            && seq <= shared.persisted
        {
            // An incarnation that left stamps far ahead begins below a former lease.
            self.lease_durable = self.lease_durable.max(lease);
            self.leases.pop_front();
        }
        for (ticket, reply) in self.waiting.take(shared.persisted) {
            effects.reply(ticket, reply);
        }
    }

    /// Answers those whose time is up.
    pub(crate) fn on_wake(&mut self, now: Now, effects: &mut Out) {
        for (ticket, reply) in self.waiting.expire(now.instant) {
            effects.reply(ticket, reply);
        }
    }

    pub(crate) fn first_deadline(&self) -> Instant {
        self.waiting.first_deadline()
    }

    /// Takes an operation of the log.
    pub(crate) fn replay(&mut self, shared: &mut Shared, op: OpId, result: OpResult, stamp: Stamp) {
        shared.clock.restore(stamp);
        self.record(shared, op, result, stamp);
    }

    /// The incarnation begins: leases up to the clock's are durable.
    pub(crate) fn start(&mut self, shared: &Shared) {
        self.lease_durable = shared.clock.lease();
    }

    /// The invariants of what clients are owed.
    pub(crate) fn check(&self, shared: &Shared) {
        self.waiting.check(shared.persisted);
        assert!(
            self.lease_durable <= shared.clock.lease(),
            "a lease that was never taken is durable"
        );
        let first = self.leases.front();
        assert!(
            first.is_none_or(|(seq, _)| *seq > shared.persisted),
            "a lease that is durable counts as one that is not"
        );
    }
}

/// The changes of a command, yet without names and stamp. Of several mutations of one key the last one counts; nobody
/// could see the others.
fn changes(shared: &Shared, store: &Store, command: &Command) -> Result<Vec<Item>, NotApplied> {
    let last = Draft::of(shared, store, command)?;
    assert!(last.len() <= ITEMS_MAX, "a draft is bounded");
    let of = last.len() as u16;
    let items: Vec<Item> = last
        .into_iter()
        .zip(0..)
        .map(|((key, content), index)| Item {
            dot: Dot::new(trilemma_core::NodeId(0), trilemma_core::Incarnation(0), 0),
            stamp: Stamp::default(),
            observed: store.observed(&key),
            key,
            content,
            part: Part { index, of },
        })
        .collect();
    if items.iter().any(|item| item.observed.len() >= OBSERVED_MAX) {
        return Err(overloaded(
            "the key was written by too many incarnations of nodes since all members last agreed on it",
        ));
    }
    let bytes = size(&items) + shared.signed_bytes(items.len());
    if bytes > COMMAND_ITEMS_BYTES_MAX {
        return Err(NotApplied::never(Reason::TooLarge {
            what: "the command, with what it has observed of its keys; write fewer keys at once".into(),
            size: bytes as u64,
            limit: COMMAND_ITEMS_BYTES_MAX as u64,
        }));
    }
    Ok(items)
}

/// What a write has done.
pub(crate) fn applied(stamp: Stamp) -> OpResult {
    OpResult::Applied {
        succeeded: true,
        version: stamp.version(),
        found: Version::ABSENT,
    }
}

fn log(shared: &mut Shared, record: Record, effects: &mut Out) {
    if shared.config.is_durable() {
        shared.append(record, effects);
    } else {
        shared.append_lazy(record, effects);
    }
}

fn expired(write: Write) -> WriteError {
    refused_write(write.op, write.attempt, Reason::SessionExpired)
}

fn receipt(config: &GossipConfig, op: OpId, version: Version) -> Receipt {
    let durable_on = if config.is_durable() {
        NodeSet::of(config.node)
    } else {
        NodeSet::default()
    };
    Receipt {
        op,
        succeeded: true,
        version,
        found: Version::ABSENT,
        epoch: Epoch::default(),
        achieved: Achieved::Convergent,
        durable_on,
        served_by: config.node,
        round_trips: 0,
        syncs: u8::from(config.durability == Durability::Fsync),
    }
}

/// Why the backend cannot run a command at all, if so.
fn refuse(command: &Command) -> Option<NotApplied> {
    (!command.guards.is_empty()).then(|| {
        NotApplied::never(Reason::Unsupported {
            asked: "a guarded write (compare-and-set), which would be checked against one node's view".into(),
            strongest: "an unguarded batch, visible at once on each node".into(),
        })
    })
}

/// Why this node writes nothing at all, if so. Others may.
fn refuse_here(shared: &Shared) -> Option<NotApplied> {
    let origins = shared.config.origins.as_ref()?;
    (!shared.config.may_write()).then(|| {
        NotApplied::from(Reason::NotAnOrigin {
            node: shared.config.node,
            origins: origins.iter().copied().collect(),
        })
    })
}

fn overloaded(what: &str) -> NotApplied {
    Reason::Overloaded { what: what.into() }.into()
}
