//! Clients: what they ask, what they remember, and the history of it.

mod translate;

use std::collections::{BTreeMap, BTreeSet};

use trilemma_check::history::{Answer, Call, Change, Entry, Guard, Operation, Outcome};
use trilemma_core::{
    Attempt, Command, NodeId, OpId, ReadLevel, ReadRequest, Reply, Request, Rng, SessionId, Ticket, Version,
    WatchItem, WatchSpec, WriteError,
};
use trilemma_node::WatchId;

use crate::scenario::{Protocol, Scenario};
use crate::seen::Seen;
use translate::{command, query, served_by, written};

/// Times that a client follows up on an unknown outcome before it gives up.
const FOLLOW_UPS_MAX: u32 = 6;
/// The same in a run of more than [`MANY_OPERATIONS`], where no client gives up earlier: what nobody knows the outcome of
/// may take effect at any time until the end, and among thousands of operations no search would tell when.
const FOLLOW_UPS_OF_MANY_MAX: u32 = 600;
const MANY_OPERATIONS: u32 = 1000;

/// A read at the weakest level, which no linearizability check may see.
#[derive(Clone, Debug)]
pub struct LocalRead {
    /// The node that answered.
    pub node: NodeId,
    /// The client.
    pub client: u64,
    /// When it was asked.
    pub invoke: u64,
    /// When it was answered.
    pub returned: u64,
    /// What was found: key, value, version of the write.
    pub entries: Vec<(String, String, u64)>,
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The keyspace.
    pub slot: usize,
    /// The operation's name.
    pub op: OpId,
    /// What the history will say.
    pub call: Call,
    /// The write, if it is one.
    pub command: Option<Command>,
    /// The read, if it is one.
    pub query: Option<ReadRequest>,
    /// When it was first asked.
    pub invoke: u64,
    /// Whether it was handed to a node at all, so that it may have happened.
    pub sent: bool,
    /// How often it was asked.
    pub asked: u32,
    /// Who was asked first: a convergent keyspace knows an operation by the node that had it.
    pub first_asked: Option<NodeId>,
    /// The question under way: who was asked, under which ticket, and when.
    pub question: Option<(NodeId, Ticket, u64)>,
}

/// What a client does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The operation is over.
    Done,
    /// It asks again.
    FollowUp,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number, from 0.
    pub id: u64,
    /// Its choices.
    pub rng: Rng,
    /// What it waits for.
    pub pending: Option<Pending>,
    /// Its session in each keyspace.
    pub sessions: BTreeMap<usize, (SessionId, u64)>,
    /// What it last saw of each key: value and version.
    pub seen: BTreeMap<(usize, String), (Option<String>, u64)>,
    parts: &'static [Protocol],
    /// Bytes of a value at least.
    value_bytes: usize,
    /// Whether it asks until it knows.
    persistent: bool,
    /// Bytes by which a few values are longer, at most.
    value_max: usize,
    /// Whether disks may be lost in this run, so that a node may not know any more what it was asked.
    amnesia: bool,
    values: u64,
    nonces: u64,
}

fn key_name(index: u64) -> String {
    format!("k{index}")
}

impl Client {
    /// A client that has done nothing yet.
    #[must_use]
    pub fn new(id: u64, rng: Rng, scenario: &Scenario) -> Self {
        Self {
            id,
            rng,
            parts: scenario.protocol.parts(),
            value_bytes: scenario.workload.value,
            amnesia: scenario.may_forget(),
            value_max: scenario.workload.value_max,
            persistent: scenario.workload.operations > MANY_OPERATIONS,
            pending: None,
            sessions: BTreeMap::new(),
            seen: BTreeMap::new(),
            values: 0,
            nonces: 0,
        }
    }

    /// Opens a new session in a keyspace.
    pub fn open_session(&mut self, slot: usize, basis: Version) {
        self.nonces += 1;
        let nonce = (self.id + 1) << 32 | self.nonces << 8 | slot as u64;
        self.sessions.insert(slot, (SessionId { basis, nonce }, 0));
    }

    fn next_op(&mut self, slot: usize) -> OpId {
        let (session, seq) = self.sessions.entry(slot).or_default();
        *seq += 1;
        OpId {
            session: *session,
            seq: *seq,
        }
    }

    fn value(&mut self) -> String {
        self.values += 1;
        let value = format!("c{}v{}", self.id, self.values);
        let mut bytes = self.value_bytes;
        if self.value_max > 0 && self.rng.per_mille(20) {
            bytes += self.rng.below(self.value_max as u64) as usize;
        }
        let padding = bytes.saturating_sub(value.len());
        value + &"-".repeat(padding)
    }

