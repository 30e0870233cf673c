//! Runs one [`Node`]: brings it what happens, and carries out what it wants.
//!
//! A turn drains what has come (requests, frames, completions of the log), then hands *all* records to the log as one
//! batch, *all* messages to one peer as one frame a lane, and the answers to their callers. It runs on the node's own
//! thread, in the same single-threaded runtime as the QUIC endpoint, so that a message crosses no thread between the
//! socket and the protocol. Nothing is decided here.

mod answers;
mod disk;
mod members;
mod overview;
mod refusals;
mod stopwatch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use trilemma_client::wire::{CertificateOverview, ClientReply, ClientRequest, LoadOverview};
use trilemma_core::{Instant, Lane, NodeId, Now, Reason, WallTime, codec};
use trilemma_node::frame::Coalescer;
use trilemma_node::{Destination, Effects, LinkId, Node, Observer, Peers, ReaderEvent, SnapshotJob, WatchId};
use trilemma_storage::snapshot::Summary;
use trilemma_storage::{LogEvent, LogWriter, OsDisk, SnapshotError, snapshot};
use trilemma_transport::{Admit, ClientRef, Event, Events, Transport};

pub(crate) use self::answers::ReplyTo;
use self::answers::send;
pub(crate) use self::disk::DiskWatch;
pub(crate) use self::overview::keyspace_overview;
pub(crate) use self::refusals::Refusals;
pub(crate) use self::stopwatch::Stopwatch;
use crate::error::NodeError;
use crate::inbox::{Envelope, Stop};
use crate::paced::{Pace, PacedDisk};
use crate::readers::Readers;

/// Inputs of one kind handled in one turn, so that none starves the others and pings leave in time.
const TURN_INPUTS_MAX: usize = 1024;
/// Bytes of frames, and of requests, after which a turn takes no more of them. What is read of them is written again, into a
/// record and messages: some milliseconds of work.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Longest time a client may ask a node to work on one operation.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A turn that takes longer is a long one.
const LONG_TURN: Duration = Duration::from_millis(20);
/// How long the end of the log and of a snapshot that is being written are waited for when the node stops.
const LAST_SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether the latter has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        // Starts at one second, so that instants shortly before the start can be expressed.
        let nanos = 1_000_000_000 + u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            instant: Instant::from_nanos(nanos),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Who this node is, and what the transport says of the others.
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) peers: BTreeMap<NodeId, SocketAddr>,
    pub(crate) refused: BTreeMap<NodeId, String>,
    pub(crate) certificate: CertificateOverview,
}

/// What the node keeps of its peers, as the endpoint sees it: its tasks ask after each hello.
#[derive(Clone)]
pub(crate) struct Admitted(Arc<Mutex<Peers>>);

impl Admitted {
    pub(crate) fn new(peers: &Peers) -> Self {
        Self(Arc::new(Mutex::new(peers.clone())))
    }

    /// The question that the endpoint asks.
    pub(crate) fn admit(&self) -> Admit {
        let peers = Arc::clone(&self.0);
        Admit::new(move |process| {
            let peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.admit(process).map_err(|refused| refused.to_string())
        })
    }

    fn update(&self, peers: &Peers) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.changes() != peers.changes() {
            shared.clone_from(peers);
        }
    }
}

/// See the module.
pub(crate) struct Driver {
    pub(crate) clock: Clock,
    pub(crate) node: Node<ReplyTo>,
    pub(crate) effects: Effects<ReplyTo>,
    pub(crate) readers: Readers,
    pub(crate) coalescer: Coalescer,
    pub(crate) transport: Transport,
    pub(crate) log: LogWriter,
    pub(crate) disk: OsDisk,
    pub(crate) identity: Identity,
    /// What the endpoint admits peers by.
    pub(crate) admitted: Admitted,
    /// Where the thread that writes a snapshot reports.
    pub(crate) snapshot_done: mpsc::UnboundedSender<Result<Summary, SnapshotError>>,
    /// The thread that writes a snapshot, or has written the last one.
    pub(crate) snapshot_thread: Option<std::thread::JoinHandle<()>>,
    /// How it leaves time to the node.
    pub(crate) snapshot_pace: Pace,
    /// Frames that the transport did not take (peer away or queue full), since the start.
    pub(crate) frames_dropped: u64,
    /// What is counted here: turns, what waits, answers refused.
    pub(crate) load: LoadOverview,
    pub(crate) refusals: Refusals,
    pub(crate) disk_watch: DiskWatch,
    pub(crate) next_look: Instant,
    pub(crate) stopwatch: Stopwatch,
}

