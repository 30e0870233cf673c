//! The state machine of one gossip keyspace on one node: what the inputs do.
//!
//! Parts: `write` (clients' writes and questions), `spread` (rumours), `sync` (anti-entropy), `park` (entries from
//! clocks ahead), `acks` (what members durably reflect, and collection), `waiting` (answers that wait for the disk),
//! `stored` (restart and checkpoint), `status`.

mod acks;
mod park;
mod spread;
mod status;
mod stored;
mod sync;
mod waiting;
mod write;

use std::collections::{BTreeMap, VecDeque};

use tracing::warn;
use trilemma_core::read::page;
use trilemma_core::session::Sessions;
use trilemma_core::{
    AppendSeq, Applied, Change, Checkpoint, Corrupt, Effects, Entry, Incarnation, Input, Instant, Key,
    KeyRange, LiveStatus, NodeId, Now, PeerView, Proposal, Protocol, Query, ReadError, ReadLevel, ReadReply,
    ReadRequest, Reason, Reply, Request, Rng, Version, Versioned,
};

use crate::config::{Durability, GossipConfig};
use crate::context::Context;
use crate::dot::Dot;
use crate::hlc::{Clock, Stamp};
use crate::message::{Message, Record, WITHHELD_MAX};
use crate::predictor::{Prediction, predict};
use crate::replica::{Item, Joined, Replica};
use acks::Acks;
use park::Parked;
use spread::Rumours;
use sync::Exchanges;
use waiting::Waiting;

type Out<'a> = &'a mut Effects<Message, Record>;

/// A gossip keyspace on one node. See the crate.
#[derive(Debug)]
pub struct Gossip {
    config: GossipConfig,
    rng: Rng,
    clock: Clock,
    replica: Replica,
    sessions: Sessions,
    /// The last number given to a dot of this life.
    seq: u64,
    /// The last position told to watchers in this life.
    position: u64,
    /// The first of the unbroken row of lives that this disk has lived through, each synced before it spoke.
    whole_since: Option<Incarnation>,
    /// Whether a peer has claimed changes of this life that this node never made.
    identity_clash: bool,
    /// Counts changes of the context, so that peers are told of them once.
    generation: u64,
    view: PeerView,
    persisted: AppendSeq,
    /// Leases whose records are not durable yet, and the newest that is.
    leases: VecDeque<(AppendSeq, Stamp)>,
    lease_durable: Stamp,
    waiting: Waiting,
    parked: Parked,
    rumours: Rumours,
    exchanges: Exchanges,
    acks: Acks,
    /// Keys with too many siblings, and the tick at which this node writes the winner back.
    crowded: BTreeMap<Key, u64>,
    ticks: u64,
    next_tick: Instant,
    prediction: Prediction,
}

impl Gossip {
    /// An instance with nothing in it. Values of the configuration outside of their range are brought into it.
    #[must_use]
    pub fn new(mut config: GossipConfig) -> Self {
        config.members.insert(config.node);
        config.fanout = config.fanout.max(1);
        config.tick = config.tick.max(std::time::Duration::from_millis(1));
        config.sync_ticks = config.sync_ticks.max(1);
        config.parked_max = config.parked_max.min(WITHHELD_MAX);
        config.siblings_max = config.siblings_max.max(1);
        config.serving_max = config.serving_max.max(1);
        let prediction = predict(&config.params());
        Self {
            rng: Rng::new(config.seed),
            clock: Clock::default(),
            replica: Replica::default(),
            sessions: Sessions::new(config.sessions_max),
            seq: 0,
            position: 0,
            whole_since: None,
            identity_clash: false,
            generation: 0,
            view: PeerView::default(),
            persisted: AppendSeq(0),
            leases: VecDeque::new(),
            lease_durable: Stamp::default(),
            waiting: Waiting::default(),
            parked: Parked::default(),
            rumours: Rumours::default(),
            exchanges: Exchanges::default(),
            acks: Acks::default(),
            crowded: BTreeMap::new(),
            ticks: 0,
            next_tick: Instant::NEVER,
            prediction,
            config,
        }
    }

