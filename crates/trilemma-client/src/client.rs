//! The machine: inputs, effects, and the way of a call.
//!
//! ```text
//!            on_call                       room                 answer
//! caller ──▶ waiting ──▶ (dial a server) ──▶ queued ──▶ sent ──▶ resolved
//!               ▲  ▲                                     │ │
//!               │  └── refused, and another may serve ───┘ │
//!               └───── paused ◀── lost, and may be asked again
//! ```
//!
//! A *pass* is one round over the servers, each asked or dialed once. A call that certainly had no effect ends with its
//! first pass. A write that may have had one goes on, with pauses, until it knows or its deadline has come.

mod answers;
mod calls;
mod dialing;
mod invariants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use trilemma_core::{
    Attempt, Backend, Instant, KeyspaceId, LiveStatus, NodeId, OpId, Reason, Reply, Request, Ticket,
    UnknownCause, Version, WatchSpec,
};

use crate::link::{CallId, ConnectionId, Link};
use crate::settings::Settings;
use crate::wire::{ClientReply, ClientRequest, MembershipOverview, NodeOverview};

/// Connections that a call may lose before it is given up: a request that ends whatever node takes it must not go round
/// all of them.
const LOSSES_MAX: u32 = 3;
/// Shortest and longest pause before a write whose outcome is unknown is asked again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// Operations of unknown outcome whose node is remembered; the oldest goes first.
const TAKEN_MAX: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A read, a write, or what became of a write. Answered by [`Answer::Reply`].
    Request {
        /// The keyspace's name.
        keyspace: Arc<str>,
        /// Its backend: who else knows an operation by its id.
        backend: Backend,
        /// What is asked.
        request: Request,
    },
    /// How a node stands. Answered by [`Answer::Overview`] or [`Answer::Refused`].
    Overview,
    /// Whom a node knows as members. Answered by [`Answer::Members`] or [`Answer::Refused`].
    Members,
    /// A watch. Answered by [`Answer::Watching`] or [`Answer::Refused`].
    Watch {
        /// The keyspace's name.
        keyspace: Arc<str>,
        /// What is watched, and from where.
        spec: WatchSpec,
    },
}

/// A call that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub what: What,
    /// The only server that may be asked, if the caller wants a certain one.
    pub server: Option<NodeId>,
    /// How long its caller waits: dialing, waiting and every attempt included.
    pub timeout: Duration,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`What::Request`], of the same kind as the request.
    Reply(Reply),
    /// To [`What::Overview`].
    Overview(Box<NodeOverview>),
    /// To [`What::Members`]; `None` where membership is not configured.
    Members(Option<Box<MembershipOverview>>),
    /// To [`What::Watch`]: it is open on this connection. [`Client::on_watch_ended`] when it ends.
    Watching(ConnectionId),
    /// To [`What::Overview`], [`What::Members`] and [`What::Watch`]: it was not answered.
    Refused(Reason),
}

/// What a client wants done, in the order in which it is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a server: [`Client::on_connected`] or [`Client::on_lost`].
    Dial {
        /// The connection's name from now on.
        connection: ConnectionId,
        /// The server.
        server: NodeId,
    },
    /// Send a request: [`Client::on_answer`] or [`Client::on_lost`].
    Send {
        /// Where.
        connection: ConnectionId,
        /// Its number, which the answer carries.
        call: CallId,
        /// What.
        request: ClientRequest,
    },
    /// Open a watch: [`Client::on_watch_open`], or [`Client::on_watch_refused`] if it cannot be sent.
    OpenWatch {
        /// Where.
        connection: ConnectionId,
        /// The call.
        ticket: Ticket,
        /// The keyspace.
        keyspace: KeyspaceId,
        /// What is watched, and from where.
        spec: WatchSpec,
    },
    /// End a connection or a dial. Nothing more is to be reported of it.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// A call is answered.
    Resolve {
        /// Which.
        ticket: Ticket,
        /// How.
        answer: Answer,
    },
    /// A node has shown how a keyspace stands.
    Learned {
        /// The keyspace's name.
        keyspace: String,
        /// Its status there.
        status: LiveStatus,
    },
    /// The history of a keyspace has come at least this far. A session made later may begin here. Otherwise: a client
    /// connects at version 100 and stays, ten thousand other sessions write, its own is evicted, and every new one
    /// that it makes on the basis of 100 is refused too.
    Reached {
        /// The keyspace's name.
        keyspace: Arc<str>,
        /// How far.
        version: Version,
    },
}

/// Why a request was not sent although its connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size in bytes.
    pub size: u64,
    /// The limit in bytes.
    pub limit: u64,
}

/// One server as a client sees it.
#[derive(Debug)]
struct Server {
    node: NodeId,
    link: Option<Link>,
    /// When it last could not be dialed, and why.
    failed: Option<(Instant, String)>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It waits for a connection.
    Waiting,
    /// It waits for room on one.
    Queued(ConnectionId),
    /// It was sent.
    Sent(ConnectionId, CallId),
    /// Its watch is being opened.
    Opening(ConnectionId),
    /// It is asked again then.
    Paused(Instant),
}