    /// Chooses the next operation.
    pub fn choose(&mut self, slot: usize, protocol: Protocol, keys: u32, time: u64) {
        let key = key_name(self.rng.below(u64::from(keys)));
        let many = matches!(protocol, Protocol::Raft | Protocol::TwoPhase);
        let convergent = protocol == Protocol::Gossip;
        let call = match self.rng.below(100) {
            0..32 => Call::Put {
                value: self.value(),
                key,
            },
            32..60 => Call::Get { key },
            60..72 if !convergent => {
                let expected = self
                    .seen
                    .get(&(slot, key.clone()))
                    .and_then(|(value, _)| value.clone());
                let value = (!self.rng.per_mille(150)).then(|| self.value());
                Call::Cas { key, expected, value }
            }
            72..80 => Call::Delete { key },
            // With a disk, a change may be lost that had overwritten one part of a command and not the others.
            80..88 if many || (convergent && !self.amnesia) => {
                // A convergent keyspace has nothing that a condition could be decided on.
                let guards = if many {
                    self.guards(slot, &key, keys)
                } else {
                    Vec::new()
                };
                self.command(key, keys, guards)
            }
            88..94 if many => {
                let limit = self.rng.per_mille(300).then(|| 1 + self.rng.below(3) as u32);
                Call::Range {
                    start: key_name(self.rng.below(u64::from(keys))),
                    end: None,
                    limit,
                }
            }
            60..72 => Call::Put {
                value: self.value(),
                key,
            },
            _ => Call::Get { key },
        };
        let known = self.known(slot);
        let level = match self.rng.below(16) {
            0 => Some(ReadLevel::Local),
            1 if many && known > 0 => Some(ReadLevel::MinVersion(Version(known))),
            _ => None,
        };
        self.begin(slot, call, level, time);
    }

    /// Perhaps a condition on what was last seen of a key.
    fn guard(&mut self, slot: usize, key: &str) -> Option<Guard> {
        let (value, version) = self.seen.get(&(slot, key.to_owned())).cloned()?;
        let key = key.to_owned();
        match self.rng.below(10) {
            0..3 => Some(Guard::Version { key, is: version }),
            3..6 => Some(Guard::Value { key, is: value }),
            _ => None,
        }
    }

    /// Perhaps conditions on this key and another.
    fn guards(&mut self, slot: usize, key: &str, keys: u32) -> Vec<Guard> {
        let other = key_name(self.rng.below(u64::from(keys)));
        let guards = [self.guard(slot, key), self.guard(slot, &other)];
        guards.into_iter().flatten().collect()
    }

    fn command(&mut self, key: String, keys: u32, guards: Vec<Guard>) -> Call {
        let other = key_name(self.rng.below(u64::from(keys)));
        let mut changes = vec![Change {
            value: Some(self.value()),
            key: key.clone(),
        }];
        if other != key {
            let value = (!self.rng.per_mille(200)).then(|| self.value());
            changes.push(Change { key: other, value });
        }
        Call::Command { guards, changes }
    }

    /// The newest version of a keyspace that this client has seen of some key.
    fn known(&self, slot: usize) -> u64 {
        let versions = self.seen.iter().filter(|((of, _), _)| *of == slot);
        versions
            .map(|(_, (_, version))| *version)
            .max()
            .unwrap_or_default()
    }

    /// Begins an operation. `level` is that of a read; `None` is the strongest.
    pub fn begin(&mut self, slot: usize, call: Call, level: Option<ReadLevel>, time: u64) {
        let command = command(&call);
        let query = query(&call).map(|query| ReadRequest { query, level });
        let op = if command.is_some() {
            self.next_op(slot)
        } else {
            OpId::default()
        };
        self.pending = Some(Pending {
            slot,
            op,
            call,
            command,
            query,
            invoke: time,
            sent: false,
            asked: 0,
            first_asked: None,
            question: None,
        });
    }

    /// The request for the operation under way: itself at first, then a retry or a question for its outcome.
    pub fn request(&mut self) -> Option<Request> {
        let ask_outcome = self.rng.per_mille(400);
        let pending = self.pending.as_mut()?;
        pending.asked += 1;
        if let Some(query) = &pending.query {
            return Some(Request::Read(query.clone()));
        }
        let command = pending.command.clone()?;
        if pending.sent && ask_outcome {
            return Some(Request::Outcome {
                op: pending.op,
                command: Some(command),
            });
        }
        let attempt = if pending.sent {
            Attempt::Retry
        } else {
            Attempt::First
        };
        Some(Request::Write {
            op: pending.op,
            attempt,
            command,
        })
    }

