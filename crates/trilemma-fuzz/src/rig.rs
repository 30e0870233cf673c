//! A small cluster of one protocol whose every event is a choice of the input.
//!
//! It keeps the contract of `trilemma_core::protocol` towards the instances but for one thing: a peer's messages may be
//! changed ([`crate::mutate`]) and come at any time. Nothing about agreement is asserted, as a peer that lies is
//! outside of what these protocols withstand; asserted is what every node owes its own process:
//!
//! - no panic, and a bounded number of messages and records in one turn;
//! - a proposal is answered at most once;
//! - what it sends and logs decodes again, within the limits of the other side's decoder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::host::{Appended, Group, GroupInput, Host, Outgoing, Output};
use trilemma_core::protocol::Peer;
use trilemma_core::{
    Attempt, Command, Corrupt, Entry, Guard, Incarnation, Instant, Key, KeyRange, Mutation, NodeId, Now,
    OpId, PeerView, Proposal, Query, ReadLevel, ReadRequest, Request, SessionId, Ticket, Version, WallTime,
    codec,
};
use trilemma_gossip::{self as gossip, Gossip, GossipConfig};
use trilemma_paxos::{self as paxos, Paxos, PaxosConfig};
use trilemma_raft::{self as raft, Raft, RaftConfig};
use trilemma_two_phase::{self as two_phase, TwoPhase, TwoPhaseConfig};

use crate::mutate::mutated;
use crate::source::Source;

/// Nodes of a rig.
const NODES: u32 = 3;
/// Messages under way; older ones are lost.
const QUEUE_MAX: usize = 512;
/// Inputs of the longest turn.
const TURN_MAX: usize = 3;
/// Messages and records that one turn may cause. Far above what the configured batches and pages come to.
const EFFECTS_MAX: usize = 20_000;

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Raft.
    Raft,
    /// CASPaxos.
    Paxos,
    /// Gossip.
    Gossip,
    /// Two-phase commit.
    TwoPhase,
}

impl Kind {
    /// All protocols.
    pub const ALL: [Kind; 4] = [Kind::Raft, Kind::Paxos, Kind::Gossip, Kind::TwoPhase];

    /// An instance for one life of `node`, with limits so small that a short run meets them.
    #[must_use]
    pub fn build(self, node: NodeId, life: Incarnation) -> Box<dyn Group> {
        let members = (1..=NODES).map(NodeId);
        let seed = u64::from(node.0) << 32 | life.0;
        match self {
            Kind::Raft => {
                let mut config = RaftConfig::new(node, members, seed);
                (config.kept_entries, config.kept_bytes, config.pinned_bytes_max) = (8, 4096, 4096);
                config.append_entries_max = 4;
                config.sessions_max = 4;
                Box::new(Host::new(Raft::new(config)))
            }
            Kind::Paxos => {
                let mut config = PaxosConfig::new(node, members, life, seed);
                (config.recent_max, config.combine_max) = (4, 2);
                (config.sync_page_max, config.cache_max) = (1, 4);
                Box::new(Host::new(Paxos::new(config)))
            }
            Kind::Gossip => {
                let mut config = GossipConfig::new(node, life, members, seed);
                config.tombstone_age_min = Duration::from_millis(100);
                config.sync_ticks = 2;
                config.page_bytes = 256;
                (config.deferred_max, config.rumors_max) = (8, 16);
                config.sessions_max = 4;
                Box::new(Host::new(Gossip::new(config)))
            }
            Kind::TwoPhase => {
                let mut config = TwoPhaseConfig::new(node, members, life, seed);
                config.batch_bytes = 512;
                config.sessions_max = 4;
                Box::new(Host::new(TwoPhase::new(config)))
            }
        }
    }

    /// Whether `bytes` decode as a message.
    pub fn check_message(self, bytes: &[u8]) -> Result<(), codec::DecodeError> {
        match self {
            Kind::Raft => codec::decode::<raft::Message>(bytes).map(drop),
            Kind::Paxos => codec::decode::<paxos::Message>(bytes).map(drop),
            Kind::Gossip => codec::decode::<gossip::Message>(bytes).map(drop),
            Kind::TwoPhase => codec::decode::<two_phase::Message>(bytes).map(drop),
        }
    }

    /// Whether `bytes` decode as a record.
    pub fn check_record(self, bytes: &[u8]) -> Result<(), codec::DecodeError> {
        match self {
            Kind::Raft => codec::decode::<raft::Record>(bytes).map(drop),
            Kind::Paxos => codec::decode::<paxos::Record>(bytes).map(drop),
            Kind::Gossip => codec::decode::<gossip::Record>(bytes).map(drop),
            Kind::TwoPhase => codec::decode::<two_phase::Record>(bytes).map(drop),
        }
    }
}

