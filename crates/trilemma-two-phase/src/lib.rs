//! Two-phase commit for a replicated keyspace: every member agrees, or nothing happens.
//!
//! The *unanimous* backend in `classic` mode. One member, the **sequencer**, orders writes into **batches** that form
//! a chain; every other member durably prepares a batch and votes; when all have voted the sequencer makes its
//! `Decision` durable, and that is the commit (presumed abort with the coordinator as last participant; Mohan,
//! Lindsay and Obermarck 1986, Gray and Lamport 2006 section 2). Since no write commits without every member, a
//! member can answer **linearizable reads from its own state without a message**, in any partition, but for keys of
//! a batch whose outcome it does not know.
//!
//! What it gives up: writes need every member, and a member that has voted blocks on the keys of that batch while
//! the sequencer is unreachable and no peer has evidence. Nobody decides by a clock.
//!
//! | module | what it holds |
//! |---|---|
//! | [`TwoPhase`] | the state machine behind `trilemma_core::Protocol` |
//! | `sequencer` | queue, pipeline of batches, decisions, members' standing, state transfer (giving) |
//! | `member` | chain rules, votes, in-doubt termination, forwarding, state transfer (taking) |
//! | `ledger`, `chain` | what is decided; what is prepared and not known to be decided |
//! | `recovery` | replay, checkpoint |
//!
//! Not here yet: the modes `implied` and `replicated`, view changes, cross-keyspace transactions, operator override.
//! The name of the crate is the protocol's; it is not three-phase commit, which is unsafe in partitions.

mod batch;
mod chain;
mod config;
mod core;
mod ids;
mod inbox;
mod ledger;
mod member;
mod message;
mod pending;
mod record;
mod recovery;
mod sequencer;
mod status;
mod two_phase;

pub use batch::{Batch, TRANSACTIONS_MAX, Transaction};
pub use config::TwoPhaseConfig;
pub use ids::BatchId;
pub use message::{
    Answer, CHAIN_MAX, FORWARDS_MAX, Forward, Head, Hello, Message, PIECE_BYTES_MAX, Resolved,
    UNFINISHED_MAX, Verdict, WHY_BYTES_MAX,
};
pub use record::Record;
pub use status::InDoubt;
pub use two_phase::TwoPhase;

#[cfg(test)]
mod tests;
