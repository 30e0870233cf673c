//! A running node: its thread, its handle, its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use trilemma_core::liveness::Liveness;
use trilemma_core::{Backend, Incarnation, NodeId, PeerView, SharedReplicator, StatusWatch};
use trilemma_storage::LogEvent;
use trilemma_transport::{Events, Transport, TransportConfig};

use crate::config::{NodeConfig, table_digest, table_text};
use crate::driver::{Clock, Driver, Identity, Outbox, Snapshots, Sources};
use crate::error::NodeError;
use crate::inbox::{Envelope, INBOX_MAX, Stop};
use crate::recovery::{self, Recovered};
use crate::replicator::LocalReplicator;
use crate::waiters::Waiters;
use crate::wire::{KeyspaceOverview, NodeOverview};

/// A handle on a running node. Dropping it stops the node as [`NodeHandle::abort`] does.
#[derive(Debug)]
pub struct NodeHandle {
    node: NodeId,
    incarnation: Incarnation,
    listen: SocketAddr,
    inbox: mpsc::Sender<Envelope>,
    keyspaces: Vec<Keyspace>,
    ended: watch::Receiver<Option<Arc<NodeError>>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Keyspace {
    overview: KeyspaceOverview,
    status: StatusWatch,
    replicator: (String, SharedReplicatorDebug),
}

/// A shared replicator that can be printed.
#[derive(Clone)]
struct SharedReplicatorDebug(SharedReplicator);

impl std::fmt::Debug for SharedReplicatorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.descriptor().backend)
    }
}

/// What the node's thread tells whoever starts it.
struct Started {
    incarnation: Incarnation,
    listen: SocketAddr,
    keyspaces: Vec<(KeyspaceOverview, StatusWatch)>,
}

impl NodeHandle {
    /// Starts a node and returns when it serves.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let node = config.node;
        let (inbox, receiver) = mpsc::channel(INBOX_MAX);
        let (started, wait) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let thread = thread::Builder::new()
            .name(format!("trilemma-{node}"))
            .spawn(move || run_thread(config, receiver, started, &end))
            .map_err(|error| NodeError::System {
                what: "a thread",
                why: error.to_string(),
            })?;
        let started = match wait.await {
            Ok(started) => started?,
            Err(_closed) => return Err(NodeError::Panicked),
        };
        let keyspaces = started
            .keyspaces
            .into_iter()
            .enumerate()
            .map(|(slot, (overview, status))| {
                let backend: Backend = overview.backend;
                let replicator = LocalReplicator {
                    backend,
                    slot,
                    status: status.clone(),
                    inbox: inbox.clone(),
                };
                let replicator = (overview.name.clone(), SharedReplicatorDebug(Arc::new(replicator)));
                Keyspace {
                    overview,
                    status,
                    replicator,
                }
            });
        Ok(Self {
            node,
            incarnation: started.incarnation,
            listen: started.listen,
            keyspaces: keyspaces.collect(),
            inbox,
            ended,
            thread: Some(thread),
        })
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The life of its process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where it listens.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The keyspaces by name.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<(String, SharedReplicator)> {
        self.keyspaces
            .iter()
            .map(|k| (k.replicator.0.clone(), Arc::clone(&k.replicator.1.0)))
            .collect()
    }

    /// The keyspaces as they stood at the last computation, some tens of milliseconds ago.
    #[must_use]
    pub fn overview_cached(&self) -> Vec<KeyspaceOverview> {
        let current = |k: &Keyspace| KeyspaceOverview {
            status: k.status.current(),
            ..k.overview.clone()
        };
        self.keyspaces.iter().map(current).collect()
    }

    /// How the node stands now.
    pub async fn overview(&self) -> Result<NodeOverview, NodeError> {
        let (reply, answer) = oneshot::channel();
        if self.inbox.send(Envelope::Overview { reply }).await.is_err() {
            return Err(self.end_error());
        }
        answer.await.map_err(|_closed| self.end_error())
    }

    fn end_error(&self) -> NodeError {
        match self.ended.borrow().as_deref() {
            Some(NodeError::Storage { why }) => NodeError::Storage { why: why.clone() },
            _ => NodeError::Panicked,
        }
    }

    /// Waits until the node has stopped by itself, which only a failure makes it do.
    pub async fn failed(&self) -> NodeError {
        let mut ended = self.ended.clone();
        // The channel closes when the thread has ended, with or without a word.
        let _closed = ended.wait_for(Option::is_some).await.is_err();
        self.end_error()
    }

