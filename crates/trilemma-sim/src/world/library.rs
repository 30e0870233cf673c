//! Clients and watchers that go through the client library: the machine of `trilemma-client`, as in production, with its
//! connections in virtual time. They are lost at any moment, some at once and some after a silence in which nothing
//! passes; what was on its way to a node may still arrive.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_client::wire::{ClientReply, ClientRequest, KeyspaceOverview, LogOverview, NodeOverview};
use trilemma_client::{Answer, Call, CallId, Client, ConnectionId, Effect, Session, Settings, What};
use trilemma_core::{
    Attempt, Incarnation, Instant, KeyspaceId, NodeId, OpId, Reply, Request, Rng, Ticket, UnknownCause,
    Version, WriteError,
};
use trilemma_node::{Replica, WatchId};

use super::{Event, MS, World};
use crate::node::Process;
use crate::randomness::{Purpose, Randomness};
use crate::scenario::{self, Scenario};

/// When a connection counts as lost on which nothing comes.
const IDLE: u64 = 1500 * MS;
/// How long a watcher waits for its watch to be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Who waits for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Client(usize),
    Watcher(usize),
}

/// A call under way, as its caller sees it.
#[derive(Debug)]
struct Waiting {
    caller: Caller,
    deadline: u64,
}

/// One client of `trilemma-client`.
#[derive(Debug)]
struct Library {
    client: Client,
    rng: Rng,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Connections that are up, and the process at the other end.
    up: BTreeMap<ConnectionId, (NodeId, Incarnation)>,
    /// Nodes of which nothing comes, and to which nothing goes, until then.
    silent: BTreeMap<NodeId, u64>,
    /// How far each keyspace has come, as far as it has seen.
    reached: BTreeMap<usize, Version>,
    sessions: BTreeMap<usize, Vec<Session>>,
    /// The time of the wake that is queued.
    wake_at: u64,
}

/// A request that a node works on.
#[derive(Debug)]
struct Asked {
    library: usize,
    connection: ConnectionId,
    call: CallId,
    is_write: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    all: Vec<Library>,
    /// What nodes work on, by the ticket in which they answer.
    asked: BTreeMap<Ticket, Asked>,
    /// Where watches are open, by watcher, and since when.
    watching: BTreeMap<usize, (usize, ConnectionId, u64)>,
    /// The node that was asked for the operation of a client last.
    given: BTreeMap<usize, (OpId, NodeId)>,
}

/// What happens to a library. Those with a node happen there.
#[derive(Debug)]
pub(super) enum LibraryEvent {
    Wake,
    /// A dial reaches a node.
    Dial {
        connection: ConnectionId,
        node: NodeId,
    },
    Connected {
        connection: ConnectionId,
    },
    Lost {
        connection: ConnectionId,
    },
    Request {
        connection: ConnectionId,
        call: CallId,
        node: NodeId,
        incarnation: Incarnation,
        request: ClientRequest,
    },
    OpenWatch {
        connection: ConnectionId,
        ticket: Ticket,
        node: NodeId,
        incarnation: Incarnation,
        request: ClientRequest,
    },
    Answer {
        connection: ConnectionId,
        call: CallId,
        reply: ClientReply,
    },
    /// One of its connections is lost.
    Sever,
    /// A caller leaves.
    Drop {
        ticket: Ticket,
    },
}

impl LibraryEvent {
    /// The node whose process handles it.
    pub(super) const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Dial { node, .. } | Self::Request { node, .. } | Self::OpenWatch { node, .. } => {
                Some(*node)
            }
            _ => None,
        }
    }
}

