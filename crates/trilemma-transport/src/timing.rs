//! How long connections of a node wait for the other side.

use std::time::Duration;

/// See [`Timing::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Silence after which a connection is given up. A connection that outlives a cut sends again only after a
    /// retransmission pause that has doubled all along the cut; a new one is there at once. So this is short.
    pub idle: Duration,
    /// Time between packets that keep a quiet connection open.
    pub keep_alive: Duration,
    /// Longest time for a handshake: for TLS, and again for the hellos.
    pub handshake: Duration,
}

impl Timing {
    /// For nodes that take a peer for unreachable after this silence: five times as long, within 1 s and 60 s, and four
    /// times as long for a handshake. Nodes that are far from each other, and so wait longer, keep their connections longer.
    #[must_use]
    pub fn of(peer_timeout: Duration) -> Self {
        let bounded = |factor| {
            let time = peer_timeout.saturating_mul(factor);
            time.clamp(Duration::from_secs(1), Duration::from_secs(60))
        };
        let idle = bounded(5);
        Self {
            idle,
            keep_alive: idle / 4,
            handshake: bounded(4),
        }
    }
}

impl Default for Timing {
    /// For the default of 300 ms.
    fn default() -> Self {
        Self::of(Duration::from_millis(300))
    }
}
