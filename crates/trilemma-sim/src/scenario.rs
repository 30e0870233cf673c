//! Scenarios: everything that happens to a cluster from outside, as short readable text.
//!
//! A seed is turned into a scenario by [`crate::swarm`], a failing scenario is made short by [`crate::shrink`], and
//! one written by hand runs like any other. One line is one thing; `#` begins a comment.
//!
//! ```text
//! protocol raft                # raft, paxos, gossip, two-phase, mixed
//! seed 17                      # of the remaining small choices: delays, losses, election timeouts
//! nodes 3
//! clients 2 keys 1 operations 20 think 5ms deadline 300ms value 100
//! adders 2                     # clients that change counters and sets; 0 if there is no such line
//! watchers 3 bytes 600         # 0 if there is no such line
//! library 2 sever 300ms drop 50 sessions 3 spread 8 window 4    # clients ask nodes themselves if there is none
//! knob raft.append_entries_max 1
//! network loss 20 duplicate 10 delay 100us..2ms late 500ms frame 300
//! disk 100us..500us segment 16384 snapshot 4096
//! clock 2 offset -3000 drift 200
//! turn 200us
//! at 400ms crash 1 for 300ms
//! at 500ms cut 1>3 for 200ms
//! on 2 send append-reply #3 pause 2 for 500ms
//! heal 3s faults 50
//! ```
//!
//! Chances are per mille. Values have `value` bytes at least (default: as few as tell them apart). The messages of a turn
//! to one peer travel in frames of `frame` bytes at most (default: as in production; 1: each alone), which are lost, late
//! or doubled as a whole; half of the copies that `duplicate` makes take up to `late` (default: as long as any frame). A turn of a node takes all inputs that come within its length before anything leaves. The
//! heal is put off, with noisy links, until the number of faults has happened. `at` is virtual time from the start;
//! `on NODE EVENT #N` acts at the N-th such event of that node over all its incarnations. Events: `send KIND` and `receive KIND` (message kinds of the protocols), `append` (records
//! were handed to the log, nothing was sent yet), `write` (the disk has them and has not synced them), `persist` (they
//! became durable, nobody knows yet), `start`.
//!
//! | action | what it does |
//! |---|---|
//! | `crash N for D` | power fails: written and unsynced sectors survive at random; the node starts again after `D` |
//! | `kill N for D` | the process dies: what was handed to the disk stays |
//! | `stop N for D` | the process is stopped cleanly: it hands over first, within `D` or not |
//! | `tear N K for D` | power fails after `K` more disk operations; `tear N K names for D`: of those on names of files |
//! | `wipe N for D` | power fails and the disk is lost; the node starts with an empty one, as if it were new |
//! | `rot N for D` | power fails and a stored bit flips; if the node notices, the bit is put right after `D` |
//! | `pause N for D` | the process stands still |
//! | `cut A>B for D` | nothing from `A` reaches `B`; `*` is any node |
//! | `split A,B for D` | nothing passes between these nodes and the rest |
//! | `drop KIND A>B for D` | messages of this kind are lost |
//! | `noise L U M for D` | loss `L`, duplication `U`, and delays up to `M`, on all links |
//! | `slow-disk N M for D` | each sync takes `M` |
//! | `full-disk N for D` | no room for new bytes |
//! | `fail-sync N for D`, `fail-write N for D` | the next sync or write fails, which must stop the node |
//! | `jump N MS` | the wall clock jumps by this many milliseconds |
//! | `snapshot N` | the node makes a snapshot of its keyspaces now |
//! | `set N NAME VALUE` | the node has this setting from its next start on; at time 0, from its first |
//!
//! `value A most B` makes one value in fifty up to `B` bytes longer. `passing` at the end of `network`: `cut` and `split`
//! let through what is already under way. `demand write D catch-up D` asks for progress before the heal: while no fault is
//! going on, a write must succeed within the first time, and a node that has started must have what the others had then
//! within the second.
//!
//! `library N`: clients and watchers go through N clients of `trilemma-client`, each of which loses a connection about
//! every `sever`. Calls are dropped by their callers with a chance of `drop`. The clients of a library share `sessions`
//! sessions in each keyspace, whose operations lie at most `spread` apart, and have at most `window` calls under way on
//! a connection.
mod text;

use std::collections::BTreeMap;
use std::fmt;

