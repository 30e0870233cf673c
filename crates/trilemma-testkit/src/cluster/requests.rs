//! Short words for requests and their answers.

use std::time::Duration;

use trilemma_core::data::Command;
use trilemma_core::id::{NodeId, OpId, SessionId, Version};
use trilemma_core::protocol::{Attempt, Protocol, Reply, Request};
use trilemma_core::read::{Query, ReadLevel, ReadRequest};

use super::Cluster;

impl<P: Protocol> Cluster<P> {
    /// Proposes and lets time pass until the answer comes; `None` if none comes within the timeout and a second.
    pub fn ask(&mut self, id: NodeId, request: Request, timeout: Duration) -> Option<Reply> {
        let ticket = self.propose(id, request, timeout);
        self.run_until(timeout + Duration::from_secs(1), |cluster| {
            cluster.reply(id, ticket).is_some()
        });
        self.reply(id, ticket).cloned()
    }

    /// Writes at a node and waits for the answer. `seq` numbers the operation within one test session.
    pub fn write(&mut self, id: NodeId, seq: u64, command: Command) -> Option<Reply> {
        self.ask(id, write(seq, Attempt::First, command), Duration::from_secs(3))
    }

    /// Reads one key at a node, at the strongest level, and waits for the answer.
    pub fn get(&mut self, id: NodeId, key: &str) -> Option<Reply> {
        self.ask(id, get(key, None), Duration::from_secs(3))
    }
}

/// A write request of the test session.
#[must_use]
pub fn write(seq: u64, attempt: Attempt, command: Command) -> Request {
    Request::Write {
        op: op(seq),
        attempt,
        command,
    }
}

/// An operation id of the test session.
#[must_use]
pub fn op(seq: u64) -> OpId {
    OpId {
        session: SessionId {
            basis: Version::ABSENT,
            nonce: 7,
        },
        seq,
    }
}

/// A request to read one key.
#[must_use]
pub fn get(key: &str, level: Option<ReadLevel>) -> Request {
    Request::Read(ReadRequest {
        query: Query::Get(key.into()),
        level,
    })
}

/// The value in the answer to a read of one key: `Ok(None)` if the key does not exist, `Err` for any other answer.
pub fn value(reply: Option<&Reply>) -> Result<Option<String>, String> {
    match reply {
        Some(Reply::Read(Ok(read))) => Ok(read.value().map(ToString::to_string)),
        other => Err(format!("{other:?}")),
    }
}

/// Whether the answer is a receipt of a write that won.
#[must_use]
pub fn succeeded(reply: Option<&Reply>) -> bool {
    matches!(reply, Some(Reply::Write(Ok(receipt))) if receipt.succeeded)
}
