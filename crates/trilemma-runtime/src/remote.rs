//! Clients of nodes on other machines: sockets and clocks for the machine of `trilemma-client`, which decides
//! everything: whom a call goes to, when a server is dialed, what becomes of what was under way.

mod replicator;
mod resuming;
mod watches;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use trilemma_client::client::TooLarge;
use trilemma_client::wire::{ClientReply, ClientRequest, KeyspaceOverview, MembershipOverview, NodeOverview};
use trilemma_client::{Answer, Call, CallId, Client, ConnectionId, Effect, Settings, What};
use trilemma_core::{Instant, NodeId, ReadError, Reason, SharedReplicator, StatusWatch, Ticket, codec};
use trilemma_transport::{Answers, CallError, ClientConfig, ClientConnection, Identity, Items};

use crate::address::Address;
use crate::readers::WatchReader;
use replicator::RemoteReplicator;
use watches::Watches;

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The client's certificate, key and the cluster's authority.
    pub identity: Identity,
    /// The nodes, those to prefer first; at least one.
    pub servers: Vec<(NodeId, Address)>,
    /// Longest time for a connection to be made, and the node's introduction to come.
    pub connect_timeout: Duration,
}

/// A client of a cluster. It ends with its last handle, watch and call.
#[derive(Debug)]
pub struct Remote {
    config: RemoteConfig,
    /// Enough to find out that no server can be dialed.
    patience: Duration,
    runtime: Handle,
    started: std::time::Instant,
    state: Mutex<State>,
    /// The timer must look again.
    earlier: Arc<Notify>,
    statuses: Mutex<HashMap<String, StatusWatch>>,
}

#[derive(Debug)]
struct State {
    client: Client,
    /// Who waits for which call.
    callers: BTreeMap<Ticket, oneshot::Sender<Answered>>,
    dials: BTreeMap<ConnectionId, AbortHandle>,
    connections: BTreeMap<ConnectionId, Connected>,
    /// Watches that are open and have not reached their callers.
    opened: BTreeMap<Ticket, WatchReader>,
    /// The time for which the timer is set.
    timer: Instant,
}

/// A connection, and what comes on it for watches.
#[derive(Debug)]
struct Connected {
    at: ClientConnection,
    watches: Watches,
}

/// An answer, and the items of a watch.
#[derive(Debug)]
struct Answered {
    answer: Answer,
    watch: Option<WatchReader>,
}

/// A call whose caller waits. Dropping it tells the client that nobody does any more.
struct Caller<'a> {
    remote: &'a Arc<Remote>,
    ticket: Ticket,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.remote.with(|state, now| {
            if state.callers.remove(&ticket).is_some() {
                state.client.on_dropped(now, ticket);
            }
        });
    }
}

impl Remote {
    /// Connects to the first server that answers.
    pub async fn connect(config: RemoteConfig) -> Result<Arc<Self>, ReadError> {
        let mut settings = Settings::new(config.servers.iter().map(|(node, _)| *node).collect());
        settings.connect_timeout = config.connect_timeout;
        let servers = u32::try_from(config.servers.len()).unwrap_or(u32::MAX);
        let remote = Arc::new(Self {
            patience: config
                .connect_timeout
                .saturating_mul(2)
                .saturating_add(settings.stagger.saturating_mul(servers)),
            config,
            runtime: Handle::current(),
            started: std::time::Instant::now(),
            state: Mutex::new(State {
                client: Client::new(settings),
                callers: BTreeMap::new(),
                dials: BTreeMap::new(),
                connections: BTreeMap::new(),
                opened: BTreeMap::new(),
                timer: Instant::NEVER,
            }),
            earlier: Arc::new(Notify::new()),
            statuses: Mutex::new(HashMap::new()),
        });
        let timer = keep_time(Arc::downgrade(&remote), Arc::clone(&remote.earlier));
        remote.runtime.spawn(timer);
        remote.overview().await?;
        Ok(remote)
    }