use trilemma_core::NodeId;
use trilemma_node::Durability;

pub use text::ParseError;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// One keyspace of backend `raft`.
    Raft,
    /// One keyspace of backend `paxos`.
    Paxos,
    /// One keyspace of backend `gossip`.
    Gossip,
    /// One keyspace of backend `two-phase`.
    TwoPhase,
    /// One keyspace of each backend, on shared links, logs and disks.
    Mixed,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 5] = [
        Protocol::Raft,
        Protocol::Paxos,
        Protocol::Gossip,
        Protocol::TwoPhase,
        Protocol::Mixed,
    ];

    /// Its name in scenarios and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Raft => "raft",
            Protocol::Paxos => "paxos",
            Protocol::Gossip => "gossip",
            Protocol::TwoPhase => "two-phase",
            Protocol::Mixed => "mixed",
        }
    }

    /// Whether it counts what members have promised, so that one that has lost its disk is not counted any more.
    #[must_use]
    pub const fn counts_majorities(self) -> bool {
        matches!(self, Protocol::Raft | Protocol::Paxos)
    }

    /// Whether a node may lose its disk and its cluster go on. The sequencer of two-phase, its lowest node, may not: what
    /// it had decided stands nowhere else.
    #[must_use]
    pub const fn may_lose_disk(self, node: NodeId) -> bool {
        !matches!((self, node), (Protocol::TwoPhase, NodeId(1)))
    }

    /// The backends of its keyspaces.
    #[must_use]
    pub const fn parts(self) -> &'static [Protocol] {
        match self {
            Protocol::Raft => &[Protocol::Raft],
            Protocol::Paxos => &[Protocol::Paxos],
            Protocol::Gossip => &[Protocol::Gossip],
            Protocol::TwoPhase => &[Protocol::TwoPhase],
            Protocol::Mixed => &[
                Protocol::Raft,
                Protocol::Paxos,
                Protocol::Gossip,
                Protocol::TwoPhase,
            ],
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == text);
        found.ok_or_else(|| UnknownProtocol(text.chars().take(40).collect()))
    }
}

/// The text names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol \"{0}\": expected raft, paxos, gossip, two-phase or mixed")]
pub struct UnknownProtocol(String);

/// Everything that a run needs. Times and durations are nanoseconds of virtual time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What runs.
    pub protocol: Protocol,
    /// Seed of the small choices.
    pub seed: u64,
    /// Nodes 1 to this number.
    pub nodes: u32,
    /// What clients do.
    pub workload: Workload,
    /// Clients that change values of data types, where a keyspace has them.
    pub adders: u32,
    /// Watchers, which follow keyspaces at one node after the other.
    pub watchers: u32,
    /// Bytes that may wait for one watcher; 0 leaves the default.
    pub watch_bytes: usize,
    /// How clients and watchers reach nodes; `None`: each attempt goes straight to one node.
    pub library: Option<Library>,
    /// Settings of protocols, `protocol.setting`, that differ from the defaults.
    pub knobs: BTreeMap<String, u64>,
    /// How links behave.
    pub network: Network,
    /// How disks behave.
    pub disk: Disk,
    /// Clocks that are not right.
    pub clocks: Vec<ClockFault>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// How long a turn of a node lasts: inputs that come meanwhile are taken together before anything leaves.
    pub turn: u64,
    /// When all faults end and the cluster must recover.
    pub heal: u64,
    /// Faults that must have happened before the heal; until then it is put off and links are noisy.
    pub faults_min: u32,
    /// What must go on while clients write, if that is demanded.
    pub demand: Option<Demand>,
}

/// Bounds on progress while clients write and no fault is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Within this time, a write must succeed.
    pub write: u64,
    /// Within this time, a node that has started must have what the others had when it started.
    pub catch_up: u64,
}

impl Scenario {
    /// Whether some node may lose its disk.
    #[must_use]
    pub fn has_wipes(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| matches!(fault.action, Action::Wipe { .. }))
    }

    /// What a gossip write waits for.
    #[must_use]
    pub fn durability(&self) -> Durability {
        let drawn = self.knobs.get("node.durability").copied();
        drawn.map_or(Durability::Fsync, crate::engine::durability)
    }

    /// Whether a node may not know any more what it has acknowledged.
    #[must_use]
    pub fn may_forget(&self) -> bool {
        let gossip = self.protocol.parts().contains(&Protocol::Gossip);
        self.has_wipes() || (gossip && self.durability() != Durability::Fsync)
    }

    /// The settings of a node when it starts for the first time.
    #[must_use]
    pub fn knobs_of(&self, id: NodeId) -> BTreeMap<String, u64> {
        let mut knobs = self.knobs.clone();
        for fault in &self.faults {
            if let (When::At(0), Action::Set { node, name, value }) = (&fault.when, &fault.action)
                && *node == id
            {
                knobs.insert(name.clone(), *value);
            }
        }
        knobs
    }
}

