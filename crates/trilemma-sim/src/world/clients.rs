//! Clients in the world: whom they ask, when they give up, what they hear when a node dies.

use trilemma_core::{
    Incarnation, Instant, LiveStatus, NodeId, Reason, Reply, Request, Ticket, UnknownCause, WriteError,
};
use trilemma_storage::LogSeq;

use super::{Event, MS, World};
use crate::client::Next;
use crate::node::{Asked, Process};
use crate::scenario::Protocol;

/// Time beyond its deadline after which a proposal counts as forgotten.
const DEADLINE_SLACK: u64 = 25 * MS;

impl World<'_> {
    /// A client's turn: it begins its next operation, or asks again about the one under way.
    pub(super) fn client(&mut self, client: usize) {
        if self.quiesce.is_prober(client) {
            return self.prober(client);
        }
        if self.has_libraries() {
            return self.client_through_library(client);
        }
        let workload = &self.scenario.workload;
        let over = self.operations_are_over();
        if self.clients[client].pending.is_none() {
            if over {
                return;
            }
            self.asked += 1;
            let time = self.now;
            let this = &mut self.clients[client];
            let slot = this.rng.below(self.parts.len() as u64) as usize;
            this.choose(slot, self.parts[slot], workload.keys, time);
        }
        let node = NodeId(1 + self.clients[client].rng.below(self.nodes.len() as u64) as u32);
        let bound = self.clients[client].pending.as_ref().and_then(|pending| {
            pending
                .first_asked
                .filter(|_| self.parts[pending.slot] == Protocol::Gossip)
        });
        let node = bound.unwrap_or(node);
        let shortest = workload.deadline / 8;
        let deadline = shortest + self.clients[client].rng.below(workload.deadline - shortest + 1);
        self.ask(client, node, deadline);
    }

    /// Puts the client's operation to a node; to the next turn if the node cannot be reached.
    pub(super) fn ask(&mut self, client: usize, id: NodeId, deadline: u64) {
        let now = self.now;
        let is_up = self.node(id).process.is_some();
        if !is_up {
            // Nobody is there, so nothing was sent: another node, a little later.
            let delay = MS + self.clients[client].rng.below(20 * MS);
            return self.schedule(delay, Event::Client { client });
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open_session(client, id);
        let this = &mut self.clients[client];
        let Some(request) = this.request() else { return };
        let Some(pending) = &mut this.pending else { return };
        pending.question = Some((id, ticket, now));
        pending.sent = true;
        pending.first_asked.get_or_insert(id);
        let slot = pending.slot;
        if matches!(request, Request::Write { .. }) {
            self.load.asked(slot);
            self.untouched.asked(slot, id);
        }
        self.trace.line(now, || {
            format!("client {client} asks {id} {ticket} {}", brief(&request))
        });
        let (instant, give_up) = self.deadline(id, deadline);
        self.schedule_at(give_up, Event::GiveUp { client, ticket });
        let delay = self.clients[client].rng.below(MS / 5);
        let incarnation = self.node(id).incarnation;
        self.schedule(
            delay,
            Event::Propose {
                node: id,
                incarnation,
                slot,
                ticket,
                deadline: instant,
                request,
            },
        );
    }

    /// Of a question that is put to a node now: its deadline by the clock of the node, and when its asker gives up.
    pub(super) fn deadline(&mut self, id: NodeId, timeout: u64) -> (Instant, u64) {
        let now = self.now;
        let clock = &self.node(id).clock;
        let deadline = clock.instant(now) + std::time::Duration::from_nanos(timeout);
        (deadline, clock.time_of(deadline).saturating_add(DEADLINE_SLACK))
    }

    pub(super) fn propose(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        asked: Asked,
        deadline: Instant,
        request: Request,
    ) {
        if self.process(id, incarnation).is_some() {
            let (slot, ticket) = asked;
            let (status, time) = (self.status(id, slot), self.now);
            let noted =
                status.map(|status| self.invariants.asked(id, slot, ticket, &request, (&status, time)));
            if let Some(Err((checker, what))) = noted {
                return self.fail(checker, what);
            }
            let keyspace = Process::keyspace(slot, self.parts[slot]);
            self.turn(id, |process, now| {
                let timeout = deadline.since(now.instant);
                process.node.on_request(now, keyspace, timeout, request, asked);
            });
        }
    }

    fn open_session(&mut self, client: usize, id: NodeId) {
        let time = self.now;
        let Some(pending) = &self.clients[client].pending else {
            return;
        };
        let (slot, sent) = (pending.slot, pending.sent);
        if sent || pending.command.is_none() {
            return;
        }
        let known = self.clients[client].sessions.contains_key(&slot);
        // Now and then a client comes back as a new one.
        if known && !self.clients[client].rng.per_mille(30) && pending_has_session(&self.clients[client]) {
            return;
        }
        let node = self.node(id);
        let now = node.clock.now(time);
        let Some(process) = &node.process else { return };
        let basis = process.engine(slot).status(now).version;
        let this = &mut self.clients[client];
        this.open_session(slot, basis);
        if let (Some((session, seq)), Some(pending)) = (this.sessions.get_mut(&slot), &mut this.pending) {
            *seq = 1;
            pending.op.session = *session;
            pending.op.seq = 1;
        }
    }

    /// What a node says of itself, if it runs.
    pub(super) fn status(&self, id: NodeId, slot: usize) -> Option<LiveStatus> {
        let node = &self.nodes[id.0 as usize - 1];
        let process = node.process.as_ref()?;
        Some(process.node.replicas()[slot].status(node.clock.now(self.now)))
    }

    /// A node has answered a proposal.
    pub(super) fn answered(&mut self, id: NodeId, slot: usize, ticket: Ticket, reply: Reply) {
        let asked =
            |question: Option<(NodeId, Ticket, u64)>| question.is_some_and(|(_, asked, _)| asked == ticket);
        let waiting = self.clients.iter().position(|client| {
            client
                .pending
                .as_ref()
                .is_some_and(|pending| asked(pending.question))
        });
        let process = self.node(id).process.as_ref();
        let reached = process.map_or((LogSeq(0), LogSeq(0)), Process::reached);
        let (status, time) = (self.status(id, slot), self.now);
        let status = status.as_ref().map(|status| (status, time));
        let answered = self
            .invariants
            .answered(id, slot, ticket, &reply, reached, status);
        if let Err((checker, what)) = answered {
            return self.fail(checker, what);
        }
        if let Reply::Write(Err(WriteError::NotApplied(refusal))) = &reply
            && matches!(refusal.reason, Reason::Overloaded { .. })
        {
            self.coverage.event("write", "overloaded");
        }
        let now = self.now;
        self.trace.number(ticket.0);
        self.trace
            .line(now, || format!("{id} answers {ticket}: {reply:?}"));
        if self.library_answered(ticket, &reply) {
            return;
        }
        if self.adder_answered(ticket, &reply) {
            return;
        }
        if let Some(client) = waiting {
            self.tell(client, Some(reply));
        }
    }

    /// Tells a client what came of its question and plans its next turn.
    pub(super) fn tell(&mut self, client: usize, reply: Option<Reply>) {
        let now = self.now;
        if self.quiesce.is_prober(client) {
            return self.probed(client, reply);
        }
        let think = self.scenario.workload.think;
        let this = &mut self.clients[client];
        let pending = this.pending.as_ref().filter(|pending| pending.command.is_some());
        if let (Some(pending), Some(Reply::Write(Ok(_)))) = (pending, &reply) {
            self.load.wrote(pending.slot, now);
        }
        if let (Some(pending), Some(reply)) = (pending, &reply)
            && is_ruled(reply)
        {
            self.untouched.wrote(pending.slot, now);
        }
        let next = this.answer(reply, now, &mut self.book);
        if let Some((checker, what)) = self.book.broken.take() {
            return self.fail(checker, what);
        }
        let this = &mut self.clients[client];
        let delay = match next {
            Next::Done => this.rng.below(2 * think + 1),
            Next::FollowUp => this.rng.below(30 * MS),
        };
        self.schedule(delay, Event::Client { client });
    }

    /// A client has waited long enough. That the node has not answered by then is a fault of the node, unless it is
    /// dead, stands still, or waits for its disk.
    pub(super) fn give_up(&mut self, client: usize, ticket: Ticket) {
        let Some(pending) = &self.clients[client].pending else {
            return;
        };
        let Some((id, asked, since)) = pending.question else {
            return;
        };
        if asked != ticket {
            return;
        }
        let node = self.node(id);
        let stood_still = node.paused_until > since;
        let waits = node.process.as_ref().is_none_or(Process::is_writing);
        if !stood_still && !waits {
            let what = format!(
                "node {id} has not answered {ticket} by its deadline: {}",
                pending_text(&self.clients[client])
            );
            return self.fail("deadline", what);
        }
        self.tell(client, None);
    }

    /// A node has died: its clients hear nothing more from it.
    pub(super) fn connections_lost(&mut self, id: NodeId) {
        for client in 0..self.clients.len() {
            let pending = &self.clients[client].pending;
            let asked = pending.as_ref().and_then(|pending| pending.question);
            if asked.is_some_and(|(node, _, _)| node == id) {
                self.tell(client, None);
            }
        }
        self.adders_lost(id);
        if self.has_libraries() {
            self.library_node_died(id);
        } else {
            self.watches_lost(id);
        }
    }
}

/// Whether a majority has ruled on a write: it succeeded, or may have run before and been forgotten. Clients that have
/// nothing but such repeats get no other answer.
fn is_ruled(reply: &Reply) -> bool {
    match reply {
        Reply::Write(Ok(_)) => true,
        Reply::Write(Err(WriteError::Unknown { cause, .. })) => *cause == UnknownCause::SessionExpired,
        Reply::Write(Err(WriteError::NotApplied(refusal))) => refusal.reason == Reason::SessionExpired,
        _ => false,
    }
}

fn pending_has_session(client: &crate::client::Client) -> bool {
    client
        .pending
        .as_ref()
        .is_some_and(|pending| pending.op.session.nonce != 0)
}

fn pending_text(client: &crate::client::Client) -> String {
    client
        .pending
        .as_ref()
        .map(|pending| format!("{:?}", pending.call))
        .unwrap_or_default()
}

pub(super) fn brief(request: &Request) -> String {
    match request {
        Request::Write { op, attempt, command } => format!("{attempt:?} {op} {command:?}"),
        Request::Read(read) => format!("{read:?}"),
        Request::Outcome { op, .. } => format!("outcome of {op}"),
    }
}
