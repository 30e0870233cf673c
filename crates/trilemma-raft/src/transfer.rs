//! A snapshot for a follower whose next entry is gone from the leader's log (Raft section 7).
//!
//! The leader takes its table as it is (a clone that shares memory) and sends it part by part, a few at a time, on the
//! bulk lane. The follower appends each part as it comes and reads it into a new table; an end mark after the last one
//! makes them its state, all at once. A follower that restarts half-way starts over, and so does its log: the first part
//! of a state makes replay forget the parts before it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trilemma_core::table::{Table, TableLoader};
use trilemma_core::{AppendSeq, Corrupt, Instant, NodeId};

use super::log::{Index, Log, Term};
use super::message::{AppendResult, LogEnd, Message};
use super::record::Record;
use super::replication::State;
use super::{Out, Raft, Role};

/// Most parts of a snapshot that a follower accepts, and most bytes. A state beyond it does not fit this backend.
const PARTS_MAX: u32 = 1 << 20;
const BYTES_MAX: u64 = 16 << 30;
/// Parts that a follower keeps although one before them is missing.
const PARTS_AHEAD: u32 = 64;
/// Bytes of parts that wait for a follower's disk, beyond which it asks for more only when they are durable. A sync of a
/// few MiB costs little more than one of nothing, and the log has room for many keyspaces' worth of it.
const PARTS_UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A transfer as the leader sees it.
pub(super) struct Outgoing {
    at: LogEnd,
    parts: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    /// The part behind the last one taken, to know which is the last.
    peeked: Option<Bytes>,
    /// Parts sent and not acknowledged: number, whether it is the last, bytes.
    inflight: VecDeque<(u32, bool, Bytes)>,
    next: u32,
    sent: Instant,
    /// When a part was last acknowledged for the first time.
    progressed: Instant,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("at", &self.at)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    fn new(at: LogEnd, table: &Table, chunk_bytes: usize, now: Instant) -> Self {
        let mut parts = Box::new(table.chunks(chunk_bytes));
        let peeked = parts.next().map(Bytes::from);
        Self {
            at,
            parts,
            peeked,
            inflight: VecDeque::new(),
            next: 0,
            sent: now,
            progressed: now,
        }
    }

    /// The last entry that the snapshot reflects.
    pub(super) fn at(&self) -> LogEnd {
        self.at
    }

    /// Takes further parts up to the window.
    fn fill(&mut self, window: usize) -> Vec<(u32, bool, Bytes)> {
        let mut taken = Vec::new();
        while self.inflight.len() < window
            && let Some(part) = self.peeked.take()
        {
            self.peeked = self.parts.next().map(Bytes::from);
            let item = (self.next, self.peeked.is_none(), part);
            self.next += 1;
            self.inflight.push_back(item.clone());
            taken.push(item);
        }
        taken
    }

    /// The follower has everything before `next`.
    fn acknowledge(&mut self, now: Instant, next: u32) {
        while self.inflight.front().is_some_and(|(number, ..)| *number < next) {
            self.inflight.pop_front();
            self.progressed = now;
        }
    }
}

/// A transfer as the follower sees it.
#[derive(Debug)]
pub(super) struct Incoming {
    from: NodeId,
    term: Term,
    at: LogEnd,
    /// What the parts so far have made.
    table: TableLoader,
    /// The parts so far, for a checkpoint that is taken before the last has come.
    parts: Vec<Bytes>,
    /// Parts after one that is missing.
    ahead: BTreeMap<u32, Bytes>,
    /// The number of the last part, once it is known.
    last: Option<u32>,
    bytes: u64,
    /// Appends of parts that are not known to be durable, and their bytes.
    unwritten: VecDeque<(AppendSeq, usize)>,
}

