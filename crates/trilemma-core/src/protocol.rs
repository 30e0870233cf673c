//! The protocol contract: a pure state machine that takes input and returns effects.
//!
//! No socket, disk, clock, thread or ambient randomness: the same code runs under the driver of
//! `trilemma-runtime`, in the simulator and in a browser. The rules both sides rely on:
//!
//! 1. **Turns.** `step` is called with one input after the other: all that wait, then `Input::Wake` if it is due, then
//!    [`Input::EndTurn`], exactly once and with nothing after it. Only then are the effects of the whole turn carried out,
//!    in the order of the lists they are in. What inputs can share (a record, a message, a read round) is gathered
//!    until `EndTurn`, so a lone request waits for nobody, and many cost little more than one. A turn without inputs
//!    has no end, unless the one before asked for it. `now` never goes back.
//! 2. **Persistence is asynchronous.** `append` hands a record over and returns its number; `Input::Persisted` says
//!    later that every record up to a number is as durable as the keyspace promises. What must wait for the disk goes
//!    into `send_after_append`: it leaves when everything appended *so far*, earlier steps
//!    included, is durable. A crash may lose any suffix of the records that were not persisted.
//! 3. **Messages** may be lost, delayed, duplicated and reordered (also across lanes). Their bytes come from
//!    authenticated peers, but a peer may be buggy: nothing in a message may make a protocol panic.
//! 4. **Lifecycle**: construct → `restore` (zero or more chunks of the newest checkpoint) → `replay` (every record after
//!    it, in order) → `Input::Start` once → everything else. After `Start` there is no way back but a new instance.
//!    `Input::Stopping` may come before the end, which needs no announcement.
//! 5. **Time**: the host calls `step(Input::Wake)` at or after the instant last given to `wake_at`. One timer; a new
//!    call replaces the former; it must be set again after it fired. It is for later: what is to be done now is done in
//!    `EndTurn`, and what is too much for one turn in that of the next.
//! 6. Every proposal is answered once, no later than its deadline, with the right class of error.
//! 7. **A turn is short.** It does about 10 ms of work at most, whatever the state: what takes longer is cut into slices of a
//!    fixed size, and [`Effects::go_on`] asks for the next. Between two slices other keyspaces have their turn, and the
//!    messages of peers are read.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::Checkpoint;
use crate::data::{ChangeBatch, Command};
use crate::datatype::DataType;
use crate::error::{ReadError, Reason, WriteError};
use crate::id::{AppendSeq, Incarnation, NodeId, NodeSet, OpId, Ticket};
use crate::read::{Entry, KeyRange, Query, ReadReply, ReadRequest};
use crate::receipt::{Outcome, Receipt};
use crate::status::LiveStatus;
use crate::time::{Instant, Now};
use crate::view::{View, read_all};

/// Greatest size in bytes of an encoded record: what the log takes, and what one message of a peer can hold at most. A
/// record beyond it ends the node, so a protocol cuts what it has to say.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which queue of a connection carries a message, so that a vote never waits behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, acknowledgements, read rounds, heartbeats: small and urgent.
    Control,
    /// Replicated data.
    Log,
    /// Snapshots and anti-entropy bodies: large, may wait.
    Bulk,
    /// Fire and forget: gossip ticks.
    Datagram,
}

/// What peers of one protocol send each other.
pub trait Message: Serialize + DeserializeOwned + Debug + Clone + Send + 'static {
    /// The lane it travels on.
    fn lane(&self) -> Lane;
    /// The name of its kind, for traces, metrics and the simulator's filters.
    fn kind(&self) -> &'static str;
}

/// A pure protocol state machine for one keyspace on one node. See the module's rules.
pub trait Protocol: Send + 'static {
    /// What peers exchange.
    type Message: Message;
    /// What must be durable; at most [`RECORD_BYTES_MAX`] bytes each.
    type Record: Serialize + DeserializeOwned + Debug + Send + 'static;

    /// Takes the next chunk of the checkpoint to start from.
    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt>;

    /// Takes the next record that was durable after that checkpoint.
    fn replay(&mut self, record: Self::Record) -> Result<(), Corrupt>;

    /// Takes one input and says what to do. Every turn ends with [`Input::EndTurn`].
    fn step(
        &mut self,
        now: Now,
        input: Input<Self::Message>,
        effects: &mut Effects<Self::Message, Self::Record>,
    );

    /// Whether, after [`Input::Stopping`], it still hands over what others would have to wait for. The node stops when no
    /// protocol does, so each bounds the time.
    fn is_handing_over(&self) -> bool {
        false
    }

    /// The state as chunks from which `restore` makes an equal one: what replaying every record appended so far
    /// would give, each of at most [`CHUNK_BYTES_MAX`](crate::checkpoint::CHUNK_BYTES_MAX) bytes. Must be cheap to take
    /// (the chunks are made lazily, on another thread).
    fn checkpoint(&self) -> Checkpoint;

    /// What this node can do in this keyspace now, and why not more. Computed, never asserted.
    fn status(&self, now: Now) -> LiveStatus;

    /// A view of the state that this node has applied: what local reads see. Must be cheap to take.
    fn view(&self, range: &KeyRange) -> Box<dyn View>;

    /// The first entries of a range in key order.
    fn scan(&self, range: &KeyRange, limit: usize) -> Vec<Entry> {
        read_all(self.view(range), limit)
    }
}

