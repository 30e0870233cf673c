//! The available backend: epidemic dissemination, anti-entropy and a convergent store, as one pure state machine.
//!
//! Every node holds a durable replica and answers reads and writes alone, in any partition. What it learns it spreads
//! in rumors to random peers each tick (Demers et al. 1987); what rumors miss, anti-entropy brings: version vectors
//! name exactly the changes that the other side lacks. Merging is a lattice join, so order and repetition of messages
//! do not matter, and the time to convergence can be computed ([`predictor`]).
//!
//! **Conflict rule: last writer wins, by hybrid logical clock.** An observed write is always replaced, whatever the
//! clocks say. Of concurrent writes the newest stamp wins, picked when reading; the others stay readable as siblings
//! until somebody writes the key again. A delete leaves a tombstone that takes part in the same rule: a concurrent
//! write with a newer stamp survives the delete, one with an older stamp does not, however late it arrives. The
//! tombstone is collected when every configured member has acknowledged that it reflects it, and a while has passed;
//! never by time alone. A member that is away therefore delays collection, which the status shows.
//!
//! **A clock far ahead** wins over nobody: what it stamps is kept and passed on, and shown only when its time has come.
//!
//! **What is not promised**: an order of writes on different nodes, reads fresher than *local*, guards (they are
//! refused: checked against one node's view they would mean nothing), and that a repeat of an operation at
//! *another* node than the first is recognised.
//!
//! **Whose word counts** is a setting: anybody's, or that of several nodes, or of trusted ones; see `vouching`. Or nobody's
//! but the origin's, by its signature; see [`signatures`].
//!
//! **Invariants.** (1) What the context holds, the store reflects: nothing that such a change had observed is in the
//! store, and nothing of that kind will be accepted. (2) Equal contexts have equal digests; comparisons notice where not.
//! (3) What a node acknowledges is durable there. (4) What is collected is reflected by every member, and nothing visible
//! changes by it, now or later; a member that lost its disk is no exception.
//!
//! | part | what it does |
//! |---|---|
//! | [`Gossip`] | the state machine: which part takes which input |
//! | `shared` | settings, clock, peers, names for new changes, the way to the log |
//! | [`clock`] | the hybrid logical clock with drift limit and durable lease |
//! | [`dot`], [`context`] | names of changes and the sets of them that a replica reflects |
//! | [`replica`] | the dot store: join, winner, collection |
//! | `deferred`, `store` | changes that are not shown yet; what is reflected and what is shown |
//! | `writes` | clients' writes, repeats, outcomes, answers that wait for the disk |
//! | `reads` | ranges, read part by part |
//! | `targets`, `rumors`, `exchange` | whom a tick tells; dissemination; anti-entropy |
//! | `fetches` | large changes: named to all, fetched by who lacks them |
//! | `typed` | counters, sets, maps and other values that all may change at once |
//! | `admission`, [`signatures`] | which changes of others are looked at; proof of who made a change |
//! | `vouching` | which changes of others may count |
//! | `acknowledgements` | what members durably reflect; collection |
//! | `rejoin` | what a lost disk may have promised |
//! | [`reconcile`] | the difference of two sets, at a cost proportional to it |
//! | [`message`], [`record`], `checkpoint` | wire and disk |
//! | `status` | what operators see |
//! | [`predictor`], `arrivals` | how long until everybody knows, and how long it took |

mod acknowledgements;
mod admission;
mod arrivals;
mod checkpoint;
pub mod clock;
pub mod config;
pub mod context;
mod deferred;
pub mod dot;
mod exchange;
mod fetches;
mod few;
mod gossip;
pub mod message;
pub mod predictor;
mod reads;
pub mod reconcile;
pub mod record;
mod rejoin;
pub mod replica;
mod rumors;
mod shared;
pub mod signatures;
mod status;
mod store;
mod targets;
mod typed;
mod vouching;
mod writes;

pub use config::{Durability, GossipConfig};
pub use gossip::Gossip;
pub use message::Message;
pub use predictor::{Params, ParamsError, Prediction, predict};
pub use record::Record;
pub use signatures::Signatures;
pub use typed::is_part;

#[cfg(test)]
mod tests;
