//! Clusters of members in virtual time: the harness of the tests, and of the campaign `cargo xtask sim swim`.
//!
//! Messages take time, are lost, and do not cross a network partition. A *paused* node does nothing: what it is sent waits, and
//! when it goes on, its overdue timers come before what waits, as on a machine that was starved. Nothing else is imitated;
//! the members are the shipped ones. One seed gives one run.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Instant, Lane, NodeId, Now, Rng};

use crate::authority::{Authority, Statement};
use crate::config::Config;
use crate::effects::{Effects, Event, Input, Outgoing, Persist};
use crate::membership::Membership;
use crate::message::{Detail, Message, Update};
use crate::record::Record;
use crate::standing::{Incarnation, Standing, State};

/// Signs with a number that everybody knows: enough to tell a signature from none.
#[derive(Clone, Copy, Debug)]
pub struct ToyAuthority;

impl ToyAuthority {
    /// The signature of a statement.
    #[must_use]
    pub fn signature(statement: &Statement) -> Bytes {
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&statement.bytes(), 42);
        Bytes::copy_from_slice(&sum.to_le_bytes())
    }
}

impl Authority for ToyAuthority {
    fn sign(&self, leave: &Statement) -> Option<Bytes> {
        Some(Self::signature(leave))
    }

    fn verify(&self, statement: &Statement, signature: &[u8]) -> bool {
        Self::signature(statement) == signature
    }
}

/// The network between members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Net {
    /// Shortest one-way delay.
    pub latency_min: Duration,
    /// Longest one-way delay.
    pub latency_max: Duration,
    /// Datagrams lost, per mille. Streams lose nothing but to a partition.
    pub loss_per_mille: u32,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_millis(2),
            latency_max: Duration::from_millis(10),
            loss_per_mille: 0,
        }
    }
}

/// How many bytes left in one second of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Of all nodes.
    pub bytes: u64,
    /// Messages of all nodes.
    pub messages: u64,
}

/// A change of what a node believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// Who believes it.
    pub observer: NodeId,
    /// Of whom.
    pub node: NodeId,
    /// What.
    pub standing: Standing,
}

/// What one node's disk holds.
#[derive(Clone, Debug, Default)]
struct Disk {
    epoch: u64,
    /// Shared: all start from the same list.
    saved: Arc<Vec<Update>>,
}

#[derive(Debug)]
struct Simulated {
    member: Option<Membership>,
    disk: Disk,
    /// Paused until then; what it is sent waits.
    paused: Option<Instant>,
    waiting: VecDeque<Input>,
    /// The wake-up that counts; others in the queue are outdated.
    wake: Instant,
    /// Run of the process: what was sent to a former one is lost.
    run: u32,
    side: u8,
    left: bool,
    evicted: bool,
    config: Config,
}

#[derive(Debug)]
enum Happening {
    Deliver {
        to: usize,
        from: NodeId,
        lane: Lane,
        message: Box<Message>,
    },
    Wake {
        node: usize,
    },
    Persisted {
        node: usize,
        run: u32,
        epoch: u64,
    },
    Resume {
        node: usize,
    },
}

