//! Paxos and CASPaxos (Lamport 1998; Rystsov 2018): promises are durable and only grow, a ballot carries one value and
//! belongs to one incarnation of its proposer, and what is known to be chosen is not forgotten for something older.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Incarnation, Key, NodeId, codec};
use trilemma_paxos::message::{Answer, Ask, Message};
use trilemma_paxos::{Ballot, Paxos};
use xxhash_rust::xxh3::xxh3_64;

use super::Broken;

/// See the module.
#[derive(Default)]
pub(super) struct PaxosInvariants {
    /// The highest ballot of a promise or an acceptance that each node has sent, over all its incarnations.
    sent: BTreeMap<(NodeId, Key), (Ballot, Ballot)>,
    /// The register that each ballot carries.
    values: BTreeMap<(Key, Ballot), u64>,
    /// The incarnation in which each ballot was first sent.
    incarnations: BTreeMap<(Key, Ballot), (NodeId, Incarnation)>,
    /// What each node knows to be chosen, in its present incarnation.
    learned: BTreeMap<(NodeId, Key), Ballot>,
    /// Nodes that have lost a disk.
    lost: BTreeSet<NodeId>,
}

impl PaxosInvariants {
    pub(super) fn disk_lost(&mut self, id: NodeId) {
        self.lost.insert(id);
    }

    /// A node starts: it must hold what it has promised.
    pub(super) fn start(&mut self, id: NodeId, paxos: &Paxos) -> Result<(), Broken> {
        self.learned.retain(|(node, _), _| *node != id);
        if self.lost.contains(&id) {
            return Ok(());
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
    pub(super) fn observe(&mut self, id: NodeId, paxos: &Paxos) -> Result<(), Broken> {
        for (key, ballot, _) in paxos.learned() {
            let known = self.learned.entry((id, key.clone())).or_default();
            if ballot < *known {
                let what = format!("node {id} knew {key} chosen under {known:?} and goes back to {ballot:?}");
                return Err(("learner-monotone", what));
            }
            *known = ballot;
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        match codec::decode::<Message>(bytes) {
            Ok(Message::Asks(asks)) => asks
                .into_iter()
                .try_for_each(|ask| self.ask(from, incarnation, ask)),
            Ok(Message::Answers(answers)) => {
                answers.into_iter().for_each(|answer| self.answer(from, answer));
                Ok(())
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
        let digest = xxh3_64(&codec::encode(&*register));
        if *self.values.entry((key.clone(), ballot)).or_insert(digest) != digest {
            return Err((
                "one-value",
                format!("{ballot:?} of {key} carries two registers, sent by node {from}"),
            ));
        }
        Ok(())
    }

    fn answer(&mut self, from: NodeId, answer: Answer) {
        let (key, promised, accepted) = match answer {
            Answer::Promise { key, ballot, .. } => (key, ballot, Ballot::ZERO),
            Answer::Accepted {
                key,
                ballot,
                promised,
            } => (key, promised, ballot),
            Answer::Held { key, accepted, .. } => (key, Ballot::ZERO, accepted),
            Answer::Refused { .. } => return,
        };
        let sent = self.sent.entry((from, key)).or_default();
        *sent = (sent.0.max(promised), sent.1.max(accepted));
    }
}
