//! What becomes of one turn of a node: its effects, carried out one after the other, with a place for a fault between
//! any two of them.

use bytes::Bytes;
use trilemma_core::{ChangeBatch, Incarnation, NodeId, Now, WallTime};
use trilemma_node::{Engine, Observer};
use trilemma_storage::{Due, LogSeq};

use super::{Event, MS, World};
use crate::invariants::{Broken, Invariants};
use crate::node::{Process, Start, Stopped};
use crate::scenario::{Action, Probe, Protocol};
use crate::watching::Published;

/// Time within which a log makes durable what it was handed, while no fault is going on.
const SYNC_BOUND: u64 = 3000 * MS;

/// Shows the invariants what a turn leads to.
struct Watching<'a> {
    invariants: &'a mut Invariants,
    id: NodeId,
    wall: WallTime,
    durable: LogSeq,
    broken: Option<Broken>,
    /// What watchers are held against, where there are any, and the stream of each keyspace here.
    published: Option<(&'a mut Published, Vec<u64>)>,
    /// A state of another node has replaced this one's.
    installed: bool,
}

impl Observer for Watching<'_> {
    fn appended(&mut self, replica: usize, bytes: &Bytes) {
        self.invariants.appended(self.id, replica, bytes);
    }

    fn placed(&mut self, replica: usize, seq: LogSeq) {
        self.invariants.placed(self.id, replica, seq);
    }

    fn stepped(&mut self, replica: usize, engine: &Engine, reset: Option<u64>, applied: &[ChangeBatch]) {
        self.installed |= reset.is_some();
        let observed =
            self.invariants
                .observe(self.id, replica, engine, self.wall, self.durable, reset, applied);
        self.broken = self.broken.take().or(observed.err());
        if let Some((published, streams)) = &mut self.published {
            published.add(replica, streams[replica], applied);
        }
    }
}