/// A record or checkpoint that passed its checksum but cannot be right. The node must not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored state is inconsistent: {0}")]
pub struct Corrupt(pub String);

impl From<crate::codec::DecodeError> for Corrupt {
    fn from(error: crate::codec::DecodeError) -> Self {
        Corrupt(error.to_string())
    }
}

/// What a protocol reacts to.
#[derive(Clone, Debug)]
pub enum Input<M> {
    /// The first input of an incarnation: state is loaded, peers may be talked to.
    Start,
    /// A client wants something. Answered once through `Effects::reply`.
    Propose(Proposal),
    /// A message of another node of this keyspace. The host has checked that `from` sent it.
    Receive {
        /// The sender.
        from: NodeId,
        /// What it sent.
        message: M,
    },
    /// Every record up to this number is durable. A number that comes again, 0 included, says that the disk works while
    /// later records wait.
    Persisted {
        /// The last durable record.
        up_to: AppendSeq,
    },
    /// Which nodes can be reached has changed. Advice for liveness and early refusals, never a base for safety.
    Peers(PeerView),
    /// The node is going to stop. A protocol hands over what others would have to wait for, and says with
    /// [`Protocol::is_handing_over`] for how long. Other inputs come meanwhile.
    Stopping,
    /// The instant given to `wake_at` has come.
    Wake,
    /// The turn's inputs are over: what was gathered for all of them leaves now. See the module's first rule.
    EndTurn,
}

/// A client's request at a protocol.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Names the request towards the host.
    pub ticket: Ticket,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What is wanted.
    pub request: Request,
}

/// Whether an operation may have been sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Attempt {
    /// Certainly not: its id has never left the client before.
    First,
    /// Perhaps.
    Retry,
}

/// What a client wants. The same value travels from a client to a node and between nodes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Request {
    /// To change something.
    Write {
        /// Names the operation, permanently.
        op: OpId,
        /// Whether it may have been sent before.
        attempt: Attempt,
        /// The change. Valid in the sense of [`Command::validate`].
        command: Command,
    },
    /// To read something.
    Read(ReadRequest),
    /// To learn, finally, what became of an operation that changes `command`'s keys.
    Outcome {
        /// The operation.
        op: OpId,
        /// The command it carried, where the asker still has it. Backends without an order over all keys need it.
        command: Option<Command>,
    },
}

impl Request {
    /// The data type that it reads or changes, if any.
    #[must_use]
    pub fn data_type(&self) -> Option<DataType> {
        match self {
            Request::Write { command, .. } => command.first_update().map(|(_, update)| update.of()),
            Request::Read(ReadRequest {
                query: Query::Typed { of, .. },
                ..
            }) => Some(*of),
            Request::Read(_) | Request::Outcome { .. } => None,
        }
    }

    /// Checks lengths and counts against the limits of keys, values and commands. A backend sees only valid requests.
    pub fn validate(&self) -> Result<(), Reason> {
        let command = match self {
            Request::Write { command, .. } => Some(command),
            Request::Outcome { command, .. } => command.as_ref(),
            Request::Read(read) => return read.query.validate(),
        };
        command.map_or(Ok(()), |command| {
            command.validate().map_err(|refusal| refusal.reason)
        })
    }
}

/// The answer to a [`Request`] of the same name. The same value travels between nodes and to a client.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Reply {
    /// To a write.
    Write(Result<Receipt, WriteError>),
    /// To a read.
    Read(Result<ReadReply, ReadError>),
    /// To a question for the outcome.
    Outcome(Result<Outcome, ReadError>),
}

/// One peer as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The newest incarnation of it that we know of.
    pub incarnation: Incarnation,
    /// Whether it answered one of our pings recently: proof that both directions work.
    pub connected: bool,
}

/// Which nodes can be reached from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Every other node that this incarnation has learned of.
    pub peers: BTreeMap<NodeId, Peer>,
}

impl PeerView {
    /// Whether `node` can be reached.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.reachable(node).is_some()
    }

    /// The incarnation of `node`, if it can be reached.
    #[must_use]
    pub fn reachable(&self, node: NodeId) -> Option<Incarnation> {
        let peer = self.peers.get(&node).filter(|peer| peer.connected)?;
        Some(peer.incarnation)
    }

    /// The members that cannot be reached from `this` node.
    #[must_use]
    pub fn missing<'a>(&self, this: NodeId, members: impl IntoIterator<Item = &'a NodeId>) -> NodeSet {
        members
            .into_iter()
            .copied()
            .filter(|node| *node != this && !self.is_connected(*node))
            .collect()
    }
}

