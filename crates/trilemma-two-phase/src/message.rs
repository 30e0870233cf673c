//! What nodes of one keyspace send each other.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_bytes, bounded_text, bounded_vec};
use trilemma_core::session::OpResult;
use trilemma_core::{Incarnation, Lane, NotApplied, UnknownCause, Version};

use crate::batch::{Batch, Transaction};
use crate::ids::BatchId;

/// Most bytes of one piece of a state transfer.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;
/// Most decided batches that are not finished; the sequencer orders nothing more beyond. Bounds a [`Resolved`].
pub const UNFINISHED_MAX: usize = 2048;
/// Most undecided batches of a chain.
pub const CHAIN_MAX: usize = 256;
/// Most operations of one message between a forwarder and the sequencer.
pub const FORWARDS_MAX: usize = 4096;
/// Most bytes of text in a refusal.
pub const WHY_BYTES_MAX: usize = 256;

/// What rides on most messages of the sequencer. All of it stays true, however late the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// This batch and those it is chained on are committed, durably at the sequencer.
    pub decided: BatchId,
    /// The watermark: every batch below is finished (committed and acknowledged by every member, or aborted).
    pub finished: BatchId,
    /// The digest of the sequencer's table after `decided` ([`trilemma_core::table::Table::digest`]).
    pub digest: u64,
}

/// What became of batches. It stays true: of all ids above `after` and below `below`, exactly `committed` are
/// committed, `open` are undecided so far, and all others are aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The incarnation of the sequencer that says so.
    pub incarnation: Incarnation,
    /// Nothing is said of this batch and those before.
    pub after: BatchId,
    /// The committed ones, ascending.
    #[serde(deserialize_with = "bounded_vec::<_, _, UNFINISHED_MAX>")]
    pub committed: Vec<BatchId>,
    /// The undecided ones, ascending.
    #[serde(deserialize_with = "bounded_vec::<_, _, CHAIN_MAX>")]
    pub open: Vec<BatchId>,
    /// The first id of which nothing is said.
    pub below: BatchId,
    /// Decided point and watermark.
    pub head: Head,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Random, of this incarnation of the member; names the state transfer it would take.
    pub nonce: u64,
    /// The member holds no state: its disk is new, or lost.
    pub is_blank: bool,
    /// Its chain is committed up to here.
    pub decided: BatchId,
    /// The same, as far as it is durable.
    pub acked: BatchId,
    /// Its chain is durably prepared up to here.
    pub prepared: BatchId,
    /// It never prepares a batch up to here that is not on its chain.
    pub fence: BatchId,
}

/// An operation that a member passes to the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Its number within the forwarder's incarnation. The same number is the same request.
    pub number: u64,
    /// Milliseconds until its caller stops waiting.
    pub timeout_ms: u32,
    /// What is to be ordered.
    pub transaction: Transaction,
}

/// The sequencer's answer to a [`Forward`] that has not been ordered, or was aborted. What is committed is answered
/// by the forwarder itself when it learns so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub number: u64,
    /// The answer.
    pub verdict: Verdict,
}

/// What is said about a forwarded operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Not ordered, or aborted: this request has and will have no effect.
    Refused(NotApplied),
    /// Nobody here knows.
    Unknown(UnknownCause),
    /// Resolved before: this is the operation's final result; `None` if the record of its session was evicted.
    Resolved(Option<OpResult>),
}

