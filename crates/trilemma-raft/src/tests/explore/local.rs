//! One node of the explorer: the shipped machine in its host, a disk, and a clock that moves on request.
//!
//! A state of a node is named by its *text*: everything that the machine, the host and the disk hold, with what does not
//! matter taken out. Two histories that lead to the same text are one state, and go on in the same way.
//!
//! - Times are seen from now: to come, just now, or so long ago that every timeout is over. The clock makes no other steps.
//! - Numbers of records are seen from the last durable one.
//! - The generator of timeouts is left out: when a timer fires is a step of its own.

use bytes::Bytes;
use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::{AppendSeq, Attempt, Command, Incarnation, Proposal, Ticket, codec};
use trilemma_testkit::panics::attempt;
use trilemma_testkit::write;

use super::super::*;

/// The nodes.
pub(super) const NODES: u32 = 3;
/// Every timeout is shorter. A heartbeat is due after one nanosecond.
const LAPSE: Duration = Duration::from_secs(10);
/// What is younger has just happened.
const RECENT: u64 = 1_000_000;
/// Where a node's clock begins.
const BEGIN: Instant = Instant::from_nanos(1_000_000_000_000);

/// A message in flight: sender, receiver, bytes.
pub(super) type Letter = (NodeId, NodeId, Bytes);

/// What happens at one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// A message arrives.
    Receive(NodeId, Bytes),
    /// Its timer fires if it is due.
    Tick,
    /// A client writes for the n-th time.
    Propose(u64),
    /// Its disk finishes.
    Sync,
    /// Power fails, and the node starts again. So many of the records that were not durable survive.
    Crash(usize),
}

/// What happens at one node, when, and whether its disk takes its time from then on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) act: Act,
    /// So much time has passed since the node's last step that every timeout is over. No timer has fired meanwhile.
    pub(super) late: bool,
    /// Records of this step are not durable before `Sync`.
    pub(super) slow: bool,
}

impl Step {
    pub(super) fn prompt(act: Act) -> Self {
        Self {
            act,
            late: false,
            slow: false,
        }
    }

    pub(super) fn late(act: Act) -> Self {
        Self {
            late: true,
            ..Self::prompt(act)
        }
    }

    pub(super) fn slow(act: Act) -> Self {
        Self {
            slow: true,
            ..Self::prompt(act)
        }
    }
}

/// How a node came to its state: what its disk held when it started, and what has happened since.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    disk: Vec<Bytes>,
    steps: Vec<Step>,
}

/// A state of a node.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) node: NodeId,
    pub(super) history: History,
    pub(super) text: String,
    pub(super) term: Term,
    pub(super) is_leader: bool,
    /// It leads, and has committed an entry of its term.
    pub(super) is_ready: bool,
    pub(super) commit: Index,
    pub(super) log: Vec<Entry>,
    /// What a leader believes of the nodes' disks.
    pub(super) matched: Vec<Option<Index>>,
    /// The log that a restart would find.
    pub(super) stored: Vec<Entry>,
    /// Records that are not durable.
    pub(super) waiting: usize,
}

impl Local {
    /// A node with an empty disk that has just started.
    pub(super) fn blank(node: NodeId) -> Self {
        Machine::start(node, Vec::new()).local(History::default())
    }

    /// What becomes of the node, and what it sends. Fails if it panics.
    pub(super) fn after(&self, step: &Step) -> Result<(Self, Vec<Letter>), String> {
        let mut history = self.history.clone();
        let run = || {
            let mut machine = Machine::start(self.node, history.disk.clone());
            for step in &history.steps {
                machine.step(step);
            }
            machine.sent.clear();
            if let Act::Crash(kept) = step.act {
                history = History {
                    disk: machine.survivors(kept),
                    steps: Vec::new(),
                };
                machine = Machine::start(self.node, history.disk.clone());
            } else {
                machine.step(step);
                history.steps.push(step.clone());
            }
            let sent = std::mem::take(&mut machine.sent);
            (machine.local(history), sent)
        };
        attempt(run).map_err(|said| format!("node {} stops: {said}", self.node))
    }
}

/// A running node.
struct Machine {
    node: NodeId,
    host: Host<Raft>,
    now: Instant,
    /// Records that the disk was handed, those that it held at the start among them.
    records: Vec<Bytes>,
    /// How many of them are durable, and how many were there at the start.
    durable: usize,
    found: usize,
    sent: Vec<Letter>,
}

fn config(node: NodeId) -> RaftConfig {
    let mut config = RaftConfig::new(node, Incarnation(1), (1..=NODES).map(NodeId), 1);
    config.heartbeat = Duration::from_nanos(1);
    config
}

fn replayed(node: NodeId, records: &[Bytes]) -> Raft {
    let mut raft = Raft::new(config(node));
    for record in records {
        let record = codec::decode(record).expect("our own records decode");
        raft.replay(record).expect("a node takes its own records back");
    }
    raft
}

