//! Elections: pre-vote, vote, and stepping down.
//!
//! Raft section 5.2 and 5.4.1; pre-vote is section 9.6 of the dissertation. A voter that has heard a leader within
//! the shortest election timeout denies both, so a node that was cut off cannot depose a leader that works.

use trilemma_core::{Instant, NodeId};

use super::log::{Entry, Payload, Term};
use super::message::{LogEnd, Message};
use super::replication::Leader;
use super::{ByPeer, Out, Raft, Role};

/// The answers to a pre-vote or a vote. The first answer of a voter stands, so duplicates change nothing.
#[derive(Debug, Default)]
pub(super) struct Ballots(ByPeer<bool>);

enum Tally {
    Pending,
    Won,
    Lost,
}

impl Ballots {
    fn count(&mut self, from: NodeId, granted: bool) {
        self.0.entry(from).or_insert(granted);
    }

    fn tally(&self, members: usize, majority: usize) -> Tally {
        let granted = self.0.values().filter(|granted| **granted).count();
        let denied = self.0.len() - granted;
        if granted >= majority {
            Tally::Won
        } else if denied > members - majority {
            Tally::Lost
        } else {
            Tally::Pending
        }
    }
}

impl Raft {
    pub(super) fn reset_election_timer(&mut self, now: Instant) {
        let shortest = self.config.election_timeout;
        self.election_at = now + self.rng.between(shortest, shortest * 2);
    }

