//! What the outside asks of a node's driver, and how it is answered.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use trilemma_client::wire::{MembershipOverview, NodeOverview};
use trilemma_core::{KeyspaceId, Reply, Request, WatchSpec};
use trilemma_node::WatchId;

use crate::readers::Item;

/// Requests that wait for the driver's next turn. Beyond it the caller is refused: the node is overloaded.
pub(crate) const INBOX_MAX: usize = 8192;

/// One request from within the process.
pub(crate) enum Envelope {
    /// A request at a keyspace.
    Propose {
        keyspace: KeyspaceId,
        request: Request,
        /// How long its caller waits, and since when: the time in the inbox counts.
        timeout: Duration,
        asked: Instant,
        reply: oneshot::Sender<Reply>,
    },
    /// A watch of a keyspace.
    Watch {
        id: WatchId,
        keyspace: KeyspaceId,
        spec: WatchSpec,
        items: mpsc::UnboundedSender<Item>,
    },
    /// How does the node stand?
    Overview { reply: oneshot::Sender<NodeOverview> },
    /// Whom does the node know as members?
    Members {
        reply: oneshot::Sender<Option<MembershipOverview>>,
    },
}

/// How a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Everything appended becomes durable first.
    Clean,
    /// At once; what is not durable is lost.
    Abort,
}
