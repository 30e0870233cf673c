//! The proposer: takes operations, runs rounds for their keys, answers them.
//!
//! It does not touch the acceptor or the network: what it wants sent is in [`Actions`], for its own acceptor as for
//! every other one.

mod operation;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use trilemma_core::{Instant, Key, NodeId, NodeSet, OpId, Patience, PeerView, Reason, Reply, Rng, Ticket};

use super::acceptor::CHECKED_KEYS_MAX;
use super::ballot::{Ballot, Clock};
use super::config::PaxosConfig;
use super::key_states::{Cached, KeyStates};
use super::message::{Answer, Ask};
use super::register::{Keep, PROPOSERS_MAX, Register};
pub(crate) use operation::{Kind, Operation};
use round::Round;

/// Largest exponent of the back-off; [`PaxosConfig::backoff_max`] limits it further.
const BACKOFF_DOUBLINGS_MAX: u32 = 10;
/// How often the time that a phase gets is doubled at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 6;

/// To whom an ask goes.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// Every member, this node included.
    All,
    /// Every other member.
    Others,
    /// These.
    Only(Vec<NodeId>),
}

/// What the proposer wants asked.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) audience: Audience,
    pub(crate) ask: Ask,
    /// Of an accept, the register that it makes, for this node's own acceptor.
    pub(crate) made: Option<Arc<Register>>,
}

/// What the proposer has found to be chosen.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) key: Key,
    pub(crate) ballot: Ballot,
    pub(crate) register: Arc<Register>,
    /// The ballot that a majority has promised on top of it, if nothing uses that yet.
    pub(crate) next: Option<Ballot>,
}

/// What the proposer wants done.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) asks: Vec<Wanted>,
    pub(crate) replies: Vec<(Ticket, Reply)>,
    /// Registers known to be chosen.
    pub(crate) learned: Vec<Learned>,
}

impl Actions {
    pub(crate) fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.replies.is_empty() && self.learned.is_empty()
    }
}

/// What all rounds share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: PaxosConfig,
    pub(crate) members: Vec<NodeId>,
    pub(crate) quorum: usize,
    pub(crate) clock: Clock,
    /// What the node holds of each key. Of it the proposer looks at and changes what it has cached, nothing else.
    pub(crate) slots: KeyStates,
    /// Members that can be reached, this node included.
    connected: BTreeSet<NodeId>,
    rng: Rng,
    /// How long answers to quorum reads may take, and those that wait for a disk.
    reads: Patience,
    writes: Patience,
    timers: BTreeSet<(Instant, Key)>,
    tickets: BTreeMap<Ticket, Key>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    pub(crate) actions: Actions,
}

impl Shared {
    fn ask(&mut self, audience: Audience, ask: Ask) {
        let made = None;
        self.actions.asks.push(Wanted { audience, ask, made });
    }

    fn learned(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>, next: Option<Ballot>) {
        // A session that begins here from now on is not one of those that the register has forgotten.
        if let Some(horizon) = register.horizon {
            self.clock.reach(horizon.next());
        }
        if ballot > Ballot::ZERO {
            self.actions.learned.push(Learned {
                key: key.clone(),
                ballot,
                register: Arc::clone(register),
                next,
            });
        }
    }

    fn chosen(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>, next: Option<Ballot>) {
        self.learned(key, ballot, register, next);
        let key = key.clone();
        self.ask(Audience::Others, Ask::Chosen { key, ballot });
    }

    /// Keeps for later what is cached.
    fn keep_cached(&mut self, key: &Key, cached: &Cached) {
        self.slots
            .keep(key, cached.ballot, cached.base, self.config.cache_max);
    }

    fn reply(&mut self, ticket: Ticket, deadline: Instant, reply: Reply) {
        self.tickets.remove(&ticket);
        self.deadlines.remove(&(deadline, ticket));
        self.actions.replies.push((ticket, reply));
    }

    fn keep(&self) -> Keep {
        let limit = |max: usize| u16::try_from(max).unwrap_or(u16::MAX);
        Keep {
            recent: limit(self.config.recent_max),
            floors: limit(self.config.sessions_max),
        }
    }