impl World<'_> {
    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.now;
        let scenario = self.scenario;
        let node = self.node(id);
        node.starting = false;
        if node.process.is_some() {
            return;
        }
        node.clock.start(now);
        // What a lost disk held is below the wall clock; see the runtime's recovery. The first incarnation is that clock,
        // which matters to the contexts of gossip alone.
        let wall = node.clock.wall(now).0;
        let incarnation_min = match scenario.protocol {
            Protocol::Gossip => wall.max(node.incarnation.0 + 1),
            _ => node.incarnation.0 + 1,
        };
        let knobs = node.knobs.clone();
        let start = Start {
            scenario,
            node: id,
            knobs: &knobs,
            now: node.clock.now(now),
            incarnation_min,
        };
        let expected = node.durable;
        let changed = node.knobs != node.knobs_started;
        let first = node.incarnation.0 == 0;
        match Process::start(&node.disk, start, &mut node.instances) {
            Ok((process, found)) => {
                if found.last.max(found.snapshot) < expected {
                    let what = format!(
                        "node {id} had made record {expected} durable and found only {} after its restart",
                        found.last
                    );
                    return self.fail("durability", what);
                }
                node.incarnation = process.incarnation;
                node.knobs_started.clone_from(&node.knobs);
                node.torn_starts = 0;
                node.durable = LogSeq(0);
                node.started = now;
                node.wake_at = u64::MAX;
                node.log_due = u64::MAX;
                node.unsynced_since = None;
                node.known.clear();
                node.pings.clear();
                node.in_turn = false;
                node.sound = None;
                node.process = Some(process);
                self.trace.line(now, || format!("{id} starts with {found:?}"));
                self.did(id, "starting");
                let from = match (found.snapshot, found.last) {
                    (LogSeq(0), LogSeq(0)) => "empty",
                    (LogSeq(0), _) => "log",
                    _ => "snapshot",
                };
                self.coverage.event("start", from);
                if changed && !first {
                    self.coverage.event("start", "settings");
                }
                self.started(id, found.last);
            }
            Err(stopped) => self.refused_start(id, &stopped),
        }
    }

    fn started(&mut self, id: NodeId, last: LogSeq) {
        for slot in 0..self.parts.len() {
            let Some(process) = &self.nodes[id.0 as usize - 1].process else {
                return;
            };
            if let Err(failure) = self.invariants.start(id, slot, process.engine(slot), last) {
                return self.fail(failure.0, failure.1);
            }
        }
        self.watchable(id);
        self.load_started(id);
        if self.healed {
            self.accept_disks();
        }
        self.turn(id, |process, now| process.node.start(now));
        self.probe(id, &Probe::Start);
    }

    /// A node that refuses its own disk has found the damage that was done to it, or is wrong.
    fn refused_start(&mut self, id: NodeId, stopped: &Stopped) {
        let now = self.now;
        let node = self.node(id);
        if let Some(sound) = node.sound.take() {
            node.disk = sound;
            node.starting = true;
            self.trace
                .line(now, || format!("{id} refuses its damaged disk: {stopped}"));
            return self.schedule(10 * MS, Event::Start { node: id });
        }
        if node.tearing.is_some() {
            self.trace
                .line(now, || format!("{id} loses power while it starts"));
            let torn = &mut self.node(id).torn_starts;
            *torn += 1;
            let again = *torn > 1;
            self.coverage
                .event("start", if again { "torn-again" } else { "torn" });
            self.invariants.start_failed(id);
            return self.power_fails(id);
        }
        if self.injected_failure(id).is_some() {
            self.trace.line(now, || format!("{id} cannot start: {stopped}"));
            // Whatever was armed has gone off.
            return self.start_later(id, 20 * MS);
        }
        self.fail("recovery", format!("node {id} refuses to start: {stopped}"));
    }

    /// For how long a fault makes this node's disk fail.
    fn injected_failure(&self, id: NodeId) -> Option<u64> {
        self.actions().find_map(|action| match action {
            Action::FailSync { node, length }
            | Action::FailWrite { node, length }
            | Action::FullDisk { node, length }
                if *node == id =>
            {
                Some(*length)
            }
            _ => None,
        })
    }

    /// Runs one turn of a node.
    pub(super) fn turn(&mut self, id: NodeId, input: impl FnOnce(&mut Process, Now)) {
        let (time, turn) = (self.now, self.scenario.turn);
        let node = self.node(id);
        let now = node.clock.now(time);
        let Some(process) = node.process.as_mut() else {
            return;
        };
        input(process, now);
        if turn == 0 {
            return self.end_turn(id);
        }
        let incarnation = process.incarnation;
        if !std::mem::replace(&mut node.in_turn, true) {
            self.schedule(
                turn,
                Event::TurnEnds {
                    node: id,
                    incarnation,
                },
            );
        }
    }

    pub(super) fn turn_ends(&mut self, id: NodeId, incarnation: Incarnation) {
        if self.process(id, incarnation).is_some() {
            self.node(id).in_turn = false;
            self.end_turn(id);
        }
    }

    /// Ends a turn and carries out what it wants, in the order of its effects.
    fn end_turn(&mut self, id: NodeId) {
        let time = self.now;
        let Some((incarnation, now)) = self.make_turn(id) else {
            return;
        };
        if !self.log_records(id, incarnation, now) {
            return;
        }
        let messages = self.taken(id, incarnation, |process| {
            std::mem::take(&mut process.effects.messages)
        });
        for frame in self.pack(messages) {
            if self.process(id, incarnation).is_none() {
                return;
            }
            self.send(id, frame);
        }
        for ((slot, ticket), reply) in self.taken(id, incarnation, |process| {
            std::mem::take(&mut process.effects.replies)
        }) {
            self.answered(id, slot, ticket, reply);
        }
        for (watch, item) in self.taken(id, incarnation, |process| {
            std::mem::take(&mut process.effects.items)
        }) {
            self.watch_item(id, watch, item);
        }
        self.after_turn(id, incarnation, time, now);
    }

    /// Takes a list of effects from a process, if it still runs.
    fn taken<T>(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        take: impl FnOnce(&mut Process) -> Vec<T>,
    ) -> Vec<T> {
        self.process(id, incarnation).map(take).unwrap_or_default()
    }

    /// Has the node make its turn, and the invariants look at it.
    fn make_turn(&mut self, id: NodeId) -> Option<(Incarnation, Now)> {
        let time = self.now;
        let node = &mut self.nodes[id.0 as usize - 1];
        let now = node.clock.now(time);
        let process = node.process.as_mut()?;
        let incarnation = process.incarnation;
        let stream = |part: &Protocol| {
            let shared = matches!(part, Protocol::Raft | Protocol::TwoPhase);
            Self::stream_of(id, incarnation, shared)
        };
        let watched = (!self.watchers.is_empty()).then(|| self.parts.iter().map(stream).collect());
        let mut watching = Watching {
            invariants: &mut self.invariants,
            id,
            wall: now.wall,
            durable: process.durable(),
            broken: None,
            published: watched.map(|streams| (&mut self.published, streams)),
            installed: false,
        };
        process.node.turn(now, &mut process.effects, &mut watching);
        node.founded |= process.node.peers().is_founded();
        let (broken, installed) = (watching.broken, watching.installed);
        if installed {
            self.load_taken_over(id);
            self.coverage.event("transfer", "done");
        }
        if let Err((checker, what)) = broken.map_or(Ok(()), Err).and_then(|()| self.node_is_sound(id)) {
            self.fail(checker, what);
        }
        Some((incarnation, now))
    }

    /// What every node owes, whatever it serves: what was handed to its log becomes durable soon, and its view of a peer
    /// never goes back to an incarnation that is over.
    fn node_is_sound(&mut self, id: NodeId) -> Result<(), Broken> {
        let (time, quiet_since, is_quiet) = (self.now, self.load.quiet_since(), self.active.is_empty());
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(process) = &node.process else {
            return Ok(());
        };
        for (peer, now) in &process.node.view().peers {
            let before = node.known.insert(*peer, now.incarnation);
            if before > Some(now.incarnation) {
                let now = now.incarnation;
                let what = format!("node {id} takes {peer} for incarnation {now} after {before:?}");
                return Err(("peer-incarnation", what));
            }
        }
        let since = node.unsynced_since.filter(|_| is_quiet && process.is_writing());
        let waits = since.map_or(0, |since| {
            time.saturating_sub(since.max(quiet_since).max(node.paused_until))
        });
        if waits > SYNC_BOUND {
            let what = format!(
                "node {id} leaves {:?} unsynced for {} ms",
                process.node.last(),
                waits / MS
            );
            return Err(("log-idle", what));
        }
        Ok(())
    }

    /// Hands the turn's records to the log, and what waits there to the disk. Without any the log is not looked at, as in
    /// production. `false` if that has ended the process.
    fn log_records(&mut self, id: NodeId, incarnation: Incarnation, now: Now) -> bool {
        let Some(process) = self.process(id, incarnation) else {
            return false;
        };
        match process.submit(now) {
            Ok(true) => {
                let time = self.now;
                self.node(id).unsynced_since.get_or_insert(time);
                self.probe(id, &Probe::Append);
                self.write(id, incarnation);
            }
            Ok(false) => {}
            Err(stopped) => self.disk_failed(id, &stopped),
        }
        self.process(id, incarnation).is_some()
    }

    /// Hands what waits to the disk.
    fn write(&mut self, id: NodeId, incarnation: Incarnation) {
        let now = self.clock(id);
        let Some(written) = self.process(id, incarnation).map(|process| process.write(now)) else {
            return;
        };
        match written {
            Ok(Some(Due::Sync)) => {
                let sync = self.scenario.disk.sync;
                let node = self.node(id);
                let latency = sync.0 + node.rng.below(sync.1 - sync.0 + 1);
                let latency = node.slow_disk.map_or(latency, |slow| slow.max(latency));
                self.did(id, "syncing");
                self.schedule(
                    latency,
                    Event::DiskDone {
                        node: id,
                        incarnation,
                    },
                );
                self.report_log(id, incarnation);
                self.probe(id, &Probe::Write);
            }
            Ok(Some(Due::At(due))) => {
                let node = self.node(id);
                let at = node.clock.time_of(due);
                if at < node.log_due {
                    node.log_due = at;
                    self.schedule_at(
                        at,
                        Event::LogDue {
                            node: id,
                            incarnation,
                        },
                    );
                }
                self.report_log(id, incarnation);
            }
            Ok(None) => {}
            Err(stopped) => self.disk_failed(id, &stopped),
        }
    }

    /// Has the log report what it has done, in an event of its own.
    fn report_log(&mut self, id: NodeId, incarnation: Incarnation) {
        self.schedule(
            0,
            Event::LogReport {
                node: id,
                incarnation,
            },
        );
    }

    pub(super) fn log_due(&mut self, id: NodeId, incarnation: Incarnation) {
        if self.process(id, incarnation).is_some() {
            self.node(id).log_due = u64::MAX;
            self.write(id, incarnation);
        }
    }

    /// Tells the node what its log has to report, if that is something.
    pub(super) fn log_report(&mut self, id: NodeId, incarnation: Incarnation) {
        let events = self.taken(id, incarnation, Process::log_events);
        if events.is_empty() {
            return;
        }
        self.turn(id, |process, now| {
            for event in events {
                // A failure ends the process where it happens, so it is never among what is reported.
                process
                    .node
                    .on_log(now, event)
                    .unwrap_or_else(|error| panic!("the log reported a failure twice: {error}"));
            }
        });
    }

    pub(super) fn disk_done(&mut self, id: NodeId, incarnation: Incarnation) {
        let (time, now) = (self.now, self.clock(id));
        let Some(process) = self.process(id, incarnation) else {
            return;
        };
        let (synced, is_writing) = (process.sync(now), process.is_writing());
        match synced {
            Ok(durable) => {
                self.node(id).unsynced_since = is_writing.then_some(time);
                self.trace.number(durable.0);
                self.probe(id, &Probe::Persist);
                self.log_report(id, incarnation);
                // What has come meanwhile.
                self.write(id, incarnation);
            }
            Err(stopped) => self.disk_failed(id, &stopped),
        }
    }

    /// A disk that says no ends the process, and only an injected fault makes it say no.
    fn disk_failed(&mut self, id: NodeId, stopped: &Stopped) {
        let now = self.now;
        self.trace.line(now, || format!("{id} stops: {stopped}"));
        if self.node(id).tearing.is_some() {
            return self.power_fails(id);
        }
        let injected = self.injected_failure(id);
        match injected {
            Some(length) => self.process_ends(id, length.max(MS)),
            None => self.fail(
                "storage",
                format!("node {id} stops without an injected fault: {stopped}"),
            ),
        }
    }

    /// Snapshots, and the next wake.
    fn after_turn(&mut self, id: NodeId, incarnation: Incarnation, time: u64, now: Now) {
        let Some(process) = self.process(id, incarnation) else {
            return;
        };
        let releases = process.effects.release.is_some();
        match process.background(now) {
            Ok(true) => {
                let latency = self.node(id).rng.below(5 * MS);
                self.schedule(
                    latency,
                    Event::WriteSnapshot {
                        node: id,
                        incarnation,
                    },
                );
            }
            Ok(false) => {}
            Err(stopped) => return self.disk_failed(id, &stopped),
        }
        if releases {
            self.write(id, incarnation);
        }
        self.stop_if_done(id);
        let node = self.node(id);
        let Some(process) = &node.process else { return };
        let at = node.clock.time_of(process.node.wake_at()).max(time + 1);
        if at < node.wake_at {
            node.wake_at = at;
            self.schedule_at(
                at,
                Event::Wake {
                    node: id,
                    incarnation,
                },
            );
        }
    }

    pub(super) fn wake(&mut self, id: NodeId, incarnation: Incarnation) {
        let now = self.now;
        if self.process(id, incarnation).is_none() {
            return;
        }
        let node = self.node(id);
        if node.wake_at > now {
            return;
        }
        node.wake_at = u64::MAX;
        self.turn(id, |_, _| {});
    }

    pub(super) fn write_snapshot(&mut self, id: NodeId, incarnation: Incarnation) {
        let Some(process) = self.process(id, incarnation) else {
            return;
        };
        if let Err(why) = process.write_snapshot() {
            return self.fail("snapshot", format!("node {id}: {why}"));
        }
        self.did(id, "snapshotting");
        let node = self.node(id);
        let torn = node.tearing.is_some() && node.disk.faults().has_power_failed();
        if torn {
            return self.power_fails(id);
        }
        self.turn(id, |_, _| {});
    }
}
