//! What must hold between two inputs.

use super::{Client, Place};
use crate::link::ConnectionId;

/// Calls up to which a build with debug assertions looks at each of them after every input.
const CHECKED_MAX: usize = 64;

impl Client {
    /// The invariants: each call stands in the one place that it says.
    pub(super) fn check(&self) {
        assert_eq!(
            self.calls.len(),
            self.deadlines.len(),
            "every call has its deadline"
        );
        assert_eq!(
            self.taken.len(),
            self.taken_order.len(),
            "operations are remembered in order"
        );
        if !cfg!(debug_assertions) || self.calls.len() > CHECKED_MAX {
            return;
        }
        let mut under_way = 0;
        for (ticket, call) in &self.calls {
            let is = |connection: ConnectionId| {
                let link = self.servers[connection.server].link.as_ref();
                link.filter(|link| link.id == connection && link.is_ready())
            };
            let stands = match call.place {
                Place::Waiting => self.waiting.contains(ticket),
                Place::Paused(until) => self.paused.contains(&(until, *ticket)),
                Place::Queued(on) => is(on)
                    .is_some_and(|link| link.queue.contains(ticket) || link.watch_queue.contains(ticket)),
                Place::Sent(on, _) => {
                    under_way += 1;
                    is(on).is_some_and(|link| link.waiting().any(|waits| waits == *ticket))
                }
                Place::Opening(on) => is(on).is_some_and(|link| link.opening.contains(ticket)),
            };
            assert!(stands, "call {ticket} is not where it says: {call:?}");
        }
        let links = self.servers.iter().filter_map(|server| server.link.as_ref());
        let flying: usize = links.map(|link| link.waiting().count()).sum();
        assert_eq!(under_way, flying, "who waits for an answer is a call");
    }
}
