//! Keyspaces of nodes on other machines, behind the same trait.
//!
//! One connection to one node at a time. When it is lost, the next call connects to the next server. A request that
//! was certainly not sent goes to another server by itself; one that may have been sent never does: a write then is
//! `Unknown`, and its caller decides.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use trilemma_core::descriptor::WatchScope;
use trilemma_core::pending::refused_write;
use trilemma_core::replicator::{Convergent, OpContext, Replicator, SharedReplicator, WatchStream};
use trilemma_core::{
    Attempt, Backend, Command, Descriptor, Entry, Key, KeyspaceId, NodeId, OpId, Outcome, ReadError,
    ReadReply, ReadRequest, Reason, Receipt, Reply, Request, StatusWatch, UnknownCause, Version, WatchItem,
    WatchSpec, WriteError, codec,
};
use trilemma_node::EPOCH;
use trilemma_client::wire::{ClientReply, ClientRequest, KeyspaceOverview, NodeOverview};
use trilemma_transport::{CallError, ClientConfig, ClientConnection, Identity};

use crate::inbox::WATCH_QUEUE_MAX;
use crate::replicator::{ReceiverStream, siblings};

/// How much longer than the operation's own limit a client waits for the node's answer.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The client's certificate, key and the cluster's authority.
    pub identity: Identity,
    /// The nodes, tried in this order.
    pub servers: Vec<(NodeId, SocketAddr)>,
    /// Longest time for a connection to be made.
    pub connect_timeout: Duration,
}

/// A connection to a cluster: to one of its nodes at a time.
#[derive(Debug)]
pub struct Remote {
    config: RemoteConfig,
    connection: AsyncMutex<Option<Arc<Connection>>>,
    statuses: Mutex<HashMap<String, StatusWatch>>,
}

#[derive(Debug)]
struct Connection {
    node: NodeId,
    client: ClientConnection,
    /// Keyspace ids as this node numbers them.
    keyspaces: HashMap<String, KeyspaceId>,
}

impl Remote {
    /// Connects to the first server that answers.
    pub async fn connect(config: RemoteConfig) -> Result<Arc<Self>, ReadError> {
        let remote = Self {
            config,
            connection: AsyncMutex::new(None),
            statuses: Mutex::new(HashMap::new()),
        };
        remote.connection(None).await?;
        Ok(Arc::new(remote))
    }

    /// The node that is connected now, if one is.
    pub async fn node(&self) -> Option<NodeId> {
        self.connection
            .lock()
            .await
            .as_ref()
            .map(|connection| connection.node)
    }

    /// How the connected node stands.
    pub async fn overview(&self) -> Result<NodeOverview, ReadError> {
        loop {
            let connection = self.connection(None).await?;
            match overview(&connection.client, self.config.connect_timeout).await {
                Ok(overview) => {
                    self.learn(&overview);
                    return Ok(overview);
                }
                Err(why) => {
                    tracing::debug!(node = %connection.node, %why, "connection lost");
                    // Reconnects, or fails with what every server said.
                    self.connection(Some(&connection)).await?;
                }
            }
        }
    }

    /// The replicator of a keyspace that an overview showed.
    #[must_use]
    pub fn replicator(self: &Arc<Self>, keyspace: &KeyspaceOverview) -> SharedReplicator {
        Arc::new(RemoteReplicator {
            remote: Arc::clone(self),
            name: keyspace.name.clone(),
            backend: keyspace.backend,
            status: self.status(&keyspace.name),
        })
    }

    fn status(&self, name: &str) -> StatusWatch {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.entry(name.to_owned()).or_default().clone()
    }

    fn learn(&self, overview: &NodeOverview) {
        for keyspace in &overview.keyspaces {
            self.status(&keyspace.name).set(keyspace.status.clone());
        }
    }

    /// The live connection; makes one if there is none, or if it is `broken`.
    async fn connection(&self, broken: Option<&Arc<Connection>>) -> Result<Arc<Connection>, ReadError> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = current.as_ref() {
            let is_broken = broken.is_some_and(|broken| Arc::ptr_eq(broken, connection));
            if !is_broken && !connection.client.is_closed() {
                return Ok(Arc::clone(connection));
            }
        }
        let after = current.take().map(|connection| connection.node);
        let connection = Arc::new(self.dial(after).await?);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Tries every server once, beginning with the one behind `after`.
    async fn dial(&self, after: Option<NodeId>) -> Result<Connection, ReadError> {
        let servers = &self.config.servers;
        let first = servers
            .iter()
            .position(|(node, _)| Some(*node) == after)
            .map_or(0, |index| index + 1);
        let mut failures = Vec::new();
        for (node, address) in servers.iter().cycle().skip(first).take(servers.len()) {
            match self.dial_one(*node, *address).await {
                Ok(connection) => return Ok(connection),
                Err(why) => failures.push(format!("node {node} at {address}: {why}")),
            }
        }
        Err(Reason::Unreachable {
            why: failures.join("; "),
        }
        .into())
    }

