//! Listening, dialling, the handshake of nodes, and what the driver is notified of.

mod dialler;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex as AsyncMutex, watch};
use trilemma_core::{NodeId, NodeSet, ProcessId, codec};

use self::dialler::Dialler;
use crate::clients;
use crate::counters::{Counters, Metrics};
use crate::error::{Refusal, SendError, TransportError, code};
use crate::events::{self, Event, Events};
use crate::faults::Faults;
use crate::frame::{self, FrameReader, StreamEnd};
use crate::hello::{HELLO_BYTES_MAX, Hello, clip};
use crate::identity::{Identity, Subject};
use crate::link::{Link, LinkContext};
use crate::pace::Pace;
use crate::queue::{ClientBudget, Queues};
use crate::timing::Timing;
use crate::{Lane, Limits, socket, tls};

/// Handshakes under way at once; more are refused before any work is done for them.
const HANDSHAKES_MAX: usize = 256;
/// Handshakes under way from which on a new one must first prove its address (QUIC's Retry, one more round trip), so
/// that forged addresses cannot take all places.
const HANDSHAKES_UNPROVEN_MAX: usize = 64;
/// Handshakes that are begun in a second, and at once; those of peers' addresses do not count. A handshake costs about
/// 0.3 ms on the node's thread, so strangers take a sixth of it at most, and 10 ms at once. One that has no turn is not
/// answered: QUIC asks again after 60 ms, then after twice as long, and so on.
const HANDSHAKES_PACE: (u32, u32) = (512, 32);
/// Time that a refused side is given to read why.
const LINGER: Duration = Duration::from_millis(200);
/// Longest reason sent with a close: it must fit one packet.
const REASON_BYTES_MAX: usize = 900;
/// Time that closing connections are given to tell the other side.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Says whether a peer's process may be connected, and if not, why: asked after each hello.
#[derive(Clone)]
pub struct Admit(Arc<AdmitFn>);

type AdmitFn = dyn Fn(&ProcessId) -> Result<(), String> + Send + Sync;

impl Admit {
    /// Asks this function. It must not block.
    pub fn new(admit: impl Fn(&ProcessId) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(admit))
    }

    /// Admits everybody whose certificate and hello are right.
    #[must_use]
    pub fn all() -> Self {
        Self::new(|_| Ok(()))
    }
}

impl std::fmt::Debug for Admit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admit").finish_non_exhaustive()
    }
}

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The cluster's name.
    pub cluster: String,
    /// This process.
    pub process: ProcessId,
    /// Which processes of peers may be connected.
    pub admit: Admit,
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
    /// How long silence may last.
    pub timing: Timing,
    /// Limits.
    pub limits: Limits,
}

/// The endpoint of a node. Dropping it closes all connections.
#[derive(Debug)]
pub struct Transport {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    local: SocketAddr,
    /// Dropped with the transport: those who dial peers see it and end.
    _alive: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    config: TransportConfig,
    /// The links that the driver knows.
    links: Mutex<HashMap<NodeId, Arc<Link>>>,
    /// Held while `links` changes and the driver is notified, so that it learns of ups and downs in their order.
    news: AsyncMutex<()>,
    context: LinkContext,
    handshakes: AtomicUsize,
    clients: AtomicUsize,
}

/// An address that is taken, with an identity that fits the node: all that can refuse an endpoint, before anything else
/// of the node is done.
#[derive(Debug)]
pub struct Reserved {
    socket: UdpSocket,
    server: quinn::ServerConfig,
    client: quinn::ClientConfig,
}

impl Reserved {
    /// Checks the identity of a node of a cluster and takes the address that it listens on.
    pub fn new(
        cluster: &str,
        node: NodeId,
        listen: SocketAddr,
        identity: &Identity,
        timing: &Timing,
    ) -> Result<Self, TransportError> {
        let cluster = cluster.to_owned();
        let expected = Subject::Node { cluster, node };
        let found = identity.subject()?;
        if found != expected {
            let (found, expected) = (found.to_string(), expected.to_string());
            return Err(TransportError::WrongSubject { found, expected });
        }
        Ok(Self {
            server: tls::server(identity, timing)?,
            client: tls::client(identity, tls::PEER, timing)?,
            socket: UdpSocket::bind(listen).map_err(|source| {
                let address = listen;
                TransportError::Bind { address, source }
            })?,
        })
    }
}

