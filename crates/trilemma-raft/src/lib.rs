//! Raft: one elected leader orders all writes of a keyspace (Ongaro and Ousterhout 2014,
//! [*In Search of an Understandable Consensus Algorithm*](https://raft.github.io/raft.pdf); Ongaro's dissertation,
//! [*Consensus: Bridging Theory and Practice*](https://github.com/ongardie/dissertation)).
//!
//! A role owns what only it may touch; a transition consumes it. All roles work on what is `shared`.
//!
//! | file | what | source |
//! |---|---|---|
//! | `role` | which role a message meets, and how one becomes another | paper 5.1 |
//! | `follower` | entries and snapshots of a leader | paper 5.3, 7 |
//! | `candidate`, `votes` | pre-vote and vote | paper 5.2, 5.4.1; dissertation 9.6 |
//! | `leader`, `leader/progress` | append, acknowledge, commit; how each follower is fed | paper 5.3, 5.4.2 |
//! | `claims`, `withdrawn` | comparing states; a node that has met another history, or state | |
//! | `requests`, `pending`, `forward_dedup` | requests of clients, forwarding, exactly-once | dissertation 6.3 |
//! | `reads` | linearizable reads by read index | dissertation 6.4 |
//! | `transfer` | a snapshot for a follower that is too far behind, out and in | paper 7 |
//! | `shared`, `apply` | what every role works on; committed entries become state | paper 5.3 |
//! | `log`, `hard_state`, `disk` | entries, term and vote, and what of them is durable | paper figure 2 |
//! | `message`, `record`, `checkpoint` | wire and disk | |
//!
//! Rules that the paper leaves to the reader, and how they are kept here:
//!
//! - A vote, and an acknowledgement of entries, leave when what they promise is durable (`send_after_append`). The
//!   leader counts itself by its own durable entries, in parallel with its followers' disks.
//! - An entry is applied when it is committed *and* durable here, so that no restart undoes what somebody
//!   has read.
//! - A node that hears a leader denies votes and pre-votes; a leader that hears no majority for an election timeout,
//!   or whose disk stalls, steps down. So a node that comes and goes disrupts nobody, and a leader that cannot do its
//!   work does not keep others from it. A node whose disk stalls does not stand for election.
//! - Read rounds are numbered by the leader, per term; a number never travels from a client, so no old
//!   acknowledgement can pass for a new one.
//! - A leader's log that differs from what is committed here is never acknowledged: the node withdraws. So does a follower
//!   whose state is not the leader's after the same entry.
//!
//! Every machine checks its own invariants at the end of a step, never what a peer sends.
//!
//! - A leader that is going to stop brings a follower up to date and asks it to stand, for an election timeout at most.
//!
//! Membership is fixed by configuration in this version.

mod apply;
mod candidate;
mod checkpoint;
mod claims;
mod config;
mod disk;
mod follower;
mod forward_dedup;
mod hard_state;
mod leader;
mod log;
mod message;
mod pending;
mod reads;
mod record;
mod requests;
mod role;
mod shared;
mod status;
mod transfer;
mod votes;
mod withdrawn;

use trilemma_core::protocol::Peer;
use trilemma_core::table::Table;
use trilemma_core::{
    Checkpoint, Corrupt, Effects, Input, Instant, KeyRange, LiveStatus, NodeId, Now, PeerView, Protocol, View,
};

pub use config::RaftConfig;
pub use log::{Entry, Index, Payload, Term};
pub use message::{AppendResult, LogEnd, Message};
pub use record::Record;
pub use withdrawn::{Contradiction, Differs};

use checkpoint::Loading;
use follower::Follower;
use requests::Forward;
use role::Role;
use shared::Shared;

type Out = Effects<Message, Record>;

/// One raft node of one keyspace. See the module.
#[derive(Debug)]
pub struct Raft {
    shared: Shared,
    /// `None` only while a step changes it.
    role: Option<Role>,
    loading: Loading,
}

impl Raft {
    /// A node that has stored nothing yet. Restore and replay what is stored, then start it.
    #[must_use]
    pub fn new(config: RaftConfig) -> Self {
        Self {
            shared: Shared::new(config),
            role: Some(Role::Follower(Follower::waiting(Instant::NEVER))),
            loading: Loading::default(),
        }
    }

    fn role(&self) -> &Role {
        self.role.as_ref().expect("a step ends with a role")
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.shared.term()
    }

    /// The node this one voted for in the current term.
    #[must_use]
    pub fn vote(&self) -> Option<NodeId> {
        self.shared.hard.vote()
    }