    async fn dial_one(&self, node: NodeId, address: SocketAddr) -> Result<Connection, String> {
        let config = ClientConfig::new(self.config.cluster.clone(), self.config.identity.clone(), address)
            .node(node)
            .timeout(self.config.connect_timeout);
        let client = ClientConnection::connect(config)
            .await
            .map_err(|error| error.to_string())?;
        let overview = overview(&client, self.config.connect_timeout).await?;
        self.learn(&overview);
        let keyspaces = overview
            .keyspaces
            .into_iter()
            .map(|keyspace| (keyspace.name, keyspace.id))
            .collect();
        Ok(Connection {
            node,
            client,
            keyspaces,
        })
    }

    /// Sends a request and waits for its answer. `make` is given the keyspace's id at the connected node.
    async fn call(
        &self,
        name: &str,
        timeout: Duration,
        make: impl Fn(KeyspaceId) -> ClientRequest,
    ) -> Result<ClientReply, Failed> {
        let mut broken = None;
        // Once for each server, and once more: a server that was skipped first may have come back.
        for _ in 0..=self.config.servers.len() {
            let connection = self
                .connection(broken.as_ref())
                .await
                .map_err(|error| Failed::NotSent(error.reason))?;
            let id = connection.id(name).map_err(Failed::NotSent)?;
            let request = codec::encode(&make(id));
            match tokio::time::timeout(timeout + ANSWER_GRACE, connection.client.call(request)).await {
                Ok(Ok(answer)) => return decode(&answer).map_err(Failed::Lost),
                Ok(Err(CallError::NotSent { .. })) => broken = Some(connection),
                Ok(Err(error)) => return Err(Failed::Lost(error.to_string())),
                Err(_elapsed) => return Err(Failed::TimedOut),
            }
        }
        Err(Failed::NotSent(Reason::Unreachable {
            why: "every server closed the connection".into(),
        }))
    }
}

impl Connection {
    fn id(&self, name: &str) -> Result<KeyspaceId, Reason> {
        self.keyspaces.get(name).copied().ok_or_else(|| {
            let mut configured: Vec<&str> = self.keyspaces.keys().map(String::as_str).collect();
            configured.sort_unstable();
            Reason::NoSuchKeyspace {
                name: name.into(),
                configured: configured.join(", "),
            }
        })
    }
}

async fn overview(client: &ClientConnection, timeout: Duration) -> Result<NodeOverview, String> {
    let call = client.call(codec::encode(&ClientRequest::Overview));
    let answer = tokio::time::timeout(timeout, call)
        .await
        .map_err(|_| format!("no answer within {timeout:?}"))?;
    match decode(&answer.map_err(|error| error.to_string())?)? {
        ClientReply::Overview(overview) => Ok(*overview),
        other => Err(format!("it answered a question for its overview with {other:?}")),
    }
}

fn decode(answer: &Bytes) -> Result<ClientReply, String> {
    codec::decode(answer).map_err(|error| error.to_string())
}

/// How a call failed.
enum Failed {
    /// The request certainly did not reach a node's protocol.
    NotSent(Reason),
    /// It may have.
    Lost(String),
    /// It may have, and the time is up.
    TimedOut,
}

impl Failed {
    fn write(self, op: OpId, attempt: Attempt) -> WriteError {
        match self {
            Failed::NotSent(reason) => refused_write(op, attempt, reason),
            Failed::Lost(why) => {
                tracing::debug!(%op, %why, "the answer to a write was lost");
                WriteError::Unknown {
                    op,
                    cause: UnknownCause::ReplyLost,
                }
            }
            Failed::TimedOut => WriteError::Unknown {
                op,
                cause: UnknownCause::Deadline,
            },
        }
    }

    fn read(self) -> ReadError {
        match self {
            Failed::NotSent(reason) => reason.into(),
            Failed::Lost(why) => Reason::Unreachable { why }.into(),
            Failed::TimedOut => Reason::Deadline.into(),
        }
    }
}

/// A keyspace of a remote node.
#[derive(Debug)]
struct RemoteReplicator {
    remote: Arc<Remote>,
    name: String,
    backend: Backend,
    status: StatusWatch,
}

/// The node answered a request of one kind with the answer of another.
fn unexpected(reply: &ClientReply) -> Failed {
    let text = match reply {
        ClientReply::Bad(why) => why.clone(),
        other => format!("unexpected answer: {other:?}"),
    };
    Failed::Lost(text)
}

fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

/// The node answered a request of one kind with the answer of another.
fn mismatched(reply: &Reply) -> Failed {
    Failed::Lost(format!("unexpected answer: {reply:?}"))
}

fn is_expired(error: &WriteError) -> bool {
    matches!(error, WriteError::NotApplied(refusal) if refusal.reason == Reason::SessionExpired)
}