    /// Takes an answer, or that none will come, to the operation under way.
    pub fn answer(&mut self, reply: Option<Reply>, time: u64, book: &mut Book) -> Next {
        let Some(mut pending) = self.pending.take() else {
            return Next::Done;
        };
        let server = served_by(reply.as_ref());
        pending.question = None;
        let known = match reply {
            Some(Reply::Write(Ok(receipt))) => {
                Known::Ok(written(&pending.call, receipt.succeeded, receipt.version.0))
            }
            Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) => {
                if matches!(refusal.reason, trilemma_core::Reason::SessionExpired) {
                    self.sessions.remove(&pending.slot);
                }
                Known::Refused
            }
            Some(Reply::Write(Err(_))) | None => Known::Unknown,
            Some(Reply::Outcome(Ok(trilemma_core::Outcome::Applied(receipt)))) => {
                Known::Ok(written(&pending.call, receipt.succeeded, receipt.version.0))
            }
            Some(Reply::Outcome(Ok(trilemma_core::Outcome::NotApplied))) => Known::Refused,
            Some(Reply::Outcome(_)) => Known::Unknown,
            Some(Reply::Read(Ok(read))) => return self.take_read(pending, &read, time, book),
            Some(Reply::Read(Err(_))) => Known::Refused,
        };
        let is_read = pending.query.is_some();
        let forgetful = self.amnesia && self.parts[pending.slot] == Protocol::Gossip;
        if known == Known::Unknown && !is_read && !forgetful && self.follows_up(pending.asked) {
            self.pending = Some(pending);
            return Next::FollowUp;
        }
        if is_read {
            // A read that was not answered says nothing.
            return Next::Done;
        }
        let outcome = match known {
            Known::Ok(answer) => {
                book.succeeded += 1;
                self.remember_write(&pending, &answer);
                Outcome::Ok(answer)
            }
            Known::Refused => Outcome::Fail,
            Known::Unknown if pending.sent => Outcome::Unknown,
            Known::Unknown => Outcome::Fail,
        };
        let place = (
            pending.slot,
            book.histories.get(&pending.slot).map_or(0, Vec::len),
        );
        if let Some(server) = server {
            book.served_by.insert(place, server);
            // The answer may have been on its way when its node lost what it says.
            if book.lost_at.get(&server).is_some_and(|at| *at >= pending.invoke) {
                book.forgiven.insert(place);
            }
        }
        if pending.asked > 1 {
            book.doubted.insert(place);
        }
        book.note(pending.slot, self.id, pending.invoke, time, pending.call, outcome);
        Next::Done
    }

    /// Whether a client that has asked this often asks once more.
    fn follows_up(&mut self, asked: u32) -> bool {
        if self.persistent {
            return asked <= FOLLOW_UPS_OF_MANY_MAX;
        }
        asked <= FOLLOW_UPS_MAX && self.rng.per_mille(850)
    }

    fn remember_write(&mut self, pending: &Pending, answer: &Answer) {
        let (succeeded, version) = match answer {
            Answer::Done { version } => (true, version.unwrap_or_default()),
            Answer::Won { succeeded, version } => (*succeeded, version.unwrap_or_default()),
            _ => return,
        };
        if !succeeded {
            return;
        }
        for mutation in pending.command.iter().flat_map(|command| &command.mutations) {
            let value = mutation.value().map(ToString::to_string);
            let version = if value.is_some() { version } else { 0 };
            self.seen
                .insert((pending.slot, mutation.key().to_string()), (value, version));
        }
    }

    /// A read at a version must reflect it: no key may be older than this client has seen it at that version.
    fn check_at_least(
        &self,
        pending: &Pending,
        asked: u64,
        reflected: u64,
        entries: &[(String, String, u64)],
        book: &mut Book,
    ) {
        let older = entries.iter().find(|(key, _, version)| {
            let seen = self.seen.get(&(pending.slot, key.clone()));
            seen.is_some_and(|(_, seen)| version < seen)
        });
        if reflected < asked || older.is_some() {
            let what = format!(
                "a read of {:?} at least at {asked} reflects {reflected} and found {entries:?}, where the client had \
                 seen newer",
                pending.call
            );
            book.broken.get_or_insert(("at-least-read", what));
        }
    }

    fn take_read(
        &mut self,
        pending: Pending,
        read: &trilemma_core::ReadReply,
        time: u64,
        book: &mut Book,
    ) -> Next {
        let entries: Vec<(String, String, u64)> = read
            .entries
            .iter()
            .map(|entry| {
                (
                    entry.key.to_string(),
                    entry.state.value.to_string(),
                    entry.state.modified.0,
                )
            })
            .collect();
        book.succeeded += 1;
        let asked = pending.query.as_ref().and_then(|query| query.level);
        if let Some(ReadLevel::MinVersion(version)) = asked {
            self.check_at_least(&pending, version.0, read.version.0, &entries, book);
        }
        if matches!(asked, Some(ReadLevel::Local | ReadLevel::MinVersion(_)))
            || read.achieved == ReadLevel::Local
        {
            let read = LocalRead {
                node: read.served_by,
                client: self.id,
                invoke: pending.invoke,
                returned: time,
                entries,
            };
            book.local(pending.slot, read);
            return Next::Done;
        }
        if let Call::Get { key } = &pending.call {
            let found = entries.first();
            let seen = found.map_or((None, 0), |(_, value, version)| (Some(value.clone()), *version));
            self.seen.insert((pending.slot, key.clone()), seen);
        }
        // A two-phase node reads a key at once when no open batch touches it, so its version says only what the read
        // reflects at least.
        let exact = self.parts[pending.slot] != Protocol::TwoPhase;
        let at = (exact && read.version.0 > 0).then_some(read.version.0);
        let answer = match &pending.call {
            Call::Get { .. } => Answer::Value {
                value: entries.first().map(|(_, value, _)| value.clone()),
                version: entries.first().map(|(_, _, version)| *version),
                at,
            },
            _ => Answer::Entries {
                entries: entries
                    .into_iter()
                    .map(|(key, value, version)| Entry {
                        key,
                        value,
                        version: Some(version),
                    })
                    .collect(),
                more: read.more,
                at,
            },
        };
        book.note(
            pending.slot,
            self.id,
            pending.invoke,
            time,
            pending.call,
            Outcome::Ok(answer),
        );
        Next::Done
    }
}