/// What nodes of one keyspace send each other. Words: inside/two-phase#words-of-this-page. The sequencer is a member,
/// but sends itself nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Sequencer to every member: prepare this batch and vote.
    Prepare {
        /// The batch.
        batch: Arc<Batch>,
        /// Decided point and watermark.
        head: Head,
    },
    /// Sequencer to member, when no `Prepare` is due: what has been decided. Repeated until acknowledged.
    Announce {
        /// Decided point and watermark.
        head: Head,
    },
    /// Sequencer to member: what became of batches; answers a [`Hello`], and follows every abort.
    Resolved(Resolved),
    /// Sequencer to a member that has not said hello in this incarnation: say where you stand.
    Probe,
    /// Member to sequencer: where it stands. Sent when its records are durable, so it is a vote as well.
    Hello(Hello),
    /// Member to sequencer: its chain is durably prepared, hence voted for, up to `prepared`.
    Vote {
        /// The last batch it votes for.
        prepared: BatchId,
        /// The last batch it durably knows to be committed.
        acked: BatchId,
    },
    /// Member to sequencer: it durably refuses this batch and all that are chained on it.
    Refusal {
        /// The batch.
        id: BatchId,
        /// Why, for the caller.
        #[serde(deserialize_with = "bounded_text::<_, WHY_BYTES_MAX>")]
        why: String,
    },
    /// Member to sequencer: a batch is missing after this one.
    Resend {
        /// The end of the member's chain.
        after: BatchId,
    },
    /// Member to member, the sequencer being silent: what do you know of these?
    Inquire {
        /// The asker's batches in doubt, in chain order.
        #[serde(deserialize_with = "bounded_vec::<_, _, CHAIN_MAX>")]
        in_doubt: Vec<BatchId>,
        /// It has waited long: refuse what you have not prepared even if you can reach the sequencer.
        is_urgent: bool,
    },
    /// Member to member: facts about the batches asked for, durable at the sender or at the sequencer.
    Evidence {
        /// This batch and those it is chained on are committed.
        committed: Option<BatchId>,
        /// This batch and all that are chained on it are aborted, or can never be committed.
        aborted: Option<BatchId>,
        /// The watermark as known to the sender. What is below and *still* in doubt at the receiver is aborted; the
        /// sender cannot tell which that is, since the question may be an old one.
        finished: BatchId,
    },
    /// Member to sequencer: operations that were proposed at the member.
    Forwards {
        /// The incarnation of the sequencer that they are meant for; another incarnation ignores them.
        sequencer: Incarnation,
        /// The incarnation of the member.
        incarnation: Incarnation,
        /// Requests with lower numbers are over; late copies of them are ignored.
        done_below: u64,
        /// The operations.
        #[serde(deserialize_with = "bounded_vec::<_, _, FORWARDS_MAX>")]
        items: Vec<Forward>,
    },
    /// Sequencer to member: answers to forwarded operations.
    Answers {
        /// The incarnation of the sequencer that answers. What a former incarnation refused, this one may have ordered.
        sequencer: Incarnation,
        /// The incarnation of the member that asked.
        incarnation: Incarnation,
        /// The answers.
        #[serde(deserialize_with = "bounded_vec::<_, _, FORWARDS_MAX>")]
        items: Vec<Answer>,
    },
    /// Sequencer to a member without state: take mine, piece by piece.
    Install {
        /// The member's nonce.
        nonce: u64,
        /// The last batch that the state reflects.
        decided: BatchId,
        /// Its position.
        position: Version,
        /// Of batches up to here the member is no evidence.
        unknown_through: BatchId,
    },
    /// Member to sequencer: the next piece.
    Fetch {
        /// The member's nonce.
        nonce: u64,
        /// Which piece, from 0.
        index: u32,
    },
    /// Sequencer to member: a piece of the state.
    Piece {
        /// The member's nonce.
        nonce: u64,
        /// Its number.
        index: u32,
        /// Bytes of a chunk of the table.
        #[serde(deserialize_with = "bounded_bytes::<_, PIECE_BYTES_MAX>")]
        bytes: Bytes,
        /// Whether the chunk ends here.
        ends_chunk: bool,
        /// Whether the state ends here.
        is_last: bool,
    },
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::Prepare { .. } | Message::Forwards { .. } => Lane::Log,
            Message::Piece { .. } => Lane::Bulk,
            _ => Lane::Control,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::Prepare { .. } => "prepare",
            Message::Announce { .. } => "announce",
            Message::Resolved(_) => "resolved",
            Message::Probe => "probe",
            Message::Hello(_) => "hello",
            Message::Vote { .. } => "vote",
            Message::Refusal { .. } => "refusal",
            Message::Resend { .. } => "resend",
            Message::Inquire { .. } => "inquire",
            Message::Evidence { .. } => "evidence",
            Message::Forwards { .. } => "forwards",
            Message::Answers { .. } => "answers",
            Message::Install { .. } => "install",
            Message::Fetch { .. } => "fetch",
            Message::Piece { .. } => "piece",
        }
    }
}