/// A call that is not answered.
#[derive(Debug)]
struct Pending {
    what: What,
    deadline: Instant,
    place: Place,
    /// The only server that may be asked.
    pinned: Option<usize>,
    /// The server that was given it last.
    given_to: Option<usize>,
    /// Servers that cannot serve it in this pass, and why.
    refused: BTreeMap<usize, String>,
    /// The first certain refusal of a node.
    refusal: Option<Reply>,
    /// Why an earlier attempt may have had an effect, if one of this call may.
    doubt: Option<UnknownCause>,
    losses: u32,
    pause: Duration,
    /// The answer, while an overview is fetched first.
    held: Option<Reply>,
}

impl Pending {
    fn keyspace(&self) -> Option<&Arc<str>> {
        match &self.what {
            What::Request { keyspace, .. } | What::Watch { keyspace, .. } => Some(keyspace),
            What::Overview | What::Members => None,
        }
    }

    /// The write, if it is one.
    fn write(&self) -> Option<(OpId, Attempt)> {
        match &self.what {
            What::Request {
                request: Request::Write { op, attempt, .. },
                ..
            } => Some((*op, *attempt)),
            _ => None,
        }
    }

    /// Whether an earlier attempt of it may have had an effect, or may yet.
    fn is_uncertain(&self) -> bool {
        matches!(self.write(), Some((_, Attempt::Retry)))
    }

    /// The operation, if one node alone knows it: who is asked again must be the one that was asked first.
    fn known_to_one_node(&self) -> Option<OpId> {
        match &self.what {
            What::Request {
                backend: Backend::Gossip,
                request: Request::Write { op, .. } | Request::Outcome { op, .. },
                ..
            } => Some(*op),
            _ => None,
        }
    }

    /// Whether it may be asked again by itself although an earlier attempt may have had an effect, or may yet. A write may
    /// where every replica remembers each session: a late copy of the first attempt then never runs, even if its result
    /// was forgotten meanwhile.
    fn may_repeat(&self) -> bool {
        match &self.what {
            What::Request {
                backend,
                request: Request::Write { .. },
                ..
            } => *backend != Backend::Gossip,
            _ => true,
        }
    }

    /// Bytes that it holds at the node and on the way.
    fn bytes(&self) -> usize {
        /// What a request costs beside its command.
        const OVERHEAD: usize = 64;
        match &self.what {
            What::Request {
                request: Request::Write { command, .. },
                ..
            } => command.size() + OVERHEAD,
            _ => OVERHEAD,
        }
    }
}

/// See the module, and the crate for what it promises.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    servers: Vec<Server>,
    calls: BTreeMap<Ticket, Pending>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Calls that wait for a connection.
    waiting: BTreeSet<Ticket>,
    paused: BTreeSet<(Instant, Ticket)>,
    /// When the next server is dialed for those that wait.
    next_dial: Instant,
    /// The server that last served each keyspace.
    homes: BTreeMap<Arc<str>, usize>,
    /// The server that is preferred where no other has served.
    first: usize,
    /// The node that was given an operation which it alone knows, while the outcome is unknown; the order is that of
    /// their coming.
    taken: BTreeMap<OpId, (u64, usize)>,
    taken_order: BTreeMap<u64, OpId>,
    /// The last number given to a ticket, a connection, a sending, an operation of unknown outcome.
    last: u64,
    effects: Vec<Effect>,
}

