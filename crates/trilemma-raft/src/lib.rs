//! Raft: one elected leader orders all writes of a keyspace (Ongaro and Ousterhout 2014).
//!
//! | file | what | source |
//! |---|---|---|
//! | `election` | pre-vote, vote, stepping down | paper 5.2, 5.4.1; dissertation 9.6 |
//! | `replication` | append, acknowledge, commit, apply | paper 5.3, 5.4.2 |
//! | `proposals` | requests of clients, forwarding, exactly-once | dissertation 6.3 |
//! | `reads` | linearizable reads by read index | dissertation 6.4 |
//! | `transfer` | a snapshot for a follower that is too far behind | paper 7 |
//! | `log` | entries, and which of them are durable |
//!
//! Rules that the paper leaves to the reader, and how they are kept here:
//!
//! - A vote, and an acknowledgement of entries, leave when what they promise is durable (`send_after_append`). The
//!   leader counts itself by its own durable entries, in parallel with its followers' disks.
//! - An entry is applied when it is committed *and* durable here, so that a restart never has to take back what
//!   somebody has read.
//! - A node that hears a leader denies votes and pre-votes; a leader that hears no majority for an election timeout,
//!   or whose disk stalls, steps down. So a node that comes and goes disrupts nobody, and a leader that cannot do its
//!   work does not keep others from it.
//! - Read rounds are numbered by the leader, per term; a number never travels from a client, so no old
//!   acknowledgement can pass for a new one.
//!
//! Membership is fixed by configuration in this version.

mod config;
mod copies;
mod disk;
mod election;
mod log;
mod message;
mod proposals;
mod reads;
mod record;
mod replication;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use trilemma_core::protocol::Peer;
use trilemma_core::table::{CHUNK_BYTES, Table, TableLoader};
use trilemma_core::{
    AppendSeq, Checkpoint, Corrupt, Effects, Entry as TableEntry, Input, Instant, KeyRange, LiveStatus,
    NodeId, NodeSet, Now, PeerView, Protocol, Rng, Version, codec,
};

pub use config::RaftConfig;
pub use log::{Entry, Index, Payload, Term};
pub use message::{Answer, AppendResult, Forwarded, LogEnd, Message};
pub use record::Record;

use disk::Disk;
use election::Ballots;
use log::{INDEX_MAX, Log};
use proposals::Proposals;
use reads::AtVersion;
use record::Chunk;
use replication::Leader;
use transfer::Incoming;

type Out = Effects<Message, Record>;

/// What a node is in its term.
#[derive(Debug)]
enum Role {
    /// Follows a leader, or waits for one.
    Follower {
        /// The leader of this term, once it is known.
        leader: Option<NodeId>,
    },
    /// Asks whether an election could succeed.
    PreCandidate(Ballots),
    /// Stands for election.
    Candidate(Ballots),
    /// Leads.
    Leader(Leader),
}

/// One raft node of one keyspace. See the module.
#[derive(Debug)]
pub struct Raft {
    config: RaftConfig,
    rng: Rng,
    term: Term,
    vote: Option<NodeId>,
    log: Log,
    commit: Index,
    table: Table,
    role: Role,
    /// When this node stops waiting for a leader.
    election_at: Instant,
    /// When a leader of the current term was last heard.
    heard_leader: Option<Instant>,
    view: PeerView,
    proposals: Proposals,
    at_version: AtVersion,
    incoming: Option<Incoming>,
    restoring: Option<Restoring>,
    /// In a replay: what the parts of a snapshot so far have made.
    replayed_parts: Option<TableLoader>,
    /// Something waits for the end of the turn.
    dirty: bool,
    /// The append of the present term and vote, and the last append that is durable.
    hard_state_at: AppendSeq,
    persisted: AppendSeq,
    disk: Disk,
    /// No read that waits is due before this.
    reads_due: Instant,
    contradiction: Option<Contradiction>,
}