/// Where a driver's inputs come from.
pub(crate) struct Sources {
    pub(crate) inbox: mpsc::Receiver<Envelope>,
    pub(crate) stop: mpsc::UnboundedReceiver<(Stop, oneshot::Sender<()>)>,
    pub(crate) readers: mpsc::UnboundedReceiver<(WatchId, ReaderEvent)>,
    pub(crate) events: Events,
    pub(crate) log: mpsc::UnboundedReceiver<LogEvent>,
    pub(crate) snapshots: mpsc::UnboundedReceiver<Result<Summary, SnapshotError>>,
}

/// What a turn begins with.
enum First {
    Log(Option<LogEvent>),
    Snapshot(Result<Summary, SnapshotError>),
    Event(Option<Event>),
    Envelope(Envelope),
    Reader(WatchId, ReaderEvent),
    Wake,
}

/// Why a turn was the last.
enum End {
    /// `None` if everybody who could stop the node has gone: it stops as if killed.
    Stopped(Option<(Stop, oneshot::Sender<()>)>),
    Failed(NodeError),
}

impl Driver {
    /// Runs until the node is stopped or its storage fails. Says once that it serves. Before a clean stop, keyspaces hand
    /// over what others would have to wait for.
    pub(crate) async fn run(mut self, mut sources: Sources, serves: impl FnOnce()) -> Result<(), NodeError> {
        self.node.start(self.clock.now());
        self.finish_turn()?;
        let mut serves = Some(serves);
        // A clean stop that was asked for, while keyspaces hand over.
        let mut stopping = None;
        loop {
            if serves.is_some()
                && self.node.is_caught_up(self.clock.now())
                && let Some(serves) = serves.take()
            {
                serves();
            }
            if !self.node.is_handing_over()
                && let Some(asked) = stopping.take()
            {
                return self.stop(Some(asked), sources.log).await;
            }
            let turned = match self.turn(&mut sources).await {
                Err(End::Stopped(Some((Stop::Clean, done)))) => {
                    stopping = Some((Stop::Clean, done));
                    self.node.on_stopping(self.clock.now());
                    self.finish_turn().map_err(End::Failed)
                }
                turned => turned,
            };
            match turned {
                Ok(()) => {}
                Err(End::Failed(error)) => {
                    self.say_goodbye(&error.reason());
                    self.transport.close().await;
                    if !self.log.abort() {
                        tracing::error!(
                            "the log's thread still waits for the disk; the directory stays locked"
                        );
                    }
                    return Err(error);
                }
                Err(End::Stopped(asked)) => return self.stop(asked, sources.log).await,
            }
        }
    }

