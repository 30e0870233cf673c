//! Frames between nodes. The messages of a turn are packed by the code that production runs; a frame is lost, delayed or
//! doubled as a whole.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use trilemma_core::liveness::Ping;
use trilemma_core::{Incarnation, KeyspaceId, NodeId, ProcessId, codec};
use trilemma_node::config::NODE_RECORDS;
use trilemma_node::frame::{Coalescer, put_item, take_item};
use trilemma_node::{Envelope, Node, NodeMessage};

use super::{Event, World};
use crate::invariants::{Broken, Sending};
use crate::node::Asked;
use crate::scenario::{Probe, Protocol};

/// The kind of messages that reach the next process of a node, too.
const OUTLIVES_ITS_RECEIVER: &str = "forward";

/// The pings of one peer that have arrived at a running process.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// The newest of those that it had to take.
    newest: Option<(Incarnation, u64)>,
    /// The highest number of each incarnation.
    numbers: BTreeMap<Incarnation, u64>,
}

impl Pings {
    fn arrived(&mut self, ping: Ping, is_let_in: bool) {
        let number = self.numbers.entry(ping.incarnation).or_default();
        *number = (*number).max(ping.number);
        if is_let_in {
            self.newest = self.newest.max(Some((ping.incarnation, ping.number)));
        }
    }

    /// What is echoed has arrived, and nothing newer that had to be taken.
    fn are_echoed(&self, echo: Option<(Incarnation, u64)>) -> bool {
        let has_arrived = |(incarnation, number)| self.numbers.get(&incarnation) >= Some(&number);
        echo >= self.newest && echo.is_none_or(has_arrived)
    }
}

/// The pings in a frame.
fn pings(mut frame: Bytes) -> Vec<Ping> {
    let mut pings = Vec::new();
    while let Ok(Some((keyspace, bytes))) = take_item(&mut frame) {
        if keyspace == NODE_RECORDS
            && let Ok(NodeMessage::Ping(ping)) = codec::decode(&bytes)
        {
            pings.push(ping);
        }
    }
    pings
}

/// Messages by the keyspace that they are for; those between the nodes themselves stand under [`NODE_RECORDS`].
type Counts = BTreeMap<KeyspaceId, u64>;

/// What has become of the messages that came to a process.
#[derive(Debug, Default)]
struct Taken {
    /// They were handed on.
    handed: Counts,
    /// They were dropped, because too much waits for the disk.
    dropped: u64,
}

impl Taken {
    fn by(node: &Node<Asked>) -> Self {
        let replicas = node.replicas().iter();
        let keyspaces = replicas.map(|replica| (replica.id(), replica.received()));
        Self {
            handed: keyspaces.chain([(NODE_RECORDS, node.received())]).collect(),
            dropped: node.admission().dropped(),
        }
    }

    /// Every message that had to be handed on since `before` was, but for those that were dropped.
    fn has_all(&self, before: &Self, owed: &Counts) -> Result<(), Broken> {
        let of = |counts: &Counts, keyspace| counts.get(keyspace).copied().unwrap_or(0);
        let handed = |keyspace| of(&self.handed, keyspace) - of(&before.handed, keyspace);
        let lost = owed
            .iter()
            .map(|(keyspace, count)| count.saturating_sub(handed(keyspace)));
        let (lost, dropped) = (lost.sum::<u64>(), self.dropped - before.dropped);
        if lost > dropped {
            let what = format!("of the messages {owed:?} of a frame {lost} were lost, and {dropped} dropped");
            return Err(("frame", what));
        }
        Ok(())
    }
}

/// What must be handed on of a frame that has arrived: nothing of a process that is not let in, and of others all but what
/// is for keyspaces that do not count them.
fn owed(node: &Node<Asked>, parts: &[Protocol], sender: &ProcessId, mut frame: Bytes) -> Counts {
    let mut owed = Counts::new();
    let peers = node.peers();
    if peers.admit(sender).is_err() {
        return owed;
    }
    while let Ok(Some((keyspace, _))) = take_item(&mut frame) {
        let counts_majorities = node
            .find(keyspace)
            .is_some_and(|slot| parts[slot].counts_majorities());
        if !counts_majorities || peers.is_counted(sender) {
            *owed.entry(keyspace).or_default() += 1;
        }
    }
    owed
}

