//! Replication: the leader's view of its followers, append and acknowledge, commit and apply.
//!
//! Raft sections 5.3 and 5.4.2.

use std::collections::VecDeque;
use std::time::Duration;

use trilemma_core::{Applied, Instant, NodeId, PeerView, Version};

use super::config::RaftConfig;
use super::log::{Entry, Index, Log, Payload, Term};
use super::message::{AppendResult, LogEnd, Message};
use super::reads::Reads;
use super::record::Record;
use super::transfer::Outgoing;
use super::{ByPeer, Contradiction, Out, Raft, Role};

/// What only a leader has.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) followers: ByPeer<Follower>,
    /// The first entry of this term.
    pub(super) noop: Index,
    /// The last entry handed to our own disk.
    pub(super) appended: Index,
    /// Bytes of the requests in the log that are not applied. Those whose clients have given up are still there.
    pub(super) unapplied: usize,
    pub(super) reads: Reads,
    next_beat: Instant,
    /// When a majority was last heard.
    check_at: Instant,
}

/// What a leader knows of one follower.
#[derive(Debug)]
pub(super) struct Follower {
    /// Its log equals ours up to here, durably.
    pub(super) matched: Index,
    /// The next entry to send. Always above `matched`.
    pub(super) next: Index,
    pub(super) state: State,
    /// When it last answered in this term.
    pub(super) heard: Instant,
    /// The newest round that it has echoed.
    pub(super) round: u64,
    /// The commit index that it was last told.
    told_commit: Index,
    /// The log was trimmed although it is there and needs what was dropped: the budget was spent.
    pub(super) is_outrun: bool,
}

/// How a follower is fed.
#[derive(Debug)]
pub(super) enum State {
    /// Where its log parts from ours is not known: one message at a time.
    Probe {
        /// When a message was sent that has no answer yet.
        sent: Option<Instant>,
    },
    /// Messages follow one another without waiting.
    Replicate {
        /// Last index and bytes of each message with entries that has no answer yet.
        inflight: VecDeque<(Index, usize)>,
        /// When the oldest of them was sent, or the last answer came.
        since: Instant,
    },
    /// It gets a snapshot.
    Snapshot(Box<Outgoing>),
}

impl Leader {
    pub(super) fn new(peers: impl Iterator<Item = NodeId>, noop: Index, now: Instant) -> Self {
        let follower = |peer| {
            let state = State::Probe { sent: None };
            let follower = Follower {
                matched: Index(0),
                next: noop,
                state,
                heard: now,
                round: 0,
                told_commit: Index(0),
                is_outrun: false,
            };
            (peer, follower)
        };
        Self {
            followers: peers.map(follower).collect(),
            noop,
            appended: noop.prev(),
            unapplied: 0,
            reads: Reads::default(),
            next_beat: now,
            check_at: now,
        }
    }

    pub(super) fn wake_at(&self, config: &RaftConfig) -> Instant {
        self.next_beat.min(self.check_at + config.election_timeout)
    }

    /// The last entry such that followers that are there need only what stands after it.
    fn needed(&self, now: Instant, view: &PeerView, timeout: Duration) -> Index {
        let present = self
            .followers
            .iter()
            .filter(|(peer, follower)| view.is_connected(**peer) || now.since(follower.heard) <= timeout * 2);
        let needed = present.map(|(_, follower)| follower.needed());
        needed.min().unwrap_or(Index(u64::MAX))
    }

    /// Marks the followers that have lost entries they need because others filled the budget.
    fn note_outrun(&mut self, before: Index, base: Index, config: &RaftConfig) {
        for (peer, follower) in &mut self.followers {
            let needed = follower.needed();
            if before <= needed && needed < base && !follower.is_outrun {
                follower.is_outrun = true;
                let bytes = config.pinned_bytes_max;
                tracing::warn!(node = %config.node, %peer, bytes, "the log is trimmed although a follower needs more");
            }
        }
    }

    /// Starts over with a follower whose process has restarted.
    pub(super) fn probe(&mut self, node: NodeId) {
        if let Some(follower) = self.followers.get_mut(&node) {
            follower.restart_probe();
        }
    }
}

impl Follower {
    /// It needs what stands after this entry.
    fn needed(&self) -> Index {
        match &self.state {
            State::Snapshot(outgoing) => outgoing.at().index.max(self.matched),
            State::Probe { .. } | State::Replicate { .. } => self.matched,
        }
    }

    pub(super) fn restart_probe(&mut self) {
        // Before anything has matched, the last guess is better than the beginning of the log.
        if self.matched > Index(0) {
            self.next = self.matched.next();
        }
        self.state = State::Probe { sent: None };
    }
}