    async fn turn(&mut self, sources: &mut Sources) -> Result<(), End> {
        let timeout = self.wake_at().since(self.clock.now().instant);
        let first = tokio::select! {
            biased;
            asked = sources.stop.recv() => return Err(End::Stopped(asked)),
            event = sources.log.recv() => First::Log(event),
            Some(result) = sources.snapshots.recv() => First::Snapshot(result),
            event = sources.events.recv() => First::Event(event),
            Some(envelope) = sources.inbox.recv() => First::Envelope(envelope),
            Some((id, event)) = sources.readers.recv() => First::Reader(id, event),
            () = tokio::time::sleep(timeout) => First::Wake,
        };
        self.stopwatch.start();
        self.note_waiting(sources);
        match first {
            First::Log(event) => self.on_log(event)?,
            First::Snapshot(result) => self.node.on_snapshot(result),
            First::Event(Some(event)) => drop(self.on_event(event)?),
            First::Event(None) => return Err(End::Failed(NodeError::Network)),
            First::Envelope(envelope) => self.on_envelope(envelope),
            First::Reader(id, event) => self.on_reader(id, event),
            First::Wake => {}
        }
        self.stopwatch.passed("first input");
        self.drain(sources)?;
        self.finish_turn().map_err(End::Failed)?;
        self.look_at_disk()?;
        self.note_turn();
        // The endpoint's tasks share this thread: let them send what was just queued and read what has come.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Takes what has come, peers before clients, and their large requests last: some of each in every turn.
    fn drain(&mut self, sources: &mut Sources) -> Result<(), End> {
        for _ in 0..TURN_INPUTS_MAX {
            let Ok(event) = sources.log.try_recv() else { break };
            self.on_log(Some(event))?;
        }
        self.stopwatch.passed("log");
        self.take(|| sources.events.try_peer())?;
        self.stopwatch.passed("peers");
        self.take(|| sources.events.try_client())?;
        self.take(|| sources.events.try_large())?;
        self.stopwatch.passed("clients");
        for _ in 0..TURN_INPUTS_MAX {
            let Ok(envelope) = sources.inbox.try_recv() else {
                break;
            };
            self.on_envelope(envelope);
        }
        for _ in 0..TURN_INPUTS_MAX {
            let Ok((id, event)) = sources.readers.try_recv() else {
                break;
            };
            self.on_reader(id, event);
        }
        Ok(())
    }

    /// Takes as much as a turn may of what the transport has brought.
    fn take(&mut self, mut next: impl FnMut() -> Option<Event>) -> Result<(), End> {
        let mut bytes = 0;
        for _ in 0..TURN_INPUTS_MAX {
            if bytes >= TURN_BYTES_MAX {
                break;
            }
            let Some(event) = next() else { break };
            bytes += self.on_event(event)?;
        }
        Ok(())
    }

    fn note_waiting(&mut self, sources: &Sources) {
        let (peers, clients) = sources.events.waiting();
        self.load.peer_events = peers as u64;
        self.load.client_events = clients as u64;
        self.load.local_requests = sources.inbox.len() as u64;
    }

    fn note_turn(&mut self) {
        let (took, part, of_it) = self.stopwatch.end();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let load = &mut self.load;
        load.turns += 1;
        load.turn_micros += micros;
        if took > LONG_TURN && micros > load.turn_micros_max {
            tracing::info!(?took, part, ?of_it, "the longest turn so far");
        }
        load.turn_micros_max = load.turn_micros_max.max(micros);
        load.turns_long += u64::from(took > LONG_TURN);
    }

    /// Ends the node if its disk hangs.
    fn look_at_disk(&mut self) -> Result<(), End> {
        let now = self.clock.now().instant;
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + disk::LOOK_INTERVAL;
        let progress = self.node.progress();
        let waits = progress.durable < self.node.last() && self.node.admission().no_space().is_none();
        match self.disk_watch.look(progress, self.disk.operations(), waits) {
            None => Ok(()),
            Some(time) => {
                let why = format!(
                    "the disk has finished no write and no sync for {} s",
                    time.as_secs()
                );
                Err(End::Failed(NodeError::Storage { why }))
            }
        }
    }

    fn wake_at(&self) -> Instant {
        self.node.wake_at().min(self.next_look)
    }

    /// `None`: the log's thread has ended without a word, which only a broken invariant makes it do.
    fn on_log(&mut self, event: Option<LogEvent>) -> Result<(), End> {
        let now = self.clock.now();
        let event = event.ok_or(End::Failed(NodeError::Panicked))?;
        self.node
            .on_log(now, event)
            .map_err(|error| End::Failed(NodeError::log(error)))
    }

    /// Takes what the transport brings; returns its bytes.
    fn on_event(&mut self, event: Event) -> Result<usize, End> {
        match event {
            Event::Frame { from, payload, .. } => {
                let bytes = payload.len();
                self.node.on_frame(self.clock.now(), &from, payload);
                return Ok(bytes);
            }
            Event::ClientRequest {
                client,
                request,
                payload,
            } => {
                self.on_client(client, request, &payload);
                return Ok(payload.len());
            }
            Event::ClientGone { client } => {
                for id in self.readers.client_gone(&client) {
                    self.node.on_reader(id, ReaderEvent::Gone);
                }
                self.node.on_link(LinkId(client.id()), true);
            }
            Event::ClientRoom { client } => {
                self.readers.has_room(&client);
                self.node.on_link(LinkId(client.id()), true);
            }
            Event::PeerUp { process, address } => {
                tracing::info!(peer = %process, %address, "peer connected");
                self.identity.refused.remove(&process.node);
                self.refusals.connected(process.node);
            }
            Event::PeerDown { node, reason } => tracing::info!(peer = %node, %reason, "peer disconnected"),
            Event::Refused {
                node,
                address,
                reason,
            } => {
                if self
                    .refusals
                    .is_news(std::time::Instant::now(), node, address, &reason)
                {
                    tracing::warn!(peer = ?node, %address, %reason, "connection refused");
                } else {
                    tracing::debug!(peer = ?node, %address, %reason, "connection refused");
                }
                if let Some(node) = node {
                    self.identity.refused.insert(node, reason.to_string());
                }
            }
            Event::Ended => return Err(End::Failed(NodeError::Network)),
            _ => {}
        }
        Ok(0)
    }

    fn on_envelope(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Propose {
                keyspace,
                request,
                timeout,
                asked,
                reply,
            } => {
                let timeout = timeout.saturating_sub(asked.elapsed());
                let reply_to = ReplyTo::Local(reply);
                self.node
                    .on_request(self.clock.now(), keyspace, timeout, request, reply_to);
            }
            Envelope::Watch {
                id,
                keyspace,
                spec,
                items,
            } => {
                if let Some(destination) = self.readers.add_local(id, items) {
                    self.node.on_watch(id, keyspace, spec, destination);
                }
            }
            Envelope::Overview { reply } => {
                // The caller may have gone away.
                let _gone = reply.send(self.overview());
            }
            Envelope::Members { reply } => {
                let _gone = reply.send(self.members());
            }
        }
    }