/// A leader's log that differs from what is committed here. Committed entries are never replaced while members keep what
/// their disks had, so a member has lost its disk, or was set back. Which of the two histories clients have seen, no node
/// can tell: this one takes no part any more, until an operator has looked and it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// Its entry.
    pub found: LogEnd,
    /// The term of the entry that is committed here at the same index.
    pub committed: Term,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            leader,
            term,
            found,
            committed,
        } = self;
        write!(
            f,
            "node {leader}, leader of {term}, has an entry of {} at {}, where one of {committed} is committed here: a \
             member has lost part of its disk; this node takes no part until it is restarted; compare the members' \
             data before that, and keep each directory as it is",
            found.term, found.index
        )
    }
}

#[derive(Debug)]
struct Restoring {
    table: TableLoader,
}

impl Raft {
    /// A node that has stored nothing yet. Restore and replay what is stored, then start it.
    #[must_use]
    pub fn new(config: RaftConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        let proposals = Proposals::new(&mut rng);
        let table = Table::new(config.sessions_max);
        Self {
            config,
            rng,
            term: Term(0),
            vote: None,
            log: Log::default(),
            commit: Index(0),
            table,
            role: Role::Follower { leader: None },
            election_at: Instant::NEVER,
            heard_leader: None,
            view: PeerView::default(),
            proposals,
            at_version: AtVersion::default(),
            incoming: None,
            restoring: None,
            replayed_parts: None,
            dirty: false,
            hard_state_at: AppendSeq(0),
            persisted: AppendSeq(0),
            disk: Disk::default(),
            reads_due: Instant::NEVER,
            contradiction: None,
        }
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The node this one voted for in the current term.
    #[must_use]
    pub fn vote(&self) -> Option<NodeId> {
        self.vote
    }

    /// Whether this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader of the current term, if it is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.node),
            Role::Follower { leader } => *leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The last entry whose append, and that of everything before it, is durable here.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.log.durable().min(self.appended())
    }

    /// The last entry handed to the disk: a leader's newest ones wait for the end of the turn.
    fn appended(&self) -> Index {
        match &self.role {
            Role::Leader(leader) => leader.appended,
            _ => self.log.last(),
        }
    }

