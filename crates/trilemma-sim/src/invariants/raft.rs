//! Raft's five properties (Ongaro and Ousterhout 2014, figure 3), and that promises are durable before they are made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trilemma_core::{NodeId, Receipt, codec};
use trilemma_raft::{AppendResult, Index, Message, Raft, Record, Term};
use trilemma_storage::LogSeq;
use xxhash_rust::xxh3::xxh3_64;

use super::Broken;

/// What a restart of a node would find, by its records alone and not by what the node believes.
#[derive(Default)]
struct Stored {
    /// The last entry that a snapshot reflects, and the terms of those behind it.
    snapshot: Index,
    terms: BTreeMap<Index, Term>,
    /// Records that are not durable yet.
    pending: VecDeque<(LogSeq, Record)>,
}

impl Stored {
    fn found(raft: &Raft) -> Self {
        let mut stored = Self::default();
        for index in (1..=raft.log_end().index.0).map(Index) {
            match raft.entry(index) {
                Some(entry) => drop(stored.terms.insert(index, entry.term)),
                None => stored.snapshot = index,
            }
        }
        stored
    }

    /// Records up to this one have become durable.
    fn sync(&mut self, durable: LogSeq) {
        while let Some((_, record)) = self.pending.pop_front_if(|(seq, _)| *seq <= durable) {
            match record {
                Record::Entries { first, entries } => {
                    self.terms.split_off(&first);
                    let indices = (first.0..).map(Index);
                    self.terms
                        .extend(indices.zip(entries.iter().map(|entry| entry.term)));
                }
                Record::SnapshotEnd { at } => {
                    let behind = self.terms.split_off(&at.index);
                    let goes_on = behind.get(&at.index) == Some(&at.term);
                    self.terms = if goes_on { behind } else { BTreeMap::new() };
                    self.snapshot = self.snapshot.max(at.index);
                }
                Record::HardState { .. } | Record::SnapshotPart(_) => {}
            }
        }
    }

    fn last(&self) -> Index {
        let last = self.terms.last_key_value().map(|(index, _)| *index);
        last.unwrap_or_default().max(self.snapshot)
    }

    fn holds(&self, index: Index, term: Term) -> bool {
        index <= self.snapshot || self.terms.get(&index) == Some(&term)
    }
}

/// At rest the whole log is committed, durable and applied on every node.
pub(super) fn rest(id: NodeId, raft: &Raft) -> Result<(), Broken> {
    let (last, applied) = (raft.log_end().index, raft.table().version().0);
    if raft.commit() == last && raft.durable() == last && applied == last.0 {
        return Ok(());
    }
    let what = format!(
        "the log of node {id} ends at {last:?}; committed is {:?}, durable {:?}, applied {applied}",
        raft.commit(),
        raft.durable()
    );
    Err(("rest", what))
}

/// What is known of one node in its present incarnation.
#[derive(Default)]
struct Seen {
    term: Term,
    commit: Index,
    led: Option<Term>,
    /// The furthest that its log was durable.
    durable: Index,
    /// The last position that it has reached by a state of the leader.
    installed: u64,
    /// The position of the state that was compared last.
    compared: u64,
    /// The newest term and vote that are durable, and those that are not yet.
    hard: (Term, Option<NodeId>),
    pending: VecDeque<(LogSeq, Term, Option<NodeId>)>,
}

/// See the module.
pub(super) struct RaftInvariants {
    nodes: u32,
    /// Digests of the one state at each position.
    states: BTreeMap<u64, u64>,
    /// Who was seen to lead each term.
    leaders: BTreeMap<Term, NodeId>,
    /// To whom each node has given its vote, over all its incarnations.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// The one committed log: term and digest of each entry.
    committed: BTreeMap<Index, (Term, u64)>,
    /// The term in which each was seen to be committed first: an entry of an old term may be committed in a later one.
    committed_in: BTreeMap<Index, Term>,
    /// The highest term in which each node has made a promise.
    promised: BTreeMap<NodeId, Term>,
    seen: BTreeMap<NodeId, Seen>,
    stored: BTreeMap<NodeId, Stored>,
    /// The log of the leader of each term, as far as it was seen: the term of each entry.
    logs: BTreeMap<Term, BTreeMap<Index, Term>>,
    /// The newest read round that each term's leader has asked for, and that each node has echoed in it.
    asked: BTreeMap<Term, u64>,
    echoed: BTreeMap<(Term, NodeId), u64>,
    /// How far each node's log is durable, as last seen; of a dead one, as it was then.
    durable: BTreeMap<NodeId, Index>,
    /// Nodes that have lost a disk. What was on it stays in `stored`: others had counted on it, and count nothing of
    /// what is on another.
    lost: BTreeSet<NodeId>,
}