impl Raft {
    /// Heartbeats, the check of our majority and of our disk, and messages that were lost.
    pub(super) fn leader_tick(&mut self, now: Instant, out: &mut Out) {
        let (majority, timeout) = (self.config.majority(), self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if self.disk.is_stalled(now, self.config.disk_stall) {
            return self.step_down(now, "its disk makes no progress", out);
        }
        if now >= leader.check_at + timeout {
            leader.check_at = now;
            let heard = |follower: &&Follower| now.since(follower.heard) <= timeout * 2;
            if leader.followers.values().filter(heard).count() + 1 < majority {
                return self.step_down(now, "it hears no majority", out);
            }
        }
        if now >= leader.next_beat {
            leader.next_beat = now + self.config.heartbeat;
            for follower in leader.followers.values_mut() {
                follower.notice_loss(now, timeout);
            }
            self.beat(out);
            self.replicate(now, out);
        }
    }

    /// Shows every follower that we lead.
    fn beat(&mut self, out: &mut Out) {
        let (term, commit) = (self.term, self.commit);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.reads.round();
        for (peer, follower) in &mut leader.followers {
            out.send(*peer, follower.heartbeat(&self.log, term, round, commit));
        }
    }

    /// Makes new entries durable here and sends them to whoever may take them: one record, one message each.
    pub(super) fn replicate(&mut self, now: Instant, out: &mut Out) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while leader.appended < self.log.last() {
            let first = leader.appended.next();
            let entries = self
                .log
                .slice(first, self.config.append_entries_max, self.config.append_bytes);
            leader.appended = Index(leader.appended.0 + entries.len() as u64);
            let seq = out.append(Record::Entries { first, entries });
            self.log.appended(seq, first);
        }
        if leader.reads.wants_round() {
            leader.reads.start_round();
            self.beat(out);
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.reads.round();
        let (config, log, term, commit) = (&self.config, &self.log, self.term, self.commit);
        for (peer, follower) in &mut leader.followers {
            while let Some(message) = follower.feed(now, config, log, term, round, commit) {
                out.send(*peer, message);
            }
            let behind = follower.told_commit < commit.min(follower.matched);
            let is_idle = matches!(&follower.state, State::Replicate { inflight, .. } if inflight.is_empty());
            if behind && is_idle && log.term(follower.matched).is_some() {
                out.send(*peer, follower.heartbeat(log, term, round, commit));
            }
        }
        self.start_transfers(now, out);
        self.advance_commit(now, out);
        self.apply(now, out);
    }

    /// A follower's side of `Append`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one message, as the paper lists them"
    )]
    pub(super) fn on_append(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        round: u64,
        prev: LogEnd,
        entries: Vec<Entry>,
        commit: Index,
        out: &mut Out,
    ) {
        if term < self.term {
            let result = AppendResult::Mismatch(Index(0));
            return out.send(
                from,
                Message::AppendReply {
                    term: self.term,
                    round,
                    result,
                },
            );
        }
        if !self.follow(now, from, term, out) {
            return;
        }
        let reply = |result| Message::AppendReply { term, round, result };
        match self.log.term(prev.index) {
            // What is applied is committed, and what is committed equals the leader's log.
            _ if prev.index < self.log.base().index => {}
            Some(ours) if ours == prev.term => {}
            Some(committed) if prev.index <= self.commit => {
                return self.withdraw(now, from, prev, committed, out);
            }
            ours => {
                let hint = match ours {
                    Some(_) => self.log.first_of_term(prev.index).max(self.commit.next()),
                    None => self.log.last().next().min(prev.index),
                };
                return out.send(from, reply(AppendResult::Mismatch(hint)));
            }
        }
        let matched = Index(prev.index.0.saturating_add(entries.len() as u64));
        if let Err((found, committed)) = self.take_entries(prev.index.next(), entries, out) {
            return self.withdraw(now, from, found, committed, out);
        }
        self.commit = self.commit.max(commit.min(matched).min(self.log.last()));
        if matched <= self.log.durable() && self.term_is_durable() {
            // It promises nothing that is not durable already, so a read round need not wait for a busy disk.
            out.send(from, reply(AppendResult::Matched(matched)));
        } else {
            out.send_after_append(from, reply(AppendResult::Matched(matched)));
        }
        self.apply(now, out);
    }

    /// Accepts `from` as the leader of `term`, which is not below ours. `false` if that cannot be.
    pub(super) fn follow(&mut self, now: Instant, from: NodeId, term: Term, out: &mut Out) -> bool {
        if term == self.term && matches!(self.role, Role::Leader(_)) {
            tracing::error!(%from, %term, "a second leader in one term; its message is ignored");
            return false;
        }
        let known = matches!(&self.role, Role::Follower { leader: Some(leader) } if *leader == from);
        if term > self.term || !known {
            self.become_follower(now, term, Some(from), out);
        }
        self.heard_leader = Some(now);
        self.reset_election_timer(now);
        true
    }

    /// Appends what is new, and truncates only where an entry really differs: an older message that is shorter must
    /// never shorten the log. Fails, and does nothing, if one contradicts what is committed: that entry, and our term.
    fn take_entries(
        &mut self,
        first: Index,
        entries: Vec<Entry>,
        out: &mut Out,
    ) -> Result<(), (LogEnd, Term)> {
        let mut index = first;
        let mut rest = entries.into_iter();
        let mut new = Vec::new();
        for entry in rest.by_ref() {
            match self.log.term(index) {
                _ if index < self.log.base().index => {}
                Some(ours) if ours == entry.term => {}
                Some(committed) if index <= self.commit => {
                    let term = entry.term;
                    return Err((LogEnd { term, index }, committed));
                }
                _ => {
                    new.push(entry);
                    break;
                }
            }
            index = index.next();
        }
        if new.is_empty() {
            return Ok(());
        }
        new.extend(rest);
        self.log.truncate(index);
        for entry in &new {
            self.log.push(entry.clone());
        }
        let seq = out.append(Record::Entries {
            first: index,
            entries: new,
        });
        self.log.appended(seq, index);
        Ok(())
    }

    /// A leader's log differs from what is committed here: this node gives no answer, and takes no part any more.
    pub(super) fn withdraw(
        &mut self,
        now: Instant,
        leader: NodeId,
        found: LogEnd,
        committed: Term,
        out: &mut Out,
    ) {
        let term = self.term;
        let contradiction = Contradiction {
            leader,
            term,
            found,
            committed,
        };
        tracing::error!(node = %self.config.node, "{contradiction}");
        self.contradiction = Some(contradiction);
        self.incoming = None;
        self.become_follower(now, term, None, out);
        self.heard_leader = None;
        self.recheck_waiting(now, &[leader], out);
    }

    pub(super) fn on_append_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        round: u64,
        result: AppendResult,
        out: &mut Out,
    ) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let (newest, sent) = (leader.reads.round(), leader.appended);
        let Some(follower) = leader.followers.get_mut(&from) else {
            return;
        };
        if round > newest {
            return;
        }
        follower.heard = now;
        follower.round = follower.round.max(round);
        match result {
            // Our log never shrinks in our term, so a follower that claims more than it was sent is wrong.
            AppendResult::Matched(matched) if matched <= sent => follower.on_match(now, matched),
            AppendResult::Matched(_) => {}
            AppendResult::Mismatch(hint) => follower.on_mismatch(hint),
        }
        self.release_reads(out);
        self.replicate(now, out);
    }

    /// Commits what a majority holds durably, if it is of our own term (section 5.4.2; figure 8 shows why).
    pub(super) fn advance_commit(&mut self, _now: Instant, _out: &mut Out) {
        let Role::Leader(leader) = &self.role else { return };
        let mut durable: Vec<Index> = leader
            .followers
            .values()
            .map(|follower| follower.matched)
            .collect();
        durable.push(self.durable());
        durable.sort_unstable();
        let quorum = durable[durable.len() - self.config.majority()];
        if quorum > self.commit && self.log.term(quorum) == Some(self.term) {
            self.commit = quorum;
            // Followers learn it with the next message, at the end of this turn at the latest.
            self.dirty = true;
        }
    }

    /// Applies what is committed and durable here.
    pub(super) fn apply(&mut self, now: Instant, out: &mut Out) {
        let up_to = self.commit.min(self.durable());
        while self.applied() < up_to {
            let index = self.applied().next();
            let at = Version(index.0);
            let entry = self.log.get(index).expect("what is not applied is held").clone();
            if let Role::Leader(leader) = &mut self.role
                && index > leader.noop
            {
                leader.unapplied -= entry.size();
            }
            match &entry.payload {
                Payload::Noop => {
                    self.table.advance(at);
                    self.answer_applied(index, entry.term, None, out);
                }
                Payload::Write { op, command } => {
                    let effect = self.table.apply(*op, command, at);
                    if !effect.changes.is_empty() {
                        out.apply(Applied {
                            position: index.0,
                            changes: effect.changes,
                        });
                    }
                    self.answer_applied(index, entry.term, Some(effect.result), out);
                }
                Payload::Fence { op } => {
                    let result = self.table.fence(*op, at);
                    self.answer_applied(index, entry.term, Some(result), out);
                }
            }
        }
        self.trim(now);
        self.release_reads(out);
        self.serve_waiting_reads(now, out);
    }
}

