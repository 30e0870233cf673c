//! Connections of clients to nodes: dialled, lost, and what is asked over them.

use std::time::Duration;

use trilemma_client::wire::{
    CertificateOverview, ClientReply, ClientRequest, KeyspaceOverview, LoadOverview, LogOverview,
    NodeOverview,
};
use trilemma_client::{CallId, ConnectionId};
use trilemma_core::{
    Incarnation, Instant, KeyspaceId, NodeId, Reply, Request, Ticket, UnknownCause, WriteError,
};
use trilemma_node::Replica;

use super::{Asked, IDLE, LibraryEvent};
use crate::node::Process;
use crate::world::{MS, World};

impl World<'_> {
    /// A dial has come to a node. If nobody is there, sometimes nothing comes back.
    pub(super) fn dialed(&mut self, library: usize, connection: ConnectionId, node: NodeId) {
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
    pub(super) fn requested(
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
                        crate::world::clients::brief(&request)
                    )
                });
                let timeout = Duration::from_millis(u64::from(timeout_ms));
                self.turn(node, |process, now| {
                    process
                        .node
                        .on_request(now, keyspace, timeout, request, (slot, ticket));
                });
            }
            ClientRequest::Watch { .. }
            | ClientRequest::Room { .. }
            | ClientRequest::Cancel
            | ClientRequest::Members => {}
        }
    }

    pub(super) fn slot_of(&self, keyspace: KeyspaceId) -> Option<usize> {
        let parts = self.parts;
        (0..parts.len()).find(|slot| Process::keyspace(*slot, parts[*slot]) == keyspace)
    }

    /// How a node stands that is up.
    pub(super) fn overview(&self, id: NodeId) -> Option<NodeOverview> {
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
            load: LoadOverview::default(),
            certificate: CertificateOverview::default(),
        })
    }

    /// A node has answered what a library had asked. `false` if it was asked by somebody else.
    pub(in crate::world) fn library_answered(&mut self, ticket: Ticket, reply: &Reply) -> bool {
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
    pub(super) fn sever(&mut self, library: usize) {
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
    pub(super) fn connection_lost(&mut self, library: usize, connection: ConnectionId) {
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
    pub(in crate::world) fn library_node_died(&mut self, id: NodeId) {
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
}