fn log(raft: &Raft) -> Vec<Entry> {
    let indices = (1..=raft.log_end().index.0).map(Index);
    indices
        .map(|index| raft.entry(index).expect("nothing is compacted here").clone())
        .collect()
}

impl Machine {
    fn start(node: NodeId, disk: Vec<Bytes>) -> Self {
        let mut machine = Self {
            node,
            host: Host::new(replayed(node, &disk)),
            now: BEGIN,
            durable: disk.len(),
            found: disk.len(),
            records: disk,
            sent: Vec::new(),
        };
        machine.turn(GroupInput::Start);
        let peer = Peer {
            incarnation: Incarnation(1),
            connected: true,
        };
        let peers = (1..=NODES).map(NodeId).filter(|peer| *peer != node);
        let peers = peers.map(|id| (id, peer)).collect();
        machine.turn(GroupInput::Peers(PeerView { peers }));
        machine.sync();
        machine
    }

    fn step(&mut self, step: &Step) {
        let is_prompt = !step.slow && self.durable == self.records.len();
        if step.late {
            self.now = self.now + LAPSE;
        }
        match &step.act {
            Act::Receive(from, bytes) => self.turn(GroupInput::Receive {
                from: *from,
                bytes: bytes.clone(),
            }),
            Act::Tick => {
                self.now = self.now + Duration::from_nanos(1);
                self.turn(GroupInput::Wake);
            }
            Act::Propose(number) => self.turn(GroupInput::Propose(Proposal {
                ticket: Ticket(*number),
                deadline: Instant::NEVER,
                request: write(*number, Attempt::First, Command::put("key", number.to_string())),
            })),
            Act::Sync => return self.sync(),
            Act::Crash(_) => unreachable!("a crash ends a machine"),
        }
        if is_prompt {
            self.sync();
        }
    }

    /// A turn of one input.
    fn turn(&mut self, input: GroupInput) {
        let mut output = Output::default();
        let now = Now {
            instant: self.now,
            ..Now::default()
        };
        self.host.step(now, input, &mut output);
        self.host.step(now, GroupInput::EndTurn, &mut output);
        assert_eq!(output.rejected, None, "our own messages decode");
        self.records
            .extend(output.records.into_iter().map(|record| record.bytes));
        let node = self.node;
        let letters = output.sends.into_iter();
        self.sent
            .extend(letters.map(|letter| (node, letter.to, letter.bytes)));
    }

    /// Makes everything durable.
    fn sync(&mut self) {
        while self.durable < self.records.len() {
            self.durable = self.records.len();
            let up_to = AppendSeq((self.durable - self.found) as u64);
            self.turn(GroupInput::Persisted { up_to });
        }
    }

    fn survivors(&self, kept: usize) -> Vec<Bytes> {
        self.records[..self.durable + kept].to_vec()
    }

    fn local(&self, history: History) -> Local {
        let raft = self.host.protocol();
        let waiting = self.records.len() - self.durable;
        let mut text = seen_from(self.now, &format!("{:?}", self.host));
        for kept in 0..=waiting {
            let found = replayed(self.node, &self.survivors(kept));
            text += &format!("\n{:?} {:?} {:?}", found.term(), found.vote(), log(&found));
        }
        Local {
            node: self.node,
            history,
            text,
            term: raft.term(),
            is_leader: raft.is_leader(),
            is_ready: raft.is_leader() && raft.is_ready(),
            commit: raft.commit(),
            log: log(raft),
            matched: (1..=NODES).map(|peer| raft.matched(NodeId(peer))).collect(),
            stored: log(&replayed(self.node, &self.survivors(0))),
            waiting,
        }
    }
}

/// Takes out of a debug text what tells apart states that go on in the same way.
fn seen_from(now: Instant, text: &str) -> String {
    let persisted = number_after(text, "persisted: AppendSeq(").map_or(0, |(number, _)| number);
    let mut seen = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('(') {
        let (before, after) = rest.split_at(at + 1);
        seen += before;
        rest = after;
        let Some((number, end)) = number_after(after, "") else {
            continue;
        };
        let kind = if before.ends_with("Instant(") {
            class_of(now.as_nanos(), number).to_owned()
        } else if before.ends_with("AppendSeq(") {
            number.saturating_sub(persisted).to_string()
        } else if before.ends_with("Rng(") {
            String::new()
        } else {
            continue;
        };
        seen += &kind;
        rest = &after[end..];
    }
    seen + rest
}

fn class_of(now: u64, at: u64) -> &'static str {
    match at {
        u64::MAX => "never",
        at if at > now => "to come",
        at if now - at < RECENT => "now",
        _ => "over",
    }
}

/// The digits that follow `words`, as a number, and where they end in the text.
fn number_after(text: &str, words: &str) -> Option<(u64, usize)> {
    let begin = if words.is_empty() {
        0
    } else {
        text.find(words)? + words.len()
    };
    let digits = text[begin..].bytes().take_while(u8::is_ascii_digit).count();
    let number = text[begin..begin + digits].parse().ok()?;
    Some((number, begin + digits))
}