/// What a turn wants done. Filled by the protocol, carried out and emptied by the host.
#[derive(Debug)]
pub struct Effects<M, R> {
    pub(crate) next_append: AppendSeq,
    pub(crate) sends: Vec<(Receivers, M)>,
    pub(crate) sends_after: Vec<(Receivers, M)>,
    pub(crate) records: Vec<(R, Force)>,
    pub(crate) applied: Vec<ChangeBatch>,
    pub(crate) reset: Option<u64>,
    pub(crate) replies: Vec<(Ticket, Reply)>,
    pub(crate) wake: Option<Instant>,
    pub(crate) goes_on: bool,
    pub(crate) discarded: Vec<Discarded>,
}

/// Who gets a message.
#[derive(Debug)]
pub(crate) enum Receivers {
    One(NodeId),
    All(Vec<NodeId>),
}

impl Receivers {
    pub(crate) fn nodes(&self) -> &[NodeId] {
        match self {
            Receivers::One(node) => std::slice::from_ref(node),
            Receivers::All(nodes) => nodes,
        }
    }
}

/// What is not needed any more and takes long to free.
pub type Discarded = Box<dyn Any + Send>;

/// Whether a record must be synced now or may ride the next sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Something waits for it.
    Now,
    /// Nothing waits for it; it becomes durable with the next forced record, or after some milliseconds.
    Lazy,
}

impl<M, R> Default for Effects<M, R> {
    fn default() -> Self {
        Self {
            next_append: AppendSeq(1),
            sends: Vec::new(),
            sends_after: Vec::new(),
            records: Vec::new(),
            applied: Vec::new(),
            reset: None,
            replies: Vec::new(),
            wake: None,
            goes_on: false,
            discarded: Vec::new(),
        }
    }
}

impl<M, R> Effects<M, R> {
    /// Sends a message now, without waiting for the disk.
    pub fn send(&mut self, to: NodeId, message: M) {
        self.sends.push((Receivers::One(to), message));
    }

    /// Sends one message to several peers now, without waiting for the disk. It is encoded once.
    pub fn send_to_all(&mut self, to: &[NodeId], message: M) {
        self.sends.push((Receivers::All(to.into()), message));
    }

    /// Sends a message that promises something: when all records appended so far are durable.
    pub fn send_after_append(&mut self, to: NodeId, message: M) {
        self.sends_after.push((Receivers::One(to), message));
    }

    /// Sends one message that promises something to several peers: see [`Effects::send_after_append`]. It is encoded once.
    pub fn send_to_all_after_append(&mut self, to: &[NodeId], message: M) {
        self.sends_after.push((Receivers::All(to.into()), message));
    }

    /// Appends a record that something waits for; returns its number.
    pub fn append(&mut self, record: R) -> AppendSeq {
        self.push(record, Force::Now)
    }

    /// Appends a record that may ride the next sync; returns its number.
    pub fn append_lazy(&mut self, record: R) -> AppendSeq {
        self.push(record, Force::Lazy)
    }

    fn push(&mut self, record: R, force: Force) -> AppendSeq {
        let seq = self.next_append;
        self.next_append = seq.next();
        self.records.push((record, force));
        seq
    }

    /// The number of the last record appended, in this step or before; 0 if there is none.
    #[must_use]
    pub fn last_append(&self) -> AppendSeq {
        AppendSeq(self.next_append.0 - 1)
    }

    /// Tells that keys have changed, for watchers.
    pub fn publish(&mut self, applied: ChangeBatch) {
        self.applied.push(applied);
    }

    /// Tells that the state has jumped to `position` of the change stream without single changes (a snapshot was
    /// installed). Watchers start again with the current entries. Changes applied earlier in this step are dropped.
    pub fn reset(&mut self, position: u64) {
        self.applied.clear();
        self.reset = Some(position);
    }

    /// Answers a proposal now.
    pub fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    /// Says, in `EndTurn`, that there is more to do than one turn may take: the next turn comes at once, and ends with
    /// `EndTurn` whether an input comes before or not. See the module's seventh rule.
    pub fn go_on(&mut self) {
        self.goes_on = true;
    }

    /// Gives away what is not needed any more and takes long to free, as a table of millions of keys does: the host frees it
    /// where nothing waits.
    pub fn discard(&mut self, what: impl Any + Send) {
        self.discarded.push(Box::new(what));
    }

    /// Asks to be woken at `at`. Replaces what was asked before.
    pub fn wake_at(&mut self, at: Instant) {
        self.wake = Some(at);
    }
}
