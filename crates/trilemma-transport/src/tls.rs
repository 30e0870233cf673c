//! The only TLS settings there are: version 1.3, both sides prove who they are, nothing is resumed or sent early.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::TransportError;
use crate::identity::Identity;

/// Protocol of connections between nodes.
pub(crate) const PEER: &[u8] = b"trilemma-peer/1";
/// Protocol of connections of clients.
pub(crate) const CLIENT: &[u8] = b"trilemma-client/1";

/// Silence after which a connection is given up. A connection that outlives a cut sends again only after a
/// retransmission pause that has doubled all along the cut; a new one is there at once. So this is short.
const IDLE: Duration = Duration::from_millis(1500);
/// Time between packets that keep a quiet connection open.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// Round-trip time assumed before one is measured. QUIC's default of 333 ms would make a lost first packet cost a
/// second.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Bytes one stream may have in flight towards us: a few of the largest frames.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes all streams of one connection may have in flight, each way.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes of datagrams that wait, each way.
const DATAGRAM_BUFFER: usize = 1024 * 1024;
/// Streams that a peer or client may have open.
const STREAMS_MAX: u32 = 16;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn bad(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> TransportError {
    move |error| TransportError::Identity(format!("{what}: {error}"))
}

fn roots(identity: &Identity) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    for certificate in &identity.authority {
        roots
            .add(certificate.clone())
            .map_err(|error| bad("the authority's certificate")(&error))?;
    }
    Ok(roots)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
    transport
}

/// How a node answers connections of peers and clients.
pub(crate) fn server(identity: &Identity) -> Result<quinn::ServerConfig, TransportError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .build()
        .map_err(|error| bad("the authority's certificate")(&error))?;
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad("TLS 1.3")(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| bad("certificate and key")(&error))?;
    tls.alpn_protocols = vec![PEER.to_vec(), CLIENT.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_half_rtt_data = false;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| bad("cipher suites")(&error))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport())).migration(false);
    Ok(config)
}

/// How a node or client makes connections, for one of the two protocols.
pub(crate) fn client(identity: &Identity, protocol: &[u8]) -> Result<quinn::ClientConfig, TransportError> {
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad("TLS 1.3")(&error))?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| bad("certificate and key")(&error))?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| bad("cipher suites")(&error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

/// The protocol that a connection has agreed on, and the certificate chain of the other side.
pub(crate) fn handshake(
    connection: &quinn::Connection,
) -> (Option<Vec<u8>>, Vec<rustls_pki_types::CertificateDer<'static>>) {
    let data = connection.handshake_data().and_then(|data| data.downcast().ok());
    let protocol = data.and_then(|data: Box<quinn::crypto::rustls::HandshakeData>| data.protocol);
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast().ok());
    (protocol, chain.map_or(Vec::new(), |chain| *chain))
}