    /// Stops the node; everything it has accepted becomes durable first.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        self.stop(Stop::Clean).await;
        match self.ended.borrow().as_deref() {
            Some(NodeError::Storage { why }) => Err(NodeError::Storage { why: why.clone() }),
            Some(_) => Err(NodeError::Panicked),
            None => Ok(()),
        }
    }

    /// Stops the node at once, as a kill of its process would.
    pub async fn abort(mut self) {
        self.stop(Stop::Abort).await;
    }

    async fn stop(&mut self, how: Stop) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Envelope::Stop { how, done }).await.is_ok() {
            // Closed without an answer: the thread has ended by itself, which is what was asked for.
            let _ended = wait.await;
        }
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!(node = %self.node, "the node's thread ended by a panic");
            }
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let (done, _nobody_waits) = oneshot::channel();
            // If the inbox is full the node still ends: the channel closes with this handle.
            let _full = self.inbox.try_send(Envelope::Stop {
                how: Stop::Abort,
                done,
            });
        }
    }
}

fn run_thread(
    config: NodeConfig,
    inbox: mpsc::Receiver<Envelope>,
    started: oneshot::Sender<Result<Started, NodeError>>,
    end: &watch::Sender<Option<Arc<NodeError>>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let refused = NodeError::System {
                what: "an event loop",
                why: error.to_string(),
            };
            // Whoever started the node may have gone away.
            let _gone = started.send(Err(refused));
            return;
        }
    };
    let node = config.node;
    runtime.block_on(async move {
        match open(config, inbox) {
            Err(error) => {
                let _gone = started.send(Err(error));
            }
            Ok((driver, sources, facts)) => {
                let _gone = started.send(Ok(facts));
                if let Err(error) = driver.run(sources).await {
                    tracing::error!(%node, %error, "the node has stopped");
                    end.send_replace(Some(Arc::new(error)));
                }
            }
        }
    });
    // Connections are closed by now; tasks that linger must not keep the thread.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
}

/// Opens storage and the endpoint, and puts the driver together.
fn open(
    config: NodeConfig,
    inbox: mpsc::Receiver<Envelope>,
) -> Result<(Driver, Sources, Started), NodeError> {
    config.check().map_err(NodeError::Config)?;
    let clock = Clock::start();
    let (log_events, log) = mpsc::unbounded_channel();
    let Recovered {
        slots,
        log: writer,
        snapshots,
        incarnation,
        progress,
    } = recovery::recover(&config, clock.now(), move |event: LogEvent| {
        // The driver has ended: nobody is left to tell.
        let _ended = log_events.send(event);
    })?;
    let (transport, events): (Transport, Events) = bind(&config, incarnation)?;
    let listen = transport.local_addr();
    let by_id = slots
        .iter()
        .enumerate()
        .map(|(index, slot)| (slot.id, index))
        .collect();
    let now = clock.now();
    let facts = slots.iter().map(|slot| {
        slot.refresh_status(now);
        let status = slot.status.current();
        let overview = KeyspaceOverview {
            name: slot.name.clone(),
            id: slot.id,
            backend: slot.backend,
            status,
        };
        (overview, slot.status.clone())
    });
    let started = Started {
        incarnation,
        listen,
        keyspaces: facts.collect(),
    };
    let driver = Driver {
        clock,
        slots,
        by_id,
        waiters: Waiters::default(),
        liveness: Liveness::new(config.tuning.liveness, incarnation, config.peers.keys().copied()),
        transport,
        outbox: Outbox::default(),
        log: writer,
        progress,
        snapshots: Snapshots::new(snapshots, config.tuning.snapshot_log_bytes),
        identity: Identity {
            cluster: config.cluster,
            node: config.node,
            incarnation,
            peers: config.peers,
            view: PeerView::default(),
            refused: std::collections::BTreeMap::new(),
        },
        next_status: now.instant,
        no_space: None,
        touched: Vec::new(),
    };
    Ok((driver, Sources { inbox, events, log }, started))
}

fn bind(config: &NodeConfig, incarnation: Incarnation) -> Result<(Transport, Events), NodeError> {
    let table_text = table_text(&config.keyspaces);
    let transport = TransportConfig {
        cluster: config.cluster.clone(),
        node: config.node,
        incarnation,
        listen: config.listen,
        peers: config.peers.clone(),
        identity: config.identity.clone(),
        table_digest: table_digest(&table_text),
        table_text,
        limits: trilemma_transport::Limits::default(),
    };
    Transport::bind(transport).map_err(|source| NodeError::Transport {
        node: config.node,
        listen: config.listen,
        source,
    })
}
