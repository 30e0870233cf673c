//! What must hold of a convergent keyspace.
//!
//! Hybrid logical clocks (Kulkarni et al. 2014): a clock never runs further ahead of its wall clock than the drift that
//! it accepts, so that one wrong clock cannot win over the honest ones permanently. What a node shows of a key never gets
//! older within a incarnation. The changes of one command come together, but for those that were overwritten meanwhile. In the
//! end every value stands that no other change has observed and no newer delete hides: the fold of all changes that ever
//! left their node, made here once more from what nodes log. Nodes that reflect the same changes never show different
//! states; they would notice and repair it, and that they had to is a failure here.
//!
//! What a node acknowledges, to members and to clients, its durable records make ([`disk`]). What it forgets, every
//! member reflects durably, but for one that has lost its disk and has not met this node since; and no member holds a
//! change that a forgotten tombstone would have been held against and that is not here ([`collected`]).

mod collected;
mod disk;

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{ChangeBatch, Key, NodeId, Receipt, WallTime, codec};
use trilemma_gossip::clock::Stamp;
use trilemma_gossip::dot::Dot;
use trilemma_gossip::replica::{Item, Replica};
use trilemma_gossip::{Gossip, Record, is_part};
use trilemma_storage::LogSeq;

use self::collected::collected;
use self::disk::Disk;
use super::{Broken, Sending};

/// How far a lease reaches beyond the stamps given out, with rounding, in milliseconds. Each restart begins with it.
const LEASE_MS: u64 = 300;

/// See the module.
pub(super) struct GossipInvariants {
    accept_drift_ms: u64,
    /// The furthest that each node's wall clock has shown.
    walls: BTreeMap<NodeId, u64>,
    /// Starts of all nodes together: what one has restarted with, others may follow.
    starts: u64,
    /// The newest stamp that each node has shown of a key in its present incarnation, tombstones included.
    shown: BTreeMap<(NodeId, Key), Stamp>,
    /// Every change of each key, and whether some node had it from another: at its origin alone it may be lost.
    changes: BTreeMap<Key, BTreeMap<Dot, (Item, bool)>>,
    keys: BTreeMap<Dot, Key>,
    disks: BTreeMap<NodeId, Disk>,
    /// What each running node showed last.
    seen: BTreeMap<NodeId, Seen>,
    /// What each node has dropped in this turn because another reflects it and does not hold it.
    removed: BTreeMap<NodeId, BTreeSet<Dot>>,
}

/// A running node at the end of a turn.
struct Seen {
    replica: Replica,
    deferred: BTreeSet<Dot>,
    /// The members with which it has made good what a lost disk may have promised.
    met: BTreeSet<NodeId>,
}

impl GossipInvariants {
    pub(super) fn new(accept_drift_ms: u64) -> Self {
        Self {
            accept_drift_ms,
            walls: BTreeMap::new(),
            starts: 0,
            shown: BTreeMap::new(),
            changes: BTreeMap::new(),
            keys: BTreeMap::new(),
            disks: BTreeMap::new(),
            seen: BTreeMap::new(),
            removed: BTreeMap::new(),
        }
    }

    pub(super) fn start(&mut self, id: NodeId, gossip: &Gossip, last: LogSeq) {
        self.starts += 1;
        self.shown.retain(|(node, _), _| *node != id);
        self.disks.insert(id, Disk::found(gossip, last));
    }

    /// A node has died, whose log was durable up to there.
    pub(super) fn crashed(&mut self, id: NodeId, durable: LogSeq) {
        self.seen.remove(&id);
        self.removed.remove(&id);
        self.disks.entry(id).or_default().crashed(durable);
    }

    /// A node has lost its disk.
    pub(super) fn disk_lost(&mut self, id: NodeId) {
        self.disks.insert(id, Disk::lost());
    }

