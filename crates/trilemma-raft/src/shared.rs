//! What every role of a node works on: its log, its state, and the requests it has to answer.

use trilemma_core::pending::PendingKind;
use trilemma_core::read::Query;
use trilemma_core::table::Table;
use trilemma_core::{Instant, NodeId, NodeSet, PeerView, ReadLevel, ReadReply, Reason, Reply, Rng, Version};

use crate::Out;
use crate::apply::{self, Slice};
use crate::claims::Claims;
use crate::config::RaftConfig;
use crate::disk::Disk;
use crate::hard_state::HardState;
use crate::log::{Index, Log, Term};
use crate::message::LogEnd;
use crate::pending::Pending;
use crate::reads::VersionReads;
use crate::withdrawn::Contradiction;

/// See the module. Knows nothing of roles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RaftConfig,
    pub(crate) rng: Rng,
    pub(crate) hard: HardState,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    pub(crate) table: Table,
    pub(crate) disk: Disk,
    pub(crate) view: PeerView,
    pub(crate) pending: Pending,
    pub(crate) version_reads: VersionReads,
    pub(crate) claims: Claims,
    /// Until when this node, which is going to stop, hands leadership over; `None` if it does not.
    pub(crate) handover: Option<Instant>,
    /// Elections that this node has asked for since it last knew a leader, or met a peer again.
    elections_in_vain: u32,
}

/// The longest election timeout is the shortest and the spread, which doubles so many times at most.
const SPREAD_DOUBLINGS_MAX: u32 = 3;

