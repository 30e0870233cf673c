//! What a node is in its term, and how one role becomes another. A transition consumes the role that ends.

use trilemma_core::{Instant, NodeId};

use crate::Out;
use crate::candidate::{Candidate, PreCandidate};
use crate::claims::Claim;
use crate::follower::{Append, Follower, Snapshot};
use crate::leader::Leader;
use crate::log::{Index, Term};
use crate::message::{AppendResult, LogEnd, Message};
use crate::shared::Shared;
use crate::withdrawn::Withdrawn;

/// See the module.
#[derive(Debug)]
pub(crate) enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether an election could succeed.
    PreCandidate(PreCandidate),
    /// Stands for election.
    Candidate(Candidate),
    /// Leads.
    Leader(Box<Leader>),
    /// Takes no part any more.
    Withdrawn(Withdrawn),
}

impl Role {
    /// The leader of the present term, if it is known.
    pub(crate) fn leader(&self, shared: &Shared) -> Option<NodeId> {
        match self {
            Role::Leader(_) => Some(shared.node()),
            Role::Follower(follower) => follower.leader(),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Withdrawn(_) => None,
        }
    }

    pub(crate) fn as_leader(&self) -> Option<&Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn withdrawn(&self) -> Option<&Withdrawn> {
        match self {
            Role::Withdrawn(withdrawn) => Some(withdrawn),
            _ => None,
        }
    }

    /// What it keeps of a transfer, for a checkpoint.
    pub(crate) fn follower(&self) -> Option<&Follower> {
        match self {
            Role::Follower(follower) => Some(follower),
            Role::PreCandidate(candidate) => Some(candidate.former()),
            _ => None,
        }
    }

    /// Whether it leads and has committed an entry of its term; before, it serves nothing. Others do not serve alone.
    pub(crate) fn is_ready(&self, shared: &Shared) -> bool {
        self.as_leader().is_none_or(|leader| leader.is_ready(shared))
    }

    /// Whether a leader was heard so recently that nobody should stand for election.
    fn hears_leader(&self, shared: &Shared, now: Instant) -> bool {
        match self {
            Role::Leader(_) => true,
            Role::Follower(follower) => follower.hears_leader(shared, now),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Withdrawn(_) => false,
        }
    }

    /// When it has something to do without any input.
    pub(crate) fn wake_at(&self, shared: &Shared) -> Instant {
        match self {
            Role::Leader(leader) => leader.wake_at(&shared.config),
            Role::Follower(follower) => follower.election_at(),
            Role::PreCandidate(candidate) => candidate.election_at(),
            Role::Candidate(candidate) => candidate.election_at(),
            Role::Withdrawn(_) => Instant::NEVER,
        }
    }

    /// The node starts. Alone, it needs to ask nobody.
    pub(crate) fn on_start(mut self, shared: &mut Shared, now: Instant, effects: &mut Out) -> Self {
        if let Role::Follower(follower) = &mut self {
            follower.set_election_at(shared.draw_election_at(now));
        }
        if shared.config.members.len() == 1 {
            return self.ask_for_votes(shared, now, effects);
        }
        self
    }

    /// Its time has come.
    pub(crate) fn on_wake(self, shared: &mut Shared, now: Instant, effects: &mut Out) -> Self {
        shared.expire(now, effects);
        match self {
            Role::Leader(mut leader) => {
                leader.expire(now, effects);
                match leader.on_tick(shared, now, effects) {
                    Ok(()) => Role::Leader(leader),
                    Err(why) => leader.step_down(shared, now, why, effects),
                }
            }
            Role::Withdrawn(_) => self,
            other if now >= other.wake_at(shared) => other.ask_for_votes(shared, now, effects),
            other => other,
        }
    }

