//! A small deterministic cluster for the protocols' own tests: virtual time, one thread, one seed.
//!
//! It runs instances through [`Host`], so every message and record passes the codec, and it keeps the contract of
//! [`trilemma_core::protocol`] to the letter: messages are lost, duplicated, delayed and reordered as asked; records
//! become durable later; a crash keeps the durable records and a random prefix of the others. The full simulator with its
//! disks, clocks and swarm of faults is `trilemma-sim`; this is what a unit test needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use trilemma_core::ChangeBatch;
use trilemma_core::codec;
use trilemma_core::host::{Appended, DynProtocol, GroupInput, Host, Outgoing, Output};
use trilemma_core::id::{AppendSeq, Incarnation, NodeId, Ticket};
use trilemma_core::protocol::{Peer, PeerView, Proposal, Protocol, Reply, Request};
use trilemma_core::rng::Rng;
use trilemma_core::time::{Instant, Now, WallTime};

mod events;
mod faults;
mod requests;

pub use events::{Faults, Seen, Verdict};
pub use requests::{get, op, succeeded, value, write};

/// Time without contact after which the cluster tells a node that a peer is gone.
pub const PEER_TIMEOUT: Duration = Duration::from_millis(300);

/// Decides about single messages: sender, receiver, message.
pub type Filter<M> = Box<dyn FnMut(NodeId, NodeId, &M) -> Verdict>;

/// Makes the instance of a node for one incarnation. The number is a seed of its own.
pub type Build<P> = Box<dyn Fn(NodeId, Incarnation, u64) -> P>;

/// A cluster of instances of one protocol.
pub struct Cluster<P: Protocol> {
    /// What happens to messages and records. May be changed at any time.
    pub faults: Faults,
    /// Decides about single messages, before the faults do.
    pub filter: Option<Filter<P::Message>>,
    /// What happens from now on, if anybody wants to know.
    pub trace: Option<Vec<(Instant, Seen<P::Message>)>>,
    build: Build<P>,
    nodes: BTreeMap<NodeId, Node<P>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    queue: BTreeMap<(Instant, u64), Event>,
    replies: BTreeMap<(NodeId, Ticket), Reply>,
    rng: Rng,
    now: Instant,
    events: u64,
    tickets: u64,
}

struct Node<P: Protocol> {
    host: Option<Host<P>>,
    incarnation: Incarnation,
    checkpoint: Vec<Vec<u8>>,
    durable: Vec<Bytes>,
    pending: Vec<Appended>,
    disk_held: bool,
    /// Its timers do not run; it only reacts.
    timers_held: bool,
    /// It has taken inputs since its last turn ended.
    is_in_turn: bool,
    /// What these want done.
    output: Output,
    applied: Vec<ChangeBatch>,
    /// What the node's wall clock shows beyond the virtual time, in milliseconds.
    wall_offset: i64,
}

enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        incarnation: Incarnation,
        bytes: Bytes,
    },
    Durable {
        node: NodeId,
        incarnation: Incarnation,
        up_to: AppendSeq,
    },
    Wake {
        node: NodeId,
        incarnation: Incarnation,
    },
    EndTurn {
        node: NodeId,
        incarnation: Incarnation,
    },
    Peers {
        node: NodeId,
    },
}

