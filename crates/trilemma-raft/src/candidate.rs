//! Elections: a pre-candidate asks whether one could succeed, a candidate stands in a new term.
//!
//! Raft sections 5.2 and 5.4.1; pre-vote is section 9.6 of the dissertation. A voter that has heard a leader within
//! the shortest election timeout denies both, so a node that was cut off cannot depose a leader that works. A leader that is
//! going to stop asks a follower to stand (dissertation section 3.10); that one needs no pre-votes, and gets votes all the same.

use trilemma_core::{Instant, NodeId};

use crate::Out;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::message::Message;
use crate::role::Role;
use crate::shared::Shared;
use crate::votes::{Tally, Votes};

/// Asks whether an election could succeed. Promises nothing, so it is still what it was.
#[derive(Debug)]
pub(crate) struct PreCandidate {
    former: Follower,
    votes: Votes,
}

impl PreCandidate {
    /// Asks all members. One node alone has its own answer at once.
    pub(crate) fn start(mut former: Follower, shared: &mut Shared, now: Instant, effects: &mut Out) -> Role {
        former.forget_leader();
        let mut votes = Votes::default();
        votes.count(shared.node(), true);
        let (term, end) = (shared.term().next(), shared.log.end());
        for peer in shared.config.peers() {
            effects.send(peer, Message::PreVote { term, end });
        }
        Self { former, votes }.tally(shared, now, effects)
    }

    /// Counts one answer.
    pub(crate) fn on_reply(
        mut self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        granted: bool,
        effects: &mut Out,
    ) -> Role {
        self.votes.count(from, granted);
        self.tally(shared, now, effects)
    }

    fn tally(mut self, shared: &mut Shared, now: Instant, effects: &mut Out) -> Role {
        match self
            .votes
            .tally(shared.config.members.len(), shared.config.majority())
        {
            Tally::Won => {
                self.former.give_up_transfer(effects);
                Candidate::start(shared, now, false, effects)
            }
            // It asks again when its time is up.
            Tally::Pending | Tally::Lost => Role::PreCandidate(self),
        }
    }

    pub(crate) fn election_at(&self) -> Instant {
        self.former.election_at()
    }

    pub(crate) fn set_election_at(&mut self, election_at: Instant) {
        self.former.set_election_at(election_at);
    }

    pub(crate) fn former(&self) -> &Follower {
        &self.former
    }

    pub(crate) fn into_former(self) -> Follower {
        self.former
    }

    pub(crate) fn check(&self, shared: &Shared) {
        assert_eq!(self.former.leader(), None, "a pre-candidate knows no leader");
        self.former.check(shared);
        self.votes.check(shared.node(), &shared.config.members);
    }
}

/// Stands for election in the present term.
#[derive(Debug)]
pub(crate) struct Candidate {
    votes: Votes,
    election_at: Instant,
}

impl Candidate {
    /// Asks all members for their votes. In a handover the leader has asked it to, so that those who hear the leader may vote.
    pub(crate) fn start(shared: &mut Shared, now: Instant, is_handover: bool, effects: &mut Out) -> Role {
        let election_at = shared.draw_election_at(now);
        shared.hard.stand(shared.config.node, effects);
        let (term, end) = (shared.term(), shared.log.end());
        // The requests wait for the disk too: our own vote is counted at once, and must be durable before others'
        // votes can make us leader.
        for peer in shared.config.peers() {
            effects.send_after_append(
                peer,
                Message::Vote {
                    term,
                    end,
                    is_handover,
                },
            );
        }
        let mut votes = Votes::default();
        votes.count(shared.node(), true);
        Self { votes, election_at }.tally(shared, now, effects)
    }

    /// Counts one answer. Winning or losing ends the candidacy.
    pub(crate) fn on_reply(
        mut self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        granted: bool,
        effects: &mut Out,
    ) -> Role {
        self.votes.count(from, granted);
        self.tally(shared, now, effects)
    }

    fn tally(self, shared: &mut Shared, now: Instant, effects: &mut Out) -> Role {
        match self
            .votes
            .tally(shared.config.members.len(), shared.config.majority())
        {
            Tally::Won => Role::Leader(Box::new(Leader::start(shared, now, effects))),
            Tally::Lost => Role::Follower(Follower::waiting(self.election_at)),
            Tally::Pending => Role::Candidate(self),
        }
    }

    pub(crate) fn election_at(&self) -> Instant {
        self.election_at
    }

    pub(crate) fn set_election_at(&mut self, election_at: Instant) {
        self.election_at = election_at;
    }

    pub(crate) fn check(&self, shared: &Shared) {
        assert_eq!(
            shared.hard.vote(),
            Some(shared.node()),
            "a candidate has its own vote"
        );
        self.votes.check(shared.node(), &shared.config.members);
    }
}
