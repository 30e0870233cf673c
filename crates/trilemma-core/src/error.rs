//! Errors: did it happen, why not, and what may the caller do?
//!
//! The outer type of every write error is the effect: [`WriteError::NotApplied`] (certain) or
//! [`WriteError::Unknown`] (it may have happened, or may yet). The class must be right in both directions: a refusal
//! reported as unknown makes users stop, an unknown reported as refusal makes them repeat a payment.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::duration;
use crate::data::Key;
use crate::id::{Epoch, NodeId, NodeSet, OpId, Version};

/// Longest free text in an error that travels, in bytes. What is beyond is cut off where it leaves: an error that its
/// receiver could not decode would say nothing at all.
pub const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// How free text of an error travels.
mod text {
    use serde::{Deserializer, Serialize, Serializer};

    use super::ERROR_TEXT_BYTES_MAX;
    use crate::codec::bounded_text;

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        text[..text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        bounded_text::<_, ERROR_TEXT_BYTES_MAX>(deserializer)
    }
}

/// What the caller of a failed operation may do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retry {
    /// Nothing but changing code, data or configuration helps.
    Never,
    /// The same operation, with the same [`OpId`], after this time.
    After(#[serde(deserialize_with = "duration")] Duration),
    /// Read again, then decide again.
    ReadAgain,
    /// Open a new session, then attempt again.
    NewSession,
}

/// Why an operation was not done. Each variant is certain: nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum Reason {
    /// Fewer nodes than a majority can be reached from here.
    #[error("unavailable: no quorum ({have} of {of} nodes reachable, {need} needed; unreachable: {missing})")]
    NoQuorum {
        /// Nodes of the keyspace that can be reached, this one included.
        have: u32,
        /// Nodes that are needed.
        need: u32,
        /// Nodes of the keyspace.
        of: u32,
        /// The members that cannot be reached.
        missing: NodeSet,
    },
    /// A write needs every member, and some cannot be reached.
    #[error("unavailable: the write needs every member, and node {missing} cannot be reached")]
    NotAllParticipants {
        /// The members that cannot be reached.
        missing: NodeSet,
    },
    /// A majority may be there, but it has no leader yet.
    #[error("unavailable: no leader is known yet, an election is under way")]
    NoLeader,
    /// The node that orders this keyspace's writes cannot be reached.
    #[error("unavailable: node {node}, the sequencer of this keyspace, cannot be reached")]
    NoSequencer {
        /// The sequencer.
        node: NodeId,
    },
    /// The node has started and has not caught up far enough to serve.
    #[error("unavailable: this node is recovering ({why})")]
    Recovering {
        /// What it waits for.
        #[serde(with = "text")]
        why: String,
    },
    /// The node is shutting down.
    #[error("unavailable: this node is stopping")]
    Stopping,
    /// A member said no.
    #[error("aborted: node {node} refused ({why})")]
    Refused {
        /// The member.
        node: NodeId,
        /// Its reason.
        #[serde(with = "text")]
        why: String,
    },
    /// The caller's time was up before the operation took effect, and it was given up for certain.
    #[error("aborted: the deadline passed before the operation could take effect")]
    Deadline,
    /// The key is held by another transaction whose outcome this node cannot know yet.
    #[error(
        "in doubt: transaction {batch} holds the key and has been unresolved for {since:?}; node {can_resolve} can resolve it"
    )]
    InDoubt {
        /// The transaction that holds the key.
        #[serde(with = "text")]
        batch: String,
        /// For how long.
        #[serde(deserialize_with = "duration")]
        since: Duration,
        /// The nodes whose answer would resolve it.
        can_resolve: NodeSet,
    },
    /// The backend cannot do this, and never weakens a request silently.
    #[error("unsupported: {asked}; the strongest this keyspace offers is {strongest}")]
    Unsupported {
        /// What was asked for.
        #[serde(with = "text")]
        asked: String,
        /// What there is.
        #[serde(with = "text")]
        strongest: String,
    },
    /// A version that a transaction had read has changed.
    #[error("conflict: key \"{key}\" has changed since it was read (now {found})")]
    Conflict {
        /// The key.
        key: Key,
        /// Its version now.
        found: Version,
    },
    /// The request was made for another epoch of the keyspace.
    #[error("stale epoch: the keyspace is in {now}")]
    StaleEpoch {
        /// The current epoch.
        now: Epoch,
    },
    /// A queue is full.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which limit was met.
        #[serde(with = "text")]
        what: String,
    },
    /// A part of the request is larger than its limit.
    #[error("too large: {what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        #[serde(with = "text")]
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk has no room for another write; reads go on.
    #[error("no space: {why}; make room, and the node goes on by itself")]
    NoSpace {
        /// What the disk said.
        #[serde(with = "text")]
        why: String,
    },
    /// The session is not known (any more); this attempt did nothing.
    #[error("session expired: its record was evicted; open a new session")]
    SessionExpired,
    /// The operation's id was fenced by `outcome`, which had answered that it did not happen.
    #[error("fenced: an earlier question about this operation was answered with \"not applied\"")]
    Fenced,
    /// The request itself is wrong.
    #[error("invalid: {what}")]
    Invalid {
        /// What is wrong.
        #[serde(with = "text")]
        what: String,
    },
    /// No keyspace of this name is configured on the node.
    #[error("keyspace \"{name}\" is not configured on this node; configured: {configured}")]
    NoSuchKeyspace {
        /// The name asked for.
        #[serde(with = "text")]
        name: String,
        /// The names there are.
        #[serde(with = "text")]
        configured: String,
    },
    /// The node could not be reached, so nothing was sent.
    #[error("unreachable: {why}")]
    Unreachable {
        /// Address and cause.
        #[serde(with = "text")]
        why: String,
    },
    /// The node has failed and stops: its storage, its network, or an invariant. Somebody must look at it; others may
    /// serve meanwhile.
    #[error("unavailable: this node has failed and stops ({why})")]
    Failed {
        /// What has failed, and what to do.
        #[serde(with = "text")]
        why: String,
    },
    /// Only some nodes may write in the keyspace, and the one that was asked is none of them.
    #[error("not allowed: node {node} may not write in this keyspace, only node {origins} may (`origins`)")]
    NotAnOrigin {
        /// The node that was asked.
        node: NodeId,
        /// The nodes that may.
        origins: NodeSet,
    },
    /// What the key holds does not allow it now: another data type, or a number at its end.
    #[error("wrong type: key \"{key}\": {why}")]
    WrongType {
        /// The key.
        key: Key,
        /// What it holds, and how that is read or changed.
        #[serde(with = "text")]
        why: String,
    },
    /// A bounded counter stays above its bound because each node takes only what it has the right to.
    #[error(
        "not enough rights: node {node} may take {here} of bounded counter \"{key}\", {asked} were asked for; {elsewhere}"
    )]
    NotEnoughRights {
        /// The counter.
        key: Key,
        /// The node that was asked.
        node: NodeId,
        /// What was asked for.
        asked: u64,
        /// What the node has the right to.
        here: u64,
        /// Who has which rights, as far as that node knows.
        #[serde(with = "text")]
        elsewhere: String,
    },
}