impl<P: Protocol> Cluster<P> {
    /// A cluster of nodes 1 to `size`, all started.
    pub fn new(size: u32, seed: u64, build: impl Fn(NodeId, Incarnation, u64) -> P + 'static) -> Self {
        let mut cluster = Self {
            faults: Faults::default(),
            filter: None,
            trace: None,
            build: Box::new(build),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            queue: BTreeMap::new(),
            replies: BTreeMap::new(),
            rng: Rng::new(seed),
            now: Instant::from_nanos(1_000_000_000),
            events: 0,
            tickets: 0,
        };
        for id in 1..=size {
            let node = Node {
                host: None,
                incarnation: Incarnation(0),
                checkpoint: Vec::new(),
                durable: Vec::new(),
                pending: Vec::new(),
                disk_held: false,
                timers_held: false,
                is_in_turn: false,
                output: Output::default(),
                applied: Vec::new(),
                wall_offset: 0,
            };
            cluster.nodes.insert(NodeId(id), node);
        }
        for id in 1..=size {
            cluster.restart(NodeId(id));
        }
        cluster
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// All node ids.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Whether the node runs.
    #[must_use]
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].host.is_some()
    }

    /// The instance of a running node.
    ///
    /// # Panics
    /// If the node is down.
    #[must_use]
    pub fn protocol(&self, id: NodeId) -> &P {
        self.nodes[&id].host.as_ref().expect("the node is up").protocol()
    }

    /// What the node's instances, of all incarnations, have shown to watchers.
    #[must_use]
    pub fn applied(&self, id: NodeId) -> &[ChangeBatch] {
        &self.nodes[&id].applied
    }

    /// Number of records that would survive a crash of this node, since its last checkpoint.
    #[must_use]
    pub fn durable_records(&self, id: NodeId) -> usize {
        self.nodes[&id].durable.len()
    }

    /// The records that would survive a crash of this node, since its last checkpoint, encoded.
    #[must_use]
    pub fn disk(&self, id: NodeId) -> &[Bytes] {
        &self.nodes[&id].durable
    }

    fn node(&mut self, id: NodeId) -> &mut Node<P> {
        self.nodes.get_mut(&id).expect("the node exists")
    }

    fn clock(&self, id: NodeId) -> Now {
        let millis =
            1_700_000_000_000 + (self.now.as_nanos() / 1_000_000) as i64 + self.nodes[&id].wall_offset;
        Now {
            instant: self.now,
            wall: WallTime(millis.max(0) as u64),
        }
    }

    /// Starts a node from what its disk holds. Does nothing to a running one.
    ///
    /// # Panics
    /// If the instance refuses its own checkpoint or records.
    pub fn restart(&mut self, id: NodeId) {
        if self.is_up(id) {
            return;
        }
        let seed = self.rng.next_u64();
        let incarnation = self.nodes[&id].incarnation.next();
        let mut host = Host::new((self.build)(id, incarnation, seed));
        let node = self.node(id);
        node.incarnation = incarnation;
        node.disk_held = false;
        for chunk in &node.checkpoint {
            host.restore(chunk)
                .expect("an instance accepts its own checkpoint");
        }
        for record in &node.durable {
            host.replay(record).expect("an instance accepts its own records");
        }
        node.host = Some(host);
        self.input(id, GroupInput::Start);
        self.announce_peers();
    }

    /// Replaces the node's durable records by a checkpoint of its state, once everything is durable.
    ///
    /// # Panics
    /// If the node is down.
    pub fn checkpoint(&mut self, id: NodeId) {
        let written = self.run_until(Duration::from_secs(5), |cluster| {
            let node = &cluster.nodes[&id];
            node.pending.is_empty() && !node.is_in_turn
        });
        assert!(written, "the disk of {id} does not finish writing");
        let node = self.node(id);
        node.checkpoint = node.host.as_ref().expect("the node is up").checkpoint().collect();
        node.durable.clear();
    }

    fn announce_peers(&mut self) {
        for node in self.ids() {
            let delay = if self.now == Instant::from_nanos(1_000_000_000) {
                Duration::ZERO
            } else {
                PEER_TIMEOUT
            };
            self.schedule(delay, Event::Peers { node });
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + delay, self.events), event);
    }

    fn peer_view(&self, id: NodeId) -> PeerView {
        let linked = |other: NodeId| {
            self.is_up(other) && !self.cuts.contains(&(id, other)) && !self.cuts.contains(&(other, id))
        };
        let peers = self.nodes.iter().filter(|(other, _)| **other != id);
        PeerView {
            peers: peers
                .map(|(other, node)| {
                    (
                        *other,
                        Peer {
                            incarnation: node.incarnation,
                            connected: linked(*other),
                        },
                    )
                })
                .collect(),
        }
    }

    /// Hands one input to a running node. What it wants is carried out when its turn ends: after the other inputs of this
    /// moment, or later, as [`Faults::turn`] says.
    pub fn input(&mut self, id: NodeId, input: GroupInput) {
        let now = self.clock(id);
        let node = self.node(id);
        let Some(host) = node.host.as_mut() else { return };
        host.step(now, input, &mut node.output);
        assert_eq!(node.output.rejected, None, "our own messages decode");
        let incarnation = node.incarnation;
        if !std::mem::replace(&mut node.is_in_turn, true) {
            self.schedule_end_turn(id, incarnation);
        }
    }

    fn schedule_end_turn(&mut self, id: NodeId, incarnation: Incarnation) {
        let delay = if self.faults.turn.is_zero() {
            Duration::ZERO
        } else {
            self.rng.between(Duration::ZERO, self.faults.turn)
        };
        self.schedule(
            delay,
            Event::EndTurn {
                node: id,
                incarnation,
            },
        );
    }

    /// Ends the turn of a node, and carries out what it wants.
    fn end_turn(&mut self, id: NodeId, incarnation: Incarnation) {
        let now = self.clock(id);
        let node = self.node(id);
        let Some(host) = node.host.as_mut().filter(|_| node.incarnation == incarnation) else {
            return;
        };
        if host.wake_at() <= now.instant && !node.timers_held {
            host.step(now, GroupInput::Wake, &mut node.output);
        }
        host.step(now, GroupInput::EndTurn, &mut node.output);
        node.is_in_turn = host.goes_on();
        let goes_on = node.is_in_turn;
        let wake_at = host.wake_at();
        let mut output = std::mem::take(&mut node.output);
        node.pending.append(&mut output.records);
        node.applied.append(&mut output.applied);
        for (ticket, reply) in output.replies {
            self.saw(|| Seen::Answer {
                node: id,
                ticket,
                reply: reply.clone(),
            });
            let doubled = self.replies.insert((id, ticket), reply);
            assert_eq!(doubled, None, "proposal {ticket} at {id} was answered twice");
        }
        for message in output.sends {
            self.transmit(id, message);
        }
        self.schedule_durable(id);
        if wake_at != Instant::NEVER {
            self.schedule(
                wake_at.since(self.now),
                Event::Wake {
                    node: id,
                    incarnation,
                },
            );
        }
        if goes_on {
            self.schedule_end_turn(id, incarnation);
        }
    }

    fn saw(&mut self, seen: impl FnOnce() -> Seen<P::Message>) {
        if let Some(trace) = self.trace.as_mut() {
            trace.push((self.now, seen()));
        }
    }

    fn saw_message(&mut self, from: NodeId, to: NodeId, bytes: &Bytes, arrived: bool) {
        self.saw(|| Seen::Message {
            from,
            to,
            message: codec::decode(bytes).expect("our own messages decode"),
            arrived,
        });
    }

    fn schedule_durable(&mut self, id: NodeId) {
        let (low, high) = self.faults.disk;
        let delay = self.rng.between(low, high);
        let node = &self.nodes[&id];
        if node.disk_held {
            return;
        }
        if let Some(last) = node.pending.last() {
            let (incarnation, up_to) = (node.incarnation, last.seq);
            self.schedule(
                delay,
                Event::Durable {
                    node: id,
                    incarnation,
                    up_to,
                },
            );
        }
    }

    fn transmit(&mut self, from: NodeId, outgoing: Outgoing) {
        let to = outgoing.to;
        assert!(self.nodes.contains_key(&to) && to != from, "{from} sends to {to}");
        let message: P::Message = codec::decode(&outgoing.bytes).expect("our own messages decode");
        let verdict = self
            .filter
            .as_mut()
            .map_or(Verdict::Deliver, |filter| filter(from, to, &message));
        let extra = match verdict {
            Verdict::Drop => return self.saw_message(from, to, &outgoing.bytes, false),
            Verdict::Deliver => Duration::ZERO,
            Verdict::Delay(extra) => extra,
        };
        if self.rng.per_mille(self.faults.loss) {
            return self.saw_message(from, to, &outgoing.bytes, false);
        }
        let copies = 1 + u32::from(self.rng.per_mille(self.faults.duplication));
        for _ in 0..copies {
            let (low, high) = self.faults.delay;
            let delay = self.rng.between(low, high) + extra;
            let incarnation = self.nodes[&to].incarnation;
            self.schedule(
                delay,
                Event::Deliver {
                    from,
                    to,
                    incarnation,
                    bytes: outgoing.bytes.clone(),
                },
            );
        }
    }

    /// Handles the next event; `false` if there is none until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some(entry) = self.queue.first_entry() else {
            return false;
        };
        if entry.key().0 > end {
            return false;
        }
        let ((at, _), event) = entry.remove_entry();
        self.now = self.now.max(at);
        match event {
            Event::Deliver {
                from,
                to,
                incarnation,
                bytes,
            } => {
                // A connection does not outlive the process it leads to; a cut swallows what is in flight.
                let node = &self.nodes[&to];
                let arrived = node.host.is_some()
                    && node.incarnation == incarnation
                    && !self.cuts.contains(&(from, to));
                self.saw_message(from, to, &bytes, arrived);
                if arrived {
                    self.input(to, GroupInput::Receive { from, bytes });
                }
            }
            Event::Durable {
                node: id,
                incarnation,
                up_to,
            } => self.make_durable(id, incarnation, up_to),
            Event::Wake {
                node: id,
                incarnation,
            } => {
                let node = &self.nodes[&id];
                let at = node.host.as_ref().map_or(Instant::NEVER, Host::wake_at);
                if node.incarnation == incarnation && at <= self.now && !node.timers_held {
                    self.input(id, GroupInput::Wake);
                }
            }
            Event::EndTurn { node, incarnation } => self.end_turn(node, incarnation),
            Event::Peers { node } => {
                let view = self.peer_view(node);
                self.input(node, GroupInput::Peers(view));
            }
        }
        true
    }

    fn make_durable(&mut self, id: NodeId, incarnation: Incarnation, up_to: AppendSeq) {
        let node = self.node(id);
        let newest = node
            .pending
            .iter()
            .take_while(|record| record.seq <= up_to)
            .count();
        if node.incarnation != incarnation || node.disk_held || newest == 0 {
            return;
        }
        let records: Vec<Bytes> = node.pending.drain(..newest).map(|record| record.bytes).collect();
        node.durable.extend(records);
        self.input(id, GroupInput::Persisted { up_to });
    }

    /// Lets happen what happens at this very moment: open turns end, and those who asked for it at once are answered.
    pub fn catch_up(&mut self) {
        self.run_for(Duration::ZERO);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until no message is under way, no disk that is not held has anything to sync, and no node has
    /// more to do at once. At most for `time`; returns whether it came to that.
    pub fn run_until_quiet(&mut self, time: Duration) -> bool {
        self.run_until(time, |cluster| {
            let now = cluster.now;
            !cluster.queue.iter().any(|((at, _), event)| match event {
                Event::Deliver { .. } | Event::Durable { .. } | Event::EndTurn { .. } => true,
                Event::Wake { node, incarnation } => {
                    *at <= now && cluster.is_up(*node) && cluster.nodes[node].incarnation == *incarnation
                }
                Event::Peers { .. } => false,
            })
        })
    }

    /// Lets time pass until `done` holds, at most for `time`. Returns whether it holds.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    /// Puts a request to a node; the answer will be at [`Cluster::reply`].
    pub fn propose(&mut self, id: NodeId, request: Request, timeout: Duration) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let deadline = self.now + timeout;
        self.input(
            id,
            GroupInput::Propose(Proposal {
                ticket,
                deadline,
                request,
            }),
        );
        ticket
    }

    /// The answer to a proposal, if it has come.
    #[must_use]
    pub fn reply(&self, id: NodeId, ticket: Ticket) -> Option<&Reply> {
        self.replies.get(&(id, ticket))
    }
}
