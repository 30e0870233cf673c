//! What clients ask of a paxos keyspace: what is served, what is refused, and the status.

use trilemma_core::pending::refused_write;
use trilemma_core::read::page;
use trilemma_core::{
    Command, Effects, Instant, Key, LiveStatus, Now, OpId, Outcome, Proposal, Query, ReadError, ReadLevel,
    ReadReply, ReadRequest, Reason, Reply, Request, Ticket, Version,
};

use super::key_states::Counts;
use super::proposer::Kind;
use super::{Message, Paxos, Record, learner};

type Out = Effects<Message, Record>;

impl Paxos {
    pub(super) fn propose(&mut self, proposal: Proposal, now: Instant, effects: &mut Out) {
        let Proposal {
            ticket,
            deadline,
            request,
        } = proposal;
        match request {
            Request::Write { op, attempt, command } => match one_key(&command) {
                Ok(key) => {
                    let kind = Kind::Write { op, attempt, command };
                    self.proposer.propose(&key, ticket, deadline, kind, now);
                }
                // Such a command has never run under any attempt, so the refusal is certain for a retry, too.
                Err(reason) => effects.reply(ticket, Reply::Write(Err(reason.into()))),
            },
            Request::Read(read) => self.read(ticket, deadline, &read, now, effects),
            Request::Outcome { op, command } => {
                self.outcome(ticket, deadline, op, command.as_ref(), now, effects)
            }
        }
    }

    fn read(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        read: &ReadRequest,
        now: Instant,
        effects: &mut Out,
    ) {
        let reply = match (&read.query, read.level) {
            (Query::Get(_) | Query::Range { .. }, Some(ReadLevel::Local)) | (Query::Range { .. }, None) => {
                Ok(self.read_local(&read.query))
            }
            (Query::Get(key), None | Some(ReadLevel::Linearizable | ReadLevel::MinVersion(_))) => {
                self.proposer.propose(key, ticket, deadline, Kind::Get, now);
                return;
            }
            (Query::Range { .. }, Some(level)) => Err(Reason::Unsupported {
                asked: format!("a range read at level {level}"),
                strongest: "local for ranges, linearizable for single keys".into(),
            }),
            (Query::Siblings(_) | Query::Typed { .. }, _) => Err(Reason::Unsupported {
                asked: "the concurrent values of a key".into(),
                strongest: "a linearizable read of its one value".into(),
            }),
        };
        effects.reply(ticket, Reply::Read(reply.map_err(ReadError::from)));
    }

    fn read_local(&self, query: &Query) -> ReadReply {
        let range = query.range();
        let (entries, more) = match query {
            Query::Get(key) => {
                let state = learner::get(&self.proposer.shared.slots, key).cloned();
                let entry = state.map(|state| trilemma_core::Entry {
                    key: key.clone(),
                    state,
                });
                (entry.into_iter().collect(), false)
            }
            Query::Range { .. } | Query::Siblings(_) | Query::Typed { .. } => {
                page(query, learner::entries(&self.proposer.shared.slots, &range))
            }
        };
        ReadReply {
            entries,
            more,
            version: Version::ABSENT,
            achieved: ReadLevel::Local,
            served_by: self.config().node,
            round_trips: 0,
        }
    }

    fn outcome(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        op: OpId,
        command: Option<&Command>,
        now: Instant,
        effects: &mut Out,
    ) {
        let reply = match command.map(one_key) {
            Some(Ok(key)) => {
                self.proposer
                    .propose(&key, ticket, deadline, Kind::Outcome { op }, now);
                return;
            }
            // This keyspace refuses such a command whenever it comes.
            Some(Err(_)) => Ok(Outcome::NotApplied),
            None => Err(ReadError::from(Reason::Unsupported {
                asked: "the outcome of an operation without its command".into(),
                strongest: "the outcome of an operation together with its command, which names the key"
                    .into(),
            })),
        };
        effects.reply(ticket, Reply::Outcome(reply));
    }

    pub(super) fn live_status(&self, _now: Now) -> LiveStatus {
        let shared = &self.proposer.shared;
        let missing = shared.missing();
        let have = shared.members.len() - missing.len();
        let is_seen = self.view.is_some() || shared.members.len() == 1;
        let can = is_seen && have >= shared.quorum && self.withdrawn.is_none();
        let why = match (&self.withdrawn, is_seen, can) {
            (Some(contradiction), ..) => contradiction.to_string(),
            (None, false, _) => "no ping of a peer has come yet".into(),
            (None, true, false) => format!(
                "no quorum: {have} of {} nodes reachable, {} needed",
                shared.members.len(),
                shared.quorum
            ),
            (None, true, true) => String::new(),
        };
        let Counts {
            keys,
            tombstones,
            unwritten,
            cached,
        } = shared.slots.counts();
        let mut details = vec![
            ("tombstones".to_owned(), tombstones.to_string()),
            ("registers".to_owned(), shared.slots.len().to_string()),
            (
                "keys promised and never written".to_owned(),
                unwritten.to_string(),
            ),
            ("unsettled registers".to_owned(), self.unsettled.len().to_string()),
            (
                "ballots with two values".to_owned(),
                self.acceptor.double_values.to_string(),
            ),
            (
                "learned regressions".to_owned(),
                self.learner.regressions.to_string(),
            ),
        ];
        let figures = self.proposer.figures();
        details.extend(figures.map(|(name, value)| (name.to_owned(), value.to_string())));
        details.push(("cached ballots".to_owned(), cached.to_string()));
        LiveStatus {
            can_write: can,
            can_read: can,
            why,
            missing,
            leader: None,
            role: if self.withdrawn.is_some() {
                "withdrawn".into()
            } else {
                "proposer and acceptor".into()
            },
            version: self.version(),
            keys,
            in_doubt: 0,
            details,
        }
    }
}

/// The answer to a proposal that is not taken.
pub(super) fn refused(proposal: Proposal, reason: Reason) -> (Ticket, Reply) {
    let reply = match proposal.request {
        Request::Write { op, attempt, .. } => Reply::Write(Err(refused_write(op, attempt, reason))),
        Request::Read(_) => Reply::Read(Err(ReadError::from(reason))),
        Request::Outcome { .. } => Reply::Outcome(Err(ReadError::from(reason))),
    };
    (proposal.ticket, reply)
}

/// The key of a command that touches one.
fn one_key(command: &Command) -> Result<Key, Reason> {
    if let Some(key) = command.single_key() {
        return Ok(key.clone());
    }
    Err(match command.keys().next() {
        Some(_) => Reason::Unsupported {
            asked: "a command over several keys".into(),
            strongest: "a command with guards and mutations of one key".into(),
        },
        None => Reason::Invalid {
            what: "the command names no key".into(),
        },
    })
}
