//! A UDP relay between two nodes that can be made to drop everything: a network cut without a switch in the nodes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Where packets go: nowhere before the node there has started.
type Target = Arc<Mutex<Option<SocketAddr>>>;

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    target: Target,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Passes packets between those who send to it and the target.
    pub(crate) async fn start() -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
        let back = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
        let address = front.local_addr().expect("a bound socket has an address");
        let cut = Arc::new(AtomicBool::new(false));
        let target = Target::default();
        let task = tokio::spawn(pass(front, back, Arc::clone(&target), Arc::clone(&cut)));
        Self {
            address,
            target,
            cut,
            task,
        }
    }

    pub(crate) fn set_target(&self, target: SocketAddr) {
        *lock(&self.target) = Some(target);
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(target: &Target) -> std::sync::MutexGuard<'_, Option<SocketAddr>> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass(front: UdpSocket, back: UdpSocket, target: Target, cut: Arc<AtomicBool>) {
    let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
    let mut source = None;
    loop {
        // An error of a UDP socket tells of an earlier packet that nobody received: a loss like any other.
        tokio::select! {
            received = front.recv_from(&mut there) => {
                let Ok((length, from)) = received else { continue };
                source = Some(from);
                let target = *lock(&target);
                if let (Some(target), false) = (target, cut.load(Ordering::Relaxed)) {
                    let _lost = back.send_to(&there[..length], target).await;
                }
            }
            received = back.recv_from(&mut here) => {
                let (Ok((length, _)), Some(source)) = (received, source) else { continue };
                if !cut.load(Ordering::Relaxed) {
                    let _lost = front.send_to(&here[..length], source).await;
                }
            }
        }
    }
}
