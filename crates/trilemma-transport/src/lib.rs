//! The one QUIC endpoint of a node: mutual TLS identity, lanes, frames, limits.
//!
//! | module | what it does |
//! |---|---|
//! | [`pki`], `identity`, `tls` | certificates, who a certificate names, the only TLS settings there are |
//! | `socket` | UDP sockets with room for a burst |
//! | `frame` | `length (u32 LE) · bytes` on long-lived streams, split without trust in the length |
//! | `queue` | frames that wait to be written: bounded, coalesced, large answers made late |
//! | `link` | one connection to one peer: its lanes |
//! | `timing` | how long silence may last |
//! | `endpoint` | listening, dialling with back-off, the handshake of nodes |
//! | `clients`, [`client`] | requests and answers of clients: the node's side, the client's side |
//! | `pace` | a token bucket |
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
mod pace;
pub mod pki;
mod queue;
pub mod signing;
mod socket;
mod timing;
mod tls;

use std::time::Duration;

use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::protocol::RECORD_BYTES_MAX;

pub use client::{Answers, CallError, ClientConfig, ClientConnection, Items};
pub use clients::ClientRef;
pub use counters::{Counters, LaneCounters};
pub use endpoint::{Admit, Reserved, Transport, TransportConfig};
pub use error::{Refusal, SendError, TransportError};
pub use events::{Event, Events};
pub use identity::{Identity, Subject, Validity};
pub use timing::Timing;

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
    /// Bytes of answers that wait for one client before its requests are read no further. Default 32 MiB.
    pub client_queue_bytes: usize,
    /// Bytes of answers that wait for all clients before those with more than an equal share of them are read no further.
    /// Default 256 MiB. Answers to what was read before still have their room up to twice as much; from there on large
    /// ones are refused to clients with more than their share. So no more than three times as much waits.
    pub answer_bytes: usize,
    /// Bytes of items of watches that wait for all clients before streams with more than an equal share of them are given
    /// no more. Default 256 MiB. The others go on up to their shares, so no more than twice as much waits, and the items of
    /// one turn.
    pub watch_bytes: usize,
    /// Time in which a client must read something of the answers that wait for it, or be cut off. Default 10 s.
    pub client_stall: Duration,
    /// Clients connected at once. Default 1024.
    pub clients: usize,
    /// Requests that a client's connection may have without an answer before it is read no further. Default 4096.
    pub requests_in_flight: usize,
    /// Bytes of such requests. Default 64 MiB: a quarter of what a node holds for all clients, so that none takes it all.
    pub client_request_bytes: usize,
    /// Events that wait for the driver in each of four queues (what is urgent among peers, their data, clients, large
    /// requests of clients) before
    /// connections that feed it are read no further. Default 4096.
    pub events: usize,
    /// Bytes of frames or requests in each of them. Default 64 MiB.
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
            answer_bytes: 256 * MIB,
            watch_bytes: 256 * MIB,
            client_stall: Duration::from_secs(10),
            clients: 1024,
            requests_in_flight: 4096,
            client_request_bytes: 64 * MIB,
            events: 4096,
            event_bytes: 64 * MIB,
        }
    }
}

impl Limits {
    /// Bytes that an endpoint with so many connections may hold under these limits: what waits for the driver, for peers
    /// and for clients, and the windows of QUIC.
    #[must_use]
    pub fn bytes_max(&self, peers: usize, clients: usize) -> usize {
        /// Urgent, data, clients, large requests.
        const EVENT_QUEUES: usize = 4;
        /// Control, log, bulk.
        const LANES: usize = 3;
        let shared = EVENT_QUEUES * self.event_bytes + 3 * self.answer_bytes + 2 * self.watch_bytes;
        // Each way; and a frame of each lane that is not whole yet.
        let peer = LANES * self.queue_bytes
            + 2 * tls::PEER_WINDOW as usize
            + self.control_frame_bytes
            + self.log_frame_bytes
            + self.bulk_frame_bytes;
        let client = tls::UNKNOWN_WINDOW as usize + tls::CLIENT_SEND_WINDOW as usize + self.log_frame_bytes;
        shared + peers * peer + clients * client
    }
}

#[cfg(test)]
mod tests;
