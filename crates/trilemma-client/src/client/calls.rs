//! The way of a call: to a server, into the queue of a connection, on to the next server, to its end.

use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::{Attempt, Instant, Reason, Reply, Request, Ticket, UnknownCause, WriteError};

use super::{
    Answer, Client, Effect, LOSSES_MAX, PAUSE_MAX, Pending, Place, Server, TAKEN_MAX, What, keyspace_id,
};
use crate::link::{CallId, ConnectionId};
use crate::wire::ClientRequest;

/// A node gets a little less time than its client has, so that its answer, which comes at its deadline if nothing came
/// before, is there in time: what the node knows for certain is better than what the client must leave open.
const MARGIN_MAX: Duration = Duration::from_millis(100);
const MARGIN_PART: u32 = 8;

impl Client {
    /// Whether a call may be put to this server in this pass.
    pub(super) fn may_ask(&self, ticket: Ticket, server: usize) -> bool {
        self.calls.get(&ticket).is_some_and(|call| {
            call.pinned.is_none_or(|pinned| pinned == server) && !call.refused.contains_key(&server)
        })
    }

    /// Looks again at all calls that wait for a connection.
    pub(super) fn serve(&mut self, now: Instant) {
        self.next_dial = Instant::NEVER;
        for ticket in self.waiting.clone() {
            self.route(now, ticket);
        }
    }

