//! The available backend: epidemic dissemination, anti-entropy and a convergent store, as one pure state machine.
//!
//! Every node holds a durable replica and answers reads and writes alone, in any partition. What it learns it spreads
//! in rumours to random peers each tick (Demers et al. 1987); what rumours miss, anti-entropy brings: version vectors
//! name exactly the changes that the other side lacks. Merging is a lattice join, so order and repetition of messages
//! do not matter, and the time to convergence can be computed ([`predictor`]).
//!
//! **Conflict rule: last writer wins, by hybrid logical clock.** An observed write is always replaced, whatever the
//! clocks say. Of concurrent writes the newest stamp wins, picked when reading; the others stay readable as siblings
//! until somebody writes the key again. A delete leaves a tombstone that takes part in the same rule: a concurrent
//! write with a newer stamp survives the delete, one with an older stamp does not, however late it arrives. The
//! tombstone goes when every configured member has acknowledged that it reflects it, and a minimum age has passed;
//! never by time alone. A member that is away therefore delays collection, which the status tells.
//!
//! **What is not promised**: an order of writes on different nodes, reads fresher than *local*, guards (they are
//! refused: checked against one node's view they would mean nothing), and that a repeat of an operation at
//! *another* node than the first is recognised.
//!
//! | module | what |
//! |---|---|
//! | [`hlc`] | the hybrid logical clock with drift limit and durable lease |
//! | [`dot`], [`context`] | names of changes and the sets of them that a replica reflects |
//! | [`replica`] | the dot store: join, winner, collection |
//! | [`message`] | wire and log formats |
//! | [`predictor`] | how long until everybody knows |

pub mod config;
pub mod context;
pub mod dot;
mod gossip;
pub mod hlc;
pub mod message;
pub mod predictor;
pub mod replica;

pub use config::{Durability, GossipConfig};
pub use gossip::Gossip;
pub use message::{Message, Record};
pub use predictor::{Params, Prediction, predict};