impl Transport {
    /// Opens the endpoint on the current tokio runtime and begins to dial peers.
    pub fn bind(config: TransportConfig) -> Result<(Self, Events), TransportError> {
        let TransportConfig {
            cluster,
            process,
            listen,
            identity,
            timing,
            ..
        } = &config;
        let reserved = Reserved::new(cluster, process.node, *listen, identity, timing)?;
        Self::start(config, reserved)
    }

    /// [`Transport::bind`] to an address that was reserved with the same cluster, node, identity and timing.
    pub fn start(config: TransportConfig, reserved: Reserved) -> Result<(Self, Events), TransportError> {
        let Reserved {
            socket,
            server,
            client,
        } = reserved;
        let failed = |source| TransportError::Bind {
            address: config.listen,
            source,
        };
        let endpoint = socket::open(socket, Some(server)).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        let (sender, receiver) = events::queues(&config.limits);
        let answers = Arc::new(ClientBudget::new(config.limits.answer_bytes));
        let items = Arc::new(ClientBudget::new(config.limits.watch_bytes));
        let (alive, stop) = watch::channel(());
        let shared = Arc::new(Shared {
            config,
            links: Mutex::new(HashMap::new()),
            news: AsyncMutex::new(()),
            context: LinkContext {
                events: sender,
                metrics: Arc::new(Metrics::default()),
                faults: Arc::new(Faults::default()),
                answers,
                items,
                queues: Arc::new(Queues::default()),
            },
            handshakes: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        let notifier = Arc::clone(&shared);
        tokio::spawn(async move {
            if accepting.await.is_err() {
                tracing::error!("the task that accepts connections panicked");
            }
            notifier.tell(Event::Ended).await;
        });
        for (node, address) in shared.config.peers.clone() {
            if node > shared.config.process.node {
                let dialler = Dialler {
                    endpoint: endpoint.clone(),
                    client: client.clone(),
                    shared: Arc::clone(&shared),
                    node,
                    address,
                };
                tokio::spawn(dialler.run(stop.clone()));
            }
        }
        let transport = Self {
            endpoint,
            shared,
            local,
            _alive: alive,
        };
        Ok((transport, receiver))
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Queues a frame for a peer. Never waits; what cannot be queued counts as lost.
    pub fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let LinkContext { metrics, faults, .. } = &self.shared.context;
        if faults.is_blocked(to) {
            return Ok(());
        }
        let size = frame.len();
        let link = self.shared.links().get(&to).cloned();
        let result = match link {
            Some(link) => link.send(lane, frame),
            None => Err(SendError::NotConnected(to)),
        };
        match result {
            Ok(()) => metrics.sent(lane, size),
            Err(_) => metrics.dropped(lane),
        }
        result
    }

    /// Whether a peer is connected.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.shared.links().contains_key(&node)
    }

    /// What this endpoint has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.context.metrics.read()
    }

