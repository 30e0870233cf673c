//! What an answer means for its call: it is over, another server is asked, or the same command goes again.

use trilemma_core::descriptor::WatchScope;
use trilemma_core::pending::{PendingKind, refused_write};
use trilemma_core::{Attempt, Instant, Outcome, Reason, Reply, Ticket, UnknownCause, Version, WriteError};

use super::{Answer, Client, Effect, Place, What};
use crate::link::{CallId, ConnectionId};
use crate::wire::{ClientReply, ClientRequest};

/// What becomes of a call.
enum Next {
    /// This is its answer.
    Done,
    /// This node does not serve it; another may.
    Elsewhere(String),
    /// It may have had an effect, and nobody knows: it is asked again.
    Again(UnknownCause),
    /// This is its answer, and the caller will need to know how far the keyspace has come.
    Renew,
}

fn next_step(reply: &Reply) -> Next {
    let by_reason = |reason: &Reason| {
        if reason.may_differ_elsewhere() {
            Next::Elsewhere(reason.to_string())
        } else {
            Next::Done
        }
    };
    match reply {
        Reply::Write(Err(WriteError::NotApplied(refusal))) => match &refusal.reason {
            Reason::SessionExpired => Next::Renew,
            reason => by_reason(reason),
        },
        Reply::Write(Err(WriteError::Unknown { cause, .. })) => match cause {
            UnknownCause::RetryRefused { why } => Next::Elsewhere(why.clone()),
            UnknownCause::LeaderLost | UnknownCause::ReplyLost | UnknownCause::Stopped => {
                Next::Again(cause.clone())
            }
            _ => Next::Done,
        },
        Reply::Read(Err(error)) | Reply::Outcome(Err(error)) => by_reason(&error.reason),
        _ => Next::Done,
    }
}

/// How far the keyspace has come, as a good answer shows.
fn reached(reply: &Reply) -> Option<Version> {
    match reply {
        Reply::Write(Ok(receipt)) | Reply::Outcome(Ok(Outcome::Applied(receipt))) => Some(receipt.version),
        Reply::Read(Ok(read)) => Some(read.version),
        _ => None,
    }
}

fn is_good(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Write(Ok(_)) | Reply::Outcome(Ok(_)) | Reply::Read(Ok(_))
    )
}

impl Client {
    pub(super) fn answered(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        call: CallId,
        reply: Result<ClientReply, String>,
    ) {
        let Some(link) = self.link(connection) else {
            return;
        };
        let is_introduction = !link.is_ready();
        match link.take(call) {
            None => return,
            Some(_) if is_introduction => self.introduced(now, connection, reply),
            Some(Some(ticket)) => self.take_answer(now, ticket, connection, reply),
            Some(None) => {}
        }
        self.pump(now, connection);
    }

    fn take_answer(
        &mut self,
        now: Instant,
        ticket: Ticket,
        connection: ConnectionId,
        reply: Result<ClientReply, String>,
    ) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        if let Some(held) = call.held.take() {
            if let Ok(ClientReply::Overview(overview)) = &reply {
                self.learn(overview);
            }
            return self.resolve(ticket, Answer::Reply(held));
        }
        match (&call.what, reply) {
            (What::Request { request, .. }, Ok(ClientReply::Answer(reply)))
                if PendingKind::of(request).is_answered_by(&reply) =>
            {
                self.take_reply(now, ticket, connection, reply);
            }
            (What::Overview, Ok(ClientReply::Overview(overview))) => {
                self.learn(&overview);
                self.resolve(ticket, Answer::Overview(overview));
            }
            (What::Members, Ok(ClientReply::Members(members))) => {
                self.resolve(ticket, Answer::Members(members));
            }
            // It was not understood, and nothing was done.
            (_, Ok(ClientReply::Bad(what))) => self.refuse(ticket, Reason::Invalid { what }),
            (_, Ok(_)) => self.garbled(ticket, "the node answered another question"),
            (_, Err(why)) => self.garbled(ticket, &why),
        }
    }

    fn garbled(&mut self, ticket: Ticket, why: &str) {
        let reason = Reason::Unreachable { why: why.into() };
        self.lost_answer(ticket, UnknownCause::ReplyLost, reason);
    }

    fn take_reply(&mut self, now: Instant, ticket: Ticket, connection: ConnectionId, reply: Reply) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        let What::Request {
            keyspace, backend, ..
        } = &call.what
        else {
            return;
        };
        if let Some(version) = reached(&reply)
            && backend.descriptor().watch == WatchScope::Shared
        {
            self.effects.push(Effect::Reached {
                keyspace: keyspace.clone(),
                version,
            });
        }
        if is_good(&reply) && self.homes.get(keyspace) != Some(&connection.server) {
            self.homes.insert(keyspace.clone(), connection.server);
        }
        // A refusal of this attempt is none of the operation, if an earlier one may have run.
        let reply = match (reply, call.write()) {
            (Reply::Write(Err(WriteError::NotApplied(refusal))), Some((op, Attempt::Retry)))
                if !refusal.reason.decides_operation() =>
            {
                Reply::Write(Err(refused_write(op, Attempt::Retry, refusal.reason)))
            }
            (reply, _) => reply,
        };
        match next_step(&reply) {
            Next::Done => self.finish(ticket, reply),
            Next::Elsewhere(why) => {
                call.refused.insert(connection.server, why);
                match &reply {
                    Reply::Write(Err(WriteError::Unknown { cause, .. })) => {
                        call.doubt.get_or_insert(cause.clone());
                    }
                    _ => {
                        call.refusal.get_or_insert(reply);
                    }
                }
                self.wait(ticket);
                self.route(now, ticket);
            }
            Next::Again(cause) if call.may_repeat() => {
                call.repeat(cause);
                self.pause(now, ticket);
            }
            Next::Again(_) => self.finish(ticket, reply),
            Next::Renew => self.renew(ticket, connection, reply),
        }
    }

    /// Answers with what a node has said, unless an earlier attempt of the call says more.
    fn finish(&mut self, ticket: Ticket, reply: Reply) {
        let doubt = self.calls.get(&ticket).and_then(|call| call.doubt.clone());
        let reply = match (reply, doubt) {
            (Reply::Write(Err(WriteError::Unknown { op, .. })), Some(cause)) => {
                Reply::Write(Err(WriteError::Unknown { op, cause }))
            }
            (reply, _) => reply,
        };
        self.resolve(ticket, Answer::Reply(reply));
    }

    /// The servers have forgotten the session, and nothing ran. Before its caller learns it, and begins a new one, it must
    /// know how far the keyspace has come: a session that begins too early is refused like this one.
    fn renew(&mut self, ticket: Ticket, connection: ConnectionId, reply: Reply) {
        let id = CallId(self.number());
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        call.held = Some(reply);
        call.place = Place::Sent(connection, id);
        if let Some(link) = self.link(connection) {
            link.sent(id, Some(ticket), 0);
        }
        self.effects.push(Effect::Send {
            connection,
            call: id,
            request: ClientRequest::Overview,
        });
    }
}
