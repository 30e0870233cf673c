//! The node: inputs in, one turn at a time, effects out.

mod inputs;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trilemma_core::liveness::Liveness;
use trilemma_core::pending::Pending;
use trilemma_core::{
    Incarnation, Instant, KeyspaceId, NodeId, PeerView, ProcessId, Reason, Reply, WatchSpec,
};
use trilemma_storage::{LogSeq, Progress};

use crate::admission::Admission;
use crate::config::NodeSettings;
use crate::effects::Effects;
use crate::members::Members;
use crate::message::NodeMessage;
use crate::peers::Peers;
use crate::record::NodeRecord;
use crate::replica::Replica;
use crate::rounds::Rounds;
use crate::snapshots::Snapshots;
use crate::watchers::{Destination, Sent, WatchId};

/// How much later than its deadline the node answers for a protocol that did not.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(50);
/// What a node is made of.
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a NodeSettings,
    pub(crate) peers: Peers,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) last: LogSeq,
    pub(crate) progress: Progress,
    pub(crate) snapshots: Snapshots,
    pub(crate) record: NodeRecord,
    pub(crate) members: Option<Members>,
    pub(crate) member_epoch: u64,
}

/// A watch that opens at the end of the turn.
struct Opening {
    id: WatchId,
    /// Its keyspace's place among the replicas.
    index: usize,
    spec: WatchSpec,
    destination: Destination,
}

/// One node. See the crate.
pub struct Node<W> {
    peers: Peers,
    replicas: Vec<Replica>,
    by_id: BTreeMap<KeyspaceId, usize>,
    pending: Pending<W>,
    watches: BTreeMap<WatchId, usize>,
    /// Watches that open at the end of the turn.
    opening: Vec<Opening>,
    liveness: Liveness,
    view: PeerView,
    admission: Admission,
    /// The last record given to the log.
    last: LogSeq,
    progress: Progress,
    /// Whose records the log is given next.
    rounds: Rounds,
    /// See [`Tuning::log_window_bytes`](crate::Tuning::log_window_bytes).
    log_window_bytes: usize,
    /// What the log was given and is not durable: places and costs, and the costs together.
    given: VecDeque<(LogSeq, usize)>,
    given_bytes: usize,
    snapshots: Snapshots,
    record: NodeRecord,
    /// Who belongs to the cluster, if that is looked after.
    members: Option<Members>,
    /// The last epoch among the members that has a place in the log; 0 if there was none.
    member_epoch: u64,
    /// Records of its own that have no place in the log yet.
    records: Vec<NodeRecord>,
    /// Messages of its own, but for pings.
    messages: Vec<(NodeId, NodeMessage)>,
    /// Messages of the nodes themselves that were taken.
    received: u64,
    next_status: Instant,
    /// The keyspace whose watches are served first in this turn.
    first_pumped: usize,
    /// Replicas that took an input in this turn.
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
            peers,
            replicas,
            last,
            progress,
            snapshots,
            record,
            members,
            member_epoch,
        } = parts;
        let by_id = replicas.iter().enumerate();
        let others = settings.members.iter().filter(|peer| *peer != settings.node);
        let mut node = Self {
            by_id: by_id.map(|(index, replica)| (replica.id(), index)).collect(),
            rounds: Rounds::new(replicas.len()),
            log_window_bytes: settings.tuning.log_window_bytes,
            given: VecDeque::new(),
            given_bytes: 0,
            replicas,
            pending: Pending::default(),
            watches: BTreeMap::new(),
            opening: Vec::new(),
            liveness: Liveness::new(settings.tuning.liveness, peers.this().incarnation, others),
            peers,
            view: PeerView::default(),
            admission: Admission::new(settings.tuning.limits),
            last,
            progress,
            snapshots,
            record,
            members,
            member_epoch,
            records: Vec::new(),
            messages: Vec::new(),
            received: 0,
            next_status: Instant::ZERO,
            first_pumped: 0,
            touched: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            release: None,
        };
        node.explain_silence();
        node
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.peers.this().node
    }

    /// The incarnation of its process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.peers.this().incarnation
    }

    /// The process: what peers learn first.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.peers.this()
    }

    /// What the node keeps of its peers.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Who belongs to the cluster, if that is looked after.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
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

    /// Bytes of their commands.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// Which peers can be reached.
    #[must_use]
    pub fn view(&self) -> &PeerView {
        &self.view
    }

    /// Messages of its peers' nodes themselves, pings among them, that were taken since the start. Those of keyspaces are
    /// counted there: [`Replica::received`].
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
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

    /// Answers everything that waits, and ends all watches: the node stops for this reason.
    pub fn close(&mut self, reason: &Reason, effects: &mut Effects<W>) {
        effects.replies.append(&mut self.replies);
        effects.replies.extend(self.pending.close(reason));
        for opening in self.opening.drain(..) {
            effects.items.push((opening.id, Err(reason.clone().into())));
        }
        for replica in &mut self.replicas {
            replica.watchers.close(reason, &mut effects.items);
        }
        self.watches.clear();
    }
}

#[cfg(test)]
mod tests;
