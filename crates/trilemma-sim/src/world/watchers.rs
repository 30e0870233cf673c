//! Watchers in the world: whom they watch, how fast they read, when they leave.

use trilemma_core::{Incarnation, KeyRange, NodeId, ReadError, WatchItem, WatchSpec, WatchStart};
use trilemma_node::{LinkId, ReaderEvent, WatchId};

use super::{Event, MS, World};
use crate::engine::entries;
use crate::invariants::Broken;
use crate::node::Process;
use crate::randomness::{Purpose, Randomness};
use crate::scenario::Protocol;
use crate::watching::Watcher;

/// How often a watcher leaves its node by itself, per mille of what it reads.
const LEAVES: u32 = 15;
/// What it does not read for then, at least.
const PAUSE: u64 = 200 * MS;
/// How often what its items leave by has no room for a while, per mille of its reads.
const FILLS: u32 = 50;
/// How often it does not read for long, per mille.
const PAUSES: u32 = 30;

impl World<'_> {
    /// Puts the watchers of the scenario into the world.
    pub(super) fn plan_watchers(&mut self) {
        let randomness = Randomness::new(self.scenario.seed);
        for index in 0..self.scenario.watchers {
            let mut rng = randomness.stream(Purpose::Watcher, u64::from(index));
            let slot = rng.below(self.parts.len() as u64) as usize;
            let range = if rng.per_mille(500) {
                KeyRange::all()
            } else {
                KeyRange {
                    start: format!("k{}", rng.below(u64::from(self.scenario.workload.keys)))
                        .as_str()
                        .into(),
                    end: None,
                }
            };
            let delay = rng.below(30 * MS);
            self.watchers.push(Watcher::new(rng, slot, range));
            let watcher = index as usize;
            self.schedule(delay, Event::Watch { watcher });
        }
    }

    /// A node has started: what it has recovered is part of the streams that all nodes share.
    pub(super) fn watchable(&mut self, id: NodeId) {
        if self.watchers.is_empty() {
            return;
        }
        let node = &self.nodes[id.0 as usize - 1];
        let Some(process) = &node.process else { return };
        for (slot, part) in self.parts.iter().enumerate() {
            if matches!(part, Protocol::Raft | Protocol::TwoPhase) {
                let engine = process.engine(slot);
                let position = engine.status(node.clock.now(self.now)).version.0;
                self.published.started(slot, position, &entries(engine));
            }
        }
    }

    /// A watcher opens its watch at some node that is up.
    pub(super) fn watch(&mut self, watcher: usize) {
        let count = self.nodes.len() as u64;
        let this = &mut self.watchers[watcher];
        if this.at.is_some() {
            return;
        }
        if self.has_libraries() {
            return self.watch_through_library(watcher);
        }
        let this = &mut self.watchers[watcher];
        let (slot, id) = (this.slot, NodeId(1 + this.rng.below(count) as u32));
        if self.node(id).process.is_none() {
            let delay = MS + self.watchers[watcher].rng.below(30 * MS);
            return self.schedule(delay, Event::Watch { watcher });
        }
        self.watches += 1;
        let watch = WatchId(self.watches);
        let spec = self.watchers[watcher].spec();
        self.watch_begins(watcher, (id, watch), &spec);
        let keyspace = Process::keyspace(slot, self.parts[slot]);
        let destination = self.watchers[watcher].destination(watch);
        self.turn(id, |process, _| {
            process.node.on_watch(watch, keyspace, spec, destination);
        });
    }

    /// A node is about to be asked for a watch.
    pub(super) fn watch_begins(&mut self, watcher: usize, at: (NodeId, WatchId), spec: &WatchSpec) {
        let (id, watch) = at;
        self.watchers[watcher].at = Some(at);
        let now = self.now;
        self.trace.line(now, || {
            format!("watcher {watcher} at {id} {watch:?} begins {:?}", spec.start)
        });
        let this = &mut self.watchers[watcher];
        let (start, resumes) = match spec.start {
            WatchStart::State => ("state", false),
            WatchStart::StateFrom(_) => ("state-from", false),
            WatchStart::Now => ("now", false),
            WatchStart::After(_) => ("token", true),
        };
        this.resumes = resumes;
        self.coverage.event("begins", start);
        let this = &mut self.watchers[watcher];
        if let (true, Some((before, died))) = (this.resumes, this.before) {
            let met = match (before == id, died) {
                (true, _) => "same-node",
                (false, false) => "other-node",
                (false, true) => "after-death",
            };
            self.coverage.event("resume", met);
            self.did(id, "resume");
        }
    }

    /// A node gives an item to a watch.
    pub(super) fn watch_item(&mut self, id: NodeId, watch: WatchId, item: Result<WatchItem, ReadError>) {
        let Some(index) = self
            .watchers
            .iter()
            .position(|watcher| watcher.at == Some((id, watch)))
        else {
            return;
        };
        let this = &mut self.watchers[index];
        this.unread.push_back(item);
        if !std::mem::replace(&mut this.reading, true) {
            let delay = this.pause(self.healed);
            if delay >= PAUSE {
                self.coverage.event("reader", "slow");
            }
            self.schedule(delay, Event::WatchRead { watcher: index });
        }
    }

    /// A watcher reads everything that has come.
    pub(super) fn watch_read(&mut self, watcher: usize) {
        self.watchers[watcher].reading = false;
        let (mut ended, mut bytes) = (false, 0);
        while !ended && !self.watchers[watcher].unread.is_empty() {
            if let Some(met) = self.watchers[watcher].resumed_with() {
                self.coverage.event("resumed", met);
            }
            let this = &self.watchers[watcher];
            if let (Some((_, watch)), Some(Ok(item))) = (this.at, this.unread.front()) {
                self.book.watch_item(this.slot, watch, item);
                bytes += item.bytes();
            }
            match self.watchers[watcher].read(&self.published) {
                Ok(goes_on) => ended = !goes_on,
                Err((checker, what)) => return self.fail(checker, what),
            }
        }
        let Some((id, watch)) = self.watchers[watcher].at else {
            return;
        };
        let leaves = !self.healed && self.watchers[watcher].rng.per_mille(LEAVES);
        if leaves {
            let in_reset = self.watchers[watcher].is_in_reset();
            self.coverage
                .event("reader", if in_reset { "left-in-reset" } else { "left" });
        }
        if ended || leaves {
            self.watch_left(watcher);
            self.watchers[watcher].detach(false);
            let delay = self.watchers[watcher].rng.below(40 * MS);
            self.schedule(delay, Event::Watch { watcher });
        }
        let event = if ended || leaves {
            ReaderEvent::Gone
        } else {
            ReaderEvent::Room(bytes)
        };
        if self.node(id).process.is_some() {
            let fills = !ended && !leaves && !self.healed && self.watchers[watcher].rng.per_mille(FILLS);
            self.turn(id, |process, _| {
                process.node.on_reader(watch, event);
                if fills {
                    process.node.on_link(LinkId(watch.0), false);
                }
            });
            if fills {
                self.coverage.event("reader", "full-link");
                let delay = self.watchers[watcher].rng.below(PAUSE);
                self.schedule(delay, Event::WatchRoom { node: id, watch });
            }
        }
    }

    /// What the items of a watch leave by has room again.
    pub(super) fn watch_room(&mut self, id: NodeId, watch: WatchId) {
        if self.node(id).process.is_some() {
            self.turn(id, |process, _| process.node.on_link(LinkId(watch.0), true));
        }
    }

    /// The connection of a watch is lost: its node learns that the reader has gone, its watcher goes on elsewhere.
    pub(super) fn watch_cut(&mut self, watcher: usize) {
        let Some((id, watch)) = self.watchers[watcher].at else {
            return;
        };
        self.watchers[watcher].detach(false);
        let delay = self.watchers[watcher].rng.below(40 * MS);
        self.schedule(delay, Event::Watch { watcher });
        if self.node(id).process.is_some() {
            self.turn(id, |process, _| process.node.on_reader(watch, ReaderEvent::Gone));
        }
    }

    /// A node has died: its watchers go elsewhere.
    pub(super) fn watches_lost(&mut self, id: NodeId) {
        for watcher in 0..self.watchers.len() {
            let this = &mut self.watchers[watcher];
            if this.at.is_some_and(|(at, _)| at == id) {
                this.detach(true);
                let delay = this.rng.below(40 * MS);
                self.schedule(delay, Event::Watch { watcher });
            }
        }
    }

    /// Whether some watcher has not read what there is for it.
    pub(super) fn watchers_busy(&self) -> bool {
        let busy = |watcher: &Watcher| watcher.at.is_none() || watcher.reading || !watcher.unread.is_empty();
        self.watchers.iter().any(busy)
            || (0..self.watchers.len()).any(|watcher| self.is_watch_stale(watcher))
            || self.nodes.iter().any(|node| {
                let waiting = |process: &Process| {
                    let mut replicas = process.node.replicas().iter();
                    replicas.any(|replica| replica.watchers().behind() > 0)
                };
                node.process.as_ref().is_some_and(waiting)
            })
    }

    /// What watchers must know when nothing happens any more.
    pub(super) fn watchers_at_rest(&mut self) {
        let mut broken = None;
        let mut resets = 0;
        for watcher in &self.watchers {
            let Some((id, _)) = watcher.at else { continue };
            let node = &self.nodes[id.0 as usize - 1];
            // What an open turn has taken in is shown to nobody yet.
            let Some(process) = node.process.as_ref().filter(|_| !node.in_turn) else {
                continue;
            };
            resets += watcher.read_so_far().1;
            let shown = entries(process.engine(watcher.slot));
            broken = broken.or(watcher.at_rest(&shown).err());
        }
        if let Some((checker, what)) = broken {
            return self.fail(checker, what);
        }
        if let Err((checker, what)) = self.no_watch_is_left() {
            return self.fail(checker, what);
        }
        let now = self.now;
        self.trace
            .line(now, || format!("watchers have read {resets} resets"));
    }

    /// A watch whose reader has left is closed.
    fn no_watch_is_left(&self) -> Result<(), Broken> {
        // A client library may hold what it has given up for a moment longer.
        if self.has_libraries() {
            return Ok(());
        }
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let replicas = process.node.replicas().iter();
            let open: usize = replicas.map(|replica| replica.watchers().len()).sum();
            let is_here = |watcher: &&Watcher| watcher.at.is_some_and(|(at, _)| at == node.id);
            let readers = self.watchers.iter().filter(is_here).count();
            if open != readers {
                let what = format!("node {} keeps {open} watches open for {readers} readers", node.id);
                return Err(("watch", what));
            }
        }
        Ok(())
    }

    /// The number that a node's tokens of a keyspace carry.
    pub(super) fn stream_of(id: NodeId, incarnation: Incarnation, shared: bool) -> u64 {
        if shared {
            0
        } else {
            u64::from(id.0) << 48 ^ incarnation.0
        }
    }
}

impl Watcher {
    /// How long it takes to look at what has come.
    fn pause(&mut self, healed: bool) -> u64 {
        if !healed && self.rng.per_mille(PAUSES) {
            return PAUSE + self.rng.below(3000 * MS);
        }
        self.rng.below(3 * MS)
    }
}
