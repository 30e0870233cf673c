//! Raft's five properties (Ongaro and Ousterhout 2014, figure 3), and that promises are durable before they are made.

use std::collections::{BTreeMap, VecDeque};

use trilemma_consensus::raft::{AppendResult, Index, Message, Raft, Record, Term};
use trilemma_core::{NodeId, Receipt, codec};
use trilemma_storage::LogSeq;
use xxhash_rust::xxh3::xxh3_64;

use super::Broken;

/// What is known of one node in its present life.
#[derive(Default)]
struct Seen {
    term: Term,
    commit: Index,
    led: Option<Term>,
    /// The furthest that its log was durable.
    durable: Index,
    /// The last position that it has reached by a state of the leader.
    installed: u64,
    /// The newest term and vote that are durable, and those that are not yet.
    hard: (Term, Option<NodeId>),
    pending: VecDeque<(LogSeq, Term, Option<NodeId>)>,
}

/// See the module.
pub(super) struct RaftInvariants {
    nodes: u32,
    /// Who was seen to lead each term.
    leaders: BTreeMap<Term, NodeId>,
    /// To whom each node has given its vote, over all its lives.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// The one committed log: term and digest of each entry.
    committed: BTreeMap<Index, (Term, u64)>,
    /// The term in which each was seen to be committed first: an entry of an old term may be committed in a later one.
    committed_in: BTreeMap<Index, Term>,
    /// The highest term in which each node has made a promise.
    promised: BTreeMap<NodeId, Term>,
    seen: BTreeMap<NodeId, Seen>,
    /// How far each node's log is durable, as last seen; of a dead one, as it was then.
    durable: BTreeMap<NodeId, Index>,
}

