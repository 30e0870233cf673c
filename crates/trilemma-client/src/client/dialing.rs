//! Connections: which server is dialed when, and what a lost one means for what was under way.
//!
//! All calls that wait share one dial. If it has not answered after a while, the next server is dialed beside it; the
//! first that introduces itself serves. What could not be dialed counts as unreachable for a moment, so that callers
//! are refused at once rather than one after the other, each with a dial of its own.

use trilemma_core::{Instant, Ticket};

use super::{Client, Effect};
use crate::link::{CallId, ConnectionId, Link, Stage};
use crate::wire::{ClientReply, ClientRequest, NodeOverview};

impl Client {
    /// Dials a server that has no connection.
    pub(super) fn dial(&mut self, now: Instant, server: usize) {
        let connection = ConnectionId {
            server,
            number: self.number(),
        };
        let this = &mut self.servers[server];
        assert!(this.link.is_none(), "one connection to a server at a time");
        this.link = Some(Link::new(connection, now));
        let server = this.node;
        self.effects.push(Effect::Dial { connection, server });
    }

    /// Asks a node that was reached who it is and what it serves, unless nobody waits for it any more.
    pub(super) fn connected(&mut self, now: Instant, connection: ConnectionId) {
        let call = CallId(self.number());
        let wanted = self
            .waiting
            .iter()
            .any(|ticket| self.may_ask(*ticket, connection.server));
        let Some(link) = self.link(connection) else {
            return;
        };
        if link.stage != Stage::Dialing {
            return;
        }
        if !wanted {
            self.servers[connection.server].link = None;
            self.effects.push(Effect::Close { connection });
            return self.serve(now);
        }
        link.stage = Stage::Introducing(call);
        link.sent(call, None, 0);
        self.effects.push(Effect::Send {
            connection,
            call,
            request: ClientRequest::Overview,
        });
    }

    /// Takes the answer of a node that was to introduce itself.
    pub(super) fn introduced(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reply: Result<ClientReply, String>,
    ) {
        match reply {
            Ok(ClientReply::Overview(overview)) => {
                let ids = overview.keyspaces.iter();
                let ids = ids.map(|keyspace| (keyspace.name.clone(), keyspace.id)).collect();
                if let Some(link) = self.link(connection) {
                    link.stage = Stage::Ready;
                    link.keyspaces = ids;
                }
                self.servers[connection.server].failed = None;
                self.learn(&overview);
                self.serve(now);
            }
            Ok(other) => {
                let why = format!("it answered a question for its overview with {other:?}");
                self.give_up_dial(now, connection, why);
            }
            Err(why) => self.give_up_dial(now, connection, why),
        }
    }

    pub(super) fn learn(&mut self, overview: &NodeOverview) {
        for keyspace in &overview.keyspaces {
            self.effects.push(Effect::Learned {
                keyspace: keyspace.name.clone(),
                status: keyspace.status.clone(),
            });
        }
    }

    /// Ends dials that take too long.
    pub(super) fn end_slow_dials(&mut self, now: Instant) {
        let limit = self.settings.connect_timeout;
        let slow = |link: &&Link| !link.is_ready() && link.since + limit <= now;
        let links = self.servers.iter().filter_map(|server| server.link.as_ref());
        let slow: Vec<ConnectionId> = links.filter(slow).map(|link| link.id).collect();
        for connection in slow {
            self.give_up_dial(now, connection, format!("no answer within {limit:?}"));
        }
    }

    fn give_up_dial(&mut self, now: Instant, connection: ConnectionId, why: String) {
        self.effects.push(Effect::Close { connection });
        self.lost(now, connection, &why);
    }

    /// A dial has failed, or a connection has ended.
    pub(super) fn lost(&mut self, now: Instant, connection: ConnectionId, why: &str) {
        if self.link(connection).is_none() {
            return;
        }
        let count = self.servers.len();
        let server = &mut self.servers[connection.server];
        let Some(link) = server.link.take() else { return };
        if link.is_ready() {
            // Where it served, the next one is preferred from now on.
            self.homes.retain(|_, home| *home != connection.server);
            if self.first == connection.server {
                self.first = (connection.server + 1) % count;
            }
        } else {
            server.failed = Some((now, why.to_owned()));
        }
        tracing::debug!(node = %server.node, why, "connection lost");
        let sent: Vec<Ticket> = link.waiting().chain(link.opening.iter().copied()).collect();
        for ticket in link.queue.iter().chain(&link.watch_queue) {
            self.wait(*ticket);
        }
        for ticket in sent {
            self.lose(ticket, why);
        }
        self.serve(now);
    }
}
