//! The node: inputs in, one turn at a time, effects out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::host::{Appended, GroupInput, Outgoing};
use trilemma_core::liveness::{Beat, Liveness};
use trilemma_core::pending::{Pending, PendingKind};
use trilemma_core::protocol::Force;
use trilemma_core::{
    Applied, Incarnation, Instant, KeyspaceId, Lane, NodeId, Now, PeerView, Proposal, Reason, Reply, Request,
    WatchSpec, codec,
};
use trilemma_storage::{Batch, LogError, LogEvent, LogSeq, Progress, SnapshotError};

use crate::admission::Admission;
use crate::config::{NODE_RECORDS, NodeSettings};
use crate::engine::Engine;
use crate::frame::take_item;
use crate::record::{NodeRecord, section};
use crate::recovery::RECORD_HEADER_BYTES;
use crate::replica::Replica;
use crate::snapshots::{SnapshotJob, Snapshots};
use crate::watchers::{ReaderEvent, Sent, WatchId};

/// Rounds of wakes that protocols ask for *now*, within one turn.
const WAKE_ROUNDS_MAX: usize = 4;
/// How often live status is computed.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);
/// How much later than its deadline the node answers for a protocol that did not.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(50);
/// The kind's name of the node's own messages, for traces and the simulator's filters.
pub const PING: &str = "ping";

/// One message for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The keyspace; [`NODE_RECORDS`] for the node's own.
    pub keyspace: KeyspaceId,
    /// The receiver.
    pub to: NodeId,
    /// The lane.
    pub lane: Lane,
    /// The kind's name.
    pub kind: &'static str,
    /// The encoded message.
    pub bytes: Bytes,
}

/// What a turn wants done, in the order of the fields. `W` says where an answer goes.
#[derive(Debug)]
pub struct Effects<W> {
    /// Records for the log; positions follow [`Node::last`] as it was before the turn.
    pub batch: Batch,
    /// Messages for peers; any of them may be lost.
    pub messages: Vec<Envelope>,
    /// Answers to requests.
    pub replies: Vec<(W, Reply)>,
    /// Items for the readers of watches, which then must say when they have room again.
    pub items: Vec<Sent>,
    /// A snapshot to be written in the background.
    pub snapshot: Option<SnapshotJob>,
    /// The log may recycle what stands up to here.
    pub release: Option<LogSeq>,
}

impl<W> Default for Effects<W> {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            messages: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            snapshot: None,
            release: None,
        }
    }
}

/// Looks on while a turn is made: for invariants. The default looks at nothing.
pub trait Observer {
    /// A keyspace's record has got this place in the log.
    fn appended(&mut self, _replica: usize, _seq: LogSeq, _bytes: &Bytes) {}
    /// The steps of a keyspace are over for this turn: whether its state has jumped, and its changes after that.
    fn stepped(&mut self, _replica: usize, _engine: &Engine, _reset: Option<u64>, _applied: &[Applied]) {}
}

impl Observer for () {}

/// What a node is made of.
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a NodeSettings,
    pub(crate) incarnation: Incarnation,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) last: LogSeq,
    pub(crate) progress: Progress,
    pub(crate) snapshots: Snapshots,
    pub(crate) record: NodeRecord,
}

/// One node. See the crate.
pub struct Node<W> {
    node: NodeId,
    incarnation: Incarnation,
    replicas: Vec<Replica>,
    by_id: BTreeMap<KeyspaceId, usize>,
    pending: Pending<W>,
    watches: BTreeMap<WatchId, usize>,
    /// Watches that open at the end of the turn.
    opening: Vec<(WatchId, usize, WatchSpec)>,
    liveness: Liveness,
    view: PeerView,
    admission: Admission,
    /// The last record given to the log.
    last: LogSeq,
    progress: Progress,
    snapshots: Snapshots,
    record: NodeRecord,
    next_status: Instant,
    /// Replicas that were stepped in this turn.
    touched: Vec<usize>,
    /// Answers that need no protocol.
    replies: Vec<(W, Reply)>,
    items: Vec<Sent>,
    release: Option<LogSeq>,
}