/// What a rig has seen, as samples for mutations.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Messages, by the name of their kind.
    pub messages: BTreeMap<&'static str, Vec<Bytes>>,
    /// Records of one life at a time: what a node would replay.
    pub logs: Vec<Vec<Bytes>>,
    /// Checkpoints as chunks.
    pub checkpoints: Vec<Vec<Vec<u8>>>,
}

struct Node {
    life: Incarnation,
    group: Option<Box<dyn Group>>,
    checkpoint: Vec<Vec<u8>>,
    durable: Vec<Bytes>,
    pending: Vec<Appended>,
    open: BTreeSet<Ticket>,
    /// What the present turn wants done, the inputs that it took, and how many it will take.
    output: Output,
    inputs: usize,
    turn: usize,
}

/// See the module.
pub struct Rig {
    kind: Kind,
    nodes: Vec<Node>,
    queue: VecDeque<(NodeId, NodeId, Bytes)>,
    nanos: u64,
    tickets: u64,
    /// What was seen, if it is to be kept.
    pub seen: Option<Seen>,
}

impl Rig {
    /// A cluster that has just started.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self::from_disk(kind, Incarnation(1), Vec::new(), Vec::new()).expect("an empty disk is consistent")
    }

    /// A cluster in its lives after `life`, of which the first node starts from this checkpoint and these records.
    pub fn from_disk(
        kind: Kind,
        life: Incarnation,
        checkpoint: Vec<Vec<u8>>,
        records: Vec<Bytes>,
    ) -> Result<Self, Corrupt> {
        let node = |_| Node {
            life,
            group: None,
            checkpoint: Vec::new(),
            durable: Vec::new(),
            pending: Vec::new(),
            open: BTreeSet::new(),
            output: Output::default(),
            inputs: 0,
            turn: 1,
        };
        let mut rig = Self {
            kind,
            nodes: (0..NODES).map(node).collect(),
            queue: VecDeque::new(),
            nanos: 1_000_000_000,
            tickets: 0,
            seen: None,
        };
        (rig.nodes[0].checkpoint, rig.nodes[0].durable) = (checkpoint, records);
        for place in 0..rig.nodes.len() {
            rig.restart(place)?;
        }
        Ok(rig)
    }

    /// A checkpoint of the first node, and the entries that it shows.
    #[must_use]
    pub fn state(&self) -> (Vec<Vec<u8>>, Vec<Entry>) {
        let group = self.nodes[0].group.as_ref();
        group.map_or_else(Default::default, |group| {
            (
                group.checkpoint().collect(),
                group.scan(&KeyRange::all(), usize::MAX),
            )
        })
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_nanos(self.nanos),
            wall: WallTime(1_700_000_000_000 + self.nanos / 1_000_000),
        }
    }

    /// Whether any node shows an entry.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        let running = self.nodes.iter().filter_map(|node| node.group.as_ref());
        running
            .into_iter()
            .any(|group| !group.scan(&KeyRange::all(), 1).is_empty())
    }

    /// Lets one thing happen. Messages are changed only if there are `samples` to take pieces from.
    ///
    /// # Panics
    /// If a node owes its process something. See the module.
    pub fn act(&mut self, source: &mut Source<'_>, samples: &[Bytes]) {
        let place = source.below(self.nodes.len());
        match source.below(16) {
            0..=4 => self.deliver(source),
            5..=7 if !samples.is_empty() => {
                let message = mutated(source, samples);
                let from = self.other(place, source);
                self.input(
                    place,
                    GroupInput::Receive {
                        from,
                        bytes: message.into(),
                    },
                );
            }
            8 if !samples.is_empty() => {
                // One that was just sent fits the state best.
                if let Some((from, to, bytes)) = self.queue.pop_back() {
                    let message = mutated(source, &[bytes]);
                    self.input(
                        to.0 as usize - 1,
                        GroupInput::Receive {
                            from,
                            bytes: message.into(),
                        },
                    );
                }
            }
            9 | 10 => {
                let request = request(source, self.tickets);
                self.propose(place, request, source.below(2000) as u64);
            }
            11 => self.pass(source),
            12 | 5..=8 => self.persist(place, source.below(4) == 3),
            13 => self.connect(place, source.byte()),
            14 => self.rare(place, source),
            _ => {
                for _ in 0..8 {
                    self.deliver(source);
                    (0..self.nodes.len()).for_each(|place| self.persist(place, false));
                }
            }
        }
    }

    fn rare(&mut self, place: usize, source: &mut Source<'_>) {
        match source.below(8) {
            0 | 1 => {
                let node = &mut self.nodes[place];
                let kept = source.below(node.pending.len() + 1);
                let kept = node.pending.drain(..).take(kept);
                node.durable.extend(kept.map(|record| record.bytes));
                node.group = None;
                self.restart(place)
                    .expect("what it has logged itself is consistent");
            }
            2..=4 => self.checkpoint(place),
            5 => self.queue.clear(),
            6 => {
                if let Some(message) = self.queue.front().cloned() {
                    self.queue.push_back(message);
                }
            }
            _ => {
                if let Some(group) = &self.nodes[place].group {
                    let status = group.status(self.now());
                    let entries = group.scan(&KeyRange::all(), 100);
                    assert!(
                        entries.is_sorted_by(|a, b| a.key < b.key),
                        "{status:?} {entries:?}"
                    );
                }
            }
        }
    }

    fn other(&self, place: usize, source: &mut Source<'_>) -> NodeId {
        let step = 1 + source.below(self.nodes.len() - 1);
        NodeId(((place + step) % self.nodes.len()) as u32 + 1)
    }

    /// Delivers one of the oldest messages.
    fn deliver(&mut self, source: &mut Source<'_>) {
        // The oldest one mostly; sometimes another one overtakes it.
        let choice = source.byte();
        let place = if choice < 192 {
            0
        } else {
            usize::from(choice) % self.queue.len().max(1)
        };
        if let Some((from, to, bytes)) = self.queue.remove(place) {
            self.input(to.0 as usize - 1, GroupInput::Receive { from, bytes });
        }
    }

    fn propose(&mut self, place: usize, request: Request, timeout_ms: u64) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.nodes[place].open.insert(ticket);
        let deadline = self.now().instant + Duration::from_millis(timeout_ms);
        let proposal = Proposal {
            ticket,
            deadline,
            request,
        };
        self.input(place, GroupInput::Propose(proposal));
    }

    /// Lets time pass and wakes who wants to be woken.
    fn pass(&mut self, source: &mut Source<'_>) {
        const MILLIS: [u64; 8] = [0, 0, 1, 10, 60, 160, 500, 3000];
        self.nanos += *source.pick(&MILLIS) * 1_000_000;
        for place in 0..self.nodes.len() {
            let now = self.now().instant;
            let group = self.nodes[place].group.as_deref();
            if group.is_some_and(|group| group.wake_at() <= now) {
                self.input(place, GroupInput::Wake);
            }
            self.end_turn(place);
        }
    }

    fn persist(&mut self, place: usize, only_one: bool) {
        let node = &mut self.nodes[place];
        let count = if only_one {
            node.pending.len().min(1)
        } else {
            node.pending.len()
        };
        let Some(up_to) = node.pending[..count].last().map(|record| record.seq) else {
            return;
        };
        let durable = node.pending.drain(..count).map(|record| record.bytes);
        node.durable.extend(durable);
        self.input(place, GroupInput::Persisted { up_to });
    }

    fn connect(&mut self, place: usize, connected: u8) {
        let mut view = PeerView::default();
        for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != place) {
            let peer = Peer {
                incarnation: node.life,
                connected: connected >> (2 * other) & 3 != 3,
            };
            view.peers.insert(NodeId(other as u32 + 1), peer);
        }
        self.input(place, GroupInput::Peers(view));
    }

    fn checkpoint(&mut self, place: usize) {
        self.end_turn(place);
        self.persist(place, false);
        self.end_turn(place);
        let node = &mut self.nodes[place];
        let Some(group) = node.group.as_ref().filter(|_| node.pending.is_empty()) else {
            return;
        };
        node.checkpoint = group.checkpoint().collect();
        let log = std::mem::take(&mut node.durable);
        if let Some(seen) = &mut self.seen {
            seen.checkpoints.push(node.checkpoint.clone());
            seen.logs.push(log);
        }
    }

    fn restart(&mut self, place: usize) -> Result<(), Corrupt> {
        let node = &mut self.nodes[place];
        node.life = node.life.next();
        node.pending.clear();
        node.open.clear();
        node.output.clear();
        node.inputs = 0;
        let mut group = self.kind.build(NodeId(place as u32 + 1), node.life);
        for chunk in &node.checkpoint {
            group.restore(chunk)?;
        }
        for record in &node.durable {
            group.replay(record)?;
        }
        node.group = Some(group);
        self.input(place, GroupInput::Start);
        Ok(())
    }

    fn input(&mut self, place: usize, input: GroupInput) {
        let now = self.now();
        let node = &mut self.nodes[place];
        let Some(group) = &mut node.group else {
            return;
        };
        group.step(now, input, &mut node.output);
        node.inputs += 1;
        if node.inputs >= node.turn {
            node.turn = node.turn % TURN_MAX + 1;
            self.end_turn(place);
        }
    }

    /// Ends a node's turn, and carries out what it wants.
    fn end_turn(&mut self, place: usize) {
        let now = self.now();
        let node = &mut self.nodes[place];
        let Some(group) = &mut node.group else {
            return;
        };
        group.step(now, GroupInput::EndTurn, &mut node.output);
        node.inputs = 0;
        let mut output = std::mem::take(&mut node.output);
        for (ticket, reply) in output.replies.drain(..) {
            assert!(
                node.open.remove(&ticket),
                "{ticket} is answered again, with {reply:?}"
            );
        }
        let effects = output.records.len() + output.sends.len() + output.applied.len();
        assert!(effects <= EFFECTS_MAX, "one turn caused {effects} effects");
        for record in output.records.drain(..) {
            let decoded = self.kind.check_record(&record.bytes);
            assert_eq!(decoded, Ok(()), "a record of our own");
            node.pending.push(record);
        }
        let from = NodeId(place as u32 + 1);
        for message in output.sends.drain(..) {
            self.send(from, message);
        }
        output.clear();
        self.nodes[place].output = output;
    }

    fn send(&mut self, from: NodeId, message: Outgoing) {
        let Outgoing { to, bytes, kind, .. } = message;
        assert!(to != from && (1..=NODES).contains(&to.0), "{from} sends to {to}");
        assert_eq!(
            self.kind.check_message(&bytes),
            Ok(()),
            "a message of our own: {kind}"
        );
        if let Some(seen) = &mut self.seen {
            seen.messages.entry(kind).or_default().push(bytes.clone());
        }
        if self.queue.len() == QUEUE_MAX {
            self.queue.pop_front();
        }
        self.queue.push_back((from, to, bytes));
    }
}