    /// Up to where the log of another voter is known to be durable and equal to this leader's; `None` unless this node
    /// leads.
    #[must_use]
    pub fn matched(&self, voter: NodeId) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) => leader.followers.get(&voter).map(|follower| follower.matched),
            _ => None,
        }
    }

    /// What was found to contradict this node's committed entries, if anything was: it takes no part any more.
    #[must_use]
    pub fn contradiction(&self) -> Option<&Contradiction> {
        self.contradiction.as_ref()
    }

    /// The end of the log.
    #[must_use]
    pub fn log_end(&self) -> LogEnd {
        self.log.end()
    }

    /// An entry of the log, if it is held in memory.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The state that the applied entries have made.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether a restart would begin in the present term.
    fn term_is_durable(&self) -> bool {
        self.hard_state_at <= self.persisted
    }

    fn applied(&self) -> Index {
        Index(self.table.version().0)
    }

    fn append_hard_state(&mut self, out: &mut Out) {
        self.hard_state_at = out.append(Record::HardState {
            term: self.term,
            vote: self.vote,
        });
    }

    /// Whether enough members can be reached from here to do anything.
    fn reaches_majority(&self) -> bool {
        let connected = self
            .config
            .peers()
            .filter(|peer| self.view.is_connected(*peer))
            .count();
        connected + 1 >= self.config.majority()
    }

    /// Whether this node, if it leads, has committed an entry of its term; before, it serves nothing.
    fn leader_is_ready(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.applied() >= leader.noop,
            _ => true,
        }
    }

    fn arm(&self, now: Instant, out: &mut Out) {
        if self.dirty {
            return out.wake_at(now);
        }
        let role = match &self.role {
            Role::Leader(leader) => leader.wake_at(&self.config),
            _ => self.election_at,
        };
        out.wake_at(role.min(self.proposals.wake_at()).min(self.reads_due));
    }

    fn on_peers(&mut self, now: Instant, view: PeerView, out: &mut Out) {
        let restarted = |(node, peer): (&NodeId, &Peer)| {
            let known = self.view.peers.get(node);
            known
                .is_some_and(|known| known.incarnation != peer.incarnation)
                .then_some(*node)
        };
        let restarted: Vec<NodeId> = view.peers.iter().filter_map(restarted).collect();
        self.view = view;
        // A leader whose process has restarted does not lead any more: nobody needs to wait out its silence.
        if let Role::Follower { leader } = &mut self.role
            && leader.is_some_and(|leader| restarted.contains(&leader))
        {
            *leader = None;
            self.heard_leader = None;
        }
        if let Role::Leader(leader) = &mut self.role {
            for node in &restarted {
                leader.probe(*node);
            }
        }
        self.recheck_waiting(now, &restarted, out);
    }

    /// Takes a message of a higher term, or answers one of a lower term, before anything else looks at it.
    /// Returns whether the message is of the current term.
    fn observe_term(&mut self, now: Instant, term: Term, out: &mut Out) -> bool {
        if term > self.term {
            self.become_follower(now, term, None, out);
        }
        term == self.term
    }

    fn receive(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Out) {
        if !self.config.members.contains(&from) || from == self.config.node {
            tracing::debug!(%from, kind = trilemma_core::Message::kind(&message), "not a member; ignored");
            return;
        }
        if self.contradiction.is_some() {
            return self.receive_withdrawn(now, from, message, out);
        }
        match message {
            Message::PreVote { term, end } => self.on_pre_vote(now, from, term, end, out),
            Message::PreVoteReply { asked, term, granted } => {
                self.on_pre_vote_reply(now, from, asked, term, granted, out);
            }
            Message::Vote { term, end } => self.on_vote(now, from, term, end, out),
            Message::VoteReply { term, granted } => self.on_vote_reply(now, from, term, granted, out),
            Message::Append {
                term,
                round,
                prev,
                entries,
                commit,
            } => {
                self.on_append(now, from, term, round, prev, entries, commit, out);
            }
            Message::AppendReply { term, round, result } => {
                if self.observe_term(now, term, out) {
                    self.on_append_reply(now, from, round, result, out);
                }
            }
            Message::Snapshot {
                term,
                round,
                at,
                part,
                last,
                chunk,
            } => {
                self.on_snapshot(now, from, term, round, (at, part, last, chunk), out);
            }
            Message::SnapshotReply {
                term,
                round,
                at,
                next,
            } => {
                if self.observe_term(now, term, out) {
                    self.on_snapshot_reply(now, from, round, at, next, out);
                }
            }
            Message::Forward {
                id,
                timeout_ms,
                request,
            } => {
                let deadline = now + Duration::from_millis(timeout_ms.into());
                self.on_forward(now, from, id, deadline, request, out);
            }
            Message::ForwardReply { id, answer } => self.on_forward_reply(now, from, id, answer, out),
        }
    }

    /// Requests are answered, whatever became of consensus; all else is consensus.
    fn receive_withdrawn(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Out) {
        match message {
            Message::Forward { id, .. } => {
                let answer = Answer::NotLeader;
                out.send(from, Message::ForwardReply { id, answer });
            }
            Message::ForwardReply { id, answer } => self.on_forward_reply(now, from, id, answer, out),
            _ => {}
        }
    }

    /// What a leader's status says of followers that need more of the log than it may keep.
    fn outrun(&self) -> String {
        let Role::Leader(leader) = &self.role else {
            return String::new();
        };
        let outrun = leader.followers.iter().filter(|(_, follower)| follower.is_outrun);
        let outrun: NodeSet = outrun.map(|(peer, _)| *peer).collect();
        if outrun.is_empty() {
            return String::new();
        }
        let bytes = self.config.pinned_bytes_max;
        format!(
            "node {outrun} needs more of the log than the {bytes} bytes that are kept for it, so it gets a snapshot"
        )
    }

    fn wake(&mut self, now: Instant, out: &mut Out) {
        self.expire(now, out);
        if self.contradiction.is_some() {
            self.election_at = Instant::NEVER;
            return;
        }
        match &self.role {
            Role::Leader(_) => self.leader_tick(now, out),
            _ if now >= self.election_at => self.start_pre_vote(now, out),
            _ => {}
        }
    }

    /// Sends what this turn has gathered.
    fn flush(&mut self, now: Instant, out: &mut Out) {
        self.dirty = false;
        self.replicate(now, out);
    }
}