#[derive(Debug)]
struct Queued {
    at: Instant,
    number: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A cluster. Nodes are numbered from 1.
#[derive(Debug)]
pub struct World {
    /// The network; may be changed at any time.
    pub net: Net,
    /// Changes since the last look; see [`World::record_changes`].
    pub changes: Vec<Change>,
    nodes: Vec<Simulated>,
    queue: BinaryHeap<Reverse<Queued>>,
    numbers: u64,
    now: Instant,
    rng: Rng,
    seconds: Vec<Second>,
    largest: usize,
    kinds: BTreeMap<&'static str, u64>,
    recorded: Option<fn(&Change) -> bool>,
    encodes: bool,
    /// Who was not up to date when [`World::is_whole`] looked last.
    lagging: Cell<usize>,
}

impl World {
    /// A cluster without nodes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            net: Net::default(),
            changes: Vec::new(),
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            numbers: 0,
            now: Instant::ZERO,
            rng: Rng::new(seed),
            seconds: Vec::new(),
            largest: 0,
            kinds: BTreeMap::new(),
            recorded: None,
            encodes: false,
            lagging: Cell::new(0),
        }
    }

    /// A cluster of that many members that know each other, in epoch 2, and run.
    #[must_use]
    pub fn founded(size: u32, seed: u64, adjust: impl Fn(&mut Config)) -> Self {
        let mut world = Self::new(seed);
        let records: Vec<Arc<Record>> = (1..=size).map(|node| Arc::new(record(NodeId(node)))).collect();
        let standing = Standing::new(Incarnation::first(2), State::Alive);
        let saved = records.iter().map(|record| Update {
            node: record.node,
            standing,
            detail: Detail::Record(record.clone()),
        });
        let saved = Arc::new(saved.collect::<Vec<_>>());
        for record in &records {
            world.add(Record::clone(record), &adjust);
            if let Some(node) = world.nodes.last_mut() {
                node.disk = Disk {
                    epoch: 1,
                    saved: saved.clone(),
                };
            }
        }
        for node in 0..world.nodes.len() {
            world.start(id(node));
        }
        // Their epochs become durable.
        world.run(Duration::from_millis(10));
        world
    }

    /// Adds a node with an empty disk; it does not run yet.
    pub fn add(&mut self, record: Record, adjust: &impl Fn(&mut Config)) -> NodeId {
        let node = id(self.nodes.len());
        let mut config = Config::new(Record { node, ..record }, 0);
        adjust(&mut config);
        self.nodes.push(Simulated {
            member: None,
            disk: Disk::default(),
            paused: None,
            waiting: VecDeque::new(),
            wake: Instant::NEVER,
            run: 0,
            side: 0,
            left: false,
            evicted: false,
            config,
        });
        node
    }

    /// Every message goes through the codec, and its estimated size is compared.
    pub fn encode_all(&mut self) {
        self.encodes = true;
    }

    /// Keeps the changes that this function wants.
    pub fn record_changes(&mut self, which: fn(&Change) -> bool) {
        self.recorded = Some(which);
        self.changes.clear();
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, node: NodeId) {
        let random_seed = self.rng.next_u64();
        let simulated = &mut self.nodes[index(node)];
        let config = Config {
            random_seed,
            ..simulated.config.clone()
        };
        let disk = &simulated.disk;
        let member = Membership::new(config, Box::new(ToyAuthority), disk.epoch, &disk.saved);
        simulated.member = Some(member);
        simulated.run += 1;
        simulated.left = false;
        simulated.evicted = false;
        simulated.paused = None;
        self.input(index(node), Input::Start);
    }

    /// Ends a node's process at once.
    pub fn crash(&mut self, node: NodeId) {
        let simulated = &mut self.nodes[index(node)];
        simulated.member = None;
        simulated.waiting.clear();
        simulated.wake = Instant::NEVER;
    }

    /// Lets a node do nothing for so long.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        let until = self.now + time;
        self.nodes[index(node)].paused = Some(until);
        self.schedule(until, Happening::Resume { node: index(node) });
    }

    /// Puts nodes on another side: nothing crosses.
    pub fn partition(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        for node in nodes {
            self.nodes[index(node)].side = 1;
        }
    }

    /// Ends every partition.
    pub fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.side = 0);
    }

    /// Gives a node an input of its host.
    pub fn give(&mut self, node: NodeId, input: Input) {
        self.input(index(node), input);
    }

    /// Delivers a message that nobody of the cluster sent.
    pub fn forge(&mut self, from: NodeId, to: NodeId, message: Message) {
        let lane = Lane::Datagram;
        self.input(index(to), Input::Receive { from, lane, message });
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// All nodes, whether they run or not.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(id)
    }

    /// A running node.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Membership> {
        self.nodes[index(node)].member.as_ref()
    }

    /// All running nodes.
    pub fn running(&self) -> impl Iterator<Item = &Membership> {
        self.nodes.iter().filter_map(|node| node.member.as_ref())
    }

    /// Whether a node's process has said that it left.
    #[must_use]
    pub fn has_left(&self, node: NodeId) -> bool {
        self.nodes[index(node)].left
    }

    /// Whether a node's process has said that it was evicted.
    #[must_use]
    pub fn is_evicted(&self, node: NodeId) -> bool {
        self.nodes[index(node)].evicted
    }

    /// The epoch on a node's disk.
    #[must_use]
    pub fn durable_epoch(&self, node: NodeId) -> u64 {
        self.nodes[index(node)].disk.epoch
    }

    /// What left, by seconds of the run.
    #[must_use]
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// The largest datagram so far, in bytes.
    #[must_use]
    pub fn largest_datagram(&self) -> usize {
        self.largest
    }

    /// Messages of each kind so far.
    #[must_use]
    pub fn kinds(&self) -> &BTreeMap<&'static str, u64> {
        &self.kinds
    }

    /// Whether every running node believes every running one alive, in its present incarnation's epoch, and no other one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let count = self.running().count();
        let counts = self.running();
        let mut counts = counts.map(|observer| observer.status().counts[State::Alive as usize]);
        if counts.any(|alive| alive != count) {
            return false;
        }
        // From the one on that did not see all the last time: it is the one to wait for.
        let from = self.lagging.get().min(self.nodes.len());
        let lagging = (from..self.nodes.len()).chain(0..from).find(|index| {
            let member = self.nodes[*index].member.as_ref();
            member.is_some_and(|observer| !self.sees_all(observer))
        });
        self.lagging.set(lagging.unwrap_or(from));
        lagging.is_none()
    }

    fn sees_all(&self, observer: &Membership) -> bool {
        let running = self.nodes.iter().filter_map(|node| node.member.as_ref());
        let mut count = 0;
        for member in running {
            count += 1;
            let expected = Standing::new(member.status().incarnation, State::Alive);
            let standing = observer.standing(member.node());
            let is_alive = standing.is_some_and(|standing| {
                standing.state() == State::Alive
                    && standing.incarnation().epoch == expected.incarnation().epoch
            });
            if !is_alive {
                return false;
            }
        }
        observer.status().counts[State::Alive as usize] == count
    }

    /// Runs for so long.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|next| next.0.at <= end) {
            self.happen();
        }
        self.now = end;
    }

    /// Runs until this holds, looking every 50 ms; how long it took, or `None` if it took longer than `most`.
    pub fn run_until(&mut self, most: Duration, holds: impl Fn(&World) -> bool) -> Option<Duration> {
        let begin = self.now;
        while !holds(self) {
            if self.now.since(begin) >= most {
                return None;
            }
            self.run(Duration::from_millis(50));
        }
        Some(self.now.since(begin))
    }

    fn happen(&mut self) {
        let Some(Reverse(next)) = self.queue.pop() else {
            return;
        };
        self.now = next.at;
        match next.what {
            Happening::Deliver {
                to,
                from,
                lane,
                message,
            } => {
                let is_cut = self.nodes[to].side != self.nodes[index(from)].side;
                let is_lost = lane == Lane::Datagram && self.rng.per_mille(self.net.loss_per_mille);
                if !is_cut && !is_lost {
                    self.input(
                        to,
                        Input::Receive {
                            from,
                            lane,
                            message: *message,
                        },
                    );
                }
            }
            Happening::Wake { node } => {
                if self.nodes[node].wake == next.at {
                    self.nodes[node].wake = Instant::NEVER;
                    self.input(node, Input::Wake);
                }
            }
            Happening::Persisted { node, run, epoch } => {
                if self.nodes[node].run == run {
                    self.nodes[node].disk.epoch = epoch;
                    self.input(node, Input::EpochPersisted(epoch));
                }
            }
            Happening::Resume { node } => self.resume(node),
        }
    }

    /// A paused node goes on: first what its timers say, then what it was sent.
    fn resume(&mut self, node: usize) {
        if self.nodes[node].paused != Some(self.now) {
            return;
        }
        self.nodes[node].paused = None;
        let mut waiting = std::mem::take(&mut self.nodes[node].waiting);
        if let Some(at) = waiting.iter().position(|input| matches!(input, Input::Wake)) {
            waiting.remove(at);
            self.input(node, Input::Wake);
        }
        waiting.retain(|input| !matches!(input, Input::Wake));
        for input in waiting {
            self.input(node, input);
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        /// What a socket's buffer holds; more is lost.
        const WAITING_MAX: usize = 4096;
        let simulated = &mut self.nodes[node];
        let Some(member) = &mut simulated.member else {
            return;
        };
        if simulated.paused.is_some() {
            if simulated.waiting.len() < WAITING_MAX || matches!(input, Input::Wake) {
                simulated.waiting.push_back(input);
            }
            return;
        }
        let mut effects = Effects::default();
        let now = Now {
            instant: self.now,
            ..Now::default()
        };
        member.step(now, input, &mut effects);
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: usize, effects: Effects) {
        for persist in effects.persists {
            match persist {
                Persist::Epoch(epoch) => {
                    let at = self.now
                        + self
                            .rng
                            .between(Duration::from_millis(1), Duration::from_millis(5));
                    let run = self.nodes[node].run;
                    self.schedule(at, Happening::Persisted { node, run, epoch });
                }
                Persist::Members(members) => self.nodes[node].disk.saved = Arc::new(members),
            }
        }
        for event in effects.events {
            match event {
                Event::Left => self.nodes[node].left = true,
                Event::Evicted(_) => self.nodes[node].evicted = true,
                Event::Changed {
                    node: about,
                    standing,
                    ..
                } => {
                    let change = Change {
                        at: self.now,
                        observer: id(node),
                        node: about,
                        standing,
                    };
                    if self.recorded.is_some_and(|wanted| wanted(&change)) {
                        self.changes.push(change);
                    }
                }
                _ => {}
            }
        }
        for outgoing in effects.sends {
            self.post(node, outgoing);
        }
        if let Some(wake) = effects.wake
            && wake != self.nodes[node].wake
        {
            self.nodes[node].wake = wake;
            if wake != Instant::NEVER {
                self.schedule(wake.max(self.now), Happening::Wake { node });
                self.nodes[node].wake = wake.max(self.now);
            }
        }
    }

    fn post(&mut self, from: usize, outgoing: Outgoing) {
        use trilemma_core::Message as _;
        let Outgoing { to, lane, message } = outgoing;
        let size = message.size();
        if lane == Lane::Datagram {
            self.largest = self.largest.max(size);
        }
        *self.kinds.entry(message.kind()).or_default() += 1;
        let second = (self.now.as_nanos() / 1_000_000_000) as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        self.seconds[second].bytes += size as u64;
        self.seconds[second].messages += 1;
        let message = if self.encodes {
            through_codec(&message, size)
        } else {
            message
        };
        if index(to) >= self.nodes.len() || self.nodes[index(to)].member.is_none() {
            return;
        }
        let at = self.now + self.rng.between(self.net.latency_min, self.net.latency_max);
        self.schedule(
            at,
            Happening::Deliver {
                to: index(to),
                from: id(from),
                lane,
                message: Box::new(message),
            },
        );
    }

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.numbers += 1;
        let number = self.numbers;
        self.queue.push(Reverse(Queued { at, number, what }));
    }
}

/// The record of a node of a simulated cluster.
#[must_use]
pub fn record(node: NodeId) -> Record {
    Record {
        zone: format!("zone-{}", node.0 % 3),
        ..Record::new(
            node,
            format!(
                "10.{}.{}.{}:4242",
                node.0 >> 16,
                (node.0 >> 8) & 255,
                node.0 & 255
            ),
        )
    }
}

fn through_codec(message: &Message, size: usize) -> Message {
    let bytes = trilemma_core::codec::encode(message);
    assert!(
        bytes.len() <= size,
        "{} bytes, estimated {size}: {message:?}",
        bytes.len()
    );
    match trilemma_core::codec::decode(&bytes) {
        Ok(decoded) => decoded,
        Err(error) => panic!("{error}: {message:?}"),
    }
}

fn id(index: usize) -> NodeId {
    NodeId(index as u32 + 1)
}

fn index(node: NodeId) -> usize {
    (node.0 as usize).wrapping_sub(1)
}
