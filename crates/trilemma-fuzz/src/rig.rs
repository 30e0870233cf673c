//! A small cluster of one protocol whose every event is a choice of the input.
//!
//! Its nodes are those of `trilemma-node`, each with the write queue of its log on a disk in memory: the rig decides
//! only what happens when. It keeps the contract towards them but for one thing: a peer's messages may be changed
//! ([`crate::mutate`]) and come at any time. Nothing about agreement is asserted, as a peer that lies is outside of what
//! these protocols withstand; asserted is what every node owes its own process:
//!
//! - no panic, and a bounded number of messages, records and changes in one turn;
//! - a request is answered once, and within its time and the node's grace;
//! - what it sends and logs decodes again, within the limits of the other side's decoder;
//! - it starts again from its own disk, after any power cut.

mod kind;
mod process;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trilemma_core::{
    ChangeBatch, Entry, Instant, KeyRange, KeyspaceId, NodeId, Now, ProcessId, Request, Rng, Ticket,
    WallTime, WatchSpec, WatchStart, WatchToken,
};
use trilemma_node::config::NODE_RECORDS;
use trilemma_node::frame::put_item;
use trilemma_node::node::DEADLINE_GRACE;
use trilemma_node::{
    Destination, Engine, Envelope, LinkId, Node, Observer, ReaderEvent, RecoveryError, WatchId, keyspace_id,
};
use trilemma_storage::{LogSeq, MemoryDisk};

use crate::mutate::mutated;
use crate::source::Source;
use kind::Small;
use process::{Process, disk_of};

pub use kind::Kind;
pub use requests::request;

/// Nodes of a rig.
const NODES: u32 = 3;
/// Messages under way; older ones are lost.
const QUEUE_MAX: usize = 512;
/// Inputs of the longest turn.
const TURN_MAX: usize = 3;
/// Messages, records and changes that one turn may cause. Far above what the configured batches and pages come to.
const EFFECTS_MAX: usize = 20_000;
/// The name of the one keyspace.
const NAME: &str = "fuzzed";
/// What the clocks of [`Rig::new`] show when it starts.
pub const BEGINNING: WallTime = WallTime(1_700_000_000_000);
/// Nodes look at their clocks at least this often.
const STEP: Duration = Duration::from_millis(100);

/// What a rig has seen, as samples for mutations.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Messages, by the name of their kind.
    pub messages: BTreeMap<&'static str, Vec<Bytes>>,
    /// What a node would replay, between two checkpoints.
    pub logs: Vec<Vec<Bytes>>,
    /// Checkpoints as chunks.
    pub checkpoints: Vec<Vec<Vec<u8>>>,
}

/// What outlives a node's processes, and the one that runs.
struct Machine {
    id: NodeId,
    disk: MemoryDisk,
    process: Process,
    /// Records since the newest snapshot, as the node appended them.
    log: Vec<(LogSeq, Bytes)>,
    /// Requests that were not answered, with their deadlines.
    open: BTreeMap<Ticket, Instant>,
    watches: BTreeSet<WatchId>,
    /// Inputs that the present turn has taken, and how many it takes.
    inputs: usize,
    turn: usize,
    /// Nodes of which nothing arrives here.
    unheard: BTreeSet<NodeId>,
}

/// Bytes that a reader has room for, again and again.
const ROOM: usize = 4096;

/// The place of a record that waits for one.
const NO_PLACE: LogSeq = LogSeq(u64::MAX);

/// Looks at what a turn appends and changes.
struct Watching<'a> {
    kind: Kind,
    log: &'a mut Vec<(LogSeq, Bytes)>,
    changes: usize,
}

impl Observer for Watching<'_> {
    fn appended(&mut self, _: usize, bytes: &Bytes) {
        assert_eq!(self.kind.check_record(bytes), Ok(()), "a record of our own");
        self.log.push((NO_PLACE, bytes.clone()));
        self.changes += 1;
    }

    fn placed(&mut self, _: usize, seq: LogSeq) {
        let newest = self.log.iter_mut().rev();
        let waiting = newest.take_while(|(place, _)| *place == NO_PLACE);
        waiting.last().expect("a record that was appended").0 = seq;
    }

    fn stepped(&mut self, _: usize, _: &Engine, _: Option<u64>, applied: &[ChangeBatch]) {
        self.changes += applied.len();
    }
}