    /// How many members may still answer.
    fn outstanding(&self, answered: &[NodeId]) -> usize {
        self.connected
            .iter()
            .filter(|node| !answered.contains(node))
            .count()
    }

    /// Exponential and random: of proposers that collide, one is soon alone for the time of a round.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doublings = failures.min(BACKOFF_DOUBLINGS_MAX);
        let high = self.config.backoff_min.saturating_mul(1 << doublings);
        let high = high.min(self.config.backoff_max.max(self.writes.took()));
        self.rng.between(self.config.backoff_min / 2, high)
    }

    fn no_quorum(&self) -> Option<Reason> {
        let have = self.connected.len();
        (have < self.quorum).then(|| Reason::NoQuorum {
            have: have as u32,
            need: self.quorum as u32,
            of: self.members.len() as u32,
            missing: self.missing(),
        })
    }

    pub(crate) fn missing(&self) -> NodeSet {
        let missing = self.members.iter().filter(|node| !self.connected.contains(node));
        missing.copied().collect()
    }
}

/// The proposer of one node, for all keys.
#[derive(Debug)]
pub(crate) struct Proposer {
    rounds: BTreeMap<Key, Round>,
    /// From where on operations are still to be refused for want of a majority.
    refusing: Option<Bound<Key>>,
    pub(crate) shared: Shared,
}

impl Proposer {
    pub(crate) fn new(config: PaxosConfig, rng: Rng) -> Self {
        let members: Vec<NodeId> = config.members.iter().collect();
        assert!(members.contains(&config.node), "node {} is a member", config.node);
        assert!(
            members.len() <= PROPOSERS_MAX,
            "a register remembers each of {} members",
            members.len()
        );
        Self {
            rounds: BTreeMap::new(),
            refusing: None,
            shared: Shared {
                quorum: members.len() / 2 + 1,
                clock: Clock::new(config.node, config.incarnation),
                slots: KeyStates::default(),
                // Until the host says otherwise, everybody may be there.
                connected: members.iter().copied().collect(),
                rng,
                reads: Patience::new(config.round_timeout, PATIENCE_DOUBLINGS_MAX),
                writes: Patience::new(config.round_timeout, PATIENCE_DOUBLINGS_MAX),
                timers: BTreeSet::new(),
                tickets: BTreeMap::new(),
                deadlines: BTreeSet::new(),
                actions: Actions::default(),
                members,
                config,
            },
        }
    }

    /// Takes an operation on one key.
    pub(crate) fn propose(&mut self, key: &Key, ticket: Ticket, deadline: Instant, kind: Kind, now: Instant) {
        let operation = Operation {
            kind,
            ticket: Some(ticket),
            deadline,
            accepts: Vec::new(),
            trips_before: 0,
            syncs_before: 0,
        };
        if let Some(reason) = self.obstacle(key, deadline, &operation.kind, now) {
            let reply = operation.refusal(reason);
            self.shared.actions.replies.push((ticket, reply));
            return;
        }
        let doubled = self.shared.tickets.insert(ticket, key.clone());
        assert_eq!(doubled, None, "the host names proposal {ticket} once");
        self.shared.deadlines.insert((deadline, ticket));
        self.run(key, now, |round, shared| round.push(key, operation, now, shared));
    }

    /// Finds out whether what is accepted for `key` is chosen, unless a round will tell anyway.
    pub(crate) fn confirm(&mut self, key: &Key, now: Instant) {
        if self.rounds.contains_key(key) || self.rounds.len() >= self.shared.config.keys_max {
            return;
        }
        let operation = Operation {
            kind: Kind::Confirm,
            ticket: None,
            deadline: Instant::NEVER,
            accepts: Vec::new(),
            trips_before: 0,
            syncs_before: 0,
        };
        self.run(key, now, |round, shared| round.push(key, operation, now, shared));
    }

