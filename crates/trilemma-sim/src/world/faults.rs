//! Faults: what the scenario's lines do, when they begin and when they end.

use std::time::Duration;

use trilemma_core::{NodeId, Rng};
use trilemma_node::Durability;
use trilemma_node::NodeMessage;
use trilemma_storage::{Disk as _, LogSeq, MemoryDisk, MemoryFaults};

use super::{Event, MS, World};
use crate::scenario::{Action, Fault, Probe, When};

/// Loss and copies per mille while the heal is put off.
const NOISE: u32 = 300;
/// Frames per mille that are late although they have no copy.
const LATE: u32 = 10;
/// A fault that goes on for longer is a lasting one, for coverage.
const LASTING: u64 = 10_000 * MS;
/// A clock that jumps further does so by hours, for coverage.
const HOUR_MS: u64 = 3_600_000;
/// A delay above this, beyond what the network does anyway, counts as a fault.
const LONG_DELAY: u64 = 5 * MS;

impl World<'_> {
    /// Something happened at a node. `true` if a fault that waited for it has ended the node's process.
    pub(super) fn probe(&mut self, node: NodeId, probe: &Probe) -> bool {
        if self.triggers.is_empty() || self.healed {
            return false;
        }
        let mut due = Vec::new();
        for trigger in &mut self.triggers {
            if trigger.node == node && trigger.left > 0 && trigger.probe == *probe {
                trigger.left -= 1;
                if trigger.left == 0 {
                    due.push(trigger.index);
                }
            }
        }
        for index in due {
            self.fault(index);
        }
        self.node(node).process.is_none()
    }

    pub(super) fn fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let now = self.now;
        let Fault { when, action } = &self.scenario.faults[index];
        let triggered = matches!(when, When::On { .. });
        self.trace.line(now, || {
            format!("fault {}", self_describe(&self.scenario.faults[index]))
        });
        let class = action.class();
        for node in self.concerned(action) {
            self.cover(class, node);
            if triggered {
                self.cover("triggered", node);
            }
        }
        self.faults += 1;
        self.active.push(index);
        self.load_disturbed_by(class, action);
        self.touched_by(action);
        if action.length() > LASTING {
            self.coverage.event("lasting", class);
        }
        self.begin(action);
        if let (Action::Snapshot { node }, false) = (action, triggered) {
            self.turn(*node, |_, _| {});
        }
        self.schedule(action.length(), Event::FaultEnds { index });
    }

    pub(super) fn concerned(&self, action: &Action) -> Vec<NodeId> {
        match action {
            Action::Split { side, .. } => side.clone(),
            Action::Noise { .. } => Vec::new(),
            Action::Cut { route, .. } | Action::Drop { route, .. } => {
                route.from.into_iter().chain(route.to).collect()
            }
            other => other.node().into_iter().collect(),
        }
    }

    fn begin(&mut self, action: &Action) {
        let faults = |node: &NodeId, world: &Self| world.nodes[node.0 as usize - 1].disk.faults();
        match action {
            Action::Crash { node, .. } => self.power_fails(*node),
            Action::Kill { node, length } => self.process_ends(*node, *length),
            Action::Stop { node, .. } => self.stop(*node),
            Action::Tear {
                node,
                operations,
                names,
                ..
            } => {
                let torn = MemoryFaults {
                    operations: Some(*operations),
                    names_only: *names,
                    ..faults(node, self)
                };
                let node = self.node(*node);
                node.tearing = Some(*operations);
                node.disk.set_faults(torn);
            }
            Action::Wipe { node, .. } => {
                self.power_fails(*node);
                // Before all have met, a member with another disk is a member like any other.
                let counts_majorities = self.parts.iter().any(|part| part.counts_majorities());
                if counts_majorities && !self.nodes.iter().all(|node| node.founded) {
                    return;
                }
                self.coverage.event("disk", "lost");
                let node = self.node(*node);
                node.disk = MemoryDisk::new();
                node.sound = None;
                node.durable = LogSeq(0);
                node.lost_disk = true;
                let id = node.id;
                self.forgets(id);
                self.invariants.disk_lost(id);
            }
            Action::Rot { node, .. } => self.rot(*node),
            Action::Pause { node, length } => {
                let until = self.now + length;
                let node = self.node(*node);
                node.paused_until = node.paused_until.max(until);
            }
            Action::SlowDisk { node, sync, .. } => self.node(*node).slow_disk = Some(*sync),
            Action::FullDisk { node, .. } => {
                let full = MemoryFaults {
                    room: Some(0),
                    ..faults(node, self)
                };
                self.node(*node).disk.set_faults(full);
            }
            Action::FailSync { node, .. } => {
                let failing = MemoryFaults {
                    fail_next_sync: true,
                    ..faults(node, self)
                };
                self.node(*node).disk.set_faults(failing);
            }
            Action::FailWrite { node, .. } => {
                let failing = MemoryFaults {
                    fail_next_write: true,
                    ..faults(node, self)
                };
                self.node(*node).disk.set_faults(failing);
            }
            Action::Jump { node, ms } => {
                let now = self.now;
                let clock = &mut self.node(*node).clock;
                let before = clock.wall(now);
                clock.jump(*ms);
                if ms.unsigned_abs() > HOUR_MS {
                    self.coverage.event("jump", "hours");
                }
                let clock = &self.nodes[node.0 as usize - 1].clock;
                let furthest = before.max(clock.wall(now));
                self.invariants.jumped(*node, furthest);
            }
            Action::Snapshot { node } => {
                // States are taken between turns, when all that led to them is in the log.
                if let Some(process) = &mut self.node(*node).process {
                    process.node.request_snapshot();
                }
            }
            Action::Set { node, name, value } => {
                self.node(*node).knobs.insert(name.clone(), *value);
            }
            // These hold for as long as they are active.
            Action::Cut { .. } | Action::Split { .. } | Action::Drop { .. } | Action::Noise { .. } => {}
        }
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        let Some(place) = self.active.iter().position(|active| *active == index) else {
            return;
        };
        self.active.remove(place);
        self.load_disturbed();
        let action = &self.scenario.faults[index].action;
        self.touched_by(action);
        match action {
            Action::Crash { node, .. }
            | Action::Kill { node, .. }
            | Action::Stop { node, .. }
            | Action::Wipe { node, .. }
            | Action::Rot { node, .. } => {
                self.start_later(*node, 0);
            }
            Action::Tear { node, .. } => {
                // If nothing was written meanwhile, the power does not fail after all.
                let node = self.node(*node);
                if node.tearing.take().is_some() {
                    let whole = MemoryFaults {
                        operations: None,
                        names_only: false,
                        ..node.disk.faults()
                    };
                    node.disk.set_faults(whole);
                }
                let id = node.id;
                self.start_later(id, 0);
            }
            Action::SlowDisk { node, .. } => self.node(*node).slow_disk = None,
            Action::FullDisk { node, .. }
            | Action::FailSync { node, .. }
            | Action::FailWrite { node, .. } => {
                let node = self.node(*node);
                let MemoryFaults {
                    operations,
                    names_only,
                    ..
                } = node.disk.faults();
                let whole = MemoryFaults {
                    operations,
                    names_only,
                    ..MemoryFaults::default()
                };
                node.disk.set_faults(whole);
                let id = node.id;
                self.start_later(id, 0);
            }
            _ => {}
        }
    }

    /// Starts a node that is down, after a while, if nothing else will.
    pub(super) fn start_later(&mut self, id: NodeId, delay: u64) {
        let node = self.node(id);
        if node.process.is_none() && !node.starting {
            node.starting = true;
            self.schedule(delay, Event::Start { node: id });
        }
    }

    /// The process dies and the system goes on: what was handed to the disk stays.
    pub(super) fn process_ends(&mut self, id: NodeId, restart_after: u64) {
        self.end(id);
        if self.scenario.durability() == Durability::None {
            self.forgets(id);
        }
        if !self.active.iter().any(
            |index| matches!(&self.scenario.faults[*index].action, Action::Kill { node, .. } if *node == id),
        ) {
            self.start_later(id, restart_after);
        }
    }

    /// The process is asked to stop, and ends when it has handed over: see [`World::stop_if_done`].
    fn stop(&mut self, id: NodeId) {
        if self.node(id).process.is_none() {
            return;
        }
        self.node(id).stopping = Some(false);
        self.turn(id, |process, now| process.node.on_stopping(now));
    }

    /// Ends a process that is being stopped, once its keyspaces have handed over.
    pub(super) fn stop_if_done(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(process) = &node.process else { return };
        let Some(has_handed_over) = node.stopping else {
            return;
        };
        if process.node.is_handing_over() {
            node.stopping = Some(true);
            return;
        }
        self.coverage
            .event("stop", if has_handed_over { "handed-over" } else { "at-once" });
        self.end(id);
        if self.scenario.durability() == Durability::None {
            self.forgets(id);
        }
        let is_down_for = |index: &usize| matches!(&self.scenario.faults[*index].action, Action::Stop { node, .. } if *node == id);
        // The fault's end starts it; if that is over, nobody else would.
        if !self.active.iter().any(is_down_for) {
            self.start_later(id, MS);
        }
    }

    /// A node has lost what it alone had acknowledged.
    fn forgets(&mut self, id: NodeId) {
        self.book.disk_lost(id, self.now);
        self.adders.disk_lost(id, self.now);
    }

    fn end(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node(id);
        if let Some(process) = node.process.take() {
            let durable = process.durable();
            node.durable = durable;
            node.paused_until = 0;
            node.stopping = None;
            drop(process);
            self.trace.line(now, || format!("{id} is down"));
            self.invariants.crashed(id, durable);
            self.load_stopped(id);
            self.connections_lost(id);
        }
    }

    /// Power fails: of what was not synced, a random part survives.
    pub(super) fn power_fails(&mut self, id: NodeId) {
        self.end(id);
        if self.scenario.durability() != Durability::Fsync {
            self.forgets(id);
        }
        let node = self.node(id);
        node.disk.crash(&mut node.rng);
        let torn = node.tearing.take().is_some();
        if torn {
            // The fault's end starts it; if that is over, nobody else would.
            let waits = self.active.iter().any(|index| matches!(&self.scenario.faults[*index].action, Action::Tear { node, .. } if *node == id));
            if !waits {
                self.start_later(id, MS);
            }
        }
    }

    /// One stored bit flips where damage cannot be taken for a torn write: anywhere in the log before the records of
    /// which nothing later proves that they were durable.
    fn rot(&mut self, id: NodeId) {
        self.power_fails(id);
        let scenario = self.scenario;
        let node = self.node(id);
        if node.sound.is_some() {
            return;
        }
        let Ok(names) = node.disk.list() else { return };
        let mut files: Vec<&String> = names.iter().filter(|name| name.starts_with("wal-")).collect();
        files.sort();
        let Some(name) = node.rng.pick(&files).map(|name| (*name).clone()) else {
            return;
        };
        let length = if files.last() == Some(&&name) {
            crate::node::proven_bytes(&node.disk.copy(), scenario)
        } else {
            node.disk.bytes(&name).len() as u64
        };
        if length == 0 {
            return;
        }
        let (offset, bit) = (node.rng.below(length), node.rng.below(8));
        node.sound = Some(node.disk.copy());
        node.disk.damage(&name, offset, |bytes| {
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1 << bit;
            }
        });
    }

    /// Whether what is under way from one node to another does not arrive.
    pub(super) fn is_stopped(&self, from: NodeId, to: NodeId) -> bool {
        !self.scenario.network.passing && self.is_cut(from, to)
    }

    /// Whether nothing passes from one node to another.
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.actions().any(|action| match action {
            Action::Cut { route, .. } => route.covers(from, to),
            Action::Split { side, .. } => side.contains(&from) != side.contains(&to),
            _ => false,
        })
    }

    /// Whether a fault drops messages of this kind on their way.
    pub(super) fn is_dropped(&mut self, from: NodeId, to: NodeId, kind: &'static str) -> bool {
        let is_dropped = self.actions().any(|action| {
            matches!(action, Action::Drop { kind: dropped, route, .. } if dropped == kind && route.covers(from, to))
        });
        if is_dropped {
            self.message_faults("drop-message", &[kind]);
        }
        is_dropped
    }

    /// What the network does with a frame of these kinds of messages: when its copies arrive, or `None` if it is lost.
    pub(super) fn transmit(
        &mut self,
        from: NodeId,
        to: NodeId,
        kinds: &[&'static str],
    ) -> Option<[Option<u64>; 2]> {
        let network = &self.scenario.network;
        let (mut loss, mut copies, mut delay) = (network.loss, network.duplication, network.delay);
        if self.put_off > 0 {
            (loss, copies) = (loss.max(NOISE), copies.max(NOISE));
        }
        if self.healed {
            (loss, copies, delay) = (0, 0, (delay.0.min(MS), delay.1.min(2 * MS)));
        }
        let mut lost = None;
        for action in self.actions() {
            match action {
                Action::Noise {
                    loss: l,
                    duplication,
                    delay: most,
                    ..
                } => {
                    loss = loss.max(*l);
                    copies = copies.max(*duplication);
                    delay.1 = delay.1.max(*most);
                }
                Action::Cut { route, .. } if route.covers(from, to) => lost = Some("cut-message"),
                Action::Split { side, .. } if side.contains(&from) != side.contains(&to) => {
                    lost = Some("cut-message")
                }
                _ => {}
            }
        }
        let rng = self.links.get_mut(&(from, to))?;
        if lost.is_none() && rng.per_mille(loss) {
            lost = Some("loss");
        }
        if let Some(class) = lost {
            self.message_faults(class, kinds);
            return None;
        }
        // Now and then a frame that has no copy is late, too.
        let late = network.late > 0 && !self.healed && rng.per_mille(LATE);
        let first = random_delay(
            rng,
            if late {
                (delay.0, delay.1.max(network.late))
            } else {
                delay
            },
        );
        let second = rng.per_mille(copies).then(|| {
            let late = network.late > 0 && rng.per_mille(500);
            random_delay(
                rng,
                if late {
                    (delay.0, delay.1.max(network.late))
                } else {
                    delay
                },
            )
        });
        if second.is_some() {
            self.message_faults("duplication", kinds);
        }
        if first > LONG_DELAY {
            self.message_faults("delay", kinds);
        }
        Some([Some(first), second])
    }

    /// A fault of one frame, which is one of each of its messages.
    fn message_faults(&mut self, class: &'static str, kinds: &[&'static str]) {
        self.faults += 1;
        // The node's own messages are no part of a protocol, so they have no cell in its matrix.
        for kind in kinds.iter().filter(|kind| !NodeMessage::KINDS.contains(kind)) {
            self.coverage.hit(class, kind);
        }
    }

    /// The operators accept the disks of nodes that have lost theirs.
    pub(super) fn accept_disks(&mut self) {
        let lost = self.nodes.iter().filter(|node| node.lost_disk);
        let lost = lost.filter_map(|node| Some(node.process.as_ref()?.node.process()));
        for process in lost.collect::<Vec<_>>() {
            for other in 0..self.nodes.len() {
                let other = self.nodes[other].id;
                if other != process.node {
                    self.turn(other, |this, _| this.node.accept_disk(process.node, process.disk));
                }
            }
        }
    }

    /// Ends all faults for good.
    pub(super) fn end_all_faults(&mut self) {
        self.active.clear();
        self.triggers.clear();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            node.slow_disk = None;
            node.tearing = None;
            node.disk.set_faults(MemoryFaults::default());
            // Also one that was to wait for the end of its fault. A later start finds it running.
            if node.process.is_none() {
                let id = node.id;
                self.schedule(0, Event::Start { node: id });
            }
        }
    }
}

fn random_delay(rng: &mut Rng, (low, high): (u64, u64)) -> u64 {
    let delay = rng.between(Duration::from_nanos(low), Duration::from_nanos(high));
    delay.as_nanos() as u64
}

fn self_describe(fault: &Fault) -> String {
    fault.to_string()
}