    /// Bytes of answers and of items of watches that wait for clients.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        let LinkContext { answers, items, .. } = &self.shared.context;
        answers.bytes() + items.bytes()
    }

    /// The endpoint itself.
    #[cfg(test)]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Cuts the links to exactly these peers: frames both ways are lost silently, and no new connection with them comes
    /// to be. Open connections stay, so [`Event::PeerDown`] need not follow. For tests.
    #[cfg(any(test, feature = "faults"))]
    pub fn set_blocked(&self, peers: &trilemma_core::NodeSet) {
        self.shared.context.faults.block(peers);
    }

    /// Sends what waits, closes all connections, and waits until the other sides know; half a second at most for each of
    /// both.
    ///
    /// Dropping the transport closes them too, but what waits is lost, and on a runtime that ends at once the peers then
    /// find out only by silence.
    pub async fn close(self) {
        if tokio::time::timeout(CLOSE_TIMEOUT, self.shared.context.queues.finish())
            .await
            .is_err()
        {
            tracing::debug!("frames still waited to be sent when the endpoint closed");
        }
        self.endpoint
            .close(VarInt::from_u32(code::CLOSED), b"the node stops");
        if tokio::time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle())
            .await
            .is_err()
        {
            tracing::debug!("connections were still open when the endpoint closed");
        }
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
        let _ended = self.context.events.send(event).await;
    }

    /// Tells of a refusal if the driver has room for it.
    fn tell_refused(&self, node: Option<NodeId>, address: SocketAddr, reason: Refusal) {
        let LinkContext { events, metrics, .. } = &self.context;
        metrics.refusals.add(1);
        let queued = events.offer(Event::Refused {
            node,
            address,
            reason,
        });
        if !queued {
            metrics.refusals_untold.add(1);
        }
    }

    fn hello(&self) -> Hello {
        let TransportConfig {
            process,
            table_digest,
            table_text,
            ..
        } = &self.config;
        let members = self.members().iter().collect();
        Hello::new(*process, members, *table_digest, table_text)
    }

    /// The members of the cluster as this node is configured.
    fn members(&self) -> NodeSet {
        let TransportConfig { process, peers, .. } = &self.config;
        peers.keys().copied().chain([process.node]).collect()
    }

    /// Judges the other side's hello. `proven` is whom its certificate names.
    fn judge(&self, there: &Hello, proven: NodeId) -> Result<(), Refusal> {
        self.hello().check(there, proven)?;
        let Admit(admit) = &self.config.admit;
        admit(&there.process).map_err(Refusal::Process)
    }

    /// Whom the other side's certificate names, if it may be a peer here.
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Result<NodeId, Refusal> {
        let subject = Subject::of(chain).map_err(Refusal::Subject)?;
        let cluster = &self.config.cluster;
        match &subject {
            Subject::Node {
                cluster: theirs,
                node,
            } if theirs == cluster => {
                let here = self.config.process.node;
                if *node == here {
                    Err(Refusal::Subject(format!(
                        "its certificate names node {node}, which is this node; no two processes may share one"
                    )))
                } else if self.config.peers.contains_key(node) {
                    Ok(*node)
                } else {
                    let members = self.members();
                    Err(Refusal::Subject(format!(
                        "node {node} is not a peer of node {here}, whose configuration has the members [{members}]; if \
                         it is one, give all nodes the `peers` that the cluster was made with"
                    )))
                }
            }
            other => Err(Refusal::Subject(format!(
                "its certificate names {other}, not a node of \"{cluster}\""
            ))),
        }
    }

    /// Serves a peer's connection until it ends.
    async fn run_link(&self, connection: Connection, there: &Hello) {
        let node = there.process.node;
        let link = Arc::new(Link::start(
            there.process,
            connection.clone(),
            self.config.limits,
            self.context.clone(),
        ));
        self.context.metrics.connects.add(1);
        self.enter(&link, there, connection.remote_address()).await;
        link.listen();
        let end = connection.closed().await;
        link.close(code::CLOSED, "");
        self.leave(node, &link, end.to_string()).await;
        // The other side has judged our hello after we had judged its.
        if let quinn::ConnectionError::ApplicationClosed(close) = &end
            && close.error_code == VarInt::from_u32(code::REFUSED)
        {
            self.tell_refused(Some(node), connection.remote_address(), closed(&end));
        }
    }

    /// Makes `link` the way to its peer, in place of any former one, and tells.
    async fn enter(&self, link: &Arc<Link>, there: &Hello, address: SocketAddr) {
        let process = there.process;
        let node = process.node;
        let _order = self.news.lock().await;
        let former = self.links().insert(node, Arc::clone(link));
        if let Some(former) = former {
            let reason = "a newer connection has taken over";
            former.close(code::REPLACED, reason);
            let reason = reason.to_owned();
            self.tell(Event::PeerDown { node, reason }).await;
        }
        self.tell(Event::PeerUp { process, address }).await;
    }

    /// Takes a link off the table and tells, unless a newer one has taken over.
    async fn leave(&self, node: NodeId, link: &Arc<Link>, reason: String) {
        let _order = self.news.lock().await;
        let is_current = {
            let mut links = self.links();
            let is_current = links.get(&node).is_some_and(|current| Arc::ptr_eq(current, link));
            if is_current {
                links.remove(&node);
            }
            is_current
        };
        if is_current {
            self.tell(Event::PeerDown { node, reason }).await;
        }
    }

    /// Closes a connection with the reason, and tells.
    fn refused(&self, connection: &Connection, node: Option<NodeId>, reason: Refusal) {
        let text = reason.to_string();
        // A long reason is cut for the other side; here it is whole.
        let code = if matches!(reason, Refusal::Violation(_)) {
            code::VIOLATION
        } else {
            code::REFUSED
        };
        connection.close(VarInt::from_u32(code), clip(&text, REASON_BYTES_MAX).as_bytes());
        self.tell_refused(node, connection.remote_address(), reason);
    }
}

