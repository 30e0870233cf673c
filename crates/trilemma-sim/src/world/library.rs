//! Clients and watchers that go through the client library: the machine of `trilemma-client`, as in production, with its
//! connections in virtual time. They are lost at any moment, some at once and some after a silence in which nothing
//! passes; what was on its way to a node may still arrive.

mod calls;
mod links;
mod watches;

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_client::wire::{ClientReply, ClientRequest};
use trilemma_client::{CallId, Client, ConnectionId, Effect, Session, Settings};
use trilemma_core::{
    Incarnation, Instant, KeyspaceId, NodeId, OpId, Rng, Ticket, Version, WatchSpec, WriteError,
};

use super::{Event, MS, World};
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

impl Libraries {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
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
        keyspace: KeyspaceId,
        spec: WatchSpec,
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
                keyspace,
                spec,
            } => self.open_watch(
                library,
                (connection, ticket),
                (node, incarnation),
                (keyspace, spec),
            ),
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
            LibraryEvent::Drop { ticket } => self.drop_call(library, ticket),
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
                keyspace,
                spec,
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
                    keyspace,
                    spec,
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
