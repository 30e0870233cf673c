//! A running node: its thread, its handle, its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use trilemma_client::wire::{
    CertificateOverview, KeyspaceOverview, LoadOverview, MembershipOverview, NodeOverview,
};
use trilemma_core::{Incarnation, Instant, NodeId, ProcessId, SharedReplicator, StatusWatch, WallTime};
use trilemma_node::config::{table_digest, table_text};
use trilemma_node::frame::Coalescer;
use trilemma_node::{
    Effects, NodeSettings, ReaderEvent, Recovered, RecoveryError, Storage, WatchId, recover,
};
use trilemma_storage::{LogError, LogEvent, LogWriter, OsDisk};
use trilemma_transport::{Events, Reserved, Timing, Transport, TransportConfig, Validity};

use crate::config::NodeConfig;
use crate::driver::{
    Admitted, Clock, DiskWatch, Driver, Identity, Refusals, ReplyTo, Sources, Stopwatch, keyspace_overview,
};
use crate::error::NodeError;
use crate::inbox::{Envelope, INBOX_MAX, Stop};
use crate::paced::Pace;
use crate::readers::Readers;
use crate::replicator::LocalReplicator;
use crate::signing::Keys;

/// A handle on a running node. Dropping it stops the node as [`NodeHandle::abort`] does.
#[derive(Debug)]
pub struct NodeHandle {
    node: NodeId,
    incarnation: Incarnation,
    listen: SocketAddr,
    inbox: mpsc::Sender<Envelope>,
    /// A way of its own, so that a full inbox does not keep a node running.
    stop: mpsc::UnboundedSender<(Stop, oneshot::Sender<()>)>,
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

/// What the node's thread tells the task that starts it.
struct Started {
    incarnation: Incarnation,
    listen: SocketAddr,
    keyspaces: Vec<(KeyspaceOverview, StatusWatch)>,
}

impl NodeHandle {
    /// Starts a node and returns when it serves: its files are read, and what it knows to be committed is applied. Whether
    /// a keyspace can be written depends on others, too: see its status.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let node = config.node;
        let (inbox, receiver) = mpsc::channel(INBOX_MAX);
        let (stop, stops) = mpsc::unbounded_channel();
        let (readers, reader_events) = mpsc::unbounded_channel();
        let (started, wait) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let thread = thread::Builder::new()
            .name(format!("trilemma-{node}"))
            .spawn(move || {
                run_thread(
                    config,
                    Inputs {
                        inbox: receiver,
                        stop: stops,
                        readers: reader_events,
                    },
                    started,
                    &end,
                );
                // Who waits for the thread waits for this.
                drop(end);
            })
            .map_err(|error| NodeError::System {
                what: "a thread",
                why: error.to_string(),
            })?;
        let started = match wait.await {
            Ok(started) => started?,
            // It has failed before it served.
            Err(_closed) => {
                let mut ended = ended;
                let _closed = ended.wait_for(Option::is_some).await.is_err();
                return Err(end_error(&ended));
            }
        };
        let keyspaces = started.keyspaces.into_iter().map(|(overview, status)| {
            let replicator = LocalReplicator {
                backend: overview.backend,
                keyspace: overview.id,
                status: status.clone(),
                inbox: inbox.clone(),
                readers: readers.clone(),
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
            stop,
            ended,
            thread: Some(thread),
        })
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The incarnation of its process.
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

    /// Whom the node knows as members; `None` where membership is not configured.
    pub async fn members(&self) -> Result<Option<MembershipOverview>, NodeError> {
        let (reply, answer) = oneshot::channel();
        if self.inbox.send(Envelope::Members { reply }).await.is_err() {
            return Err(self.end_error());
        }
        answer.await.map_err(|_closed| self.end_error())
    }

    fn end_error(&self) -> NodeError {
        end_error(&self.ended)
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
        let has_failed = self.ended.borrow().is_some();
        if has_failed { Err(self.end_error()) } else { Ok(()) }
    }

    /// Stops the node at once, as a kill of its process would.
    pub async fn abort(mut self) {
        self.stop(Stop::Abort).await;
    }

    async fn stop(&mut self, how: Stop) {
        let (done, wait) = oneshot::channel();
        if self.stop.send((how, done)).is_ok() {
            // Closed without an answer: the thread has ended by itself, which is what was asked for.
            let _ended = wait.await;
        }
        // Dropped with the last thing that the thread does.
        while self.ended.changed().await.is_ok() {}
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(node = %self.node, "the node's thread ended by a panic");
        }
    }
}

/// Why a node's thread has ended by itself.
fn end_error(ended: &watch::Receiver<Option<Arc<NodeError>>>) -> NodeError {
    match ended.borrow().as_deref() {
        Some(NodeError::Storage { why }) => NodeError::Storage { why: why.clone() },
        Some(NodeError::Network) => NodeError::Network,
        _ => NodeError::Panicked,
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let (done, _nobody_waits) = oneshot::channel();
            // The thread may have ended by itself.
            let _ended = self.stop.send((Stop::Abort, done));
        }
    }
}