    pub(super) fn observe(
        &mut self,
        id: NodeId,
        gossip: &Gossip,
        wall: WallTime,
        durable: LogSeq,
        applied: &[ChangeBatch],
    ) -> Result<(), Broken> {
        self.disks.entry(id).or_default().sync(durable);
        self.forgotten(id, gossip)?;
        for change in applied.iter().flat_map(|applied| &applied.changes) {
            self.changed(id, gossip, &change.key)?;
        }
        if gossip.divergences() > 0 {
            let what = format!("node {id} and a peer reflect the same changes and differ");
            return Err(("convergence", what));
        }
        let furthest = self.wall(id, wall);
        let clock = gossip.clock().millis();
        if clock > furthest + self.accept_drift_ms + LEASE_MS * self.starts {
            let what = format!("the clock of node {id} shows {clock}, its wall clock at most {furthest}");
            return Err(("clock-drift", what));
        }
        Ok(())
    }

    /// A node has ended a turn: what it has forgotten in it, nobody needs.
    fn forgotten(&mut self, id: NodeId, gossip: &Gossip) -> Result<(), Broken> {
        let members = || gossip.config().members.iter().copied();
        let now = Seen {
            replica: gossip.replica().clone(),
            deferred: gossip.deferred_dots().clone(),
            met: members().filter(|member| gossip.has_met(*member)).collect(),
        };
        let removed = self.removed.remove(&id).unwrap_or_default();
        let Some(before) = self.seen.insert(id, now) else {
            return Ok(());
        };
        let now = &self.seen[&id];
        let others = || members().filter(|member| *member != id);
        for gone in collected(&before.replica, &now.replica, &removed) {
            let needed = gone.needed();
            for member in others().filter(|member| !self.is_excused(*member, id)) {
                let lacks = self.disks.get(&member).map(|disk| disk.lacks(&needed));
                let seen = self.seen.get(&member);
                let defers = seen.is_some_and(|seen| seen.deferred.contains(&gone.change.item.dot));
                let dot = gone.change.item.dot;
                if let Some(Some(lacking)) = lacks {
                    let what = format!(
                        "node {id} forgets what {dot} of {} replaced, and node {member} lacks {lacking}",
                        gone.key
                    );
                    return Err(("collected-early", what));
                }
                if defers || lacks.is_none() {
                    let what = format!(
                        "node {id} forgets what {dot} of {} replaced, and node {member} does not show it",
                        gone.key
                    );
                    return Err(("collected-early", what));
                }
                let siblings = seen.map_or(&[][..], |seen| seen.replica.siblings(&gone.key));
                // A deleted part of a data type is held against what it has observed alone.
                if !is_part(&gone.key)
                    && let Some(hidden) = gone.would_hide(siblings)
                    && !now.replica.context().contains(hidden.item.dot)
                {
                    let what = format!(
                        "node {id} forgets the tombstone {dot} of {}, and node {member} holds {}, which is older and not here",
                        gone.key, hidden.item.dot
                    );
                    return Err(("collected-early", what));
                }
            }
        }
        Ok(())
    }

    /// Whether a member has lost what it had acknowledged and will make that good with `node`.
    fn is_excused(&self, member: NodeId, node: NodeId) -> bool {
        match self.seen.get(&member) {
            Some(seen) => !seen.met.contains(&node),
            None => self.disks.get(&member).is_some_and(Disk::is_blank),
        }
    }

    /// A message is about to leave.
    pub(super) fn send(&mut self, sending: &Sending<'_>) -> Result<(), Broken> {
        let disk = self.disks.entry(sending.from).or_default();
        disk.send(sending.from, sending.incarnation, sending.durable, sending.bytes)
    }

    /// A client's write was acknowledged by a node whose log is written and durable up to there.
    pub(super) fn receipt(
        &self,
        id: NodeId,
        receipt: &Receipt,
        written: LogSeq,
        durable: LogSeq,
    ) -> Result<(), Broken> {
        let disk = self.disks.get(&id);
        disk.map_or(Ok(()), |disk| disk.receipt(id, receipt.op, written, durable))
    }

    /// A node's wall clock shows this. Returns the furthest that it has shown.
    pub(super) fn wall(&mut self, id: NodeId, wall: WallTime) -> u64 {
        let furthest = self.walls.entry(id).or_default();
        *furthest = (*furthest).max(wall.0);
        *furthest
    }