    fn obstacle(&self, key: &Key, deadline: Instant, kind: &Kind, now: Instant) -> Option<Reason> {
        let config = &self.shared.config;
        let is_from_nowhere = |op: OpId| !self.shared.clock.may_reach(op.session.basis);
        if kind.op().is_some_and(is_from_nowhere) {
            return Some(Reason::SessionExpired);
        }
        let overloaded = |what: String| Some(Reason::Overloaded { what });
        if let Some(reason) = self.shared.no_quorum() {
            return Some(reason);
        }
        if deadline <= now {
            return Some(Reason::Deadline);
        }
        if self.shared.tickets.len() >= config.operations_max {
            return overloaded(format!("{} operations are under way", config.operations_max));
        }
        match self.rounds.get(key) {
            Some(round) if round.len() >= config.operations_per_key_max => {
                let max = config.operations_per_key_max;
                overloaded(format!("{max} operations wait for key \"{key}\""))
            }
            None if self.rounds.len() >= config.keys_max => {
                overloaded(format!("rounds of {} keys are under way", config.keys_max))
            }
            _ => None,
        }
    }

    fn run(&mut self, key: &Key, _now: Instant, act: impl FnOnce(&mut Round, &mut Shared)) {
        let round = self.rounds.entry(key.clone()).or_insert_with(Round::new);
        act(round, &mut self.shared);
        round.check(key, &self.shared);
        if round.is_idle() {
            self.rounds.remove(key);
        }
    }

    /// The proposer's invariants. Its indexes agree: a round without a timer would never end, an operation without a
    /// deadline never be answered.
    pub(crate) fn check(&self) {
        let shared = &self.shared;
        let config = &shared.config;
        assert_eq!(shared.timers.len(), self.rounds.len(), "each round has one timer");
        assert_eq!(
            shared.deadlines.len(),
            shared.tickets.len(),
            "each ticket has one deadline"
        );
        assert!(self.rounds.len() <= config.keys_max, "rounds are bounded");
        assert!(
            shared.tickets.len() <= config.operations_max,
            "operations are bounded"
        );
        assert!(shared.connected.contains(&config.node), "a node reaches itself");
        assert!(
            shared.connected.len() <= shared.members.len(),
            "only members count as connected"
        );
        assert_eq!(shared.quorum, shared.members.len() / 2 + 1, "two quorums meet");
        assert!(
            shared.actions.is_empty(),
            "what the proposer wants is done before the step ends"
        );
        if cfg!(debug_assertions) && self.rounds.len() <= CHECKED_KEYS_MAX {
            for (key, round) in &self.rounds {
                assert!(!round.is_idle(), "the idle round of key {key:?} is forgotten");
                assert!(
                    shared.timers.contains(&(round.due(), key.clone())),
                    "the round of key {key:?} is woken when it is due"
                );
                round.check(key, shared);
            }
        }
    }

    /// Takes an acceptor's answer.
    pub(crate) fn on_answer(&mut self, from: NodeId, answer: Answer, now: Instant) {
        let key = match &answer {
            Answer::Promise { key, .. }
            | Answer::Accepted { key, .. }
            | Answer::Refused { key, .. }
            | Answer::Held { key, .. }
            | Answer::Lacks { key, .. } => key.clone(),
        };
        match &answer {
            Answer::Refused { seen, .. } => self.shared.clock.observe(*seen),
            Answer::Promise { accepted, .. } | Answer::Held { accepted, .. } => {
                self.shared.clock.observe(*accepted);
            }
            Answer::Accepted { promised, .. } => self.shared.clock.observe(*promised),
            Answer::Lacks { .. } => {}
        }
        if let Some(round) = self.rounds.get_mut(&key) {
            round.on_answer(&key, from, answer, now, &mut self.shared);
            round.check(&key, &self.shared);
            if round.is_idle() {
                self.rounds.remove(&key);
            }
        }
    }

    /// Takes what the host knows of the peers. Without a majority, everything that has certainly done nothing is
    /// refused; what may have taken effect waits for its deadline or for the majority.
    pub(crate) fn on_peers(&mut self, view: &PeerView, now: Instant) {
        let node = self.shared.config.node;
        let connected = |member: &NodeId| *member == node || view.is_connected(*member);
        let connected: BTreeSet<NodeId> = self.shared.members.iter().copied().filter(connected).collect();
        let is_somebody_back = !connected.is_subset(&self.shared.connected);
        self.shared.connected = connected;
        if is_somebody_back {
            self.shared.reads.forget_waits();
            self.shared.writes.forget_waits();
            for (key, round) in &mut self.rounds {
                round.hope(key, now, &mut self.shared);
            }
        }
        self.refusing = self.shared.no_quorum().map(|_| Bound::Unbounded);
    }