impl Reason {
    /// Whether the operation failed because nodes, a leader or time were missing: it may succeed later as it is.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Reason::NoQuorum { .. }
                | Reason::NotAllParticipants { .. }
                | Reason::NoLeader
                | Reason::NoSequencer { .. }
                | Reason::Recovering { .. }
                | Reason::Stopping
                | Reason::Deadline
                | Reason::InDoubt { .. }
                | Reason::Overloaded { .. }
                | Reason::NoSpace { .. }
                | Reason::Unreachable { .. }
                | Reason::Failed { .. }
        )
    }

    /// Whether another node may serve what this one has refused: something is missing here that may be there, or this one may
    /// not. Not so where all nodes would say the same, where time is up, and where the node is merely busy: to flood the others
    /// helps nobody.
    #[must_use]
    pub fn may_differ_elsewhere(&self) -> bool {
        let is_missing =
            self.is_unavailable() && !matches!(self, Reason::Deadline | Reason::Overloaded { .. });
        is_missing || matches!(self, Reason::NotAnOrigin { .. } | Reason::NotEnoughRights { .. })
    }

    /// Whether this reason holds for the operation under every attempt, whatever became of earlier ones: it was fenced,
    /// or no node ever takes it as it is.
    #[must_use]
    pub fn decides_operation(&self) -> bool {
        matches!(
            self,
            Reason::Fenced | Reason::Invalid { .. } | Reason::TooLarge { .. } | Reason::Unsupported { .. }
        )
    }

    /// What usually helps; a place that knows better says so in the error itself.
    #[must_use]
    pub fn retry(&self) -> Retry {
        const SOON: Duration = Duration::from_millis(100);
        const LATER: Duration = Duration::from_secs(1);
        match self {
            Reason::NoQuorum { .. } | Reason::NotAllParticipants { .. } | Reason::NoSequencer { .. } => {
                Retry::After(LATER)
            }
            Reason::NoLeader
            | Reason::Recovering { .. }
            | Reason::Deadline
            | Reason::Refused { .. }
            | Reason::InDoubt { .. }
            | Reason::Overloaded { .. } => Retry::After(SOON),
            Reason::NoSpace { .. } | Reason::Stopping | Reason::Unreachable { .. } => Retry::After(LATER),
            Reason::Conflict { .. } | Reason::WrongType { .. } | Reason::NotEnoughRights { .. } => {
                Retry::ReadAgain
            }
            Reason::SessionExpired => Retry::NewSession,
            Reason::StaleEpoch { .. } => Retry::After(SOON),
            Reason::Unsupported { .. }
            | Reason::TooLarge { .. }
            | Reason::Fenced
            | Reason::Invalid { .. }
            | Reason::NoSuchKeyspace { .. }
            | Reason::NotAnOrigin { .. }
            | Reason::Failed { .. } => Retry::Never,
        }
    }
}

