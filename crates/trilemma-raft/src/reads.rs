//! Linearizable reads by read index (dissertation section 6.4), and local ones.
//!
//! The leader numbers rounds of heartbeats. A read registers for the *next* round; when a majority has echoed that
//! round in this term, nobody else led when it was sent, so the commit index at registration covers every write that
//! was acknowledged before the read began. It is served when that index is applied. A new leader waits for its first
//! entry too: before, its commit index may lag behind what its predecessor acknowledged.

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::read::Query;
use trilemma_core::{Instant, ReadLevel, ReadReply, ReadRequest, Reason, Reply, Ticket, Version};

use super::log::Index;
use super::message::Answer;
use super::proposals::{Asker, Owed, refusal};
use super::{Out, Raft, Role};

/// Reads that wait at one node, in all.
const READS_MAX: usize = 65_536;

/// A read that waits.
#[derive(Debug)]
struct Waiting {
    asker: Asker,
    query: Query,
    deadline: Instant,
}

/// The rounds of a leader and the reads that wait for them.
#[derive(Debug, Default)]
pub(super) struct Reads {
    round: u64,
    wants_round: bool,
    /// Round that must be echoed, index that must be applied.
    registered: VecDeque<(u64, Index, Waiting)>,
}

/// Reads that wait for the state to reach a version, at any node.
#[derive(Debug, Default)]
pub(super) struct AtVersion {
    waiting: BTreeMap<Index, Vec<(Waiting, ReadLevel)>>,
    count: usize,
}

impl Reads {
    /// The newest round.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn wants_round(&self) -> bool {
        self.wants_round
    }

    pub(super) fn start_round(&mut self) {
        self.round += 1;
        self.wants_round = false;
    }

    /// Who asked for the reads that wait.
    pub(super) fn askers(&self) -> impl Iterator<Item = Asker> + '_ {
        self.registered.iter().map(|(_, _, waiting)| waiting.asker)
    }
}

impl Raft {
    /// Serves a read that needs no leader, or makes it wait for its version. `false`: it needs the leader.
    pub(super) fn read_here(
        &mut self,
        ticket: Ticket,
        read: &ReadRequest,
        deadline: Instant,
        out: &mut Out,
    ) -> bool {
        match read.at_least {
            Some(ReadLevel::Local) => {
                let reply = self.read_reply(&read.query, ReadLevel::Local, 0);
                out.reply(ticket, Reply::Read(Ok(reply)));
                true
            }
            Some(level @ ReadLevel::AtLeast(version)) => {
                let waiting = Waiting {
                    asker: Asker::Local(ticket),
                    query: read.query.clone(),
                    deadline,
                };
                self.wait_for(Index(version.0), waiting, level, out);
                true
            }
            Some(ReadLevel::Linearizable) | None => false,
        }
    }

    fn wait_for(&mut self, index: Index, waiting: Waiting, level: ReadLevel, out: &mut Out) {
        if self.applied() >= index {
            let reply = self.read_reply(&waiting.query, level, 0);
            return self.answer(waiting.asker, Answer::Read(Ok(reply)), out);
        }
        if self.at_version.count >= READS_MAX {
            let what = format!("{READS_MAX} reads wait for a version already");
            return self.answer(
                waiting.asker,
                refusal(Owed::Read, Reason::Overloaded { what }),
                out,
            );
        }
        self.at_version.count += 1;
        self.reads_due = self.reads_due.min(waiting.deadline);
        self.at_version
            .waiting
            .entry(index)
            .or_default()
            .push((waiting, level));
    }

    fn read_reply(&self, query: &Query, achieved: ReadLevel, round_trips: u8) -> ReadReply {
        let (entries, more) = self.table.query(query);
        let achieved = match achieved {
            ReadLevel::AtLeast(_) => ReadLevel::AtLeast(Version(self.applied().0)),
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

    pub(super) fn read_at_leader(
        &mut self,
        _now: Instant,
        asker: Asker,
        deadline: Instant,
        read: ReadRequest,
        out: &mut Out,
    ) {
        if Self::is_local(&read) {
            let reply = self.read_reply(&read.query, ReadLevel::Local, 0);
            return self.answer(asker, Answer::Read(Ok(reply)), out);
        }
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.reads.registered.len() >= READS_MAX {
            let what = format!("{READS_MAX} reads wait at the leader already");
            return self.answer(asker, refusal(Owed::Read, Reason::Overloaded { what }), out);
        }
        let index = commit.max(leader.noop);
        self.reads_due = self.reads_due.min(deadline);
        leader.reads.wants_round = true;
        let round = leader.reads.round + 1;
        leader.reads.registered.push_back((
            round,
            index,
            Waiting {
                asker,
                query: read.query,
                deadline,
            },
        ));
        self.dirty = true;
    }

    /// Serves the reads whose round a majority has echoed and whose index is applied.
    pub(super) fn release_reads(&mut self, out: &mut Out) {
        let (majority, applied) = (self.config.majority(), self.applied());
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.reads.registered.is_empty() {
            return;
        }
        let mut rounds: Vec<u64> = leader.followers.values().map(|follower| follower.round).collect();
        rounds.push(leader.reads.round);
        rounds.sort_unstable();
        let echoed = rounds[rounds.len() - majority];
        let mut served = Vec::new();
        while let Some((round, index, _)) = leader.reads.registered.front()
            && *round <= echoed
            && *index <= applied
        {
            served.extend(leader.reads.registered.pop_front().map(|(_, _, waiting)| waiting));
        }
        for Waiting { asker, query, .. } in served {
            let forwarded = u8::from(matches!(asker, Asker::Peer(..)));
            let to_followers = u8::from(self.config.members.len() > 1);
            let reply = self.read_reply(&query, ReadLevel::Linearizable, to_followers + forwarded);
            self.answer(asker, Answer::Read(Ok(reply)), out);
        }
    }

    /// Serves the reads whose version the state has reached.
    pub(super) fn serve_waiting_reads(&mut self, _now: Instant, out: &mut Out) {
        while let Some(entry) = self.at_version.waiting.first_entry()
            && *entry.key() <= Index(self.table.version().0)
        {
            for (waiting, level) in entry.remove() {
                self.at_version.count -= 1;
                let reply = self.read_reply(&waiting.query, level, 0);
                self.answer(waiting.asker, Answer::Read(Ok(reply)), out);
            }
        }
    }

    /// Answers reads that are overdue.
    pub(super) fn expire_reads(&mut self, now: Instant, out: &mut Out) {
        if self.reads_due > now {
            return;
        }
        let mut due = Instant::NEVER;
        let mut overdue = Vec::new();
        for reads in self.at_version.waiting.values_mut() {
            reads.retain(|(waiting, _)| {
                let keep = waiting.deadline > now;
                due = if keep { due.min(waiting.deadline) } else { due };
                if !keep {
                    overdue.push(waiting.asker);
                }
                keep
            });
        }
        self.at_version.count -= overdue.len();
        self.at_version.waiting.retain(|_, reads| !reads.is_empty());
        if let Role::Leader(leader) = &mut self.role {
            leader.reads.registered.retain(|(_, _, waiting)| {
                let keep = waiting.deadline > now;
                due = if keep { due.min(waiting.deadline) } else { due };
                if !keep {
                    overdue.push(waiting.asker);
                }
                keep
            });
        }
        self.reads_due = due;
        for asker in overdue {
            self.answer(asker, refusal(Owed::Read, Reason::Deadline), out);
        }
    }
}
