//! What must hold after every event, whatever happens. Each protocol has its own; the common part looks at what every
//! protocol tells the world: answers and changes.

mod gossip;
mod paxos;
mod raft;
mod status;
mod two_phase;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use trilemma_core::{
    Backend, ChangeBatch, Entry, Incarnation, Key, LiveStatus, NodeId, Outcome, Reply, Request, Ticket,
    Value, Version, WallTime, codec,
};
use trilemma_node::Engine;
use trilemma_storage::LogSeq;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::entries;
use crate::scenario::{Protocol, Scenario};

pub(crate) use status::lacks_others;

/// The default of `gossip.accept_drift`, in microseconds.
const ACCEPT_DRIFT_US: u64 = 500_000;

/// A broken rule: its name and what was seen.
pub type Broken = (&'static str, String);

/// The invariants of one keyspace.
#[allow(clippy::large_enum_variant, reason = "there is one for each keyspace")]
enum Special {
    Raft(raft::RaftInvariants),
    Paxos(paxos::PaxosInvariants),
    Gossip(gossip::GossipInvariants),
    TwoPhase(two_phase::TwoPhaseInvariants),
}

impl Special {
    fn backend(&self) -> Backend {
        match self {
            Special::Raft(_) => Backend::Raft,
            Special::Paxos(_) => Backend::Paxos,
            Special::Gossip(_) => Backend::Gossip,
            Special::TwoPhase(_) => Backend::TwoPhase,
        }
    }
}

/// A message that is about to leave.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The incarnation of the sender's process.
    pub incarnation: Incarnation,
    /// The keyspace.
    pub slot: usize,
    /// The sender's instance.
    pub engine: &'a Engine,
    /// How far the sender's log is durable.
    pub durable: LogSeq,
    /// The message.
    pub bytes: &'a [u8],
}

/// What the world knows of one keyspace on one node.
#[derive(Default)]
struct Mirror {
    entries: BTreeMap<Key, (Value, Version)>,
    position: u64,
}

/// Watches a cluster over its whole run.
pub struct Invariants {
    special: Vec<Special>,
    /// The one history of a keyspace whose changes have the same positions everywhere.
    changes: Vec<Option<BTreeMap<u64, u64>>>,
    mirrors: BTreeMap<(NodeId, usize), Mirror>,
    /// Records that have no place in their node's log yet.
    waiting: BTreeMap<(NodeId, usize), VecDeque<Bytes>>,
    answered: BTreeSet<(NodeId, Ticket)>,
    statuses: status::Statuses,
    /// Whether a turn takes one input.
    turns_are_whole: bool,
}

fn mirror_of(entries: Vec<Entry>) -> BTreeMap<Key, (Value, Version)> {
    entries
        .into_iter()
        .map(|entry| (entry.key, (entry.state.value, entry.state.modified)))
        .collect()
}

