//! A leader: it orders requests, replicates and commits entries, and proves its leadership for reads.
//!
//! Raft sections 5.3 and 5.4.2; reads are section 6.4 of the dissertation.

mod progress;

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::{Instant, NodeId, NodeSet, ReadLevel, ReadRequest, Reason, Reply, UnknownCause};

use crate::Out;
use crate::apply::{self, Slice};
use crate::claims::HEARTBEATS_BETWEEN;
use crate::config::RaftConfig;
use crate::follower::Follower;
use crate::log::{Entry, Index, Payload};
use crate::message::{AppendResult, LogEnd, Message};
use crate::pending::{InLog, ReplyTo, lost};
use crate::reads::{READS_MAX, Read, Rounds};
use crate::record::Record;
use crate::role::Role;
use crate::shared::Shared;

use progress::{Batch, Progress};

/// What only a leader has.
#[derive(Debug)]
pub(crate) struct Leader {
    followers: BTreeMap<NodeId, Progress>,
    /// The first entry of this term.
    noop: Index,
    /// Bytes of the requests in the log that are not applied. Those whose clients have given up are still there.
    unapplied: usize,
    rounds: Rounds,
    /// At the same time in all keyspaces of a node: their heartbeats share a turn, and a frame to each peer.
    next_heartbeat: Instant,
    /// When followers are notified of the commit index, unless a message brings it before; `NEVER` if they know.
    commit_news_at: Instant,
    /// When a majority was last heard.
    check_at: Instant,
    /// The follower that was asked to take over last.
    successor: Option<NodeId>,
    /// Whether that was in this heartbeat interval: it may still do so.
    is_asked: bool,
    /// Heartbeats until followers are sent a digest of the state.
    claim_in: u32,
}

impl Leader {
    /// Begins to lead, with an entry of its own: nothing is served before it is committed.
    pub(crate) fn start(shared: &mut Shared, now: Instant, effects: &mut Out) -> Self {
        let term = shared.term();
        assert_eq!(
            shared.hard.vote(),
            Some(shared.node()),
            "a leader has its own vote"
        );
        tracing::info!(node = %shared.node(), %term, "became leader");
        shared.forget_elections();
        let payload = Payload::Noop;
        let noop = shared.log.push(Entry { term, payload });
        let progress = |peer| (peer, Progress::new(noop, now));
        let mut leader = Self {
            followers: shared.config.peers().map(progress).collect(),
            noop,
            unapplied: 0,
            rounds: Rounds::default(),
            next_heartbeat: now.next_multiple(shared.config.heartbeat),
            commit_news_at: Instant::NEVER,
            check_at: now,
            successor: None,
            is_asked: false,
            claim_in: HEARTBEATS_BETWEEN,
        };
        leader.send_heartbeats(shared, effects);
        leader
    }

    /// Up to where the log of another voter is known to be durable and equal to this leader's.
    pub(crate) fn matched(&self, voter: NodeId) -> Option<Index> {
        self.followers.get(&voter).map(|progress| progress.matched)
    }

    /// Whether it has committed an entry of its term; before, it serves nothing.
    pub(crate) fn is_ready(&self, shared: &Shared) -> bool {
        shared.applied() >= self.noop
    }

    /// The followers that need more of the log than is kept for them.
    pub(crate) fn outrun(&self) -> NodeSet {
        let outrun = self.followers.iter().filter(|(_, progress)| progress.is_outrun);
        outrun.map(|(peer, _)| *peer).collect()
    }

    pub(crate) fn wake_at(&self, config: &RaftConfig) -> Instant {
        let check_at = self.check_at + config.election_timeout;
        let news_at = self.next_heartbeat.min(self.commit_news_at);
        let transfers = self
            .followers
            .values()
            .map(|progress| progress.transfer_at(config));
        let parts_at = transfers.min().unwrap_or(Instant::NEVER);
        news_at.min(parts_at).min(check_at).min(self.rounds.due())
    }

    /// Starts over with a follower whose process has restarted.
    pub(crate) fn probe(&mut self, node: NodeId) {
        if let Some(progress) = self.followers.get_mut(&node) {
            progress.restart_probe();
        }
    }

