//! Operations that wait for a round of their key, and what a round makes of them.

use std::sync::Arc;

use trilemma_core::pending::refused_write;
use trilemma_core::session::OpResult;
use trilemma_core::{
    Achieved, Attempt, Command, Entry, Epoch, Instant, Key, NodeId, NodeSet, OpId, Outcome, ReadError,
    ReadLevel, ReadReply, Reason, Receipt, Reply, Ticket, UnknownCause, Version, Versioned, WriteError,
};

use crate::ballot::Ballot;
use crate::register::{Change, Draft, Earlier, Keep, Proposed, Recent, Register, Ruling};

/// What is wanted of a key.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// To change it.
    Write {
        op: OpId,
        attempt: Attempt,
        command: Command,
    },
    /// To read it.
    Get,
    /// To learn what became of an operation.
    Outcome { op: OpId },
    /// To find out whether what this node's acceptor holds is chosen. Nobody waits for it.
    Confirm,
}

impl Kind {
    /// The id that it carries or asks about.
    pub(crate) fn op(&self) -> Option<OpId> {
        match self {
            Kind::Write { op, .. } | Kind::Outcome { op } => Some(*op),
            Kind::Get | Kind::Confirm => None,
        }
    }
}

/// One operation on a key.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    /// Whom to answer; `None` once that has happened.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) deadline: Instant,
    /// The accepts that carried an effect of it, with its result under each.
    pub(crate) accepts: Vec<(Ballot, OpResult)>,
    /// Phases and syncs of the key's round when the operation came.
    pub(crate) trips_before: u32,
    pub(crate) syncs_before: u32,
}

impl Operation {
    /// Whether it needs no further work.
    pub(crate) fn is_done(&self) -> bool {
        self.ticket.is_none() && !matches!(self.kind, Kind::Confirm)
    }

    /// Whether a round that fails must try again for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.ticket.is_some()
    }

    /// Whether no accept has carried an effect of it. What was sent may still take effect, answered or not.
    fn is_unsent(&self) -> bool {
        self.accepts.is_empty()
    }

    /// Whether nothing of it can ever take effect if this proposer forgets it now.
    pub(crate) fn is_certain(&self) -> bool {
        match self.kind {
            Kind::Write { attempt, .. } => self.is_unsent() && attempt == Attempt::First,
            Kind::Get | Kind::Outcome { .. } | Kind::Confirm => true,
        }
    }

    fn earlier(&self, attempt: Attempt) -> Earlier<'_> {
        Earlier {
            by_others: attempt == Attempt::Retry,
            by_us: &self.accepts,
        }
    }

    /// The answer when it is given up for this reason.
    pub(crate) fn refusal(&self, reason: Reason) -> Reply {
        match self.kind {
            Kind::Write { op, attempt, .. } if self.is_unsent() => {
                Reply::Write(Err(refused_write(op, attempt, reason)))
            }
            Kind::Write { op, .. } => {
                let cause = match reason {
                    Reason::Deadline => UnknownCause::Deadline,
                    _ => UnknownCause::ReplyLost,
                };
                Reply::Write(Err(WriteError::Unknown { op, cause }))
            }
            Kind::Outcome { .. } => Reply::Outcome(Err(ReadError::from(reason))),
            Kind::Get | Kind::Confirm => Reply::Read(Err(ReadError::from(reason))),
        }
    }
}

/// What a round found for one operation. Reported to the client when the round has succeeded.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It was done already.
    Skip,
    Write(OpId, Ruling),
    Get(Option<Versioned>),
    Outcome(OpId, Option<OpResult>),
}

/// A batch run against a register.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The register after the batch.
    pub(crate) register: Arc<Register>,
    /// What it records beyond the one before.
    results: Vec<Recent>,
    keep: Keep,
    /// Whether it differs from the one before.
    pub(crate) is_changed: bool,
    /// One for each operation of the batch.
    pub(crate) verdicts: Vec<Verdict>,
}