    fn on_reader(&mut self, id: WatchId, event: ReaderEvent) {
        if event == ReaderEvent::Gone {
            self.readers.remove(id);
        }
        self.node.on_reader(id, event);
    }

    /// Takes one request of a client.
    fn on_client(&mut self, client: ClientRef, number: u64, payload: &[u8]) {
        match codec::decode::<ClientRequest>(payload) {
            Ok(ClientRequest::Overview | ClientRequest::Members | ClientRequest::Ask { .. })
                if client.is_of_watches() =>
            {
                let why = "a stream of watches takes watches alone".into();
                send(&client, number, &ClientReply::Bad(why));
            }
            Ok(ClientRequest::Overview) => {
                let overview = Box::new(self.overview());
                send(&client, number, &ClientReply::Overview(overview));
            }
            Ok(ClientRequest::Members) => {
                let members = self.members().map(Box::new);
                send(&client, number, &ClientReply::Members(members));
            }
            Ok(ClientRequest::Ask {
                keyspace,
                timeout_ms,
                request,
            }) => {
                let timeout = Duration::from_millis(timeout_ms.into()).min(TIMEOUT_MAX);
                let reply_to = ReplyTo::Client(client, number);
                self.node
                    .on_request(self.clock.now(), keyspace, timeout, request, reply_to);
            }
            Ok(ClientRequest::Watch { keyspace, spec, room }) => {
                if !client.is_of_watches() {
                    let why = "a watch has a stream of its own".into();
                    return send(&client, number, &ClientReply::Bad(why));
                }
                let Some((id, link)) = self.readers.add_client(client.clone(), number) else {
                    let why = format!("watch {number} is open already");
                    return send(&client, number, &ClientReply::Bad(why));
                };
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                self.node.on_watch(id, keyspace, spec, Destination { link, room });
            }
            // It may have ended meanwhile.
            Ok(ClientRequest::Room { bytes }) => {
                if let Some(id) = self.readers.of_client(&client, number) {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    self.on_reader(id, ReaderEvent::Room(bytes));
                }
            }
            Ok(ClientRequest::Cancel) => {
                if let Some(id) = self.readers.of_client(&client, number) {
                    self.on_reader(id, ReaderEvent::Gone);
                }
            }
            Err(error) => {
                let why = format!("request not understood: {error}");
                send(&client, number, &ClientReply::Bad(why));
            }
        }
    }

    /// Ends a turn and carries out what it wants, in the order of [`Effects`].
    fn finish_turn(&mut self) -> Result<(), NodeError> {
        let now = self.clock.now();
        self.stopwatch.passed("requests of this process");
        self.node.turn(now, &mut self.effects, &mut self.stopwatch);
        self.stopwatch.passed("checks");
        self.admitted.update(self.node.peers());
        self.carry_out()?;
        let node = &mut self.node;
        self.readers.look(|link| node.on_link(link, false));
        self.stopwatch.passed("readers");
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), NodeError> {
        let Self {
            effects, coalescer, ..
        } = self;
        if !effects.batch.records.is_empty() {
            let batch = std::mem::take(&mut effects.batch);
            self.log.submit(batch).map_err(NodeError::log)?;
            assert_eq!(self.log.last(), self.node.last(), "the node alone submits");
        }
        self.stopwatch.passed("records");
        let (transport, dropped) = (&self.transport, &mut self.frames_dropped);
        let mut send = |to, lane, frame| *dropped += u64::from(!transmit(transport, to, lane, frame));
        coalescer.pack(effects.messages.drain(..), &mut send);
        self.stopwatch.passed("messages");
        for (reply_to, reply) in effects.replies.drain(..) {
            self.load.answers_refused += u64::from(reply_to.answer(reply));
        }
        for (id, item) in effects.items.drain(..) {
            self.readers.give(id, item);
        }
        self.stopwatch.passed("answers and items");
        if let Some(job) = effects.snapshot.take() {
            self.write_snapshot(job);
        }
        if !self.effects.discarded.is_empty() {
            let discarded = std::mem::take(&mut self.effects.discarded);
            let freeing = std::thread::Builder::new().name("trilemma-free".into());
            if let Err(error) = freeing.spawn(move || drop(discarded)) {
                tracing::debug!(%error, "what is not needed any more was freed by the node itself");
            }
        }
        if let Some(up_to) = self.effects.release.take() {
            self.log.release(up_to).map_err(NodeError::log)?;
        }
        Ok(())
    }