/// An answer on a stream of watch items; `None` is the end of the connection.
fn watch_item(answer: Option<&Bytes>) -> Result<WatchItem, ReadError> {
    match answer.map(decode) {
        Some(Ok(ClientReply::Watch(item))) => item,
        Some(Ok(other)) => Err(unexpected(&other).read()),
        Some(Err(why)) => Err(Reason::Unreachable { why }.into()),
        None => Err(Reason::Unreachable {
            why: "the connection was lost".into(),
        }
        .into()),
    }
}

fn epoch(cx: &OpContext) -> Result<(), Reason> {
    if cx.epoch == EPOCH {
        Ok(())
    } else {
        Err(Reason::StaleEpoch { now: EPOCH })
    }
}

impl RemoteReplicator {
    async fn ask(&self, cx: &OpContext, request: Request) -> Result<Reply, Failed> {
        epoch(cx).map_err(Failed::NotSent)?;
        let timeout_ms = millis(cx.timeout);
        let make = |keyspace| ClientRequest::Ask {
            keyspace,
            timeout_ms,
            request: request.clone(),
        };
        match self.remote.call(&self.name, cx.timeout, make).await? {
            ClientReply::Answer(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// A session that is made later may begin here. Otherwise: a client connects at version 100 and stays, ten thousand
    /// other sessions write, its own is evicted, and every new one that it makes on the basis of 100 is refused too.
    fn learn(&self, version: Version) {
        if self.backend.descriptor().watch == WatchScope::Shared {
            self.status.learn_version(version);
        }
    }

    /// Learns where the keyspace stands, so that a new session is not refused like the last one.
    async fn catch_up(&self, timeout: Duration) {
        match tokio::time::timeout(timeout, self.remote.overview()).await {
            Ok(Ok(_learned)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no overview after a session expired"),
            Err(_elapsed) => tracing::debug!("no overview in time after a session expired"),
        }
    }
}

#[async_trait]
impl Replicator for RemoteReplicator {
    fn descriptor(&self) -> &'static Descriptor {
        self.backend.descriptor()
    }

    fn status(&self) -> StatusWatch {
        self.status.clone()
    }

    async fn read(&self, cx: &OpContext, request: ReadRequest) -> Result<ReadReply, ReadError> {
        match self.ask(cx, Request::Read(request)).await.map_err(Failed::read)? {
            Reply::Read(result) => {
                if let Ok(read) = &result {
                    self.learn(read.version);
                }
                result
            }
            other => Err(mismatched(&other).read()),
        }
    }

    async fn write(&self, cx: &OpContext, command: Command) -> Result<Receipt, WriteError> {
        command.validate()?;
        let (op, attempt) = (cx.op, cx.attempt);
        let failed = |failed: Failed| failed.write(op, attempt);
        let request = Request::Write { op, attempt, command };
        match self.ask(cx, request).await.map_err(failed)? {
            Reply::Write(result) => {
                match &result {
                    Ok(receipt) => self.learn(receipt.version),
                    Err(error) if is_expired(error) => self.catch_up(cx.timeout).await,
                    Err(_) => {}
                }
                result
            }
            other => Err(failed(mismatched(&other))),
        }
    }

    async fn watch(&self, cx: &OpContext, spec: WatchSpec) -> Result<WatchStream, ReadError> {
        epoch(cx)?;
        let connection = self.remote.connection(None).await?;
        let keyspace = connection.id(&self.name)?;
        let request = codec::encode(&ClientRequest::Watch { keyspace, spec });
        let mut answers = connection
            .client
            .stream(request)
            .await
            .map_err(|error| Reason::Unreachable {
                why: error.to_string(),
            })?;
        let (items, receiver) = mpsc::channel(WATCH_QUEUE_MAX);
        tokio::spawn(async move {
            // Keeps the connection while the watch lives.
            let _connection = connection;
            loop {
                let answer = tokio::select! {
                    answer = answers.recv() => answer,
                    // Nobody reads any more: dropping `answers` ends the watch at the node too.
                    () = items.closed() => return,
                };
                let item = watch_item(answer.as_ref());
                let last = item.is_err();
                if items.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream(receiver)))
    }

    async fn outcome(
        &self,
        cx: &OpContext,
        op: OpId,
        command: Option<Command>,
    ) -> Result<Outcome, ReadError> {
        match self
            .ask(cx, Request::Outcome { op, command })
            .await
            .map_err(Failed::read)?
        {
            Reply::Outcome(result) => result,
            other => Err(mismatched(&other).read()),
        }
    }

    fn convergent(&self) -> Option<&dyn Convergent> {
        (self.backend == Backend::Gossip).then_some(self as &dyn Convergent)
    }
}

#[async_trait]
impl Convergent for RemoteReplicator {
    async fn siblings(&self, cx: &OpContext, key: Key) -> Result<Vec<Entry>, ReadError> {
        siblings(self, cx, key).await
    }
}
