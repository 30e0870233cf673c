//! A follower: it takes entries and snapshots of its leader, or waits for one (Raft sections 5.2, 5.3 and 7).

use bytes::Bytes;
use trilemma_core::{Instant, NodeId};

use crate::Out;
use crate::log::{Entry, INDEX_MAX, Index, Term, is_growing};
use crate::message::{AppendResult, LogEnd, Message};
use crate::record::Record;
use crate::role::Role;
use crate::shared::Shared;
use crate::transfer::Incoming;
use crate::withdrawn::{Contradiction, Differs, Withdrawn};

/// What a follower knows. A pre-candidate keeps it, because asking for pre-votes promises nothing.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The leader of this term, once it is known.
    leader: Option<NodeId>,
    /// When a leader of this term was last heard.
    heard: Option<Instant>,
    election_at: Instant,
    incoming: Option<Incoming>,
}

/// A leader's entries, or none: the fields of [`Message::Append`].
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) term: Term,
    pub(crate) round: u64,
    pub(crate) prev: LogEnd,
    pub(crate) entries: Vec<Entry>,
    pub(crate) commit: Index,
}

/// A part of a leader's state: the fields of [`Message::Snapshot`].
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) term: Term,
    pub(crate) round: u64,
    pub(crate) at: LogEnd,
    pub(crate) part: u32,
    pub(crate) last: bool,
    pub(crate) chunk: Bytes,
}

