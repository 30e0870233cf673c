//! What all parts of a replica share: settings, the clock, who can be reached, names for new changes, and the way to the
//! log.

use std::collections::VecDeque;

use tracing::warn;
use trilemma_core::{AppendSeq, NodeId, Now, PeerView, Rng, WallTime};

use crate::clock::{Clock, Stamp, is_acceptable};
use crate::config::{Durability, GossipConfig};
use crate::context::{Context, WireContext};
use crate::dot::Dot;
use crate::gossip::Out;
use crate::record::Record;
use crate::replica::Item;
use crate::signatures::SIGNED_BYTES;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GossipConfig,
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    pub(crate) view: PeerView,
    /// The newest stamp of another node among the changes that former incarnations have shown, as far as checkpoint and
    /// log still tell.
    others: Option<Stamp>,
    /// What the wall clock showed at the last step.
    pub(crate) wall: WallTime,
    pub(crate) ticks: u64,
    /// The first of the unbroken row of incarnations that this disk has lived through, each synced before it spoke.
    pub(crate) durable_since: Option<trilemma_core::Incarnation>,
    /// Whether a peer has claimed changes of this incarnation that this node never made.
    pub(crate) has_identity_clash: bool,
    /// Every record up to this one is durable.
    pub(crate) persisted: AppendSeq,
    /// The last number given to a dot of this incarnation.
    seq: u64,
    /// Records that are not durable yet, with their sizes.
    unsynced: VecDeque<(AppendSeq, usize)>,
    unsynced_bytes: usize,
}

impl Shared {
    pub(crate) fn new(config: GossipConfig) -> Self {
        Self {
            rng: Rng::new(config.seed),
            clock: Clock::default(),
            view: PeerView::default(),
            others: None,
            wall: WallTime(0),
            ticks: 0,
            durable_since: None,
            has_identity_clash: false,
            persisted: AppendSeq(0),
            seq: 0,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            config,
        }
    }

    /// Begins an incarnation: notes in the log that this disk was there from its beginning. Own changes leave after
    /// their own records are durable, hence after this one.
    pub(crate) fn start(&mut self, now: Now, effects: &mut Out) {
        assert_eq!(self.seq, 0, "an incarnation begins without changes");
        self.durable_since = if self.config.durability == Durability::Fsync {
            self.durable_since.or(Some(self.config.incarnation))
        } else {
            None
        };
        let durable_since = self.durable_since;
        self.append_lazy(Record::Begin { durable_since }, effects);
        let (drift, ahead_max) = (self.config.accept_drift, self.config.ahead_max);
        let others = self
            .others
            .filter(|newest| is_acceptable(*newest, now.wall, drift));
        if let Some(ahead) = self.clock.start(now.wall, ahead_max, others) {
            warn!(
                ahead_seconds = ahead.as_secs(),
                "earlier incarnations of this node stamped writes far ahead of its wall clock; new writes follow the \
                 clock again"
            );
        }
    }

    /// Takes in the stamp of a change that a former incarnation has shown.
    pub(crate) fn note_shown(&mut self, item: &Item) {
        self.clock.observe(item.stamp);
        if item.dot.origin != self.config.node {
            self.others = self.others.max(Some(item.stamp));
        }
    }

    pub(crate) fn next_dot(&mut self) -> Dot {
        self.seq += 1;
        Dot::new(self.config.node, self.config.incarnation, self.seq)
    }

    /// The number of the next dot.
    pub(crate) fn coming_seq(&self) -> u64 {
        self.seq + 1
    }

    /// Signs an own change, where the keyspace asks for it.
    pub(crate) fn sign(&self, item: &mut Item) {
        if let Some(signatures) = &self.config.signatures {
            signatures.sign(item);
            debug_assert!(signatures.is_valid(item), "a signature that no peer would accept");
        }
    }

    /// Bytes that signatures will add to this number of own changes, at most.
    pub(crate) fn signed_bytes(&self, items: usize) -> usize {
        let each = self.config.signatures.as_ref().map_or(0, |_| SIGNED_BYTES);
        items * each
    }

    /// Appends a record that something waits for.
    pub(crate) fn append(&mut self, record: Record, effects: &mut Out) -> AppendSeq {
        let bytes = record.bytes();
        let seq = effects.append(record);
        self.note_appended(seq, bytes)
    }

    /// Appends a record that may ride the next sync.
    pub(crate) fn append_lazy(&mut self, record: Record, effects: &mut Out) -> AppendSeq {
        let bytes = record.bytes();
        let seq = effects.append_lazy(record);
        self.note_appended(seq, bytes)
    }

