//! What raft nodes send each other. Each variant says who sends it and why.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::codec::{bounded_bytes, bounded_vec};
use trilemma_core::{Incarnation, Lane, Reply, Request};

use crate::log::{Entry, Index, Term};

/// Most entries that a decoder accepts in one message or record.
pub(crate) const ENTRIES_MAX: usize = 65_536;

/// The end of a log: what elections compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogEnd {
    /// Term of the last entry. Compared first (Raft section 5.4.1).
    pub term: Term,
    /// Index of the last entry.
    pub index: Index,
}

/// What raft nodes send each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A node that hears no leader asks whether an election could succeed, without raising anybody's term.
    PreVote {
        /// The term it would stand in.
        term: Term,
        /// The end of its log.
        end: LogEnd,
    },
    /// Answer to `PreVote`. Promises nothing.
    PreVoteReply {
        /// The term that was asked about.
        asked: Term,
        /// The voter's own term.
        term: Term,
        /// Whether it would vote for the asker.
        granted: bool,
    },
    /// A candidate asks for a vote.
    Vote {
        /// Its term.
        term: Term,
        /// The end of its log.
        end: LogEnd,
        /// Whether the leader has asked it to stand, so that those who hear that leader may vote.
        is_handover: bool,
    },
    /// Answer to `Vote`, sent when the vote is durable.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Whether the candidate has the vote.
        granted: bool,
    },
    /// A leader replicates entries, or shows that it is there, and proves its leadership for reads.
    Append {
        /// Its term.
        term: Term,
        /// Its newest round; the answer echoes it.
        round: u64,
        /// The entry before the first of `entries`.
        prev: LogEnd,
        /// New entries.
        #[serde(deserialize_with = "bounded_vec::<_, _, ENTRIES_MAX>")]
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// Answer to `Append`, sent when its entries are durable.
    AppendReply {
        /// The follower's term.
        term: Term,
        /// The round of the message that is answered; 0 if that was of an older term.
        round: u64,
        /// What became of it.
        result: AppendResult,
    },
    /// A leader sends a part of its state to a follower whose next entry is gone from its log.
    Snapshot {
        /// Its term.
        term: Term,
        /// Its newest round; the answer echoes it.
        round: u64,
        /// The last entry that the state reflects.
        at: LogEnd,
        /// Number of this part, from 0.
        part: u32,
        /// Whether it is the last part.
        last: bool,
        /// The part.
        #[serde(deserialize_with = "bounded_bytes::<_, CHUNK_BYTES_MAX>")]
        chunk: Bytes,
    },
    /// Answer to `Snapshot`.
    SnapshotReply {
        /// The follower's term.
        term: Term,
        /// The round of the message that is answered.
        round: u64,
        /// The state that is being received.
        at: LogEnd,
        /// The part that the follower needs next.
        next: u32,
    },
    /// A node passes a client's request on to the leader.
    Forward {
        /// The process of the leader that it is meant for. Another one of the same node ignores it.
        to: Incarnation,
        /// Names the request at the sender.
        id: u64,
        /// How long its client still waits, in milliseconds.
        timeout_ms: u32,
        /// What is wanted.
        request: Request,
    },
    /// The leader's answer to `Forward`.
    ForwardReply {
        /// The request's name at the node that sent it.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// The answer to `Forward` of a node that is not the leader (any more): it has done nothing.
    NotLeader {
        /// The request's name at the node that sent it.
        id: u64,
    },
    /// A leader that is going to stop asks a follower that has all of its log to stand for election at once.
    TimeoutNow {
        /// Its term.
        term: Term,
    },
    /// A leader says what its state is, now and then: a follower that comes to the same entry compares its own with it.
    StateDigest {
        /// Its term.
        term: Term,
        /// The last entry that it has applied.
        at: Index,
        /// The digest of its table there ([`trilemma_core::table::Table::digest`]).
        digest: u64,
    },
}

/// What became of an `Append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to here, durably.
    Matched(Index),
    /// The follower has no such previous entry. Its log can equal the leader's before this index at best.
    Mismatch(Index),
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::Append { entries, .. } if !entries.is_empty() => Lane::Log,
            Message::Forward { .. } | Message::ForwardReply { .. } | Message::NotLeader { .. } => Lane::Log,
            Message::Snapshot { .. } => Lane::Bulk,
            _ => Lane::Control,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::PreVote { .. } => "pre-vote",
            Message::PreVoteReply { .. } => "pre-vote-reply",
            Message::Vote { .. } => "vote",
            Message::VoteReply { .. } => "vote-reply",
            Message::Append { entries, .. } if entries.is_empty() => "heartbeat",
            Message::Append { .. } => "append",
            Message::AppendReply { .. } => "append-reply",
            Message::Snapshot { .. } => "snapshot",
            Message::SnapshotReply { .. } => "snapshot-reply",
            Message::Forward { .. } => "forward",
            Message::ForwardReply { .. } => "forward-reply",
            Message::NotLeader { .. } => "not-leader",
            Message::TimeoutNow { .. } => "timeout-now",
            Message::StateDigest { .. } => "state-digest",
        }
    }
}