impl Client {
    /// A client that has no connection.
    ///
    /// # Panics
    /// If there is no server.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        assert!(!settings.servers.is_empty(), "a client has a server to ask");
        let server = |node: &NodeId| Server {
            node: *node,
            link: None,
            failed: None,
        };
        Self {
            servers: settings.servers.iter().map(server).collect(),
            settings,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeSet::new(),
            paused: BTreeSet::new(),
            next_dial: Instant::NEVER,
            homes: BTreeMap::new(),
            first: 0,
            taken: BTreeMap::new(),
            taken_order: BTreeMap::new(),
            last: 0,
            effects: Vec::new(),
        }
    }

    /// Begins a call. It is answered once, no later than its deadline, by [`Effect::Resolve`] with this ticket, unless it
    /// is dropped.
    pub fn on_call(&mut self, now: Instant, call: Call) -> Ticket {
        let Call {
            what,
            server,
            timeout,
        } = call;
        let ticket = Ticket(self.number());
        let pinned = server.map(|node| (node, self.servers.iter().position(|server| server.node == node)));
        let mut pending = Pending {
            what,
            deadline: now + timeout,
            place: Place::Waiting,
            pinned: pinned.and_then(|(_, place)| place),
            given_to: None,
            refused: BTreeMap::new(),
            refusal: None,
            doubt: None,
            losses: 0,
            pause: PAUSE_MIN,
            held: None,
        };
        if let (None, Some(op)) = (pending.pinned, pending.known_to_one_node()) {
            pending.pinned = self.taken.get(&op).map(|(_, server)| *server);
        }
        let full = self.calls.len() >= self.settings.calls_max;
        self.deadlines.insert((pending.deadline, ticket));
        self.waiting.insert(ticket);
        self.calls.insert(ticket, pending);
        if let Some((node, None)) = pinned {
            let what = format!("node {node} is not among the servers of this client");
            self.refuse(ticket, Reason::Invalid { what });
        } else if full {
            let what = format!("{} calls of this client wait already", self.settings.calls_max);
            self.refuse(ticket, Reason::Overloaded { what });
        } else {
            self.route(now, ticket);
        }
        self.check();
        ticket
    }

    /// The caller of a call has gone. What was sent is not taken back.
    pub fn on_dropped(&mut self, now: Instant, ticket: Ticket) {
        if let Some(pending) = self.remove(ticket) {
            self.remember(&pending, true);
            self.step_up(now, pending.place);
        }
        self.check();
    }

    /// A dial has succeeded.
    pub fn on_connected(&mut self, now: Instant, connection: ConnectionId) {
        self.connected(now, connection);
        self.check();
    }

    /// A dial has failed, or a connection was lost, or is useless.
    pub fn on_lost(&mut self, now: Instant, connection: ConnectionId, why: &str) {
        self.lost(now, connection, why);
        self.check();
    }

    /// The answer to a request; `Err` if it is not one.
    pub fn on_answer(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        call: CallId,
        reply: Result<ClientReply, String>,
    ) {
        self.answered(now, connection, call, reply);
        self.check();
    }

    /// A request is larger than a connection takes. It was not sent.
    pub fn on_too_large(&mut self, now: Instant, connection: ConnectionId, call: CallId, is: TooLarge) {
        if let Some(Some(ticket)) = self.link(connection).and_then(|link| link.take(call)) {
            let reason = Reason::TooLarge {
                what: "the request".into(),
                size: is.size,
                limit: is.limit,
            };
            self.refuse(ticket, reason);
        }
        self.pump(now, connection);
        self.check();
    }

    /// A watch was opened.
    pub fn on_watch_open(&mut self, ticket: Ticket) {
        if let Some(Place::Opening(connection)) = self.calls.get(&ticket).map(|call| call.place) {
            self.resolve(ticket, Answer::Watching(connection));
        }
        self.check();
    }

    /// A watch could not be sent although its connection lives.
    pub fn on_watch_refused(&mut self, now: Instant, ticket: Ticket, reason: Reason) {
        if let Some(Place::Opening(connection)) = self.calls.get(&ticket).map(|call| call.place) {
            self.refuse(ticket, reason);
            if let Some(link) = self.link(connection) {
                link.watch_ended();
            }
            self.pump(now, connection);
        }
        self.check();
    }

    /// A watch that was open has ended, or its caller has gone before it was.
    pub fn on_watch_ended(&mut self, now: Instant, connection: ConnectionId) {
        if let Some(link) = self.link(connection) {
            link.watch_ended();
        }
        self.pump(now, connection);
        self.check();
    }

    /// Time has passed.
    pub fn on_wake(&mut self, now: Instant) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.expire(now, ticket);
        }
        while let Some((until, ticket)) = self.paused.first().copied()
            && until <= now
        {
            self.paused.pop_first();
            self.wait(ticket);
        }
        self.end_slow_dials(now);
        self.serve(now);
        self.check();
    }

    /// When [`Client::on_wake`] must be called next.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        let first = |set: &BTreeSet<(Instant, Ticket)>| set.first().map(|(at, _)| *at);
        let dials = self.servers.iter().filter_map(|server| server.link.as_ref());
        let dials = dials.filter(|link| !link.is_ready());
        dials
            .map(|link| link.since + self.settings.connect_timeout)
            .chain(first(&self.deadlines))
            .chain(first(&self.paused))
            .fold(self.next_dial, Instant::min)
    }

    /// Takes what is to be done.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Calls that are not answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.calls.len()
    }

    /// The server of a connection.
    #[must_use]
    pub fn server(&self, connection: ConnectionId) -> NodeId {
        self.servers[connection.server].node
    }

    /// The first server, in the order of preference, that is connected.
    #[must_use]
    pub fn connected_to(&self) -> Option<NodeId> {
        let ready = |server: &&Server| server.link.as_ref().is_some_and(Link::is_ready);
        let (before, after) = self.servers.split_at(self.first);
        let found = after.iter().chain(before).find(ready);
        found.map(|server| server.node)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The connection of this name, unless it has ended.
    fn link(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        let link = self.servers.get_mut(connection.server)?.link.as_mut()?;
        (link.id == connection).then_some(link)
    }
}

/// The id of a keyspace at a node, or that it has none.
fn keyspace_id(link: &Link, name: &str) -> Result<KeyspaceId, Reason> {
    link.keyspaces.get(name).copied().ok_or_else(|| {
        let configured: Vec<&str> = link.keyspaces.keys().map(String::as_str).collect();
        Reason::NoSuchKeyspace {
            name: name.into(),
            configured: configured.join(", "),
        }
    })
}

#[cfg(test)]
mod tests;
