//! What both roles share: settings, what is decided, open requests, and who can be reached.

use trilemma_core::{
    ChangeBatch, Effects, Entry, Instant, NodeId, NodeSet, PeerView, Query, ReadLevel, ReadReply,
    ReadRequest, Reason, Reply, Ticket,
};

use crate::batch::{Done, events};
use crate::config::TwoPhaseConfig;
use crate::ids::BatchId;
use crate::ledger::Ledger;
use crate::message::{Head, Message};
use crate::pending::{Open, PendingRequests, Stage, WaitFor};
use crate::record::Record;

pub(crate) type Out = Effects<Message, Record>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: TwoPhaseConfig,
    pub(crate) ledger: Ledger,
    pub(crate) pending: PendingRequests,
    /// Who can be reached; `None` before the host has said so, when everybody counts as reachable.
    view: Option<PeerView>,
    /// Members that cannot be reached.
    pub(crate) missing: NodeSet,
    /// When unanswered messages are repeated next; [`Instant::NEVER`] if there is nothing to repeat.
    pub(crate) next_tick: Instant,
    /// The watermark as last recorded.
    pub(crate) recorded: BatchId,
}

impl Core {
    pub(crate) fn new(config: TwoPhaseConfig) -> Self {
        Self {
            ledger: Ledger::new(config.session_limits()),
            pending: PendingRequests::default(),
            view: None,
            missing: NodeSet::default(),
            next_tick: Instant::NEVER,
            recorded: BatchId::ORIGIN,
            config,
        }
    }

    pub(crate) fn set_view(&mut self, view: PeerView) {
        self.missing = view.missing(self.config.node, &self.config.members);
        self.view = Some(view);
    }

    /// The invariants of what both roles share.
    pub(crate) fn check(&self) {
        self.ledger.check();
        self.pending.check();
        assert!(
            self.recorded <= self.ledger.finished,
            "the watermark {} is recorded and was not reached",
            self.recorded
        );
        assert!(!self.missing.contains(self.config.node), "a node reaches itself");
        assert!(
            self.missing.len() < self.config.members.len(),
            "only members are missed"
        );
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        self.view.as_ref().is_none_or(|view| view.is_connected(node))
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            decided: self.ledger.decided,
            finished: self.ledger.finished,
            digest: self.ledger.table.digest(),
        }
    }

    /// Tells watchers what a committed batch changed.
    pub(crate) fn tell_watchers(first: trilemma_core::Version, done: Vec<Done>, effects: &mut Out) {
        events(first, done).for_each(|applied: ChangeBatch| effects.publish(applied));
    }

    /// Records the watermark, if it has moved. Records that it covers are dropped by the next checkpoint, which
    /// holds the watermark, so they never go before it is durable.
    pub(crate) fn record_watermark(&mut self, effects: &mut Out) {
        if self.recorded < self.ledger.finished {
            self.recorded = self.ledger.finished;
            assert!(
                self.recorded > BatchId::ORIGIN,
                "a recorded watermark says something"
            );
            effects.append_lazy(Record::Watermark { below: self.recorded });
        }
    }

    /// The answer from the decided state.
    pub(crate) fn answer(&self, query: &Query, achieved: ReadLevel) -> ReadReply {
        let (entries, more): (Vec<Entry>, bool) = self.ledger.table.query(query);
        ReadReply {
            entries,
            more,
            version: self.ledger.version(),
            achieved,
            served_by: self.config.node,
            round_trips: 0,
        }
    }

    /// Answers a read that needs no wait; returns one that does: the request and the version it waits for, if any.
    pub(crate) fn read(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        read: ReadRequest,
        unready: Option<String>,
        effects: &mut Out,
    ) -> Option<ReadRequest> {
        let refuse = |effects: &mut Out, reason: Reason| {
            effects.reply(ticket, Reply::Read(Err(reason.into())));
        };
        if matches!(read.query, Query::Siblings(_) | Query::Typed { .. }) {
            let reason = Reason::Unsupported {
                asked: "the concurrent values of a key".into(),
                strongest: "a linearizable read of its one value".into(),
            };
            refuse(effects, reason);
            return None;
        }
        let level = read.level.unwrap_or(ReadLevel::Linearizable);
        if level == ReadLevel::Local {
            let reply = self.answer(&read.query, ReadLevel::Local);
            effects.reply(ticket, Reply::Read(Ok(reply)));
            return None;
        }
        if let Some(why) = unready {
            refuse(effects, Reason::Recovering { why });
            return None;
        }
        if self.pending.reads() >= self.config.reads_max {
            let what = format!("{} reads wait already", self.config.reads_max);
            refuse(effects, Reason::Overloaded { what });
            return None;
        }
        let ReadLevel::MinVersion(wanted) = level else {
            return Some(read);
        };
        if wanted <= self.ledger.version() {
            let reply = self.answer(&read.query, ReadLevel::MinVersion(self.ledger.version()));
            effects.reply(ticket, Reply::Read(Ok(reply)));
        } else {
            let open = Open::Read {
                query: read.query,
                level,
                wait: WaitFor::Version(wanted),
            };
            self.pending.add(ticket, deadline, open);
        }
        None
    }

    /// Answers reads that waited for a version that is reached now.
    pub(crate) fn wake_versions(&mut self, effects: &mut Out) {
        while let Some((ticket, open)) = self.pending.read_at(self.ledger.version()) {
            self.answer_open(ticket, open, effects);
        }
    }

    /// Answers a read that waited, from the decided state.
    pub(crate) fn answer_open(&self, ticket: Ticket, open: Open, effects: &mut Out) {
        if let Open::Read { query, level, .. } = open {
            let achieved = match level {
                ReadLevel::MinVersion(_) => ReadLevel::MinVersion(self.ledger.version()),
                level => level,
            };
            effects.reply(ticket, Reply::Read(Ok(self.answer(&query, achieved))));
        }
    }

    /// Whether an operation that is still open may have taken effect.
    pub(crate) fn may_take_effect(open: &Open) -> bool {
        matches!(
            open,
            Open::Order {
                stage: Stage::Sent,
                ..
            }
        )
    }
}
