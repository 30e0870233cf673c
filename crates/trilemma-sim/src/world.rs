//! The world: nodes, links, clients and one queue of events in virtual time.
//!
//! Everything happens in one thread, in the order of (time, sequence number). A run has three parts: clients work
//! while faults happen; then everything is healed and every node must accept a write within [`RECOVERY_BOUND`], all
//! nodes must come to show the same, and final reads are made; then the histories are judged.

mod adders;
mod at_rest;
mod clients;
mod collecting;
mod faults;
mod frames;
mod library;
mod load;
mod quiesce;
mod turn;
mod untouched;
mod watchers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use trilemma_core::{Incarnation, Instant, NodeId, Now, ProcessId, Request, Rng, Ticket};
use trilemma_node::WatchId;
use trilemma_storage::{LogSeq, MemoryDisk};

use crate::client::{Book, Client};
use crate::clock::Clock;
use crate::coverage::{Coverage, PHASE_LENGTH, is_transfer};
use crate::engine::{Knobs, entries};
use crate::invariants::Invariants;
use crate::node::Process;
use crate::randomness::{Purpose, Randomness};
use crate::report::{Failure, Report};
use crate::scenario::{Action, Probe, Protocol, Scenario, When};
use crate::trace::Trace;
use crate::watching::{Published, Watcher};

