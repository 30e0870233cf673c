//! What a leader knows of one follower, and how it feeds it.

use std::collections::VecDeque;
use std::time::Duration;

use trilemma_core::{Instant, NodeId};

use crate::config::RaftConfig;
use crate::log::Index;
use crate::message::{LogEnd, Message};
use crate::shared::Shared;
use crate::transfer::{Acknowledged, Outgoing, Part};

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    /// Its log equals ours up to here, durably.
    pub(super) matched: Index,
    /// The next entry to send. Always above `matched`.
    next: Index,
    state: State,
    /// When it last answered in this term.
    pub(super) heard: Instant,
    /// The newest round that it has echoed.
    pub(super) round: u64,
    /// The commit index that it was last sent.
    sent_commit: Index,
    /// The log was trimmed although it is there and needs what was dropped: the budget was spent.
    pub(super) is_outrun: bool,
    /// A transfer that has ended, with the state that it was of.
    ended: Option<Box<Outgoing>>,
}

/// The entries of one message: those after `prev`, up to `last`. None, if that is `prev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) prev: LogEnd,
    pub(super) last: Index,
    pub(super) bytes: usize,
}

/// How a follower is fed.
#[derive(Debug)]
enum State {
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

impl Progress {
    /// Nothing is known but that the leader's log was as long as before `noop`.
    pub(super) fn new(noop: Index, now: Instant) -> Self {
        Self {
            matched: Index(0),
            next: noop,
            state: State::Probe { sent: None },
            heard: now,
            round: 0,
            sent_commit: Index(0),
            is_outrun: false,
            ended: None,
        }
    }

    /// It needs what stands after this entry.
    pub(super) fn needed(&self) -> Index {
        match &self.state {
            State::Snapshot(outgoing) => outgoing.at().index.max(self.matched),
            State::Probe { .. } | State::Replicate { .. } => self.matched,
        }
    }

    /// The log that began after `before` begins after `base` now. Returns whether that is news for this follower, which
    /// needs what is gone.
    pub(super) fn note_outrun(&mut self, before: Index, base: Index) -> bool {
        let needed = self.needed();
        let is_news = before <= needed && needed < base && !self.is_outrun;
        self.is_outrun |= is_news;
        is_news
    }

    pub(super) fn restart_probe(&mut self) {
        // Before anything has matched, the last guess is better than the beginning of the log.
        if self.matched > Index(0) {
            self.next = self.matched.next();
        }
        let before = std::mem::replace(&mut self.state, State::Probe { sent: None });
        if let State::Snapshot(outgoing) = before {
            self.ended = Some(outgoing);
        }
    }

    /// The transfer under way, or one that has ended.
    pub(super) fn into_transfer(self) -> Option<Box<Outgoing>> {
        match self.state {
            State::Snapshot(outgoing) => Some(outgoing),
            State::Probe { .. } | State::Replicate { .. } => self.ended,
        }
    }

    /// A transfer that has ended, for the host to free.
    pub(super) fn take_ended(&mut self) -> Option<Box<Outgoing>> {
        self.ended.take()
    }

    /// A message without entries. The previous entry is one that the follower is known to have, so it never fails.
    pub(super) fn heartbeat(&mut self, shared: &Shared, round: u64) -> Message {
        // An entry that is compacted cannot be named; the beginning of the log can.
        let prev = shared.log.term(self.matched).map(|term| LogEnd {
            term,
            index: self.matched,
        });
        let prev = prev.unwrap_or_default();
        let commit = shared.commit.min(prev.index);
        self.sent_commit = self.sent_commit.max(commit);
        Message::Append {
            term: shared.term(),
            round,
            prev,
            entries: Vec::new(),
            commit,
        }
    }

    /// Whether it has not been sent the commit index, and no message is on its way that will bring it.
    pub(super) fn is_commit_news(&self, shared: &Shared) -> bool {
        let is_idle = matches!(&self.state, State::Replicate { inflight, .. } if inflight.is_empty());
        let is_behind = self.sent_commit < shared.commit.min(self.matched);
        is_idle && is_behind && shared.log.term(self.matched).is_some()
    }

    /// The entries of the next message with entries, if it may have one now.
    pub(super) fn feed(&mut self, shared: &Shared, now: Instant) -> Option<Batch> {
        assert!(
            self.next > self.matched,
            "next {} must be above matched {}",
            self.next,
            self.matched
        );
        let (log, config) = (&shared.log, &shared.config);
        let prev = self.next.prev();
        let prev = LogEnd {
            term: log.term(prev)?,
            index: prev,
        };
        let (last, bytes) = match &mut self.state {
            State::Snapshot(_) | State::Probe { sent: Some(_) } => return None,
            State::Probe { sent } => {
                *sent = Some(now);
                log.extent(self.next, config)
            }
            State::Replicate { inflight, since } => {
                let bytes: usize = inflight.iter().map(|(_, bytes)| bytes).sum();
                if inflight.len() >= config.inflight_max || bytes >= config.inflight_bytes {
                    return None;
                }
                let (last, bytes) = log.extent(self.next, config);
                if last == prev.index {
                    return None;
                }
                if inflight.is_empty() {
                    *since = now;
                }
                inflight.push_back((last, bytes));
                self.next = last.next();
                (last, bytes)
            }
        };
        self.sent_commit = self.sent_commit.max(shared.commit.min(last));
        Some(Batch { prev, last, bytes })
    }