impl Raft {
    /// Drops applied entries that nobody is expected to need, or that would take too much memory.
    fn trim(&mut self, now: Instant) {
        let (before, applied) = (self.log.base().index, self.applied());
        match &mut self.role {
            Role::Leader(leader) => {
                let needed = leader.needed(now, &self.view, self.config.election_timeout);
                self.log.trim(applied, needed, &self.config);
                if self.log.base().index > needed {
                    leader.note_outrun(before, self.log.base().index, &self.config);
                }
            }
            _ => self.log.trim(applied, Index(u64::MAX), &self.config),
        }
    }
}

impl Follower {
    /// A message without entries. The previous entry is one that the follower is known to have, so it never fails.
    fn heartbeat(&mut self, log: &Log, term: Term, round: u64, commit: Index) -> Message {
        // An entry that is compacted cannot be named; the beginning of the log can.
        let prev = log.term(self.matched).map(|term| LogEnd {
            term,
            index: self.matched,
        });
        let prev = prev.unwrap_or_default();
        let commit = commit.min(prev.index);
        self.told_commit = self.told_commit.max(commit);
        Message::Append {
            term,
            round,
            prev,
            entries: Vec::new(),
            commit,
        }
    }

    /// The next message with entries, if it may have one now.
    fn feed(
        &mut self,
        now: Instant,
        config: &RaftConfig,
        log: &Log,
        term: Term,
        round: u64,
        commit: Index,
    ) -> Option<Message> {
        assert!(
            self.next > self.matched,
            "next {} must be above matched {}",
            self.next,
            self.matched
        );
        let prev = self.next.prev();
        let prev = LogEnd {
            term: log.term(prev)?,
            index: prev,
        };
        let entries = match &mut self.state {
            State::Snapshot(_) | State::Probe { sent: Some(_) } => return None,
            State::Probe { sent } => {
                *sent = Some(now);
                log.slice(self.next, config.append_entries_max, config.append_bytes)
            }
            State::Replicate { inflight, since } => {
                let bytes: usize = inflight.iter().map(|(_, bytes)| bytes).sum();
                if inflight.len() >= config.inflight_max || bytes >= config.inflight_bytes {
                    return None;
                }
                let entries = log.slice(self.next, config.append_entries_max, config.append_bytes);
                let last = Index(prev.index.0 + entries.len() as u64);
                if entries.is_empty() {
                    return None;
                }
                if inflight.is_empty() {
                    *since = now;
                }
                inflight.push_back((last, entries.iter().map(Entry::size).sum()));
                self.next = last.next();
                entries
            }
        };
        let commit_told = commit.min(Index(prev.index.0 + entries.len() as u64));
        self.told_commit = self.told_commit.max(commit_told);
        Some(Message::Append {
            term,
            round,
            prev,
            entries,
            commit,
        })
    }