    /// Its election timeout is over, or it has no peers.
    pub(crate) fn ask_for_votes(mut self, shared: &mut Shared, now: Instant, effects: &mut Out) -> Self {
        let is_possible = shared.may_stand(now);
        if is_possible {
            shared.on_election();
        }
        let election_at = shared.draw_election_at(now);
        match &mut self {
            Role::Follower(follower) => follower.set_election_at(election_at),
            Role::PreCandidate(candidate) => candidate.set_election_at(election_at),
            Role::Candidate(candidate) => candidate.set_election_at(election_at),
            Role::Leader(_) | Role::Withdrawn(_) => return self,
        }
        if !is_possible {
            return self;
        }
        let former = match self {
            Role::Follower(follower) => follower,
            Role::PreCandidate(candidate) => candidate.into_former(),
            other => Follower::waiting(other.wake_at(shared)),
        };
        PreCandidate::start(former, shared, now, effects)
    }

    /// Becomes a follower in `term`, which is not below the present one. A higher term is appended before anything that
    /// promises something in it.
    fn into_follower(self, shared: &mut Shared, now: Instant, term: Term, effects: &mut Out) -> Follower {
        assert!(term >= shared.term(), "terms only grow");
        let is_new = term > shared.term();
        if is_new {
            shared.hard.enter(term, effects);
        }
        let election_at = shared.draw_election_at(now);
        let mut follower = match self {
            Role::Follower(follower) => follower,
            Role::PreCandidate(candidate) => candidate.into_former(),
            Role::Leader(leader) => {
                tracing::info!(node = %shared.node(), %term, "stepped down as leader");
                leader.end(shared, effects);
                Follower::waiting(election_at)
            }
            Role::Candidate(_) | Role::Withdrawn(_) => Follower::waiting(election_at),
        };
        follower.set_election_at(election_at);
        follower.forget_leader();
        if is_new {
            follower.forget_heard();
        }
        follower
    }

    /// Takes a higher term over, before anything else looks at a message of it.
    fn observe_term(self, shared: &mut Shared, now: Instant, term: Term, effects: &mut Out) -> Self {
        if term > shared.term() {
            Role::Follower(self.into_follower(shared, now, term, effects))
        } else {
            self
        }
    }

    /// Accepts `from` as the leader of `term`, which is not below ours. Fails if that cannot be.
    fn follow(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        term: Term,
        effects: &mut Out,
    ) -> Result<Follower, Self> {
        if term == shared.term() && matches!(self, Role::Leader(_)) {
            tracing::error!(%from, %term, "a second leader in one term; its message is ignored");
            return Err(self);
        }
        let mut follower = match self {
            Role::Follower(follower) if term == shared.term() && follower.leader() == Some(from) => follower,
            other => other.into_follower(shared, now, term, effects),
        };
        follower.on_heard(shared, now, from);
        Ok(follower)
    }

    /// A message of a member. What concerns requests is not among them.
    pub(crate) fn on_message(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) -> Self {
        match message {
            _ if self.withdrawn().is_some() => self,
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::TimeoutNow { .. } => self.on_election(shared, now, from, message, effects),
            Message::Append { .. } | Message::Snapshot { .. } => {
                self.on_leader(shared, now, from, message, effects)
            }
            Message::StateDigest { term, at, digest } => {
                let leader = from;
                self.on_state_digest(
                    shared,
                    Claim {
                        leader,
                        term,
                        at,
                        digest,
                    },
                )
            }
            Message::AppendReply { .. } | Message::SnapshotReply { .. } => {
                self.on_reply(shared, now, from, message, effects)
            }
            Message::Forward { .. } | Message::ForwardReply { .. } | Message::NotLeader { .. } => self,
        }
    }