impl Default for Scenario {
    /// Three nodes, two clients, 20 operations, no faults, healed after one second.
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            protocol: Protocol::Raft,
            seed: 0,
            nodes: 3,
            workload: Workload {
                clients: 2,
                keys: 2,
                operations: 20,
                think: 10 * MS,
                deadline: 500 * MS,
                value: 0,
                value_max: 0,
            },
            adders: 0,
            watchers: 0,
            watch_bytes: 0,
            library: None,
            knobs: Default::default(),
            network: Network {
                loss: 0,
                duplication: 0,
                delay: (MS / 10, MS / 2),
                late: 0,
                frame: 0,
                passing: false,
            },
            disk: Disk {
                sync: (MS / 10, MS / 2),
                segment: 64 * 1024,
                snapshot: 16 * 1024,
            },
            clocks: Vec::new(),
            faults: Vec::new(),
            turn: 0,
            heal: 1000 * MS,
            faults_min: 0,
            demand: None,
        }
    }
}

/// What clients do until the cluster is healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Clients; each has one operation at a time.
    pub clients: u32,
    /// Keys per keyspace.
    pub keys: u32,
    /// Operations of all clients together.
    pub operations: u32,
    /// Mean time between two operations of one client.
    pub think: u64,
    /// Longest time that a client waits for an answer.
    pub deadline: u64,
    /// Bytes that a value has at least.
    pub value: usize,
    /// Bytes by which one value in fifty is longer, at most; 0: none is.
    pub value_max: usize,
}

/// Clients that go through the client library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Instances of it, which clients and watchers share.
    pub count: u32,
    /// Mean time between two lost connections of one.
    pub sever: u64,
    /// Calls that are dropped by their callers, per mille.
    pub drop: u32,
    /// Sessions of one instance in each keyspace.
    pub sessions: u32,
    /// Distance between the oldest operation under way of a session and the newest.
    pub spread: u64,
    /// Calls under way on one connection.
    pub window: usize,
}

/// How links behave while nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Frames lost, per mille.
    pub loss: u32,
    /// Frames delivered twice, per mille.
    pub duplication: u32,
    /// Shortest and longest delay.
    pub delay: (u64, u64),
    /// Longest delay of the second of two copies; half of them take up to this long. 0: as long as any frame.
    pub late: u64,
    /// Bytes after which a frame is closed; 0: as in production. With 1, each message travels alone.
    pub frame: usize,
    /// A cut lets through what is under way when it begins.
    pub passing: bool,
}

/// How disks behave while nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Shortest and longest time of a sync.
    pub sync: (u64, u64),
    /// Bytes of a log segment.
    pub segment: u64,
    /// Bytes of log after which a snapshot is made.
    pub snapshot: u64,
}

/// A clock that is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockFault {
    /// Whose.
    pub node: NodeId,
    /// How far its wall clock is ahead, in milliseconds.
    pub offset_ms: i64,
    /// How much too fast both clocks run, in millionths.
    pub drift_ppm: i64,
}

/// One fault: when, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it happens.
    pub when: When,
    /// What happens.
    pub action: Action,
}

/// When a fault happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(u64),
    /// When this happens at a node for the `count`-th time, from 1.
    On {
        /// The node.
        node: NodeId,
        /// What happens there.
        probe: Probe,
        /// Which time.
        count: u32,
    },
}

/// An event that a fault may wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// A message of this kind is about to leave.
    Send(String),
    /// A message of this kind is about to be handled.
    Receive(String),
    /// Records were handed to the log; nothing was sent yet.
    Append,
    /// Records were handed to the disk, which has not synced them.
    Write,
    /// Records became durable; nobody has learned of it.
    Persist,
    /// The node has started.
    Start,
}