    /// The node that is connected now, if one is; the one to prefer, if several are.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.lock().client.connected_to()
    }

    /// How the connected node stands.
    pub async fn overview(self: &Arc<Self>) -> Result<NodeOverview, ReadError> {
        let call = Call {
            what: What::Overview,
            server: None,
            timeout: self.patience,
        };
        match self.call(call).await.answer {
            Answer::Overview(overview) => Ok(*overview),
            Answer::Refused(reason) => Err(reason.into()),
            _ => Err(unexpected().into()),
        }
    }

    /// Whom the connected node knows as members; `None` where membership is not configured.
    pub async fn members(self: &Arc<Self>) -> Result<Option<MembershipOverview>, ReadError> {
        let call = Call {
            what: What::Members,
            server: None,
            timeout: self.patience,
        };
        match self.call(call).await.answer {
            Answer::Members(members) => Ok(members.map(|members| *members)),
            Answer::Refused(reason) => Err(reason.into()),
            _ => Err(unexpected().into()),
        }
    }

    /// The replicator of a keyspace that an overview showed. With `server`, it asks no other.
    #[must_use]
    pub fn replicator(
        self: &Arc<Self>,
        keyspace: &KeyspaceOverview,
        server: Option<NodeId>,
    ) -> SharedReplicator {
        Arc::new(RemoteReplicator {
            remote: Arc::clone(self),
            name: keyspace.name.as_str().into(),
            backend: keyspace.backend,
            status: self.status(&keyspace.name),
            server,
        })
    }

    fn status(&self, name: &str) -> StatusWatch {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = statuses.get(name) {
            return status.clone();
        }
        statuses.entry(name.to_owned()).or_default().clone()
    }

    async fn call(self: &Arc<Self>, call: Call) -> Answered {
        let (sender, answer) = oneshot::channel();
        let ticket = self.with(|state, now| {
            let ticket = state.client.on_call(now, call);
            state.callers.insert(ticket, sender);
            ticket
        });
        let caller = Caller { remote: self, ticket };
        let answered = answer.await;
        drop(caller);
        // The sender waits with the client until it answers, which outlives this call.
        answered.unwrap_or_else(|_| Answered {
            answer: Answer::Refused(unexpected()),
            watch: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Tells the client something and carries out what it wants.
    fn with<R>(self: &Arc<Self>, tell: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut unheard = Vec::new();
        let mut state = self.lock();
        let result = tell(&mut state, self.now());
        loop {
            let effects = state.client.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(&mut state, effect, &mut unheard);
            }
        }
        let wake_at = state.client.wake_at();
        if wake_at < state.timer {
            state.timer = wake_at;
            self.earlier.notify_one();
        }
        let unasked = std::mem::take(&mut state.opened);
        drop(state);
        drop(unasked);
        // What is dropped here may tell the client that a watch has ended.
        drop(unheard);
        result
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, effect: Effect, unheard: &mut Vec<Answered>) {
        match effect {
            Effect::Dial { connection, server } => {
                let dial = dial(Arc::downgrade(self), connection, self.route(server));
                let task = self.runtime.spawn(dial);
                state.dials.insert(connection, task.abort_handle());
            }
            Effect::Send {
                connection,
                call,
                request,
            } => self.send(state, connection, call, &request),
            Effect::OpenWatch {
                connection,
                ticket,
                keyspace,
                spec,
            } => self.open_watch(state, (connection, ticket), keyspace, spec),
            Effect::Close { connection } => {
                if let Some(dial) = state.dials.remove(&connection) {
                    dial.abort();
                }
                state.connections.remove(&connection);
            }
            Effect::Resolve { ticket, answer } => {
                let watch = state.opened.remove(&ticket);
                let answered = Answered { answer, watch };
                if let Some(caller) = state.callers.remove(&ticket) {
                    unheard.extend(caller.send(answered).err());
                } else {
                    unheard.push(answered);
                }
            }
            Effect::Learned { keyspace, status } => self.status(&keyspace).set(status),
            Effect::Reached { keyspace, version } => self.status(&keyspace).learn_version(version),
        }
    }

    fn send(&self, state: &mut State, connection: ConnectionId, call: CallId, request: &ClientRequest) {
        let Some(at) = state.connections.get(&connection) else {
            return;
        };
        let now = self.now();
        match at.at.send(call.0, codec::encode(request)) {
            Ok(()) => {}
            Err(CallError::TooLarge { size, limit }) => {
                let (size, limit) = (size as u64, limit as u64);
                let is = TooLarge { size, limit };
                state.client.on_too_large(now, connection, call, is);
            }
            Err(error) => {
                state.connections.remove(&connection);
                state.client.on_lost(now, connection, &error.to_string());
            }
        }
    }

    /// How a server is dialed.
    fn route(&self, server: NodeId) -> Option<Route> {
        let (_, address) = self.config.servers.iter().find(|(node, _)| *node == server)?;
        Some(Route {
            cluster: self.config.cluster.clone(),
            identity: self.config.identity.clone(),
            server,
            address: address.clone(),
            timeout: self.config.connect_timeout,
        })
    }

    /// A dial has succeeded. Whether anybody still wants the connection.
    fn connected(self: &Arc<Self>, connection: ConnectionId, at: ClientConnection) -> bool {
        self.with(|state, now| {
            let wanted = state.dials.remove(&connection).is_some();
            if wanted {
                let watches = Watches::default();
                state.connections.insert(connection, Connected { at, watches });
                state.client.on_connected(now, connection);
            }
            wanted
        })
    }

    fn lost(self: &Arc<Self>, connection: ConnectionId, why: &str) {
        self.with(|state, now| {
            state.dials.remove(&connection);
            state.connections.remove(&connection);
            state.client.on_lost(now, connection, why);
        });
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The timer finds that it has nothing to keep time for.
        self.earlier.notify_one();
        for dial in self.lock().dials.values() {
            dial.abort();
        }
    }
}

/// The client answered a call of one kind with the answer of another.
fn unexpected() -> Reason {
    Reason::Unreachable {
        why: "the client has ended".into(),
    }
}

fn decode(answer: &Bytes) -> Result<ClientReply, String> {
    codec::decode(answer).map_err(|error| error.to_string())
}

/// Wakes the client when it wants to be, as long as there is one.
async fn keep_time(remote: Weak<Remote>, earlier: Arc<Notify>) {
    loop {
        let Some(remote) = remote.upgrade() else {
            return;
        };
        let wake_at = remote.with(|state, now| {
            state.client.on_wake(now);
            state.timer = state.client.wake_at();
            state.timer
        });
        let rest = (wake_at < Instant::NEVER).then(|| wake_at.since(remote.now()));
        drop(remote);
        let sleep = async {
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = earlier.notified() => {}
        }
    }
}

/// The way to a server.
struct Route {
    cluster: String,
    identity: Identity,
    server: NodeId,
    address: Address,
    timeout: Duration,
}

impl Route {
    /// Connects to the first of the server's addresses that answers. The time is for all of them, in equal shares of what
    /// is left.
    async fn connect(self) -> Result<(ClientConnection, Answers, Items), String> {
        let until = tokio::time::Instant::now() + self.timeout;
        let addresses = tokio::time::timeout_at(until, self.address.resolve()).await;
        let addresses = addresses
            .map_err(|_elapsed| format!("{} was not resolved within {:?}", self.address, self.timeout))?
            .map_err(|error| format!("{} cannot be resolved: {error}", self.address))?;
        let mut failures = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let share = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let left = until.saturating_duration_since(tokio::time::Instant::now()) / share;
            let config = ClientConfig::new(self.cluster.clone(), self.identity.clone(), *address);
            match ClientConnection::connect(config.node(self.server).timeout(left)).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(failures.join("; "))
    }
}

/// Makes a connection, and brings its answers until it ends.
async fn dial(remote: Weak<Remote>, connection: ConnectionId, route: Option<Route>) {
    let dialed = match route {
        Some(route) => route.connect().await,
        None => Err("it is not configured".into()),
    };
    let Some(this) = remote.upgrade() else {
        return;
    };
    let streams = match dialed {
        Ok((at, answers, items)) => this.connected(connection, at).then_some((answers, items)),
        Err(why) => {
            this.lost(connection, &why);
            None
        }
    };
    drop(this);
    if let Some((answers, items)) = streams {
        tokio::spawn(read_items(Weak::clone(&remote), connection, items));
        read(remote, connection, answers).await;
    }
}

async fn read(remote: Weak<Remote>, connection: ConnectionId, mut answers: Answers) {
    loop {
        let next = answers.next().await;
        let Some(remote) = remote.upgrade() else {
            return;
        };
        match next {
            Ok((number, answer)) => {
                let reply = decode(&answer);
                remote.with(|state, now| {
                    state.client.on_answer(now, connection, CallId(number), reply);
                });
            }
            Err(why) => return remote.lost(connection, &why),
        }
    }
}

async fn read_items(remote: Weak<Remote>, connection: ConnectionId, mut items: Items) {
    loop {
        let next = items.next().await;
        let Some(remote) = remote.upgrade() else {
            return;
        };
        let taken = match next {
            Ok((number, item)) => remote.take_item(connection, number, &item),
            Err(why) => Err(why),
        };
        if let Err(why) = taken {
            return remote.lost(connection, &why);
        }
    }
}
