//! Requests of clients: at the leader into the log, elsewhere forwarded to it, or made to wait for one.
//!
//! Every request is answered once, in the class that is certain: what has entered a log, or has been sent to a node
//! that may put it there, is *unknown* until it is applied; all else is *not applied*.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::session::OpResult;
use trilemma_core::{
    Achieved, Attempt, Instant, NodeId, NodeSet, NotApplied, OpId, Outcome, Proposal, ReadLevel, ReadRequest,
    Reason, Receipt, Reply, Request, Retry, Rng, Ticket, UnknownCause, Version, WriteError,
};

use super::copies::Copies;
use super::log::{Entry, Index, Payload, Term};
use super::message::{Answer, Forwarded, Message};
use super::replication::Leader;
use super::{Out, Raft, Role};

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this node.
    Local(Ticket),
    /// A client of another node, which forwarded the request under this id.
    Peer(NodeId, u64),
}

/// What an asker is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Write(OpId, Attempt),
    Read,
    Outcome(OpId),
}

/// Where a request waits: for its entry, for a leader's answer, or for a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Log(Index),
    Leader(u64),
    Queue(u64),
}

#[derive(Debug)]
struct InLog {
    asker: Asker,
    owed: Owed,
    term: Term,
    deadline: Instant,
}

#[derive(Debug)]
struct AtLeader {
    ticket: Ticket,
    owed: Owed,
    request: Request,
    leader: NodeId,
    deadline: Instant,
}

#[derive(Debug)]
struct Queued {
    ticket: Ticket,
    request: Request,
    deadline: Instant,
    give_up: Instant,
}

/// All requests that this node has to answer.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    in_log: BTreeMap<Index, InLog>,
    at_leader: BTreeMap<u64, AtLeader>,
    queue: BTreeMap<u64, Queued>,
    deadlines: BTreeSet<(Instant, Place)>,
    last_id: u64,
    copies: Copies,
}

impl Proposals {
    /// Ids begin anywhere: what a leader still owes to a former life of this node must answer nothing in this one.
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            last_id: rng.next_u64() >> 16,
            ..Self::default()
        }
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn take_in_log(&mut self, index: Index) -> Option<InLog> {
        let found = self.in_log.remove(&index)?;
        self.deadlines.remove(&(found.deadline, Place::Log(index)));
        Some(found)
    }

    fn take_at_leader(&mut self, id: u64) -> Option<AtLeader> {
        let found = self.at_leader.remove(&id)?;
        self.deadlines.remove(&(found.deadline, Place::Leader(id)));
        Some(found)
    }

    fn take_queued(&mut self, id: u64) -> Option<Queued> {
        let found = self.queue.remove(&id)?;
        self.deadlines.remove(&(found.give_up, Place::Queue(id)));
        Some(found)
    }
}

fn owed(request: &Request) -> Owed {
    match request {
        Request::Write { op, attempt, .. } => Owed::Write(*op, *attempt),
        Request::Read(_) => Owed::Read,
        Request::Outcome { op, .. } => Owed::Outcome(*op),
    }
}

/// The answer when this attempt certainly did nothing. An earlier attempt may have, so a refused *retry* of a write
/// says only that this copy was not taken.
pub(super) fn refusal(owed: Owed, reason: Reason) -> Answer {
    match owed {
        Owed::Write(op, Attempt::Retry) if reason == Reason::SessionExpired => {
            Answer::Write(Err(WriteError::Unknown {
                op,
                cause: UnknownCause::SessionExpired,
            }))
        }
        Owed::Write(op, Attempt::Retry) if reason != Reason::Fenced => {
            Answer::Write(Err(WriteError::Unknown {
                op,
                cause: UnknownCause::LeaderLost,
            }))
        }
        Owed::Write(..) => Answer::Write(Err(reason.into())),
        Owed::Read => Answer::Read(Err(reason.into())),
        Owed::Outcome(_) => Answer::Outcome(Err(reason.into())),
    }
}

/// The answer when something may have been done.
fn lost(owed: Owed, cause: UnknownCause) -> Answer {
    match owed {
        Owed::Write(op, _) => Answer::Write(Err(WriteError::Unknown { op, cause })),
        Owed::Read | Owed::Outcome(_) if cause == UnknownCause::Deadline => refusal(owed, Reason::Deadline),
        Owed::Read | Owed::Outcome(_) => refusal(owed, Reason::NoLeader),
    }
}

