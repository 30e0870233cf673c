//! `bench micro`: three nodes of a backend in one thread, wired to each other, with a log in memory: what the core costs
//! without disks, sockets and threads. Messages and records are encoded and decoded as everywhere.

mod merge;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::protocol::{Attempt, Peer, PeerView, Proposal};
use trilemma_core::{
    AppendSeq, Backend, Command, Incarnation, NodeId, Now, OpId, Reply, Request, SessionId, Ticket, Version,
    WallTime,
};
use trilemma_gossip::{Durability, Gossip, GossipConfig};
use trilemma_paxos::{Paxos, PaxosConfig};
use trilemma_raft::{Raft, RaftConfig};
use trilemma_two_phase::{TwoPhase, TwoPhaseConfig};

use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Nodes.
const NODES: u32 = 3;
/// Longest virtual time until writes can be made.
const START: Duration = Duration::from_secs(10);
/// The wall clock's milliseconds when the virtual time begins.
const WALL: u64 = 1_700_000_000_000;
/// Virtual time of one turn: less than a real one takes, so that no timer is late.
const TURN: Duration = Duration::from_micros(1);

/// How deep, how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backends.
    #[arg(long, value_delimiter = ',', default_value = "raft")]
    pub backends: Vec<Backend>,
    /// Writes under way at once, each of a session of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,256")]
    pub depths: Vec<u64>,
    /// Seconds for each depth.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Keys.
    #[arg(long, default_value_t = 10_000)]
    pub keys: u64,
}

struct Node {
    host: Box<dyn DynProtocol>,
    inputs: VecDeque<GroupInput>,
    output: Output,
}

/// The three nodes, and what is on its way between them.
struct Core {
    nodes: Vec<Node>,
    now: trilemma_core::Instant,
    replies: Vec<(Ticket, Reply)>,
    /// Bytes of records that are in memory, as a log would hold them.
    logged: u64,
}

impl Core {
    fn new(backend: Backend) -> Self {
        Self::with(backend, Durability::Fsync)
    }

    /// With what a write of a convergent keyspace waits for.
    fn with(backend: Backend, durability: Durability) -> Self {
        let ids = (1..=NODES).map(NodeId);
        let nodes = ids.clone().map(|id| {
            let peers: BTreeMap<NodeId, Peer> = ids
                .clone()
                .filter(|peer| *peer != id)
                .map(|peer| {
                    let connected = Peer {
                        incarnation: Incarnation(1),
                        connected: true,
                    };
                    (peer, connected)
                })
                .collect();
            Node {
                host: instance(backend, durability, id, ids.clone()),
                inputs: VecDeque::from([GroupInput::Start, GroupInput::Peers(PeerView { peers })]),
                output: Output::default(),
            }
        });
        Self {
            nodes: nodes.collect(),
            now: trilemma_core::Instant::from_nanos(1_000_000_000),
            replies: Vec::new(),
            logged: 0,
        }
    }

    /// One turn of each node that has something to do.
    fn turn(&mut self) {
        self.now = self.now + TURN;
        for index in 0..self.nodes.len() {
            self.turn_of(index);
        }
    }

    fn turn_of(&mut self, index: usize) {
        let now = Now {
            instant: self.now,
            wall: self.wall(),
        };
        let node = &mut self.nodes[index];
        let is_due = node.host.wake_at() <= self.now;
        if node.inputs.is_empty() && !is_due && !node.host.goes_on() {
            return;
        }
        for input in node.inputs.drain(..) {
            node.host.step(now, input, &mut node.output);
        }
        if is_due {
            node.host.step(now, GroupInput::Wake, &mut node.output);
        }
        node.host.step(now, GroupInput::EndTurn, &mut node.output);
        let mut output = std::mem::take(&mut node.output);
        let last: Option<AppendSeq> = output.records.last().map(|record| record.seq);
        self.logged += output
            .records
            .iter()
            .map(|record| record.bytes.len() as u64)
            .sum::<u64>();
        if let Some(up_to) = last {
            node.inputs.push_back(GroupInput::Persisted { up_to });
        }
        self.replies.append(&mut output.replies);
        let from = NodeId(index as u32 + 1);
        for message in output.sends.drain(..) {
            let to = &mut self.nodes[message.to.0 as usize - 1];
            to.inputs.push_back(GroupInput::Receive {
                from,
                bytes: message.bytes,
            });
        }
        output.clear();
        self.nodes[index].output = output;
    }

    fn wall(&self) -> WallTime {
        let since = self.now.since(trilemma_core::Instant::ZERO);
        WallTime(WALL + since.as_millis() as u64)
    }