/// Accepts connections until the endpoint closes.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut pace = Pace::new(HANDSHAKES_PACE, Instant::now());
    while let Some(incoming) = endpoint.accept().await {
        let handshakes = shared.handshakes.load(Ordering::Relaxed);
        let address = incoming.remote_address();
        // An endpoint for both families sees the addresses of the older one wrapped.
        let is_same = |peer: &SocketAddr| {
            peer.ip().to_canonical() == address.ip().to_canonical() && peer.port() == address.port()
        };
        let is_peer = shared.config.peers.values().any(is_same);
        if handshakes >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
            // It may retry, since its address is not proven.
            let _sent = incoming.retry();
        } else if handshakes >= HANDSHAKES_MAX && !is_peer {
            // Strangers who begin and do not end take no places from peers.
            incoming.refuse();
        } else if !is_peer && !pace.take(Instant::now()) {
            shared.context.metrics.put_off.add(1);
            incoming.ignore();
        } else {
            shared.handshakes.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(accept_one(incoming, Arc::clone(&shared)));
        }
    }
}

async fn accept_one(incoming: Incoming, shared: Arc<Shared>) {
    let address = incoming.remote_address();
    let handshake = tokio::time::timeout(shared.config.timing.handshake, incoming).await;
    shared.handshakes.fetch_sub(1, Ordering::Relaxed);
    let failed = |why: String| shared.tell_refused(None, address, Refusal::Tls(why));
    let connection = match handshake {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(_elapsed) => return failed("it did not finish in time".into()),
    };
    let (protocol, chain) = tls::handshake(&connection);
    if protocol.as_deref() == Some(tls::PEER) {
        accept_peer(connection, &chain, &shared).await;
    } else {
        accept_client(connection, &chain, &shared).await;
    }
}

async fn accept_peer(connection: Connection, chain: &[CertificateDer<'_>], shared: &Arc<Shared>) {
    let node = match shared.peer(chain) {
        Ok(node) => node,
        Err(reason) => return shared.refused(&connection, None, reason),
    };
    if shared.context.faults.is_blocked(node) {
        // As if nothing of it had arrived: the other side gives up first.
        return tokio::time::sleep(2 * shared.config.timing.handshake).await;
    }
    match tokio::time::timeout(
        shared.config.timing.handshake,
        answer_hello(&connection, shared, node),
    )
    .await
    {
        Ok(Ok(there)) => shared.run_link(connection, &there).await,
        Ok(Err(reason)) => shared.refused(&connection, Some(node), reason),
        Err(_elapsed) => {
            let reason = Refusal::Violation("no hello in time".into());
            shared.refused(&connection, Some(node), reason);
        }
    }
}

/// The accepting side: reads a hello, answers with ours, then judges, so that both sides can print both lists and tables.
async fn answer_hello(connection: &Connection, shared: &Shared, node: NodeId) -> Result<Hello, Refusal> {
    let (mut send, receive) = connection.accept_bi().await.map_err(|error| closed(&error))?;
    let there = read_hello(receive).await?;
    frame::write(&mut send, &codec::encode(&shared.hello()))
        .await
        .map_err(Refusal::Violation)?;
    let verdict = shared.judge(&there, node);
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

async fn accept_client(connection: Connection, chain: &[CertificateDer<'_>], shared: &Arc<Shared>) {
    let verdict = match Subject::of(chain) {
        Ok(subject) if subject.cluster() == shared.config.cluster => Ok(()),
        Ok(subject) => Err(Refusal::Subject(format!(
            "its certificate names {subject}, this is cluster \"{}\"",
            shared.config.cluster
        ))),
        Err(why) => Err(Refusal::Subject(why)),
    };
    if let Err(reason) = verdict {
        return shared.refused(&connection, None, reason);
    }
    let clients = shared.clients.fetch_add(1, Ordering::Relaxed);
    if clients >= shared.config.limits.clients {
        let reason = Refusal::Subject(format!("{clients} clients are connected, which is the limit"));
        shared.refused(&connection, None, reason);
    } else {
        shared.context.metrics.clients.add(1);
        clients::serve(connection, shared.config.limits, shared.context.clone()).await;
    }
    shared.clients.fetch_sub(1, Ordering::Relaxed);
}