/// One message of a frame.
struct Item {
    keyspace: KeyspaceId,
    kind: &'static str,
    bytes: Bytes,
}

/// What leaves for one peer.
pub(super) struct Frame {
    to: NodeId,
    bytes: Bytes,
    items: Vec<Item>,
}

impl Frame {
    /// The items that a packed frame holds, and of what kind each is.
    fn new(to: NodeId, bytes: Bytes, kinds: &BTreeMap<(KeyspaceId, Bytes), &'static str>) -> Self {
        let mut rest = bytes.clone();
        let mut items = Vec::new();
        while let Some((keyspace, bytes)) = take_item(&mut rest).expect("it was just packed") {
            let key = (keyspace, bytes);
            let kind = kinds[&key];
            let (keyspace, bytes) = key;
            items.push(Item {
                keyspace,
                kind,
                bytes,
            });
        }
        Self { to, bytes, items }
    }

    /// The frame without the messages for which this holds.
    fn without(mut self, mut is_dropped: impl FnMut(&Item) -> bool) -> Self {
        let before = self.items.len();
        self.items.retain(|item| !is_dropped(item));
        if self.items.len() < before {
            let mut bytes = BytesMut::new();
            for item in &self.items {
                put_item(&mut bytes, item.keyspace, &item.bytes);
            }
            self.bytes = bytes.freeze();
        }
        self
    }
}

