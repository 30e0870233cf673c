//! One connection: what is under way on it, and what waits for room.
//!
//! A call is under way from when it is sent until its answer has come, whether or not its caller still waits: that is
//! what it costs at the node. What would go beyond the window waits in the order in which it came. So a connection is
//! never given more than it takes, and that much waits for it is no reason to leave it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use trilemma_core::{Instant, KeyspaceId, Ticket};

use crate::settings::Settings;

/// Names a connection, also one that is being dialed. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The server's place in the settings.
    pub(crate) server: usize,
    pub(crate) number: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}", self.server, self.number)
    }
}

/// Names one sending of a request on a connection; its answer carries it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Calls up to which a build with debug assertions looks at each of them after every input.
pub(crate) const CHECKED_MAX: usize = 64;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Dialing,
    /// The node is asked for its overview.
    Introducing(CallId),
    Ready,
}

/// A request under way.
#[derive(Debug)]
struct Flying {
    /// Who waits for it, if anybody still does.
    ticket: Option<Ticket>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    pub(crate) stage: Stage,
    /// When it was dialed.
    pub(crate) since: Instant,
    /// The keyspaces of the node, as it numbers them.
    pub(crate) keyspaces: BTreeMap<String, KeyspaceId>,
    flying: BTreeMap<CallId, Flying>,
    bytes: usize,
    /// Calls that wait for room; their tickets are in the order of their coming.
    pub(crate) queue: BTreeSet<Ticket>,
    /// Watches open or being opened.
    pub(crate) watches: usize,
    /// Calls whose watch is being opened.
    pub(crate) opening: BTreeSet<Ticket>,
    /// Watches that wait for another to end.
    pub(crate) watch_queue: BTreeSet<Ticket>,
}

impl Link {
    pub(crate) fn new(id: ConnectionId, now: Instant) -> Self {
        Self {
            id,
            stage: Stage::Dialing,
            since: now,
            keyspaces: BTreeMap::new(),
            flying: BTreeMap::new(),
            bytes: 0,
            queue: BTreeSet::new(),
            watches: 0,
            opening: BTreeSet::new(),
            watch_queue: BTreeSet::new(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether a call of this size may be sent now. One alone always may.
    pub(crate) fn has_room(&self, bytes: usize, settings: &Settings) -> bool {
        self.flying.is_empty()
            || (self.flying.len() < settings.window_calls && self.bytes + bytes <= settings.window_bytes)
    }

    /// Notes that a call is under way.
    pub(crate) fn sent(&mut self, call: CallId, ticket: Option<Ticket>, bytes: usize) {
        self.bytes += bytes;
        let before = self.flying.insert(call, Flying { ticket, bytes });
        assert!(before.is_none(), "a call id is used once");
    }

    /// Takes a call whose answer has come. `None` if it is not under way here; `Some(None)` if nobody waits for it.
    pub(crate) fn take(&mut self, call: CallId) -> Option<Option<Ticket>> {
        let Flying { ticket, bytes } = self.flying.remove(&call)?;
        assert!(bytes <= self.bytes, "bytes under way are counted");
        self.bytes -= bytes;
        Some(ticket)
    }

    /// Nobody waits for this call any more. It stays under way until its answer comes.
    pub(crate) fn forget(&mut self, call: CallId) {
        if let Some(flying) = self.flying.get_mut(&call) {
            flying.ticket = None;
        }
    }

    /// Calls under way for which somebody waits, in the order in which they were sent.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.flying.values().filter_map(|flying| flying.ticket)
    }

    pub(crate) fn watch_ended(&mut self) {
        assert!(self.watches > 0, "a watch ends once");
        self.watches -= 1;
    }

    /// Calls that somebody waits for: queued, under way, or watches being opened.
    pub(crate) fn calls(&self) -> usize {
        self.queue.len() + self.watch_queue.len() + self.opening.len() + self.waiting().count()
    }

    /// The invariants: a connection is never given more than it takes, one that serves nobody yet has been given
    /// nothing, and what waits for room waits for something to end.
    pub(crate) fn check(&self, settings: &Settings) {
        let id = self.id;
        assert!(
            self.flying.len() <= settings.window_calls.max(1),
            "{} calls are under way on {id}",
            self.flying.len()
        );
        assert!(
            self.bytes <= settings.window_bytes || self.flying.len() == 1,
            "{} B are under way on {id}",
            self.bytes
        );
        assert!(
            self.watches <= settings.watches_max.max(1),
            "{} watches are open on {id}",
            self.watches
        );
        assert!(
            self.opening.len() <= self.watches,
            "a watch that is being opened on {id} counts as one"
        );
        assert!(
            self.queue.is_empty() || !self.flying.is_empty(),
            "calls wait for room on {id}, and nothing is under way"
        );
        assert!(
            self.watch_queue.is_empty() || self.watches > 0,
            "watches wait for another on {id} to end, and there is none"
        );
        let queued = self.queue.len() + self.watch_queue.len();
        let (under_way, given) = (self.flying.len(), self.watches + queued);
        match self.stage {
            Stage::Dialing => assert_eq!((under_way, given), (0, 0), "{id} is not connected yet"),
            Stage::Introducing(call) => assert!(
                under_way == 1 && given == 0 && self.flying.contains_key(&call),
                "{id} is asked for nothing but its overview"
            ),
            Stage::Ready => {}
        }
        if cfg!(debug_assertions) && self.flying.len() <= CHECKED_MAX {
            let bytes: usize = self.flying.values().map(|flying| flying.bytes).sum();
            assert_eq!(bytes, self.bytes, "bytes under way on {id} are counted");
        }
    }
}

#[cfg(test)]
mod tests;