    /// Hands a call that waits to a server that is connected, or sees to it that one is dialed.
    pub(super) fn route(&mut self, now: Instant, ticket: Ticket) {
        let Some(call) = self.calls.get(&ticket) else {
            return;
        };
        let home = call.keyspace().and_then(|keyspace| self.homes.get(keyspace));
        let (first, count) = (home.copied().unwrap_or(self.first), self.servers.len());
        let order = (0..count).map(|place| (first + place) % count);
        let mut order = order.filter(|server| self.may_ask(ticket, *server)).peekable();
        if order.peek().is_none() {
            return self.pass_over(now, ticket);
        }
        let (mut ready, mut dialed, mut next) = (None, None, None);
        let mut unreachable: Vec<(usize, String)> = Vec::new();
        for server in order {
            match &self.servers[server] {
                Server { link: Some(link), .. } if link.is_ready() => {
                    ready = Some(server);
                    break;
                }
                Server { link: Some(link), .. } => dialed = dialed.max(Some(link.since)),
                Server {
                    failed: Some((at, why)),
                    ..
                } if now < *at + self.settings.failure_memory => unreachable.push((server, why.clone())),
                Server { .. } => next = next.or(Some(server)),
            }
        }
        if let Some(server) = ready {
            return self.hand(now, ticket, server);
        }
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.refused.extend(unreachable);
        }
        let due = dialed.map_or(now, |since| since + self.settings.stagger);
        match (dialed, next) {
            (None, None) => self.pass_over(now, ticket),
            (Some(_), None) => {}
            (_, Some(server)) if due <= now => {
                self.dial(now, server);
                self.next_dial = self.next_dial.min(now + self.settings.stagger);
            }
            (_, Some(_)) => self.next_dial = self.next_dial.min(due),
        }
    }

    /// Puts a call onto a connection, or into its queue.
    fn hand(&mut self, now: Instant, ticket: Ticket, server: usize) {
        let settings = &self.settings;
        let (Some(call), Some(link)) = (self.calls.get_mut(&ticket), self.servers[server].link.as_mut())
        else {
            return;
        };
        assert!(link.is_ready(), "a call is handed to a server that serves");
        self.waiting.remove(&ticket);
        let (queue, room) = if matches!(call.what, What::Watch { .. }) {
            (&mut link.watch_queue, link.watches < settings.watches_max.max(1))
        } else {
            let room = link.has_room(call.bytes(), settings);
            (&mut link.queue, room)
        };
        call.place = Place::Queued(link.id);
        let connection = link.id;
        if queue.is_empty() && room {
            self.send(now, ticket, connection);
        } else {
            queue.insert(ticket);
        }
    }

    /// Sends what has room now.
    pub(super) fn pump(&mut self, now: Instant, connection: ConnectionId) {
        loop {
            let Some(link) = self
                .servers
                .get_mut(connection.server)
                .and_then(|server| server.link.as_mut())
            else {
                return;
            };
            if link.id != connection || !link.is_ready() {
                return;
            }
            let first = link.queue.first().copied();
            let fits = first.filter(|ticket| {
                let bytes = self.calls.get(ticket).map_or(0, Pending::bytes);
                link.has_room(bytes, &self.settings)
            });
            let watch = link.watch_queue.first().copied();
            let watch = watch.filter(|_| link.watches < self.settings.watches_max.max(1));
            let Some(ticket) = fits.or(watch) else { return };
            link.queue.remove(&ticket);
            link.watch_queue.remove(&ticket);
            self.send(now, ticket, connection);
        }
    }

    fn send(&mut self, now: Instant, ticket: Ticket, connection: ConnectionId) {
        let id = CallId(self.number());
        let (Some(call), Some(link)) = (
            self.calls.get_mut(&ticket),
            self.servers[connection.server].link.as_mut(),
        ) else {
            return;
        };
        let keyspace = match call.keyspace().map(|name| keyspace_id(link, name)).transpose() {
            Ok(keyspace) => keyspace.unwrap_or_default(),
            Err(reason) => return self.refuse(ticket, reason),
        };
        let request = match &call.what {
            What::Request { request, .. } => ClientRequest::Ask {
                keyspace,
                timeout_ms: node_timeout(call.deadline.since(now)),
                request: request.clone(),
            },
            What::Overview => ClientRequest::Overview,
            What::Members => ClientRequest::Members,
            What::Watch { spec, .. } => {
                let spec = spec.clone();
                call.place = Place::Opening(connection);
                link.watches += 1;
                link.opening.insert(ticket);
                return self.effects.push(Effect::OpenWatch {
                    connection,
                    ticket,
                    keyspace,
                    spec,
                });
            }
        };
        call.place = Place::Sent(connection, id);
        call.given_to = Some(connection.server);
        if call.known_to_one_node().is_some() && (call.is_uncertain() || call.write().is_none()) {
            call.pinned = call.given_to;
        }
        link.sent(id, Some(ticket), call.bytes());
        self.effects.push(Effect::Send {
            connection,
            call: id,
            request,
        });
    }

    /// Every server has refused the call, or could not be reached.
    fn pass_over(&mut self, now: Instant, ticket: Ticket) {
        let Some(call) = self.calls.get(&ticket) else {
            return;
        };
        if call.is_uncertain() {
            return self.pause(now, ticket);
        }
        match call.refusal.clone() {
            Some(refusal) => self.resolve(ticket, Answer::Reply(refusal)),
            None => {
                let why = self.failures(ticket);
                self.refuse(ticket, Reason::Unreachable { why });
            }
        }
    }

    /// A write of which nobody knows is asked again after a while, at any server that may be asked at all.
    pub(super) fn pause(&mut self, now: Instant, ticket: Ticket) {
        let why = self.failures(ticket);
        self.leave(ticket);
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        assert!(
            call.is_uncertain(),
            "only a write that may have run is asked again after a pause"
        );
        let until = now + call.pause;
        if until >= call.deadline {
            // There is no time for another attempt, so nothing more will be known.
            return self.refuse(ticket, Reason::Unreachable { why });
        }
        call.pause = PAUSE_MAX.min(2 * call.pause);
        call.refused.clear();
        call.place = Place::Paused(until);
        self.paused.insert((until, ticket));
    }

    /// What the servers that may be asked have said in this pass.
    fn failures(&self, ticket: Ticket) -> String {
        let refused = self.calls.get(&ticket).into_iter().flat_map(|call| &call.refused);
        let texts: Vec<String> = refused
            .map(|(server, why)| format!("node {}: {why}", self.servers[*server].node))
            .collect();
        if texts.is_empty() {
            return "no server has answered in time".into();
        }
        texts.join("; ")
    }

    /// The call waits for a connection again.
    pub(super) fn wait(&mut self, ticket: Ticket) {
        self.leave(ticket);
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.place = Place::Waiting;
            self.waiting.insert(ticket);
        }
    }

    /// The connection on which a call was sent, or its watch opened, has ended without an answer.
    pub(super) fn lose(&mut self, ticket: Ticket, why: &str) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        if let Some(held) = call.held.take() {
            return self.resolve(ticket, Answer::Reply(held));
        }
        call.losses += 1;
        let is_write = call.write().is_some();
        if !call.may_repeat() || call.losses >= LOSSES_MAX {
            let reason = Reason::Unreachable { why: why.into() };
            return self.lost_answer(ticket, UnknownCause::ReplyLost, reason);
        }
        if is_write {
            call.repeat(UnknownCause::ReplyLost);
        }
        self.wait(ticket);
    }

    /// The time of a call is up.
    pub(super) fn expire(&mut self, now: Instant, ticket: Ticket) {
        let Some(place) = self.calls.get(&ticket).map(|call| call.place) else {
            return;
        };
        self.answer_late(ticket);
        self.step_up(now, place);
    }

    /// Sends what waited behind a call that has left this place: it may fit where that one did not.
    pub(super) fn step_up(&mut self, now: Instant, left: Place) {
        if let Place::Queued(on) = left {
            self.pump(now, on);
        }
    }

    fn answer_late(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        if let Some(held) = call.held.take() {
            return self.resolve(ticket, Answer::Reply(held));
        }
        let reason = match call.place {
            Place::Sent(..) => {
                return self.lost_answer(ticket, UnknownCause::Deadline, Reason::Deadline);
            }
            Place::Opening(_) | Place::Paused(_) => Reason::Deadline,
            Place::Queued(on) => Reason::Overloaded {
                what: format!(
                    "too much is under way on the connection to node {}",
                    self.servers[on.server].node
                ),
            },
            Place::Waiting => Reason::Unreachable {
                why: self.failures(ticket),
            },
        };
        match self.calls.get(&ticket).and_then(|call| call.refusal.clone()) {
            Some(refusal) => self.resolve(ticket, Answer::Reply(refusal)),
            None => self.refuse(ticket, reason),
        }
    }

    /// Answers a call whose last attempt certainly had no effect.
    pub(super) fn refuse(&mut self, ticket: Ticket, reason: Reason) {
        let Some(call) = self.calls.get(&ticket) else {
            return;
        };
        let answer = match (&call.what, call.write(), &call.doubt) {
            (_, Some((op, _)), Some(cause)) if !reason.decides_operation() => {
                let cause = cause.clone();
                Answer::Reply(Reply::Write(Err(WriteError::Unknown { op, cause })))
            }
            (What::Request { request, .. }, ..) => Answer::Reply(PendingKind::of(request).refused(reason)),
            (What::Overview | What::Members | What::Watch { .. }, ..) => Answer::Refused(reason),
        };
        self.resolve(ticket, answer);
    }

    /// Answers a call whose last attempt may have had an effect.
    pub(super) fn lost_answer(&mut self, ticket: Ticket, cause: UnknownCause, reason: Reason) {
        let Some(call) = self.calls.get(&ticket) else {
            return;
        };
        let answer = match &call.what {
            What::Request { request, .. } => {
                let cause = call.doubt.clone().unwrap_or(cause);
                Answer::Reply(PendingKind::of(request).lost(cause, reason))
            }
            What::Overview | What::Members | What::Watch { .. } => Answer::Refused(reason),
        };
        self.resolve(ticket, answer);
    }

    pub(super) fn resolve(&mut self, ticket: Ticket, answer: Answer) {
        let Some(call) = self.remove(ticket) else { return };
        if let Answer::Reply(Reply::Write(result)) = &answer {
            match result {
                Ok(_) => self.forget_taken(&call),
                Err(WriteError::Unknown { .. }) => self.remember(&call, false),
                Err(_) => {}
            }
        }
        self.effects.push(Effect::Resolve { ticket, answer });
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        self.leave(ticket);
        let call = self.calls.remove(&ticket)?;
        self.deadlines.remove(&(call.deadline, ticket));
        Some(call)
    }

    /// Takes a call out of the place where it stands.
    fn leave(&mut self, ticket: Ticket) {
        let Some(place) = self.calls.get(&ticket).map(|call| call.place) else {
            return;
        };
        match place {
            Place::Waiting => {
                self.waiting.remove(&ticket);
            }
            Place::Paused(until) => {
                self.paused.remove(&(until, ticket));
            }
            Place::Queued(on) => {
                if let Some(link) = self.link(on) {
                    link.queue.remove(&ticket);
                    link.watch_queue.remove(&ticket);
                }
            }
            Place::Sent(on, call) => {
                if let Some(link) = self.link(on) {
                    link.forget(call);
                }
            }
            Place::Opening(on) => {
                if let Some(link) = self.link(on) {
                    link.opening.remove(&ticket);
                }
            }
        }
    }

    /// Remembers who was given a write whose outcome is unknown, where nobody else knows it. `dropped`: its caller has
    /// gone, so the outcome is unknown only if it is under way.
    pub(super) fn remember(&mut self, call: &Pending, dropped: bool) {
        let under_way = matches!(call.place, Place::Sent(..)) || call.is_uncertain();
        let (Some((op, _)), Some(server)) = (call.write(), call.given_to) else {
            return;
        };
        if call.known_to_one_node().is_none() || (dropped && !under_way) {
            return;
        }
        self.forget_taken(call);
        let number = self.number();
        self.taken.insert(op, (number, server));
        self.taken_order.insert(number, op);
        if self.taken.len() > TAKEN_MAX
            && let Some((_, oldest)) = self.taken_order.pop_first()
        {
            self.taken.remove(&oldest);
        }
    }

    fn forget_taken(&mut self, call: &Pending) {
        let known = call.write().and_then(|(op, _)| self.taken.remove(&op));
        if let Some((number, _)) = known {
            self.taken_order.remove(&number);
        }
    }
}

impl Pending {
    /// An attempt of this write may have had an effect: it is asked again, as a retry, everywhere.
    pub(super) fn repeat(&mut self, cause: UnknownCause) {
        self.doubt.get_or_insert(cause);
        self.refused.clear();
        self.refusal = None;
        if let What::Request {
            request: Request::Write { attempt, .. },
            ..
        } = &mut self.what
        {
            *attempt = Attempt::Retry;
        }
    }
}

/// Milliseconds that a node is given for a request whose caller waits for `rest`.
fn node_timeout(rest: Duration) -> u32 {
    let margin = MARGIN_MAX.min(rest / MARGIN_PART);
    u32::try_from((rest - margin).as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}