impl World<'_> {
    /// Packs the messages of a turn.
    pub(super) fn pack(&self, messages: Vec<Envelope>) -> Vec<Frame> {
        let kind = |message: &Envelope| ((message.keyspace, message.bytes.clone()), message.kind);
        let kinds: BTreeMap<_, _> = messages.iter().map(kind).collect();
        let mut coalescer = match self.scenario.network.frame {
            0 => Coalescer::default(),
            bytes => Coalescer::new(bytes),
        };
        let mut frames = Vec::new();
        coalescer.pack(messages, &mut |to, _, bytes| {
            frames.push(Frame::new(to, bytes, &kinds));
        });
        frames
    }

    /// Sends a frame, unless a fault that waits for one of its messages ends the process before.
    pub(super) fn send(&mut self, from: NodeId, frame: Frame) {
        for item in frame.items.iter().filter(|item| item.keyspace != NODE_RECORDS) {
            if self.probe(from, &Probe::Send(item.kind.to_owned())) {
                return;
            }
            if let Err((checker, what)) = self.may_leave(from, frame.to, item) {
                return self.fail(checker, what);
            }
            self.did(from, item.kind);
        }
        let to = frame.to;
        for ping in pings(frame.bytes.clone()) {
            let arrived = self.node(from).pings.entry(to).or_default();
            if !arrived.are_echoed(ping.echo) {
                let what = format!(
                    "node {from} echoes {:?} to {to}; of its pings came {arrived:?}",
                    ping.echo
                );
                return self.fail("echo", what);
            }
        }
        let Frame { bytes, items, .. } = frame.without(|item| self.is_dropped(from, to, item.kind));
        let Some(sender) = self
            .node(from)
            .process
            .as_ref()
            .map(|process| process.node.process())
        else {
            return;
        };
        let kinds: Vec<&'static str> = items.iter().map(|item| item.kind).collect();
        if kinds.is_empty() {
            return;
        }
        let incarnation = self.node(to).incarnation;
        let delays = self.transmit(from, to, &kinds);
        for delay in delays.into_iter().flatten().flatten() {
            let (frame, kinds) = (bytes.clone(), kinds.clone());
            self.schedule(
                delay,
                Event::Deliver {
                    from: sender,
                    to,
                    incarnation,
                    frame,
                    kinds,
                },
            );
        }
    }

    /// Holds a message against what its sender has and knows.
    fn may_leave(&mut self, from: NodeId, to: NodeId, item: &Item) -> Result<(), Broken> {
        let keyspace = item.keyspace;
        let Some(process) = &self.nodes[from.0 as usize - 1].process else {
            return Ok(());
        };
        let Some(slot) = process.node.find(keyspace) else {
            let what = format!("node {from} sends for {keyspace}, which it does not serve");
            return Err(("envelope", what));
        };
        self.invariants.send(&Sending {
            from,
            to,
            incarnation: process.incarnation,
            slot,
            engine: process.engine(slot),
            durable: process.durable(),
            bytes: &item.bytes,
        })
    }

    pub(super) fn deliver(
        &mut self,
        sender: ProcessId,
        to: NodeId,
        incarnation: Incarnation,
        frame: Bytes,
        kinds: &[&'static str],
    ) {
        let from = sender.node;
        let Some((frame, kinds)) = self.arriving(to, incarnation, frame, kinds) else {
            return;
        };
        let incarnation = self.node(to).incarnation;
        if self.is_stopped(from, to) {
            return;
        }
        if let Err((checker, what)) = self.is_let_in(&sender, to) {
            return self.fail(checker, what);
        }
        self.trace.number(u64::from(from.0) << 32 | u64::from(to.0));
        self.trace.bytes(&frame);
        let now = self.now;
        self.trace
            .line(now, || format!("{from} > {to} {}", kinds.join(" ")));
        for kind in kinds.iter().filter(|kind| !NodeMessage::KINDS.contains(kind)) {
            if self.probe(to, &Probe::Receive((*kind).to_owned())) {
                return;
            }
            self.did(to, kind);
        }
        let admitted = self
            .process(to, incarnation)
            .map(|process| process.node.peers().admit(&sender));
        for ping in pings(frame.clone()) {
            let arrived = self.node(to).pings.entry(from).or_default();
            arrived.arrived(ping, admitted == Some(Ok(())));
        }
        let (parts, mut taken) = (self.parts, Ok(()));
        self.turn(to, |process, now| {
            let node = &mut process.node;
            let (owed, before) = (owed(node, parts, &sender, frame.clone()), Taken::by(node));
            node.on_frame(now, &sender, frame);
            taken = Taken::by(node).has_all(&before, &owed);
        });
        if let Err((checker, what)) = taken {
            self.fail(checker, format!("node {to}, from {from}: {what}"));
        }
    }

    /// What of a frame reaches a node that it was sent to when `incarnation` ran there: all, if that still runs; nothing, if
    /// none does. Connections end with their processes, so the next process gets nothing that was meant for the former one.
    /// A network that gave it such a message is drawn for the requests that raft nodes pass on, which name whom they are
    /// meant for.
    fn arriving(
        &mut self,
        to: NodeId,
        incarnation: Incarnation,
        mut frame: Bytes,
        kinds: &[&'static str],
    ) -> Option<(Bytes, Vec<&'static str>)> {
        let node = &self.nodes[to.0 as usize - 1];
        let running = node.process.as_ref()?.incarnation;
        if running == incarnation {
            return Some((frame, kinds.to_vec()));
        }
        let (mut kept, mut bytes) = (Vec::new(), BytesMut::new());
        for kind in kinds {
            let (keyspace, item) = take_item(&mut frame).ok().flatten()?;
            if *kind == OUTLIVES_ITS_RECEIVER {
                kept.push(*kind);
                put_item(&mut bytes, keyspace, &item);
            }
        }
        (!kept.is_empty()).then(|| (bytes.freeze(), kept))
    }

    /// A node lets in each process that runs, unless that has lost its disk.
    fn is_let_in(&mut self, sender: &ProcessId, to: NodeId) -> Result<(), Broken> {
        let is_running = self.process(sender.node, sender.incarnation).is_some();
        if !is_running || self.node(sender.node).lost_disk {
            return Ok(());
        }
        let Some(process) = &self.node(to).process else {
            return Ok(());
        };
        let admitted = process.node.peers().admit(sender);
        admitted.map_err(|refused| ("admission", format!("node {to} would not let it in: {refused}")))
    }
}

#[cfg(test)]
mod tests;