    /// Pre-votes, votes and the answers to them.
    fn on_election(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) -> Self {
        match message {
            Message::PreVote { term, end } => {
                self.on_pre_vote(shared, now, from, (term, end), effects);
                self
            }
            Message::PreVoteReply { asked, term, granted } => {
                // A refusal teaches the higher term; otherwise a cohort of low terms would ask forever.
                if term > shared.term() {
                    return self.observe_term(shared, now, term, effects);
                }
                match self {
                    // An answer to an earlier round asked about another term.
                    Role::PreCandidate(candidate) if asked == shared.term().next() => {
                        candidate.on_reply(shared, now, from, granted, effects)
                    }
                    other => other,
                }
            }
            Message::Vote {
                term,
                end,
                is_handover,
            } => self.on_vote(shared, now, from, (term, end, is_handover), effects),
            Message::TimeoutNow { term } => self.on_timeout_now(shared, now, from, term, effects),
            Message::VoteReply { term, granted } => match self.observe_term(shared, now, term, effects) {
                Role::Candidate(candidate) if term == shared.term() => {
                    candidate.on_reply(shared, now, from, granted, effects)
                }
                other => other,
            },
            _ => self,
        }
    }

    /// What only a leader sends.
    fn on_leader(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) -> Self {
        match message {
            Message::Append {
                term,
                round,
                prev,
                entries,
                commit,
            } => {
                let append = Append {
                    term,
                    round,
                    prev,
                    entries,
                    commit,
                };
                self.on_append(shared, now, from, append, effects)
            }
            Message::Snapshot {
                term,
                round,
                at,
                part,
                last,
                chunk,
            } => {
                let snapshot = Snapshot {
                    term,
                    round,
                    at,
                    part,
                    last,
                    chunk,
                };
                self.on_snapshot(shared, now, from, snapshot, effects)
            }
            _ => self,
        }
    }

    /// What followers answer to their leader.
    fn on_reply(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) -> Self {
        match message {
            Message::AppendReply { term, round, result } => {
                let mut role = self.observe_term(shared, now, term, effects);
                if let Role::Leader(leader) = &mut role
                    && term == shared.term()
                {
                    leader.on_append_reply(shared, now, from, (round, result));
                }
                role
            }
            Message::SnapshotReply {
                term,
                round,
                at,
                next,
            } => {
                let mut role = self.observe_term(shared, now, term, effects);
                if let Role::Leader(leader) = &mut role
                    && term == shared.term()
                {
                    leader.on_snapshot_reply(shared, now, from, (round, at, next));
                }
                role
            }
            _ => self,
        }
    }

    /// The leader is going to stop and asks this node to take over. It asks nobody whether that could succeed: the leader
    /// knows that it has all of the log.
    fn on_timeout_now(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        term: Term,
        effects: &mut Out,
    ) -> Self {
        match self {
            Role::Follower(mut follower)
                if term == shared.term() && follower.leader() == Some(from) && shared.may_stand(now) =>
            {
                tracing::info!(node = %shared.node(), %from, %term, "takes over from the leader");
                follower.give_up_transfer(effects);
                shared.on_election();
                Candidate::start(shared, now, true, effects)
            }
            other => other,
        }
    }

    /// The leader says what its state is.
    fn on_state_digest(self, shared: &mut Shared, claim: Claim) -> Self {
        let follows = |follower: &Follower| follower.leader() == Some(claim.leader);
        if claim.term != shared.term() || !self.follower().is_some_and(follows) {
            return self;
        }
        shared.claims.hear(shared.applied(), claim);
        match shared.claims.compare(&shared.table) {
            Some(contradiction) => Withdrawn::because(contradiction, shared.node()),
            None => self,
        }
    }

    fn on_pre_vote(
        &self,
        shared: &Shared,
        now: Instant,
        from: NodeId,
        (asked, end): (Term, LogEnd),
        effects: &mut Out,
    ) {
        let term = shared.term();
        let granted = asked > term && end >= shared.log.end() && !self.hears_leader(shared, now);
        effects.send(from, Message::PreVoteReply { asked, term, granted });
    }

