//! What a caller is owed: which kind of answer, by when, and what it may hear when things go wrong.
//!
//! [`PendingKind`] holds the one rule for refusals. A refused *first* attempt certainly had no effect. A refused *retry*
//! says only that this copy was not taken: an earlier one may have run, or may yet, so the outcome is unknown, unless
//! the reason itself decides the operation ([`Reason::decides_operation`]). Who refuses, a protocol, a node's
//! admission or the client's own library, answers through it.
//!
//! [`Pending`] keeps requests by ticket, with their deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::{Reason, UnknownCause, WriteError};
use crate::id::{OpId, Ticket, Version};
use crate::protocol::{Attempt, Reply, Request};
use crate::receipt::{Outcome, Receipt};
use crate::session::OpResult;
use crate::time::Instant;

/// What kind of answer a request is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    /// [`Reply::Read`].
    Read,
    /// [`Reply::Write`].
    Write {
        /// The operation.
        op: OpId,
        /// Whether it may have been sent before.
        attempt: Attempt,
    },
    /// [`Reply::Outcome`].
    Outcome {
        /// The operation that is asked about.
        op: OpId,
    },
}

impl PendingKind {
    /// The kind of answer that `request` is owed.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Read(_) => PendingKind::Read,
            Request::Write { op, attempt, .. } => PendingKind::Write {
                op: *op,
                attempt: *attempt,
            },
            Request::Outcome { op, .. } => PendingKind::Outcome { op: *op },
        }
    }

    /// The answer when this attempt certainly had no effect, and `reason` is why.
    #[must_use]
    pub fn refused(self, reason: Reason) -> Reply {
        match self {
            PendingKind::Read => Reply::Read(Err(reason.into())),
            PendingKind::Outcome { .. } => Reply::Outcome(Err(reason.into())),
            PendingKind::Write { op, attempt } => Reply::Write(Err(refused_write(op, attempt, reason))),
        }
    }

    /// The answer when nobody here can tell whether the request had an effect. A read has none, so it is simply not
    /// answered, for this `reason`.
    #[must_use]
    pub fn lost(self, cause: UnknownCause, reason: Reason) -> Reply {
        match self {
            PendingKind::Write { op, .. } => Reply::Write(Err(WriteError::Unknown { op, cause })),
            PendingKind::Read | PendingKind::Outcome { .. } => self.refused(reason),
        }
    }

    /// The answer when the operation's final result is known: what its session recorded, or `None` if that record is gone.
    /// `receipt` makes the receipt of an operation that ran, from what [`OpResult::Applied`] holds.
    ///
    /// # Panics
    /// For a read, which has no such result: a protocol's own bug.
    #[must_use]
    pub fn resolved(
        self,
        result: Option<OpResult>,
        receipt: impl FnOnce(OpId, (bool, Version, Version)) -> Receipt,
    ) -> Reply {
        match (self, result) {
            (
                PendingKind::Write { op, .. },
                Some(OpResult::Applied {
                    succeeded,
                    version,
                    found,
                }),
            ) => Reply::Write(Ok(receipt(op, (succeeded, version, found)))),
            (PendingKind::Write { .. }, Some(OpResult::Fenced)) => Reply::Write(Err(Reason::Fenced.into())),
            (PendingKind::Write { .. }, None) => self.refused(Reason::SessionExpired),
            (
                PendingKind::Outcome { op },
                Some(OpResult::Applied {
                    succeeded,
                    version,
                    found,
                }),
            ) => Reply::Outcome(Ok(Outcome::Applied(receipt(op, (succeeded, version, found))))),
            (PendingKind::Outcome { .. }, Some(OpResult::Fenced)) => Reply::Outcome(Ok(Outcome::NotApplied)),
            (PendingKind::Outcome { .. }, None) => Reply::Outcome(Ok(Outcome::Expired)),
            (PendingKind::Read, _) => unreachable!("a read has no result that a session records"),
        }
    }

    /// Whether `reply` can be the answer to this. What it says of another operation proves nothing about this one.
    #[must_use]
    pub fn is_answered_by(self, reply: &Reply) -> bool {
        match (self, reply) {
            (PendingKind::Write { op, .. }, Reply::Write(Ok(receipt)))
            | (PendingKind::Outcome { op }, Reply::Outcome(Ok(Outcome::Applied(receipt)))) => {
                receipt.op == op
            }
            (PendingKind::Write { op, .. }, Reply::Write(Err(WriteError::Unknown { op: of, .. }))) => {
                *of == op
            }
            (PendingKind::Read, Reply::Read(_))
            | (PendingKind::Write { .. }, Reply::Write(Err(_)))
            | (PendingKind::Outcome { .. }, Reply::Outcome(_)) => true,
            _ => false,
        }
    }
}