impl<W> Node<W> {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let Parts {
            settings,
            incarnation,
            replicas,
            last,
            progress,
            snapshots,
            record,
        } = parts;
        let by_id = replicas.iter().enumerate();
        let peers = settings.members.iter().filter(|peer| *peer != settings.node);
        Self {
            node: settings.node,
            incarnation,
            by_id: by_id.map(|(index, replica)| (replica.id(), index)).collect(),
            replicas,
            pending: Pending::default(),
            watches: BTreeMap::new(),
            opening: Vec::new(),
            liveness: Liveness::new(settings.tuning.liveness, incarnation, peers),
            view: PeerView::default(),
            admission: Admission::new(settings.tuning.limits),
            last,
            progress,
            snapshots,
            record,
            next_status: Instant::ZERO,
            touched: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            release: None,
        }
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// The incarnation of its process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The keyspaces, by name.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Where a keyspace is among [`Node::replicas`].
    #[must_use]
    pub fn find(&self, keyspace: KeyspaceId) -> Option<usize> {
        self.by_id.get(&keyspace).copied()
    }

    /// What may wait, and what was refused.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Requests whose answer is owed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Which peers can be reached.
    #[must_use]
    pub fn view(&self) -> &PeerView {
        &self.view
    }

    /// The last record given to the log.
    #[must_use]
    pub fn last(&self) -> LogSeq {
        self.last
    }

    /// How far the log has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether some keyspace waits for records to be written, and not for the disk: see
    /// [`trilemma_storage::WriteQueue::new`].
    #[must_use]
    pub fn waits_for_written(&self) -> bool {
        self.replicas.iter().any(Replica::waits_for_written)
    }

    /// The first input: state is loaded, peers may be talked to.
    pub fn start(&mut self, now: Now) {
        for index in 0..self.replicas.len() {
            self.step(index, now, GroupInput::Start);
        }
    }

    /// A request of a client. It is answered once, within `timeout` and a grace.
    pub fn on_request(
        &mut self,
        now: Now,
        keyspace: KeyspaceId,
        timeout: Duration,
        request: Request,
        reply_to: W,
    ) {
        let kind = PendingKind::of(&request);
        let (is_write, bytes) = match &request {
            Request::Write { command, .. } => (true, command.size()),
            Request::Read(_) | Request::Outcome { .. } => (false, 0),
        };
        let refusal = match (&request, self.find(keyspace)) {
            (_, None) => Err(self.no_such(keyspace)),
            (Request::Write { command, .. }, Some(index)) => command
                .validate()
                .map(|()| index)
                .map_err(|refusal| refusal.reason),
            (Request::Read(_) | Request::Outcome { .. }, Some(index)) => Ok(index),
        };
        let refusal = refusal.and_then(|index| {
            let (waiting, held) = (self.pending.len(), self.pending.bytes());
            match self.admission.refusal(is_write, waiting, held + bytes) {
                Some(reason) => Err(reason),
                None => Ok(index),
            }
        });
        match refusal {
            Err(reason) => self.replies.push((reply_to, kind.refused(reason))),
            Ok(index) => {
                let deadline = now.instant + timeout;
                let ticket = self.pending.add(reply_to, kind, deadline, bytes);
                let proposal = Proposal {
                    ticket,
                    deadline,
                    request,
                };
                self.step(index, now, GroupInput::Propose(proposal));
            }
        }
    }

    fn no_such(&self, keyspace: KeyspaceId) -> Reason {
        let names: Vec<&str> = self.replicas.iter().map(Replica::name).collect();
        Reason::NoSuchKeyspace {
            name: keyspace.to_string(),
            configured: names.join(", "),
        }
    }

    /// A frame of a peer, which the host knows to be `from` it.
    pub fn on_frame(&mut self, now: Now, from: NodeId, mut frame: Bytes) {
        loop {
            match take_item(&mut frame) {
                Ok(Some((NODE_RECORDS, bytes))) => self.on_ping(now, from, &bytes),
                Ok(Some((keyspace, bytes))) => self.on_message(now, from, keyspace, bytes),
                Ok(None) => return,
                Err(why) => {
                    tracing::warn!(%from, why, "a malformed frame; the rest of it is dropped");
                    return;
                }
            }
        }
    }

    fn on_message(&mut self, now: Now, from: NodeId, keyspace: KeyspaceId, bytes: Bytes) {
        let Some(index) = self.find(keyspace) else {
            tracing::warn!(%from, %keyspace, "a message for a keyspace that is not configured here");
            return;
        };
        if !self.admission.drops_message() {
            self.step(index, now, GroupInput::Receive { from, bytes });
        }
    }

    fn on_ping(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        match codec::decode::<Beat>(bytes) {
            Ok(ping) => {
                if let Some(view) = self.liveness.receive(now.instant, from, ping) {
                    self.on_view(now, view);
                }
            }
            Err(error) => tracing::warn!(%from, %error, "a malformed ping is dropped"),
        }
    }

    fn on_view(&mut self, now: Now, view: PeerView) {
        self.next_status = now.instant;
        for index in 0..self.replicas.len() {
            self.step(index, now, GroupInput::Peers(view.clone()));
        }
        self.view = view;
    }

