//! Runs Trilemma's protocols: the driver of a node, the Replicators, and clients of nodes elsewhere.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | what a node is started with |
//! | [`node`] | start: open storage, recover, spawn the node's thread; stop |
//! | `driver` | the turn: inputs in, one log batch, one frame per peer and lane, answers out |
//! | `slot`, `watchers`, `waiters` | one keyspace, its watchers, callers that wait |
//! | [`replicator`], [`remote`] | the `Replicator` of a keyspace here, and of one on another machine |
//! | [`wire`] | what travels inside frames |

pub mod config;
mod driver;
pub mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod groups;
mod inbox;
pub mod node;
mod recovery;
pub mod remote;
pub mod replicator;
mod slot;
mod waiters;
mod watchers;
pub mod wire;

pub use config::{Durability, KeyspaceConfig, NodeConfig, Tuning, keyspace_id, table_text};
pub use error::NodeError;
pub use node::NodeHandle;
pub use remote::{Remote, RemoteConfig};
pub use replicator::{EPOCH, LocalReplicator};
pub use trilemma_transport::{Identity, pki};
pub use wire::{KeyspaceOverview, LogOverview, NodeOverview, PeerOverview};

/// 64 random bits from the operating system.
///
/// # Panics
/// If the operating system has no randomness: no session or key could be safe then.
#[must_use]
pub fn random_u64() -> u64 {
    getrandom::u64().expect("the operating system has randomness")
}