    /// The node that orders the writes, or any where none does, if it can write.
    fn writer(&self) -> Option<usize> {
        let now = Now {
            instant: self.now,
            wall: self.wall(),
        };
        self.nodes.iter().enumerate().position(|(index, node)| {
            let status = node.host.status(now);
            let me = NodeId(index as u32 + 1);
            status.can_write && status.leader.is_none_or(|leader| leader == me)
        })
    }

    /// Lets time pass until a node can write.
    fn start(&mut self) -> Result<usize> {
        let end = self.now + START;
        while self.now < end {
            // What was sent has been answered.
            if self.nodes.iter().all(|node| node.inputs.is_empty())
                && let Some(writer) = self.writer()
            {
                return Ok(writer);
            }
            if self.nodes.iter().all(|node| node.inputs.is_empty()) {
                let next = self.nodes.iter().map(|node| node.host.wake_at()).min();
                self.now = next.unwrap_or(end).max(self.now);
            }
            self.turn();
        }
        Err(BenchError::system("micro", "no node can write"))
    }
}

fn instance(
    backend: Backend,
    durability: Durability,
    node: NodeId,
    members: impl Iterator<Item = NodeId>,
) -> Box<dyn DynProtocol> {
    let (incarnation, seed) = (Incarnation(1), u64::from(node.0));
    match backend {
        Backend::Raft => Box::new(Host::new(Raft::new(RaftConfig::new(
            node,
            incarnation,
            members,
            seed,
        )))),
        Backend::Paxos => Box::new(Host::new(Paxos::new(PaxosConfig::new(
            node,
            members,
            incarnation,
            seed,
        )))),
        Backend::Gossip => Box::new(Host::new(Gossip::new(GossipConfig {
            durability,
            ..GossipConfig::new(node, incarnation, members, seed)
        }))),
        Backend::TwoPhase => Box::new(Host::new(TwoPhase::new(TwoPhaseConfig::new(
            node,
            members,
            incarnation,
            seed,
        )))),
    }
}

/// Measures the core that this program was built with.
pub fn measure(options: &Options) -> Result<Vec<Measurement>> {
    let mut found = Vec::new();
    for backend in &options.backends {
        for depth in &options.depths {
            found.push(one(*backend, *depth, options)?);
        }
        if *backend == Backend::Gossip {
            found.extend(merge::measure(options)?);
        }
    }
    Ok(found)
}

/// A put, the write of this number of its session.
fn propose(core: &Core, session: u64, sequence: u64, key: u64, value: &bytes::Bytes) -> Proposal {
    Proposal {
        ticket: Ticket(session),
        deadline: core.now + Duration::from_secs(60),
        request: Request::Write {
            op: OpId {
                session: SessionId {
                    basis: Version(0),
                    nonce: session + 1,
                },
                seq: sequence,
            },
            attempt: Attempt::First,
            command: Command::put(format!("key/{key}"), value.clone()),
        },
    }
}

fn one(backend: Backend, depth: u64, options: &Options) -> Result<Measurement> {
    eprintln!("{backend} core, {depth} under way …");
    let mut core = Core::new(backend);
    let leader = core.start()?;
    let value = bytes::Bytes::from(vec![b'v'; options.value_bytes]);
    let mut histogram = new_histogram()?;
    // Of each session the writes so far, and when the one under way began.
    let mut sessions: Vec<(u64, Instant)> = vec![(0, Instant::now()); depth as usize];
    let mut waiting: Vec<u64> = (0..depth).collect();
    let (mut committed, mut keys) = (0_u64, 0_u64);
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let logged = core.logged;
    while Instant::now() < end {
        for session in waiting.drain(..) {
            let (sequence, began) = &mut sessions[session as usize];
            *sequence += 1;
            *began = Instant::now();
            keys += 1;
            let proposal = propose(&core, session, *sequence, keys % options.keys.max(1), &value);
            core.nodes[leader].inputs.push_back(GroupInput::Propose(proposal));
        }
        core.turn();
        for (Ticket(session), reply) in core.replies.drain(..) {
            match reply {
                Reply::Write(Ok(_)) => {}
                other => return Err(BenchError::system("micro", format!("{other:?}"))),
            }
            committed += 1;
            histogram.saturating_record(nanos(sessions[session as usize].1.elapsed()));
            waiting.push(session);
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    Ok(
        Measurement::new(format!("{backend} core, 3 nodes"), format!("{depth} under way"))
            .figure("commits/s", committed as f64 / elapsed)
            .figure("us/commit", elapsed * 1e6 / committed.max(1) as f64)
            .times("propose to answer", &histogram)
            .figure(
                "log B/commit",
                (core.logged - logged) as f64 / committed.max(1) as f64,
            ),
    )
}