    /// What the log reports. `Err` is the end of the node: nobody can say what the disk holds.
    pub fn on_log(&mut self, now: Now, event: LogEvent) -> Result<(), LogError> {
        match event {
            LogEvent::Failed(error) => return Err(error),
            LogEvent::Space { full } => self.admission.set_no_space(full),
            LogEvent::Progress(progress) => {
                assert!(
                    progress.durable <= progress.written && progress.written <= self.last,
                    "the log reports {progress:?} of {} records",
                    self.last
                );
                self.progress = progress;
                for index in 0..self.replicas.len() {
                    if self.replicas[index].is_writing() {
                        let freed = self.replicas[index].persisted(now, progress);
                        self.admission.persisted(freed);
                        self.touched.push(index);
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens a watch at the end of this turn, when all changes of the turn are known.
    pub fn on_watch(&mut self, id: WatchId, keyspace: KeyspaceId, spec: WatchSpec) {
        let Some(index) = self.find(keyspace) else {
            let reason = self.no_such(keyspace);
            self.items.push((id, Err(reason.into())));
            return;
        };
        let opening = self.opening.iter().filter(|(_, at, _)| *at == index).count();
        let limit = self.admission.limits().watchers_max;
        if self.replicas[index].watchers.len() + opening >= limit {
            let what = format!("{limit} watches of this keyspace are open at this node already");
            self.items.push((id, Err(Reason::Overloaded { what }.into())));
            return;
        }
        self.opening.push((id, index, spec));
    }

    /// The reader of a watch has room again, or has gone.
    pub fn on_reader(&mut self, now: Now, id: WatchId, event: ReaderEvent) {
        if event == ReaderEvent::Gone {
            self.opening.retain(|(opening, _, _)| *opening != id);
        }
        let Some(index) = self.watches.get(&id).copied() else {
            return;
        };
        self.replicas[index].watchers.on_reader(now.instant, id, event);
        if event == ReaderEvent::Gone {
            self.watches.remove(&id);
        }
    }

    /// The snapshot job that the node gave out has ended.
    pub fn on_snapshot(&mut self, result: Result<(), SnapshotError>) {
        self.release = self.release.max(self.snapshots.on_written(result));
    }

    /// Has a snapshot made as soon as possible, however short the log is.
    pub fn request_snapshot(&mut self) {
        self.snapshots.request();
    }

    /// Steps one keyspace.
    fn step(&mut self, index: usize, now: Now, input: GroupInput) {
        self.replicas[index].step(now, input);
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
    }

    /// When the node wants its next turn, if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        if self.replicas.iter().any(|replica| replica.watchers.is_pumpable()) {
            return Instant::ZERO;
        }
        let engines = self.replicas.iter().map(|replica| replica.engine.wake_at());
        engines
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.liveness.wake_at())
            .min(self.pending.wake_at(DEADLINE_GRACE))
            .min(self.next_status)
    }

    /// Ends a turn: what the inputs since the last turn have led to.
    pub fn turn(&mut self, now: Now, effects: &mut Effects<W>, observer: &mut impl Observer) {
        self.wake(now);
        self.ping(now, effects);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        self.append(&touched, effects, observer);
        self.transmit(&touched, effects);
        self.publish(&touched, observer);
        self.answer(&touched, effects);
        self.expire(now, effects);
        touched.clear();
        self.touched = touched;
        self.open_watches(now);
        self.pump_watches(now, effects);
        self.refresh_status(now);
        self.snapshot(effects);
        self.check();
    }

    /// Wakes the keyspaces that are due.
    fn wake(&mut self, now: Now) {
        for _ in 0..WAKE_ROUNDS_MAX {
            let mut any = false;
            for index in 0..self.replicas.len() {
                if self.replicas[index].engine.wake_at() <= now.instant {
                    self.step(index, now, GroupInput::Wake);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Pings peers if that is due.
    fn ping(&mut self, now: Now, effects: &mut Effects<W>) {
        let messages = &mut effects.messages;
        let view = self.liveness.tick(now.instant, |to, ping| {
            messages.push(Envelope {
                keyspace: NODE_RECORDS,
                to,
                lane: Lane::Control,
                kind: PING,
                bytes: codec::encode(&ping),
            });
        });
        if let Some(view) = view {
            self.on_view(now, view);
            self.wake(now);
        }
    }

    /// Gathers all records of this turn into one batch for the log.
    fn append(&mut self, touched: &[usize], effects: &mut Effects<W>, observer: &mut impl Observer) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            for Appended { seq, force, bytes } in std::mem::take(&mut replica.output.records) {
                self.last = self.last.plus(1);
                observer.appended(*index, self.last, &bytes);
                let cost = replica.appended(seq, self.last, bytes.len());
                self.admission.appended(cost);
                self.snapshots.appended(bytes.len() as u64 + RECORD_HEADER_BYTES);
                effects.batch.forced |= force == Force::Now;
                effects.batch.records.push((replica.id(), bytes));
            }
        }
    }

    /// Gathers all messages of this turn.
    fn transmit(&mut self, touched: &[usize], effects: &mut Effects<W>) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            let keyspace = replica.id();
            let envelope = |Outgoing {
                                to,
                                lane,
                                kind,
                                bytes,
                            }| Envelope {
                keyspace,
                to,
                lane,
                kind,
                bytes,
            };
            effects
                .messages
                .extend(replica.output.sends.drain(..).map(envelope));
        }
    }

    /// Shows watchers the changes.
    fn publish(&mut self, touched: &[usize], observer: &mut impl Observer) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            let reset = replica.output.reset.take();
            let applied = std::mem::take(&mut replica.output.applied);
            observer.stepped(*index, &replica.engine, reset, &applied);
            if let Some(position) = reset {
                replica.watchers.reset(position);
            }
            for applied in applied {
                replica.watchers.publish(applied);
            }
        }
    }

