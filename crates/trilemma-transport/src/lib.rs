//! The one QUIC endpoint of a node: mutual TLS identity, lanes, frames, limits.
//!
//! | module | what it does |
//! |---|---|
//! | [`pki`], `identity`, `tls` | certificates, who a certificate names, the only TLS settings there are |
//! | `frame` | `length (u32 LE) · bytes` on long-lived streams, split without trust in the length |
//! | `link` | one connection to one peer: lanes, bounded queues, coalesced writes |
//! | `endpoint` | listening, dialling with back-off, the handshake of nodes |
//! | `clients`, [`client`] | requests and answers of clients: the node's side, the client's side |
//! | `events`, `counters` | what the driver is notified of, and what can be counted |
//! | `faults` | cut links, for tests (feature `faults`) |
//!
//! Everything runs on the caller's tokio runtime; a node uses a single-threaded one of its own.
//!
//! Between two nodes there is one connection: the node with the lower id dials. TLS proves who the other is: the
//! certificate must come from the cluster's own authority and name `trilemma://<cluster>/node/<id>`. There is no
//! 0-RTT and no resumption. Then both sides say hello: wire version, process (incarnation and disk), the members they
//! know, and the digest of their keyspace table; nodes that differ refuse each other and print both lists or tables, and
//! a process that may not speak for its node is refused.

pub mod client;
mod clients;
mod counters;
mod endpoint;
mod error;
mod events;
mod faults;
mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hello;
mod identity;
mod link;
pub mod pki;
mod tls;

use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::protocol::RECORD_BYTES_MAX;

pub use client::{Answers, CallError, ClientConfig, ClientConnection};
pub use clients::ClientRef;
pub use counters::{Counters, LaneCounters};
pub use endpoint::{Admit, Transport, TransportConfig};
pub use error::{Refusal, SendError, TransportError};
pub use events::{Event, Events};
pub use identity::{Identity, Subject};

/// Which queue of a connection a frame travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small and urgent.
    Control,
    /// Replicated data.
    Log,
    /// Large, may wait.
    Bulk,
    /// Fire and forget; a frame that does not fit a datagram travels as `Control`.
    Datagram,
}

/// Limits of an endpoint. Each bounds memory that a peer or client could make a node use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame of the control lane, in bytes. Default 1 MiB.
    pub control_frame_bytes: usize,
    /// Largest frame of the log lane and of client requests, in bytes. Default 8 MiB: a largest command and its
    /// envelope, or a batch of entries; no more than a record takes, for what one message brings may become one.
    pub log_frame_bytes: usize,
    /// Largest frame of the bulk lane, in bytes. Default 4 MiB: a largest chunk of a checkpoint and its envelope.
    pub bulk_frame_bytes: usize,
    /// Bytes queued for one lane of one peer before frames are dropped. Default 32 MiB.
    pub queue_bytes: usize,
    /// Bytes of answers queued for one client before it is cut off. Default 32 MiB.
    pub client_queue_bytes: usize,
    /// Clients connected at once. Default 1024.
    pub clients: usize,
    /// Requests that a client's connection may have without an answer before it is read no further. Default 4096.
    pub requests_in_flight: usize,
    /// Events that wait for the driver before connections are read no further. Default 4096.
    pub events: usize,
    /// Bytes of frames and requests among them. Default 64 MiB.
    pub event_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        /// What a backend and this crate put around a chunk of a checkpoint.
        const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
        Self {
            control_frame_bytes: MIB,
            log_frame_bytes: RECORD_BYTES_MAX,
            bulk_frame_bytes: CHUNK_BYTES_MAX + ENVELOPE_BYTES_MAX,
            queue_bytes: 32 * MIB,
            client_queue_bytes: 32 * MIB,
            clients: 1024,
            requests_in_flight: 4096,
            events: 4096,
            event_bytes: 64 * MIB,
        }
    }
}

#[cfg(test)]
mod tests;