    fn write_snapshot(&mut self, job: SnapshotJob) {
        let SnapshotJob { log_id, at, sections } = job;
        let disk = PacedDisk::new(self.disk.clone(), self.snapshot_pace.clone());
        let done = self.snapshot_done.clone();
        let write = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                snapshot::write(&disk, log_id, at, sections)
            }));
            // The directory is locked while this handle lives, and the next start may come at once.
            drop(disk);
            let result = result.unwrap_or(Err(SnapshotError::Interrupted));
            // The driver has ended: the snapshot is found at the next start all the same.
            let _ended = done.send(result);
        };
        match std::thread::Builder::new()
            .name("trilemma-snapshot".into())
            .spawn(write)
        {
            Ok(thread) => self.snapshot_thread = Some(thread),
            // The log keeps growing, and the next one is tried after as much again.
            Err(source) => self.node.on_snapshot(Err(SnapshotError::Io {
                file: "snapshot thread".into(),
                action: "start",
                source,
            })),
        }
    }

    /// Answers everybody who waits.
    fn say_goodbye(&mut self, reason: &Reason) {
        self.node.close(reason, &mut self.effects);
        for (reply_to, reply) in self.effects.replies.drain(..) {
            reply_to.answer(reply);
        }
        for (id, item) in self.effects.items.drain(..) {
            self.readers.give(id, item);
        }
    }

    async fn stop(
        mut self,
        asked: Option<(Stop, oneshot::Sender<()>)>,
        mut log_events: mpsc::UnboundedReceiver<LogEvent>,
    ) -> Result<(), NodeError> {
        self.snapshot_pace.hurry();
        let (how, done) = asked.map_or((Stop::Abort, None), |(how, done)| (how, Some(done)));
        let result = match how {
            Stop::Clean => {
                self.say_goodbye(&Reason::Stopping);
                // The last sync may take long, and what was just said must leave meanwhile.
                self.log.begin_close();
                self.transport.close().await;
                join_snapshot(self.snapshot_thread).await;
                let ended = async { while log_events.recv().await.is_some() {} };
                match tokio::time::timeout(LAST_SYNC_TIMEOUT, ended).await {
                    // The thread is at its end.
                    Ok(()) => self.log.close().map_err(NodeError::log),
                    Err(_elapsed) => Err(NodeError::Storage {
                        why: format!("the disk did not finish the last sync within {LAST_SYNC_TIMEOUT:?}"),
                    }),
                }
            }
            Stop::Abort => {
                if !self.log.abort() {
                    tracing::error!("the log's thread still waits for the disk; the directory stays locked");
                }
                join_snapshot(self.snapshot_thread).await;
                Ok(())
            }
        };
        if let Some(done) = done {
            // The caller may have gone away.
            let _gone = done.send(());
        }
        result
    }
}

/// Waits for the thread that writes a snapshot: it has a handle on the directory, which the next process may want to lock
/// at once.
async fn join_snapshot(thread: Option<std::thread::JoinHandle<()>>) {
    let Some(thread) = thread else {
        return;
    };
    // No thread is made to wait for this one: the system may have none to give.
    let ended = async {
        while !thread.is_finished() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(LAST_SYNC_TIMEOUT, ended).await.is_err() {
        tracing::error!("a snapshot is still being written; the directory stays locked");
    } else if thread.join().is_err() {
        tracing::error!("the thread that wrote a snapshot ended by a panic");
    }
}

/// Sends a frame; `false` if it was dropped. A lost frame is a lost message, which every protocol expects.
fn transmit(transport: &Transport, to: NodeId, lane: Lane, frame: Bytes) -> bool {
    let lane = match lane {
        Lane::Control => trilemma_transport::Lane::Control,
        Lane::Log => trilemma_transport::Lane::Log,
        Lane::Bulk => trilemma_transport::Lane::Bulk,
        Lane::Datagram => trilemma_transport::Lane::Datagram,
    };
    match transport.send(to, lane, frame) {
        Ok(()) => true,
        Err(error) => {
            tracing::trace!(%to, %error, "a frame was dropped");
            false
        }
    }
}
