//! The term and the vote: what a node must never forget (Raft figure 2, persistent state).

use trilemma_core::{AppendSeq, NodeId};

use crate::Out;
use crate::log::Term;
use crate::record::Record;

/// See the module. Each change is appended at once; what promises something in it waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct HardState {
    term: Term,
    vote: Option<NodeId>,
    /// The append of the present term and vote.
    seq: AppendSeq,
}

impl HardState {
    /// As the disk had it.
    pub(crate) fn restored(term: Term, vote: Option<NodeId>) -> Self {
        let seq = AppendSeq(0);
        Self { term, vote, seq }
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn vote(&self) -> Option<NodeId> {
        self.vote
    }

    /// Enters a higher term, in which this node has not voted.
    pub(crate) fn enter(&mut self, term: Term, effects: &mut Out) {
        assert!(term > self.term, "{term} after {}", self.term);
        self.term = term;
        self.vote = None;
        self.append(effects);
    }

    /// Enters the next term with a vote for this node itself.
    pub(crate) fn stand(&mut self, node: NodeId, effects: &mut Out) {
        self.term = self.term.next();
        self.vote = Some(node);
        self.append(effects);
    }

    /// Gives the vote of this term.
    pub(crate) fn give_vote(&mut self, to: NodeId, effects: &mut Out) {
        assert!(
            self.vote.is_none_or(|vote| vote == to),
            "a vote for {to} in {}, in which {:?} has it",
            self.term,
            self.vote
        );
        if self.vote.is_none() {
            self.vote = Some(to);
            self.append(effects);
        }
    }

    fn append(&mut self, effects: &mut Out) {
        let (term, vote) = (self.term, self.vote);
        self.seq = effects.append(Record::HardState { term, vote });
    }

    pub(crate) fn check(&self, appended: AppendSeq) {
        let seq = self.seq;
        assert!(
            seq <= appended,
            "{} is in record {seq}, appended is {appended}",
            self.term
        );
    }

    /// Whether a restart would begin in the present term, when records up to `persisted` are durable.
    pub(crate) fn is_durable(&self, persisted: AppendSeq) -> bool {
        self.seq <= persisted
    }
}
