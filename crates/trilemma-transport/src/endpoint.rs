//! Listening, dialling, the handshake of nodes, and what the driver is told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, VarInt};
use tokio::sync::mpsc;
use trilemma_core::{Incarnation, NodeId, Rng, codec};

use crate::clients::{self, ClientRef};
use crate::error::{Refusal, SendError, TransportError, code};
use crate::frame::{self, FrameReader, StreamEnd};
use crate::hello::{HELLO_BYTES_MAX, Hello, WIRE_VERSION};
use crate::identity::{Identity, Subject, server_name};
use crate::link::Link;
use crate::{Lane, Limits, tls};

/// Longest time for a handshake, TLS and hello together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest and longest pause between two attempts to reach a peer. The pause is random below a bound that doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Handshakes under way at once; more are refused before any work is done for them.
const HANDSHAKES_MAX: usize = 256;
/// Time that a refused side is given to read why.
const LINGER: Duration = Duration::from_millis(200);

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The cluster's name.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// The life of its process.
    pub incarnation: Incarnation,
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The other nodes.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// This node's certificate and key, and the cluster's authority.
    pub identity: Identity,
    /// Digest of the keyspace table.
    pub table_digest: [u8; 32],
    /// The table as text.
    pub table_text: String,
    /// Limits.
    pub limits: Limits,
}

/// What the driver is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    PeerUp {
        /// The peer.
        node: NodeId,
        /// The life of its process.
        incarnation: Incarnation,
        /// Where it is.
        address: SocketAddr,
    },
    /// A peer's connection has ended. May come long after the peer went.
    PeerDown {
        /// The peer.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A connection was refused, by this side or the other.
    Refused {
        /// The peer, where it is known.
        node: Option<NodeId>,
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// A frame of a peer.
    Frame {
        /// The peer.
        from: NodeId,
        /// The lane.
        lane: Lane,
        /// The frame.
        payload: Bytes,
    },
    /// A request of a client.
    ClientRequest {
        /// The client, to answer to.
        client: ClientRef,
        /// The request's number within the client's connection.
        request: u64,
        /// The request.
        payload: Bytes,
    },
}

/// The receiving end for the driver. Bounded: while it is full, connections are read no further.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the endpoint is gone.
    pub async fn recv(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event if one is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// The endpoint of a node. Dropping it closes all connections.
#[derive(Debug)]
pub struct Transport {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    local: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    config: TransportConfig,
    links: Mutex<HashMap<NodeId, Arc<Link>>>,
    events: mpsc::Sender<Event>,
    handshakes: AtomicUsize,
    clients: AtomicUsize,
}

impl Transport {
    /// Opens the endpoint on the current tokio runtime and begins to dial peers.
    pub fn bind(config: TransportConfig) -> Result<(Self, Events), TransportError> {
        let expected = Subject::Node {
            cluster: config.cluster.clone(),
            node: config.node,
        };
        let found = config.identity.subject()?;
        if found != expected {
            let (found, expected) = (found.to_string(), expected.to_string());
            return Err(TransportError::WrongSubject { found, expected });
        }
        let server = tls::server(&config.identity)?;
        let client = tls::client(&config.identity, tls::PEER)?;
        let failed = |source| TransportError::Bind {
            address: config.listen,
            source,
        };
        let endpoint = Endpoint::server(server, config.listen).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        let (events, receiver) = mpsc::channel(config.limits.events);
        let shared = Arc::new(Shared {
            config,
            links: Mutex::new(HashMap::new()),
            events,
            handshakes: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
        });
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        for (node, address) in shared.config.peers.clone() {
            if node > shared.config.node {
                tokio::spawn(dial_for_ever(
                    endpoint.clone(),
                    client.clone(),
                    Arc::clone(&shared),
                    node,
                    address,
                ));
            }
        }
        Ok((
            Self {
                endpoint,
                shared,
                local,
            },
            Events(receiver),
        ))
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Queues a frame for a peer. Never waits; what cannot be queued counts as lost.
    pub fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let link = self.shared.links().get(&to).cloned();
        link.ok_or(SendError::NotConnected(to))?.send(lane, frame)
    }

    /// Whether a peer is connected.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.shared.links().contains_key(&node)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.endpoint
            .close(VarInt::from_u32(code::CLOSED), b"the node stops");
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Link>>> {
        // Held for map operations only.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, event: Event) {
        // The driver has ended: nobody needs to know.
        let _ended = self.events.send(event).await;
    }

    fn hello(&self) -> Hello {
        Hello {
            version: WIRE_VERSION,
            node: self.config.node,
            incarnation: self.config.incarnation,
            table_digest: self.config.table_digest,
            table_text: self.config.table_text.clone(),
        }
    }

    /// Whom the other side's certificate names, if it may be a peer here.
    fn peer(&self, chain: &[rustls_pki_types::CertificateDer<'_>]) -> Result<NodeId, Refusal> {
        let subject = Subject::of(chain).map_err(Refusal::Subject)?;
        let cluster = &self.config.cluster;
        match &subject {
            Subject::Node {
                cluster: theirs,
                node,
            } if theirs == cluster => {
                if self.config.peers.contains_key(node) {
                    Ok(*node)
                } else {
                    let here = self.config.node;
                    Err(Refusal::Subject(format!(
                        "node {node} is not a peer of node {here} in its configuration"
                    )))
                }
            }
            other => Err(Refusal::Subject(format!(
                "its certificate names {other}, not a node of \"{cluster}\""
            ))),
        }
    }

    /// Takes a link off the table unless a newer one is there.
    fn forget(&self, node: NodeId, link: &Arc<Link>) {
        let mut links = self.links();
        if links.get(&node).is_some_and(|current| Arc::ptr_eq(current, link)) {
            links.remove(&node);
        }
    }

    /// Serves a peer's connection until it ends.
    async fn run_link(self: &Arc<Self>, connection: Connection, there: &Hello) {
        let node = there.node;
        let link = Arc::new(Link::start(
            node,
            connection.clone(),
            self.config.limits,
            &self.events,
        ));
        let former = self.links().insert(node, Arc::clone(&link));
        if let Some(former) = former {
            former.close(code::REPLACED, "a newer connection has taken over");
        }
        let address = connection.remote_address();
        self.tell(Event::PeerUp {
            node,
            incarnation: there.incarnation,
            address,
        })
        .await;
        let reason = connection.closed().await.to_string();
        link.close(code::CLOSED, "");
        self.forget(node, &link);
        self.tell(Event::PeerDown { node, reason }).await;
    }

    async fn refused(&self, connection: &Connection, node: Option<NodeId>, reason: Refusal) {
        let text = reason.to_string();
        // A close frame must fit a packet, so a long reason is cut for the other side; here it is whole.
        let mut end = text.len().min(900);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let code = if matches!(reason, Refusal::Violation(_)) {
            code::VIOLATION
        } else {
            code::REFUSED
        };
        connection.close(VarInt::from_u32(code), &text.as_bytes()[..end]);
        self.tell(Event::Refused {
            node,
            address: connection.remote_address(),
            reason,
        })
        .await;
    }
}

/// Accepts connections until the endpoint closes.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        if shared.handshakes.load(Ordering::Relaxed) >= HANDSHAKES_MAX {
            incoming.refuse();
            continue;
        }
        shared.handshakes.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(accept_one(incoming, Arc::clone(&shared)));
    }
}