impl RaftInvariants {
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            nodes,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
            promised: BTreeMap::new(),
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
        }
    }

    pub(super) fn crashed(&mut self, id: NodeId) {
        self.seen.remove(&id);
    }

    pub(super) fn start(&mut self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        let promised = self.promised.get(&id).copied().unwrap_or_default();
        if raft.term() < promised {
            let what = format!(
                "node {id} has made a promise in {promised:?} and starts in {:?}",
                raft.term()
            );
            return Err(("term-durability", what));
        }
        let seen = Seen {
            term: raft.term(),
            commit: raft.commit(),
            led: None,
            durable: raft.durable(),
            installed: 0,
            hard: (raft.term(), raft.vote()),
            pending: VecDeque::new(),
        };
        self.seen.insert(id, seen);
        Ok(())
    }

    pub(super) fn observe(&mut self, id: NodeId, raft: &Raft, reset: Option<u64>) -> Result<(), Broken> {
        // What was durable stays on the disk, even if a state is about to take its place.
        let durable = self.durable.entry(id).or_default();
        *durable = (*durable).max(raft.durable());
        let seen = self.seen.entry(id).or_default();
        seen.durable = seen.durable.max(raft.durable());
        if raft.term() < seen.term {
            let what = format!("node {id} goes back from {:?} to {:?}", seen.term, raft.term());
            return Err(("term-monotone", what));
        }
        seen.term = raft.term();
        let applied = raft.table().version().0;
        // A state that a leader sent is shown at once: only local reads see it, which promise nothing after a crash.
        seen.installed = reset.map_or(seen.installed, |position| seen.installed.max(position));
        if applied > raft.durable().0 && applied > seen.installed {
            let what = format!(
                "node {id} shows {applied} and its log is durable up to {:?}",
                raft.durable()
            );
            return Err(("applied-durable", what));
        }
        let (from, to) = (seen.commit, raft.commit());
        if to < from {
            return Err((
                "commit-monotone",
                format!("node {id} commits {to:?} after {from:?}"),
            ));
        }
        seen.commit = to;
        let is_new_leader = raft.is_leader() && seen.led != Some(raft.term());
        if is_new_leader {
            seen.led = Some(raft.term());
        }
        if to > from {
            self.commit(id, raft, from, to)?;
        }
        if is_new_leader {
            self.lead(id, raft)
        } else {
            Ok(())
        }
    }

    /// State machine safety: all nodes commit the same entry at an index.
    fn commit(&mut self, id: NodeId, raft: &Raft, from: Index, to: Index) -> Result<(), Broken> {
        if to > raft.log_end().index {
            return Err((
                "commit-bound",
                format!(
                    "node {id} commits {to:?} and its log ends at {:?}",
                    raft.log_end()
                ),
            ));
        }
        for index in from.0 + 1..=to.0 {
            let index = Index(index);
            // Gone from the log: it came with a state.
            let Some(entry) = raft.entry(index) else { continue };
            let digest = (entry.term, xxh3_64(&codec::encode(entry)));
            self.committed_in.entry(index).or_insert(raft.term());
            let known = *self.committed.entry(index).or_insert(digest);
            if known != digest {
                let what = format!(
                    "node {id} commits an entry of {:?} at {index:?}, where one of {:?} was committed",
                    entry.term, known.0
                );
                return Err(("state-machine-safety", what));
            }
        }
        Ok(())
    }

    /// Election safety and leader completeness.
    fn lead(&mut self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        let term = raft.term();
        let leader = *self.leaders.entry(term).or_insert(id);
        if leader != id {
            let what = format!(
                "nodes {leader} and {id} both lead {term:?} ({} nodes)",
                self.nodes
            );
            return Err(("election-safety", what));
        }
        // What later leaders have committed meanwhile says nothing about this one.
        let earlier = |index: &Index| {
            self.committed_in
                .get(index)
                .is_some_and(|committed_in| *committed_in < term)
        };
        let Some(last) = self.committed.keys().rev().find(|index| earlier(index)) else {
            return Ok(());
        };
        if raft.log_end().index < *last {
            let end = raft.log_end();
            let what =
                format!("node {id} leads {term:?} with a log up to {end:?}; {last:?} was committed before");
            return Err(("leader-completeness", what));
        }
        for (index, (entry_term, _)) in self.committed.iter().filter(|(index, _)| earlier(index)) {
            if let Some(entry) = raft.entry(*index)
                && entry.term != *entry_term
            {
                let what = format!(
                    "node {id} leads {term:?} without the committed entry {index:?} of {entry_term:?}"
                );
                return Err(("leader-completeness", what));
            }
        }
        Ok(())
    }

    pub(super) fn appended(&mut self, id: NodeId, seq: LogSeq, bytes: &[u8]) {
        if let Ok(Record::HardState { term, vote }) = codec::decode::<Record>(bytes) {
            self.seen
                .entry(id)
                .or_default()
                .pending
                .push_back((seq, term, vote));
        }
    }

    /// The term and vote that a restart of this node would find.
    fn hard_state(&mut self, id: NodeId, durable: LogSeq) -> (Term, Option<NodeId>) {
        let seen = self.seen.entry(id).or_default();
        while let Some((seq, term, vote)) = seen.pending.front().copied()
            && seq <= durable
        {
            seen.hard = (term, vote);
            seen.pending.pop_front();
        }
        seen.hard
    }

    /// Promises: a vote is given once in a term, an acknowledged entry is durable, and so is the term.
    pub(super) fn send(
        &mut self,
        from: NodeId,
        to: NodeId,
        raft: &Raft,
        durable: LogSeq,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let Ok(message) = codec::decode::<Message>(bytes) else {
            return Err(("codec", format!("node {from} sends bytes that do not decode")));
        };
        let (term, vote) = match message {
            Message::VoteReply { term, granted: true } => (term, Some(to)),
            Message::Vote { term, .. } => (term, Some(from)),
            Message::AppendReply {
                term,
                result: AppendResult::Matched(index),
                ..
            } => {
                // What was durable stays on the disk, even if a state is about to take its place.
                let durable = self.seen.get(&from).map_or(Index(0), |seen| seen.durable);
                // So does what a later leader has meanwhile replaced; the old one learns of it by an old term.
                if term == raft.term() && index > raft.durable().max(durable).max(raft.commit()) {
                    let what = format!(
                        "node {from} acknowledges {index:?} and {:?} is durable",
                        raft.durable()
                    );
                    return Err(("ack-durable", what));
                }
                (term, None)
            }
            _ => return Ok(()),
        };
        let promised = self.promised.entry(from).or_default();
        *promised = (*promised).max(term);
        let hard = self.hard_state(from, durable);
        if hard.0 < term || (hard.0 == term && vote.is_some() && hard.1 != vote) {
            let what =
                format!("node {from} makes a promise in {term:?} (vote {vote:?}), durable are {hard:?}");
            return Err(("promise-durable", what));
        }
        if let Some(vote) = vote {
            let voted = *self.votes.entry((from, term)).or_insert(vote);
            if voted != vote {
                return Err((
                    "one-vote",
                    format!("node {from} votes for {vote} and {voted} in {term:?}"),
                ));
            }
        }
        Ok(())
    }

    /// A receipt names only nodes that hold the write durably.
    pub(super) fn receipt(&self, receipt: &Receipt) -> Result<(), Broken> {
        let lacks = |node: &NodeId| {
            self.durable
                .get(node)
                .is_none_or(|durable| durable.0 < receipt.version.0)
        };
        match receipt.durable_on.iter().find(lacks) {
            Some(node) => {
                let what = format!(
                    "a receipt for {} says that node {node} holds it, whose log is durable up to {:?}",
                    receipt.version,
                    self.durable.get(&node)
                );
                Err(("receipt", what))
            }
            None => Ok(()),
        }
    }
}