/// What a handle asks of its node's thread.
struct Inputs {
    inbox: mpsc::Receiver<Envelope>,
    stop: mpsc::UnboundedReceiver<(Stop, oneshot::Sender<()>)>,
    readers: mpsc::UnboundedReceiver<(WatchId, ReaderEvent)>,
}

/// Steps of the endpoint's tasks after which the driver has its turn. Each takes a millisecond where much is sent and read.
const EVENT_INTERVAL: u32 = 16;

fn run_thread(
    config: NodeConfig,
    inputs: Inputs,
    started: oneshot::Sender<Result<Started, NodeError>>,
    end: &watch::Sender<Option<Arc<NodeError>>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let refused = NodeError::System {
                what: "an event loop",
                why: error.to_string(),
            };
            // The task that started the node may have gone away.
            let _gone = started.send(Err(refused));
            return;
        }
    };
    let node = config.node;
    runtime.block_on(async move {
        match open(config, inputs) {
            Err(error) => {
                let _gone = started.send(Err(error));
            }
            Ok((driver, sources, facts)) => {
                let serves = move || {
                    let _gone = started.send(Ok(facts));
                };
                if let Err(error) = driver.run(sources, serves).await {
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
fn open(config: NodeConfig, inputs: Inputs) -> Result<(Driver, Sources, Started), NodeError> {
    let settings = config.settings();
    settings.check().map_err(NodeError::Config)?;
    Keys(&config).check().map_err(NodeError::Config)?;
    let clock = Clock::start();
    let certificate = certificate(&config, clock.now().wall)?;
    // First all that can refuse the start; only then anything in the directory is changed.
    let disk = open_directory(&config)?;
    let timing = Timing::of(settings.tuning.liveness.timeout);
    let reserved = Reserved::new(
        &settings.cluster,
        config.node,
        config.listen,
        &config.identity,
        &timing,
    )
    .map_err(|error| config.transport_error(error))?;
    let (log_events, log) = mpsc::unbounded_channel();
    let report = move |event: LogEvent| {
        // The driver has ended: nobody is left to tell.
        let _ended = log_events.send(event);
    };
    let (mut node, writer) = open_storage(&config, &settings, &disk, clock, report)?;
    for (peer, disk) in &config.accept_disks {
        node.accept_disk(*peer, *disk);
    }
    let admitted = Admitted::new(node.peers());
    let (transport, events) = listen(&config, &settings, (timing, reserved), node.process(), &admitted)?;
    let now = clock.now();
    let keyspaces = node
        .replicas()
        .iter()
        .map(|replica| (keyspace_overview(replica, now), replica.status_watch()));
    let started = Started {
        incarnation: node.incarnation(),
        listen: transport.local_addr(),
        keyspaces: keyspaces.collect(),
    };
    let (snapshot_done, snapshots) = mpsc::unbounded_channel();
    let driver = Driver {
        clock,
        node,
        effects: Effects::default(),
        readers: Readers::default(),
        coalescer: Coalescer::default(),
        transport,
        log: writer,
        disk,
        identity: Identity {
            cluster: config.cluster,
            peers: config.peers,
            refused: std::collections::BTreeMap::new(),
            certificate,
        },
        admitted,
        snapshot_done,
        snapshot_thread: None,
        snapshot_pace: Pace::default(),
        frames_dropped: 0,
        load: LoadOverview::default(),
        refusals: Refusals::default(),
        disk_watch: DiskWatch::default(),
        next_look: Instant::ZERO,
        stopwatch: Stopwatch::default(),
    };
    let Inputs { inbox, stop, readers } = inputs;
    let sources = Sources {
        inbox,
        stop,
        readers,
        events,
        log,
        snapshots,
    };
    Ok((driver, sources, started))
}

/// When this node's certificate is valid; warns if that has ended, or ends soon. A node with one that is over starts all
/// the same: its peers refuse it and say so, and its clocks may be wrong where theirs are right.
fn certificate(config: &NodeConfig, now: WallTime) -> Result<CertificateOverview, NodeError> {
    const DAY: i64 = 24 * 3600;
    let validity = config.identity.validity();
    let Validity { from, until } = validity.map_err(|error| config.transport_error(error))?;
    let now = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    let node = config.node;
    if now < from {
        let days = (from - now) / DAY;
        tracing::error!(%node, days, "this node's certificate is not valid yet: others refuse it. Check this machine's clock");
    } else if now > until {
        let days = (now - until) / DAY;
        tracing::error!(%node, days, "this node's certificate has expired: others refuse it. Issue another one with `trilemma cert`");
    } else if until - now < 30 * DAY {
        let days = (until - now) / DAY;
        tracing::warn!(%node, days, "this node's certificate expires soon. Issue another one with `trilemma cert`");
    }
    Ok(CertificateOverview { from, until })
}

/// Opens and locks the data directory.
fn open_directory(config: &NodeConfig) -> Result<OsDisk, NodeError> {
    // A path that is wrong is refused, not made.
    if !config.new_node && matches!(config.data.try_exists(), Ok(false)) {
        let empty = RecoveryError::Empty(config.node);
        return Err(NodeError::recovery(&config.data, empty));
    }
    OsDisk::open(&config.data).map_err(|error| NodeError::Foreign {
        path: config.data.clone(),
        why: error.to_string(),
    })
}

/// Restores the node, and moves its log to a thread. `report` is called from there.
fn open_storage(
    config: &NodeConfig,
    settings: &NodeSettings,
    disk: &OsDisk,
    clock: Clock,
    report: impl Fn(LogEvent) + Send + 'static,
) -> Result<(trilemma_node::Node<ReplyTo>, LogWriter), NodeError> {
    let storage = Storage {
        disk,
        is_new: config.new_node,
        random: &mut crate::random_u64,
        tune: &Keys(config),
    };
    let Recovered { node, log, .. } =
        recover(settings, clock.now(), storage).map_err(|error| NodeError::recovery(&config.data, error))?;
    let writer = LogWriter::spawn(log, disk.clone(), node.waits_for_written(), report).map_err(|source| {
        let source = LogError::Io {
            file: "log thread".into(),
            action: "start",
            source,
        };
        NodeError::Log {
            path: config.data.clone(),
            source,
        }
    })?;
    Ok((node, writer))
}

fn listen(
    config: &NodeConfig,
    settings: &NodeSettings,
    (timing, reserved): (Timing, Reserved),
    process: ProcessId,
    admitted: &Admitted,
) -> Result<(Transport, Events), NodeError> {
    let table_text = table_text(&settings.keyspaces);
    let transport = TransportConfig {
        cluster: settings.cluster.clone(),
        process,
        admit: admitted.admit(),
        listen: config.listen,
        peers: config.peers.clone(),
        identity: config.identity.clone(),
        table_digest: table_digest(&table_text),
        table_text,
        timing,
        limits: trilemma_transport::Limits::default(),
    };
    Transport::start(transport, reserved).map_err(|error| config.transport_error(error))
}
