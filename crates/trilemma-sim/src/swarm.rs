//! From a seed to a scenario: swarm testing (Groce et al. 2012).
//!
//! Each seed leaves out some classes of faults altogether, because faults hide each other's bugs, and draws every
//! setting from {minimum, tiny, default, huge}, because many bugs need a batch of one or a queue of two.

mod late;
mod lost_disks;

use trilemma_core::{NodeId, Rng};

use crate::engine::Knobs;
use crate::randomness::{Purpose, Randomness};
use crate::scenario::{
    Action, ClockFault, Disk, Fault, Network, Probe, Protocol, Route, Scenario, When, Workload,
};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// The stream of the plan from which lost disks of two-phase are drawn; the protocols have those of their places.
const LOST_DISKS: u64 = 1 << 16;
/// The stream of the plan from which adders are drawn.
const ADDERS: u64 = 2 << 16;
/// Faults that every run has.
const FAULTS_MIN: u32 = 50;

/// Values of a setting that a seed may draw; `u64::MAX` leaves the default.
const DEFAULT: u64 = u64::MAX;

type Setting = (&'static str, &'static [u64]);

const RAFT: &[Setting] = &[
    ("raft.disk_stall", &[100_000, 500_000, 5_000_000, DEFAULT]),
    ("raft.append_entries_max", &[1, 2, 8, DEFAULT]),
    ("raft.append_bytes", &[1, 200, DEFAULT]),
    ("raft.inflight_max", &[1, 2, DEFAULT]),
    ("raft.inflight_bytes", &[1, 300, DEFAULT]),
    ("raft.uncommitted_bytes", &[300, 4096, DEFAULT, DEFAULT]),
    ("raft.kept_entries", &[0, 1, 5, DEFAULT]),
    ("raft.kept_bytes", &[0, 500, DEFAULT, DEFAULT]),
    ("raft.waiting_max", &[2, DEFAULT, DEFAULT]),
    ("raft.chunk_bytes", &[1, 200, DEFAULT]),
    ("raft.chunks_inflight", &[1, DEFAULT]),
    ("raft.sessions_max", &[2, 8, DEFAULT, DEFAULT]),
];
const PAXOS: &[Setting] = &[
    ("paxos.round_timeout", &[10_000, 30_000, DEFAULT, 400_000]),
    ("paxos.backoff_min", &[20, DEFAULT]),
    ("paxos.backoff_max", &[30_000, DEFAULT, 300_000]),
    ("paxos.sync_interval", &[20_000, 100_000, DEFAULT]),
    ("paxos.sync_page_max", &[1, 1, 1, 2, DEFAULT]),
    ("paxos.confirm_after", &[10_000, 100_000, DEFAULT]),
    ("paxos.operations_max", &[3, DEFAULT, DEFAULT]),
    ("paxos.operations_per_key_max", &[1, 2, DEFAULT, DEFAULT]),
    ("paxos.keys_max", &[1, 2, DEFAULT, DEFAULT]),
    ("paxos.cache_max", &[0, 1, DEFAULT, DEFAULT]),
    ("paxos.recent_max", &[2, 6, DEFAULT, DEFAULT]),
    ("paxos.combine_max", &[1, 2, DEFAULT]),
];
const GOSSIP: &[Setting] = &[
    ("gossip.tick", &[10_000, 30_000, DEFAULT, DEFAULT]),
    ("gossip.fanout", &[1, 2, DEFAULT]),
    ("gossip.flush_peers_max", &[0, 1, DEFAULT]),
    ("gossip.sync_ticks", &[1, 3, DEFAULT]),
    ("gossip.accept_drift", &[10_000, DEFAULT, 5_000_000]),
    ("gossip.tombstone_age_min", &[0, 50_000, DEFAULT]),
    ("gossip.siblings_max", &[1, 2, DEFAULT]),
    ("gossip.deferred_max", &[1, 3, DEFAULT]),
    ("gossip.rumors_max", &[1, 4, DEFAULT]),
    ("gossip.tick_bytes_max", &[1, 300, DEFAULT]),
    ("gossip.page_bytes", &[1, 300, DEFAULT]),
    ("gossip.intervals_max", &[1, 3, DEFAULT]),
    ("gossip.serving_max", &[1, DEFAULT]),
    ("gossip.sessions_max", &[2, 8, DEFAULT, DEFAULT]),
];
const TWO_PHASE: &[Setting] = &[
    ("two-phase.pipeline_depth", &[1, 2, DEFAULT, 32]),
    ("two-phase.batch_bytes", &[1, 200, DEFAULT]),
    ("two-phase.queue_max", &[2, 8, DEFAULT, DEFAULT]),
    ("two-phase.queue_bytes", &[300, DEFAULT, DEFAULT]),
    ("two-phase.reads_max", &[2, DEFAULT, DEFAULT]),
    (
        "two-phase.prepare_timeout",
        &[30_000, 100_000, DEFAULT, 3_000_000],
    ),
    ("two-phase.retry_interval", &[5_000, 20_000, DEFAULT]),
    ("two-phase.chunk_bytes", &[1, 200, DEFAULT]),
    ("two-phase.sessions_max", &[2, 8, DEFAULT, DEFAULT]),
];

