//! Adders: clients that change values of data types. Other clients write registers, whose histories are judged; of a
//! counter or a set nobody sees a single write, so what it shows in the end is held against all changes at once.
//!
//! Each acknowledged change counts exactly once, each change that was refused not at all, and each of which nobody knows
//! once or not at all. A change that its node alone had acknowledged may be lost with that node's disk. Meanwhile:
//!
//! - A counter that is only added to never shows less than before at one node in one incarnation, and never more than was
//!   asked for.
//! - Of a bounded counter nobody ever takes more than was granted, whatever is cut off or lost.

mod tally;

use trilemma_core::{
    Attempt, Command, Incarnation, Key, NodeId, OpId, Reason, Reply, Request, Rng, SessionId, Ticket, Update,
    WriteError,
};
use trilemma_node::Engine;

use self::tally::{Fate, Tally};
use super::{Event, MS, World};
use crate::invariants::Broken;
use crate::node::Process;
use crate::randomness::{Purpose, Randomness};
use crate::scenario::Protocol;

/// Changes that each of them begins.
const CHANGES: u32 = 20;
/// Elements that all of them insert and remove.
const SHARED: u64 = 2;
/// Times that one is put to its node before it counts as unknown.
const ASKED_MAX: u32 = 4;
/// Where the streams of adders begin among those of clients.
const STREAMS: u64 = 1 << 32;
/// Ahead of the nonces of their sessions, which must differ from those of clients.
const NONCE: u64 = 1 << 56;

/// One change.
#[derive(Clone, Debug)]
enum Change {
    /// One more.
    Count,
    /// An element, which others may insert, too.
    Insert(Key),
    /// An element that its adder has inserted, or that is shared.
    Remove(Key),
    /// Room in the bounded counter.
    Grant(u64),
    /// Taken out of it.
    Spend(u64),
}

impl Change {
    /// The element of a set that it is about.
    fn element(&self) -> Option<&Key> {
        match self {
            Change::Insert(element) | Change::Remove(element) => Some(element),
            Change::Count | Change::Grant(_) | Change::Spend(_) => None,
        }
    }

    fn command(&self) -> Command {
        let (key, update) = match self {
            Change::Count => ("counter", Update::Add(1)),
            Change::Insert(element) => ("set", Update::Insert(element.clone())),
            Change::Remove(element) => ("set", Update::Remove(element.clone())),
            Change::Grant(amount) => ("bounded", Update::Grant(*amount)),
            Change::Spend(amount) => ("bounded", Update::Spend(*amount)),
        };
        Command::update(key, update)
    }
}

#[derive(Debug)]
struct Question {
    change: Change,
    op: OpId,
    /// Where it was put first: no other node knows it.
    node: NodeId,
    asked: u32,
    ticket: Ticket,
    invoke: u64,
}

#[derive(Debug)]
struct Adder {
    rng: Rng,
    /// Which of them it is.
    index: usize,
    left: u32,
    session: Option<(SessionId, u64)>,
    nonces: u64,
    /// The elements that it has inserted, and may remove.
    inserted: Vec<Key>,
    pending: Option<Question>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Adders {
    all: Vec<Adder>,
    /// Their keyspace.
    slot: usize,
    tally: Tally,
}

impl Adders {
    /// A node has lost what it alone had acknowledged.
    pub(super) fn disk_lost(&mut self, node: NodeId, now: u64) {
        self.tally.disk_lost(node, now);
    }

    fn asking(&self, ticket: Ticket) -> Option<usize> {
        let asks = |adder: &Adder| {
            adder
                .pending
                .as_ref()
                .is_some_and(|pending| pending.ticket == ticket)
        };
        self.all.iter().position(asks)
    }