/// What a caller learns whose attempt at a write certainly had no effect. See the module for the rule.
#[must_use]
pub fn refused_write(op: OpId, attempt: Attempt, reason: Reason) -> WriteError {
    match (attempt, reason) {
        (Attempt::First, reason) => reason.into(),
        (Attempt::Retry, reason) if reason.decides_operation() => reason.into(),
        (Attempt::Retry, Reason::SessionExpired) => WriteError::Unknown {
            op,
            cause: UnknownCause::SessionExpired,
        },
        (Attempt::Retry, reason) => WriteError::Unknown {
            op,
            cause: UnknownCause::retry_refused(&reason),
        },
    }
}

/// Requests that wait for an answer, each under a ticket and with a deadline, in whatever `T` says where it goes.
#[derive(Debug)]
pub struct Pending<T> {
    waiting: BTreeMap<Ticket, Waiting<T>>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    last: Ticket,
    bytes: usize,
}

/// One request that waits.
#[derive(Debug)]
struct Waiting<T> {
    reply_to: T,
    kind: PendingKind,
    deadline: Instant,
    bytes: usize,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            last: Ticket::default(),
            bytes: 0,
        }
    }
}

impl<T> Pending<T> {
    /// Registers a request that holds `bytes` of memory until it is answered; its ticket names it.
    pub fn add(&mut self, reply_to: T, kind: PendingKind, deadline: Instant, bytes: usize) -> Ticket {
        self.last = self.last.next();
        self.bytes += bytes;
        self.deadlines.insert((deadline, self.last));
        let waiting = Waiting {
            reply_to,
            kind,
            deadline,
            bytes,
        };
        let before = self.waiting.insert(self.last, waiting);
        assert!(before.is_none(), "a ticket is given once");
        self.check();
        self.last
    }

    /// The invariants: each request that waits has its deadline in the order, and the bytes are theirs.
    fn check(&self) {
        assert_eq!(
            self.waiting.len(),
            self.deadlines.len(),
            "each request that waits has one deadline"
        );
        assert!(
            !self.waiting.is_empty() || self.bytes == 0,
            "{} B are held for nobody",
            self.bytes
        );
        // All of them are counted while they are few: a test may hold many thousands.
        if cfg!(debug_assertions) && self.waiting.len() <= 256 {
            let bytes: usize = self.waiting.values().map(|waiting| waiting.bytes).sum();
            assert_eq!(bytes, self.bytes, "bytes are counted");
            let has_deadline = |(ticket, waiting): (&Ticket, &Waiting<T>)| {
                self.deadlines.contains(&(waiting.deadline, *ticket)) && *ticket <= self.last
            };
            assert!(
                self.waiting.iter().all(has_deadline),
                "a request waits under its own deadline and a ticket that was given"
            );
        }
    }

    /// Takes a request that is answered now. `None` if it was answered before.
    ///
    /// # Panics
    /// If it cannot be the answer to the request: a protocol's own bug.
    pub fn answered(&mut self, ticket: Ticket, reply: &Reply) -> Option<T> {
        let Waiting {
            reply_to,
            kind,
            deadline,
            bytes,
        } = self.waiting.remove(&ticket)?;
        assert!(
            kind.is_answered_by(reply),
            "a protocol answered {kind:?} with {reply:?}"
        );
        assert!(
            self.deadlines.remove(&(deadline, ticket)),
            "what waits has a deadline"
        );
        self.bytes -= bytes;
        self.check();
        Some(reply_to)
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of memory that waiting requests hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When [`Pending::take_expired`] must look next, if answers may come `grace` after their deadline.
    #[must_use]
    pub fn wake_at(&self, grace: Duration) -> Instant {
        self.deadlines
            .first()
            .map_or(Instant::NEVER, |(deadline, _)| *deadline + grace)
    }

    /// Takes a request whose deadline is more than `grace` ago, with the answer that is certainly right.
    pub fn take_expired(&mut self, now: Instant, grace: Duration) -> Option<(T, Reply)> {
        while let Some((deadline, ticket)) = self.deadlines.first().copied()
            && deadline + grace <= now
        {
            self.deadlines.pop_first();
            if let Some(waiting) = self.waiting.remove(&ticket) {
                self.bytes -= waiting.bytes;
                self.check();
                let reply = waiting.kind.lost(UnknownCause::Deadline, Reason::Deadline);
                return Some((waiting.reply_to, reply));
            }
        }
        None
    }

    /// Takes everything that waits, in the order of deadlines, because the node stops for this `reason`.
    pub fn close(&mut self, reason: &Reason) -> Vec<(T, Reply)> {
        self.bytes = 0;
        let mut closed = Vec::with_capacity(self.waiting.len());
        for (_, ticket) in std::mem::take(&mut self.deadlines) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                let reply = waiting.kind.lost(UnknownCause::Stopped, reason.clone());
                closed.push((waiting.reply_to, reply));
            }
        }
        self.check();
        closed
    }
}

#[cfg(test)]
mod tests;