#[derive(PartialEq, Eq)]
enum Known {
    Ok(Answer),
    Refused,
    Unknown,
}

/// What all clients together have seen.
#[derive(Debug, Default)]
pub struct Book {
    /// The history of each keyspace.
    pub histories: BTreeMap<usize, Vec<Operation>>,
    /// Reads at the weakest level, apart.
    pub local_reads: BTreeMap<usize, Vec<LocalRead>>,
    /// Operations that succeeded.
    pub succeeded: u64,
    /// An answer that is wrong by itself: the rule, and what was seen.
    pub broken: Option<(&'static str, String)>,
    /// Writes, by keyspace and position in its history, that a lost disk may have taken along.
    pub forgiven: BTreeSet<(usize, usize)>,
    /// Writes, by keyspace and position in its history, of which a client knew nothing for a while. Where a write is
    /// visible before it is durable, it may have been read and then be lost with its node.
    pub doubted: BTreeSet<(usize, usize)>,
    /// When each node has last lost what it had acknowledged alone.
    lost_at: BTreeMap<NodeId, u64>,
    /// Who acknowledged each write, by keyspace and position in its history.
    served_by: BTreeMap<(usize, usize), NodeId>,
    /// What clients and watchers of each keyspace saw, in the order in which it happened, if that is judged as a whole.
    pub seen: Option<Seen>,
}

impl Book {
    /// A book of nothing yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            seen: scenario
                .library
                .as_ref()
                .map(|_| Seen::new(scenario.protocol.parts())),
            ..Self::default()
        }
    }

    /// A watch was opened, or continued.
    pub fn watch_opened(&mut self, slot: usize, watch: WatchId, watcher: usize, spec: &WatchSpec) {
        if let Some(seen) = &mut self.seen {
            seen.watch_opened(slot, watch, watcher, spec);
        }
    }

    /// A watcher has read an item.
    pub fn watch_item(&mut self, slot: usize, watch: WatchId, item: &WatchItem) {
        if let Some(seen) = &mut self.seen {
            seen.watch_item(slot, watch, item);
        }
    }

    /// A read at the weakest level was answered.
    fn local(&mut self, slot: usize, read: LocalRead) {
        if let Some(seen) = &mut self.seen {
            seen.local(slot, &read);
        }
        self.local_reads.entry(slot).or_default().push(read);
    }

    /// A node has lost its disk: what it alone had acknowledged so far may be gone.
    pub fn disk_lost(&mut self, node: NodeId, now: u64) {
        self.lost_at.insert(node, now);
        let lost = self.served_by.iter().filter(|(_, server)| **server == node);
        self.forgiven.extend(lost.map(|(place, _)| *place));
    }

    fn note(&mut self, slot: usize, process: u64, invoke: u64, returned: u64, call: Call, outcome: Outcome) {
        let operation = Operation {
            process,
            invoke,
            returned: Some(returned),
            call,
            outcome,
        };
        if let Some(seen) = &mut self.seen {
            seen.operation(slot, &operation);
        }
        self.histories.entry(slot).or_default().push(operation);
    }
}