    /// Heartbeats, the check of its majority and of its disk, and messages that were lost. Fails if it cannot do its work,
    /// and must not keep others from it.
    pub(crate) fn on_tick(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        effects: &mut Out,
    ) -> Result<(), &'static str> {
        let timeout = shared.config.election_timeout;
        if shared.is_disk_stalled(now) {
            return Err("its disk makes no progress");
        }
        if now >= self.check_at + timeout {
            self.check_at = now;
            let heard = |progress: &&Progress| now.since(progress.heard) <= timeout * 2;
            if self.followers.values().filter(heard).count() + 1 < shared.config.majority() {
                return Err("it hears no majority");
            }
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now.next_multiple(shared.config.heartbeat);
            for progress in self.followers.values_mut() {
                progress.notice_loss(now, timeout);
            }
            self.send_heartbeats(shared, effects);
            self.claim_state(shared, effects);
            // The message may be lost, or the follower be unable to stand.
            self.is_asked = false;
        }
        Ok(())
    }

    /// Answers reads that are overdue.
    pub(crate) fn expire(&mut self, now: Instant, effects: &mut Out) {
        for reply_to in self.rounds.expire(now) {
            reply_to.answer(PendingKind::Read.refused(Reason::Deadline), effects);
        }
    }

    /// Shows every follower that this node leads.
    fn send_heartbeats(&mut self, shared: &Shared, effects: &mut Out) {
        let round = self.rounds.newest();
        for (peer, progress) in &mut self.followers {
            effects.send(*peer, progress.heartbeat(shared, round));
        }
    }

    /// Tells every follower what the state is, with one heartbeat of many.
    fn claim_state(&mut self, shared: &Shared, effects: &mut Out) {
        if self.claim_in > 0 {
            self.claim_in -= 1;
            return;
        }
        self.claim_in = HEARTBEATS_BETWEEN - 1;
        let (term, at, digest) = (shared.term(), shared.applied(), shared.table.digest());
        for peer in self.followers.keys() {
            effects.send(*peer, Message::StateDigest { term, at, digest });
        }
    }

    /// The turn's inputs are over: commits and applies what acknowledgements and the disk allow, makes new entries durable
    /// here, and sends them to the followers that may take them. All requests of a turn share one record, one message to
    /// each follower, and one read round.
    pub(crate) fn end_turn(&mut self, shared: &mut Shared, now: Instant, effects: &mut Out) {
        let begins_round = self.rounds.is_wanted();
        if begins_round {
            self.rounds.start();
        }
        // Before anything is sent, so that messages carry the newest commit index.
        self.advance_commit(shared);
        self.apply(shared, now, effects);
        while let Some((first, entries)) = shared.log.next_to_hand(&shared.config) {
            let last = Index(first.0 + entries.len() as u64).prev();
            let seq = effects.append(Record::Entries { first, entries });
            shared.log.on_appended(seq, first, last);
        }
        assert_eq!(
            shared.log.handed(),
            shared.log.last(),
            "a turn leaves no entry behind"
        );
        if begins_round {
            self.send_heartbeats(shared, effects);
        }
        self.feed(shared, now, effects);
        self.tell_commit(shared, now, effects);
        self.transfer(shared, now, effects);
        self.hand_over(shared, effects);
    }

    /// Sends each follower what it may have now. Those that get the same entries, as a rule all, get one message, which is
    /// encoded once.
    fn feed(&mut self, shared: &Shared, now: Instant, effects: &mut Out) {
        let mut batches: Vec<(Batch, Vec<NodeId>)> = Vec::new();
        for (peer, progress) in &mut self.followers {
            let mut bytes = 0;
            while let Some(batch) = progress.feed(shared, now) {
                match batches.iter_mut().find(|(known, _)| *known == batch) {
                    Some((_, peers)) => peers.push(*peer),
                    None => batches.push((batch, vec![*peer])),
                }
                bytes += batch.bytes;
                if bytes >= shared.config.feed_bytes {
                    // To encode all that may be in flight would take long.
                    effects.go_on();
                    break;
                }
            }
            if let Some(outgoing) = progress.take_ended() {
                effects.discard(*outgoing);
            }
        }
        // Each gets its own in their order, those that it shares among them.
        batches.sort_by_key(|(batch, _)| batch.last);
        let (term, round, commit) = (shared.term(), self.rounds.newest(), shared.commit);
        for (Batch { prev, last, .. }, peers) in batches {
            let entries = shared.log.slice(prev.index.next(), last);
            let message = Message::Append {
                term,
                round,
                prev,
                entries,
                commit,
            };
            effects.send_to_all(&peers, message);
        }
    }

    /// Asks a follower to take over, if this node is going to stop: one that is there and has all of the log, once all of it
    /// is applied here and everybody who waits for it is answered.
    fn hand_over(&mut self, shared: &Shared, effects: &mut Out) {
        let last = shared.log.last();
        if shared.handover.is_none() || self.is_asked || shared.applied() < last {
            return;
        }
        let can_lead = |(peer, progress): &(&NodeId, &Progress)| {
            progress.matched == last && shared.view.is_connected(**peer)
        };
        // In turns: the one that was asked before has not stood.
        let after = self
            .followers
            .iter()
            .filter(|(peer, _)| Some(**peer) > self.successor);
        let next = after.chain(&self.followers).find(can_lead);
        if let Some((peer, _)) = next {
            self.successor = Some(*peer);
            self.is_asked = true;
            let term = shared.term();
            effects.send(*peer, Message::TimeoutNow { term });
        }
    }

    /// Tells followers what is committed, unless a message with entries may still bring it: of two writes in a row, the
    /// second tells of the first.
    fn tell_commit(&mut self, shared: &Shared, now: Instant, effects: &mut Out) {
        let round = self.rounds.newest();
        let mut followers = self.followers.iter_mut();
        if !followers.any(|(_, progress)| progress.is_commit_news(shared)) {
            self.commit_news_at = Instant::NEVER;
            return;
        }
        self.commit_news_at = self.commit_news_at.min(now + shared.config.commit_delay);
        if self.commit_news_at > now {
            return;
        }
        self.commit_news_at = Instant::NEVER;
        for (peer, progress) in &mut self.followers {
            if progress.is_commit_news(shared) {
                effects.send(*peer, progress.heartbeat(shared, round));
            }
        }
    }

    /// Begins transfers to followers whose next entry is compacted, and repeats parts that had no answer.
    fn transfer(&mut self, shared: &Shared, now: Instant, effects: &mut Out) {
        let (term, round) = (shared.term(), self.rounds.newest());
        for (peer, progress) in &mut self.followers {
            let Some((at, parts)) = progress.transfer(shared, now) else {
                continue;
            };
            for (part, last, chunk) in parts {
                effects.send(
                    *peer,
                    Message::Snapshot {
                        term,
                        round,
                        at,
                        part,
                        last,
                        chunk,
                    },
                );
            }
        }
    }

    /// A follower has shown that it is there. `None` if the answer is to nothing that this leader has sent.
    fn heard(&mut self, now: Instant, from: NodeId, round: u64) -> Option<&mut Progress> {
        let newest = self.rounds.newest();
        let progress = self.followers.get_mut(&from)?;
        if round > newest {
            return None;
        }
        progress.heard = now;
        progress.round = progress.round.max(round);
        Some(progress)
    }

    pub(crate) fn on_append_reply(
        &mut self,
        shared: &Shared,
        now: Instant,
        from: NodeId,
        (round, result): (u64, AppendResult),
    ) {
        let sent = shared.log.handed();
        let Some(progress) = self.heard(now, from, round) else {
            return;
        };
        match result {
            // Our log never shrinks in our term, so a follower that claims more than it was sent is wrong.
            AppendResult::Matched(matched) if matched <= sent => progress.on_match(now, matched),
            AppendResult::Matched(_) => {}
            AppendResult::Mismatch(hint) => progress.on_mismatch(hint),
        }
    }

    pub(crate) fn on_snapshot_reply(
        &mut self,
        shared: &Shared,
        now: Instant,
        from: NodeId,
        (round, at, next): (u64, LogEnd, u32),
    ) {
        let patience = shared.config.election_timeout * 4;
        let Some(progress) = self.heard(now, from, round) else {
            return;
        };
        progress.on_part(now, at, next, patience);
    }

    /// Commits what a majority holds durably, if it is of our own term (section 5.4.2; figure 8 shows why).
    fn advance_commit(&self, shared: &mut Shared) {
        let mut durable: Vec<Index> = self.followers.values().map(|progress| progress.matched).collect();
        durable.push(shared.log.durable());
        durable.sort_unstable();
        let quorum = durable[durable.len() - shared.config.majority()];
        assert!(
            quorum <= shared.log.handed(),
            "entry {quorum} is in nobody's record"
        );
        if quorum > shared.commit && shared.log.term(quorum) == Some(shared.term()) {
            shared.commit = quorum;
        }
    }

    /// Applies what is committed and durable here, and serves the reads that wait for it.
    fn apply(&mut self, shared: &mut Shared, now: Instant, effects: &mut Out) {
        let mut slice = Slice::to_apply(&shared.config);
        while let Some((index, size)) = apply::next(shared, &mut slice, |index| self.holders(index), effects)
        {
            if index > self.noop {
                self.unapplied -= size;
            }
        }
        shared.go_on(effects);
        self.trim(shared, now);
        self.release_reads(shared, effects);
        shared.serve_version_reads(effects);
    }

    /// The followers that hold an entry durably.
    pub(crate) fn holders(&self, index: Index) -> NodeSet {
        let holders = self
            .followers
            .iter()
            .filter(|(_, progress)| progress.matched >= index);
        holders.map(|(peer, _)| *peer).collect()
    }

    /// Drops applied entries that no follower which is there needs, or that would take too much memory.
    fn trim(&mut self, shared: &mut Shared, now: Instant) {
        let timeout = shared.config.election_timeout;
        let needed = self.needed(shared, now, timeout);
        let before = shared.log.base().index;
        shared.trim(needed);
        let base = shared.log.base().index;
        if base <= needed {
            return;
        }
        for (peer, progress) in &mut self.followers {
            if progress.note_outrun(before, base) {
                let (node, bytes) = (shared.config.node, shared.config.pinned_bytes_max);
                tracing::warn!(%node, %peer, bytes, "the log is trimmed although a follower needs more");
            }
        }
    }

    /// The last entry such that followers that are there need only what stands after it.
    fn needed(&self, shared: &Shared, now: Instant, timeout: Duration) -> Index {
        let is_there = |(peer, progress): &(&NodeId, &Progress)| {
            shared.view.is_connected(**peer) || now.since(progress.heard) <= timeout * 2
        };
        let needed = self
            .followers
            .iter()
            .filter(is_there)
            .map(|(_, progress)| progress.needed());
        needed.min().unwrap_or(Index(u64::MAX))
    }

    /// Puts a request into the log.
    pub(crate) fn propose(
        &mut self,
        shared: &mut Shared,
        (reply_to, kind, deadline): (ReplyTo, PendingKind, Instant),
        payload: Payload,
        effects: &mut Out,
    ) {
        let term = shared.term();
        let entry = Entry { term, payload };
        let (waiting, size) = (self.unapplied, entry.size());
        if waiting > 0 && waiting + size > shared.config.uncommitted_bytes {
            let what = format!("{waiting} bytes wait to be committed already");
            return reply_to.answer(kind.refused(Reason::Overloaded { what }), effects);
        }
        self.unapplied += size;
        let index = shared.log.push(entry);
        assert!(index > self.noop, "a leader's first entry is its own");
        let waiting = InLog {
            reply_to,
            kind,
            term,
            deadline,
        };
        shared.pending.put_in_log(index, waiting);
    }

    /// Registers a read for the next round, or answers it if it may be stale.
    pub(crate) fn read(
        &mut self,
        shared: &Shared,
        (reply_to, deadline): (ReplyTo, Instant),
        read: ReadRequest,
        effects: &mut Out,
    ) {
        if matches!(read.level, Some(ReadLevel::Local)) {
            let reply = shared.read_reply(&read.query, ReadLevel::Local, 0);
            return reply_to.answer(Reply::Read(Ok(reply)), effects);
        }
        if self.rounds.is_full() {
            let what = format!("{READS_MAX} reads wait at the leader already");
            return reply_to.answer(PendingKind::Read.refused(Reason::Overloaded { what }), effects);
        }
        let index = shared.commit.max(self.noop);
        let query = read.query;
        let read = Read {
            reply_to,
            query,
            deadline,
        };
        self.rounds.register(index, read);
    }

    /// The newest round that a majority has echoed: nobody else led when it was sent.
    pub(crate) fn confirmed_round(&self, config: &RaftConfig) -> u64 {
        let mut rounds: Vec<u64> = self.followers.values().map(|progress| progress.round).collect();
        rounds.push(self.rounds.newest());
        rounds.sort_unstable();
        rounds[rounds.len() - config.majority()]
    }

    /// Serves the reads whose round a majority has echoed and whose index is applied.
    fn release_reads(&mut self, shared: &Shared, effects: &mut Out) {
        if self.rounds.is_idle() {
            return;
        }
        let confirmed = self.confirmed_round(&shared.config);
        for Read { reply_to, query, .. } in self.rounds.release(confirmed, shared.applied()) {
            let forwarded = u8::from(matches!(reply_to, ReplyTo::Peer(..)));
            let to_followers = u8::from(shared.config.members.len() > 1);
            let reply = shared.read_reply(&query, ReadLevel::Linearizable, to_followers + forwarded);
            reply_to.answer(Reply::Read(Ok(reply)), effects);
        }
    }

    /// Steps down without a higher term: others must be able to elect somebody.
    pub(crate) fn step_down(self, shared: &mut Shared, now: Instant, why: &str, effects: &mut Out) -> Role {
        tracing::info!(node = %shared.node(), term = %shared.term(), why, "stepped down as leader");
        let election_at = shared.draw_election_at(now);
        self.end(shared, effects);
        Role::Follower(Follower::waiting(election_at))
    }

    /// Ends: what is in the log and not committed may or may not survive. What waited for the end of the turn is on no
    /// disk and was sent to nobody: it goes, or it would leave a gap in the records.
    pub(crate) fn end(self, shared: &mut Shared, effects: &mut Out) {
        let handed = shared.log.handed();
        shared.log.drop_unhanded();
        for index in shared.pending.in_log_from(shared.commit.next()) {
            if let Some(InLog { reply_to, kind, .. }) = shared.pending.take_in_log(index) {
                match reply_to {
                    _ if index <= handed => reply_to.answer(lost(kind, UnknownCause::LeaderLost), effects),
                    ReplyTo::Local(ticket) => effects.reply(ticket, kind.refused(Reason::NoLeader)),
                    ReplyTo::Peer(node, id) => effects.send(node, Message::NotLeader { id }),
                }
            }
        }
        for reply_to in self.rounds.waiting() {
            reply_to.answer(PendingKind::Read.refused(Reason::NoLeader), effects);
        }
        for outgoing in self.followers.into_values().filter_map(Progress::into_transfer) {
            effects.discard(*outgoing);
        }
    }

    pub(crate) fn check(&self, shared: &Shared) {
        assert!(
            self.noop <= shared.log.last(),
            "the leader's first entry {} is gone",
            self.noop
        );
        let (node, term) = (shared.node(), shared.term());
        assert_eq!(shared.hard.vote(), Some(node), "a leader has its own vote");
        assert_eq!(
            shared.log.end().term,
            term,
            "a leader's log ends with an entry of its own"
        );
        assert!(
            self.followers.len() + 1 == shared.config.members.len() && !self.followers.contains_key(&node),
            "a leader feeds every other member"
        );
        let handed = shared.log.handed();
        for (peer, progress) in &self.followers {
            progress.check(*peer, handed, self.rounds.newest());
        }
        self.rounds.check();
        let (first, last) = (shared.applied().max(self.noop).next().0, shared.log.last().0);
        let is_short = last.saturating_sub(first) < 64;
        debug_assert!(
            !is_short
                || self.unapplied
                    == (first..=last)
                        .filter_map(|index| shared.log.get(Index(index)))
                        .map(Entry::size)
                        .sum::<usize>(),
            "bytes that are not applied"
        );
    }
}