    /// A node shows another state of a key.
    fn changed(&mut self, id: NodeId, gossip: &Gossip, key: &Key) -> Result<(), Broken> {
        let shown = gossip.shown(key);
        let winner = shown.iter().max_by_key(|sibling| sibling.rank());
        // A part of a data type that is removed gives way to what the removal had not seen, which may be older.
        if let Some(winner) = winner.filter(|_| !is_part(key)) {
            let newest = self.shown.entry((id, key.clone())).or_insert(winner.item.stamp);
            if winner.item.stamp < *newest {
                let what = format!(
                    "node {id} shows {key} as of {:?} and had shown it as of {newest:?}",
                    winner.item.stamp
                );
                return Err(("register-monotone", what));
            }
            *newest = winner.item.stamp;
        }
        for sibling in shown {
            let item = &sibling.item;
            let first = item.command();
            let missing = (0..u64::from(item.part.of)).find(|part| {
                let seq = first.seq + part;
                let dot = Dot { seq, ..first };
                !gossip.is_taken(dot) && !self.is_overwritten(dot)
            });
            if let Some(part) = missing {
                let what = format!("node {id} shows {key} of command {first:?} and not its part {part}");
                return Err(("atomicity", what));
            }
        }
        Ok(())
    }

    /// A node logs changes, its own or those of others.
    pub(super) fn appended(&mut self, id: NodeId, bytes: &[u8]) {
        let Ok(record) = codec::decode::<Record>(bytes) else {
            return;
        };
        self.disks.entry(id).or_default().append(&record);
        let items = match record {
            Record::Write { items, .. } | Record::Join { items } | Record::Deferred { items } => items,
            Record::Repair { removed, .. } => return self.removed.entry(id).or_default().extend(removed),
            _ => return,
        };
        for item in items {
            self.keys.insert(item.dot, item.key.clone());
            let of_key = self.changes.entry(item.key.clone()).or_default();
            let spread = item.dot.origin != id;
            of_key.entry(item.dot).or_insert((item, false)).1 |= spread;
        }
    }

    /// A record has got its place in the node's log.
    pub(super) fn placed(&mut self, id: NodeId, seq: LogSeq, bytes: &[u8]) {
        if let Ok(record) = codec::decode::<Record>(bytes) {
            self.disks.entry(id).or_default().place(seq, record);
        }
    }

    /// Whether some change has observed this one.
    fn is_overwritten(&self, dot: Dot) -> bool {
        let of_key = self.keys.get(&dot).and_then(|key| self.changes.get(key));
        let mut items = of_key.into_iter().flat_map(BTreeMap::values);
        items.any(|(item, _)| item.observed.covers(dot))
    }

    /// The cluster has come to rest.
    pub(super) fn end(&self, id: NodeId, gossip: &Gossip) -> Result<(), Broken> {
        // What parts of data types make is known to those who changed them.
        for (key, changes) in self.changes.iter().filter(|(key, _)| !is_part(key)) {
            let spread = || {
                changes
                    .values()
                    .filter(|(_, spread)| *spread)
                    .map(|(item, _)| item)
            };
            let stands = |item: &&Item| !spread().any(|other| other.observed.covers(item.dot));
            let rank = |item: &Item| (item.stamp, item.dot.origin);
            let deletes = spread().filter(stands).filter(|item| item.content.is_none());
            let deleted = deletes.map(rank).max();
            let newer = |item: &&Item| deleted.is_none_or(|deleted| rank(item) > deleted);
            let expected: BTreeSet<&str> = spread()
                .filter(stands)
                .filter(newer)
                .filter_map(|item| std::str::from_utf8(item.content.as_ref()?).ok())
                .collect();
            let values = gossip.replica().values(key);
            let found: BTreeSet<&str> = values
                .iter()
                .filter_map(|entry| std::str::from_utf8(&entry.state.value).ok())
                .collect();
            if found != expected {
                let what = format!("node {id} holds {found:?} of {key}, and all changes make {expected:?}");
                return Err(("siblings", what));
            }
        }
        Ok(())
    }
}
