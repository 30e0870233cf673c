//! The UDP sockets of nodes and clients.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket2::SockRef;

use crate::tls::PAYLOAD_BYTES_MAX;

/// Bytes that a socket buffers, each way: what all peers may send at once before the node's thread reads. The system's
/// default is less than one burst, and what does not fit is lost and sent again.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Opens an endpoint on the current tokio runtime; one with a `server` configuration accepts connections.
pub(crate) fn open(socket: UdpSocket, server: Option<quinn::ServerConfig>) -> io::Result<Endpoint> {
    let buffers = SockRef::from(&socket);
    // The system takes what it allows. An endpoint with small buffers is slower, and works.
    for result in [
        buffers.set_recv_buffer_size(BUFFER_BYTES),
        buffers.set_send_buffer_size(BUFFER_BYTES),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "the system's default buffers are used");
        }
    }
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(PAYLOAD_BYTES_MAX)
        .map_err(io::Error::other)?;
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
}
