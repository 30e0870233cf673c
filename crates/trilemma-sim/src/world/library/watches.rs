//! Watches of the workload through clients.

use trilemma_client::{Call, ConnectionId, What};
use trilemma_core::{Incarnation, Instant, KeyspaceId, NodeId, Ticket, WatchSpec};
use trilemma_node::WatchId;

use super::{Caller, OPEN_TIMEOUT, Waiting};
use crate::world::World;

impl World<'_> {
    /// A watcher opens its watch through its library.
    pub(in crate::world) fn watch_through_library(&mut self, watcher: usize) {
        let library = watcher % self.libraries.all.len();
        let this = &mut self.watchers[watcher];
        let slot = this.slot;
        let what = What::Watch {
            keyspace: crate::node::name(slot, self.parts[slot]).into(),
            spec: this.spec(),
        };
        let call = Call {
            what,
            server: None,
            timeout: OPEN_TIMEOUT,
        };
        let now = self.now;
        let this = &mut self.libraries.all[library];
        let ticket = this.client.on_call(Instant::from_nanos(now), call);
        let waiting = Waiting {
            caller: Caller::Watcher(watcher),
            deadline: now + OPEN_TIMEOUT.as_nanos() as u64,
        };
        this.waiting.insert(ticket, waiting);
        self.library_effects(library);
    }

    /// A node is asked for a watch.
    pub(super) fn open_watch(
        &mut self,
        library: usize,
        (connection, ticket): (ConnectionId, Ticket),
        (node, incarnation): (NodeId, Incarnation),
        (keyspace, spec): (KeyspaceId, WatchSpec),
    ) {
        let alive = self.process(node, incarnation).is_some();
        let this = &mut self.libraries.all[library];
        if !this.up.contains_key(&connection) {
            return;
        }
        let waiting = this.waiting.get(&ticket);
        let watcher = match waiting.map(|waiting| waiting.caller) {
            Some(Caller::Watcher(watcher)) if alive => watcher,
            Some(_) => return self.connection_lost(library, connection),
            // It has been given up meanwhile.
            None => {
                this.client
                    .on_watch_ended(Instant::from_nanos(self.now), connection);
                return;
            }
        };
        let slot = self.watchers[watcher].slot;
        this.client.on_watch_open(ticket);
        self.watches += 1;
        let watch = WatchId(self.watches);
        let now = self.now;
        self.libraries
            .watching
            .insert(watcher, (library, connection, now));
        self.book.watch_opened(slot, watch, watcher, &spec);
        self.watch_begins(watcher, (node, watch), &spec);
        let destination = self.watchers[watcher].destination(watch);
        self.turn(node, |process, _| {
            process.node.on_watch(watch, keyspace, spec, destination);
        });
    }

    /// A watcher has left its watch.
    pub(in crate::world) fn watch_left(&mut self, watcher: usize) {
        if let Some((library, connection, _)) = self.libraries.watching.remove(&watcher) {
            let now = Instant::from_nanos(self.now);
            self.libraries.all[library].client.on_watch_ended(now, connection);
            self.library_effects(library);
        }
    }

    /// Whether a watcher's library has not learned yet that the node of its watch has died, or that node may not have
    /// ended the turn in which it was asked for it.
    pub(in crate::world) fn is_watch_stale(&self, watcher: usize) -> bool {
        let Some((library, connection, since)) = self.libraries.watching.get(&watcher) else {
            return self.has_libraries();
        };
        if self.now <= since + self.scenario.turn {
            return true;
        }
        let at = self.libraries.all[*library].up.get(connection);
        at.is_none_or(|(id, incarnation)| {
            let process = self.nodes[id.0 as usize - 1].process.as_ref();
            process.is_none_or(|process| process.incarnation != *incarnation)
        })
    }
}
