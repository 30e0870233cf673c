//! One node as a pure machine: what a node of Trilemma does between its sockets, its disk and its clock.
//!
//! The production runtime and the simulator run the same [`Node`]. It starts no thread, opens no socket and reads no
//! clock; the log's file is written by its host. So what is tested under simulated faults is what ships.
//!
//! A host calls the inputs of [`Node`] as things happen ([`Node::on_request`], [`Node::on_frame`],
//! [`Node::on_log`], [`Node::on_watch`], [`Node::on_reader`], [`Node::on_link`], [`Node::on_snapshot`]), each with the time, and ends
//! every turn with [`Node::turn`], which fills [`Effects`]. It carries these out **in the order of the fields**:
//! the batch to the log, then messages, answers, watch items, the snapshot job, the release of log.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | what a node is started with |
//! | [`recovery`] | from a disk to a node: newest snapshot, log, a new incarnation |
//! | [`record`] | what the node itself keeps on its disk |
//! | [`peers`] | which process of a peer is counted here |
//! | [`members`] | who belongs to the cluster and who works: hosts the machine of `trilemma-membership` |
//! | [`effects`] | what a turn wants done |
//! | [`engine`] | the protocol instance of a keyspace |
//! | [`replica`] | one keyspace of a node |
//! | [`node`] | inputs, and the turn |
//! | [`admission`] | what is refused, and when |
//! | [`watchers`] | watches of one keyspace |
//! | [`snapshots`] | when a snapshot is taken, written and finished |
//! | [`message`] | what nodes say to each other themselves |
//! | [`frame`] | many messages in one frame for a peer |

pub mod admission;
pub mod config;
pub mod effects;
pub mod engine;
pub mod frame;
pub mod members;
pub mod message;
pub mod node;
pub mod peers;
pub mod record;
pub mod recovery;
pub mod replica;
mod rounds;
pub mod snapshots;
pub mod watchers;

pub use admission::Limits;
pub use config::{
    Durability, GossipSettings, KeyspaceConfig, MembershipSettings, NodeSettings, Tuning, keyspace_id,
    table_text,
};
pub use effects::{Effects, Envelope, Observer};
pub use engine::{Engine, Tune};
pub use members::Members;
pub use message::{MemberMessage, NodeMessage};
pub use node::Node;
pub use peers::{Peers, Refused};
pub use recovery::{Found, NEW_NODE_FILE, Recovered, RecoveryError, Storage, recover};
pub use replica::Replica;
pub use snapshots::SnapshotJob;
pub use trilemma_gossip::signatures;
pub use watchers::{Destination, LinkId, ReaderEvent, WatchId};

use trilemma_core::Epoch;

/// The epoch of every keyspace until online moves exist.
pub const EPOCH: Epoch = Epoch(1);