/// One direction of a link; `None` is any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sender.
    pub from: Option<NodeId>,
    /// The receiver.
    pub to: Option<NodeId>,
}

impl Route {
    /// Whether a message from `from` to `to` goes this way.
    #[must_use]
    pub fn covers(self, from: NodeId, to: NodeId) -> bool {
        self.from.is_none_or(|node| node == from) && self.to.is_none_or(|node| node == to)
    }
}

/// What a fault does. `length` is how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's table describes each with its fields")]
pub enum Action {
    Crash {
        node: NodeId,
        length: u64,
    },
    Kill {
        node: NodeId,
        length: u64,
    },
    Stop {
        node: NodeId,
        length: u64,
    },
    Tear {
        node: NodeId,
        operations: u64,
        /// Only changes of names count.
        names: bool,
        length: u64,
    },
    Wipe {
        node: NodeId,
        length: u64,
    },
    Rot {
        node: NodeId,
        length: u64,
    },
    Pause {
        node: NodeId,
        length: u64,
    },
    Cut {
        route: Route,
        length: u64,
    },
    Split {
        side: Vec<NodeId>,
        length: u64,
    },
    Drop {
        kind: String,
        route: Route,
        length: u64,
    },
    Noise {
        loss: u32,
        duplication: u32,
        delay: u64,
        length: u64,
    },
    SlowDisk {
        node: NodeId,
        sync: u64,
        length: u64,
    },
    FullDisk {
        node: NodeId,
        length: u64,
    },
    FailSync {
        node: NodeId,
        length: u64,
    },
    FailWrite {
        node: NodeId,
        length: u64,
    },
    Jump {
        node: NodeId,
        ms: i64,
    },
    Snapshot {
        node: NodeId,
    },
    Set {
        node: NodeId,
        name: String,
        value: u64,
    },
}

impl Action {
    /// The class of the fault, for coverage.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Action::Crash { .. } => "crash",
            Action::Kill { .. } => "kill",
            Action::Stop { .. } => "stop",
            Action::Tear { .. } => "tear",
            Action::Wipe { .. } => "wipe",
            Action::Rot { .. } => "rot",
            Action::Pause { .. } => "pause",
            Action::Cut { .. } => "cut",
            Action::Split { .. } => "split",
            Action::Drop { .. } => "drop",
            Action::Noise { .. } => "noise",
            Action::SlowDisk { .. } => "slow-disk",
            Action::FullDisk { .. } => "full-disk",
            Action::FailSync { .. } => "fail-sync",
            Action::FailWrite { .. } => "fail-write",
            Action::Jump { .. } => "jump",
            Action::Snapshot { .. } => "snapshot",
            Action::Set { .. } => "set",
        }
    }

    /// The node it concerns, if it is one.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Action::Crash { node, .. }
            | Action::Kill { node, .. }
            | Action::Stop { node, .. }
            | Action::Tear { node, .. }
            | Action::Wipe { node, .. }
            | Action::Rot { node, .. }
            | Action::Pause { node, .. }
            | Action::SlowDisk { node, .. }
            | Action::FullDisk { node, .. }
            | Action::FailSync { node, .. }
            | Action::FailWrite { node, .. }
            | Action::Jump { node, .. }
            | Action::Set { node, .. }
            | Action::Snapshot { node } => Some(*node),
            Action::Cut { route, .. } | Action::Drop { route, .. } => route.from,
            Action::Split { .. } | Action::Noise { .. } => None,
        }
    }

    /// How long it lasts; 0 if it is over at once.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.clone().length_mut().map_or(0, |length| *length)
    }

    /// How long it lasts, if it does.
    pub fn length_mut(&mut self) -> Option<&mut u64> {
        match self {
            Action::Crash { length, .. }
            | Action::Kill { length, .. }
            | Action::Stop { length, .. }
            | Action::Tear { length, .. }
            | Action::Wipe { length, .. }
            | Action::Rot { length, .. }
            | Action::Pause { length, .. }
            | Action::Cut { length, .. }
            | Action::Split { length, .. }
            | Action::Drop { length, .. }
            | Action::Noise { length, .. }
            | Action::SlowDisk { length, .. }
            | Action::FullDisk { length, .. }
            | Action::FailSync { length, .. }
            | Action::FailWrite { length, .. } => Some(length),
            Action::Jump { .. } | Action::Snapshot { .. } | Action::Set { .. } => None,
        }
    }
}
