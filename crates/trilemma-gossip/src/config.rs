//! Configuration of a gossip keyspace on one node. Every field says its default, its cost and how to choose.

use std::collections::BTreeSet;
use std::time::Duration;

use trilemma_core::session::{SESSION_RESULTS_MAX, SESSIONS_MAX, SessionLimits};
use trilemma_core::{Incarnation, NodeId};

use crate::message::{COMMAND_ITEMS_BYTES_MAX, DEFERRED_MAX, ITEMS_MAX, LAZY_BYTES};
use crate::predictor::{FirstSend, Params, infective_ticks};
use crate::reconcile::Secret;
use crate::signatures::Signatures;

/// What a write waits for before it is acknowledged. The host decides which mark `Persisted` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: acknowledged at once. A crash may lose it unless a peer has it already.
    None,
    /// Handed to the operating system: survives a crash of the process.
    Os,
    /// Synced: survives a crash of the machine.
    Fsync,
}

/// The configuration of one instance.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// This node. Must be a member.
    pub node: NodeId,
    /// Its incarnation: greater than that of every earlier start with the same node id, **also after its disk was
    /// lost**. Part of every dot: one used twice gives dots out twice, and peers take the later writes for known ones.
    pub incarnation: Incarnation,
    /// All nodes of the keyspace, this one included. Collection waits for every one of them.
    pub members: BTreeSet<NodeId>,
    /// Seed of the random choices (peers, phase).
    pub seed: u64,
    /// Period of dissemination. Default 100 ms: three ticks stay below the half second that a person notices, and an
    /// idle tick costs nothing but a timer. Convergence time is proportional to it where `flush_peers_max` does not
    /// reach.
    pub tick: Duration,
    /// Random peers that each tick tells. Default 3: growth by a factor of e³ per tick; more costs redundancy.
    pub fanout: u32,
    /// The members of this node's own groups (rack, zone), without the node itself: each tick tells all of them, beside
    /// the others. Default none.
    pub mates: BTreeSet<NodeId>,
    /// Of the nodes that were recently the first to tell this one of changes, the share in percent that each tick prefers to
    /// random ones: those that did so most often. They take at most half of the fanout. Default 0.
    pub top_senders_percent: u8,
    /// Distinct peers that must have sent a change before it is taken in, trusted ones apart. Default 1: anybody's word
    /// will do. At most the number of peers. Each more costs one round and a half or less, and a copy of each change.
    pub vouchers: u32,
    /// Nodes whose word suffices, also for changes of others. Default none.
    pub trusted: BTreeSet<NodeId>,
    /// The nodes that may write. Changes of others are refused, and not passed on. Default `None`: all members.
    pub origins: Option<BTreeSet<NodeId>>,
    /// Makes each change carry a signature of its origin, without which nobody takes it in. A valid one needs no voucher;
    /// [`vouchers`](Self::vouchers) then guard contexts alone. Default `None`. Costs 65 to 97 bytes for each change, some 50 µs
    /// for who makes it and 90 µs for who takes it in.
    pub signatures: Option<Signatures>,
    /// Bytes of changes that wait for more vouchers. Default 16 MiB. Each peer may occupy an even share of it, but no less than
    /// one command of the greatest size, with what it was the first to tell. More is left to later exchanges.
    pub unvouched_bytes_max: usize,
    /// Up to this number of peers a local write is sent to all of them at once, so that it is everywhere after one
    /// one-way delay. Above it, to `fanout` random ones. Default 8.
    pub flush_peers_max: usize,
    /// Share of messages lost that rumors are planned for. Default 0.1.
    pub loss: f64,
    /// Probability that a rumor misses some node and anti-entropy must bring it. Default 0.001.
    pub miss_probability: f64,
    /// Usual one-way delay, for the prediction alone. Default 1 ms.
    pub latency: Duration,
    /// Ticks between two comparisons with a random peer. Default 10: a node that missed everything has it after a
    /// second.
    pub sync_ticks: u32,
    /// What an acknowledged write has survived. Default `Fsync`.
    pub durability: Durability,
    /// How far ahead of our wall clock a stamp may be and still be applied. Default 500 ms; more than the skew that
    /// the cluster's time synchronisation allows.
    pub accept_drift: Duration,
    /// How far ahead of the wall clock the stamps of earlier incarnations may be when this one starts. Beyond it they
    /// are left, if changes of other nodes show that the wall clock is right now: what was written with a wrong clock
    /// stays deferred elsewhere until its time has come, and what is written now is not. Default 10 s: a smaller lead is
    /// soon waited out. At least `accept_drift`.
    pub ahead_max: Duration,
    /// Time that must pass after the last missing acknowledgement before a tombstone, or what a change has observed, is
    /// collected. Default 60 s: it keeps what was deleted explainable for a while, and spares a member that comes back
    /// work. At least twice `accept_drift`: by then the wall clock of every member has passed the stamp that it
    /// acknowledged, so that no write of one that loses its disk meanwhile is older (see `acknowledgements`).
    pub tombstone_age_min: Duration,
    /// Siblings of a key above which a node writes the winner back. Default 8.
    pub siblings_max: usize,
    /// Changes deferred because of their stamps. Default 4096 (also the limit); more are fetched again later.
    pub deferred_max: usize,
    /// Bytes of changes deferred because of their stamps. Default 16 MiB.
    pub deferred_bytes_max: usize,
    /// Bytes of records that are not durable yet. Beyond it writes are refused, and what peers send is left to later
    /// exchanges. Default 32 MiB: the log's queue of 256 MiB serves all keyspaces of a node.
    pub unsynced_bytes_max: usize,
    /// Commands waiting to be spread. Default 65536; the oldest beyond it are left to anti-entropy.
    pub rumors_max: usize,
    /// Bytes of rumors to one peer in one tick. Default 256 KiB.
    pub tick_bytes_max: usize,
    /// Bytes of a command's changes above which it travels once: peers are sent its name, and who lacks it fetches it from
    /// one of them. Default 128: below it, names cost about as much. A larger change takes three one-way delays for each
    /// node that passes it on, one to the first.
    pub lazy_bytes: usize,
    /// Ticks after which a change that was asked for and has not come is asked for elsewhere. Default 3; more than a round
    /// trip, and the time that a change of a usual size takes.
    pub fetch_ticks: u32,
    /// Bytes that peers may fetch in one tick, and the rest of a command. Default 4 MiB. Whom that leaves out asks elsewhere.
    pub fetch_bytes_max: usize,
    /// Bytes of one anti-entropy page. Default 256 KiB. One command is never split, so a page may be larger.
    pub page_bytes: usize,
    /// Intervals of the context above which rumors that would open another gap are left to anti-entropy.
    /// Default 16384.
    pub intervals_max: usize,
    /// Exchanges served at the same time. Default 4, as many as a node asks in. Beyond it peers are asked to come back later.
    pub serving_max: usize,
    /// Under which nodes find out what differs where contexts do not tell. The same on every node, or all is exchanged instead;
    /// unknown to clients, or they could choose changes that look like none. Default a constant.
    pub secret: Secret,
    /// Changes looked at in one turn beyond those that came in it: what a whole exchange may have shown to be dead, rumors,
    /// what may be collected or is to be written back. From 1 to 4,096, default 1,024: a few milliseconds of work. The rest
    /// follows in the next turns, or at the next tick.
    pub turn_items: usize,
    /// Client sessions remembered for repeats. Default [`SESSIONS_MAX`].
    pub sessions_max: usize,
    /// Results remembered of each of them, from 1 to [`SESSION_RESULTS_MAX`], which is the default: 1,024. The same on every
    /// node.
    pub session_results_max: u64,
}