impl RaftInvariants {
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            nodes,
            states: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
            promised: BTreeMap::new(),
            seen: BTreeMap::new(),
            stored: BTreeMap::new(),
            logs: BTreeMap::new(),
            asked: BTreeMap::new(),
            echoed: BTreeMap::new(),
            durable: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    pub(super) fn disk_lost(&mut self, id: NodeId) {
        self.lost.insert(id);
    }

    pub(super) fn crashed(&mut self, id: NodeId, durable: LogSeq) {
        self.seen.remove(&id);
        if self.lost.contains(&id) {
            return;
        }
        let stored = self.stored.entry(id).or_default();
        stored.sync(durable);
        stored.pending.clear();
    }

    pub(super) fn start(&mut self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        if self.lost.contains(&id) {
            return Ok(());
        }
        self.stored.insert(id, Stored::found(raft));
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
            compared: 0,
            hard: (raft.term(), raft.vote()),
            pending: VecDeque::new(),
        };
        self.seen.insert(id, seen);
        self.same_state(id, raft)
    }

    /// All nodes have the same state at a position, whether they applied their way to it, were sent it or found it on
    /// their disks.
    fn same_state(&mut self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        let position = raft.table().version().0;
        let seen = self.seen.entry(id).or_default();
        if std::mem::replace(&mut seen.compared, position) == position {
            return Ok(());
        }
        let digest = raft.table().digest();
        if *self.states.entry(position).or_insert(digest) == digest {
            return Ok(());
        }
        let what = format!("node {id} has another state at {position} than was seen there before");
        Err(("state-machine-safety", what))
    }

    pub(super) fn observe(
        &mut self,
        id: NodeId,
        raft: &Raft,
        durable: LogSeq,
        reset: Option<u64>,
    ) -> Result<(), Broken> {
        if self.lost.contains(&id) {
            return Ok(());
        }
        self.same_state(id, raft)?;
        let stored = self.stored.entry(id).or_default();
        stored.sync(durable);
        let furthest = self.durable.entry(id).or_default();
        *furthest = (*furthest).max(stored.last());
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
        // Nothing rests on it alone, since logs become durable in order; but what it says is to be true.
        let believed = raft.durable();
        if let Some(entry) = raft.entry(believed)
            && !stored.holds(believed, entry.term)
        {
            let what = format!(
                "node {id} takes its log for durable up to {believed:?} of {:?}, where its disk has {:?}",
                entry.term,
                stored.terms.get(&believed)
            );
            return Err(("believed-durable", what));
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
            if raft.is_leader() {
                self.is_on_a_majority(id, raft, to)?;
            }
        }
        self.matches(id, raft)?;
        if raft.is_leader() {
            self.leads(id, raft)?;
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

    /// A leader's log only grows; and a round that it believes confirmed was echoed by a majority, itself included.
    fn leads(&mut self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        let term = raft.term();
        let log = self.logs.entry(term).or_default();
        let known = log.last_key_value().map_or(0, |(last, _)| last.0);
        for index in (known + 1..=raft.log_end().index.0).map(Index) {
            if let Some(entry) = raft.entry(index) {
                log.insert(index, entry.term);
            }
        }
        let confirmed = raft.confirmed_round().unwrap_or_default();
        let echoes = self.echoed.range((term, NodeId(0))..=(term, NodeId(u32::MAX)));
        let echoes = echoes.filter(|(_, round)| **round >= confirmed).count();
        if confirmed == 0 || (echoes + 1) * 2 > self.nodes as usize {
            return Ok(());
        }
        let what = format!(
            "node {id} believes round {confirmed} of {term:?} confirmed, which {echoes} others of {} have echoed",
            self.nodes
        );
        Err(("round", what))
    }

    /// What a node says that it has of the log of its term's leader is what that leader has.
    fn has_leaders_log(&self, id: NodeId, raft: &Raft, up_to: Index) -> Result<(), Broken> {
        let Some(log) = self.logs.get(&raft.term()) else {
            return Ok(());
        };
        // What is committed is compared elsewhere.
        let differs =
            |(index, term): &(&Index, &Term)| raft.entry(**index).is_some_and(|entry| entry.term != **term);
        let acknowledged = raft.commit().next()..=up_to.max(raft.commit().next());
        let mut acknowledged = log.range(acknowledged).filter(|(index, _)| **index <= up_to);
        let Some((index, term)) = acknowledged.find(differs) else {
            return Ok(());
        };
        let what = format!(
            "node {id} acknowledges the leader's log of {:?} up to {up_to:?}; at {index:?} the leader has an entry of \
             {term:?}, this node one of {:?}",
            raft.term(),
            raft.entry(*index).map(|entry| entry.term)
        );
        Err(("ack-match", what))
    }

    /// A read round of this term was asked for, or echoed.
    fn round(&mut self, from: NodeId, message: &Message) -> Result<(), Broken> {
        match *message {
            Message::Append { term, round, .. } | Message::Snapshot { term, round, .. } => {
                let asked = self.asked.entry(term).or_default();
                *asked = (*asked).max(round);
            }
            Message::AppendReply { term, round, .. } | Message::SnapshotReply { term, round, .. } => {
                let asked = self.asked.get(&term).copied().unwrap_or_default();
                if round > asked {
                    let what = format!(
                        "node {from} echoes round {round} in {term:?}, in which {asked} was the last asked for"
                    );
                    return Err(("round", what));
                }
                let echoed = self.echoed.entry((term, from)).or_default();
                *echoed = (*echoed).max(round);
            }
            _ => {}
        }
        Ok(())
    }

    /// What a leader believes of another's disk is there.
    fn matches(&self, id: NodeId, raft: &Raft) -> Result<(), Broken> {
        for (voter, stored) in &self.stored {
            let Some(matched) = raft.matched(*voter) else {
                continue;
            };
            // A voter that has gone on to a later term may have replaced what it acknowledged.
            if self.seen.get(voter).is_none_or(|seen| seen.term > raft.term()) {
                continue;
            }
            let term = raft.entry(matched).map(|entry| entry.term);
            if term.is_some_and(|term| !stored.holds(matched, term)) {
                let what = format!(
                    "node {id} believes that node {voter} has its log up to {matched:?}, which has {:?}",
                    stored.terms.range(matched..).next()
                );
                return Err(("match", what));
            }
        }
        Ok(())
    }

    /// A leader commits what a majority would find after a restart.
    fn is_on_a_majority(&self, id: NodeId, raft: &Raft, index: Index) -> Result<(), Broken> {
        let Some(term) = raft.entry(index).map(|entry| entry.term) else {
            return Ok(());
        };
        let holders = self.stored.iter().filter(|(_, stored)| stored.holds(index, term));
        let holders: Vec<NodeId> = holders.map(|(holder, _)| *holder).collect();
        if holders.len() * 2 > self.nodes as usize {
            return Ok(());
        }
        let what =
            format!("node {id} commits {index:?} of {term:?}, which is on the disks of {holders:?} alone");
        Err(("commit-durable", what))
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

    pub(super) fn placed(&mut self, id: NodeId, seq: LogSeq, bytes: &[u8]) {
        if self.lost.contains(&id) {
            return;
        }
        let Ok(record) = codec::decode::<Record>(bytes) else {
            return;
        };
        if let Record::HardState { term, vote } = record {
            let seen = self.seen.entry(id).or_default();
            seen.pending.push_back((seq, term, vote));
        } else {
            let stored = self.stored.entry(id).or_default();
            stored.pending.push_back((seq, record));
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
        self.round(from, &message)?;
        if self.lost.contains(&from) {
            return Ok(());
        }
        let (term, vote) = match message {
            Message::VoteReply { term, granted: true } => (term, Some(to)),
            Message::Vote { term, .. } => (term, Some(from)),
            Message::AppendReply {
                term,
                result: AppendResult::Matched(index),
                ..
            } => {
                let stored = self.stored.entry(from).or_default();
                stored.sync(durable);
                // A later leader may have replaced it meanwhile; the old one learns of that by its old term.
                if term == raft.term() && index > stored.last() {
                    let what = format!(
                        "node {from} acknowledges {index:?} and {:?} is durable",
                        stored.last()
                    );
                    return Err(("ack-durable", what));
                }
                if term == raft.term() {
                    self.has_leaders_log(from, raft, index)?;
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
