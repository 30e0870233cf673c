//! What can go wrong at an endpoint, and who is to blame.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use trilemma_core::{NodeId, NodeSet};

/// Why an endpoint or an identity cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A PEM file cannot be read.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong in it.
        why: String,
    },
    /// Certificate, key and authority do not make an identity.
    #[error("certificate: {0}")]
    Identity(String),
    /// The certificate is somebody else's.
    #[error(
        "the certificate names {found}, this process is {expected}; issue a certificate with `trilemma cert`"
    )]
    WrongSubject {
        /// Whom the certificate names.
        found: String,
        /// Who this process is.
        expected: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (UDP): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A connection could not be made.
    #[error("cannot connect to {address}: {why}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// The cause.
        why: String,
    },
}

/// Why a frame was not queued. It counts as lost, which every protocol expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection to this peer now.
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    /// The peer reads more slowly than we send.
    #[error("the queue to node {0} is full")]
    QueueFull(NodeId),
    /// The frame is larger than its lane allows.
    #[error("a frame of {size} bytes, the lane's limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Too much waits for this client already.
    #[error("too many bytes wait for this client already")]
    NoRoom,
    /// The client has gone, or was cut off because it does not read its answers.
    #[error("the client has gone")]
    ClientGone,
}

/// Why a connection was refused, by this side or the other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// TLS failed: no certificate, another authority's, expired, wrong name.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The certificate does not name a node that may be here.
    #[error("{0}")]
    Subject(String),
    /// The member lists differ.
    #[error(
        "the member lists differ; here: [{here}]; node {peer}: [{there}]. The members of a cluster cannot be changed by editing files: give both nodes the `peers` that the cluster was made with, and restart the one whose file was changed"
    )]
    Members {
        /// The other node.
        peer: NodeId,
        /// The members as this node is configured.
        here: NodeSet,
        /// The members as the other is configured.
        there: NodeSet,
    },
    /// The keyspace tables differ.
    #[error(
        "the keyspace tables differ; here: [{here}]; node {peer}: [{there}]. Give all nodes the same [keyspaces]"
    )]
    Table {
        /// The other node.
        peer: NodeId,
        /// This node's table.
        here: String,
        /// The other's.
        there: String,
    },
    /// The process may not speak for its node.
    #[error("{0}")]
    Process(String),
    /// The other side broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(String),
    /// The other side refused us.
    #[error("refused by the other side: {0}")]
    ByPeer(String),
}

/// QUIC application close codes.
pub(crate) mod code {
    /// A normal end.
    pub(crate) const CLOSED: u32 = 0;
    /// Refused; the reason text says why.
    pub(crate) const REFUSED: u32 = 1;
    /// The other side broke the protocol.
    pub(crate) const VIOLATION: u32 = 2;
    /// A client does not read its answers.
    pub(crate) const TOO_SLOW: u32 = 3;
    /// A newer connection of the same peer has taken over.
    pub(crate) const REPLACED: u32 = 4;
}