    /// Whether a leader was heard so lately that nobody should stand for election.
    fn hears_leader(&self, now: Instant) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            _ => self
                .heard_leader
                .is_some_and(|heard| now.since(heard) < self.config.election_timeout),
        }
    }

    /// Becomes a follower in `term`, which is not below the current one. A higher term is durable before anything
    /// that promises something in it.
    pub(super) fn become_follower(
        &mut self,
        now: Instant,
        term: Term,
        leader: Option<NodeId>,
        out: &mut Out,
    ) {
        assert!(term >= self.term, "terms only grow");
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.heard_leader = None;
            self.append_hard_state(out);
        }
        let former = std::mem::replace(&mut self.role, Role::Follower { leader });
        self.reset_election_timer(now);
        if let Role::Leader(former) = former {
            tracing::info!(node = %self.config.node, %term, "stepped down");
            self.lose_office(&former, out);
        }
        if leader.is_some() {
            self.recheck_waiting(now, &[], out);
        }
    }

    /// Asks all members whether an election could succeed.
    pub(super) fn start_pre_vote(&mut self, now: Instant, out: &mut Out) {
        self.reset_election_timer(now);
        if !self.term_is_durable() || self.disk.is_stalled(now, self.config.disk_stall) {
            // It could not lead, and each try would raise a term that a restart forgets and its answers spread.
            return;
        }
        let mut ballots = Ballots::default();
        ballots.count(self.config.node, true);
        self.role = Role::PreCandidate(ballots);
        let (term, end) = (self.term.next(), self.log.end());
        for peer in self.config.peers().collect::<Vec<_>>() {
            out.send(peer, Message::PreVote { term, end });
        }
        self.count_pre_votes(now, out);
    }

    pub(super) fn on_pre_vote(&mut self, now: Instant, from: NodeId, term: Term, end: LogEnd, out: &mut Out) {
        let granted = term > self.term && end >= self.log.end() && !self.hears_leader(now);
        out.send(
            from,
            Message::PreVoteReply {
                asked: term,
                term: self.term,
                granted,
            },
        );
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        asked: Term,
        term: Term,
        granted: bool,
        out: &mut Out,
    ) {
        if term > self.term {
            // A refusal teaches the higher term; otherwise a cohort of low terms would ask for ever.
            self.become_follower(now, term, None, out);
            return;
        }
        // An answer to an earlier round asked about another term.
        if asked != self.term.next() {
            return;
        }
        if let Role::PreCandidate(ballots) = &mut self.role {
            ballots.count(from, granted);
            self.count_pre_votes(now, out);
        }
    }

    fn count_pre_votes(&mut self, now: Instant, out: &mut Out) {
        let Role::PreCandidate(ballots) = &self.role else {
            return;
        };
        if let Tally::Won = ballots.tally(self.config.members.len(), self.config.majority()) {
            self.start_election(now, out);
        }
    }

    fn start_election(&mut self, now: Instant, out: &mut Out) {
        self.reset_election_timer(now);
        self.term = self.term.next();
        self.vote = Some(self.config.node);
        self.heard_leader = None;
        self.append_hard_state(out);
        self.role = Role::Candidate(Ballots::default());
        let (term, end) = (self.term, self.log.end());
        // The requests wait for the disk too: our own vote is counted at once, and must be durable before others'
        // votes can make us leader.
        for peer in self.config.peers().collect::<Vec<_>>() {
            out.send_after_append(peer, Message::Vote { term, end });
        }
        let Role::Candidate(ballots) = &mut self.role else {
            unreachable!("set above")
        };
        ballots.count(self.config.node, true);
        self.count_votes(now, out);
    }

    pub(super) fn on_vote(&mut self, now: Instant, from: NodeId, term: Term, end: LogEnd, out: &mut Out) {
        if self.hears_leader(now) && term > self.term {
            // Not even the term is taken over: the candidate was cut off from a leader that works.
            return out.send(
                from,
                Message::VoteReply {
                    term: self.term,
                    granted: false,
                },
            );
        }
        if !self.observe_term(now, term, out) {
            return out.send(
                from,
                Message::VoteReply {
                    term: self.term,
                    granted: false,
                },
            );
        }
        // Asking for pre-votes promises nothing, so it does not keep a node from voting for somebody else.
        let idle = matches!(self.role, Role::Follower { leader: None } | Role::PreCandidate(_));
        let free = idle && self.vote.is_none_or(|vote| vote == from);
        let granted = free && end >= self.log.end();
        if granted {
            self.role = Role::Follower { leader: None };
            if self.vote.is_none() {
                self.vote = Some(from);
                self.append_hard_state(out);
            }
            self.reset_election_timer(now);
        }
        out.send_after_append(
            from,
            Message::VoteReply {
                term: self.term,
                granted,
            },
        );
    }

    pub(super) fn on_vote_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        granted: bool,
        out: &mut Out,
    ) {
        if !self.observe_term(now, term, out) {
            return;
        }
        if let Role::Candidate(ballots) = &mut self.role {
            ballots.count(from, granted);
            self.count_votes(now, out);
        }
    }

    fn count_votes(&mut self, now: Instant, out: &mut Out) {
        let Role::Candidate(ballots) = &self.role else {
            return;
        };
        match ballots.tally(self.config.members.len(), self.config.majority()) {
            Tally::Won => self.become_leader(now, out),
            Tally::Lost => self.role = Role::Follower { leader: None },
            Tally::Pending => {}
        }
    }

    fn become_leader(&mut self, now: Instant, out: &mut Out) {
        tracing::info!(node = %self.config.node, term = %self.term, "leads");
        let noop = self.log.push(Entry {
            term: self.term,
            payload: Payload::Noop,
        });
        self.role = Role::Leader(Leader::new(self.config.peers(), noop, now));
        // At once, not at the end of the turn: nothing is served before it is committed.
        self.flush(now, out);
        self.recheck_waiting(now, &[], out);
    }

    /// Gives up the office without a higher term: others must be able to elect somebody.
    pub(super) fn step_down(&mut self, now: Instant, why: &str, out: &mut Out) {
        tracing::info!(node = %self.config.node, term = %self.term, why, "gives up its office");
        let term = self.term;
        self.become_follower(now, term, None, out);
        self.heard_leader = None;
    }
}