impl Follower {
    /// A node that knows no leader and waits for one until `election_at`.
    pub(crate) fn waiting(election_at: Instant) -> Self {
        Self {
            leader: None,
            heard: None,
            election_at,
            incoming: None,
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn election_at(&self) -> Instant {
        self.election_at
    }

    pub(crate) fn set_election_at(&mut self, election_at: Instant) {
        self.election_at = election_at;
    }

    /// The snapshot that is being received.
    pub(crate) fn incoming(&self) -> Option<&Incoming> {
        self.incoming.as_ref()
    }

    /// Gives away what has come of a snapshot that nobody needs any more: half a state may be in it.
    pub(crate) fn give_up_transfer(&mut self, effects: &mut Out) {
        if let Some(incoming) = self.incoming.take() {
            effects.discard(incoming);
        }
    }

    /// Whether a leader was heard so recently that nobody should stand for election.
    pub(crate) fn hears_leader(&self, shared: &Shared, now: Instant) -> bool {
        let timeout = shared.config.election_timeout;
        self.heard.is_some_and(|heard| now.since(heard) < timeout)
    }

    /// Knows no leader any more.
    pub(crate) fn forget_leader(&mut self) {
        self.leader = None;
    }

    /// Knows no leader any more, and nothing that keeps it from an election.
    pub(crate) fn forget_heard(&mut self) {
        self.leader = None;
        self.heard = None;
    }

    /// `leader` was heard in the present term.
    pub(crate) fn on_heard(&mut self, shared: &mut Shared, now: Instant, leader: NodeId) {
        assert!(
            shared.config.members.contains(&leader),
            "node {leader}, which is no member, leads"
        );
        self.leader = Some(leader);
        self.heard = Some(now);
        shared.forget_elections();
        self.election_at = shared.draw_election_at(now);
    }

    /// A message of the leader that it follows.
    pub(crate) fn on_append(
        self,
        shared: &mut Shared,
        from: NodeId,
        append: Append,
        effects: &mut Out,
    ) -> Role {
        assert_eq!(self.leader, Some(from), "only the leader's entries are taken");
        let Append {
            term,
            round,
            prev,
            entries,
            commit,
        } = append;
        let last_term = entries.last().map_or(prev.term, |entry| entry.term);
        if !is_growing(prev.term, &entries) || last_term > term {
            tracing::error!(%from, %term, "entries whose terms go back, or beyond their leader's; ignored");
            return Role::Follower(self);
        }
        let reply = |result| Message::AppendReply { term, round, result };
        match shared.log.term(prev.index) {
            // What is applied is committed, and what is committed equals the leader's log.
            _ if prev.index < shared.log.base().index => {}
            Some(ours) if ours == prev.term => {}
            Some(committed) if prev.index <= shared.commit => {
                let found = prev;
                return self.withdraw(shared, Differs::Entry { found, committed });
            }
            ours => {
                let hint = match ours {
                    Some(_) => shared.log.first_of_term(prev.index).max(shared.commit.next()),
                    None => shared.log.last().next().min(prev.index),
                };
                effects.send(from, reply(AppendResult::Mismatch(hint)));
                return Role::Follower(self);
            }
        }
        let matched = Index(prev.index.0.saturating_add(entries.len() as u64));
        if let Err(differs) = take_entries(shared, prev.index.next(), entries, effects) {
            return self.withdraw(shared, differs);
        }
        shared.advance_commit(commit.min(matched));
        if matched <= shared.log.durable() && shared.is_term_durable() {
            // It promises nothing that is not durable already, so a read round need not wait for a busy disk.
            effects.send(from, reply(AppendResult::Matched(matched)));
        } else {
            effects.send_after_append(from, reply(AppendResult::Matched(matched)));
        }
        Role::Follower(self)
    }

    /// A part of a state of the leader that it follows.
    pub(crate) fn on_snapshot(
        mut self,
        shared: &mut Shared,
        from: NodeId,
        snapshot: Snapshot,
        effects: &mut Out,
    ) -> Role {
        assert_eq!(self.leader, Some(from), "only the leader's state is taken");
        let Snapshot {
            term,
            round,
            at,
            part,
            last,
            chunk,
        } = snapshot;
        if at.index > INDEX_MAX || at.term > term {
            tracing::error!(%from, %term, "a state of an entry that its leader cannot have; ignored");
            return Role::Follower(self);
        }
        if at.index <= shared.commit {
            self.give_up_transfer(effects);
            if let Some(committed) = shared.log.term(at.index)
                && committed != at.term
            {
                let found = at;
                return self.withdraw(shared, Differs::Entry { found, committed });
            }
            // What is committed here is in the leader's log too.
            let result = AppendResult::Matched(shared.commit.min(shared.log.durable()));
            let reply = Message::AppendReply { term, round, result };
            if shared.is_term_durable() {
                effects.send(from, reply);
            } else {
                effects.send_after_append(from, reply);
            }
            return Role::Follower(self);
        }
        if !self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.is_of(from, term, at))
        {
            self.give_up_transfer(effects);
        }
        let limits = shared.config.session_limits();
        let incoming = self.incoming.take();
        let mut incoming = incoming.unwrap_or_else(|| Incoming::new(from, term, at, limits));
        incoming.keep(part, last, chunk);
        let reply = |next| Message::SnapshotReply {
            term,
            round,
            at,
            next,
        };
        if let Err(error) = incoming.read(effects) {
            tracing::error!(%from, %error, "a part of a snapshot cannot be read; all is asked for again");
            effects.send(from, reply(0));
            effects.discard(incoming);
        } else if incoming.is_whole() {
            self.finish(shared, from, (term, round, at), incoming, effects);
        } else {
            let reply = reply(incoming.next());
            if incoming.is_ahead_of_disk(shared.disk.persisted()) {
                effects.send_after_append(from, reply);
            } else {
                effects.send(from, reply);
            }
            self.incoming = Some(incoming);
        }
        Role::Follower(self)
    }

    /// Makes the state that has come its own.
    fn finish(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        (term, round, at): (Term, u64, LogEnd),
        incoming: Incoming,
        effects: &mut Out,
    ) {
        let table = match incoming.finish() {
            Ok(table) => table,
            Err(why) => {
                tracing::error!(%from, why, "a snapshot cannot be read; it is asked for again");
                let next = 0;
                return effects.send(
                    from,
                    Message::SnapshotReply {
                        term,
                        round,
                        at,
                        next,
                    },
                );
            }
        };
        let seq = effects.append(Record::SnapshotEnd { at });
        let (log, table) = shared.install(at, table);
        effects.discard(table);
        if let Some(log) = log {
            effects.discard(log);
            // The log begins with the snapshot: nothing in it, nor before it, is durable before the end mark is.
            shared.log.on_appended(seq, Index(1), at.index);
        }
        effects.reset(at.index.0);
        let result = AppendResult::Matched(at.index);
        effects.send_after_append(from, Message::AppendReply { term, round, result });
        shared.serve_version_reads(effects);
    }

    /// The leader's log differs from what is committed here: there is no answer, and no part in anything any more.
    fn withdraw(self, shared: &Shared, differs: Differs) -> Role {
        let contradiction = Contradiction {
            leader: self.leader.expect("asserted by its callers"),
            term: shared.term(),
            differs,
        };
        Withdrawn::because(contradiction, shared.node())
    }

    pub(crate) fn check(&self, shared: &Shared) {
        assert_ne!(self.leader, Some(shared.node()), "a node does not follow itself");
        assert!(
            self.leader.is_none() || self.heard.is_some(),
            "{:?} leads and was never heard",
            self.leader
        );
        if let Some(incoming) = &self.incoming {
            incoming.check(shared.term());
        }
    }
}

/// Appends what is new, and truncates only where an entry really differs: an older message that is shorter must never
/// shorten the log. Fails, and does nothing, if one differs from what is committed.
fn take_entries(
    shared: &mut Shared,
    first: Index,
    entries: Vec<Entry>,
    effects: &mut Out,
) -> Result<(), Differs> {
    let mut index = first;
    let mut rest = entries.into_iter();
    let mut new = Vec::new();
    for entry in rest.by_ref() {
        match shared.log.term(index) {
            _ if index < shared.log.base().index => {}
            Some(ours) if ours == entry.term => {}
            Some(committed) if index <= shared.commit => {
                let term = entry.term;
                let found = LogEnd { term, index };
                return Err(Differs::Entry { found, committed });
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
    assert!(index > shared.commit, "what is committed is never replaced");
    new.extend(rest);
    shared.log.truncate(index);
    shared.log.extend(new.iter().cloned());
    let seq = effects.append(Record::Entries {
        first: index,
        entries: new,
    });
    shared.log.on_appended(seq, index, shared.log.last());
    Ok(())
}