fn key(source: &mut Source<'_>) -> Key {
    const KEYS: [&str; 5] = ["a", "b", "c", "d/e", "\u{10ffff}"];
    if source.once_in(4) {
        // Many keys, so that what is sent in pages has some.
        return Key::from(format!("k{}", source.byte()));
    }
    Key::from(*source.pick(&KEYS))
}

/// Something that a client may ask. `count` numbers operations.
pub fn request(source: &mut Source<'_>, count: u64) -> Request {
    let session = SessionId {
        basis: Version(source.below(3) as u64),
        nonce: source.below(6) as u64,
    };
    let again = source.once_in(4);
    let op = OpId {
        session,
        seq: if again { 1 + count / 2 } else { 1 + count },
    };
    match source.below(8) {
        0..=4 => Request::Write {
            op,
            attempt: if again { Attempt::Retry } else { Attempt::First },
            command: command(source),
        },
        5 => Request::Outcome {
            op,
            command: source.once_in(2).then(|| command(source)),
        },
        _ => Request::Read(read(source)),
    }
}

fn read(source: &mut Source<'_>) -> ReadRequest {
    let query = match source.below(3) {
        0 => Query::Get(key(source)),
        1 => Query::Siblings(key(source)),
        _ => Query::Range {
            range: KeyRange {
                start: key(source),
                end: source.once_in(2).then(|| key(source)),
            },
            limit: source.below(4) as u32,
        },
    };
    let at_least = match source.below(4) {
        0 => None,
        1 => Some(ReadLevel::Linearizable),
        2 => Some(ReadLevel::Local),
        _ => Some(ReadLevel::AtLeast(Version(source.below(40) as u64))),
    };
    ReadRequest { query, at_least }
}

fn command(source: &mut Source<'_>) -> Command {
    let key = key(source);
    let value = vec![b'v'; *source.pick(&[0, 1, 5, 700])];
    match source.below(6) {
        0..=2 => Command::put(key, value),
        3 => Command::delete(key),
        4 => Command::compare_and_set(key, source.once_in(2).then(|| "v".into()), Some(value.into())),
        _ => Command {
            guards: vec![Guard::Version {
                key: key.clone(),
                is: Version(source.below(20) as u64),
            }],
            mutations: vec![
                Mutation::Put {
                    key: self::key(source),
                    value: value.into(),
                    lease: None,
                },
                Mutation::Delete { key },
            ],
        },
    }
}