impl GossipConfig {
    /// The defaults for this node and these members.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        members: impl IntoIterator<Item = NodeId>,
        seed: u64,
    ) -> Self {
        Self {
            node,
            incarnation,
            members: members.into_iter().chain([node]).collect(),
            seed,
            tick: Duration::from_millis(100),
            fanout: 3,
            mates: BTreeSet::new(),
            top_senders_percent: 0,
            vouchers: 1,
            trusted: BTreeSet::new(),
            origins: None,
            signatures: None,
            unvouched_bytes_max: 16 << 20,
            flush_peers_max: 8,
            loss: 0.1,
            miss_probability: 0.001,
            latency: Duration::from_millis(1),
            sync_ticks: 10,
            durability: Durability::Fsync,
            accept_drift: Duration::from_millis(500),
            ahead_max: Duration::from_secs(10),
            tombstone_age_min: Duration::from_secs(60),
            siblings_max: 8,
            deferred_max: DEFERRED_MAX,
            deferred_bytes_max: 16 << 20,
            unsynced_bytes_max: 32 << 20,
            rumors_max: 65_536,
            tick_bytes_max: 256 << 10,
            lazy_bytes: LAZY_BYTES,
            fetch_ticks: 3,
            fetch_bytes_max: 4 << 20,
            page_bytes: 256 << 10,
            intervals_max: crate::context::WIRE_INTERVALS_MAX,
            serving_max: 4,
            secret: Secret::default(),
            turn_items: 1024,
            sessions_max: SESSIONS_MAX,
            session_results_max: SESSION_RESULTS_MAX,
        }
    }

    /// What is remembered of client sessions.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            results_each: self.session_results_max,
            ..SessionLimits::from(self.sessions_max)
        }
    }

    /// The configuration with every value in its range.
    #[must_use]
    pub(crate) fn clamp(mut self) -> Self {
        self.members.insert(self.node);
        self.fanout = self.fanout.max(1);
        self.mates.remove(&self.node);
        self.mates.retain(|mate| self.members.contains(mate));
        self.top_senders_percent = self.top_senders_percent.min(100);
        let peers = (self.members.len() - 1).max(1);
        self.unvouched_bytes_max = self.unvouched_bytes_max.max(COMMAND_ITEMS_BYTES_MAX);
        self.vouchers = self.vouchers.clamp(1, peers as u32);
        self.tick = self.tick.max(Duration::from_millis(1));
        self.sync_ticks = self.sync_ticks.max(1);
        self.fetch_ticks = self.fetch_ticks.max(1);
        self.fetch_bytes_max = self.fetch_bytes_max.max(1);
        self.ahead_max = self.ahead_max.max(self.accept_drift);
        self.tombstone_age_min = self.tombstone_age_min.max(2 * self.accept_drift);
        self.deferred_max = self.deferred_max.min(DEFERRED_MAX);
        self.siblings_max = self.siblings_max.max(1);
        self.serving_max = self.serving_max.max(1);
        self.turn_items = self.turn_items.clamp(1, ITEMS_MAX);
        self
    }

    /// Whether an answered write has survived a crash.
    pub(crate) fn is_durable(&self) -> bool {
        self.durability != Durability::None
    }

    /// The other members.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied().filter(|member| *member != self.node)
    }

    /// Whether what this peer claims needs no other voucher.
    pub(crate) fn is_trusted(&self, peer: NodeId) -> bool {
        self.vouchers <= 1 || self.trusted.contains(&peer)
    }

    /// Whether a change that this peer tells needs no other voucher: what was not signed has not come this far.
    pub(crate) fn suffices(&self, peer: NodeId) -> bool {
        self.signatures.is_some() || self.is_trusted(peer)
    }

    /// Whether what a peer shows is taken in although this node reflects it and does not show it. Where changes are signed, not
    /// everybody may bring old ones back.
    pub(crate) fn may_repair(&self, peer: NodeId) -> bool {
        self.trusted.contains(&peer) || self.signatures.is_none() && self.is_trusted(peer)
    }

    /// Distinct peers that must have sent a change.
    pub(crate) fn vouchers_needed(&self) -> u32 {
        if self.signatures.is_some() {
            1
        } else {
            self.vouchers
        }
    }

    /// Whether a node may write.
    pub(crate) fn is_origin(&self, node: NodeId) -> bool {
        let origins = self.origins.as_ref();
        origins.is_none_or(|origins| origins.contains(&node))
    }

    /// Whether this node may write.
    pub(crate) fn may_write(&self) -> bool {
        self.is_origin(self.node)
    }

    /// Bytes of changes without enough vouchers that one peer may occupy.
    pub(crate) fn unvouched_bytes_each(&self) -> usize {
        let peers = self.members.len().saturating_sub(1).max(1);
        (self.unvouched_bytes_max / peers).max(COMMAND_ITEMS_BYTES_MAX)
    }

    /// What the predictor needs to know.
    #[must_use]
    pub fn params(&self) -> Params {
        let nodes = self.members.len() as u32;
        let all_up_to = u32::try_from(self.flush_peers_max).unwrap_or(u32::MAX);
        Params {
            loss: self.loss,
            latency: self.latency,
            miss_probability: self.miss_probability,
            first_send: FirstSend::AtOnce { all_up_to },
            vouchers: self.vouchers_needed(),
            groups: self.group_count(),
            top: f64::from(self.top_senders_percent) / 100.0,
            ..Params::new(nodes, self.fanout, self.tick)
        }
    }

    /// How many groups there are if all are as large as this node's own; 0 without any.
    fn group_count(&self) -> u32 {
        if self.mates.is_empty() {
            return 0;
        }
        (self.members.len() / (self.mates.len() + 1)).max(1) as u32
    }

    /// Ticks for which a node spreads a rumor.
    #[must_use]
    pub fn infective_ticks(&self) -> u32 {
        infective_ticks(&self.params())
    }
}