    /// Whether this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role().as_leader().is_some()
    }

    /// The leader of the current term, if it is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.role().leader(&self.shared)
    }

    /// The last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.shared.commit
    }

    /// The last entry whose append, and that of everything before it, is durable here.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.shared.log.durable()
    }

    /// Up to where the log of another voter is known to be durable and equal to this leader's; `None` unless this node
    /// leads.
    #[must_use]
    pub fn matched(&self, voter: NodeId) -> Option<Index> {
        self.role().as_leader()?.matched(voter)
    }

    /// The newest read round that a majority has echoed to this leader; `None` unless this node leads.
    #[must_use]
    pub fn confirmed_round(&self) -> Option<u64> {
        Some(self.role().as_leader()?.confirmed_round(&self.shared.config))
    }

    /// What was found to contradict this node's committed entries, if anything was: it takes no part any more.
    #[must_use]
    pub fn contradiction(&self) -> Option<&Contradiction> {
        Some(self.role().withdrawn()?.contradiction())
    }

    /// The end of the log.
    #[must_use]
    pub fn log_end(&self) -> LogEnd {
        self.shared.log.end()
    }

    /// An entry of the log, if it is held in memory.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.shared.log.get(index)
    }

    /// The state that the applied entries have made.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    fn on_message(
        &mut self,
        role: Role,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) -> Role {
        let shared = &mut self.shared;
        if !shared.config.members.contains(&from) || from == shared.node() {
            tracing::debug!(%from, kind = trilemma_core::Message::kind(&message), "not a member; ignored");
            return role;
        }
        let mut role = role;
        match message {
            Message::Forward {
                to,
                id,
                timeout_ms,
                request,
            } => {
                let forward = Forward {
                    to,
                    id,
                    timeout_ms,
                    request,
                };
                requests::on_forward(&mut role, shared, now, from, forward, effects);
            }
            Message::ForwardReply { id, reply } => {
                requests::on_forward_reply(shared, now, from, (id, reply), effects);
            }
            Message::NotLeader { id } => requests::on_not_leader(shared, now, from, id, effects),
            message => return role.on_message(shared, now, from, message, effects),
        }
        role
    }

    fn on_peers(&mut self, mut role: Role, now: Instant, view: PeerView, effects: &mut Out) -> Role {
        let restarted = |(node, peer): (&NodeId, &Peer)| {
            let known = self.shared.view.peers.get(node);
            known
                .is_some_and(|known| known.incarnation != peer.incarnation)
                .then_some(*node)
        };
        let restarted: Vec<NodeId> = view.peers.iter().filter_map(restarted).collect();
        let known = &self.shared.view;
        if self
            .shared
            .config
            .peers()
            .any(|peer| view.is_connected(peer) && !known.is_connected(peer))
        {
            self.shared.forget_elections();
            self.shared.pending.forget_waits();
        }
        self.shared.view = view;
        role.on_restarts(&restarted);
        requests::reroute(&mut role, &mut self.shared, now, &restarted, effects);
        role
    }

    /// The node is going to stop: a leader hands leadership over, if anybody can be reached that may take it.
    fn on_stopping(&mut self, role: &Role, now: Instant) {
        if role.as_leader().is_some()
            && self.shared.config.members.len() > 1
            && self.shared.reaches_majority()
        {
            self.shared.handover = Some(now + self.shared.config.election_timeout);
        }
    }

    /// A handover ends with another leader, or when it has taken too long.
    fn note_handover(&mut self, leader: Option<NodeId>, is_withdrawn: bool, now: Instant) {
        let has_next = leader.is_some_and(|leader| leader != self.shared.node());
        let is_over = |until: Instant| has_next || is_withdrawn || now >= until;
        if self.shared.handover.is_some_and(is_over) {
            self.shared.handover = None;
        }
    }

    /// Who leads, and whether this node still takes part: when it changes, requests that wait look for their way again.
    fn leadership(&self, role: &Role) -> (Term, Option<NodeId>, bool) {
        let leader = role.leader(&self.shared);
        (self.shared.term(), leader, role.withdrawn().is_some())
    }

    /// Checks the invariants of all machines.
    fn check(&self) {
        self.shared.check();
        self.role().check(&self.shared);
    }
}

impl Protocol for Raft {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.loading.restore(&mut self.shared, chunk)
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        self.loading.replay(&mut self.shared, record)
    }

    fn step(&mut self, now: Now, input: Input<Message>, effects: &mut Out) {
        let now = now.instant;
        let mut role = self.role.take().expect("a step ends with a role");
        let before = self.leadership(&role);
        match input {
            Input::Start => {
                // Of a transfer that broke off: the next one begins with its first part.
                let loading = std::mem::take(&mut self.loading);
                if !loading.is_empty() {
                    effects.discard(loading);
                }
                role = role.on_start(&mut self.shared, now, effects);
            }
            Input::Propose(proposal) => {
                requests::on_propose(&mut role, &mut self.shared, now, proposal, effects);
            }
            Input::Receive { from, message } => role = self.on_message(role, now, from, message, effects),
            Input::Persisted { up_to } => {
                self.shared.log.on_persisted(up_to);
                self.shared.disk.on_persisted(now, up_to);
            }
            Input::Peers(view) => role = self.on_peers(role, now, view, effects),
            Input::Stopping => self.on_stopping(&role, now),
            Input::Wake => role = role.on_wake(&mut self.shared, now, effects),
            Input::EndTurn => role.end_turn(&mut self.shared, now, effects),
        }
        let after = self.leadership(&role);
        let (_, leader, is_withdrawn) = after;
        self.note_handover(leader, is_withdrawn, now);
        if after != before && (leader.is_some() || is_withdrawn) {
            requests::reroute(&mut role, &mut self.shared, now, &[], effects);
        }
        let shared = &mut self.shared;
        shared.disk.on_appended(now, effects.last_append());
        let requests_at = shared.pending.wake_at().min(shared.version_reads.due());
        let handover_at = shared.handover.unwrap_or(Instant::NEVER);
        effects.wake_at(role.wake_at(shared).min(requests_at).min(handover_at));
        self.role = Some(role);
        self.check();
    }

    fn is_handing_over(&self) -> bool {
        self.shared.handover.is_some()
    }

    fn checkpoint(&self) -> Checkpoint {
        let incoming = self.role().follower().and_then(Follower::incoming);
        checkpoint::chunks(&self.shared, incoming)
    }

    fn status(&self, _now: Now) -> LiveStatus {
        status::live(self.role(), &self.shared)
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        Box::new(self.shared.table.view(range))
    }
}

#[cfg(test)]
mod tests;
