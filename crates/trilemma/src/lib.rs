//! Choose per keyspace, in configuration, what to keep when the network splits.
//!
//! | backend | what it keeps | what it gives up in a partition |
//! |---|---|---|
//! | `gossip` | availability everywhere, convergence whose time is computable | agreement for a while |
//! | `raft`, `paxos` | linearizability, as long as a majority talks | the minority side |
//! | `two-phase` | all nodes agree or nothing happens | writes, in any partition |
//!
//! Configuration picks the backend; code states what it [`Needs`]; opening a keyspace fails, with a sentence that
//! says what would be lost, when the first cannot meet the second.
//!
//! ```no_run
//! use trilemma::{Config, Needs, Node, Result};
//!
//! # async fn example() -> Result<()> {
//! let node = Node::start(Config::load("cluster.toml")?).await?;
//! let carts  = node.keyspace("carts",  Needs::Available)?;
//! let locks  = node.keyspace("locks",  Needs::Linearizable)?;
//! let orders = node.keyspace("orders", Needs::Atomic)?;
//!
//! carts.put("alice", "3 apples").await?;                         // answers even when partitioned
//! if locks.compare_and_set("checkout/alice", None, "node-1").await?.succeeded() {
//!     orders.transaction().put("order/7", "alice").put("stock/apple", "97").commit().await?;
//! }
//! node.shutdown().await
//! # }
//! ```
//!
//! Every failure says whether it may have happened: see [`Error::effect`] and [`WriteError`].

pub mod client;
pub mod config;
pub mod datatypes;
pub mod error;
mod keyspace;
mod node;
mod transaction;
mod watch;

pub use client::{Client, ClientConfig, Server};
pub use config::{Config, ConfigBuilder, Durability, GossipSettings, KeyspaceConfig, Tuning};
pub use error::{ConfigError, Effect, Error, OpenError, Result};
pub use keyspace::Keyspace;
pub use node::Node;
pub use transaction::Transaction;
pub use trilemma_core::data::{BATCH_LENGTH_MAX, COMMAND_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use trilemma_core::datatype::{ELEMENT_BYTES_MAX, Escrow, TYPED_KEY_BYTES_MAX};
pub use trilemma_core::descriptor;
pub use trilemma_core::read::{DEADLINE_DEFAULT, RANGE_ENTRIES_MAX};
pub use trilemma_core::{
    Achieved, Attempt, Backend, Change, Command, DataType, Descriptor, DiskId, Entry, Epoch, Guard,
    Incarnation, Key, KeyRange, LiveStatus, Mutation, Needs, NodeId, NodeSet, NotApplied, OpId, Outcome,
    Query, ReadError, ReadLevel, ReadReply, ReadRequest, Reason, Receipt, Requires, Retry, SessionId,
    UnknownCause, Update, Value, Version, Versioned, WallTime, WatchItem, WatchSpec, WatchStart, WatchToken,
    WriteError,
};
pub use trilemma_runtime::{
    Address, CertificateOverview, KeyspaceOverview, LoadOverview, LogOverview, MemberOverview, MemberState,
    MembershipCounts, MembershipOverview, NodeError, NodeOverview, ParseAddressError, PeerOverview,
    PublicKey, RefusedOverview, SigningKey, pki,
};
pub use watch::Watch;