/// Time after the heal within which every node must have accepted a write and all must show the same.
pub(crate) const RECOVERY_BOUND: u64 = 20_000_000_000;
/// Most events of a run: far above what any needs, so more is a storm.
const EVENTS_MAX: u64 = 3_000_000;
/// Virtual time that allows one event more, and what an operation allows.
const EVENT_TIME: u64 = MS / 20;
const EVENTS_PER_OPERATION: u64 = 500;
/// A virtual millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    Start {
        node: NodeId,
    },
    Deliver {
        from: ProcessId,
        to: NodeId,
        incarnation: Incarnation,
        frame: Bytes,
        /// The kinds of its messages.
        kinds: Vec<&'static str>,
    },
    Propose {
        node: NodeId,
        incarnation: Incarnation,
        slot: usize,
        ticket: Ticket,
        deadline: Instant,
        request: Request,
    },
    TurnEnds {
        node: NodeId,
        incarnation: Incarnation,
    },
    Wake {
        node: NodeId,
        incarnation: Incarnation,
    },
    DiskDone {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// The log wants to be looked at again.
    LogDue {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// The log has something to report.
    LogReport {
        node: NodeId,
        incarnation: Incarnation,
    },
    WriteSnapshot {
        node: NodeId,
        incarnation: Incarnation,
    },
    Client {
        client: usize,
    },
    Adder {
        adder: usize,
    },
    AdderGivesUp {
        ticket: Ticket,
    },
    Watch {
        watcher: usize,
    },
    WatchRead {
        watcher: usize,
    },
    /// What the items of a watch leave by has room again.
    WatchRoom {
        node: NodeId,
        watch: WatchId,
    },
    GiveUp {
        client: usize,
        ticket: Ticket,
    },
    Fault {
        index: usize,
    },
    FaultEnds {
        index: usize,
    },
    Heal,
    Look,
    /// Looks whether what the scenario demands goes on.
    Load,
    /// Something happens to a client library, or comes from it.
    Library {
        library: usize,
        event: library::LibraryEvent,
    },
}

struct Queued {
    at: u64,
    number: u64,
    event: Event,
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

/// What outlives a node's processes.
struct Node {
    id: NodeId,
    disk: MemoryDisk,
    /// The disk before a bit of it flipped, to be put back when the node has noticed.
    sound: Option<MemoryDisk>,
    rng: Rng,
    instances: Rng,
    clock: Clock,
    /// The settings of its next start.
    knobs: Knobs,
    process: Option<Process>,
    /// The last incarnation that the outside knows of.
    incarnation: Incarnation,
    /// Records that were durable when the last process ended.
    durable: LogSeq,
    /// Stands still until then.
    paused_until: u64,
    /// The time of the wake that is queued.
    wake_at: u64,
    /// Started at this time.
    started: u64,
    /// Power fails at the next disk operation that does.
    tearing: Option<u64>,
    /// It is being stopped cleanly: whether a keyspace had something to hand over.
    stopping: Option<bool>,
    /// Starts in a row in which power failed.
    torn_starts: u32,
    /// The settings that it last started with.
    knobs_started: Knobs,
    /// The time of the look at the log that is queued.
    log_due: u64,
    /// Since when something that was handed to the log is not durable.
    unsynced_since: Option<u64>,
    /// The incarnations of its peers that its present process knows of.
    known: BTreeMap<NodeId, Incarnation>,
    /// The pings of its peers that have come to its present process.
    pings: BTreeMap<NodeId, frames::Pings>,
    /// A turn is open; it ends in an event of its own.
    in_turn: bool,
    /// What it did recently, for coverage.
    recent: BTreeMap<&'static str, u64>,
    /// How long a sync takes at least, if a fault says so.
    slow_disk: Option<u64>,
    /// A restart is queued; others need not queue one.
    starting: bool,
    /// It runs on another disk than its first.
    lost_disk: bool,
    /// All members had met it, so that it is counted.
    founded: bool,
}

/// An `on` line of the scenario.
struct Trigger {
    node: NodeId,
    probe: Probe,
    left: u32,
    index: usize,
}

/// See the module.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    parts: &'static [Protocol],
    now: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    nodes: Vec<Node>,
    links: BTreeMap<(NodeId, NodeId), Rng>,
    clients: Vec<Client>,
    adders: adders::Adders,
    watchers: Vec<Watcher>,
    /// Watches opened so far.
    watches: u64,
    published: Published,
    libraries: library::Libraries,
    book: Book,
    asked: u64,
    tickets: u64,
    triggers: Vec<Trigger>,
    /// Faults that are going on: position in the scenario.
    active: Vec<usize>,
    healed: bool,
    /// The heal was put off this often because too little had happened.
    put_off: u32,
    quiesce: quiesce::Quiesce,
    load: load::Load,
    untouched: untouched::Untouched,
    invariants: Invariants,
    coverage: Coverage,
    faults: u64,
    trace: Trace,
    failure: Option<Failure>,
}

/// Runs a scenario.
pub(crate) fn run(scenario: &Scenario, verbose: bool) -> Report {
    let mut world = World::new(scenario, verbose);
    let most = EVENTS_MAX
        + scenario.heal / EVENT_TIME
        + EVENTS_PER_OPERATION * u64::from(scenario.workload.operations);
    let mut events = 0;
    while world.failure.is_none() && !world.quiesce.is_over() {
        let Some(Reverse(next)) = world.queue.pop() else {
            break;
        };
        events += 1;
        world.now = next.at;
        world.handle(next.event);
        if events > most {
            world.fail("storm", format!("more than {most} events"));
        }
    }
    world.finish(events)
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, verbose: bool) -> Self {
        let randomness = Randomness::new(scenario.seed);
        let ids = || (1..=scenario.nodes).map(NodeId);
        let node = |id: NodeId| {
            let fault = scenario.clocks.iter().rev().find(|clock| clock.node == id);
            Node {
                id,
                disk: MemoryDisk::new(),
                sound: None,
                rng: randomness.stream(Purpose::Disk, id.0.into()),
                instances: randomness.stream(Purpose::Instance, id.0.into()),
                clock: fault.map_or(Clock::new(0, 0), |fault| {
                    Clock::new(fault.offset_ms, fault.drift_ppm)
                }),
                knobs: scenario.knobs_of(id),
                process: None,
                incarnation: Incarnation(0),
                durable: LogSeq(0),
                paused_until: 0,
                wake_at: u64::MAX,
                started: 0,
                tearing: None,
                stopping: None,
                torn_starts: 0,
                knobs_started: Knobs::new(),
                log_due: u64::MAX,
                unsynced_since: None,
                known: BTreeMap::new(),
                pings: BTreeMap::new(),
                in_turn: false,
                recent: BTreeMap::new(),
                slow_disk: None,
                starting: false,
                lost_disk: false,
                founded: false,
            }
        };
        let pairs = ids().flat_map(|from| ids().map(move |to| (from, to)));
        let link = |(from, to): (NodeId, NodeId)| {
            let index = u64::from(from.0) << 32 | u64::from(to.0);
            ((from, to), randomness.stream(Purpose::Link, index))
        };
        let clients = u64::from(scenario.workload.clients);
        let parts = scenario.protocol.parts();
        let mut world = Self {
            scenario,
            parts,
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            nodes: ids().map(node).collect(),
            links: pairs.map(link).collect(),
            clients: (0..clients)
                .map(|id| Client::new(id, randomness.stream(Purpose::Client, id), scenario))
                .collect(),
            adders: adders::Adders::default(),
            watchers: Vec::new(),
            watches: 0,
            published: Published::default(),
            libraries: library::Libraries::default(),
            book: Book::new(scenario),
            asked: 0,
            tickets: 0,
            triggers: Vec::new(),
            active: Vec::new(),
            healed: false,
            put_off: 0,
            quiesce: quiesce::Quiesce::default(),
            load: load::Load::default(),
            untouched: untouched::Untouched::default(),
            invariants: Invariants::new(scenario),
            coverage: Coverage::default(),
            faults: 0,
            trace: Trace::new(verbose),
            failure: None,
        };
        world.plan();
        world
    }

    /// Puts into the queue what is known from the start.
    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].starting = true;
            let delay = self.nodes[node].rng.below(2 * MS);
            let node = self.nodes[node].id;
            self.schedule(delay, Event::Start { node });
        }
        for client in 0..self.clients.len() {
            let delay = self.clients[client].rng.below(20 * MS);
            self.schedule(delay, Event::Client { client });
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            match &fault.when {
                When::At(at) => self.schedule(*at, Event::Fault { index }),
                When::On { node, probe, count } => self.triggers.push(Trigger {
                    node: *node,
                    probe: probe.clone(),
                    left: *count,
                    index,
                }),
            }
        }
        self.plan_adders();
        self.plan_watchers();
        self.plan_libraries();
        self.schedule(self.scenario.heal, Event::Heal);
        if self.scenario.demand.is_some() {
            self.schedule(load::INTERVAL, Event::Load);
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.schedule_at(self.now.saturating_add(delay), event);
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued {
            at: at.max(self.now),
            number: self.queued,
            event,
        }));
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize - 1]
    }

    /// Whether a keyspace need not work on a node: a minority has lost its disks, and is not counted any more.
    fn is_excused(&self, node: &Node, slot: usize) -> bool {
        let lost = self.nodes.iter().filter(|node| node.lost_disk).count();
        node.lost_disk && self.parts[slot].counts_majorities() && 2 * lost < self.nodes.len()
    }

    /// Whether clients begin no more operations. Where progress is demanded they have more than there is time for.
    fn operations_are_over(&self) -> bool {
        let all = self.asked >= u64::from(self.scenario.workload.operations);
        all || (self.healed && self.scenario.demand.is_some())
    }

    /// The running process of this incarnation of a node.
    fn process(&mut self, id: NodeId, incarnation: Incarnation) -> Option<&mut Process> {
        let process = self.node(id).process.as_mut()?;
        (process.incarnation == incarnation).then_some(process)
    }

    /// What the clocks of a node show.
    fn clock(&self, id: NodeId) -> Now {
        self.nodes[id.0 as usize - 1].clock.now(self.now)
    }

    fn fail(&mut self, checker: &'static str, what: String) {
        let time = self.now;
        self.trace.line(time, || format!("FAILED {checker}: {what}"));
        self.failure.get_or_insert(Failure { checker, what, time });
    }

    fn handle(&mut self, event: Event) {
        self.trace.number(self.now);
        if let Some(node) = event.node()
            && self.node(node).paused_until > self.now
        {
            let until = self.node(node).paused_until;
            return self.schedule_at(until, event);
        }
        match event {
            Event::Start { node } => self.start(node),
            Event::Deliver {
                from,
                to,
                incarnation,
                frame,
                kinds,
            } => self.deliver(from, to, incarnation, frame, &kinds),
            Event::Propose {
                node,
                incarnation,
                slot,
                ticket,
                deadline,
                request,
            } => self.propose(node, incarnation, (slot, ticket), deadline, request),
            Event::TurnEnds { node, incarnation } => self.turn_ends(node, incarnation),
            Event::Wake { node, incarnation } => self.wake(node, incarnation),
            Event::DiskDone { node, incarnation } => self.disk_done(node, incarnation),
            Event::LogDue { node, incarnation } => self.log_due(node, incarnation),
            Event::LogReport { node, incarnation } => self.log_report(node, incarnation),
            Event::WriteSnapshot { node, incarnation } => self.write_snapshot(node, incarnation),
            Event::Client { client } => self.client(client),
            Event::Adder { adder } => self.adder(adder),
            Event::AdderGivesUp { ticket } => self.adder_gives_up(ticket),
            Event::Watch { watcher } => self.watch(watcher),
            Event::WatchRead { watcher } => self.watch_read(watcher),
            Event::WatchRoom { node, watch } => self.watch_room(node, watch),
            Event::GiveUp { client, ticket } => self.give_up(client, ticket),
            Event::Fault { index } => self.fault(index),
            Event::FaultEnds { index } => self.fault_ends(index),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::Load => self.look_at_load(),
            Event::Library { library, event } => self.library(library, event),
        }
    }

    /// Notes that a node did something, for coverage.
    fn did(&mut self, node: NodeId, what: &'static str) {
        let now = self.now;
        self.node(node).recent.insert(what, now);
    }

    /// Counts a fault at a node, in all phases that the node is in.
    fn cover(&mut self, class: &'static str, node: NodeId) {
        let now = self.now;
        let node = &self.nodes[node.0 as usize - 1];
        let mut any = false;
        let mut transfers = false;
        for (phase, at) in &node.recent {
            if now.saturating_sub(*at) <= PHASE_LENGTH {
                self.coverage.hit(class, phase);
                any = true;
                transfers |= is_transfer(phase);
            }
        }
        if transfers {
            self.coverage.event("transfer", class);
        }
        if !any {
            self.coverage.hit(class, "idle");
        }
    }

    /// The active faults.
    fn actions(&self) -> impl Iterator<Item = &'a Action> + '_ {
        let faults = &self.scenario.faults;
        self.active.iter().map(move |index| &faults[*index].action)
    }

    fn finish(mut self, events: u64) -> Report {
        if self.failure.is_none() && !self.quiesce.is_over() {
            self.fail("liveness", "nothing happens any more".to_owned());
        }
        let mut report = Report {
            failure: self.failure.take(),
            operations: self.asked,
            succeeded: self.book.succeeded,
            faults: self.faults,
            events,
            virtual_time: self.now,
            coverage: std::mem::take(&mut self.coverage),
            ..Report::default()
        };
        if report.failure.is_none() {
            self.judge(&mut report);
        }
        report.hash = self.trace.digest();
        report.trace = self.trace.take_lines();
        report.histories = std::mem::take(&mut self.book.histories);
        report
    }

    fn judge(&mut self, report: &mut Report) {
        for (slot, part) in self.parts.iter().enumerate() {
            let shown: Vec<_> = self
                .nodes
                .iter()
                .filter(|node| !self.is_excused(node, slot))
                .filter_map(|node| Some((node.id, entries(node.process.as_ref()?.engine(slot)))))
                .collect();
            let verdict = match crate::judge::judge(*part, slot, &self.book, &shown) {
                crate::judge::Judgement::Legal => crate::judge::judge_seen(slot, &self.book),
                other => other,
            };
            match verdict {
                crate::judge::Judgement::Legal => {}
                crate::judge::Judgement::Undecided(why) => report.undecided = Some(format!("{part}: {why}")),
                crate::judge::Judgement::Illegal(checker, what) => {
                    report.failure.get_or_insert(Failure {
                        checker,
                        what: format!("{part}: {what}"),
                        time: self.now,
                    });
                }
            }
        }
    }
}

impl Event {
    /// The node whose process handles it.
    const fn node(&self) -> Option<NodeId> {
        match self {
            Event::Deliver { to: node, .. }
            | Event::Propose { node, .. }
            | Event::TurnEnds { node, .. }
            | Event::Wake { node, .. }
            | Event::DiskDone { node, .. }
            | Event::LogDue { node, .. }
            | Event::LogReport { node, .. }
            | Event::WriteSnapshot { node, .. } => Some(*node),
            Event::Library { event, .. } => event.node(),
            _ => None,
        }
    }
}
