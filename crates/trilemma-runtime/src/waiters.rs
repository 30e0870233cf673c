//! Who waits for which proposal, and until when.
//!
//! Protocols answer every proposal by its deadline. This is the backstop behind them: a proposal whose deadline has
//! passed without an answer is answered here, in the only class that is certainly right.

use std::collections::{BTreeSet, HashMap};

use tokio::sync::oneshot;
use trilemma_core::{Instant, OpId, Reason, Reply, Request, Ticket, UnknownCause, WriteError, codec};
use trilemma_transport::ClientRef;

use crate::replicator::{DEADLINE_GRACE, mismatched};
use crate::wire::ClientReply;

/// Proposals that wait for an answer at one node. Beyond it new ones are refused.
pub(crate) const WAITERS_MAX: usize = 65_536;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A task of this process.
    Local(oneshot::Sender<Reply>),
    /// A client's request.
    Client(ClientRef, u64),
}

impl Waiter {
    /// Gives the answer. A waiter that has gone away needs none.
    pub(crate) fn answer(self, reply: Reply) {
        match self {
            Waiter::Local(sender) => {
                // The caller dropped its future: nobody is left to tell.
                let _gone = sender.send(reply);
            }
            Waiter::Client(client, request) => {
                let reply = match reply {
                    Reply::Read(result) => ClientReply::Read(result),
                    Reply::Write(result) => ClientReply::Write(result),
                    Reply::Outcome(result) => ClientReply::Outcome(result),
                };
                if let Err(error) = client.reply(request, codec::encode(&reply)) {
                    tracing::debug!(%error, "an answer found its client gone");
                }
            }
        }
    }
}

/// What kind of answer is owed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owed {
    Read,
    Write(OpId),
    Outcome,
}

impl Owed {
    /// The kind of answer that `request` asks for.
    pub(crate) fn to(request: &Request) -> Self {
        match request {
            Request::Read(_) => Owed::Read,
            Request::Write { op, .. } => Owed::Write(*op),
            Request::Outcome { .. } => Owed::Outcome,
        }
    }

    /// The answer when nothing has been done and `reason` is why.
    pub(crate) fn refusal(self, reason: Reason) -> Reply {
        match self {
            Owed::Read => Reply::Read(Err(reason.into())),
            Owed::Write(_) => Reply::Write(Err(reason.into())),
            Owed::Outcome => Reply::Outcome(Err(reason.into())),
        }
    }

    /// The answer when something may have been done.
    fn unknown(self, cause: UnknownCause, reason: Reason) -> Reply {
        match self {
            Owed::Write(op) => Reply::Write(Err(WriteError::Unknown { op, cause })),
            Owed::Read | Owed::Outcome => self.refusal(reason),
        }
    }

    fn matches(self, reply: &Reply) -> bool {
        matches!(
            (self, reply),
            (Owed::Read, Reply::Read(_))
                | (Owed::Write(_), Reply::Write(_))
                | (Owed::Outcome, Reply::Outcome(_))
        )
    }
}

/// All proposals under way at this node.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: HashMap<Ticket, (Waiter, Owed, Instant)>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    last: Ticket,
}

impl Waiters {
    /// Registers a waiter; its ticket names the proposal. Gives the waiter back when too many wait already.
    pub(crate) fn add(&mut self, waiter: Waiter, owed: Owed, deadline: Instant) -> Result<Ticket, Waiter> {
        if self.waiting.len() >= WAITERS_MAX {
            return Err(waiter);
        }
        self.last = self.last.next();
        self.waiting.insert(self.last, (waiter, owed, deadline));
        self.deadlines.insert((deadline, self.last));
        Ok(self.last)
    }

    /// Passes a protocol's answer on. An answer after the backstop's is dropped.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: Reply) {
        if let Some((waiter, owed, deadline)) = self.waiting.remove(&ticket) {
            if !owed.matches(&reply) {
                mismatched(&reply);
            }
            self.deadlines.remove(&(deadline, ticket));
            waiter.answer(reply);
        }
    }

    /// When the backstop must look next.
    pub(crate) fn wake_at(&self) -> Instant {
        self.deadlines
            .first()
            .map_or(Instant::NEVER, |(deadline, _)| *deadline + DEADLINE_GRACE)
    }

    /// Answers what is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied()
            && deadline + DEADLINE_GRACE <= now
        {
            self.deadlines.pop_first();
            if let Some((waiter, owed, _)) = self.waiting.remove(&ticket) {
                waiter.answer(owed.unknown(UnknownCause::Deadline, Reason::Deadline));
            }
        }
    }

    /// Answers everything that waits: the node stops.
    pub(crate) fn close(&mut self, reason: &Reason) {
        self.deadlines.clear();
        for (_, (waiter, owed, _)) in self.waiting.drain() {
            waiter.answer(owed.unknown(UnknownCause::Stopped, reason.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