impl Library {
    fn new(whole: &Scenario, scenario: &scenario::Library, rng: Rng) -> Self {
        let mut settings = Settings::new((1..=whole.nodes).map(NodeId).collect());
        settings.connect_timeout = Duration::from_millis(400);
        settings.stagger = Duration::from_millis(40);
        settings.failure_memory = Duration::from_millis(60);
        settings.window_calls = scenario.window;
        // Every watcher must have a place in the end.
        settings.watches_max = whole.watchers as usize;
        Self {
            client: Client::new(settings),
            rng,
            waiting: BTreeMap::new(),
            up: BTreeMap::new(),
            silent: BTreeMap::new(),
            reached: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wake_at: u64::MAX,
        }
    }

    /// Where a new session of a keyspace begins.
    fn basis(&self, slot: usize) -> Version {
        self.reached.get(&slot).copied().unwrap_or_default()
    }

    fn nonce(&mut self) -> u64 {
        self.rng.next_u64() | 1
    }

    /// A session of a keyspace, now and then one that nobody has used before.
    fn op(&mut self, slot: usize, of: &scenario::Library) -> OpId {
        let (basis, nonce, next) = (self.basis(slot), self.nonce(), self.nonce());
        let place = self.rng.below(u64::from(of.sessions)) as usize;
        let is_new = self.rng.per_mille(30);
        let sessions = self.sessions.entry(slot).or_default();
        let new = || Session::with_spread(basis, nonce, of.spread);
        if place >= sessions.len() {
            sessions.push(new());
        } else if is_new {
            sessions[place] = new();
        }
        let place = place.min(sessions.len() - 1);
        sessions[place].next(|| (basis, next))
    }

    fn done(&mut self, slot: usize, op: OpId) {
        let sessions = self.sessions.entry(slot).or_default();
        sessions.iter_mut().for_each(|session| session.done(op));
    }

    /// The id under which a command goes again whose session was forgotten.
    fn again(&mut self, slot: usize, op: OpId, error: &WriteError) -> Option<OpId> {
        let (basis, nonce) = (self.basis(slot), self.nonce());
        let sessions = self.sessions.entry(slot).or_default();
        let of = sessions.iter_mut().find(|session| session.id() == op.session);
        // The session of another handle may have taken the place of this one.
        let mut other = Session::new(op.session.basis, op.session.nonce);
        of.unwrap_or(&mut other).again(op, error, || (basis, nonce))
    }
}

