//! Paxos and CASPaxos (Lamport 1998; Rystsov 2018): promises are durable when they are made and only grow, a ballot
//! carries one value and belongs to one incarnation of its proposer, what is known to be chosen is not forgotten for something
//! older, what was chosen forms a chain, and what was refused for certain is in no part of it.

mod chosen;
mod refused;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use trilemma_core::{Incarnation, Key, NodeId, Reply, Request, Ticket, codec};
use trilemma_paxos::message::{Answer, Ask, Message};
use trilemma_paxos::record::AcceptedRecord;
use trilemma_paxos::register::Proposed;
use trilemma_paxos::{Ballot, Paxos, Record, Register};
use trilemma_storage::LogSeq;

use super::Broken;
use chosen::Chosen;

/// What a restart of a node would find, by its records alone and not by what the node believes.
#[derive(Default)]
struct Stored {
    slots: BTreeMap<Key, KeyState>,
    /// Records that are not durable yet.
    pending: VecDeque<(LogSeq, Record)>,
}

/// What is stored of one key.
#[derive(Default)]
struct KeyState {
    promised: Ballot,
    accepted: Ballot,
    register: Arc<Register>,
}

impl Stored {
    fn found(paxos: &Paxos) -> Self {
        let slot = |held: trilemma_paxos::Held| {
            let (promised, accepted, register) = (held.promised, held.accepted, held.register);
            let slot = KeyState {
                promised,
                accepted,
                register,
            };
            (held.key, slot)
        };
        Self {
            slots: paxos.held().map(slot).collect(),
            pending: VecDeque::new(),
        }
    }

    /// Takes a record of an acceptance; returns the register that it stands for, if that is one of the key's newest.
    fn accept(&mut self, id: NodeId, record: &AcceptedRecord) -> Result<Option<Arc<Register>>, Broken> {
        let slot = self.slots.entry(record.key.clone()).or_default();
        slot.promised = slot.promised.max(record.promised);
        if record.ballot <= slot.accepted {
            return Ok(None);
        }
        let made = record
            .register
            .made_of(slot.accepted, &slot.register, record.ballot);
        let Some(register) = made else {
            let what = format!(
                "node {id} has logged {} of {} as a change of what its log does not hold: {:?} after {}",
                record.ballot, record.key, record.register, slot.accepted
            );
            return Err(("change", what));
        };
        slot.accepted = record.ballot;
        slot.register = Arc::clone(&register);
        Ok(Some(register))
    }
}

/// See the module.
pub(super) struct PaxosInvariants {
    stored: BTreeMap<NodeId, Stored>,
    chosen: Chosen,
    /// The highest ballot of a promise or an acceptance that each node has sent, over all its incarnations.
    sent: BTreeMap<(NodeId, Key), (Ballot, Ballot)>,
    /// The register that each ballot carries.
    values: BTreeMap<(Key, Ballot), Arc<Register>>,
    /// The incarnation in which each ballot was first sent.
    incarnations: BTreeMap<(Key, Ballot), (NodeId, Incarnation)>,
    /// What each node knows to be chosen, in its present incarnation.
    learned: BTreeMap<(NodeId, Key), Ballot>,
    /// Nodes that have lost a disk.
    lost: BTreeSet<NodeId>,
}

impl PaxosInvariants {
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            stored: BTreeMap::new(),
            chosen: Chosen::new(nodes),
            sent: BTreeMap::new(),
            values: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            learned: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    pub(super) fn disk_lost(&mut self, id: NodeId) {
        self.lost.insert(id);
    }

    /// A request comes to a node.
    pub(super) fn asked(&mut self, id: NodeId, ticket: Ticket, request: &Request) {
        self.chosen.refused.ask(id, ticket, request);
    }

    /// A node answers.
    pub(super) fn answered(&mut self, id: NodeId, ticket: Ticket, reply: &Reply) -> Result<(), Broken> {
        self.chosen.refused.answer(id, ticket, reply)
    }

    /// A node starts: it must hold what it has promised.
    pub(super) fn start(&mut self, id: NodeId, paxos: &Paxos) -> Result<(), Broken> {
        self.learned.retain(|(node, _), _| *node != id);
        self.stored.insert(id, Stored::found(paxos));
        if self.lost.contains(&id) {
            return Ok(());
        }
        for held in paxos.held().filter(|held| held.accepted > Ballot::ZERO) {
            self.chosen.hold(id, &held.key, held.accepted, &held.register)?;
        }
        let held: BTreeMap<Key, (Ballot, Ballot)> = paxos
            .held()
            .map(|held| (held.key, (held.promised, held.accepted)))
            .collect();
        for ((_, key), (promised, accepted)) in self.sent.iter().filter(|((node, _), _)| *node == id) {
            let (has_promised, has_accepted) = held.get(key).copied().unwrap_or_default();
            if has_promised < *promised || has_accepted < *accepted {
                let what = format!(
                    "node {id} has sent promise {promised:?} and accept {accepted:?} of {key} and starts with \
                     {has_promised:?} and {has_accepted:?}"
                );
                return Err(("promise-durable", what));
            }
        }
        Ok(())
    }

    /// What a node knows to be chosen does not go back.
    pub(super) fn observe(&mut self, id: NodeId, paxos: &Paxos, durable: LogSeq) -> Result<(), Broken> {
        self.sync(id, durable)?;
        if let Some(contradiction) = paxos.contradiction() {
            return Err(("one-value", format!("node {id}: {contradiction}")));
        }
        for (key, ballot, register) in paxos.learned() {
            let known = self.learned.entry((id, key.clone())).or_default();
            if ballot < *known {
                let what = format!("node {id} knew {key} chosen under {known:?} and goes back to {ballot:?}");
                return Err(("learner-monotone", what));
            }
            if std::mem::replace(known, ballot) != ballot {
                self.chosen.choose(key, ballot, register)?;
            }
        }
        Ok(())
    }

