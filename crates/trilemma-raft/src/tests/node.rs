//! Single nodes whose peers are played by the test.

use trilemma_core::host::{DynProtocol, Host, Output};
use trilemma_core::{AppendSeq, Attempt, Command, Incarnation, Proposal, Reply, Request, Ticket, WriteError};
use trilemma_testkit::write;

use super::*;

/// One node of a cluster whose other nodes are played by the test.
pub(super) struct Node {
    host: Host<Raft>,
    pub(super) now: Instant,
    tickets: u64,
    pub(super) records: Vec<bytes::Bytes>,
    replies: Vec<(Ticket, Reply)>,
    pub(super) sent: Vec<(NodeId, Message)>,
    /// Things given away to be freed.
    pub(super) discarded: usize,
    /// Positions of the change stream that were published.
    pub(super) published: Vec<u64>,
}

impl Node {
    pub(super) fn new(size: u32, seed: u64) -> Self {
        Self::with(RaftConfig::new(
            NodeId(1),
            Incarnation(1),
            (1..=size).map(NodeId),
            seed,
        ))
    }

    pub(super) fn with(config: RaftConfig) -> Self {
        let size = config.members.len() as u32;
        let raft = Raft::new(config);
        let mut node = Self {
            host: Host::new(raft),
            now: Instant::ZERO + 1000 * MS,
            tickets: 0,
            records: Vec::new(),
            replies: Vec::new(),
            sent: Vec::new(),
            discarded: 0,
            published: Vec::new(),
        };
        node.step(Input::Start);
        let peer = Peer {
            incarnation: Incarnation(1),
            connected: true,
        };
        let peers = (2..=size).map(|id| (NodeId(id), peer)).collect();
        node.step(Input::Peers(PeerView { peers }));
        node
    }

    pub(super) fn raft(&self) -> &Raft {
        self.host.protocol()
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.host.wake_at()
    }

    pub(super) fn is_handing_over(&self) -> bool {
        self.host.is_handing_over()
    }

    /// Whether the last turn left work for the next.
    pub(super) fn goes_on(&self) -> bool {
        self.host.goes_on()
    }

    /// A turn of one input.
    pub(super) fn step(&mut self, input: Input<Message>) {
        self.input(input);
        self.input(Input::EndTurn);
    }

    /// One input of a turn.
    pub(super) fn input(&mut self, input: Input<Message>) {
        let mut output = Output::default();
        let now = Now {
            instant: self.now,
            ..Now::default()
        };
        self.host.run(now, input, &mut output);
        self.records
            .extend(output.records.into_iter().map(|record| record.bytes));
        self.replies.extend(output.replies);
        self.discarded += output.discarded.len();
        self.published
            .extend(output.applied.iter().map(|applied| applied.position));
        for sent in output.sends {
            let message = codec::decode(&sent.bytes).expect("our own messages decode");
            self.sent.push((sent.to, message));
        }
    }

    pub(super) fn receive(&mut self, from: u32, message: Message) {
        self.step(Input::Receive {
            from: NodeId(from),
            message,
        });
    }

    /// A turn of one request.
    pub(super) fn propose(&mut self, request: Request) -> Ticket {
        let ticket = self.ask(request);
        self.input(Input::EndTurn);
        ticket
    }

    /// A request in a turn that goes on.
    pub(super) fn ask(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let deadline = self.now + 5000 * MS;
        self.input(Input::Propose(Proposal {
            ticket,
            deadline,
            request,
        }));
        ticket
    }

    pub(super) fn persist(&mut self) {
        let up_to = AppendSeq(self.records.len() as u64);
        self.step(Input::Persisted { up_to });
    }

    pub(super) fn reply(&self, ticket: Ticket) -> Option<&Reply> {
        let found = self.replies.iter().find(|(of, _)| *of == ticket);
        found.map(|(_, reply)| reply)
    }

    /// Becomes leader of the next term by the votes of node 2.
    pub(super) fn win(&mut self) {
        if self.raft().shared.config.members.len() > 1 {
            self.persist();
            self.now = self.now + 1000 * MS;
            self.step(Input::Wake);
            let (asked, term) = (self.raft().term().next(), self.raft().term());
            let granted = true;
            self.receive(2, Message::PreVoteReply { asked, term, granted });
            self.persist();
            let term = self.raft().term();
            self.receive(2, Message::VoteReply { term, granted });
        }
        self.persist();
        self.step(Input::Wake);
        assert!(self.raft().is_leader());
    }

    /// Starts the next incarnation from the records, all of which have survived.
    pub(super) fn revive(&mut self) {
        self.host = Host::new(self.replayed().expect("our own records"));
        self.step(Input::Start);
    }

    /// What the next incarnation makes of the records, all of which have survived.
    pub(super) fn replayed(&self) -> Result<Raft, Corrupt> {
        let mut raft = Raft::new(self.raft().shared.config.clone());
        for record in &self.records {
            raft.replay(codec::decode(record).expect("our own records decode"))?;
        }
        Ok(raft)
    }
}

pub(super) fn put(seq: u64) -> Request {
    write(seq, Attempt::First, Command::put("key", seq.to_string()))
}

pub(super) fn not_applied(reply: Option<&Reply>) -> bool {
    matches!(reply, Some(Reply::Write(Err(WriteError::NotApplied(_)))))
}

pub(super) fn follow(node: &mut Node, leader: u32) {
    let append = Message::Append {
        term: Term(1),
        round: 0,
        prev: LogEnd::default(),
        entries: Vec::new(),
        commit: Index(0),
    };
    node.receive(leader, append);
}

pub(super) fn noop(term: u64) -> Entry {
    Entry {
        term: Term(term),
        payload: Payload::Noop,
    }
}

pub(super) fn end(term: u64, index: u64) -> LogEnd {
    LogEnd {
        term: Term(term),
        index: Index(index),
    }
}

/// Entries of a leader, or none.
pub(super) fn append(
    node: &mut Node,
    leader: u32,
    term: u64,
    prev: LogEnd,
    entries: Vec<Entry>,
    commit: u64,
) {
    let (term, round, commit) = (Term(term), 0, Index(commit));
    node.receive(
        leader,
        Message::Append {
            term,
            round,
            prev,
            entries,
            commit,
        },
    );
}