impl Raft {
    fn replay_part(&mut self, part: &[u8]) -> Result<(), Corrupt> {
        let sessions_max = self.config.sessions_max;
        let loader = self
            .replayed_parts
            .get_or_insert_with(|| TableLoader::new(sessions_max));
        loader.add(part)
    }
}

impl Protocol for Raft {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        let sessions_max = self.config.sessions_max;
        match codec::decode(chunk)? {
            Chunk::Head { term, vote, base } => {
                if base.index > INDEX_MAX {
                    let base = base.index;
                    return Err(Corrupt(format!(
                        "a log that begins at {base}, beyond {INDEX_MAX}"
                    )));
                }
                (self.term, self.vote, self.log) = (term, vote, Log::at(base));
                self.restoring = Some(Restoring {
                    table: TableLoader::new(sessions_max),
                });
            }
            Chunk::Table(bytes) => {
                let restoring = self
                    .restoring
                    .as_mut()
                    .ok_or_else(|| Corrupt("a chunk before the head".into()))?;
                restoring.table.add(&bytes)?;
            }
            Chunk::Entries(entries) => self.log.extend(entries),
            Chunk::Part(part) => self.replay_part(&part)?,
            Chunk::End => {
                let restoring = self
                    .restoring
                    .take()
                    .ok_or_else(|| Corrupt("an end before the head".into()))?;
                self.table = restoring
                    .table
                    .finish()
                    .ok_or_else(|| Corrupt("no table in it".into()))?;
                self.commit = self.applied();
                let held = self.log.base().index..=self.log.last();
                if !held.contains(&self.commit) {
                    let applied = self.commit;
                    return Err(Corrupt(format!(
                        "applied up to {applied}, the log holds {held:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        if self.restoring.is_some() {
            return Err(Corrupt("a record after a checkpoint without its end".into()));
        }
        match record {
            Record::HardState { term, vote } => {
                if term < self.term {
                    return Err(Corrupt(format!("{term} follows {}", self.term)));
                }
                (self.term, self.vote) = (term, vote);
            }
            Record::Entries { first, entries } => {
                if first > self.log.last().next() || first <= self.commit {
                    let (last, commit) = (self.log.last(), self.commit);
                    return Err(Corrupt(format!(
                        "entries from {first}, the log ends at {last}, committed {commit}"
                    )));
                }
                self.log.truncate(first);
                self.log.extend(entries);
            }
            Record::SnapshotPart(part) => self.replay_part(&part)?,
            Record::SnapshotEnd { at } => {
                let parts = self.replayed_parts.take();
                let parts = parts
                    .ok_or_else(|| Corrupt(format!("the end of a snapshot at {} without parts", at.index)))?;
                let table = transfer::finish(parts, at).map_err(Corrupt)?;
                if at.index <= self.applied() {
                    return Err(Corrupt(format!(
                        "a snapshot at {} after {} was applied",
                        at.index,
                        self.applied()
                    )));
                }
                self.install(at, table);
            }
        }
        Ok(())
    }

    fn step(&mut self, now: Now, input: Input<Message>, out: &mut Out) {
        let now = now.instant;
        match input {
            Input::Start => {
                // Of a transfer that broke off: the next one begins with its first part.
                self.replayed_parts = None;
                self.reset_election_timer(now);
                if self.config.members.len() == 1 {
                    self.start_pre_vote(now, out);
                }
            }
            Input::Propose(proposal) => self.propose(now, proposal, out),
            Input::Receive { from, message } => self.receive(now, from, message, out),
            Input::Persisted { up_to } => {
                self.log.persisted(up_to);
                self.persisted = self.persisted.max(up_to);
                self.disk.persisted(now, up_to);
                self.advance_commit(now, out);
                self.apply(now, out);
            }
            Input::Peers(view) => self.on_peers(now, view, out),
            Input::Wake => {
                self.flush(now, out);
                self.wake(now, out);
            }
        }
        self.disk.appended(now, out.last_append());
        self.arm(now, out);
    }

    fn checkpoint(&self) -> Checkpoint {
        /// Entries of one chunk: at most a few MiB even with the largest commands in a row being split by bytes.
        const ENTRIES_PER_CHUNK: usize = 1024;
        let chunk_bytes = self.config.chunk_bytes.clamp(1, CHUNK_BYTES);
        // A leader's entries that wait for the end of the turn are in no record yet, and may never be.
        let log = self
            .log
            .for_checkpoint(self.appended(), self.applied(), &self.config);
        let head = Chunk::Head {
            term: self.term,
            vote: self.vote,
            base: log.base(),
        };
        let table = self
            .table
            .chunks(chunk_bytes)
            .map(|chunk| Chunk::Table(chunk.into()));
        let mut entries: VecDeque<Entry> = log.into_entries();
        let entries = std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while chunk.len() < ENTRIES_PER_CHUNK
                && bytes < chunk_bytes
                && let Some(entry) = entries.pop_front()
            {
                bytes += entry.size();
                chunk.push(entry);
            }
            (!chunk.is_empty()).then_some(Chunk::Entries(chunk))
        });
        let parts = self.incoming.as_ref().map_or(&[][..], Incoming::parts).to_vec();
        let chunks = std::iter::once(head)
            .chain(table)
            .chain(entries)
            .chain(parts.into_iter().map(Chunk::Part))
            .chain([Chunk::End]);
        Checkpoint::new(chunks.map(|chunk| codec::encode_vec(&chunk)), record::check_chunk)
    }

    fn status(&self, _now: Now) -> LiveStatus {
        let missing = self.view.missing(self.config.node, &self.config.members);
        let leader = self.leader();
        let reaches_leader = leader.is_some_and(|l| l == self.config.node || self.view.is_connected(l));
        let can = self.reaches_majority() && reaches_leader && self.leader_is_ready();
        let why = if let Some(contradiction) = &self.contradiction {
            contradiction.to_string()
        } else if !self.reaches_majority() {
            format!("no majority can be reached; unreachable: {missing}")
        } else if leader.is_none() {
            "no leader is known, an election is under way".into()
        } else if !can {
            "the leader cannot be reached, or has just been elected".into()
        } else {
            self.outrun()
        };
        let role = match self.role {
            _ if self.contradiction.is_some() => "withdrawn",
            Role::Follower { .. } => "follower",
            Role::PreCandidate(_) => "pre-candidate",
            Role::Candidate(_) => "candidate",
            Role::Leader(_) => "leader",
        };
        let details = [
            ("term", self.term.0),
            ("commit", self.commit.0),
            ("last", self.log.last().0),
            ("durable", self.log.durable().0),
            ("entries in memory", self.log.len() as u64),
        ];
        LiveStatus {
            can_write: can,
            can_read: can,
            why,
            missing,
            leader,
            role: role.into(),
            version: Version(self.applied().0),
            keys: self.table.len() as u64,
            in_doubt: 0,
            details: details
                .map(|(name, number)| (name.to_owned(), number.to_string()))
                .into(),
        }
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Vec<TableEntry> {
        let entry = |(key, state): (&trilemma_core::Key, &trilemma_core::Versioned)| TableEntry {
            key: key.clone(),
            state: state.clone(),
        };
        self.table.range(range).take(limit).map(entry).collect()
    }
}

/// A map by peer.
type ByPeer<T> = BTreeMap<NodeId, T>;

#[cfg(test)]
mod tests;