async fn accept_one(incoming: Incoming, shared: Arc<Shared>) {
    let address = incoming.remote_address();
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming).await;
    shared.handshakes.fetch_sub(1, Ordering::Relaxed);
    let connection = match handshake {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let reason = Refusal::Tls(error.to_string());
            return shared
                .tell(Event::Refused {
                    node: None,
                    address,
                    reason,
                })
                .await;
        }
        Err(_elapsed) => {
            let reason = Refusal::Tls("it did not finish in time".into());
            return shared
                .tell(Event::Refused {
                    node: None,
                    address,
                    reason,
                })
                .await;
        }
    };
    let (protocol, chain) = tls::handshake(&connection);
    if protocol.as_deref() == Some(tls::PEER) {
        accept_peer(connection, &chain, &shared).await;
    } else {
        accept_client(connection, &chain, &shared).await;
    }
}

async fn accept_peer(
    connection: Connection,
    chain: &[rustls_pki_types::CertificateDer<'_>],
    shared: &Arc<Shared>,
) {
    let node = match shared.peer(chain) {
        Ok(node) => node,
        Err(reason) => return shared.refused(&connection, None, reason).await,
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, answer_hello(&connection, shared, node)).await {
        Ok(Ok(there)) => shared.run_link(connection, &there).await,
        Ok(Err(reason)) => shared.refused(&connection, Some(node), reason).await,
        Err(_elapsed) => {
            let reason = Refusal::Violation("no hello in time".into());
            shared.refused(&connection, Some(node), reason).await;
        }
    }
}

/// The accepting side: reads a hello, answers with ours, then judges, so that both sides can print both tables.
async fn answer_hello(connection: &Connection, shared: &Shared, node: NodeId) -> Result<Hello, Refusal> {
    let (mut send, receive) = connection.accept_bi().await.map_err(|error| closed(&error))?;
    let there = read_hello(receive).await?;
    let here = shared.hello();
    frame::write(&mut send, &codec::encode(&here))
        .await
        .map_err(Refusal::Violation)?;
    let verdict = here.check(&there, node);
    if verdict.is_err() {
        // Lets the other side read our hello before the close overtakes it.
        tokio::time::sleep(LINGER).await;
    }
    verdict.map(|()| there)
}

async fn read_hello(receive: quinn::RecvStream) -> Result<Hello, Refusal> {
    match FrameReader::new(receive, HELLO_BYTES_MAX).next().await {
        Ok(bytes) => Hello::decode(&bytes),
        Err(StreamEnd::Closed(why)) => Err(Refusal::ByPeer(why)),
        Err(StreamEnd::Violation(why)) => Err(Refusal::Violation(why)),
    }
}

fn closed(error: &quinn::ConnectionError) -> Refusal {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            Refusal::ByPeer(String::from_utf8_lossy(&close.reason).into_owned())
        }
        quinn::ConnectionError::ConnectionClosed(_) | quinn::ConnectionError::TransportError(_) => {
            Refusal::Tls(error.to_string())
        }
        other => Refusal::ByPeer(other.to_string()),
    }
}