/// A certain refusal: nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("not applied: {reason}")]
pub struct NotApplied {
    /// Why.
    #[source]
    pub reason: Reason,
    /// What may be done next.
    pub retry: Retry,
}

impl NotApplied {
    /// A refusal that no retry will change.
    #[must_use]
    pub fn never(reason: Reason) -> Self {
        Self {
            reason,
            retry: Retry::Never,
        }
    }
}

impl From<Reason> for NotApplied {
    fn from(reason: Reason) -> Self {
        let retry = reason.retry();
        Self { reason, retry }
    }
}

/// Why nobody on this side can tell whether a write happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum UnknownCause {
    /// The deadline passed after the write had been sent.
    #[error("the deadline passed after the write had been sent")]
    Deadline,
    /// The node that was to order the write was lost, or stepped down, after it had been sent.
    #[error("the node that ordered the write was lost or replaced after it had been sent")]
    LeaderLost,
    /// The connection broke after the request had been sent.
    #[error("the connection broke after the request had been sent")]
    ReplyLost,
    /// The record that would tell was evicted, and an earlier attempt may have run.
    #[error("the session's record was evicted, and an earlier attempt may have run")]
    SessionExpired,
    /// The node stopped, or its storage failed, while the write was under way.
    #[error("the node stopped while the write was under way")]
    Stopped,
    /// This attempt was refused and had no effect, but it was a retry: an earlier attempt may have run, or may yet.
    #[error("this retry was refused ({why}), and an earlier attempt may have run")]
    RetryRefused {
        /// Why it was refused.
        #[serde(with = "text")]
        why: String,
    },
}

impl UnknownCause {
    /// The cause when a retry was refused for this reason.
    #[must_use]
    pub fn retry_refused(reason: &Reason) -> Self {
        let mut why = reason.to_string();
        let mut end = why.len().min(ERROR_TEXT_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        why.truncate(end);
        UnknownCause::RetryRefused { why }
    }
}

/// A write that did not end with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Certainly not applied, now or later.
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
    /// May have been applied, or may yet be. Ask `outcome`, or retry with the same operation id.
    #[error(
        "unknown outcome: operation {op} may or may not have been applied ({cause}); ask for its outcome, or retry with the same id"
    )]
    Unknown {
        /// The operation.
        op: OpId,
        /// Why nobody can tell.
        cause: UnknownCause,
    },
}

impl From<Reason> for WriteError {
    fn from(reason: Reason) -> Self {
        WriteError::NotApplied(reason.into())
    }
}

/// A read, watch or question that was not answered. Reads have no effect, so there is nothing to be unsure of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{reason}")]
pub struct ReadError {
    /// Why.
    #[source]
    pub reason: Reason,
    /// What may be done next.
    pub retry: Retry,
}

impl From<Reason> for ReadError {
    fn from(reason: Reason) -> Self {
        let retry = reason.retry();
        Self { reason, retry }
    }
}

#[cfg(test)]
mod tests;