    /// Whether one of them still waits, or has something left to begin.
    pub(super) fn unrest(&self) -> Option<String> {
        let busy = self.all.iter().find(|adder| adder.pending.is_some());
        busy.map(|adder| format!("an adder still waits: {adder:?}"))
    }
}

impl World<'_> {
    /// Puts the first turn of each into the queue.
    pub(super) fn plan_adders(&mut self) {
        let Some(slot) = self.parts.iter().position(|part| *part == Protocol::Gossip) else {
            return;
        };
        let randomness = Randomness::new(self.scenario.seed);
        self.adders.slot = slot;
        for index in 0..self.scenario.adders as usize {
            let mut rng = randomness.stream(Purpose::Client, STREAMS + index as u64);
            let delay = rng.below(20 * MS);
            self.adders.all.push(Adder {
                rng,
                index,
                left: CHANGES,
                session: None,
                nonces: 0,
                inserted: Vec::new(),
                pending: None,
            });
            self.schedule(delay, Event::Adder { adder: index });
        }
    }

    /// An adder's turn: it begins a change, or asks again about the one under way.
    pub(super) fn adder(&mut self, adder: usize) {
        let nodes = self.nodes.len() as u64;
        let this = &mut self.adders.all[adder];
        let node = match &this.pending {
            Some(pending) => pending.node,
            None if this.left == 0 || self.healed => return,
            None => NodeId(1 + this.rng.below(nodes) as u32),
        };
        if self.node(node).process.is_none() {
            let delay = MS + self.adders.all[adder].rng.below(20 * MS);
            if let Some(pending) = &mut self.adders.all[adder].pending {
                // Whatever it waits for, it waits no longer.
                pending.asked += 1;
                if pending.asked > ASKED_MAX {
                    return self.added(adder, None);
                }
            }
            return self.schedule(delay, Event::Adder { adder });
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if self.adders.all[adder].pending.is_none() {
            self.begin_change(adder, node);
        }
        self.look_at_counter(node);
        self.put_change(adder, ticket);
    }

    fn begin_change(&mut self, adder: usize, node: NodeId) {
        let slot = self.adders.slot;
        let basis = self
            .status(node, slot)
            .map(|status| status.version)
            .unwrap_or_default();
        let invoke = self.now;
        let this = &mut self.adders.all[adder];
        let (session, seq) = this.session.get_or_insert_with(|| {
            this.nonces += 1;
            let nonce = NONCE | (this.index as u64) << 32 | this.nonces;
            (SessionId { basis, nonce }, 0)
        });
        *seq += 1;
        let op = OpId {
            session: *session,
            seq: *seq,
        };
        let change = match this.rng.below(10) {
            0..2 => Change::Count,
            2 => Change::Insert(format!("a{}e{}", this.index, this.left).as_str().into()),
            3..5 => Change::Insert(format!("shared{}", this.rng.below(SHARED)).as_str().into()),
            5 => Change::Remove(format!("shared{}", this.rng.below(SHARED)).as_str().into()),
            6 if !this.inserted.is_empty() => {
                let which = this.rng.below(this.inserted.len() as u64) as usize;
                Change::Remove(this.inserted.swap_remove(which))
            }
            7 => Change::Grant(1 + this.rng.below(3)),
            8 | 9 => Change::Spend(1 + this.rng.below(2)),
            _ => Change::Count,
        };
        this.left -= 1;
        self.adders.tally.asked(&change);
        let this = &mut self.adders.all[adder];
        this.pending = Some(Question {
            change,
            op,
            node,
            asked: 0,
            ticket: Ticket(0),
            invoke,
        });
    }

    fn put_change(&mut self, adder: usize, ticket: Ticket) {
        let (slot, now) = (self.adders.slot, self.now);
        let workload = &self.scenario.workload;
        let this = &mut self.adders.all[adder];
        let Some(pending) = &mut this.pending else { return };
        let attempt = if pending.asked == 0 {
            Attempt::First
        } else {
            Attempt::Retry
        };
        pending.asked += 1;
        pending.ticket = ticket;
        let request = Request::Write {
            op: pending.op,
            attempt,
            command: pending.change.command(),
        };
        let (id, delay) = (pending.node, this.rng.below(MS / 5));
        let timeout = workload.deadline / 8 + this.rng.below(workload.deadline);
        self.trace
            .line(now, || format!("adder {adder} asks {id} {ticket} {request:?}"));
        let (deadline, give_up) = self.deadline(id, timeout);
        let incarnation = self.node(id).incarnation;
        self.schedule_at(give_up, Event::AdderGivesUp { ticket });
        self.schedule(
            delay,
            Event::Propose {
                node: id,
                incarnation,
                slot,
                ticket,
                deadline,
                request,
            },
        );
    }

    /// An adder has waited long enough.
    pub(super) fn adder_gives_up(&mut self, ticket: Ticket) {
        if let Some(adder) = self.adders.asking(ticket) {
            self.added(adder, None);
        }
    }

    /// Whether the answer was for an adder, which then has it.
    pub(super) fn adder_answered(&mut self, ticket: Ticket, reply: &Reply) -> bool {
        let adder = self.adders.asking(ticket);
        if let Some(adder) = adder {
            self.added(adder, Some(reply));
        }
        adder.is_some()
    }

    /// A node has died: its adders learn nothing more from it.
    pub(super) fn adders_lost(&mut self, id: NodeId) {
        for adder in 0..self.adders.all.len() {
            let pending = &self.adders.all[adder].pending;
            if pending
                .as_ref()
                .is_some_and(|pending| pending.node == id && pending.ticket != Ticket(0))
            {
                self.added(adder, None);
            }
        }
    }

    fn added(&mut self, adder: usize, reply: Option<&Reply>) {
        let forgetful = self.scenario.may_forget();
        let think = self.scenario.workload.think;
        let this = &mut self.adders.all[adder];
        let Some(mut pending) = this.pending.take() else {
            return;
        };
        // From now on this question has no answer.
        pending.ticket = Ticket(0);
        if let Some(Reply::Write(Err(error))) = reply
            && let WriteError::NotApplied(refusal) = error
            && refusal.reason == Reason::SessionExpired
        {
            this.session = None;
        }
        let fate = match reply {
            Some(Reply::Write(Ok(_))) => Fate::Happened,
            // What was asked before and lost with a disk may be refused as if it were new.
            Some(Reply::Write(Err(WriteError::NotApplied(_)))) if pending.asked == 1 || !forgetful => {
                Fate::Refused
            }
            _ => Fate::Unknown,
        };
        let asks_again = fate == Fate::Unknown && !forgetful && pending.asked <= ASKED_MAX;
        if asks_again {
            let delay = this.rng.below(30 * MS);
            this.pending = Some(pending);
            return self.schedule(delay, Event::Adder { adder });
        }
        if let (Change::Insert(element), Fate::Happened) = (&pending.change, fate) {
            this.inserted.push(element.clone());
        }
        let delay = this.rng.below(2 * think + 1);
        let time = (pending.invoke, self.now);
        self.adders.tally.note(pending.change, fate, pending.node, time);
        self.schedule(delay, Event::Adder { adder });
    }

    /// What a running node shows of the counter.
    fn look_at_counter(&mut self, id: NodeId) {
        let slot = self.adders.slot;
        let node = &self.nodes[id.0 as usize - 1];
        let Some(process) = &node.process else { return };
        let shown = tally::counted(process.engine(slot));
        let incarnation: Incarnation = process.incarnation;
        if let Err((checker, what)) = shown.and_then(|shown| self.adders.tally.shown(id, incarnation, shown))
        {
            self.fail(checker, what);
        }
    }

    /// The cluster is at rest: what a node shows is what all changes make.
    pub(super) fn adders_at_rest(&self, id: NodeId, process: &Process) -> Result<(), Broken> {
        let engine: &Engine = process.engine(self.adders.slot);
        if self.adders.all.is_empty() {
            return Ok(());
        }
        self.adders.tally.judge(id, engine)
    }
}