    /// Repeats phases that have lasted too long and answers operations whose time is up, as many as a turn may; returns
    /// whether there are more.
    pub(crate) fn on_time(&mut self, now: Instant, rounds: usize) -> bool {
        for _ in 0..rounds {
            let Some((due, key)) = self.shared.timers.first() else {
                break;
            };
            if *due > now {
                break;
            }
            let key = key.clone();
            self.run(&key, now, |round, shared| round.on_due(&key, now, shared));
            assert!(
                self.rounds.get(&key).is_none_or(|round| round.due() > now),
                "a timer is set again or removed"
            );
        }
        for _ in 0..rounds {
            match self.shared.deadlines.first().copied() {
                Some((deadline, ticket)) if deadline <= now => self.expire(deadline, ticket),
                _ => break,
            }
        }
        self.refuse_some(rounds) || self.next_due() <= now
    }

    /// Without a majority: refuses what has certainly done nothing, of so many keys. Returns whether there are more.
    fn refuse_some(&mut self, rounds: usize) -> bool {
        let Some(from) = self.refusing.take() else {
            return false;
        };
        let Some(reason) = self.shared.no_quorum() else {
            return false;
        };
        for (looked, (key, round)) in self.rounds.range_mut((from, Bound::Unbounded)).enumerate() {
            if looked == rounds {
                self.refusing = Some(Bound::Included(key.clone()));
                break;
            }
            for operation in round.operations_mut().filter(|operation| operation.is_certain()) {
                if let Some(ticket) = operation.ticket.take() {
                    let reply = operation.refusal(reason.clone());
                    self.shared.reply(ticket, operation.deadline, reply);
                }
            }
        }
        self.refusing.is_some()
    }

    /// Ends all rounds and refuses what waits for them.
    pub(crate) fn give_up(&mut self, reason: &Reason) {
        for (_, mut round) in std::mem::take(&mut self.rounds) {
            for operation in round.operations_mut() {
                if let Some(ticket) = operation.ticket.take() {
                    let reply = operation.refusal(reason.clone());
                    self.shared.reply(ticket, operation.deadline, reply);
                }
            }
        }
        self.shared.timers.clear();
        self.shared.actions.asks.clear();
    }

    fn expire(&mut self, deadline: Instant, ticket: Ticket) {
        self.shared.deadlines.remove(&(deadline, ticket));
        let Some(key) = self.shared.tickets.remove(&ticket) else {
            return;
        };
        let Some(round) = self.rounds.get_mut(&key) else {
            return;
        };
        let expired = |operation: &&mut Operation| operation.ticket == Some(ticket);
        if let Some(operation) = round.operations_mut().find(expired) {
            operation.ticket = None;
            let reply = operation.refusal(Reason::Deadline);
            self.shared.actions.replies.push((ticket, reply));
        }
    }

    /// When [`Self::on_time`] has something to do that it need not do in the next turn.
    pub(crate) fn wake_at(&self, now: Instant) -> Instant {
        let due = self.next_due();
        if due > now { due } else { Instant::NEVER }
    }

    fn next_due(&self) -> Instant {
        let timer = self.shared.timers.first().map_or(Instant::NEVER, |(due, _)| *due);
        let deadline = self
            .shared
            .deadlines
            .first()
            .map_or(Instant::NEVER, |(due, _)| *due);
        timer.min(deadline)
    }

    /// Figures for the status: keys with rounds, operations.
    pub(crate) fn figures(&self) -> [(&'static str, usize); 2] {
        [
            ("keys with rounds", self.rounds.len()),
            ("operations under way", self.shared.tickets.len()),
        ]
    }
}

#[cfg(test)]
mod tests;
