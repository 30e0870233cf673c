//! What is said of connections that were refused: each kind of refusal of each other side once, until it has stopped.
//!
//! Anybody can cause refusals, many a second, and each line is written on the node's own thread.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use trilemma_core::NodeId;
use trilemma_transport::Refusal;

/// A refusal that has not come for this long has stopped, and is news when it comes again.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Refusals remembered. While there are more, new ones are not warned of: by then the log says enough.
const REMEMBERED_MAX: usize = 256;

/// Who was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Other {
    Node(NodeId),
    /// Its address; a port tells nothing, for each attempt may have another.
    Unknown(IpAddr),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// When each was seen last.
    seen: BTreeMap<(Other, String), Instant>,
}

impl Refusals {
    /// Whether this refusal is news.
    pub(super) fn is_news(
        &mut self,
        now: Instant,
        node: Option<NodeId>,
        address: SocketAddr,
        reason: &Refusal,
    ) -> bool {
        let other = node.map_or(Other::Unknown(address.ip()), Other::Node);
        let key = (other, kind(reason));
        let is_old = |seen: &Instant| now.saturating_duration_since(*seen) >= FORGET_AFTER;
        if let Some(seen) = self.seen.get_mut(&key) {
            let is_news = is_old(seen);
            *seen = now;
            return is_news;
        }
        self.seen.retain(|_, seen| !is_old(seen));
        if self.seen.len() >= REMEMBERED_MAX {
            return false;
        }
        self.seen.insert(key, now);
        true
    }

    /// A peer is connected: what is refused from now on is news.
    pub(super) fn connected(&mut self, node: NodeId) {
        self.seen.retain(|(other, _), _| *other != Other::Node(node));
    }
}

/// What is the same of a refusal each time it comes: its text without the numbers in it, which are times and ports.
fn kind(reason: &Refusal) -> String {
    let text = reason.to_string();
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests;