/// See the module.
pub struct Rig {
    kind: Kind,
    keyspace: KeyspaceId,
    machines: Vec<Machine>,
    queue: VecDeque<(ProcessId, NodeId, Bytes)>,
    pings: VecDeque<(ProcessId, NodeId, Bytes)>,
    since: WallTime,
    passed: Duration,
    tickets: u64,
    watches: u64,
    /// What was seen, if it is to be kept.
    pub seen: Option<Seen>,
}

impl Rig {
    /// A cluster that has just started.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self::from_disk(kind, BEGINNING, Vec::new(), &[]).expect("an empty disk is consistent")
    }

    /// A cluster that starts at `since`, of which the first node has this checkpoint and these records on its disk.
    /// Incarnations begin with the clock, so that all of them come after those of a rig that started earlier.
    pub fn from_disk(
        kind: Kind,
        since: WallTime,
        checkpoint: Vec<Vec<u8>>,
        records: &[Bytes],
    ) -> Result<Self, RecoveryError> {
        let keyspace = keyspace_id(NAME);
        let disk = disk_of(keyspace, checkpoint, records);
        let disks = std::iter::once(disk).chain(std::iter::repeat_with(MemoryDisk::new));
        let mut rig = Self {
            kind,
            keyspace,
            machines: Vec::new(),
            queue: VecDeque::new(),
            pings: VecDeque::new(),
            since,
            passed: Duration::from_secs(1),
            tickets: 0,
            watches: 0,
            seen: None,
        };
        for (node, disk) in (1..=NODES).zip(disks) {
            let id = NodeId(node);
            let (process, _) = Process::start(&disk, &kind.settings(id), rig.now(), &Small)?;
            rig.machines.push(Machine {
                id,
                disk,
                process,
                log: Vec::new(),
                open: BTreeMap::new(),
                watches: BTreeSet::new(),
                inputs: 0,
                turn: 1,
                unheard: BTreeSet::new(),
            });
        }
        for place in 0..rig.machines.len() {
            rig.turn(place, |node, now| node.start(now));
        }
        Ok(rig)
    }

    /// A checkpoint of the first node, and the entries that it shows.
    #[must_use]
    pub fn state(&self) -> (Vec<Vec<u8>>, Vec<Entry>) {
        let engine = self.engine(0);
        (
            engine.checkpoint().collect(),
            engine.scan(&KeyRange::all(), usize::MAX),
        )
    }

    fn engine(&self, place: usize) -> &Engine {
        self.machines[place].process.node.replicas()[0].engine()
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_nanos(u64::try_from(self.passed.as_nanos()).unwrap_or(u64::MAX)),
            wall: WallTime(self.since.0 + self.passed.as_millis() as u64),
        }
    }

    /// Whether any node shows an entry.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        (0..self.machines.len()).any(|place| !self.engine(place).scan(&KeyRange::all(), 1).is_empty())
    }

    /// Lets one thing happen. Messages are changed only if there are `samples` to take pieces from.
    ///
    /// # Panics
    /// If a node owes its process something. See the module.
    pub fn act(&mut self, source: &mut Source<'_>, samples: &[Bytes]) {
        let place = source.below(self.machines.len());
        match source.below(16) {
            0..=4 => self.deliver(source),
            5..=7 if !samples.is_empty() => {
                let message = mutated(source, samples);
                let from = self.other(place, source);
                self.receive_changed(place, from, &message, source);
            }
            8 if !samples.is_empty() => {
                // One that was just sent fits the state best.
                if let Some((from, to, bytes)) = self.queue.pop_back() {
                    let message = mutated(source, &[bytes]);
                    self.receive_changed(to.0 as usize - 1, from, &message, source);
                }
            }
            9 | 10 => {
                let request = request(source, self.tickets);
                self.ask(place, request, source.below(2000) as u64);
            }
            11 => self.pass(source),
            12 | 5..=8 => self.write(place, source.below(4) != 3),
            13 => self.hear(place, source.byte()),
            14 => self.rare(place, source),
            _ => {
                for _ in 0..8 {
                    self.deliver(source);
                    (0..self.machines.len()).for_each(|place| self.write(place, true));
                }
            }
        }
        self.exchange_pings();
    }

    fn rare(&mut self, place: usize, source: &mut Source<'_>) {
        match source.below(11) {
            0 | 1 => self.restart(place, source),
            2..=4 => self.snapshot(place),
            5 => self.queue.clear(),
            6 => {
                if let Some(message) = self.queue.front().cloned() {
                    self.queue.push_back(message);
                }
            }
            7 => {
                let engine = self.engine(place);
                let status = engine.status(self.now());
                let entries = engine.scan(&KeyRange::all(), 100);
                assert!(
                    entries.is_sorted_by(|a, b| a.key < b.key),
                    "{status:?} {entries:?}"
                );
            }
            8 => self.watch(place, source),
            // It hands leadership over, and goes on: a stop that nobody has carried out.
            9 => self.turn(place, |node, now| node.on_stopping(now)),
            _ => self.read_watch(place, source),
        }
    }

    fn other(&self, place: usize, source: &mut Source<'_>) -> ProcessId {
        let step = 1 + source.below(self.machines.len() - 1);
        self.machines[(place + step) % self.machines.len()]
            .process
            .node
            .process()
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
        if let Some((from, to, bytes)) = self.queue.remove(place)
            && self.is_heard(from, to)
        {
            self.receive(to, from, framed(self.keyspace, &bytes));
        }
    }

    fn receive(&mut self, to: NodeId, from: ProcessId, frame: Bytes) {
        self.turn(to.0 as usize - 1, |node, now| node.on_frame(now, &from, frame));
    }

    /// A message that was changed arrives, now and then in a frame that was changed too.
    fn receive_changed(&mut self, place: usize, from: ProcessId, message: &[u8], source: &mut Source<'_>) {
        let mut frame = framed(self.keyspace, message);
        if source.once_in(8) {
            frame = mutated(source, &[frame]).into();
        }
        self.receive(self.machines[place].id, from, frame);
    }

    fn ask(&mut self, place: usize, request: Request, timeout_ms: u64) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let timeout = Duration::from_millis(timeout_ms);
        let deadline = self.now().instant + timeout;
        self.machines[place].open.insert(ticket, deadline);
        let keyspace = self.keyspace;
        self.turn(place, |node, now| {
            node.on_request(now, keyspace, timeout, request, ticket);
        });
    }

    /// Lets time pass and wakes who wants to be woken.
    fn pass(&mut self, source: &mut Source<'_>) {
        const MILLIS: [u64; 8] = [0, 0, 1, 10, 60, 160, 500, 3000];
        let end = self.passed + Duration::from_millis(*source.pick(&MILLIS));
        loop {
            self.passed = end.min(self.passed + STEP);
            for place in 0..self.machines.len() {
                let machine = &self.machines[place];
                if machine.inputs > 0 || machine.process.node.wake_at() <= self.now().instant {
                    self.end_turn(place);
                }
            }
            self.exchange_pings();
            if self.passed == end {
                return;
            }
        }
    }

    /// Lets the log of a node go on; unless `whole`, a sync that begins now has not ended yet.
    fn write(&mut self, place: usize, whole: bool) {
        let now = self.now().instant;
        let events = self.machines[place].process.write(now, whole);
        if !events.is_empty() {
            self.turn(place, |node, now| {
                for event in events {
                    node.on_log(now, event).expect("a log that has not failed");
                }
            });
        }
    }

    /// Chooses of whom messages arrive at a node from now on.
    fn hear(&mut self, place: usize, heard: u8) {
        let is_unheard = |node: &NodeId| heard >> (2 * (node.0 - 1)) & 3 == 3;
        self.machines[place].unheard = (1..=NODES).map(NodeId).filter(is_unheard).collect();
    }

    fn is_heard(&self, from: ProcessId, to: NodeId) -> bool {
        !self.machines[to.0 as usize - 1].unheard.contains(&from.node)
    }

    /// What nodes themselves say to each other, pings above all, is faster than anything else.
    fn exchange_pings(&mut self) {
        while let Some((from, to, bytes)) = self.pings.pop_front() {
            if self.is_heard(from, to) {
                self.receive(to, from, framed(NODE_RECORDS, &bytes));
            }
        }
    }

    /// Has a snapshot made, or writes the one that is to be written.
    fn snapshot(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        let Some((at, summary, chunks)) = machine.process.write_snapshot(self.keyspace) else {
            return self.turn(place, |node, _| node.request_snapshot());
        };
        let covered = machine.log.partition_point(|(seq, _)| *seq <= at);
        let covered: Vec<Bytes> = machine.log.drain(..covered).map(|(_, record)| record).collect();
        if let Some(seen) = &mut self.seen {
            seen.logs.push(covered);
            seen.checkpoints.push(chunks);
        }
        self.turn(place, |node, _| node.on_snapshot(Ok(summary)));
    }

    /// A process is killed, or its power is cut; another one starts.
    fn restart(&mut self, place: usize, source: &mut Source<'_>) {
        let now = self.now();
        let machine = &mut self.machines[place];
        if source.once_in(2) {
            machine.disk.crash(&mut Rng::new(source.u64()));
        }
        let started = Process::start(&machine.disk, &self.kind.settings(machine.id), now, &Small);
        let (process, last) = started.expect("what it has logged itself is consistent");
        machine.log.retain(|(seq, _)| *seq <= last);
        machine.process = process;
        machine.open.clear();
        machine.watches.clear();
        machine.inputs = 0;
        self.turn(place, |node, now| node.start(now));
    }

    fn watch(&mut self, place: usize, source: &mut Source<'_>) {
        self.watches += 1;
        let watch = WatchId(self.watches);
        let token = WatchToken {
            stream: source.below(2) as u64,
            position: source.below(40) as u64,
        };
        let start = *source.pick(&[
            WatchStart::State,
            WatchStart::StateFrom(token),
            WatchStart::Now,
            WatchStart::After(token),
        ]);
        let progress = source.once_in(2).then(|| Duration::from_millis(100));
        let range = KeyRange {
            start: requests::key(source),
            end: source.once_in(2).then(|| requests::key(source)),
        };
        let keyspace = self.keyspace;
        self.machines[place].watches.insert(watch);
        self.turn(place, |node, _| {
            let (link, room) = (LinkId(watch.0 % 3), ROOM);
            let spec = WatchSpec {
                range,
                start,
                progress,
            };
            node.on_watch(watch, keyspace, spec, Destination { link, room });
        });
    }

    fn read_watch(&mut self, place: usize, source: &mut Source<'_>) {
        let watches: Vec<WatchId> = self.machines[place].watches.iter().copied().collect();
        if watches.is_empty() {
            return;
        }
        let watch = *source.pick(&watches);
        let event = if source.once_in(4) {
            self.machines[place].watches.remove(&watch);
            ReaderEvent::Gone
        } else {
            ReaderEvent::Room(ROOM)
        };
        let full = source.once_in(8).then(|| source.once_in(2));
        self.turn(place, |node, _| {
            if let Some(full) = full {
                node.on_link(LinkId(watch.0 % 3), !full);
            }
            node.on_reader(watch, event);
        });
    }

    /// An input of a node, and the end of its turn if it has taken enough of them.
    fn turn(&mut self, place: usize, input: impl FnOnce(&mut Node<Ticket>, Now)) {
        let now = self.now();
        let machine = &mut self.machines[place];
        input(&mut machine.process.node, now);
        machine.inputs += 1;
        if machine.inputs >= machine.turn {
            self.end_turn(place);
        }
    }

    fn end_turn(&mut self, place: usize) {
        let now = self.now();
        let machine = &mut self.machines[place];
        machine.inputs = 0;
        machine.turn = machine.turn % TURN_MAX + 1;
        let mut watching = Watching {
            kind: self.kind,
            log: &mut machine.log,
            changes: 0,
        };
        let effects = machine.process.turn(now, &mut watching);
        let caused = watching.changes + effects.messages.len() + effects.replies.len() + effects.items.len();
        assert!(caused <= EFFECTS_MAX, "one turn caused {caused} effects");
        for (ticket, reply) in effects.replies {
            let was_open = machine.open.remove(&ticket).is_some();
            assert!(was_open, "{ticket} is answered again, with {reply:?}");
        }
        let overdue = machine
            .open
            .iter()
            .find(|(_, deadline)| **deadline + DEADLINE_GRACE <= now.instant);
        assert_eq!(overdue, None, "a request is not answered by its deadline");
        for (watch, item) in effects.items {
            assert!(
                machine.watches.contains(&watch),
                "{watch:?} has ended and is shown {item:?}"
            );
            if item.is_err() {
                machine.watches.remove(&watch);
            }
        }
        let from = machine.process.node.process();
        for message in effects.messages {
            self.send(from, message);
        }
    }

    fn send(&mut self, from: ProcessId, message: Envelope) {
        let Envelope {
            keyspace,
            to,
            bytes,
            kind,
            ..
        } = message;
        assert!(
            to != from.node && (1..=NODES).contains(&to.0),
            "{} sends to {to}",
            from.node
        );
        if keyspace == NODE_RECORDS {
            return self.pings.push_back((from, to, bytes));
        }
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

/// A frame with one message.
fn framed(keyspace: KeyspaceId, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    put_item(&mut frame, keyspace, bytes);
    frame.freeze()
}