impl Plan {
    /// Runs `batch` in order against `base`. `ballot` is what results are recorded under.
    pub(crate) fn of(batch: &[Operation], base: &Arc<Register>, ballot: Ballot, keep: Keep) -> Self {
        let mut draft = Draft::new(Arc::clone(base), ballot, keep);
        let verdicts = batch
            .iter()
            .map(|operation| judge(operation, &mut draft))
            .collect();
        let is_changed = draft.is_changed();
        let (register, results) = draft.finish();
        Self {
            register,
            results,
            keep,
            is_changed,
            verdicts,
        }
    }

    /// The register as it is sent to those who hold the one before, which `base` carries.
    pub(crate) fn since(&self, base: Ballot) -> Proposed {
        assert!(self.is_changed, "what is not changed has no ballot of its own");
        Proposed::Change(Arc::new(Change {
            base,
            version: self.register.version,
            state: self.register.state.clone(),
            results: self.results.clone(),
            keep: self.keep,
        }))
    }
}

fn judge(operation: &Operation, draft: &mut Draft) -> Verdict {
    if operation.is_done() {
        return Verdict::Skip;
    }
    match &operation.kind {
        Kind::Write { op, attempt, command } => {
            Verdict::Write(*op, draft.write(*op, command, operation.earlier(*attempt)))
        }
        Kind::Get => Verdict::Get(draft.register().state.clone()),
        Kind::Outcome { op } => Verdict::Outcome(*op, draft.fence(*op)),
        Kind::Confirm => Verdict::Skip,
    }
}

/// What answers say about the round that found them.
#[derive(Clone, Debug)]
pub(crate) struct Achievement {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    /// The acceptors known to hold the register durably.
    pub(crate) durable_on: NodeSet,
    pub(crate) round_trips: u8,
    pub(crate) syncs: u8,
}

impl Achievement {
    fn receipt(self, op: OpId, succeeded: bool, version: Version, found: Version) -> Receipt {
        Receipt {
            op,
            succeeded,
            version,
            found,
            epoch: self.epoch,
            achieved: Achieved::Linearizable,
            durable_on: self.durable_on,
            served_by: self.node,
            round_trips: self.round_trips,
            syncs: self.syncs,
        }
    }

    /// The answer that tells `verdict`; `None` if nobody waits for it.
    pub(crate) fn reply(self, key: &Key, verdict: Verdict, is_certain: bool) -> Option<Reply> {
        Some(match verdict {
            Verdict::Skip => return None,
            Verdict::Get(state) => Reply::Read(Ok(ReadReply {
                entries: state
                    .map(|state| Entry {
                        key: key.clone(),
                        state,
                    })
                    .into_iter()
                    .collect(),
                more: false,
                version: Version::ABSENT,
                achieved: ReadLevel::Linearizable,
                served_by: self.node,
                round_trips: self.round_trips,
            })),
            Verdict::Write(op, ruling) => Reply::Write(self.write(op, ruling, is_certain)),
            Verdict::Outcome(op, result) => Reply::Outcome(Ok(match result {
                Some(OpResult::Applied {
                    succeeded,
                    version,
                    found,
                }) => Outcome::Applied(self.receipt(op, succeeded, version, found)),
                Some(OpResult::Fenced) => Outcome::NotApplied,
                None => Outcome::Expired,
            })),
        })
    }

    fn write(self, op: OpId, ruling: Ruling, is_certain: bool) -> Result<Receipt, WriteError> {
        match ruling {
            Ruling::Result { result, .. } => match result {
                OpResult::Applied {
                    succeeded,
                    version,
                    found,
                } => Ok(self.receipt(op, succeeded, version, found)),
                OpResult::Fenced => Err(Reason::Fenced.into()),
            },
            Ruling::Forgotten if is_certain => Err(Reason::SessionExpired.into()),
            Ruling::Forgotten => Err(WriteError::Unknown {
                op,
                cause: UnknownCause::SessionExpired,
            }),
        }
    }
}