    /// The parts of a snapshot to send now, and what it reflects. Begins a transfer if the next entry is compacted.
    pub(super) fn transfer(&mut self, shared: &Shared, now: Instant) -> Option<(LogEnd, Vec<Part>)> {
        let is_compacted = self.next.prev() < shared.log.base().index;
        if is_compacted && !matches!(self.state, State::Snapshot(_)) {
            let index = shared.applied();
            let term = shared.log.term(index).expect("the last applied entry is held");
            let at = LogEnd { term, index };
            assert!(at.index >= self.next, "a snapshot brings what is compacted");
            let outgoing = Outgoing::new(at, &shared.table, shared.config.chunk_bytes, now);
            self.state = State::Snapshot(Box::new(outgoing));
            self.is_outrun = false;
        }
        let State::Snapshot(outgoing) = &mut self.state else {
            return None;
        };
        let (window, timeout) = (shared.config.chunks_inflight, shared.config.election_timeout * 4);
        // What it pins of the log must not run out before it ends.
        let hurries = shared.log.bytes() > shared.config.pinned_bytes_max / 2;
        let pace = (!hurries).then_some(shared.config.transfer_rate);
        Some((outgoing.at(), outgoing.take_due(now, window, pace, timeout)))
    }

    /// When it may be sent a further part of a snapshot.
    pub(super) fn transfer_at(&self, config: &RaftConfig) -> Instant {
        match &self.state {
            State::Snapshot(outgoing) => outgoing.due(config.chunks_inflight),
            State::Probe { .. } | State::Replicate { .. } => Instant::NEVER,
        }
    }

    pub(super) fn on_match(&mut self, now: Instant, matched: Index) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        match &mut self.state {
            // A heartbeat proves less than the probe asks for, and must not make the leader send everything again.
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

    pub(super) fn on_mismatch(&mut self, hint: Index) {
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

    /// It asks for a part of the snapshot at `at`.
    pub(super) fn on_part(&mut self, now: Instant, at: LogEnd, next: u32, patience: Duration) {
        if let State::Snapshot(outgoing) = &mut self.state
            && outgoing.at() == at
            && outgoing.on_reply(now, next, patience) == Acknowledged::Lost
        {
            self.restart_probe();
        }
    }

    /// Sends again what has had no answer for a timeout.
    pub(super) fn notice_loss(&mut self, now: Instant, timeout: Duration) {
        let lost = match &self.state {
            State::Probe { sent } => sent.is_some_and(|sent| now.since(sent) > timeout),
            State::Replicate { inflight, since } => !inflight.is_empty() && now.since(*since) > timeout,
            State::Snapshot(_) => false,
        };
        if lost {
            self.restart_probe();
        }
    }

    pub(super) fn check(&self, peer: NodeId, handed: Index, newest_round: u64) {
        let (next, matched) = (self.next, self.matched);
        assert!(
            next > matched,
            "next {next} of node {peer} must be above matched {matched}"
        );
        assert!(
            matched <= handed,
            "node {peer} has {matched}, our records go up to {handed}"
        );
        assert!(
            self.sent_commit <= handed,
            "node {peer} was sent the commit index {}",
            self.sent_commit
        );
        assert!(
            self.round <= newest_round,
            "node {peer} has echoed round {}",
            self.round
        );
        assert!(
            next <= handed.next(),
            "node {peer} is to get {next}, our records go up to {handed}"
        );
        match &self.state {
            State::Probe { .. } => {}
            State::Replicate { inflight, .. } => {
                let last = inflight.back().map(|(last, _)| *last);
                assert!(
                    last.is_none_or(|last| last < next),
                    "node {peer} was sent {last:?} and is to get {next}"
                );
                let first = inflight.front().map(|(last, _)| *last);
                assert!(
                    first.is_none_or(|first| first > matched),
                    "node {peer} has {matched}, and {first:?} counts as under way"
                );
            }
            State::Snapshot(outgoing) => {
                assert!(
                    outgoing.at().index <= handed,
                    "node {peer} gets a state at {}, our records go up to {handed}",
                    outgoing.at().index
                );
                outgoing.check();
            }
        }
    }
}
