//! The only TLS settings there are: version 1.3, both sides prove who they are, nothing is resumed or sent early.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::TransportError;
use crate::identity::Identity;
use crate::timing::Timing;

/// Protocol of connections between nodes.
pub(crate) const PEER: &[u8] = b"trilemma-peer/1";
/// Protocol of connections of clients.
pub(crate) const CLIENT: &[u8] = b"trilemma-client/2";

/// Round-trip time assumed before one is measured. QUIC's default of 333 ms would make a lost first packet cost a
/// second.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Bytes one stream may have in flight towards us: a few of the largest frames.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes that all streams of one connection together may have in flight towards a node, until it is known to be a
/// peer's. What a client may make a node hold unread.
pub(crate) const UNKNOWN_WINDOW: u32 = 2 * 1024 * 1024;
/// The same of a peer: more than its two lanes of data may have in flight together, so that its votes, heartbeats and
/// acknowledgements never wait until data are read.
pub(crate) const PEER_WINDOW: u32 = 2 * STREAM_WINDOW + 2 * 1024 * 1024;
/// Bytes sent to a peer that it has not acknowledged. As many, for the same reason.
const PEER_SEND_WINDOW: u64 = PEER_WINDOW as u64;
/// The same of a client.
pub(crate) const CLIENT_SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes of answers that one stream may have in flight towards a client.
const ANSWERS_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes that all streams of a client may have in flight towards it: as much as each of them may, so that neither
/// stream holds up the other.
const ALL_ANSWERS_WINDOW: u32 = CLIENT_STREAMS_MAX * ANSWERS_WINDOW;
/// Streams that a client may have open: one for calls, one for watches.
pub(crate) const CLIENT_STREAMS_MAX: u32 = 2;
/// Streams that a peer may open: one for each lane, and one too many, to notice it.
const LANE_STREAMS_MAX: u32 = 4;
/// Bytes of datagrams that wait, each way.
const DATAGRAM_BUFFER: usize = 1024 * 1024;
/// Connections that wait to be accepted, and bytes that each, and all, may send meanwhile.
const INCOMING_MAX: (usize, u64, u64) = (1024, 64 * 1024, 8 * 1024 * 1024);
/// Bytes sent before the first acknowledgement. A local network takes this at once; QUIC's default is made for the
/// internet.
const INITIAL_CONGESTION_WINDOW: u64 = 256 * 1024;

/// Largest UDP payload that is sent or taken, in bytes. Discovery finds what the path carries: 1,452 on Ethernet, all of
/// this on loopback and with jumbo frames, where a burst then takes a quarter of the packets. No more: QUIC hands the
/// system up to ten packets with one call, and IP takes no more than 65,507 bytes at once.
pub(crate) const PAYLOAD_BYTES_MAX: u16 = 6500;
const _: () = assert!(
    10 * PAYLOAD_BYTES_MAX as u32 <= 65_507,
    "a batch of packets fits one call"
);

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

/// Settings that all connections share.
fn common(timing: &Timing) -> TransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PAYLOAD_BYTES_MAX);
    let idle_ms = u32::try_from(timing.idle.as_millis()).unwrap_or(u32::MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .keep_alive_interval(Some(timing.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(congestion))
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(UNKNOWN_WINDOW))
        .send_window(PEER_SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // One is enough for a hello, and for a client's first stream.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(LANE_STREAMS_MAX));
    transport
}

/// Settings of a client, whose node opens no stream.
fn of_client(timing: &Timing) -> TransportConfig {
    let mut transport = common(timing);
    transport
        .stream_receive_window(VarInt::from_u32(ANSWERS_WINDOW))
        .receive_window(VarInt::from_u32(ALL_ANSWERS_WINDOW))
        .datagram_receive_buffer_size(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}

/// How a node answers connections of peers and clients.
pub(crate) fn server(identity: &Identity, timing: &Timing) -> Result<quinn::ServerConfig, TransportError> {
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
    let (incoming, bytes_each, bytes_all) = INCOMING_MAX;
    config
        .transport_config(Arc::new(common(timing)))
        .migration(false)
        .max_incoming(incoming)
        .incoming_buffer_size(bytes_each)
        .incoming_buffer_size_total(bytes_all);
    Ok(config)
}

/// How a node or client makes connections, for one of the two protocols.
pub(crate) fn client(
    identity: &Identity,
    protocol: &[u8],
    timing: &Timing,
) -> Result<quinn::ClientConfig, TransportError> {
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
    let transport = if protocol == PEER {
        common(timing)
    } else {
        of_client(timing)
    };
    config.transport_config(Arc::new(transport));
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