impl Incoming {
    fn new(from: NodeId, term: Term, at: LogEnd, sessions_max: usize) -> Self {
        Self {
            from,
            term,
            at,
            table: TableLoader::new(sessions_max),
            parts: Vec::new(),
            ahead: BTreeMap::new(),
            last: None,
            bytes: 0,
            unwritten: VecDeque::new(),
        }
    }

    fn next(&self) -> u32 {
        self.parts.len() as u32
    }

    /// The parts so far, in order.
    pub(super) fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Keeps a part, in whatever order they come, until those before it are there.
    fn keep(&mut self, part: u32, last: bool, chunk: Bytes) {
        let fits = part < PARTS_MAX && self.bytes + chunk.len() as u64 <= BYTES_MAX;
        let near = part >= self.next() && part - self.next() < PARTS_AHEAD;
        if !fits || !near || self.ahead.contains_key(&part) {
            return;
        }
        if last {
            self.last = Some(part);
        }
        self.bytes += chunk.len() as u64;
        self.ahead.insert(part, chunk);
    }

    /// Reads the parts whose turn has come, and appends those that can be read.
    fn read(&mut self, out: &mut Out) -> Result<(), Corrupt> {
        while let Some(chunk) = self.ahead.remove(&self.next()) {
            self.table.add(&chunk)?;
            let seq = out.append_lazy(Record::SnapshotPart(chunk.clone()));
            self.unwritten.push_back((seq, chunk.len()));
            self.parts.push(chunk);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| self.next() > last)
    }

    /// Whether the disk is so far behind that further parts had better wait.
    fn is_ahead_of_disk(&mut self, persisted: AppendSeq) -> bool {
        while self
            .unwritten
            .pop_front_if(|(seq, _)| *seq <= persisted)
            .is_some()
        {}
        let bytes: usize = self.unwritten.iter().map(|(_, bytes)| bytes).sum();
        bytes > PARTS_UNWRITTEN_BYTES_MAX
    }
}

/// The table that the parts of a snapshot have made, if it is the one at `at`.
pub(super) fn finish(loader: TableLoader, at: LogEnd) -> Result<Table, String> {
    let table = loader.finish().ok_or("the parts of a snapshot hold no table")?;
    if table.version().0 != at.index.0 {
        return Err(format!(
            "the snapshot's table is at {}, its end mark at {}",
            table.version(),
            at.index
        ));
    }
    Ok(table)
}

impl Raft {
    /// Begins transfers to followers whose next entry is compacted, and repeats parts that had no answer.
    pub(super) fn start_transfers(&mut self, now: Instant, out: &mut Out) {
        let (window, timeout, term, applied) = (
            self.config.chunks_inflight,
            self.config.election_timeout * 4,
            self.term,
            self.applied(),
        );
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.reads.round();
        for (peer, follower) in &mut leader.followers {
            let compacted = follower.next.prev() < self.log.base().index;
            if compacted && !matches!(follower.state, State::Snapshot(_)) {
                let at = LogEnd {
                    term: self.log.term(applied).expect("the last applied entry is held"),
                    index: applied,
                };
                let outgoing = Outgoing::new(at, &self.table, self.config.chunk_bytes, now);
                follower.state = State::Snapshot(Box::new(outgoing));
                follower.is_outrun = false;
            }
            let State::Snapshot(outgoing) = &mut follower.state else {
                continue;
            };
            let mut parts = outgoing.fill(window);
            if parts.is_empty() && now.since(outgoing.sent) > timeout {
                parts = outgoing.inflight.iter().cloned().collect();
            }
            if !parts.is_empty() {
                outgoing.sent = now;
            }
            for (part, last, chunk) in parts {
                out.send(
                    *peer,
                    Message::Snapshot {
                        term,
                        round,
                        at: outgoing.at,
                        part,
                        last,
                        chunk,
                    },
                );
            }
        }
    }

