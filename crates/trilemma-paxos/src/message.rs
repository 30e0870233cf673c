//! What nodes of a paxos keyspace send each other.
//!
//! Rounds of many keys share messages: everything that one turn of the driver has for one peer leaves as one
//! [`Message::Asks`] and one [`Message::Answers`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_vec;
use trilemma_core::{Key, Lane};

use super::ballot::Ballot;
use super::register::{Proposed, Register};

/// Most items of one message.
pub const ITEMS_MAX: usize = 1024;
/// Bytes of items after which a message is closed and the next one begun. One register may exceed it.
pub const MESSAGE_BYTES: usize = 512 * 1024;
/// Buckets of keys that anti-entropy compares.
pub const BUCKETS: usize = 256;
/// Most items of a page of anti-entropy.
pub const PAGE_MAX: usize = 512;

/// A message of the paxos backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A proposer asks an acceptor, or tells it what was chosen.
    Asks(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Ask>),
    /// An acceptor answers a proposer. What promises something leaves when it is durable.
    Answers(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Answer>),
    /// Anti-entropy, first step, to a random peer from time to time: a hash of what the sender has learned in each
    /// bucket of keys.
    Digest {
        /// One hash for each bucket.
        #[serde(deserialize_with = "bounded_vec::<_, _, BUCKETS>")]
        buckets: Vec<u64>,
    },
    /// Anti-entropy, second step, by a node that got a digest and differs in this bucket: a page of its ballots and digests.
    Listing {
        /// The bucket.
        bucket: u8,
        /// The page holds every key of the bucket after this one (empty: from the first) ...
        after: Key,
        /// ... with what the sender knows of it, in key order ...
        #[serde(deserialize_with = "bounded_vec::<_, _, PAGE_MAX>")]
        entries: Vec<Listed>,
        /// ... up to its last entry if this is set, else to the end of the bucket.
        more: bool,
    },
    /// Anti-entropy: the receiver of a page with `more` asks for the next one.
    NextPage {
        /// The bucket.
        bucket: u8,
        /// The last key of the page before.
        after: Key,
    },
    /// By a node that lacks values that were chosen, to a node that has said it knows them.
    Fetch {
        /// The keys.
        #[serde(deserialize_with = "bounded_vec::<_, _, PAGE_MAX>")]
        keys: Vec<Key>,
    },
    /// Values that were chosen: the answer to `Fetch`, or what the sender of a digest was found to lack.
    Values {
        /// The values.
        #[serde(deserialize_with = "bounded_vec::<_, _, PAGE_MAX>")]
        items: Vec<ChosenValue>,
    },
}

/// What a page of anti-entropy says of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// The ballot under which its register was chosen.
    pub ballot: Ballot,
    /// A digest of the register's version and value. Under one ballot it is the same on every node.
    pub digest: u64,
}

/// What a proposer sends about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// First phase: promise to accept nothing below `ballot`, and say what you have accepted.
    Prepare {
        /// The key.
        key: Key,
        /// The sender's fresh ballot.
        ballot: Ballot,
    },
    /// Second phase: accept this register.
    Accept {
        /// The key.
        key: Key,
        /// The ballot, promised by a majority before.
        ballot: Ballot,
        /// The register. The same whenever this ballot is sent, in whatever words.
        register: Proposed,
        /// A fresh ballot of the sender to promise at once, so that its next write needs no first phase.
        next: Ballot,
    },
    /// A quorum read: say what you have accepted.
    Read {
        /// The key.
        key: Key,
        /// Tells the answers of different reads apart.
        round: u64,
    },
    /// The register that was accepted under this ballot was chosen.
    Chosen {
        /// The key.
        key: Key,
        /// The ballot.
        ballot: Ballot,
    },
}

/// What an acceptor sends about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Prepare`: promised, durably.
    Promise {
        /// The key.
        key: Key,
        /// The ballot promised.
        ballot: Ballot,
        /// The ballot of the register held; [`Ballot::ZERO`] if none is.
        accepted: Ballot,
        /// The register held.
        register: Arc<Register>,
    },
    /// To `Accept`: accepted, durably.
    Accepted {
        /// The key.
        key: Key,
        /// The ballot accepted.
        ballot: Ballot,
        /// What is promised now: the `next` of the accept unless somebody came between.
        promised: Ballot,
    },
    /// To `Prepare` or `Accept`: no, because of a higher ballot.
    Refused {
        /// The key.
        key: Key,
        /// The ballot refused.
        ballot: Ballot,
        /// The higher ballot.
        seen: Ballot,
    },
    /// To `Read`: what is accepted, durably.
    Held {
        /// The key.
        key: Key,
        /// The read.
        round: u64,
        /// The ballot of the register held; [`Ballot::ZERO`] if none is.
        accepted: Ballot,
        /// The register held.
        register: Arc<Register>,
    },
    /// To an `Accept` that changes a register which this acceptor does not hold: send the whole.
    Lacks {
        /// The key.
        key: Key,
        /// The ballot of the accept.
        ballot: Ballot,
    },
}

/// One value that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenValue {
    /// The key.
    pub key: Key,
    /// The ballot under which it was chosen.
    pub ballot: Ballot,
    /// The register.
    pub register: Arc<Register>,
}

impl Ask {
    /// Greatest size in bytes.
    pub(crate) fn size(&self) -> usize {
        /// Kind, length of the key, two ballots.
        const ITEM: usize = 1 + 2 + 2 * Ballot::BYTES_MAX;
        match self {
            Ask::Prepare { key, .. } | Ask::Read { key, .. } | Ask::Chosen { key, .. } => ITEM + key.len(),
            Ask::Accept { key, register, .. } => ITEM + key.len() + register.size(),
        }
    }
}

impl Answer {
    /// Greatest size in bytes.
    pub(crate) fn size(&self) -> usize {
        /// Kind, length of the key, two ballots.
        const ITEM: usize = 1 + 2 + 2 * Ballot::BYTES_MAX;
        match self {
            Answer::Accepted { key, .. } | Answer::Refused { key, .. } | Answer::Lacks { key, .. } => {
                ITEM + key.len()
            }
            Answer::Promise { key, register, .. } | Answer::Held { key, register, .. } => {
                ITEM + key.len() + register.size()
            }
        }
    }

    fn has_register(&self) -> bool {
        matches!(self, Answer::Promise { .. } | Answer::Held { .. })
    }
}

impl ChosenValue {
    /// Greatest size in bytes.
    pub(crate) fn size(&self) -> usize {
        /// Length of the key, ballot.
        const ITEM: usize = 2 + Ballot::BYTES_MAX;
        ITEM + self.key.len() + self.register.size()
    }
}

impl trilemma_core::Message for Message {
    fn lane(&self) -> Lane {
        match self {
            Message::Asks(_) => Lane::Log,
            Message::Answers(answers) if answers.iter().any(Answer::has_register) => Lane::Log,
            Message::Answers(_) => Lane::Control,
            Message::Digest { .. }
            | Message::Listing { .. }
            | Message::NextPage { .. }
            | Message::Fetch { .. }
            | Message::Values { .. } => Lane::Bulk,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Message::Asks(_) => "asks",
            Message::Answers(_) => "answers",
            Message::Digest { .. } => "digest",
            Message::Listing { .. } => "listing",
            Message::NextPage { .. } => "next-page",
            Message::Fetch { .. } => "fetch",
            Message::Values { .. } => "values",
        }
    }
}