/// Whether an answer can be one to what is owed. A receipt of another operation proves nothing about this one.
fn fits(answer: &Answer, owed: Owed) -> bool {
    match (answer, owed) {
        (Answer::Write(Ok(receipt)), Owed::Write(op, _))
        | (Answer::Outcome(Ok(Outcome::Applied(receipt))), Owed::Outcome(op)) => receipt.op == op,
        (Answer::Write(Err(WriteError::Unknown { op: of, .. })), Owed::Write(op, _)) => *of == op,
        (Answer::Write(Err(_)), Owed::Write(..))
        | (Answer::Read(_), Owed::Read)
        | (Answer::Outcome(_), Owed::Outcome(_)) => true,
        _ => false,
    }
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Write(result) => Reply::Write(result),
        Answer::Read(result) => Reply::Read(result),
        Answer::Outcome(result) => Reply::Outcome(result),
        Answer::NotLeader => unreachable!("it is handled where forwarded answers arrive"),
    }
}

impl Raft {
    pub(super) fn answer(&self, asker: Asker, answer: Answer, out: &mut Out) {
        match asker {
            Asker::Local(ticket) => out.reply(ticket, reply(answer)),
            Asker::Peer(node, id) => out.send(node, Message::ForwardReply { id, answer }),
        }
    }

    pub(super) fn no_quorum(&self) -> Reason {
        let missing = self.view.missing(self.config.node, &self.config.members);
        let of = self.config.members.len();
        Reason::NoQuorum {
            have: (of - missing.len()) as u32,
            need: self.config.majority() as u32,
            of: of as u32,
            missing,
        }
    }

    pub(super) fn propose(&mut self, now: Instant, proposal: Proposal, out: &mut Out) {
        let Proposal {
            ticket,
            deadline,
            request,
        } = proposal;
        if let Request::Read(read) = &request
            && self.read_here(ticket, read, deadline, out)
        {
            return;
        }
        let give_up = deadline.min(now + self.config.election_timeout * 4);
        self.route(
            now,
            Queued {
                ticket,
                request,
                deadline,
                give_up,
            },
            out,
        );
    }

    /// Finds the way to the leader for a request of this node's client.
    fn route(&mut self, now: Instant, queued: Queued, out: &mut Out) {
        let Queued { ticket, deadline, .. } = queued;
        let asker = Asker::Local(ticket);
        if let Some(contradiction) = &self.contradiction {
            let why = contradiction.to_string();
            return self.answer(
                asker,
                refusal(owed(&queued.request), Reason::Recovering { why }),
                out,
            );
        }
        if !self.reaches_majority() {
            return self.answer(asker, refusal(owed(&queued.request), self.no_quorum()), out);
        }
        match self.leader() {
            Some(leader) if leader == self.config.node => {
                self.lead(now, asker, deadline, queued.request, out)
            }
            Some(leader) if self.view.is_connected(leader) => self.forward(now, leader, queued, out),
            _ => self.enqueue(queued, out),
        }
    }

    fn enqueue(&mut self, queued: Queued, out: &mut Out) {
        if self.proposals.queue.len() >= self.config.waiting_max {
            let what = format!("{} requests wait for a leader already", self.config.waiting_max);
            let answer = refusal(owed(&queued.request), Reason::Overloaded { what });
            return self.answer(Asker::Local(queued.ticket), answer, out);
        }
        let id = self.proposals.id();
        self.proposals
            .deadlines
            .insert((queued.give_up, Place::Queue(id)));
        self.proposals.queue.insert(id, queued);
    }

    fn forward(&mut self, now: Instant, leader: NodeId, queued: Queued, out: &mut Out) {
        let Queued {
            ticket,
            request,
            deadline,
            ..
        } = queued;
        let owed = owed(&request);
        if self.proposals.at_leader.len() >= self.config.waiting_max {
            let what = format!("{} requests are with the leader already", self.config.waiting_max);
            return self.answer(
                Asker::Local(ticket),
                refusal(owed, Reason::Overloaded { what }),
                out,
            );
        }
        let id = self.proposals.id();
        let timeout_ms = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        let forwarded = match request.clone() {
            Request::Write { op, attempt, command } => Forwarded::Write { op, attempt, command },
            Request::Read(read) => Forwarded::Read(read),
            Request::Outcome { op, .. } => Forwarded::Outcome(op),
        };
        out.send(
            leader,
            Message::Forward {
                id,
                timeout_ms,
                request: forwarded,
            },
        );
        self.proposals.deadlines.insert((deadline, Place::Leader(id)));
        self.proposals.at_leader.insert(
            id,
            AtLeader {
                ticket,
                owed,
                request,
                leader,
                deadline,
            },
        );
    }

