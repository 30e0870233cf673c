//! What a client is made with.

use std::time::Duration;

use trilemma_core::NodeId;

/// Servers, limits, times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The nodes that may be asked, those to prefer first; at least one, each once.
    pub servers: Vec<NodeId>,
    /// Longest time from the beginning of a dial until the node has introduced itself. Default 2 s.
    pub connect_timeout: Duration,
    /// After this time without an answer to one dial, the next server is dialed beside it. Default 200 ms.
    pub stagger: Duration,
    /// For how long a server that could not be dialed counts as unreachable. Default 300 ms.
    pub failure_memory: Duration,
    /// Calls that one connection has under way at once; further ones wait. Default 4,096.
    pub window_calls: usize,
    /// Bytes of their commands. Default 8 MiB. One call is always let through.
    pub window_bytes: usize,
    /// Watches that one connection has open at once; further ones wait. Default 65,536.
    pub watches_max: usize,
    /// Calls that the client has taken and not answered; further ones are refused. Default 65,536.
    pub calls_max: usize,
}

impl Settings {
    /// The defaults, for these servers.
    #[must_use]
    pub fn new(servers: Vec<NodeId>) -> Self {
        Self {
            servers,
            connect_timeout: Duration::from_secs(2),
            stagger: Duration::from_millis(200),
            failure_memory: Duration::from_millis(300),
            window_calls: 4096,
            window_bytes: 8 * 1024 * 1024,
            watches_max: 65_536,
            calls_max: 65_536,
        }
    }
}