impl Invariants {
    /// Watches the keyspaces of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let parts = scenario.protocol.parts();
        let special = |part: &Protocol| match part {
            Protocol::Raft | Protocol::Mixed => Special::Raft(raft::RaftInvariants::new(scenario.nodes)),
            Protocol::Paxos => Special::Paxos(paxos::PaxosInvariants::new(scenario.nodes)),
            Protocol::Gossip => {
                let drift = scenario.knobs.get("gossip.accept_drift").copied();
                Special::Gossip(gossip::GossipInvariants::new(
                    drift.unwrap_or(ACCEPT_DRIFT_US) / 1000,
                ))
            }
            Protocol::TwoPhase => Special::TwoPhase(two_phase::TwoPhaseInvariants::default()),
        };
        let shared =
            |part: &Protocol| matches!(part, Protocol::Raft | Protocol::TwoPhase).then(BTreeMap::new);
        Self {
            special: parts.iter().map(special).collect(),
            changes: parts.iter().map(shared).collect(),
            mirrors: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            statuses: status::Statuses::new(scenario.nodes),
            turns_are_whole: scenario.turn == 0,
        }
    }

    /// A node has loaded its state, of which `last` was the last record, and not yet started.
    pub fn start(&mut self, id: NodeId, slot: usize, engine: &Engine, last: LogSeq) -> Result<(), Broken> {
        let mirror = Mirror {
            entries: mirror_of(entries(engine)),
            position: 0,
        };
        self.mirrors.insert((id, slot), mirror);
        self.waiting.remove(&(id, slot));
        match (&mut self.special[slot], engine) {
            (Special::Raft(raft), Engine::Raft(host)) => raft.start(id, host.protocol()),
            (Special::Paxos(paxos), Engine::Paxos(host)) => paxos.start(id, host.protocol()),
            (Special::Gossip(gossip), Engine::Gossip(host)) => {
                gossip.start(id, host.protocol(), last);
                Ok(())
            }
            (Special::TwoPhase(two_phase), Engine::TwoPhase(_)) => {
                two_phase.start(id, last);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A node has died, whose log was durable up to there.
    pub fn crashed(&mut self, id: NodeId, durable: LogSeq) {
        self.statuses.crashed(id);
        for special in &mut self.special {
            match special {
                Special::Raft(raft) => raft.crashed(id, durable),
                Special::Gossip(gossip) => gossip.crashed(id, durable),
                Special::Paxos(_) | Special::TwoPhase(_) => {}
            }
        }
    }

    /// A node that has died has lost its disk.
    pub fn disk_lost(&mut self, id: NodeId) {
        for special in &mut self.special {
            match special {
                Special::Raft(raft) => raft.disk_lost(id),
                Special::Paxos(paxos) => paxos.disk_lost(id),
                Special::TwoPhase(two_phase) => two_phase.disk_lost(id),
                Special::Gossip(gossip) => gossip.disk_lost(id),
            }
        }
    }

    /// A start has broken off in the middle: what it wrote may stand where records were of which nobody knows whether
    /// they are lost.
    pub fn start_failed(&mut self, id: NodeId) {
        for special in &mut self.special {
            if let Special::TwoPhase(two_phase) = special {
                two_phase.start_failed(id);
            }
        }
    }

    /// A node's wall clock has jumped; this is the later of what it showed before and after.
    pub fn jumped(&mut self, id: NodeId, wall: WallTime) {
        for special in &mut self.special {
            if let Special::Gossip(gossip) = special {
                gossip.wall(id, wall);
            }
        }
    }

    /// A node, whose log is durable up to there, has ended a turn.
    #[allow(clippy::too_many_arguments, reason = "all that one turn has shown")]
    pub fn observe(
        &mut self,
        id: NodeId,
        slot: usize,
        engine: &Engine,
        wall: WallTime,
        durable: LogSeq,
        reset: Option<u64>,
        applied: &[ChangeBatch],
    ) -> Result<(), Broken> {
        self.mirror(id, slot, engine, reset, applied)?;
        match (&mut self.special[slot], engine) {
            (Special::Raft(raft), Engine::Raft(host)) => raft.observe(id, host.protocol(), durable, reset),
            (Special::Paxos(paxos), Engine::Paxos(host)) => paxos.observe(id, host.protocol(), durable),
            (Special::Gossip(gossip), Engine::Gossip(host)) => {
                gossip.observe(id, host.protocol(), wall, durable, applied)
            }
            (Special::TwoPhase(two_phase), Engine::TwoPhase(host)) => two_phase.observe(id, host.protocol()),
            _ => Ok(()),
        }
    }

    /// What a node lacks that a cluster at rest has, though nobody asked for it.
    pub fn rest(&self, id: NodeId, slot: usize, engine: &Engine) -> Result<(), Broken> {
        match (&self.special[slot], engine) {
            (Special::Raft(_), Engine::Raft(host)) => raft::rest(id, host.protocol()),
            (Special::Paxos(paxos), Engine::Paxos(host)) => paxos.rest(id, host.protocol()),
            (Special::TwoPhase(_), Engine::TwoPhase(host)) => two_phase::rest(id, host.protocol()),
            _ => Ok(()),
        }
    }

    /// The cluster has come to rest, and no disk was ever lost.
    pub fn end(&self, id: NodeId, slot: usize, engine: &Engine) -> Result<(), Broken> {
        match (&self.special[slot], engine) {
            (Special::Gossip(gossip), Engine::Gossip(host)) => gossip.end(id, host.protocol()),
            _ => Ok(()),
        }
    }

    /// Changes come in order, are the same on all nodes, and make exactly what the node shows.
    fn mirror(
        &mut self,
        id: NodeId,
        slot: usize,
        engine: &Engine,
        reset: Option<u64>,
        applied: &[ChangeBatch],
    ) -> Result<(), Broken> {
        if reset.is_none() && applied.is_empty() {
            return Ok(());
        }
        let mirror = self.mirrors.entry((id, slot)).or_default();
        if let Some(position) = reset {
            mirror.position = position;
            mirror.entries = mirror_of(entries(engine));
        }
        for one in applied {
            if one.position <= mirror.position && mirror.position > 0 {
                let what = format!(
                    "node {id} tells of position {} after {}",
                    one.position, mirror.position
                );
                return Err(("watch-order", what));
            }
            mirror.position = one.position;
            if let Some(changes) = &mut self.changes[slot] {
                let digest = xxh3_64(&codec::encode(one));
                if *changes.entry(one.position).or_insert(digest) != digest {
                    let what = format!(
                        "node {id} has applied something else at position {}: {one:?}",
                        one.position
                    );
                    return Err(("state-machine-safety", what));
                }
            }
            if reset.is_some() {
                continue;
            }
            for change in &one.changes {
                match &change.now {
                    Some(now) => {
                        mirror
                            .entries
                            .insert(change.key.clone(), (now.value.clone(), now.modified));
                    }
                    None => {
                        mirror.entries.remove(&change.key);
                    }
                }
            }
        }
        let shown = mirror_of(entries(engine));
        if shown != mirror.entries {
            let what = format!(
                "node {id} has published changes that make {:?} and shows {shown:?}",
                mirror.entries
            );
            return Err(("watch-content", what));
        }
        Ok(())
    }

    /// A node has appended a record, which has no place in its log yet.
    pub fn appended(&mut self, id: NodeId, slot: usize, bytes: &Bytes) {
        let waiting = self.waiting.entry((id, slot)).or_default();
        waiting.push_back(bytes.clone());
        if let Special::Gossip(gossip) = &mut self.special[slot] {
            gossip.appended(id, bytes);
        }
    }

    /// The first record that had no place in the node's log has got this one.
    pub fn placed(&mut self, id: NodeId, slot: usize, seq: LogSeq) {
        let waiting = self.waiting.entry((id, slot)).or_default();
        let bytes = &waiting.pop_front().expect("what gets a place was appended")[..];
        match &mut self.special[slot] {
            Special::Raft(raft) => raft.placed(id, seq, bytes),
            Special::Gossip(gossip) => gossip.placed(id, seq, bytes),
            Special::TwoPhase(two_phase) => two_phase.placed(id, seq, bytes),
            Special::Paxos(paxos) => paxos.placed(id, seq, bytes),
        }
    }

    /// A message is about to leave a node whose log is durable up to `durable`.
    pub fn send(&mut self, sending: &Sending<'_>) -> Result<(), Broken> {
        let Sending {
            from,
            to,
            incarnation,
            durable,
            bytes,
            ..
        } = *sending;
        match (&mut self.special[sending.slot], sending.engine) {
            (Special::Raft(raft), Engine::Raft(host)) => raft.send(from, to, host.protocol(), durable, bytes),
            (Special::Paxos(paxos), _) => paxos.send(from, incarnation, durable, bytes),
            (Special::Gossip(gossip), _) => gossip.send(sending),
            (Special::TwoPhase(two_phase), Engine::TwoPhase(host)) => {
                two_phase.send(from, host.protocol().decided().0, durable, bytes)
            }
            _ => Ok(()),
        }
    }

    /// A request comes to a node that says this of itself, at this time.
    pub fn asked(
        &mut self,
        id: NodeId,
        slot: usize,
        ticket: Ticket,
        request: &Request,
        status: (&LiveStatus, u64),
    ) -> Result<(), Broken> {
        if let Special::Paxos(paxos) = &mut self.special[slot] {
            paxos.asked(id, ticket, request);
        }
        let is_write = !matches!(request, Request::Read(_));
        self.statuses.asked((id, slot), ticket, is_write, status)
    }

    /// A request was answered by a node whose log is written and durable up to there, and which says this of itself if it
    /// still runs.
    pub fn answered(
        &mut self,
        id: NodeId,
        slot: usize,
        ticket: Ticket,
        reply: &Reply,
        (written, durable): (LogSeq, LogSeq),
        status: Option<(&LiveStatus, u64)>,
    ) -> Result<(), Broken> {
        if let Some((status, now)) = status {
            let backend = self.special[slot].backend();
            let status = (status, now, self.turns_are_whole);
            self.statuses
                .answered((id, slot), backend, ticket, reply, status)?;
        }
        if !self.answered.insert((id, ticket)) {
            return Err(("one-answer", format!("node {id} has answered {ticket} twice")));
        }
        match (&mut self.special[slot], reply) {
            (Special::Raft(raft), Reply::Write(Ok(receipt))) => raft.receipt(receipt),
            (
                Special::Gossip(gossip),
                Reply::Write(Ok(receipt)) | Reply::Outcome(Ok(Outcome::Applied(receipt))),
            ) => gossip.receipt(id, receipt, written, durable),
            (Special::Paxos(paxos), reply) => paxos.answered(id, ticket, reply),
            _ => Ok(()),
        }
    }
}
