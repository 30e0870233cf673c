//! The demo's network: a UDP relay for each direction of each link, which can be cut.
//!
//! Each node knows its peers by the addresses of relays, so a cut needs no switch in the nodes: the packets just do
//! not arrive, as with a pulled cable.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Largest UDP payload.
const PACKET_BYTES_MAX: usize = 65_535;

/// Where the nodes really listen.
type Addresses = Arc<Mutex<BTreeMap<u32, SocketAddr>>>;

/// All relays of a cluster.
pub(super) struct Network {
    relays: BTreeMap<(u32, u32), SocketAddr>,
    cut: BTreeMap<(u32, u32), Arc<AtomicBool>>,
    addresses: Addresses,
    dropped: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Network {
    /// Opens relays between all pairs of `nodes`.
    pub(super) async fn open(nodes: &[u32]) -> std::io::Result<Self> {
        let mut network = Self {
            relays: BTreeMap::new(),
            cut: BTreeMap::new(),
            addresses: Addresses::default(),
            dropped: Arc::default(),
            tasks: Vec::new(),
        };
        for &from in nodes {
            for &to in nodes.iter().filter(|to| **to != from) {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                network.relays.insert((from, to), socket.local_addr()?);
                let cut = Arc::clone(network.cut.entry(pair(from, to)).or_default());
                let relay = Relay {
                    from,
                    to,
                    socket,
                    cut,
                    addresses: Arc::clone(&network.addresses),
                    dropped: Arc::clone(&network.dropped),
                };
                network.tasks.push(tokio::spawn(relay.run()));
            }
        }
        Ok(network)
    }

    /// Where node `from` finds node `to`.
    pub(super) fn address(&self, from: u32, to: u32) -> SocketAddr {
        self.relays[&(from, to)]
    }

    /// Tells where a node listens (again).
    pub(super) fn set_listen(&self, node: u32, address: SocketAddr) {
        lock(&self.addresses).insert(node, address);
    }

    /// Cuts or mends every link between the two sides.
    pub(super) fn set_cut(&self, one: &[u32], other: &[u32], cut: bool) {
        for &a in one {
            for &b in other {
                self.cut[&pair(a, b)].store(cut, Ordering::Release);
            }
        }
    }

    /// Packets that cuts have swallowed.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

fn lock(addresses: &Addresses) -> std::sync::MutexGuard<'_, BTreeMap<u32, SocketAddr>> {
    // Held for plain map operations only, so a poisoned map is whole.
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `from` sends goes to `to`; what `to` answers goes back.
struct Relay {
    from: u32,
    to: u32,
    socket: UdpSocket,
    cut: Arc<AtomicBool>,
    addresses: Addresses,
    dropped: Arc<AtomicU64>,
}

impl Relay {
    async fn run(self) {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            // An error is what an earlier packet met (such as a port that is closed while a node is down); UDP
            // promises nothing, so the relay goes on.
            let Ok((length, source)) = self.socket.recv_from(&mut packet).await else {
                continue;
            };
            if self.cut.load(Ordering::Acquire) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let target = {
                let addresses = lock(&self.addresses);
                let back = addresses.get(&self.to) == Some(&source);
                addresses.get(if back { &self.from } else { &self.to }).copied()
            };
            if let Some(target) = target {
                // A packet that cannot be sent is a lost packet.
                let _ = self.socket.send_to(&packet[..length], target).await;
            }
        }
    }
}
