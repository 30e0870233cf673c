//! What a node does with one input: the order of the driver's turn, with a place for a fault between any two parts.

use bytes::Bytes;
use trilemma_core::host::{GroupInput, Outgoing};
use trilemma_core::liveness::Beat;
use trilemma_core::{Incarnation, NodeId, Now, Reply, Ticket};
use trilemma_storage::LogSeq;

use super::{Event, LAZY_DELAY, MS, World, view_inputs};
use crate::invariants::Sending;
use crate::node::{Process, Start, Stopped};
use crate::scenario::{Action, Probe, Protocol};

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
        let life_min = match scenario.protocol {
            Protocol::Gossip => wall.max(node.life.0 + 1),
            _ => node.life.0 + 1,
        };
        let start = Start {
            scenario,
            node: id,
            life_min,
        };
        let expected = node.durable;
        match Process::start(&node.disk, start, &mut node.instances) {
            Ok((process, found)) => {
                if found.last.max(found.snapshot) < expected {
                    let what = format!(
                        "node {id} had made record {expected} durable and found only {} after its restart",
                        found.last
                    );
                    return self.fail("durability", what);
                }
                node.life = process.life;
                node.durable = LogSeq(0);
                node.started = now;
                node.wake_at = u64::MAX;
                node.lazy_queued = false;
                node.in_turn = false;
                node.snapshot_wanted = false;
                node.sound = None;
                node.process = Some(process);
                self.trace.line(now, || format!("{id} starts with {found:?}"));
                self.did(id, "starting");
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
            if let Err(failure) = self.invariants.start(id, slot, &process.slots[slot].engine, last) {
                return self.fail(failure.0, failure.1);
            }
        }
        self.turn(id, |process, now| {
            for slot in 0..process.slots.len() {
                process.step(slot, now, GroupInput::Start);
            }
        });
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
        let life = process.life;
        if !std::mem::replace(&mut node.in_turn, true) {
            self.schedule(turn, Event::TurnEnds { node: id, life });
        }
    }

    pub(super) fn turn_ends(&mut self, id: NodeId, life: Incarnation) {
        if self.process(id, life).is_some() {
            self.node(id).in_turn = false;
            self.end_turn(id);
        }
    }

    /// Carries out what the inputs of a turn have led to.
    fn end_turn(&mut self, id: NodeId) {
        let time = self.now;
        let Some(life) = self.last_steps(id) else { return };
        let slots = self.parts.len();
        if let Some(process) = self.process(id, life) {
            let appended = process.append();
            for (slot, seq, bytes) in &appended {
                self.invariants.appended(id, *slot, *seq, bytes);
            }
            if !appended.is_empty() {
                self.probe(id, &Probe::Append);
            }
        }
        if self.process(id, life).is_none() {
            return;
        }
        self.write(id, life);
        self.observe(id);
        for slot in 0..slots {
            let Some(process) = self.process(id, life) else {
                return;
            };
            let output = &mut process.slots[slot].output;
            let sends = std::mem::take(&mut output.sends);
            let rejected = output.rejected.take();
            if let Some((from, error)) = rejected {
                self.fail(
                    "codec",
                    format!("node {id} cannot read a message of node {from}: {error}"),
                );
            }
            for outgoing in sends {
                if self.process(id, life).is_none() {
                    return;
                }
                self.send(id, slot, outgoing);
            }
        }
        let Some(process) = self.process(id, life) else {
            return;
        };
        let mut answers: Vec<(usize, Ticket, Reply)> = Vec::new();
        for (index, slot) in process.slots.iter_mut().enumerate() {
            answers.extend(
                slot.output
                    .replies
                    .drain(..)
                    .map(|(ticket, reply)| (index, ticket, reply)),
            );
        }
        for (slot, ticket, reply) in answers {
            self.answered(id, slot, ticket, reply);
        }
        self.after_turn(id, life, time);
    }

    /// The last steps of a turn: wakes that are due, beats.
    fn last_steps(&mut self, id: NodeId) -> Option<Incarnation> {
        let time = self.now;
        let node = self.node(id);
        let now = node.clock.now(time);
        let process = node.process.as_mut()?;
        process.wake_due(now);
        let mut beats = Vec::new();
        if process.liveness.wake_at() <= now.instant {
            let view = process
                .liveness
                .tick(now.instant, |to, beat| beats.push((to, beat)));
            if let Some(view) = view {
                for (slot, view) in view_inputs(&view, process.slots.len()) {
                    process.step(slot, now, GroupInput::Peers(view));
                }
                process.wake_due(now);
            }
        }
        let life = process.life;
        for (to, beat) in beats {
            self.send_beat(id, to, beat);
        }
        Some(life)
    }

    /// Hands what waits to the disk.
    fn write(&mut self, id: NodeId, life: Incarnation) {
        let sync = self.scenario.disk.sync;
        let node = self.node(id);
        let Some(process) = node.process.as_mut() else {
            return;
        };
        match process.begin_write() {
            Ok(true) => {
                let latency = sync.0 + node.rng.below(sync.1 - sync.0 + 1);
                let latency = node.slow_disk.map_or(latency, |slow| slow.max(latency));
                self.did(id, "syncing");
                self.schedule(latency, Event::DiskDone { node: id, life });
                self.probe(id, &Probe::Write);
            }
            Ok(false) => {
                if process.has_lazy() && !node.lazy_queued {
                    node.lazy_queued = true;
                    self.schedule(LAZY_DELAY, Event::Lazy { node: id, life });
                }
            }
            Err(stopped) => self.disk_failed(id, &stopped),
        }
    }

    pub(super) fn lazy(&mut self, id: NodeId, life: Incarnation) {
        let Some(process) = self.process(id, life) else {
            return;
        };
        process.force();
        self.node(id).lazy_queued = false;
        self.write(id, life);
    }

    pub(super) fn disk_done(&mut self, id: NodeId, life: Incarnation) {
        let Some(process) = self.process(id, life) else {
            return;
        };
        match process.end_write() {
            Ok(durable) => {
                self.trace.number(durable.0);
                self.probe(id, &Probe::Persist);
                self.turn(id, |process, now| process.tell_durable(now));
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
    fn after_turn(&mut self, id: NodeId, life: Incarnation, time: u64) {
        let every = self.scenario.disk.snapshot;
        let node = self.node(id);
        let Some(process) = node.process.as_mut().filter(|process| process.life == life) else {
            return;
        };
        process.take_snapshot(every, std::mem::take(&mut node.snapshot_wanted));
        if process.snapshot_ready() {
            let latency = node.rng.below(5 * MS);
            self.schedule(latency, Event::WriteSnapshot { node: id, life });
        }
        let node = self.node(id);
        let Some(process) = &node.process else { return };
        let groups = process.slots.iter().map(|slot| slot.engine.wake_at());
        let instant = groups.chain([process.liveness.wake_at()]).min();
        let at = instant
            .map_or(u64::MAX, |instant| node.clock.time_of(instant))
            .max(time + 1);
        if at < node.wake_at {
            node.wake_at = at;
            self.schedule_at(at, Event::Wake { node: id, life });
        }
    }

    pub(super) fn wake(&mut self, id: NodeId, life: Incarnation) {
        let now = self.now;
        if self.process(id, life).is_none() {
            return;
        }
        let node = self.node(id);
        if node.wake_at > now {
            return;
        }
        node.wake_at = u64::MAX;
        self.turn(id, |_, _| {});
    }

    pub(super) fn write_snapshot(&mut self, id: NodeId, life: Incarnation) {
        if self.process(id, life).is_none() {
            return;
        }
        self.did(id, "snapshotting");
        let node = self.node(id);
        let disk = node.disk.clone();
        let Some(process) = node.process.as_mut() else {
            return;
        };
        let result = process.write_snapshot(&disk);
        let torn = node.tearing.is_some() && disk.faults().operations == Some(0);
        match result {
            Err(stopped) => self.disk_failed(id, &stopped),
            Ok(_) if torn => self.power_fails(id),
            Ok(_) => {}
        }
    }

    /// Looks at what a node has become.
    fn observe(&mut self, id: NodeId) {
        let time = self.now;
        let wall = self.node(id).clock.wall(time);
        for slot in 0..self.parts.len() {
            let Some(process) = self.nodes[id.0 as usize - 1].process.as_mut() else {
                return;
            };
            let durable = process.durable();
            let slot_of = &mut process.slots[slot];
            let reset = slot_of.output.reset.take();
            let applied = std::mem::take(&mut slot_of.output.applied);
            if let Err(failure) =
                self.invariants
                    .observe(id, slot, &slot_of.engine, wall, durable, reset, &applied)
            {
                return self.fail(failure.0, failure.1);
            }
        }
    }

    fn send(&mut self, from: NodeId, slot: usize, outgoing: Outgoing) {
        let Outgoing { to, kind, bytes, .. } = outgoing;
        if self.probe(from, &Probe::Send(kind.to_owned())) {
            return;
        }
        let Some(process) = &self.nodes[from.0 as usize - 1].process else {
            return;
        };
        let sending = Sending {
            from,
            to,
            life: process.life,
            slot,
            engine: &process.slots[slot].engine,
            durable: process.durable(),
            bytes: &bytes,
        };
        if let Err(failure) = self.invariants.send(&sending) {
            return self.fail(failure.0, failure.1);
        }
        self.did(from, kind);
        if let Some(delays) = self.transmit(from, to, kind) {
            for delay in delays.into_iter().flatten() {
                let life = self.node(to).life;
                let bytes = bytes.clone();
                self.schedule(
                    delay,
                    Event::Deliver {
                        from,
                        to,
                        life,
                        slot,
                        kind,
                        bytes,
                    },
                );
            }
        }
    }

    fn send_beat(&mut self, from: NodeId, to: NodeId, beat: Beat) {
        if let Some(delays) = self.transmit(from, to, "beat") {
            let life = self.node(to).life;
            for delay in delays.into_iter().flatten() {
                self.schedule(delay, Event::Beat { from, to, life, beat });
            }
        }
    }

    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        life: Incarnation,
        slot: usize,
        kind: &'static str,
        bytes: Bytes,
    ) {
        if self.process(to, life).is_none() || self.is_cut(from, to) {
            return;
        }
        self.trace.number(u64::from(from.0) << 32 | u64::from(to.0));
        self.trace.bytes(&bytes);
        let now = self.now;
        self.trace.line(now, || format!("{from} > {to} {kind}"));
        if self.probe(to, &Probe::Receive(kind.to_owned())) {
            return;
        }
        self.did(to, kind);
        self.turn(to, |process, now| {
            process.step(slot, now, GroupInput::Receive { from, bytes })
        });
    }

    pub(super) fn beat(&mut self, from: NodeId, to: NodeId, life: Incarnation, beat: Beat) {
        if self.process(to, life).is_none() || self.is_cut(from, to) {
            return;
        }
        let now = self.now;
        let node = self.node(to);
        let instant = node.clock.instant(now);
        let Some(process) = node.process.as_mut() else {
            return;
        };
        if let Some(view) = process.liveness.receive(instant, from, beat) {
            self.trace.line(now, || format!("{to} sees {view:?}"));
            self.turn(to, |process, now| {
                for (slot, view) in view_inputs(&view, process.slots.len()) {
                    process.step(slot, now, GroupInput::Peers(view));
                }
            });
        }
    }
}