/// Message kinds of a protocol, for faults that pick one.
#[must_use]
pub fn kinds(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Raft => &[
            "pre-vote",
            "pre-vote-reply",
            "vote",
            "vote-reply",
            "heartbeat",
            "append",
            "append-reply",
            "snapshot",
            "snapshot-reply",
            "forward",
            "forward-reply",
        ],
        Protocol::Paxos => &[
            "asks",
            "answers",
            "digest",
            "listing",
            "next-page",
            "fetch",
            "values",
        ],
        Protocol::Gossip => GOSSIP_KINDS,
        Protocol::TwoPhase => TWO_PHASE_KINDS,
        Protocol::Mixed => &["append", "asks", "answers", "vote-reply", "append-reply"],
    }
}

const GOSSIP_KINDS: &[&str] = &[
    "rumors",
    "compare",
    "pull",
    "page",
    "more",
    "symbols",
    "more-symbols",
    "want",
    "busy",
];
const TWO_PHASE_KINDS: &[&str] = &[
    "prepare", "announce", "resolved", "probe", "hello", "vote", "refusal", "resend", "inquire", "evidence",
    "forwards", "answers", "install", "fetch", "piece",
];

/// Settings whose minimum makes a sync or a round trip for each entry or chunk, or lets chunks wait.
pub(crate) const ONE_AT_A_TIME: &[&str] = &[
    "node.log_window_bytes",
    "raft.append_entries_max",
    "raft.append_bytes",
    "raft.inflight_max",
    "raft.inflight_bytes",
    "raft.chunk_bytes",
    "raft.chunks_inflight",
    "raft.transfer_rate",
];

/// The sizes for which the rest of a scenario is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: u32,
    pub(crate) heal: u64,
    pub(crate) keys: u32,
    pub(crate) value: usize,
}

/// What a seed leaves in.
struct Swarm {
    rng: Rng,
    protocol: Protocol,
    nodes: u32,
    keys: u32,
    value: usize,
    heal: u64,
}

/// The scenario of a seed: the profile `standard`.
#[must_use]
pub fn scenario(protocol: Protocol, seed: u64) -> Scenario {
    let mut rng = Randomness::new(seed).stream(Purpose::Plan, protocol as u64);
    let nodes = [3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 4, 2, 2, 1][rng.below(14) as usize];
    let heal = [1500, 2500, 4000][rng.below(3) as usize] * MS;
    // Anti-entropy of paxos goes by hashes of keys, so that it takes many of them for two to meet.
    let many = if protocol == Protocol::Paxos { 150 } else { 40 };
    let keys = [1, 2, 3, 3, 6, many][rng.below(6) as usize];
    let value = if keys > 10 {
        0
    } else {
        [0, 0, 0, 60, 300][rng.below(5) as usize]
    };
    let shape = Shape {
        nodes,
        heal,
        keys,
        value,
    };
    let mut scenario = draw(protocol, seed, rng, shape);
    if protocol == Protocol::TwoPhase {
        // From a stream of its own, so that all else stays as a seed had drawn it before.
        let rng = Randomness::new(seed).stream(Purpose::Plan, LOST_DISKS);
        Swarm::new(protocol, rng, shape).lose_disks(&mut scenario.faults);
    }
    scenario.adders = adders(protocol, seed);
    scenario
}

