//! What must hold between two inputs.

use trilemma_core::{Instant, Ticket};

use super::{Client, Pending, Place, TAKEN_MAX};
use crate::link::{CHECKED_MAX, ConnectionId, Link};

impl Client {
    /// The invariants: each call stands in the one place that it says, something will serve it, and all that is
    /// remembered is bounded.
    pub(super) fn check(&self) {
        assert_eq!(
            self.calls.len(),
            self.deadlines.len(),
            "every call has its deadline"
        );
        assert!(
            self.calls.len() <= self.settings.calls_max,
            "{} calls wait, {} may",
            self.calls.len(),
            self.settings.calls_max
        );
        assert!(
            self.waiting.is_empty()
                || self.next_dial < Instant::NEVER
                || self.links().any(|link| !link.is_ready()),
            "calls wait for a connection and no server is dialed"
        );
        assert_eq!(
            self.taken.len(),
            self.taken_order.len(),
            "operations are remembered in order"
        );
        assert!(self.taken.len() <= TAKEN_MAX, "operations remembered are bounded");
        self.links().for_each(|link| link.check(&self.settings));
        if !cfg!(debug_assertions) || self.calls.len() > CHECKED_MAX {
            return;
        }
        for (ticket, call) in &self.calls {
            assert!(
                self.deadlines.contains(&(call.deadline, *ticket)),
                "call {ticket} has its own deadline"
            );
            assert!(
                self.stands(*ticket, call),
                "call {ticket} is not where it says: {call:?}"
            );
            let is_served = |link: &Link| link.is_ready() && self.may_ask(*ticket, link.id.server);
            assert!(
                call.place != Place::Waiting || !self.links().any(is_served),
                "call {ticket} waits for a connection and there is one"
            );
        }
        for link in self.links() {
            let first = link.queue.first().and_then(|ticket| self.calls.get(ticket));
            assert!(
                first.is_none_or(|call| !link.has_room(call.bytes(), &self.settings)),
                "the first call in the queue of {} has room and was not sent",
                link.id
            );
        }
        let on_links: usize = self.links().map(Link::calls).sum();
        assert_eq!(
            self.waiting.len() + self.paused.len() + on_links,
            self.calls.len(),
            "nothing waits but calls, each in one place"
        );
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.servers.iter().filter_map(|server| server.link.as_ref())
    }

    /// Whether a call is in the place that it says.
    fn stands(&self, ticket: Ticket, call: &Pending) -> bool {
        let is = |connection: ConnectionId| {
            let link = self.servers[connection.server].link.as_ref();
            link.filter(|link| link.id == connection && link.is_ready())
        };
        match call.place {
            Place::Waiting => self.waiting.contains(&ticket),
            Place::Paused(until) => self.paused.contains(&(until, ticket)),
            Place::Queued(on) => {
                is(on).is_some_and(|link| link.queue.contains(&ticket) || link.watch_queue.contains(&ticket))
            }
            Place::Sent(on, _) => is(on).is_some_and(|link| link.waiting().any(|waits| waits == ticket)),
            Place::Opening(on) => is(on).is_some_and(|link| link.opening.contains(&ticket)),
        }
    }
}
