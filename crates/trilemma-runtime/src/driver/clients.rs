//! The driver's side towards clients on other machines: requests in, answers out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use trilemma_core::{Incarnation, KeyspaceId, NodeId, PeerView, Reason, Request, codec};
use trilemma_transport::ClientRef;

use super::Driver;
use crate::waiters::{Owed, Waiter};
use crate::watchers::Sink;
use crate::wire::{ClientReply, ClientRequest, KeyspaceOverview, NodeOverview, PeerOverview};

/// Longest time a client may ask a node to work on one operation.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Longest refusal shown in an overview, in bytes.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Who this node is, and what it knows of the others.
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) peers: BTreeMap<NodeId, SocketAddr>,
    pub(crate) view: PeerView,
    pub(crate) refused: BTreeMap<NodeId, String>,
}

impl Driver {
    /// Takes one request of a client.
    pub(super) fn on_client(&mut self, client: ClientRef, request: u64, payload: &[u8]) {
        match codec::decode::<ClientRequest>(payload) {
            Ok(asked) => self.on_request(client, request, asked),
            Err(error) => send(
                &client,
                request,
                &ClientReply::Bad(format!("request not understood: {error}")),
            ),
        }
    }

    fn on_request(&mut self, client: ClientRef, request: u64, asked: ClientRequest) {
        match asked {
            ClientRequest::Overview => {
                let overview = Box::new(self.overview());
                send(&client, request, &ClientReply::Overview(overview));
            }
            ClientRequest::Read {
                keyspace,
                timeout_ms,
                request: read,
            } => {
                self.ask(client, request, keyspace, timeout_ms, Request::Read(read));
            }
            ClientRequest::Write {
                keyspace,
                timeout_ms,
                op,
                attempt,
                command,
            } => {
                let write = match command.validate() {
                    Ok(()) => Request::Write { op, attempt, command },
                    Err(refusal) => return send(&client, request, &ClientReply::Write(Err(refusal.into()))),
                };
                self.ask(client, request, keyspace, timeout_ms, write);
            }
            ClientRequest::Outcome {
                keyspace,
                timeout_ms,
                op,
                command,
            } => {
                self.ask(
                    client,
                    request,
                    keyspace,
                    timeout_ms,
                    Request::Outcome { op, command },
                );
            }
            ClientRequest::Watch { keyspace, spec } => match self.by_id.get(&keyspace).copied() {
                Some(slot) => self.watch(slot, spec, Sink::Client(client, request)),
                None => send(
                    &client,
                    request,
                    &ClientReply::Watch(Err(self.no_such(keyspace).into())),
                ),
            },
        }
    }

    fn ask(
        &mut self,
        client: ClientRef,
        request: u64,
        keyspace: KeyspaceId,
        timeout_ms: u32,
        asked: Request,
    ) {
        let timeout = Duration::from_millis(timeout_ms.into()).min(TIMEOUT_MAX);
        let waiter = Waiter::Client(client, request);
        match self.by_id.get(&keyspace).copied() {
            Some(slot) => self.propose(slot, asked, timeout, waiter),
            None => waiter.answer(Owed::to(&asked).refusal(self.no_such(keyspace))),
        }
    }

    fn no_such(&self, keyspace: KeyspaceId) -> Reason {
        let configured = self
            .slots
            .iter()
            .map(|slot| slot.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        Reason::NoSuchKeyspace {
            name: keyspace.to_string(),
            configured,
        }
    }

    /// This node as it sees itself.
    pub(super) fn overview(&mut self) -> NodeOverview {
        let now = self.clock.now();
        let identity = &self.identity;
        let peer = |(node, address): (&NodeId, &SocketAddr)| PeerOverview {
            node: *node,
            address: address.to_string(),
            connected: identity.view.is_connected(*node),
            refused: identity.refused.get(node).map_or(String::new(), |why| clip(why)),
        };
        let peers = identity.peers.iter().map(peer).collect();
        let keyspace = |slot: &crate::slot::Slot| KeyspaceOverview {
            name: slot.name.clone(),
            id: slot.id,
            backend: slot.backend,
            status: slot.group.status(now),
        };
        NodeOverview {
            cluster: identity.cluster.clone(),
            node: identity.node,
            incarnation: identity.incarnation,
            peers,
            keyspaces: self.slots.iter().map(keyspace).collect(),
            log: self.log_overview(),
        }
    }
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(REFUSAL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn send(client: &ClientRef, request: u64, reply: &ClientReply) {
    if let Err(error) = client.reply(request, codec::encode(reply)) {
        tracing::debug!(%error, "an answer found its client gone");
    }
}