impl Shared {
    pub(crate) fn new(config: RaftConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        Self {
            pending: Pending::new(&mut rng, config.election_timeout),
            table: Table::new(config.session_limits()),
            config,
            rng,
            hard: HardState::default(),
            log: Log::default(),
            commit: Index(0),
            disk: Disk::default(),
            view: PeerView::default(),
            version_reads: VersionReads::default(),
            claims: Claims::default(),
            handover: None,
            elections_in_vain: 0,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn term(&self) -> Term {
        self.hard.term()
    }

    pub(crate) fn applied(&self) -> Index {
        Index(self.table.version().0)
    }

    /// Whether a restart would begin in the present term.
    pub(crate) fn is_term_durable(&self) -> bool {
        self.hard.is_durable(self.disk.persisted())
    }

    pub(crate) fn is_disk_stalled(&self, now: Instant) -> bool {
        self.disk.is_stalled(now, self.config.disk_stall)
    }

    /// Whether it could lead: else each try would raise a term that a restart forgets and its answers spread.
    pub(crate) fn may_stand(&self, now: Instant) -> bool {
        self.is_term_durable() && !self.is_disk_stalled(now)
    }

    /// When an election timeout that begins now is over. Elections that come to nothing spread the next ones out: the
    /// network or the disks are slower than the settings say, so that the members keep disturbing each other.
    pub(crate) fn draw_election_at(&mut self, now: Instant) -> Instant {
        let shortest = self.config.election_timeout;
        let doublings = self.elections_in_vain.saturating_sub(1).min(SPREAD_DOUBLINGS_MAX);
        let spread = shortest.saturating_mul(1 << doublings);
        now + self.rng.between(shortest, shortest.saturating_add(spread))
    }

    /// Another election is asked for.
    pub(crate) fn on_election(&mut self) {
        self.elections_in_vain = self.elections_in_vain.saturating_add(1);
    }

    /// There is a leader, or somebody is back who may make one.
    pub(crate) fn forget_elections(&mut self) {
        self.elections_in_vain = 0;
    }

    /// Whether enough members can be reached from here to do anything.
    pub(crate) fn reaches_majority(&self) -> bool {
        let peers = self.config.peers();
        let connected = peers.filter(|peer| self.view.is_connected(*peer)).count();
        connected + 1 >= self.config.majority()
    }

    pub(crate) fn no_quorum(&self) -> Reason {
        let missing = self.view.missing(self.config.node, &self.config.members);
        let of = self.config.members.len();
        Reason::NoQuorum {
            have: (of - missing.len()) as u32,
            need: self.config.majority() as u32,
            of: of as u32,
            missing,
        }
    }

    /// Commits up to `index`, as far as the log goes.
    pub(crate) fn advance_commit(&mut self, index: Index) {
        self.commit = self.commit.max(index.min(self.log.last()));
    }

    /// Applies what is committed and durable here, as a node that does not lead. Returns what shows that the state is not
    /// the leader's, and serves nobody then.
    pub(crate) fn apply(&mut self, effects: &mut Out) -> Option<Contradiction> {
        let mut slice = Slice::to_apply(&self.config);
        while apply::next(self, &mut slice, |_| NodeSet::default(), effects).is_some() {
            if let Some(contradiction) = self.claims.compare(&self.table) {
                return Some(contradiction);
            }
        }
        self.go_on(effects);
        self.trim(Index(u64::MAX));
        self.serve_version_reads(effects);
        None
    }

    /// Asks for another turn if there is more to apply.
    pub(crate) fn go_on(&self, effects: &mut Out) {
        if self.applied() < apply::ready(self) {
            effects.go_on();
        }
    }

    /// Drops applied entries that nobody is expected to need, which are those up to `needed`, or that would take too much
    /// memory.
    pub(crate) fn trim(&mut self, needed: Index) {
        self.log.trim(self.applied(), needed, &self.config);
    }

    /// Takes a table over. Keeps what the log holds if the log agrees with it, else nothing; returns the log before if it did
    /// not, and the table before. Both take long to free.
    pub(crate) fn install(&mut self, at: LogEnd, table: Table) -> (Option<Log>, Table) {
        assert!(
            at.index > self.applied(),
            "a snapshot only ever moves the state on"
        );
        let keeps = self.log.term(at.index) == Some(at.term);
        let log = (!keeps).then(|| std::mem::replace(&mut self.log, Log::at(at)));
        let table = std::mem::replace(&mut self.table, table);
        self.commit = self.commit.max(at.index);
        (log, table)
    }

    pub(crate) fn read_reply(&self, query: &Query, achieved: ReadLevel, round_trips: u8) -> ReadReply {
        let (entries, more) = self.table.query(query);
        let achieved = match achieved {
            ReadLevel::MinVersion(_) => ReadLevel::MinVersion(Version(self.applied().0)),
            other => other,
        };
        ReadReply {
            entries,
            more,
            version: Version(self.applied().0),
            achieved,
            served_by: self.config.node,
            round_trips,
        }
    }

    /// Serves the reads whose version the state has reached.
    pub(crate) fn serve_version_reads(&mut self, effects: &mut Out) {
        for (read, level) in self.version_reads.release(self.applied()) {
            let reply = self.read_reply(&read.query, level, 0);
            read.reply_to.answer(Reply::Read(Ok(reply)), effects);
        }
    }

    /// Answers what is overdue, but for the reads that only a leader has.
    pub(crate) fn expire(&mut self, now: Instant, effects: &mut Out) {
        self.pending.expire(now, effects);
        for reply_to in self.version_reads.expire(now) {
            reply_to.answer(PendingKind::Read.refused(Reason::Deadline), effects);
        }
    }

    pub(crate) fn check(&self) {
        let (applied, commit, last) = (self.applied(), self.commit, self.log.last());
        let base = self.log.base().index;
        assert!(
            base <= applied && applied <= commit && commit <= last,
            "the log begins after {base}, {applied} is applied, {commit} committed, {last} the last"
        );
        let (term, end) = (self.term(), self.log.end());
        assert!(end.term <= term, "an entry of {} at {last}, in {term}", end.term);
        assert!(
            self.config.members.contains(&self.node()),
            "node {} is no member",
            self.node()
        );
        self.log.check(self.disk.appended());
        self.disk.check();
        self.hard.check(self.disk.appended());
        self.pending.check(last);
        self.version_reads.check(applied);
    }
}
