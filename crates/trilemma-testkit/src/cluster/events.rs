//! What may happen to messages and records, and what did.

use std::time::Duration;

use trilemma_core::id::{NodeId, Ticket};
use trilemma_core::protocol::Reply;

/// What the network and the disks do to messages and records.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Messages lost, per mille.
    pub loss: u32,
    /// Messages delivered twice, per mille.
    pub duplication: u32,
    /// Shortest and longest delay of a message.
    pub delay: (Duration, Duration),
    /// Shortest and longest time until an append is durable.
    pub disk: (Duration, Duration),
    /// Longest turn: it takes the inputs that come up to this long after its first one, as at a busy node.
    pub turn: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        let micros = Duration::from_micros;
        Self {
            loss: 0,
            duplication: 0,
            delay: (micros(100), micros(500)),
            disk: (micros(100), micros(400)),
            turn: Duration::ZERO,
        }
    }
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the faults say.
    Deliver,
    /// It is lost.
    Drop,
    /// It arrives this much later.
    Delay(Duration),
}

/// Something that a trace tells.
#[derive(Clone, Debug)]
pub enum Seen<M> {
    /// A message has arrived, or has been lost.
    Message {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: M,
        /// Whether it has arrived.
        arrived: bool,
    },
    /// A node has answered a proposal.
    Answer {
        /// The node.
        node: NodeId,
        /// The proposal.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
}
