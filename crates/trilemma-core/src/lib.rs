//! Words and contracts of Trilemma: what every other crate speaks in.
//!
//! | module | what it fixes |
//! |---|---|
//! | [`id`], [`time`] | newtypes: node, operation, version, instant |
//! | [`data`], [`read`], [`watch`] | the data model: commands, versioned values, ranges, change streams |
//! | [`descriptor`], [`needs`], [`status`] | what a backend promises, what code needs, what holds now |
//! | [`error`], [`receipt`] | did it happen, why not, what was achieved |
//! | [`protocol`], [`host`] | the sans-I/O contract of protocol crates, and what runs an instance |
//! | [`replicator`] | the trait behind which a backend stands |
//! | [`checkpoint`] | a state as chunks, and how large one may be |
//! | [`view`], [`scan`] | a state of one moment, read part by part; a page of it |
//! | [`tree`] | an ordered map with clones in O(1), which holds every state |
//! | `logged` | a command as a log holds it |
//! | [`table`], [`session`], [`liveness`], [`patience`] | small pure machines that several protocols share |
//! | [`codec`], [`rng`] | bounded bytes, seeded randomness |
//!
//! Pure: no sockets, files, clocks, threads or ambient randomness; builds for `wasm32-unknown-unknown`. Test gear is in
//! `trilemma-testkit`.

pub mod checkpoint;
pub mod codec;
pub mod data;
pub mod datatype;
pub mod descriptor;
pub mod error;
pub mod host;
pub mod id;
pub mod liveness;
pub mod logged;
pub mod needs;
pub mod patience;
pub mod pending;
pub mod protocol;
pub mod read;
pub mod receipt;
pub mod replicator;
pub mod rng;
pub mod scan;
pub mod session;
pub mod status;
pub mod table;
pub mod time;
pub mod tree;
pub mod view;
pub mod watch;

pub use checkpoint::Checkpoint;
pub use data::{Change, ChangeBatch, Command, Guard, Key, Mutation, Value, Versioned};
pub use datatype::{DataType, Update};
pub use descriptor::{Backend, Descriptor, Requires};
pub use error::{NotApplied, ReadError, Reason, Retry, UnknownCause, WriteError};
pub use id::{
    AppendSeq, DiskId, Epoch, Incarnation, KeyspaceId, LeaseId, NODES_MAX, NodeId, NodeSet, OpId, ProcessId,
    SessionId, Ticket, Version,
};
pub use logged::LoggedCommand;
pub use needs::Needs;
pub use patience::Patience;
pub use protocol::{
    Attempt, Corrupt, Effects, Input, Lane, Message, PeerView, Proposal, Protocol, Reply, Request,
};
pub use read::{Entry, KeyRange, Query, ReadLevel, ReadReply, ReadRequest};
pub use receipt::{Achieved, Outcome, Receipt};
pub use replicator::{Convergent, OpContext, Replicator, SharedReplicator, WatchStream};
pub use rng::Rng;
pub use status::{LiveStatus, StatusWatch};
pub use time::{Instant, Now, WallTime};
pub use view::View;
pub use watch::{WatchItem, WatchSpec, WatchStart, WatchToken};

#[cfg(test)]
mod tests;
