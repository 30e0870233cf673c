//! Runs Trilemma's protocols: the driver of a node, the Replicators, and clients of nodes elsewhere.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | what a node is started with |
//! | [`node`] | start: open storage, recover, spawn the node's thread; stop |
//! | `driver` | brings a `trilemma-node` what happens, and carries out what it wants |
//! | `readers` | the readers of watches, each at its own pace |
//! | [`replicator`], [`remote`] | the `Replicator` of a keyspace here, and of one on another machine |
//!
//! What a node does with it all is in `trilemma-node`; nothing is decided here.

pub mod address;
pub mod config;
mod driver;
pub mod error;
mod inbox;
pub mod node;
mod paced;
mod readers;
pub mod remote;
pub mod replicator;
mod signing;

pub use address::{Address, ParseAddressError};
pub use config::NodeConfig;
pub use error::NodeError;
pub use node::NodeHandle;
pub use remote::{Remote, RemoteConfig};
pub use replicator::LocalReplicator;
pub use trilemma_client::wire;
pub use trilemma_client::wire::{
    CertificateOverview, KeyspaceOverview, LoadOverview, LogOverview, MemberOverview, MemberState,
    MembershipCounts, MembershipOverview, NodeOverview, PeerOverview, RefusedOverview,
};
pub use trilemma_node::{
    Durability, EPOCH, GossipSettings, KeyspaceConfig, MembershipSettings, NEW_NODE_FILE, Tuning,
    keyspace_id, table_text,
};
pub use trilemma_transport::signing::{PublicKey, SigningKey, SigningKeys};
pub use trilemma_transport::{Identity, pki};

/// 64 random bits from the operating system.
///
/// # Panics
/// If the operating system has no randomness: no session or key could be safe then.
#[must_use]
pub fn random_u64() -> u64 {
    getrandom::u64().expect("the operating system has randomness")
}
