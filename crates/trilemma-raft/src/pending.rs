//! Requests that this node has to answer, and where each of them waits. What was forwarded and has no answer is forwarded
//! again, under the same name.
//!
//! Every request is answered once, in the class that is certain: what has entered a log, or has been sent to a node
//! that may put it there, is *unknown* until it is applied; all else is *not applied*.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::{
    Incarnation, Instant, NodeId, Patience, Reason, Reply, Request, Rng, Ticket, UnknownCause,
};

use crate::Out;
use crate::forward_dedup::ForwardDedup;
use crate::log::{Index, Term};
use crate::message::Message;

/// To whom an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    /// A client of this node.
    Local(Ticket),
    /// A client of another node, which forwarded the request under this id.
    Peer(NodeId, u64),
}

impl ReplyTo {
    pub(crate) fn answer(self, reply: Reply, effects: &mut Out) {
        match self {
            ReplyTo::Local(ticket) => effects.reply(ticket, reply),
            ReplyTo::Peer(node, id) => effects.send(node, Message::ForwardReply { id, reply }),
        }
    }
}

/// The answer when a request may have been carried out, and nobody here can tell.
pub(crate) fn lost(kind: PendingKind, cause: UnknownCause) -> Reply {
    let reason = match cause {
        UnknownCause::Deadline => Reason::Deadline,
        _ => Reason::NoLeader,
    };
    kind.lost(cause, reason)
}

/// Where a request waits: for its entry, for a leader's answer, or for a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Log(Index),
    Leader(u64),
    Queue(u64),
}

/// A request whose entry is in the log.
#[derive(Debug)]
pub(crate) struct InLog {
    pub(crate) reply_to: ReplyTo,
    pub(crate) kind: PendingKind,
    pub(crate) term: Term,
    pub(crate) deadline: Instant,
}

/// A request that was forwarded to a leader.
#[derive(Debug)]
pub(crate) struct AtLeader {
    pub(crate) ticket: Ticket,
    pub(crate) kind: PendingKind,
    pub(crate) request: Request,
    pub(crate) leader: NodeId,
    /// The process of the leader that it was sent to. It goes to no other one.
    pub(crate) incarnation: Incarnation,
    pub(crate) deadline: Instant,
    /// When it was sent first.
    pub(crate) sent: Instant,
    /// How often it was sent in vain.
    pub(crate) in_vain: u32,
    /// When it is sent again.
    pub(crate) again_at: Instant,
}

impl AtLeader {
    /// When it is sent again, or answered.
    fn due(&self) -> Instant {
        self.again_at.min(self.deadline)
    }

    fn message(&self, now: Instant, id: u64) -> Message {
        let timeout = self.deadline.since(now).as_millis();
        Message::Forward {
            to: self.incarnation,
            id,
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            request: self.request.clone(),
        }
    }
}

/// A request that waits for a leader.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ticket: Ticket,
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
    pub(crate) give_up: Instant,
}

/// How often the time that a leader gets to answer is doubled at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 6;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pending {
    in_log: BTreeMap<Index, InLog>,
    at_leader: BTreeMap<u64, AtLeader>,
    queue: BTreeMap<u64, Queued>,
    deadlines: BTreeSet<(Instant, Place)>,
    last_id: u64,
    /// How long a leader may take to answer before it is asked again.
    patience: Patience,
    pub(crate) dedup: ForwardDedup,
}