    fn note_appended(&mut self, seq: AppendSeq, bytes: usize) -> AppendSeq {
        assert!(
            seq > self.persisted && self.unsynced.back().is_none_or(|(last, _)| *last < seq),
            "records get their numbers in order"
        );
        self.unsynced.push_back((seq, bytes));
        self.unsynced_bytes += bytes;
        seq
    }

    /// Whether so much waits for the disk that nothing more is taken.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.unsynced_bytes >= self.config.unsynced_bytes_max
    }

    pub(crate) fn on_persisted(&mut self, up_to: AppendSeq) {
        assert!(
            self.unsynced.back().is_none_or(|(last, _)| up_to <= *last),
            "a record is durable that was never appended"
        );
        self.persisted = self.persisted.max(up_to);
        while let Some((seq, bytes)) = self.unsynced.front().copied()
            && seq <= self.persisted
        {
            self.unsynced.pop_front();
            self.unsynced_bytes -= bytes;
        }
    }

    /// The members that can be reached, as far as known; all others as long as nothing is known.
    pub(crate) fn reachable(&self) -> Vec<NodeId> {
        let connected: Vec<NodeId> = self
            .config
            .peers()
            .filter(|peer| self.view.is_connected(*peer))
            .collect();
        if connected.is_empty() && self.view.peers.is_empty() {
            return self.config.peers().collect();
        }
        connected
    }

    /// Distinct, uniformly random ones of `peers`.
    pub(crate) fn sample(&mut self, mut peers: Vec<NodeId>, count: usize) -> Vec<NodeId> {
        debug_assert!(!peers.contains(&self.config.node), "a node is no peer of its own");
        let count = count.min(peers.len());
        for at in 0..count {
            let other = at + self.rng.below((peers.len() - at) as u64) as usize;
            peers.swap(at, other);
        }
        peers.truncate(count);
        peers
    }

    /// Whether a peer claims a change of this node's present incarnation that it has not made: then our next dots would
    /// be taken for known ones and swallowed everywhere. Also if it claims a later incarnation, which a copy of our
    /// identity would have.
    fn is_forged(&self, dot: Dot) -> bool {
        let own = self.config.incarnation;
        dot.origin == self.config.node
            && (dot.incarnation > own || dot.incarnation == own && dot.seq > self.seq)
    }

    /// As [`Shared::is_forged`], and notes it.
    pub(crate) fn claims_own(&mut self, dot: Dot) -> bool {
        let is_forged = self.is_forged(dot);
        self.has_identity_clash |= is_forged;
        is_forged
    }

    /// The context that a peer describes, if it can be right.
    pub(crate) fn check_context(&mut self, from: NodeId, wire: &WireContext) -> Option<Context> {
        let context = Context::from_wire(wire)?;
        let closed = context.last_closed(self.config.node);
        let forged = closed.is_some_and(|closed| closed >= self.config.incarnation)
            || context.highest().any(|dot| self.is_forged(dot));
        if forged {
            self.has_identity_clash = true;
            warn!(%from, "ignored a context that claims changes this node never made; is its identity used twice?");
        }
        (!forged).then_some(context)
    }

    /// Whether a correct node can have sent these changes.
    pub(crate) fn check_items(&mut self, from: NodeId, items: &[Item]) -> bool {
        for item in items {
            let forged = self.is_forged(item.dot) || item.observed.iter().any(|dot| self.is_forged(dot));
            let defect = item
                .defect()
                .or(forged.then_some("a change this node never made"));
            if let Some(defect) = defect {
                self.has_identity_clash |= forged;
                warn!(%from, dot = %item.dot, defect, "ignored a message");
                return false;
            }
        }
        true
    }

    /// Whether no change of this incarnation can be in what a disk or a former incarnation left.
    pub(crate) fn is_of_earlier(&self, dot: Dot) -> bool {
        dot.origin != self.config.node || dot.incarnation < self.config.incarnation
    }

    /// The invariants of what all share.
    pub(crate) fn check(&self) {
        self.clock.check();
        let bytes = || self.unsynced.iter().map(|(_, bytes)| bytes).sum::<usize>();
        debug_assert_eq!(self.unsynced_bytes, bytes(), "bytes that are not durable");
        let first = self.unsynced.front();
        assert!(
            first.is_none_or(|(seq, _)| *seq > self.persisted),
            "a durable record counts as one that is not"
        );
    }
}