    /// Gives callers their answers.
    fn answer(&mut self, touched: &[usize], effects: &mut Effects<W>) {
        effects.replies.append(&mut self.replies);
        for index in touched {
            for (ticket, reply) in self.replicas[*index].output.replies.drain(..) {
                // An answer after the backstop's is dropped.
                if let Some(reply_to) = self.pending.answered(ticket, &reply) {
                    effects.replies.push((reply_to, reply));
                }
            }
        }
    }

    /// Answers what is overdue: the backstop behind protocols, which answer every proposal by its deadline.
    fn expire(&mut self, now: Now, effects: &mut Effects<W>) {
        while let Some(expired) = self.pending.take_expired(now.instant, DEADLINE_GRACE) {
            effects.replies.push(expired);
        }
    }

    fn open_watches(&mut self, now: Now) {
        for (id, index, spec) in std::mem::take(&mut self.opening) {
            self.watches.insert(id, index);
            self.replicas[index].watchers.open(now.instant, id, spec);
        }
    }

    /// Moves items on to readers that have room.
    fn pump_watches(&mut self, now: Now, effects: &mut Effects<W>) {
        effects.items.append(&mut self.items);
        for replica in &mut self.replicas {
            if !replica.watchers.is_empty() {
                let engine = &replica.engine;
                replica.watchers.pump(
                    now.instant,
                    |range| engine.scan(range, usize::MAX),
                    &mut effects.items,
                );
            }
        }
    }

    fn refresh_status(&mut self, now: Now) {
        if now.instant < self.next_status {
            return;
        }
        self.next_status = now.instant + STATUS_INTERVAL;
        for replica in &mut self.replicas {
            replica.refresh_status(now);
            replica.watchers.shed(now.instant);
        }
    }

    /// Takes, hands out or finishes a snapshot, whichever is due.
    fn snapshot(&mut self, effects: &mut Effects<W>) {
        let (record, replicas) = (&self.record, &self.replicas);
        self.snapshots.take(self.last, || {
            let keyspaces = replicas
                .iter()
                .map(|replica| (replica.id(), replica.engine.checkpoint()));
            std::iter::once(section(record)).chain(keyspaces).collect()
        });
        effects.snapshot = self.snapshots.job(self.progress.durable);
        effects.release = self.release.take();
    }

    /// What must hold between two turns.
    fn check(&self) {
        assert!(self.touched.is_empty() && self.replies.is_empty() && self.opening.is_empty());
        assert!(self.progress.durable <= self.last);
        for replica in &self.replicas {
            replica.watchers.check();
            debug_assert!(replica.output.records.is_empty() && replica.output.sends.is_empty());
        }
    }

    /// Answers everything that waits, and ends all watches: the node stops for this reason.
    pub fn close(&mut self, reason: &Reason, effects: &mut Effects<W>) {
        effects.replies.append(&mut self.replies);
        effects.replies.extend(self.pending.close(reason));
        for (id, _, _) in self.opening.drain(..) {
            effects.items.push((id, Err(reason.clone().into())));
        }
        for replica in &mut self.replicas {
            replica.watchers.close(reason, &mut effects.items);
        }
        self.watches.clear();
    }
}

#[cfg(test)]
mod tests;