async fn accept_client(
    connection: Connection,
    chain: &[rustls_pki_types::CertificateDer<'_>],
    shared: &Arc<Shared>,
) {
    let verdict = match Subject::of(chain) {
        Ok(subject) if subject.cluster() == shared.config.cluster => Ok(()),
        Ok(subject) => Err(Refusal::Subject(format!(
            "its certificate names {subject}, this is cluster \"{}\"",
            shared.config.cluster
        ))),
        Err(why) => Err(Refusal::Subject(why)),
    };
    if let Err(reason) = verdict {
        return shared.refused(&connection, None, reason).await;
    }
    let clients = shared.clients.fetch_add(1, Ordering::Relaxed);
    if clients >= shared.config.limits.clients {
        let reason = Refusal::Subject(format!("{clients} clients are connected, which is the limit"));
        shared.refused(&connection, None, reason).await;
    } else {
        clients::serve(connection, shared.config.limits, shared.events.clone()).await;
    }
    shared.clients.fetch_sub(1, Ordering::Relaxed);
}

/// Keeps a connection to one peer: dials, serves, dials again.
async fn dial_for_ever(
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    shared: Arc<Shared>,
    node: NodeId,
    address: SocketAddr,
) {
    let mut rng =
        Rng::new(u64::from(shared.config.node.0) << 32 ^ u64::from(node.0) ^ shared.config.incarnation.0);
    let mut bound = BACKOFF.0;
    let mut told = None;
    loop {
        match dial(&endpoint, &client, &shared, node, address).await {
            Ok((connection, there)) => {
                bound = BACKOFF.0;
                told = None;
                shared.run_link(connection, &there).await;
            }
            Err(None) => {}
            Err(Some(reason)) => {
                // The same refusal again and again is told once.
                if told.as_ref() != Some(&reason) {
                    told = Some(reason.clone());
                    shared
                        .tell(Event::Refused {
                            node: Some(node),
                            address,
                            reason,
                        })
                        .await;
                }
            }
        }
        if shared.events.is_closed() {
            return;
        }
        tokio::time::sleep(rng.between(BACKOFF.0 / 2, bound)).await;
        bound = (bound * 2).min(BACKOFF.1);
    }
}

/// One attempt. `Err(None)`: the peer is not there.
async fn dial(
    endpoint: &Endpoint,
    client: &quinn::ClientConfig,
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
) -> Result<(Connection, Hello), Option<Refusal>> {
    let name = server_name(&shared.config.cluster, node);
    let connecting = endpoint
        .connect_with(client.clone(), address, &name)
        .map_err(|error| Some(Refusal::Violation(format!("cannot dial {address}: {error}"))))?;
    let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => return Err(None),
        Ok(Err(error)) => return Err(Some(closed(&error))),
    };
    let greeted = tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(&connection, shared, node)).await;
    match greeted {
        Ok(Ok(there)) => Ok((connection, there)),
        Ok(Err(reason)) => {
            connection.close(VarInt::from_u32(code::REFUSED), reason.to_string().as_bytes());
            Err(Some(reason))
        }
        Err(_elapsed) => {
            connection.close(VarInt::from_u32(code::VIOLATION), b"no hello in time");
            Err(None)
        }
    }
}

/// The dialling side: sends our hello, reads and judges the answer.
async fn greet(connection: &Connection, shared: &Shared, node: NodeId) -> Result<Hello, Refusal> {
    let (_, chain) = tls::handshake(connection);
    let proven = shared.peer(&chain)?;
    if proven != node {
        let dialled = connection.remote_address();
        return Err(Refusal::Subject(format!(
            "{dialled} was to be node {node}, its certificate names node {proven}"
        )));
    }
    let (mut send, receive) = connection.open_bi().await.map_err(|error| closed(&error))?;
    let here = shared.hello();
    frame::write(&mut send, &codec::encode(&here))
        .await
        .map_err(Refusal::ByPeer)?;
    let there = match read_hello(receive).await {
        Ok(there) => there,
        // The close that follows tells more than the end of a stream.
        Err(Refusal::ByPeer(_)) => return Err(closed(&connection.closed().await)),
        Err(other) => return Err(other),
    };
    here.check(&there, proven)?;
    Ok(there)
}