impl Pending {
    /// Ids begin anywhere: an answer that a leader still has for a former incarnation of this node must answer nothing in
    /// this one. A leader gets at least `patience_min` to answer what was forwarded.
    pub(crate) fn new(rng: &mut Rng, patience_min: Duration) -> Self {
        Self {
            in_log: BTreeMap::new(),
            at_leader: BTreeMap::new(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            last_id: rng.next_u64() >> 16,
            patience: Patience::new(patience_min, PATIENCE_DOUBLINGS_MAX),
            dedup: ForwardDedup::default(),
        }
    }

    /// A peer that was away is back: what was sent in vain says nothing any more.
    pub(crate) fn forget_waits(&mut self) {
        self.patience.forget_waits();
    }

    pub(crate) fn wake_at(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn put_in_log(&mut self, index: Index, waiting: InLog) {
        self.deadlines.insert((waiting.deadline, Place::Log(index)));
        self.in_log.insert(index, waiting);
    }

    pub(crate) fn take_in_log(&mut self, index: Index) -> Option<InLog> {
        let found = self.in_log.remove(&index)?;
        self.deadlines.remove(&(found.deadline, Place::Log(index)));
        Some(found)
    }

    /// The entries from `first` on that somebody waits for.
    pub(crate) fn in_log_from(&self, first: Index) -> Vec<Index> {
        self.in_log.range(first..).map(|(index, _)| *index).collect()
    }

    /// Whether no more requests may be with a leader.
    pub(crate) fn is_full_at_leader(&self, waiting_max: usize) -> bool {
        self.at_leader.len() >= waiting_max
    }

    /// Sends a request to its leader, under a name of its own.
    pub(crate) fn put_at_leader(&mut self, now: Instant, waiting: AtLeader, effects: &mut Out) {
        let id = self.next_id();
        self.send(now, id, waiting, effects);
    }

    fn send(&mut self, now: Instant, id: u64, mut waiting: AtLeader, effects: &mut Out) {
        effects.send(waiting.leader, waiting.message(now, id));
        waiting.again_at = now + self.patience.limit(waiting.in_vain);
        self.deadlines.insert((waiting.due(), Place::Leader(id)));
        self.at_leader.insert(id, waiting);
    }

    fn take_at_leader(&mut self, id: u64) -> Option<AtLeader> {
        let found = self.at_leader.remove(&id)?;
        self.deadlines.remove(&(found.due(), Place::Leader(id)));
        Some(found)
    }

    /// The request of this name, if it is with the node that answers.
    pub(crate) fn take_answered(&mut self, now: Instant, from: NodeId, id: u64) -> Option<AtLeader> {
        let waiting = self.at_leader.get(&id)?;
        if waiting.leader != from {
            return None;
        }
        self.patience.answered(now.since(waiting.sent));
        self.take_at_leader(id)
    }

    /// The requests at leaders of which `is_gone` says so.
    pub(crate) fn take_gone(&mut self, is_gone: impl Fn(NodeId) -> bool) -> Vec<AtLeader> {
        let gone = self
            .at_leader
            .iter()
            .filter(|(_, waiting)| is_gone(waiting.leader));
        let ids: Vec<u64> = gone.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.take_at_leader(id)).collect()
    }

    /// Keeps a request until there is a leader; answers it if too many wait.
    pub(crate) fn enqueue(&mut self, waiting_max: usize, queued: Queued, effects: &mut Out) {
        if self.queue.len() >= waiting_max {
            let what = format!("{waiting_max} requests wait for a leader already");
            let reply = PendingKind::of(&queued.request).refused(Reason::Overloaded { what });
            return effects.reply(queued.ticket, reply);
        }
        let id = self.next_id();
        self.deadlines.insert((queued.give_up, Place::Queue(id)));
        self.queue.insert(id, queued);
    }

    fn take_queued(&mut self, id: u64) -> Option<Queued> {
        let found = self.queue.remove(&id)?;
        self.deadlines.remove(&(found.give_up, Place::Queue(id)));
        Some(found)
    }

    /// All that wait for a leader, in their order.
    pub(crate) fn take_queue(&mut self) -> Vec<Queued> {
        let ids: Vec<u64> = self.queue.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.take_queued(id)).collect()
    }

    /// Answers what is overdue, and forwards again what the leader has not answered: the message may be lost.
    pub(crate) fn expire(&mut self, now: Instant, effects: &mut Out) {
        while let Some((at, place)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let (reply_to, reply) = match place {
                Place::Log(index) => match self.take_in_log(index) {
                    Some(InLog { reply_to, kind, .. }) => (reply_to, lost(kind, UnknownCause::Deadline)),
                    None => continue,
                },
                Place::Leader(id) => match self.take_at_leader(id) {
                    Some(AtLeader {
                        ticket,
                        kind,
                        deadline,
                        ..
                    }) if deadline <= now => (ReplyTo::Local(ticket), lost(kind, UnknownCause::Deadline)),
                    Some(mut waiting) => {
                        waiting.in_vain = self.patience.waited_in_vain(waiting.in_vain);
                        self.send(now, id, waiting, effects);
                        continue;
                    }
                    None => continue,
                },
                Place::Queue(id) => match self.take_queued(id) {
                    Some(Queued { ticket, request, .. }) => {
                        let reply = PendingKind::of(&request).refused(Reason::NoLeader);
                        (ReplyTo::Local(ticket), reply)
                    }
                    None => continue,
                },
            };
            reply_to.answer(reply, effects);
        }
    }

    /// Each request has one deadline, and waits in one place; those in the log wait for an entry that is there.
    pub(crate) fn check(&self, last: Index) {
        let waiting = self.in_log.len() + self.at_leader.len() + self.queue.len();
        assert_eq!(self.deadlines.len(), waiting, "requests and their deadlines");
        let in_log = self.in_log.last_key_value().map(|(index, _)| *index);
        assert!(
            in_log.is_none_or(|index| index <= last),
            "a request waits for entry {in_log:?}, the log ends at {last}"
        );
        let named = self.at_leader.last_key_value().map(|(id, _)| *id);
        let named = named.max(self.queue.last_key_value().map(|(id, _)| *id));
        assert!(
            named.is_none_or(|id| id <= self.last_id),
            "request {named:?} has a name that is yet to be given"
        );
        // Beyond this, a check after every step would be most of what a busy node does in a test.
        debug_assert!(
            waiting > 64
                || self.deadlines.iter().all(|(at, place)| match place {
                    Place::Log(index) => self.in_log.get(index).is_some_and(|found| found.deadline == *at),
                    Place::Leader(id) => self.at_leader.get(id).is_some_and(|found| found.due() == *at),
                    Place::Queue(id) => self.queue.get(id).is_some_and(|found| found.give_up == *at),
                }),
            "a deadline of a request that is not there"
        );
        self.dedup.check();
    }
}