    fn on_match(&mut self, now: Instant, matched: Index) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        match &mut self.state {
            // A beat proves less than the probe asks for, and must not make the leader send everything again.
            State::Probe { .. } if matched.next() >= self.next => {
                self.next = self.matched.next();
                self.is_outrun = false;
                self.state = State::Replicate {
                    inflight: VecDeque::new(),
                    since: now,
                };
            }
            State::Probe { .. } => {}
            State::Replicate { inflight, since } => {
                let before = inflight.len();
                inflight.retain(|(last, _)| *last > matched);
                if inflight.len() < before {
                    *since = now;
                }
            }
            State::Snapshot(outgoing) if self.matched >= outgoing.at().index => self.restart_probe(),
            State::Snapshot(_) => {}
        }
    }

    fn on_mismatch(&mut self, hint: Index) {
        if matches!(self.state, State::Snapshot(_)) {
            return;
        }
        let before = if matches!(self.state, State::Probe { .. }) {
            self.next.prev()
        } else {
            self.next
        };
        self.next = hint.min(before).max(self.matched.next());
        self.state = State::Probe { sent: None };
    }

    /// Sends again what has had no answer for a timeout.
    fn notice_loss(&mut self, now: Instant, timeout: Duration) {
        let lost = match &self.state {
            State::Probe { sent } => sent.is_some_and(|sent| now.since(sent) > timeout),
            State::Replicate { inflight, since } => !inflight.is_empty() && now.since(*since) > timeout,
            State::Snapshot(_) => false,
        };
        if lost {
            self.restart_probe();
        }
    }
}