    /// Records of a node up to this one have become durable.
    fn sync(&mut self, id: NodeId, durable: LogSeq) -> Result<(), Broken> {
        // What its first disk held goes on counting, what is on another never does.
        let is_counted = !self.lost.contains(&id);
        let stored = self.stored.entry(id).or_default();
        while let Some((_, record)) = stored.pending.pop_front_if(|(seq, _)| *seq <= durable) {
            for (key, ballot) in record.promised {
                let slot = stored.slots.entry(key).or_default();
                slot.promised = slot.promised.max(ballot);
            }
            for accepted in record.accepted {
                let register = stored.accept(id, &accepted)?;
                if let Some(register) = register.filter(|_| is_counted) {
                    self.chosen.hold(id, &accepted.key, accepted.ballot, &register)?;
                }
            }
        }
        Ok(())
    }

    /// At rest, everybody knows what is chosen: nobody had to ask.
    pub(super) fn rest(&self, id: NodeId, paxos: &Paxos) -> Result<(), Broken> {
        let learned: BTreeMap<&Key, Ballot> = paxos.learned().map(|(key, ballot, _)| (key, ballot)).collect();
        let lacks = |(key, ballot): &(&Key, Ballot)| learned.get(key).is_none_or(|known| known < ballot);
        match self.chosen.newest().find(lacks) {
            Some((key, ballot)) => {
                let known = learned.get(key);
                let what = format!("{key} was chosen under {ballot}, and node {id} knows of {known:?}");
                Err(("rest", what))
            }
            None => Ok(()),
        }
    }

    pub(super) fn placed(&mut self, id: NodeId, seq: LogSeq, bytes: &[u8]) {
        if let Ok(record) = codec::decode::<Record>(bytes) {
            let stored = self.stored.entry(id).or_default();
            stored.pending.push_back((seq, record));
        }
    }

    pub(super) fn send(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        durable: LogSeq,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        match codec::decode::<Message>(bytes) {
            Ok(Message::Asks(asks)) => asks
                .into_iter()
                .try_for_each(|ask| self.ask(from, incarnation, ask)),
            Ok(Message::Answers(answers)) => {
                self.sync(from, durable)?;
                answers
                    .into_iter()
                    .try_for_each(|answer| self.answer(from, answer))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(("codec", format!("node {from} sends bytes that do not decode"))),
        }
    }

    fn ask(&mut self, from: NodeId, incarnation: Incarnation, ask: Ask) -> Result<(), Broken> {
        let (key, ballot) = match &ask {
            Ask::Prepare { key, ballot } | Ask::Accept { key, ballot, .. } => (key, *ballot),
            _ => return Ok(()),
        };
        let first = *self
            .incarnations
            .entry((key.clone(), ballot))
            .or_insert((from, incarnation));
        if first != (from, incarnation) {
            let what =
                format!("{ballot:?} of {key} is sent by node {from} in {incarnation} and was by {first:?}");
            return Err(("ballot-unique", what));
        }
        let Ask::Accept { key, register, .. } = ask else {
            return Ok(());
        };
        let Some(register) = self.made(&key, ballot, &register) else {
            let what = format!("{ballot:?} of {key} changes what no ballot carries, sent by node {from}");
            return Err(("change", what));
        };
        let known = self.values.entry((key.clone(), ballot));
        if *known.or_insert_with(|| Arc::clone(&register)) != register {
            return Err((
                "one-value",
                format!("{ballot:?} of {key} carries two registers, sent by node {from}"),
            ));
        }
        Ok(())
    }

    /// The register that a ballot carries.
    fn made(&self, key: &Key, ballot: Ballot, proposed: &Proposed) -> Option<Arc<Register>> {
        let base = match proposed {
            Proposed::Change(change) => change.base,
            Proposed::Whole(_) => Ballot::ZERO,
        };
        let none = Arc::default();
        let held = match base {
            Ballot::ZERO => &none,
            base => self.values.get(&(key.clone(), base))?,
        };
        proposed.made_of(base, held, ballot)
    }

    /// What an acceptor tells of itself is on its disk at that moment.
    fn answer(&mut self, from: NodeId, answer: Answer) -> Result<(), Broken> {
        let (key, promised, accepted) = match answer {
            Answer::Promise {
                key,
                ballot,
                accepted,
                ..
            } => (key, ballot, accepted),
            Answer::Accepted {
                key,
                ballot,
                promised,
            } => (key, promised, ballot),
            Answer::Held { key, accepted, .. } => (key, Ballot::ZERO, accepted),
            Answer::Refused { .. } | Answer::Lacks { .. } => return Ok(()),
        };
        let stored = self.stored.entry(from).or_default();
        let slot = stored.slots.get(&key);
        let durable = slot.map_or((Ballot::ZERO, Ballot::ZERO), |slot| {
            (slot.promised, slot.accepted)
        });
        if durable.0 < promised || durable.1 < accepted {
            let what = format!(
                "node {from} tells of promise {promised:?} and accept {accepted:?} of {key}, durable are {durable:?}"
            );
            return Err(("promise-durable", what));
        }
        let sent = self.sent.entry((from, key)).or_default();
        *sent = (sent.0.max(promised), sent.1.max(accepted));
        Ok(())
    }
}