impl World<'_> {
    /// Whether clients and watchers go through the library.
    pub(super) fn has_libraries(&self) -> bool {
        !self.libraries.all.is_empty()
    }

    /// Puts the libraries of the scenario into the world.
    pub(super) fn plan_libraries(&mut self) {
        let Some(scenario) = &self.scenario.library else {
            return;
        };
        let randomness = Randomness::new(self.scenario.seed);
        for index in 0..scenario.count {
            let rng = randomness.stream(Purpose::Library, u64::from(index));
            let mut library = Library::new(self.scenario, scenario, rng);
            let delay = library.rng.below(2 * scenario.sever + 1);
            self.libraries.all.push(library);
            self.library_later(index as usize, delay, LibraryEvent::Sever);
        }
    }

    fn library_later(&mut self, library: usize, delay: u64, event: LibraryEvent) {
        self.schedule(delay, Event::Library { library, event });
    }

    /// A delay on the way between a library and a node.
    fn way(&mut self, library: usize) -> u64 {
        self.libraries.all[library].rng.below(MS / 2)
    }

    pub(super) fn library(&mut self, library: usize, event: LibraryEvent) {
        let now = Instant::from_nanos(self.now);
        if self.held_up(library, &event) {
            let until = self.now + 50 * MS;
            return self.schedule_at(until, Event::Library { library, event });
        }
        let this = &mut self.libraries.all[library];
        match event {
            LibraryEvent::Wake => {
                if this.wake_at > self.now {
                    return;
                }
                this.wake_at = u64::MAX;
                this.client.on_wake(now);
            }
            LibraryEvent::Dial { connection, node } => return self.dialed(library, connection, node),
            LibraryEvent::Connected { connection } => {
                if this.up.contains_key(&connection) {
                    this.client.on_connected(now, connection);
                }
            }
            LibraryEvent::Lost { connection } => self.connection_lost(library, connection),
            LibraryEvent::Request {
                connection,
                call,
                node,
                incarnation,
                request,
            } => return self.requested(library, (connection, call), (node, incarnation), request),
            LibraryEvent::OpenWatch {
                connection,
                ticket,
                node,
                incarnation,
                request,
            } => self.open_watch(library, (connection, ticket), (node, incarnation), request),
            LibraryEvent::Answer {
                connection,
                call,
                reply,
            } => {
                if this.up.contains_key(&connection) {
                    this.client.on_answer(now, connection, call, Ok(reply));
                }
            }
            LibraryEvent::Sever => self.sever(library),
            LibraryEvent::Drop { ticket } => return self.drop_call(library, ticket),
        }
        self.library_effects(library);
    }

    /// Whether an event waits for the end of a silence.
    fn held_up(&self, library: usize, event: &LibraryEvent) -> bool {
        let this = &self.libraries.all[library];
        let connection = match event {
            LibraryEvent::Dial { connection, .. }
            | LibraryEvent::Connected { connection }
            | LibraryEvent::Request { connection, .. }
            | LibraryEvent::Answer { connection, .. } => *connection,
            _ => return false,
        };
        let node = this.client.server(connection);
        !self.healed && this.silent.get(&node).is_some_and(|until| *until > self.now)
    }

    /// Carries out what a library wants.
    fn library_effects(&mut self, library: usize) {
        loop {
            let effects = self.libraries.all[library].client.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.library_effect(library, effect);
            }
        }
        let this = &mut self.libraries.all[library];
        let at = this.client.wake_at().as_nanos().max(self.now + 1);
        if at < this.wake_at {
            this.wake_at = at;
            let event = LibraryEvent::Wake;
            self.schedule_at(at, Event::Library { library, event });
        }
    }

    fn library_effect(&mut self, library: usize, effect: Effect) {
        let delay = self.way(library);
        match effect {
            Effect::Dial { connection, server } => {
                let node = server;
                self.library_later(library, delay, LibraryEvent::Dial { connection, node });
            }
            Effect::Send {
                connection,
                call,
                request,
            } => {
                let Some((node, incarnation)) = self.libraries.all[library].up.get(&connection).copied()
                else {
                    return;
                };
                let event = LibraryEvent::Request {
                    connection,
                    call,
                    node,
                    incarnation,
                    request,
                };
                self.library_later(library, delay, event);
            }
            Effect::OpenWatch {
                connection,
                ticket,
                request,
            } => {
                let Some((node, incarnation)) = self.libraries.all[library].up.get(&connection).copied()
                else {
                    return;
                };
                let event = LibraryEvent::OpenWatch {
                    connection,
                    ticket,
                    node,
                    incarnation,
                    request,
                };
                self.library_later(library, delay, event);
            }
            Effect::Close { connection } => {
                self.libraries.all[library].up.remove(&connection);
            }
            Effect::Resolve { ticket, answer } => self.resolved(library, ticket, answer),
            Effect::Learned { keyspace, status } => self.reached(library, &keyspace, status.version),
            Effect::Reached { keyspace, version } => self.reached(library, &keyspace, version),
        }
    }

    fn reached(&mut self, library: usize, keyspace: &str, version: Version) {
        let named = |slot: &usize| crate::node::name(*slot, self.parts[*slot]) == keyspace;
        if let Some(slot) = (0..self.parts.len()).find(named) {
            let reached = self.libraries.all[library].reached.entry(slot).or_default();
            *reached = version.max(*reached);
        }
    }

    /// A dial has come to a node. If nobody is there, sometimes nothing comes back.
    fn dialed(&mut self, library: usize, connection: ConnectionId, node: NodeId) {
        let delay = self.way(library);
        let incarnation = self
            .node(node)
            .process
            .as_ref()
            .map(|process| process.incarnation);
        let this = &mut self.libraries.all[library];
        match incarnation {
            Some(incarnation) => {
                this.up.insert(connection, (node, incarnation));
                self.library_later(library, delay, LibraryEvent::Connected { connection });
            }
            None if this.rng.per_mille(500) => {
                self.library_later(library, delay, LibraryEvent::Lost { connection });
            }
            None => {}
        }
    }

    /// A request has come to a node.
    fn requested(
        &mut self,
        library: usize,
        (connection, call): (ConnectionId, CallId),
        (node, incarnation): (NodeId, Incarnation),
        request: ClientRequest,
    ) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        let this = &mut self.libraries.all[library];
        // What was under way on a lost connection arrives, or does not.
        if !this.up.contains_key(&connection) && this.rng.per_mille(500) {
            return;
        }
        match request {
            ClientRequest::Overview => {
                let delay = self.way(library);
                let Some(overview) = self.overview(node) else {
                    return;
                };
                let reply = ClientReply::Overview(Box::new(overview));
                let event = LibraryEvent::Answer {
                    connection,
                    call,
                    reply,
                };
                self.library_later(library, delay, event);
            }
            ClientRequest::Ask {
                keyspace,
                timeout_ms,
                request,
            } => {
                let Some(slot) = self.slot_of(keyspace) else {
                    return self.fail(
                        "library",
                        format!("asks for keyspace {keyspace}, which there is not"),
                    );
                };
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                let is_write = matches!(request, Request::Write { .. });
                if let Request::Write { op, .. } = &request {
                    self.given_to(*op, node);
                }
                let asked = Asked {
                    library,
                    connection,
                    call,
                    is_write,
                };
                self.libraries.asked.insert(ticket, asked);
                let now = self.now;
                self.trace.line(now, || {
                    format!(
                        "library {library} asks {node} {ticket} {}",
                        super::clients::brief(&request)
                    )
                });
                let timeout = Duration::from_millis(u64::from(timeout_ms));
                self.turn(node, |process, now| {
                    process
                        .node
                        .on_request(now, keyspace, timeout, request, (slot, ticket));
                });
            }
            ClientRequest::Watch { .. } => {}
        }
    }

    fn slot_of(&self, keyspace: KeyspaceId) -> Option<usize> {
        let parts = self.parts;
        (0..parts.len()).find(|slot| Process::keyspace(*slot, parts[*slot]) == keyspace)
    }

    /// How a node stands that is up.
    fn overview(&self, id: NodeId) -> Option<NodeOverview> {
        let node = &self.nodes[id.0 as usize - 1];
        let process = node.process.as_ref()?;
        let now = node.clock.now(self.now);
        let keyspace = |replica: &Replica| KeyspaceOverview {
            name: replica.name().to_owned(),
            id: replica.id(),
            backend: replica.backend(),
            status: replica.status(now),
        };
        Some(NodeOverview {
            snapshot_failure: String::new(),
            cluster: "simulated".into(),
            node: id,
            incarnation: process.incarnation,
            disk: process.node.process().disk,
            peers: Vec::new(),
            keyspaces: process.node.replicas().iter().map(keyspace).collect(),
            log: LogOverview::default(),
        })
    }

    /// A node has answered what a library had asked. `false` if it was asked by somebody else.
    pub(super) fn library_answered(&mut self, ticket: Ticket, reply: &Reply) -> bool {
        let Some(Asked {
            library,
            connection,
            call,
            ..
        }) = self.libraries.asked.remove(&ticket)
        else {
            return false;
        };
        if let Reply::Write(Err(WriteError::Unknown {
            cause: UnknownCause::SessionExpired,
            ..
        })) = reply
        {
            self.coverage.event("evicted", "repeat");
        }
        let delay = self.way(library);
        let event = LibraryEvent::Answer {
            connection,
            call,
            reply: ClientReply::Answer(reply.clone()),
        };
        self.library_later(library, delay, event);
        true
    }

    /// A connection is lost: at once, or after a silence.
    fn sever(&mut self, library: usize) {
        let Some(scenario) = &self.scenario.library else {
            return;
        };
        if self.healed {
            return;
        }
        let now = self.now;
        let this = &mut self.libraries.all[library];
        let next = this.rng.below(2 * scenario.sever + 1) + MS;
        let up: Vec<ConnectionId> = this.up.keys().copied().collect();
        if let Some(connection) = this.rng.pick(&up).copied() {
            let silence = this
                .rng
                .per_mille(300)
                .then(|| 20 * MS + this.rng.below(2000 * MS));
            let node = this.client.server(connection);
            self.faults += 1;
            self.trace.line(now, || {
                format!("library {library} loses {connection} to {node}, silence {silence:?}")
            });
            match silence {
                None => self.connection_lost(library, connection),
                Some(length) => {
                    let this = &mut self.libraries.all[library];
                    this.silent.insert(node, now + length);
                    if length >= IDLE {
                        self.coverage.event("lost", "silence");
                        self.library_later(library, IDLE, LibraryEvent::Lost { connection });
                    }
                }
            }
        }
        self.library_later(library, next, LibraryEvent::Sever);
    }

    /// A library learns that a connection has ended, or could not be made.
    fn connection_lost(&mut self, library: usize, connection: ConnectionId) {
        let now = Instant::from_nanos(self.now);
        let this = &mut self.libraries.all[library];
        this.up.remove(&connection);
        this.client.on_lost(now, connection, "the connection was lost");
        let on = |asked: &Asked| asked.library == library && asked.connection == connection;
        if self
            .libraries
            .asked
            .values()
            .any(|asked| on(asked) && asked.is_write)
        {
            self.coverage.event("lost", "write");
        }
        let watching = self.libraries.watching.iter();
        let watching = watching.filter(|(_, (at, on, _))| (*at, *on) == (library, connection));
        for watcher in watching.map(|(watcher, _)| *watcher).collect::<Vec<_>>() {
            self.libraries.watching.remove(&watcher);
            self.coverage.event("lost", "watch");
            self.watch_cut(watcher);
        }
    }

    /// A node has died: those that are connected to it learn of it, sooner or later.
    pub(super) fn library_node_died(&mut self, id: NodeId) {
        for library in 0..self.libraries.all.len() {
            let this = &mut self.libraries.all[library];
            let gone: Vec<ConnectionId> = this
                .up
                .iter()
                .filter(|(_, (node, _))| *node == id)
                .map(|(connection, _)| *connection)
                .collect();
            for connection in gone {
                let quick = self.libraries.all[library].rng.per_mille(700);
                let delay = self.libraries.all[library]
                    .rng
                    .below(if quick { 20 * MS } else { IDLE });
                self.library_later(library, delay, LibraryEvent::Lost { connection });
            }
        }
    }

    /// A client's turn: it begins its next operation, or asks again about the one under way.
    pub(super) fn client_through_library(&mut self, client: usize) {
        let Some(scenario) = &self.scenario.library else {
            return;
        };
        let workload = &self.scenario.workload;
        let time = self.now;
        let library = client % self.libraries.all.len();
        if self.clients[client].pending.is_none() {
            if self.asked >= u64::from(workload.operations) {
                return;
            }
            self.asked += 1;
            let this = &mut self.clients[client];
            let slot = this.rng.below(self.parts.len() as u64) as usize;
            this.choose(slot, self.parts[slot], workload.keys, time);
            if let Some(pending) = &mut this.pending
                && pending.command.is_some()
            {
                pending.op = self.libraries.all[library].op(slot, scenario);
            }
        }
        let shortest = workload.deadline / 8;
        let this = &mut self.clients[client];
        let timeout = shortest + this.rng.below(workload.deadline - shortest + 1);
        let leaves = !self.healed && this.rng.per_mille(scenario.drop);
        let leaves = leaves.then(|| this.rng.below(timeout));
        let Some(request) = this.request() else { return };
        let ticket = self.call(client, request, timeout);
        if let (Some(delay), Some(ticket)) = (leaves, ticket) {
            self.library_later(library, delay, LibraryEvent::Drop { ticket });
        }
    }

    /// Puts a client's request to its library.
    fn call(&mut self, client: usize, request: Request, timeout: u64) -> Option<Ticket> {
        let library = client % self.libraries.all.len();
        let now = self.now;
        let pending = self.clients[client].pending.as_mut()?;
        pending.sent = true;
        let slot = pending.slot;
        if matches!(request, Request::Write { .. }) {
            self.load.asked(slot);
        }
        let what = What::Request {
            keyspace: crate::node::name(slot, self.parts[slot]).into(),
            backend: crate::node::backend(self.parts[slot]),
            request,
        };
        let call = Call {
            what,
            server: None,
            timeout: Duration::from_nanos(timeout),
        };
        let this = &mut self.libraries.all[library];
        let ticket = this.client.on_call(Instant::from_nanos(now), call);
        let waiting = Waiting {
            caller: Caller::Client(client),
            deadline: now + timeout,
        };
        this.waiting.insert(ticket, waiting);
        self.library_effects(library);
        Some(ticket)
    }

    /// A call is answered.
    fn resolved(&mut self, library: usize, ticket: Ticket, answer: Answer) {
        let Some(Waiting { caller, deadline }) = self.libraries.all[library].waiting.remove(&ticket) else {
            return self.fail(
                "library",
                format!("call {ticket} is answered twice, or was dropped"),
            );
        };
        let now = self.now;
        if now > deadline + 1 {
            let what = format!(
                "call {ticket} of {caller:?} is answered {} ns after its deadline",
                now - deadline
            );
            return self.fail("library", what);
        }
        match (caller, answer) {
            (Caller::Client(client), Answer::Reply(reply)) => {
                self.client_resolved(library, client, reply, deadline - now.min(deadline));
            }
            (Caller::Watcher(_), Answer::Watching(_)) => {}
            (Caller::Watcher(watcher), Answer::Refused(_)) => {
                let delay = MS + self.libraries.all[library].rng.below(30 * MS);
                self.schedule(delay, Event::Watch { watcher });
            }
            (caller, answer) => {
                self.fail("library", format!("{caller:?} is answered with {answer:?}"));
            }
        }
    }

    /// What the facade does with the end of an attempt: a command whose session was forgotten goes again in a new one.
    fn client_resolved(&mut self, library: usize, client: usize, reply: Reply, rest: u64) {
        let Some(pending) = &self.clients[client].pending else {
            return self.fail("library", format!("client {client} waits for nothing"));
        };
        let (slot, op, command) = (pending.slot, pending.op, pending.command.clone());
        let this = &mut self.libraries.all[library];
        if let (Reply::Write(Err(error)), Some(command)) = (&reply, command)
            && let Some(again) = this.again(slot, op, error)
        {
            self.coverage.event("evicted", "first");
            if let Some(pending) = &mut self.clients[client].pending {
                pending.op = again;
            }
            let request = Request::Write {
                op: again,
                attempt: Attempt::First,
                command,
            };
            this.done(slot, op);
            self.call(client, request, rest);
            return;
        }
        this.done(slot, op);
        self.tell(client, Some(reply));
    }

    /// A caller leaves. Of what it had asked it knows nothing.
    fn drop_call(&mut self, library: usize, ticket: Ticket) {
        let this = &mut self.libraries.all[library];
        let Some(waiting) = this.waiting.remove(&ticket) else {
            return;
        };
        this.client.on_dropped(ticket);
        let Caller::Client(client) = waiting.caller else {
            return;
        };
        self.coverage.event("operation", "dropped");
        let now = self.now;
        self.trace.line(now, || format!("client {client} drops {ticket}"));
        if let Some(pending) = &self.clients[client].pending {
            let (slot, op) = (pending.slot, pending.op);
            this.done(slot, op);
        }
        self.tell(client, None);
    }

    /// A watcher opens its watch through its library.
    pub(super) fn watch_through_library(&mut self, watcher: usize) {
        let library = watcher % self.libraries.all.len();
        let this = &mut self.watchers[watcher];
        let slot = this.slot;
        let what = What::Watch {
            keyspace: crate::node::name(slot, self.parts[slot]).into(),
            spec: this.spec(),
        };
        let call = Call {
            what,
            server: None,
            timeout: OPEN_TIMEOUT,
        };
        let now = self.now;
        let this = &mut self.libraries.all[library];
        let ticket = this.client.on_call(Instant::from_nanos(now), call);
        let waiting = Waiting {
            caller: Caller::Watcher(watcher),
            deadline: now + OPEN_TIMEOUT.as_nanos() as u64,
        };
        this.waiting.insert(ticket, waiting);
        self.library_effects(library);
    }

    /// A node is asked for a watch.
    fn open_watch(
        &mut self,
        library: usize,
        (connection, ticket): (ConnectionId, Ticket),
        (node, incarnation): (NodeId, Incarnation),
        request: ClientRequest,
    ) {
        let alive = self.process(node, incarnation).is_some();
        let this = &mut self.libraries.all[library];
        if !this.up.contains_key(&connection) {
            return;
        }
        let waiting = this.waiting.get(&ticket);
        let watcher = match waiting.map(|waiting| waiting.caller) {
            Some(Caller::Watcher(watcher)) if alive => watcher,
            Some(_) => return self.connection_lost(library, connection),
            // It has been given up meanwhile.
            None => {
                this.client
                    .on_watch_ended(Instant::from_nanos(self.now), connection);
                return;
            }
        };
        let slot = self.watchers[watcher].slot;
        let ClientRequest::Watch { keyspace, spec } = request else {
            return self.fail("library", format!("opens a watch with {request:?}"));
        };
        this.client.on_watch_open(ticket);
        self.watches += 1;
        let watch = WatchId(self.watches);
        let now = self.now;
        self.libraries
            .watching
            .insert(watcher, (library, connection, now));
        self.book.watch_opened(slot, watch, watcher, &spec);
        self.watch_begins(watcher, (node, watch), &spec);
        self.turn(node, |process, _| process.node.on_watch(watch, keyspace, spec));
    }

    /// A watcher has left its watch.
    pub(super) fn watch_left(&mut self, watcher: usize) {
        if let Some((library, connection, _)) = self.libraries.watching.remove(&watcher) {
            let now = Instant::from_nanos(self.now);
            self.libraries.all[library].client.on_watch_ended(now, connection);
            self.library_effects(library);
        }
    }

    /// Whether a watcher's library has not learned yet that the node of its watch has died, or that node may not have
    /// ended the turn in which it was asked for it.
    pub(super) fn is_watch_stale(&self, watcher: usize) -> bool {
        let Some((library, connection, since)) = self.libraries.watching.get(&watcher) else {
            return self.has_libraries();
        };
        if self.now <= since + self.scenario.turn {
            return true;
        }
        let at = self.libraries.all[*library].up.get(connection);
        at.is_none_or(|(id, incarnation)| {
            let process = self.nodes[id.0 as usize - 1].process.as_ref();
            process.is_none_or(|process| process.incarnation != *incarnation)
        })
    }

    /// Notes which node a client's operation was put to.
    fn given_to(&mut self, op: OpId, node: NodeId) {
        let of =
            |client: &crate::client::Client| client.pending.as_ref().is_some_and(|pending| pending.op == op);
        let Some(client) = self.clients.iter().position(of) else {
            return;
        };
        let before = self.libraries.given.insert(client, (op, node));
        if before.is_some_and(|(known, at)| known == op && at != node) {
            self.coverage.event("operation", "other-node");
        }
    }
}