    fn on_vote(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        (term, end, is_handover): (Term, LogEnd, bool),
        effects: &mut Out,
    ) -> Self {
        if term > shared.term() && self.hears_leader(shared, now) && !is_handover {
            // Not even the term is taken over: the candidate was cut off from a leader that works.
            refuse_vote(shared, from, effects);
            return self;
        }
        let mut role = self.observe_term(shared, now, term, effects);
        if term < shared.term() {
            refuse_vote(shared, from, effects);
            return role;
        }
        // Asking for pre-votes promises nothing, so it does not keep a node from voting for somebody else.
        let is_idle = match &role {
            Role::Follower(follower) => follower.leader().is_none(),
            Role::PreCandidate(_) => true,
            Role::Candidate(_) | Role::Leader(_) | Role::Withdrawn(_) => false,
        };
        let is_free = is_idle && shared.hard.vote().is_none_or(|vote| vote == from);
        let granted = is_free && end >= shared.log.end();
        if granted {
            shared.hard.give_vote(from, effects);
            role = match role {
                Role::PreCandidate(candidate) => Role::Follower(candidate.into_former()),
                other => other,
            };
            if let Role::Follower(follower) = &mut role {
                follower.set_election_at(shared.draw_election_at(now));
            }
        }
        effects.send_after_append(from, Message::VoteReply { term, granted });
        role
    }

    fn on_append(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        append: Append,
        effects: &mut Out,
    ) -> Self {
        if append.term < shared.term() {
            refuse_leader(shared, from, effects);
            return self;
        }
        match self.follow(shared, now, from, append.term, effects) {
            Ok(follower) => follower.on_append(shared, from, append, effects),
            Err(role) => role,
        }
    }

    fn on_snapshot(
        self,
        shared: &mut Shared,
        now: Instant,
        from: NodeId,
        snapshot: Snapshot,
        effects: &mut Out,
    ) -> Self {
        if snapshot.term < shared.term() {
            refuse_leader(shared, from, effects);
            return self;
        }
        match self.follow(shared, now, from, snapshot.term, effects) {
            Ok(follower) => follower.on_snapshot(shared, from, snapshot, effects),
            Err(role) => role,
        }
    }

    /// The turn's inputs are over. What is committed and durable here is applied.
    pub(crate) fn end_turn(&mut self, shared: &mut Shared, now: Instant, effects: &mut Out) {
        match self {
            Role::Leader(leader) => leader.end_turn(shared, now, effects),
            Role::Withdrawn(_) => {}
            _ => {
                if let Some(contradiction) = shared.apply(effects) {
                    *self = Withdrawn::because(contradiction, shared.node());
                }
            }
        }
    }

    /// The processes of these nodes have restarted.
    pub(crate) fn on_restarts(&mut self, restarted: &[NodeId]) {
        match self {
            // A leader whose process has restarted does not lead any more: nobody needs to wait out its silence.
            Role::Follower(follower)
                if follower
                    .leader()
                    .is_some_and(|leader| restarted.contains(&leader)) =>
            {
                follower.forget_heard();
            }
            Role::Leader(leader) => restarted.iter().for_each(|node| leader.probe(*node)),
            _ => {}
        }
    }

    pub(crate) fn check(&self, shared: &Shared) {
        match self {
            Role::Follower(follower) => follower.check(shared),
            Role::PreCandidate(candidate) => candidate.check(shared),
            Role::Candidate(candidate) => candidate.check(shared),
            Role::Leader(leader) => leader.check(shared),
            Role::Withdrawn(withdrawn) => withdrawn.check(shared.node(), shared.commit),
        }
    }
}

fn refuse_vote(shared: &Shared, from: NodeId, effects: &mut Out) {
    let (term, granted) = (shared.term(), false);
    effects.send(from, Message::VoteReply { term, granted });
}

/// The answer to a leader of an older term. It echoes no round: rounds are numbered per term, and that leader may lead
/// this term, too, by the time it gets the answer.
fn refuse_leader(shared: &Shared, from: NodeId, effects: &mut Out) {
    let (term, round, result) = (shared.term(), 0, AppendResult::Mismatch(Index(0)));
    effects.send(from, Message::AppendReply { term, round, result });
}