    pub(super) fn on_forward(
        &mut self,
        now: Instant,
        from: NodeId,
        id: u64,
        deadline: Instant,
        request: Forwarded,
        out: &mut Out,
    ) {
        if !matches!(request, Forwarded::Read(_)) && !self.proposals.copies.is_first(from, id) {
            return tracing::debug!(%from, id, "a second copy of a forwarded request; ignored");
        }
        if !self.is_leader() {
            return out.send(
                from,
                Message::ForwardReply {
                    id,
                    answer: Answer::NotLeader,
                },
            );
        }
        let request = match request {
            Forwarded::Write { op, attempt, command } => {
                if let Err(refused) = command.validate() {
                    let answer = Answer::Write(Err(refused.into()));
                    return out.send(from, Message::ForwardReply { id, answer });
                }
                Request::Write { op, attempt, command }
            }
            Forwarded::Read(read) => Request::Read(read),
            Forwarded::Outcome(op) => Request::Outcome { op, command: None },
        };
        self.lead(now, Asker::Peer(from, id), deadline, request, out);
    }

    pub(super) fn on_forward_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        id: u64,
        answer: Answer,
        out: &mut Out,
    ) {
        if self
            .proposals
            .at_leader
            .get(&id)
            .is_none_or(|waiting| waiting.leader != from)
        {
            return;
        }
        let AtLeader {
            ticket,
            owed,
            request,
            deadline,
            ..
        } = self.proposals.take_at_leader(id).expect("it was found just now");
        match answer {
            // It did nothing there, so it may go to whoever leads now.
            Answer::NotLeader => {
                let give_up = deadline.min(now + self.config.election_timeout * 4);
                self.enqueue(
                    Queued {
                        ticket,
                        request,
                        deadline,
                        give_up,
                    },
                    out,
                );
            }
            answer if fits(&answer, owed) => out.reply(ticket, reply(answer)),
            _ => self.answer(Asker::Local(ticket), lost(owed, UnknownCause::ReplyLost), out),
        }
    }

    /// The leader's part: writes and questions enter the log, reads a round.
    fn lead(&mut self, now: Instant, asker: Asker, deadline: Instant, request: Request, out: &mut Out) {
        let owed = owed(&request);
        let payload = match request {
            Request::Read(read) => return self.read_at_leader(now, asker, deadline, read, out),
            Request::Write { op, command, .. } => Payload::Write { op, command },
            Request::Outcome { op, .. } => Payload::Fence { op },
        };
        let term = self.term;
        let entry = Entry { term, payload };
        let Role::Leader(leader) = &mut self.role else {
            return self.answer(asker, refusal(owed, Reason::NoLeader), out);
        };
        let (waiting, size) = (leader.unapplied, entry.size());
        if waiting > 0 && waiting + size > self.config.uncommitted_bytes {
            let what = format!("{waiting} bytes wait to be committed already");
            return self.answer(asker, refusal(owed, Reason::Overloaded { what }), out);
        }
        leader.unapplied += size;
        let index = self.log.push(entry);
        self.proposals.deadlines.insert((deadline, Place::Log(index)));
        let waiting = InLog {
            asker,
            owed,
            term,
            deadline,
        };
        self.proposals.in_log.insert(index, waiting);
        self.dirty = true;
    }

    /// Answers whoever waits for this entry, now that it is applied.
    pub(super) fn answer_applied(
        &mut self,
        index: Index,
        term: Term,
        result: Option<Option<OpResult>>,
        out: &mut Out,
    ) {
        let Some(InLog {
            asker,
            owed,
            term: proposed,
            ..
        }) = self.proposals.take_in_log(index)
        else {
            return;
        };
        let answer = match (owed, result) {
            _ if proposed != term => lost(owed, UnknownCause::LeaderLost),
            (_, Some(None)) if matches!(owed, Owed::Outcome(_)) => Answer::Outcome(Ok(Outcome::Expired)),
            (_, Some(None)) => refusal(owed, Reason::SessionExpired),
            (Owed::Write(..), Some(Some(OpResult::Fenced))) => Answer::Write(Err(NotApplied {
                reason: Reason::Fenced,
                retry: Retry::Never,
            }
            .into())),
            (Owed::Outcome(_), Some(Some(OpResult::Fenced))) => Answer::Outcome(Ok(Outcome::NotApplied)),
            (Owed::Write(op, _), Some(Some(OpResult::Applied { won, version, found }))) => {
                Answer::Write(Ok(self.receipt(index, asker, op, won, version, found)))
            }
            (Owed::Outcome(op), Some(Some(OpResult::Applied { won, version, found }))) => {
                Answer::Outcome(Ok(Outcome::Applied(
                    self.receipt(index, asker, op, won, version, found),
                )))
            }
            (Owed::Read, _) | (_, None) => {
                unreachable!("reads do not enter the log, and nobody waits for a no-op")
            }
        };
        self.answer(asker, answer, out);
    }

    fn receipt(
        &self,
        index: Index,
        asker: Asker,
        op: OpId,
        won: bool,
        version: Version,
        found: Version,
    ) -> Receipt {
        let mut durable_on = NodeSet::of(self.config.node);
        if let Role::Leader(leader) = &self.role {
            let holders = leader
                .followers
                .iter()
                .filter(|(_, follower)| follower.matched >= index);
            durable_on.0.extend(holders.map(|(node, _)| *node));
        }
        let to_followers = u8::from(self.config.members.len() > 1);
        let forwarded = u8::from(matches!(asker, Asker::Peer(..)));
        Receipt {
            op,
            won,
            version,
            found,
            epoch: self.config.epoch,
            achieved: Achieved::StrictSerializable,
            durable_on,
            served_by: self.config.node,
            round_trips: to_followers + forwarded,
            syncs: 1,
        }
    }

    /// A leader has stepped down: what is in the log and not committed may or may not survive. What waited for the end
    /// of the turn is on no disk and was sent to nobody: it goes, or it would leave a gap in the records.
    pub(super) fn lose_office(&mut self, former: &Leader, out: &mut Out) {
        let open: Vec<Index> = self
            .proposals
            .in_log
            .range(self.commit.next()..)
            .map(|(index, _)| *index)
            .collect();
        self.log.truncate(former.appended.next());
        for index in open {
            if let Some(InLog { asker, owed, .. }) = self.proposals.take_in_log(index) {
                let answer = match asker {
                    _ if index <= former.appended => lost(owed, UnknownCause::LeaderLost),
                    Asker::Local(_) => refusal(owed, Reason::NoLeader),
                    Asker::Peer(..) => Answer::NotLeader,
                };
                self.answer(asker, answer, out);
            }
        }
        for asker in former.reads.askers() {
            self.answer(asker, refusal(Owed::Read, Reason::NoLeader), out);
        }
    }

    /// Looks again at everything that waits: a leader is known, or who can be reached has changed. What was with a
    /// process that has restarted since is not answered any more.
    pub(super) fn recheck_waiting(&mut self, now: Instant, restarted: &[NodeId], out: &mut Out) {
        let leader = self.leader();
        let gone = |waiting: &AtLeader| {
            let replaced = leader.is_some_and(|leader| leader != waiting.leader);
            replaced || restarted.contains(&waiting.leader) || !self.view.is_connected(waiting.leader)
        };
        let ids = self
            .proposals
            .at_leader
            .iter()
            .filter(|(_, waiting)| gone(waiting))
            .map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            let Some(waiting) = self.proposals.take_at_leader(id) else {
                continue;
            };
            let AtLeader {
                ticket,
                owed,
                request,
                deadline,
                ..
            } = waiting;
            if matches!(owed, Owed::Write(..)) {
                self.answer(Asker::Local(ticket), lost(owed, UnknownCause::LeaderLost), out);
            } else {
                // Reads and questions have no effect, so they may be asked again.
                let give_up = deadline.min(now + self.config.election_timeout * 4);
                self.enqueue(
                    Queued {
                        ticket,
                        request,
                        deadline,
                        give_up,
                    },
                    out,
                );
            }
        }
        let leads_somewhere = leader.is_some_and(|l| l == self.config.node || self.view.is_connected(l));
        if leads_somewhere || !self.reaches_majority() || self.contradiction.is_some() {
            for id in self.proposals.queue.keys().copied().collect::<Vec<_>>() {
                if let Some(queued) = self.proposals.take_queued(id) {
                    self.route(now, queued, out);
                }
            }
        }
    }

    /// Answers what is overdue.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Out) {
        while let Some((at, place)) = self.proposals.deadlines.first().copied()
            && at <= now
        {
            self.proposals.deadlines.pop_first();
            match place {
                Place::Log(index) => {
                    if let Some(InLog { asker, owed, .. }) = self.proposals.take_in_log(index) {
                        self.answer(asker, lost(owed, UnknownCause::Deadline), out);
                    }
                }
                Place::Leader(id) => {
                    if let Some(AtLeader { ticket, owed, .. }) = self.proposals.take_at_leader(id) {
                        self.answer(Asker::Local(ticket), lost(owed, UnknownCause::Deadline), out);
                    }
                }
                Place::Queue(id) => {
                    if let Some(Queued { ticket, request, .. }) = self.proposals.take_queued(id) {
                        self.answer(
                            Asker::Local(ticket),
                            refusal(owed(&request), Reason::NoLeader),
                            out,
                        );
                    }
                }
            }
        }
        self.expire_reads(now, out);
    }

    /// Whether a request at this level needs no leader.
    pub(super) fn is_local(read: &ReadRequest) -> bool {
        matches!(read.at_least, Some(ReadLevel::Local))
    }
}