    pub(super) fn on_snapshot(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        round: u64,
        (at, part, last, chunk): (LogEnd, u32, bool, Bytes),
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
        if at.index <= self.commit {
            self.incoming = None;
            if let Some(committed) = self.log.term(at.index)
                && committed != at.term
            {
                return self.withdraw(now, from, at, committed, out);
            }
            // What is committed here is in the leader's log too.
            let result = AppendResult::Matched(self.commit.min(self.log.durable()));
            let reply = Message::AppendReply { term, round, result };
            if self.term_is_durable() {
                return out.send(from, reply);
            }
            return out.send_after_append(from, reply);
        }
        let fresh = |incoming: &Incoming| incoming.from != from || incoming.term != term || incoming.at != at;
        if self.incoming.as_ref().is_none_or(fresh) {
            self.incoming = Some(Incoming::new(from, term, at, self.config.sessions_max));
        }
        let incoming = self.incoming.as_mut().expect("set above");
        incoming.keep(part, last, chunk);
        if let Err(error) = incoming.read(out) {
            return self.refuse_transfer(from, (term, round, at), &error.to_string(), out);
        }
        if incoming.is_whole() {
            return self.finish_transfer(from, term, round, out);
        }
        let next = incoming.next();
        let reply = Message::SnapshotReply {
            term,
            round,
            at,
            next,
        };
        if incoming.is_ahead_of_disk(self.persisted) {
            out.send_after_append(from, reply);
        } else {
            out.send(from, reply);
        }
    }

    /// A part, or all of them together, cannot be read: the state is asked for again from its beginning.
    fn refuse_transfer(
        &mut self,
        from: NodeId,
        (term, round, at): (Term, u64, LogEnd),
        why: &str,
        out: &mut Out,
    ) {
        tracing::error!(%from, why, "a snapshot cannot be read; it is asked for again");
        self.incoming = None;
        let next = 0;
        out.send(
            from,
            Message::SnapshotReply {
                term,
                round,
                at,
                next,
            },
        );
    }

    fn finish_transfer(&mut self, from: NodeId, term: Term, round: u64, out: &mut Out) {
        let Some(Incoming { at, table, .. }) = self.incoming.take() else {
            return;
        };
        let table = match finish(table, at) {
            Ok(table) => table,
            Err(why) => return self.refuse_transfer(from, (term, round, at), &why, out),
        };
        let seq = out.append(Record::SnapshotEnd { at });
        if !self.install(at, table) {
            // The log begins with the snapshot: nothing in it, nor before it, is durable before the end mark is.
            self.log.appended(seq, Index(1));
        }
        out.reset(at.index.0);
        let result = AppendResult::Matched(at.index);
        out.send_after_append(from, Message::AppendReply { term, round, result });
    }

    /// Takes a table over. Keeps what the log holds if the log agrees with it, else nothing; returns whether it did.
    pub(super) fn install(&mut self, at: LogEnd, table: Table) -> bool {
        assert!(
            at.index > self.applied(),
            "a snapshot only ever moves the state on"
        );
        let keeps = self.log.term(at.index) == Some(at.term);
        if !keeps {
            self.log = Log::at(at);
        }
        self.table = table;
        self.commit = self.commit.max(at.index);
        keeps
    }

    pub(super) fn on_snapshot_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        round: u64,
        at: LogEnd,
        next: u32,
        out: &mut Out,
    ) {
        let patience = self.config.election_timeout * 4;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if round > leader.reads.round() {
            return;
        }
        let Some(follower) = leader.followers.get_mut(&from) else {
            return;
        };
        follower.heard = now;
        follower.round = follower.round.max(round);
        if let State::Snapshot(outgoing) = &mut follower.state
            && outgoing.at == at
        {
            let sent_before = outgoing.next - outgoing.inflight.len() as u32;
            if next >= sent_before {
                outgoing.acknowledge(now, next);
            } else if now.since(outgoing.progressed) > patience {
                // Not an answer that was overtaken: it has lost parts that it had. Start over.
                follower.restart_probe();
            }
        }
        self.start_transfers(now, out);
    }
}
