//! `bench micro`: three raft nodes in one thread, wired to each other, with a log in memory: what the core costs without
//! disks, sockets and threads. Messages and records are encoded and decoded as everywhere.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::protocol::{Attempt, Peer, PeerView, Proposal};
use trilemma_core::{
    AppendSeq, Command, Incarnation, NodeId, Now, OpId, Reply, Request, SessionId, Ticket, Version,
};
use trilemma_raft::{Raft, RaftConfig};

use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Nodes.
const NODES: u32 = 3;
/// Longest virtual time until one leads.
const ELECTION: Duration = Duration::from_secs(10);
/// Virtual time of one turn: less than a real one takes, so that no timer is late.
const TURN: Duration = Duration::from_micros(1);

/// How deep, how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
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
    host: Host<Raft>,
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
    fn new() -> Self {
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
                host: Host::new(Raft::new(RaftConfig::new(id, ids.clone(), u64::from(id.0)))),
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
            wall: Default::default(),
        };
        let node = &mut self.nodes[index];
        let is_due = node.host.wake_at() <= self.now;
        if node.inputs.is_empty() && !is_due {
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

    fn leader(&self) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.host.protocol().is_leader())
    }

    /// Lets time pass until a node leads.
    fn elect(&mut self) -> Result<usize> {
        let end = self.now + ELECTION;
        while self.now < end {
            // A leader has said so to the others, and they have answered.
            if let Some(leader) = self.leader()
                && self.nodes.iter().all(|node| node.inputs.is_empty())
            {
                return Ok(leader);
            }
            if self.nodes.iter().all(|node| node.inputs.is_empty()) {
                let next = self.nodes.iter().map(|node| node.host.wake_at()).min();
                self.now = next.unwrap_or(end).max(self.now);
            }
            self.turn();
        }
        Err(BenchError::system("micro", "no node was elected"))
    }
}

/// Measures the core that this program was built with.
pub fn measure(options: &Options) -> Result<Vec<Measurement>> {
    options.depths.iter().map(|depth| one(*depth, options)).collect()
}

fn one(depth: u64, options: &Options) -> Result<Measurement> {
    eprintln!("core, {depth} under way …");
    let mut core = Core::new();
    let leader = core.elect()?;
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
            let command = Command::put(format!("key/{}", keys % options.keys.max(1)), value.clone());
            let op = OpId {
                session: SessionId {
                    basis: Version(0),
                    nonce: session + 1,
                },
                seq: *sequence,
            };
            core.nodes[leader].inputs.push_back(GroupInput::Propose(Proposal {
                ticket: Ticket(session),
                deadline: core.now + Duration::from_secs(60),
                request: Request::Write {
                    op,
                    attempt: Attempt::First,
                    command,
                },
            }));
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
        Measurement::new("raft core, 3 nodes", format!("{depth} under way"))
            .figure("commits/s", committed as f64 / elapsed)
            .figure("us/commit", elapsed * 1e6 / committed.max(1) as f64)
            .times("propose to answer", &histogram)
            .figure(
                "log B/commit",
                (core.logged - logged) as f64 / committed.max(1) as f64,
            ),
    )
}