/// Clients that change values of data types, in one run of four: from a stream of its own, so that a seed keeps all else.
pub(crate) fn adders(protocol: Protocol, seed: u64) -> u32 {
    if !protocol.parts().contains(&Protocol::Gossip) {
        return 0;
    }
    let mut rng = Randomness::new(seed).stream(Purpose::Plan, ADDERS);
    [0, 0, 0, 2][rng.below(4) as usize]
}

/// Draws all that [`Shape`] leaves open.
pub(crate) fn draw(protocol: Protocol, seed: u64, rng: Rng, shape: Shape) -> Scenario {
    let Shape { nodes, heal, .. } = shape;
    let mut swarm = Swarm::new(protocol, rng, shape);
    let mut scenario = Scenario {
        protocol,
        seed,
        nodes,
        workload: swarm.workload(),
        adders: 0,
        watchers: 0,
        watch_bytes: 0,
        library: None,
        knobs: swarm.knobs(),
        network: swarm.network(),
        disk: swarm.disk(),
        clocks: swarm.clocks(),
        faults: swarm.faults(),
        turn: swarm.turn(),
        heal,
        faults_min: FAULTS_MIN,
        demand: None,
    };
    swarm.late_knobs(&mut scenario.knobs);
    if scenario.turn > 4 * MS {
        // One entry or chunk in each of such long round trips would take longer than the cluster has to recover.
        scenario
            .knobs
            .retain(|name, _| !ONE_AT_A_TIME.contains(&name.as_str()));
    }
    if scenario.turn > MS
        && let Some(timeout) = scenario.knobs.get_mut("paxos.round_timeout")
    {
        // Two turns, a sync and the way, by a clock that runs twice as fast.
        *timeout = 40_000.max(*timeout);
    }
    if scenario.workload.value > 0 && protocol.parts().contains(&Protocol::Raft) {
        // All that an append brings is one record, and must fit into a segment.
        let append_bytes = scenario.knobs.entry("raft.append_bytes".to_owned());
        append_bytes.or_insert(4000);
    }
    scenario
}

