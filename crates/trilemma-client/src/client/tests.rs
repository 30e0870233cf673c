//! The machine against a world that the test plays by hand, and against random ones.

mod failover;
mod invariants;
mod lost;
mod random;
mod room;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::{
    Achieved, Attempt, Backend, Command, Epoch, Incarnation, Instant, KeyRange, KeyspaceId, LiveStatus,
    NodeId, NodeSet, NotApplied, OpId, Query, ReadRequest, Reason, Receipt, Reply, Request, SessionId,
    Ticket, UnknownCause, Version, WatchSpec, WatchStart, WriteError,
};

use super::{Answer, Call, Client, Effect, What};
use crate::link::{CallId, ConnectionId};
use crate::settings::Settings;
use crate::wire::{
    CertificateOverview, ClientReply, ClientRequest, KeyspaceOverview, LoadOverview, LogOverview,
    NodeOverview,
};

const MS: Duration = Duration::from_millis(1);

fn ids() -> impl Iterator<Item = (Backend, KeyspaceId)> {
    Backend::ALL.into_iter().zip((1..).map(KeyspaceId))
}

fn overview(node: NodeId, version: u64) -> NodeOverview {
    let keyspace = |(backend, id): (Backend, KeyspaceId)| KeyspaceOverview {
        name: backend.name().into(),
        id,
        backend,
        status: LiveStatus {
            version: Version(version),
            ..LiveStatus::default()
        },
    };
    NodeOverview {
        disk: trilemma_core::DiskId(node.0.into()),
        snapshot_failure: String::new(),
        cluster: "test".into(),
        node,
        incarnation: Incarnation(1),
        peers: Vec::new(),
        keyspaces: ids().map(keyspace).collect(),
        log: LogOverview::default(),
        load: LoadOverview::default(),
        certificate: CertificateOverview::default(),
    }
}

fn op(seq: u64) -> OpId {
    let session = SessionId {
        basis: Version(0),
        nonce: 7,
    };
    OpId { session, seq }
}

fn receipt(op: OpId) -> Receipt {
    Receipt {
        op,
        succeeded: true,
        version: Version(5),
        found: Version(0),
        epoch: Epoch(1),
        achieved: Achieved::Linearizable,
        durable_on: NodeSet::default(),
        served_by: NodeId(1),
        round_trips: 1,
        syncs: 1,
    }
}

fn no_quorum() -> Reason {
    Reason::NoQuorum {
        have: 1,
        need: 2,
        of: 3,
        missing: NodeSet::default(),
    }
}

/// A request on its way to a node.
#[derive(Clone, Debug)]
struct Sent {
    connection: ConnectionId,
    call: CallId,
    request: ClientRequest,
}

impl Sent {
    fn attempt(&self) -> Option<Attempt> {
        match &self.request {
            ClientRequest::Ask {
                request: Request::Write { attempt, .. },
                ..
            } => Some(*attempt),
            _ => None,
        }
    }

    fn timeout(&self) -> Duration {
        match &self.request {
            ClientRequest::Ask { timeout_ms, .. } => Duration::from_millis(u64::from(*timeout_ms)),
            other => panic!("{other:?} has no time limit"),
        }
    }
}

/// See the module.
struct Bench {
    client: Client,
    now: Instant,
    dials: VecDeque<(ConnectionId, NodeId)>,
    sent: VecDeque<Sent>,
    watches: VecDeque<(Ticket, ConnectionId)>,
    closed: Vec<ConnectionId>,
    answers: Vec<(Ticket, Answer)>,
    learned: Vec<Version>,
}

impl Bench {
    fn new(servers: u32) -> Self {
        Self::with(servers, |_| {})
    }

    fn with(servers: u32, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new((1..=servers).map(NodeId).collect());
        change(&mut settings);
        Self {
            client: Client::new(settings),
            now: Instant::ZERO,
            dials: VecDeque::new(),
            sent: VecDeque::new(),
            watches: VecDeque::new(),
            closed: Vec::new(),
            answers: Vec::new(),
            learned: Vec::new(),
        }
    }

    /// A client that is connected to its first server.
    fn connected(servers: u32) -> Self {
        let mut bench = Self::new(servers);
        bench.connect_first();
        bench
    }

    fn connect_first(&mut self) {
        let ticket = self.call(What::Overview, 1000 * MS);
        let connection = self.dialed(1);
        self.introduce(connection);
        let asked = self.sent();
        let overview = Box::new(overview(NodeId(1), 0));
        self.reply(&asked, Ok(ClientReply::Overview(overview)));
        assert!(matches!(self.answer(ticket), Some(Answer::Overview(_))));
    }

    fn drop_call(&mut self, ticket: Ticket) {
        self.client.on_dropped(self.now, ticket);
        self.take();
    }

    fn take(&mut self) {
        for effect in self.client.take_effects() {
            match effect {
                Effect::Dial { connection, server } => self.dials.push_back((connection, server)),
                Effect::Send {
                    connection,
                    call,
                    request,
                } => self.sent.push_back(Sent {
                    connection,
                    call,
                    request,
                }),
                Effect::OpenWatch {
                    connection, ticket, ..
                } => self.watches.push_back((ticket, connection)),
                Effect::Close { connection } => self.closed.push(connection),
                Effect::Resolve { ticket, answer } => self.answers.push((ticket, answer)),
                Effect::Learned { status, .. } => self.learned.push(status.version),
                Effect::Reached { version, .. } => self.learned.push(version),
            }
        }
    }

    fn call(&mut self, what: What, timeout: Duration) -> Ticket {
        self.call_at(what, timeout, None)
    }