    /// A digest of everything that reads can see, concurrent values included: equal on converged replicas.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.replica.digest()
    }

    /// The store, for checkers and tests.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The newest stamp that this node has issued or followed.
    #[must_use]
    pub fn clock(&self) -> Stamp {
        self.clock.last()
    }

    /// Number of entries held back because their stamps are too far ahead.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    fn is_durable(&self) -> bool {
        self.config.durability != Durability::None
    }

    /// Whether a peer claims a change of this node's present life that it has not made: then our next dots would be
    /// taken for known ones and swallowed everywhere. Also if it claims a later life, which a copy of our identity
    /// would have.
    fn is_forged(&self, dot: Dot) -> bool {
        dot.origin == self.config.node
            && (dot.incarnation > self.config.incarnation
                || dot.incarnation == self.config.incarnation && dot.seq > self.seq)
    }

    /// The context that a peer describes, if it can be right.
    fn check_context(&mut self, from: NodeId, wire: &crate::context::WireContext) -> Option<Context> {
        let context = Context::from_wire(wire)?;
        let forged = context.floor(self.config.node) > self.config.incarnation
            || context.highest().any(|dot| self.is_forged(dot));
        if forged {
            self.identity_clash = true;
            warn!(%from, "ignored a context that claims changes this node never made; is its identity used twice?");
        }
        (!forged).then_some(context)
    }

    fn check_items(&mut self, from: NodeId, items: &[Item]) -> bool {
        for item in items {
            let forged = self.is_forged(item.dot) || item.observed.iter().any(|dot| self.is_forged(dot));
            let defect = item
                .defect()
                .or(forged.then_some("a change this node never made"));
            if let Some(defect) = defect {
                self.identity_clash |= forged;
                warn!(%from, dot = %item.dot, defect, "ignored a message");
                return false;
            }
        }
        true
    }

    /// Takes changes of peers in: applies what can be applied, parks what is ahead of time. Tells whether nothing had
    /// to be left out. All changes of the message become visible, and durable, together; those of one command are taken,
    /// held back or left out together.
    fn receive_items(&mut self, now: Now, items: Vec<Item>, rumours: bool, effects: Out<'_>) -> bool {
        // What was held back may be the rest of a command that comes now.
        self.release(now, effects);
        let mut complete = true;
        let crowded = self.replica.context().intervals() >= self.config.intervals_max;
        let mut ready = Vec::with_capacity(items.len());
        let context = self.replica.context();
        let fresh: Vec<Item> = items
            .into_iter()
            .filter(|item| !context.contains(item.dot))
            .collect();
        for command in fresh.chunk_by(|a, b| a.command() == b.command()) {
            let ahead =
                |item: &Item| !crate::hlc::is_acceptable(item.stamp, now.wall, self.config.accept_drift);
            if command.iter().any(ahead) {
                let (entries_max, bytes_max) = (self.config.parked_max, self.config.parked_bytes_max);
                complete &= self.parked.park(command, entries_max, bytes_max);
            } else if rumours && crowded && command.iter().all(|item| context.would_fragment(item.dot)) {
                complete = false;
            } else {
                ready.extend_from_slice(command);
            }
        }
        self.apply(ready, effects);
        complete
    }

    /// Applies changes that were not made by a client of this node, and logs them.
    fn apply(&mut self, items: Vec<Item>, effects: Out<'_>) {
        let fresh: Vec<Item> = self.take_in(items, effects);
        if !fresh.is_empty() {
            effects.append_lazy(Record::Join { items: fresh });
        }
    }

    /// Joins changes into the store and tells watchers; returns those that were new.
    fn take_in(&mut self, items: Vec<Item>, effects: Out<'_>) -> Vec<Item> {
        let mut before: BTreeMap<Key, Option<Versioned>> = BTreeMap::new();
        let mut fresh = Vec::with_capacity(items.len());
        for item in items {
            before
                .entry(item.key.clone())
                .or_insert_with(|| self.replica.get(&item.key));
            self.clock.observe(item.stamp);
            if self.replica.join(&item) != Joined::Stale {
                fresh.push(item);
            }
        }
        if fresh.is_empty() {
            return fresh;
        }
        self.generation += 1;
        let mut changes = Vec::with_capacity(before.len());
        for (key, was) in before {
            let now = self.replica.get(&key);
            self.note_crowding(&key);
            if was != now {
                changes.push(Change { key, now });
            }
        }
        if !changes.is_empty() {
            self.position += 1;
            effects.apply(Applied {
                position: self.position,
                changes,
            });
        }
        fresh
    }

    /// Sees to it that the winner of a key with too many siblings is written back: at once by the node that made it
    /// (at its next tick), later by any other, so that not all nodes do it at the same time.
    pub(super) fn note_crowding(&mut self, key: &Key) {
        if !self.is_crowded(key) || self.crowded.contains_key(key) {
            return;
        }
        let ours = self
            .replica
            .winner(key)
            .is_some_and(|winner| winner.item.dot.origin == self.config.node);
        let spread = 16 * self.config.members.len() as u64;
        let wait = if ours { 1 } else { 16 + self.rng.below(spread) };
        self.crowded.insert(key.clone(), self.ticks + wait);
    }

    /// Whether a write-back would help a key: it has too many siblings, or some that a tombstone hides.
    pub(super) fn is_crowded(&self, key: &Key) -> bool {
        self.replica.siblings(key).len() > self.config.siblings_max || self.replica.hides(key)
    }

    fn read(&self, request: &ReadRequest) -> Result<ReadReply, ReadError> {
        if let Some(level) = request.at_least
            && level != ReadLevel::Local
        {
            return Err(Reason::Unsupported {
                asked: format!("a read at level {level}"),
                strongest: ReadLevel::Local.to_string(),
            }
            .into());
        }
        let (entries, more) = match &request.query {
            Query::Get(key) => {
                let entry = self.replica.get(key).map(|state| Entry {
                    key: key.clone(),
                    state,
                });
                (entry.into_iter().collect(), false)
            }
            Query::Siblings(key) => page(&request.query, self.replica.values(key)),
            Query::Range { range, .. } => page(&request.query, self.replica.range(range)),
        };
        Ok(ReadReply {
            entries,
            more,
            version: Version::ABSENT,
            achieved: ReadLevel::Local,
            served_by: self.config.node,
            round_trips: 0,
        })
    }

    fn propose(&mut self, now: Now, proposal: Proposal, effects: Out<'_>) {
        let Proposal {
            ticket,
            deadline,
            request,
        } = proposal;
        match request {
            Request::Read(request) => effects.reply(ticket, Reply::Read(self.read(&request))),
            Request::Write { op, attempt, command } => {
                self.write(
                    now,
                    write::Write {
                        ticket,
                        deadline,
                        op,
                        attempt,
                    },
                    &command,
                    effects,
                );
            }
            Request::Outcome { op, .. } => self.outcome(now, ticket, deadline, op, effects),
        }
    }

    fn receive(&mut self, now: Now, from: NodeId, message: Message, effects: Out<'_>) {
        if from == self.config.node || !self.config.members.contains(&from) {
            warn!(%from, "ignored a message of a node that is not a member");
            return;
        }
        match message {
            Message::Rumours { heard, items } => self.receive_rumours(now, from, heard, items, effects),
            Message::Compare { incarnation, context } => {
                self.receive_compare(now, from, incarnation, context, effects);
            }
            Message::Pull {
                session,
                incarnation,
                context,
                withheld,
                mutual,
            } => {
                let Some(context) = self.check_context(from, &context) else {
                    return;
                };
                self.acks
                    .record(from, incarnation, context.clone(), self.replica.context());
                self.serve(now, from, session, &context, withheld, effects);
                if mutual && !self.replica.context().includes(&context) {
                    self.pull(now, from, false, effects);
                }
            }
            Message::Page {
                session,
                incarnation,
                snapshot,
                after,
                items,
                end,
            } => {
                let page = sync::Page {
                    session,
                    incarnation,
                    snapshot,
                    after,
                };
                self.receive_page(now, from, page, items, end, effects);
            }
            Message::More {
                session,
                snapshot,
                after,
            } => self.receive_more(now, from, session, snapshot, after, effects),
        }
    }

    fn persisted(&mut self, up_to: AppendSeq, effects: Out<'_>) {
        self.persisted = self.persisted.max(up_to);
        while let Some((seq, lease)) = self.leases.front().copied()
            && seq <= self.persisted
        {
            self.lease_durable = self.lease_durable.max(lease);
            self.leases.pop_front();
        }
        for (ticket, reply) in self.waiting.take(self.persisted) {
            effects.reply(ticket, reply);
        }
    }

    fn wake(&mut self, now: Now, effects: Out<'_>) {
        self.flush(effects);
        for (ticket, reply) in self.waiting.expire(now.instant) {
            effects.reply(ticket, reply);
        }
        if now.instant < self.next_tick {
            return;
        }
        // After a pause the missed ticks are not made up for: under load a tick sheds, it never bursts.
        self.next_tick = self.next_tick + self.config.tick;
        if self.next_tick <= now.instant {
            self.next_tick = now.instant + self.config.tick;
        }
        self.tick(now, effects);
    }

    fn tick(&mut self, now: Now, effects: Out<'_>) {
        self.ticks += 1;
        self.release(now, effects);
        self.write_back(effects);
        self.spread(effects);
        self.retry_exchanges(now, effects);
        if self.ticks.is_multiple_of(u64::from(self.config.sync_ticks)) {
            self.compare_with_one(effects);
            self.compact_lives(effects);
        }
        self.collect(now);
    }

    fn schedule(&mut self, now: Now, effects: Out<'_>) {
        let flush = if self.rumours.has_fresh() {
            now.instant
        } else {
            Instant::NEVER
        };
        let at = flush.min(self.next_tick).min(self.waiting.first_deadline());
        if at != Instant::NEVER {
            effects.wake_at(at);
        }
    }
}

impl Protocol for Gossip {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.restore_chunk(chunk)
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        self.replay_record(record)
    }

    fn step(&mut self, now: Now, input: Input<Message>, effects: Out<'_>) {
        match input {
            Input::Start => {
                self.begin_life(effects);
                // Jittered phase: nodes that start together do not tick together.
                if self.config.members.len() > 1 {
                    self.next_tick =
                        now.instant + self.rng.between(std::time::Duration::ZERO, self.config.tick);
                } else {
                    self.next_tick = now.instant + self.config.tick;
                }
            }
            Input::Propose(proposal) => self.propose(now, proposal, effects),
            Input::Receive { from, message } => self.receive(now, from, message, effects),
            Input::Persisted { up_to } => self.persisted(up_to, effects),
            Input::Peers(view) => self.peers_changed(view, effects),
            Input::Wake => self.wake(now, effects),
        }
        self.schedule(now, effects);
    }

    fn checkpoint(&self) -> Checkpoint {
        self.make_checkpoint()
    }

    fn status(&self, now: Now) -> LiveStatus {
        self.make_status(now)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Vec<Entry> {
        self.replica.range(range).take(limit).collect()
    }
}

#[cfg(test)]
mod tests;