impl Swarm {
    fn new(protocol: Protocol, rng: Rng, shape: Shape) -> Self {
        let Shape {
            nodes,
            heal,
            keys,
            value,
        } = shape;
        Self {
            keys,
            value,
            rng,
            protocol,
            nodes,
            heal,
        }
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.below(items.len() as u64) as usize]
    }

    fn node(&mut self) -> NodeId {
        NodeId(1 + self.rng.below(self.nodes.into()) as u32)
    }

    fn workload(&mut self) -> Workload {
        let clients = self.pick(&[2, 3, 4, 6, 10]);
        let operations = 110 + self.rng.below(60) as u32;
        let parts = self.protocol.parts().len() as u64;
        // So that the operations spread over the time of the faults.
        let think = self.heal * u64::from(clients) / u64::from(operations) / parts;
        Workload {
            clients,
            keys: self.keys,
            operations,
            think: think * self.pick(&[10, 50, 80]) / 100,
            deadline: self.pick(&[50, 200, 500, 2000]) * MS,
            value: self.value,
            value_max: 0,
        }
    }

    fn knobs(&mut self) -> Knobs {
        let mut knobs = Knobs::new();
        for part in self.protocol.parts() {
            let table = match part {
                Protocol::Paxos => PAXOS,
                Protocol::Gossip => GOSSIP,
                Protocol::TwoPhase => TWO_PHASE,
                _ => RAFT,
            };
            let share = self.pick(&[0, 200, 600, 1000]);
            for (name, values) in table {
                let value = self.pick(values);
                if value != DEFAULT && self.rng.per_mille(share) {
                    knobs.insert((*name).to_owned(), value);
                }
            }
            if *part == Protocol::Raft && self.rng.per_mille(500) {
                let election = self.pick(&[60_000, 300_000]);
                knobs.insert("raft.election_timeout".to_owned(), election);
                knobs.insert("raft.heartbeat".to_owned(), election / 3);
            }
        }
        knobs
    }

    fn network(&mut self) -> Network {
        let low = self.pick(&[10, 100, 500]) * US;
        // Every run has some of the one or the other; many have one alone.
        let (loss, duplication) = self.pick(&[
            (0, 60),
            (0, 200),
            (60, 0),
            (150, 0),
            (10, 50),
            (30, 30),
            (100, 100),
        ]);
        Network {
            loss,
            duplication,
            delay: (low, low + self.pick(&[50, 500, 5_000, 20_000]) * US),
            late: self.pick(&[0, 0, 100, 500, 2000]) * MS,
            frame: self.pick(&[0, 0, 0, 1, 300]),
            passing: false,
        }
    }

    fn disk(&mut self) -> Disk {
        let low = self.pick(&[10, 100, 1000]) * US;
        Disk {
            sync: (low, low + self.pick(&[50, 500, 5_000]) * US),
            segment: self.segment() * 1024,
            snapshot: self.pick(&[500, 2_000, 10_000, 100_000]),
        }
    }

    /// KiB of a segment. A record must fit: of paxos, it holds all registers that one turn has accepted.
    fn segment(&mut self) -> u64 {
        let registers = matches!(self.protocol, Protocol::Paxos | Protocol::Mixed);
        if self.keys > 10 {
            64
        } else if registers || self.value > 100 {
            self.pick(&[32, 64])
        } else {
            self.pick(&[12, 16, 64])
        }
    }

    fn clocks(&mut self) -> Vec<ClockFault> {
        if self.rng.per_mille(500) {
            return Vec::new();
        }
        let drifts: &[i64] = &[0, 200, -200, 50_000, -300_000, 1_000_000];
        let mut clocks = Vec::new();
        for node in 1..=self.nodes {
            if self.rng.per_mille(500) {
                clocks.push(ClockFault {
                    node: NodeId(node),
                    offset_ms: self.rng.below(2000) as i64 - 1000,
                    drift_ppm: self.pick(drifts),
                });
            }
        }
        clocks
    }

    fn turn(&mut self) -> u64 {
        let longest = if self.protocol == Protocol::Raft { 20 } else { 4 };
        self.pick(&[0, 0, 0, 100 * US, MS, 4 * MS, longest * MS])
    }

    fn faults(&mut self) -> Vec<Fault> {
        let mut classes = self.classes();
        if self.nodes == 1 && classes.is_empty() {
            classes = vec!["crash", "kill"];
        }
        if classes.is_empty() {
            return Vec::new();
        }
        let mut faults = Vec::new();
        // A node alone has no messages to lose.
        let least = if self.nodes == 1 { FAULTS_MIN.into() } else { 12 };
        let timed = least + self.rng.below(30);
        for _ in 0..timed {
            let class = self.pick(&classes);
            let at = 50 * MS + self.rng.below(self.heal * 9 / 10);
            let node = self.node();
            if let Some(action) = self.action(class, node) {
                faults.push(Fault {
                    when: When::At(at),
                    action,
                });
            }
        }
        if self.rng.per_mille(600) {
            // Some seeds hunt: hardly anything that a node does goes unpunished.
            let most = self.pick(&[2, 8, 30]);
            // Many wait for one or two kinds of messages only, or a rare one would hardly ever be waited for.
            let part = self.pick(self.protocol.parts());
            let all = kinds(part);
            let kinds = match self.rng.below(3) {
                0 => vec![self.pick(all)],
                1 => vec![self.pick(all), self.pick(all)],
                _ => all.to_vec(),
            };
            for _ in 0..1 + self.rng.below(most) {
                let class = self.pick(&classes);
                let node = self.node();
                let probe = self.probe(&kinds);
                let bound = self.pick_bound();
                let count = 1 + self.rng.below(bound) as u32;
                // Mostly the node that does something, sometimes one that has to live with it.
                let victim = if self.rng.per_mille(300) {
                    self.node()
                } else {
                    node
                };
                if let Some(action) = self.action_at(class, victim) {
                    faults.push(Fault {
                        when: When::On { node, probe, count },
                        action,
                    });
                }
            }
        }
        faults
    }

    fn pick_bound(&mut self) -> u64 {
        self.pick(&[3, 10, 60, 300])
    }

    fn probe(&mut self, kinds: &[&str]) -> Probe {
        let kind = self.rng.pick(kinds).map(|kind| (*kind).to_owned());
        match (self.rng.below(8), kind) {
            (0 | 1, Some(kind)) => Probe::Receive(kind),
            (2..=4, Some(kind)) => Probe::Send(kind),
            (5, _) => Probe::Append,
            (6, _) => Probe::Write,
            _ => Probe::Persist,
        }
    }

    /// The classes that this seed has: each with a chance of a half, never all.
    fn classes(&mut self) -> Vec<&'static str> {
        let all = [
            "crash",
            "kill",
            "tear",
            "wipe",
            "rot",
            "pause",
            "cut",
            "split",
            "drop",
            "noise",
            "slow-disk",
            "full-disk",
            "fail-sync",
            "fail-write",
            "jump",
            "snapshot",
            "isolate",
        ];
        let feasible = |class: &&str| match *class {
            // A node that has lost its disk is not counted any more where majorities are: see profile `restart`. Those of
            // two-phase come apart: see [`Swarm::lose_disks`].
            "wipe" => self.protocol == Protocol::Gossip,
            "cut" | "split" | "drop" | "noise" | "isolate" => self.nodes > 1,
            _ => true,
        };
        let classes: Vec<&'static str> = all.into_iter().filter(feasible).collect();
        classes.into_iter().filter(|_| self.rng.per_mille(400)).collect()
    }

    fn length(&mut self) -> u64 {
        // From 5 ms to about 1.3 s, log-uniform.
        let length = (5 * MS) << self.rng.below(8);
        length + self.rng.below(length)
    }

    fn route(&mut self) -> Route {
        let from = self.node();
        let to = loop {
            let to = self.node();
            if to != from {
                break to;
            }
        };
        match self.rng.below(6) {
            0 => Route {
                from: None,
                to: Some(to),
            },
            1 => Route {
                from: Some(from),
                to: None,
            },
            _ => Route {
                from: Some(from),
                to: Some(to),
            },
        }
    }

    /// What may happen to a node at something that it does.
    fn action_at(&mut self, class: &'static str, node: NodeId) -> Option<Action> {
        match (class, self.action(class, node)?) {
            ("split" | "noise", _) => None,
            ("cut" | "drop", mut action) => {
                if let Action::Cut { route, .. } | Action::Drop { route, .. } = &mut action {
                    // One end is this node, the other as drawn.
                    match route {
                        Route { from: None, to } => *to = Some(node),
                        Route { from, .. } => *from = Some(node),
                    }
                }
                Some(action)
            }
            (_, action) => Some(action),
        }
    }

    fn action(&mut self, class: &'static str, node: NodeId) -> Option<Action> {
        let length = self.length();
        Some(match class {
            "crash" => Action::Crash { node, length },
            "kill" => Action::Kill { node, length },
            "tear" => Action::Tear {
                node,
                operations: self.rng.below(6),
                names: false,
                length,
            },
            "wipe" => Action::Wipe { node, length },
            "rot" => Action::Rot { node, length },
            "pause" => Action::Pause { node, length },
            "cut" => Action::Cut {
                route: self.route(),
                length,
            },
            "isolate" => Action::Split {
                side: vec![node],
                length,
            },
            "split" => {
                let mut side: Vec<NodeId> = (1..=self.nodes).map(NodeId).collect();
                side.retain(|_| self.rng.per_mille(500));
                if side.is_empty() {
                    return None;
                }
                Action::Split { side, length }
            }
            "drop" => {
                let part = self.pick(self.protocol.parts());
                let kind = self.rng.pick(kinds(part)).map(|kind| (*kind).to_owned())?;
                Action::Drop {
                    kind,
                    route: self.route(),
                    length,
                }
            }
            "noise" => Action::Noise {
                loss: self.pick(&[0, 100, 300, 700]),
                duplication: self.pick(&[0, 100, 500]),
                delay: self.pick(&[1, 10, 50, 300]) * MS,
                length,
            },
            "slow-disk" => Action::SlowDisk {
                node,
                sync: self.pick(&[10, 50, 300, 1000]) * MS,
                length,
            },
            "full-disk" => Action::FullDisk { node, length },
            "fail-sync" => Action::FailSync { node, length },
            "fail-write" => Action::FailWrite { node, length },
            "jump" => Action::Jump {
                node,
                ms: self.rng.below(3000) as i64 - 1500,
            },
            _ => Action::Snapshot { node },
        })
    }
}
