//! Real endpoints over loopback: who is let in, what travels, what limits hold.

mod clients;
mod flow;
mod identity;
mod peers;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use trilemma_core::{DiskId, Incarnation, NodeId, ProcessId};

use crate::pki::Authority;
use crate::{Admit, Event, Events, Identity, Limits, Timing, Transport, TransportConfig, TransportError};

const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster's authority and addresses, from which endpoints are made.
struct World {
    authority: Authority,
    addresses: BTreeMap<NodeId, SocketAddr>,
}

impl World {
    fn new(nodes: u32) -> Self {
        let address = |id| (NodeId(id), free_address());
        let authority = Authority::generate("test").expect("a new authority");
        Self {
            authority,
            addresses: (1..=nodes).map(address).collect(),
        }
    }

    fn identity(&self, node: u32) -> Identity {
        let issued = self
            .authority
            .issue_node("test", NodeId(node))
            .expect("a certificate");
        self.pem(&issued.certificate_pem, &issued.key_pem)
    }

    fn pem(&self, certificate: &str, key: &str) -> Identity {
        let authority = self.authority.certificate_pem().as_bytes();
        Identity::from_pem(authority, certificate.as_bytes(), key.as_bytes()).expect("our own PEM is read")
    }

    fn config(&self, node: u32) -> TransportConfig {
        let node_id = NodeId(node);
        TransportConfig {
            cluster: "test".into(),
            process: process(node),
            admit: Admit::all(),
            listen: self.addresses[&node_id],
            peers: self
                .addresses
                .iter()
                .filter(|(id, _)| **id != node_id)
                .map(|(id, a)| (*id, *a))
                .collect(),
            identity: self.identity(node),
            table_digest: [7; 32],
            table_text: "locks = raft".into(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    fn bind(&self, node: u32) -> (Transport, Events) {
        Transport::bind(self.config(node)).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The first process of a node.
fn process(node: u32) -> ProcessId {
    ProcessId {
        node: NodeId(node),
        incarnation: Incarnation(1),
        disk: DiskId(node.into()),
        nonce: 1,
    }
}

/// An address of loopback that is free, and stays so until a test uses it: systems hand out ports from 32768 on, and
/// no two tests of this process get the same.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() % 20_000 + next) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// The next event that `pick` accepts; others are dropped.
async fn expect<T>(events: &mut Events, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.recv().await.expect("the endpoint lives");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("no event: {what}"))
}

async fn up(events: &mut Events, peer: u32) {
    let is_peer =
        |event| matches!(event, Event::PeerUp { process, .. } if process.node == NodeId(peer)).then_some(());
    expect(events, "peer up", is_peer).await;
}

async fn refusal(events: &mut Events) -> String {
    let reason = |event| match event {
        Event::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    };
    expect(events, "a refusal", reason).await
}