    fn call_at(&mut self, what: What, timeout: Duration, server: Option<NodeId>) -> Ticket {
        let call = Call {
            what,
            server,
            timeout,
        };
        let ticket = self.client.on_call(self.now, call);
        self.take();
        ticket
    }

    /// Lets time pass, in the steps that the client asks for.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.client.wake_at().max(self.now);
            if next > until {
                break;
            }
            self.now = next;
            self.client.on_wake(self.now);
            self.take();
            assert!(
                self.client.wake_at() > self.now,
                "it asks to be woken at once, again and again"
            );
        }
        self.now = until;
    }

    /// The next dial, which must be to this server.
    fn dialed(&mut self, server: u32) -> ConnectionId {
        let (connection, node) = self.dials.pop_front().expect("a server is dialed");
        assert_eq!(node, NodeId(server));
        connection
    }

    fn connect(&mut self, connection: ConnectionId) {
        self.client.on_connected(self.now, connection);
        self.take();
    }

    /// A dial succeeds, and the node says what it serves.
    fn introduce(&mut self, connection: ConnectionId) {
        self.connect(connection);
        let asked = self.sent();
        assert_eq!(asked.request, ClientRequest::Overview, "a node introduces itself");
        let overview = overview(self.client.server(connection), 0);
        self.reply(&asked, Ok(ClientReply::Overview(Box::new(overview))));
    }

    fn lose(&mut self, connection: ConnectionId) {
        self.client.on_lost(self.now, connection, "it is gone");
        self.take();
    }

    /// The next request that was sent.
    fn sent(&mut self) -> Sent {
        self.sent.pop_front().expect("a request is sent")
    }

    /// The next one, which must go to this server.
    fn sent_to(&mut self, server: u32) -> Sent {
        let sent = self.sent();
        assert_eq!(self.client.server(sent.connection), NodeId(server));
        sent
    }

    fn reply(&mut self, to: &Sent, reply: Result<ClientReply, String>) {
        self.client.on_answer(self.now, to.connection, to.call, reply);
        self.take();
    }

    /// A good answer.
    fn succeed(&mut self, to: &Sent) {
        let reply = good(&to.request);
        self.reply(to, Ok(ClientReply::Answer(reply)));
    }

    /// A node refuses, by the one rule for refusals.
    fn refuse(&mut self, to: &Sent, reason: Reason) {
        let ClientRequest::Ask { request, .. } = &to.request else {
            panic!("only requests are refused");
        };
        let reply = PendingKind::of(request).refused(reason);
        self.reply(to, Ok(ClientReply::Answer(reply)));
    }

    fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let place = self.answers.iter().position(|(of, _)| *of == ticket)?;
        let (_, answer) = self.answers.remove(place);
        assert!(self.answers.iter().all(|(of, _)| *of != ticket), "answered once");
        Some(answer)
    }

    /// The reply to a call that must have been answered.
    fn replied(&mut self, ticket: Ticket) -> Reply {
        match self.answer(ticket) {
            Some(Answer::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn is_idle(&self) -> bool {
        self.dials.is_empty() && self.sent.is_empty() && self.watches.is_empty()
    }
}

fn good(request: &ClientRequest) -> Reply {
    match request {
        ClientRequest::Ask {
            request: Request::Write { op, .. },
            ..
        } => Reply::Write(Ok(receipt(*op))),
        ClientRequest::Ask {
            request: Request::Outcome { op, .. },
            ..
        } => Reply::Outcome(Ok(trilemma_core::Outcome::Applied(receipt(*op)))),
        ClientRequest::Ask { .. } => Reply::Read(Ok(trilemma_core::ReadReply {
            entries: Vec::new(),
            more: false,
            version: Version(9),
            achieved: trilemma_core::ReadLevel::Linearizable,
            served_by: NodeId(1),
            round_trips: 1,
        })),
        other => panic!("{other:?} has no such answer"),
    }
}

fn write_as(backend: Backend, seq: u64, attempt: Attempt, command: Command) -> What {
    What::Request {
        keyspace: backend.name().into(),
        backend,
        request: Request::Write {
            op: op(seq),
            attempt,
            command,
        },
    }
}

fn write(backend: Backend, seq: u64) -> What {
    write_as(backend, seq, Attempt::First, Command::put("k", "v"))
}

fn retry(backend: Backend, seq: u64) -> What {
    write_as(backend, seq, Attempt::Retry, Command::put("k", "v"))
}

fn outcome(backend: Backend, seq: u64) -> What {
    What::Request {
        keyspace: backend.name().into(),
        backend,
        request: Request::Outcome {
            op: op(seq),
            command: None,
        },
    }
}

fn read(backend: Backend) -> What {
    What::Request {
        keyspace: backend.name().into(),
        backend,
        request: Request::Read(ReadRequest {
            query: Query::Get("k".into()),
            level: None,
        }),
    }
}

fn watch() -> What {
    What::Watch {
        keyspace: Arc::from("raft"),
        spec: WatchSpec::new(KeyRange::all(), WatchStart::State),
    }
}

fn is_ok(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Write(Ok(_)) | Reply::Read(Ok(_)) | Reply::Outcome(Ok(_))
    )
}

/// Why a call was refused for certain.
fn refusal(reply: Reply) -> Reason {
    match reply {
        Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. }))) => reason,
        Reply::Read(Err(error)) | Reply::Outcome(Err(error)) => error.reason,
        other => panic!("{other:?} is no certain refusal"),
    }
}

/// Why nobody knows what became of a write.
fn unknown(reply: Reply) -> UnknownCause {
    match reply {
        Reply::Write(Err(WriteError::Unknown { cause, .. })) => cause,
        other => panic!("{other:?} is not unknown"),
    }
}
