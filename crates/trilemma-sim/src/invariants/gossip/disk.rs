//! What a restart of a node would find of a convergent keyspace, by its records alone and not by what the node believes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trilemma_core::{Incarnation, NodeId, OpId, codec};
use trilemma_gossip::context::Context;
use trilemma_gossip::dot::Dot;
use trilemma_gossip::{Durability, Gossip, Message, Record, message::PageEnd};
use trilemma_storage::LogSeq;

use crate::invariants::Broken;

/// The place of a record that has none yet.
const NO_PLACE: LogSeq = LogSeq(u64::MAX);

/// See the module.
#[derive(Default)]
pub(super) struct Disk {
    /// What the durable records reflect, and what all of them do.
    durable: Context,
    appended: Context,
    /// Records that are not durable yet.
    pending: VecDeque<(LogSeq, Record)>,
    /// Of each record that has no place in the log yet: the hash of the context that it makes.
    waiting: VecDeque<Option<u64>>,
    /// Where the log stood when it first made a context of this hash.
    made: BTreeMap<u64, LogSeq>,
    /// Where the operations of this incarnation are in the log.
    operations: BTreeMap<OpId, LogSeq>,
    /// Whether a restart would take this disk for an empty one.
    blank: bool,
    durability: Option<Durability>,
}

/// Adds what a record reflects.
fn take(context: &mut Context, record: &Record) {
    let items = match record {
        Record::Write { items, .. } | Record::Join { items } | Record::Deferred { items } => items,
        Record::Repair { restored, .. } => restored,
        Record::Context(wire) => {
            return Context::from_wire(wire)
                .iter()
                .for_each(|taken| context.join(taken));
        }
        Record::Lease(_) | Record::Fence { .. } | Record::Begin { .. } | Record::Blank | Record::Rejoined => {
            return;
        }
    };
    for item in items {
        context.insert(item.dot);
        item.observed.iter().for_each(|dot| context.insert(dot));
    }
}

impl Disk {
    /// What a node has found at its start, `last` being the last record.
    pub(super) fn found(gossip: &Gossip, last: LogSeq) -> Self {
        let context = gossip.replica().context();
        let durability = gossip.config().durability;
        Self {
            durable: context.clone(),
            appended: context.clone(),
            made: BTreeMap::from([(context.hash(), LogSeq(0))]),
            blank: gossip.is_blank() || last == LogSeq(0) || durability != Durability::Fsync,
            durability: Some(durability),
            ..Self::default()
        }
    }

    /// An empty one.
    pub(super) fn lost() -> Self {
        Self {
            blank: true,
            ..Self::default()
        }
    }

    /// Whether a restart would take it for an empty one.
    pub(super) fn is_blank(&self) -> bool {
        self.blank
    }

    /// The node has appended a record, which has no place in its log yet.
    pub(super) fn append(&mut self, record: &Record) {
        take(&mut self.appended, record);
        let makes = !matches!(record, Record::Lease(_) | Record::Fence { .. });
        self.waiting.push_back(makes.then(|| self.appended.hash()));
        if let Record::Write { op, .. } | Record::Fence { op, .. } = record {
            self.operations.insert(*op, NO_PLACE);
        }
    }

    /// The first record that had no place has got this one.
    pub(super) fn place(&mut self, seq: LogSeq, record: Record) {
        if let Some(Some(made)) = self.waiting.pop_front() {
            self.made.entry(made).or_insert(seq);
        }
        if let Record::Write { op, .. } | Record::Fence { op, .. } = &record
            && let Some(place @ &mut NO_PLACE) = self.operations.get_mut(op)
        {
            *place = seq;
        }
        self.pending.push_back((seq, record));
    }

    /// Records up to this one have become durable.
    pub(super) fn sync(&mut self, durable: LogSeq) {
        while let Some((_, record)) = self.pending.pop_front_if(|(seq, _)| *seq <= durable) {
            take(&mut self.durable, &record);
            match record {
                Record::Blank => self.blank = true,
                Record::Rejoined => self.blank = self.durability != Some(Durability::Fsync),
                _ => {}
            }
        }
    }

    /// The node has died, whose log was durable up to there.
    pub(super) fn crashed(&mut self, durable: LogSeq) {
        self.sync(durable);
        self.pending.clear();
        self.waiting.clear();
        self.made.clear();
        self.operations.clear();
    }

    /// A message is about to leave, and the log is durable up to there: what it acknowledges, and what of this
    /// incarnation it spreads, a crash must not take back.
    pub(super) fn send(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        durable: LogSeq,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        self.sync(durable);
        let Ok(message) = codec::decode::<Message>(bytes) else {
            return Err(("codec", format!("node {from} sends bytes that do not decode")));
        };
        // Where nothing waits for the disk, each start counts as one with an empty disk.
        if self.durability != Some(Durability::Fsync) {
            return Ok(());
        }
        let mut named: Vec<Dot> = Vec::new();
        let (claimed, items) = match &message {
            Message::Compare(compare) => {
                return match self.made.get(&compare.context) {
                    Some(seq) if *seq <= durable => Ok(()),
                    made => {
                        let what = format!(
                            "node {from} compares a context that its log makes at {made:?} and is durable up to {durable}"
                        );
                        Err(("acknowledged-durable", what))
                    }
                };
            }
            Message::Pull { context, .. } => (Some(context), &[][..]),
            Message::Page { items, end, .. } => match end {
                PageEnd::Last(context) => (Some(context), &items[..]),
                PageEnd::More(_) => (None, &items[..]),
            },
            Message::Rumors { items, .. } => (None, &items[..]),
            Message::Advertise { commands } => {
                named = commands.iter().map(|(first, _)| *first).collect();
                (None, &[][..])
            }
            Message::More { .. }
            | Message::Symbols { .. }
            | Message::MoreSymbols { .. }
            | Message::Want { .. }
            | Message::Busy { .. }
            | Message::Fetch { .. } => return Ok(()),
        };
        if let Some(claimed) = claimed.and_then(Context::from_wire)
            && !self.durable.includes(&claimed)
        {
            let what = format!(
                "node {from} acknowledges {:?}, which is not durable there",
                claimed.minus(&self.durable)
            );
            return Err(("acknowledged-durable", what));
        }
        let own = |dot: Dot| dot.source() == (from, incarnation);
        let early = items
            .iter()
            .map(|item| item.dot)
            .chain(named)
            .find(|dot| own(*dot) && !self.durable.contains(*dot));
        match early {
            Some(dot) => {
                let what = format!("node {from} spreads its change {dot}, which is not durable there");
                Err(("spread-durable", what))
            }
            None => Ok(()),
        }
    }

    /// A write was acknowledged, and the log is written and durable up to there.
    pub(super) fn receipt(
        &self,
        id: NodeId,
        op: OpId,
        written: LogSeq,
        durable: LogSeq,
    ) -> Result<(), Broken> {
        let reached = match self.durability {
            Some(Durability::Fsync) => durable,
            Some(Durability::Os) => written,
            Some(Durability::None) | None => return Ok(()),
        };
        match self.operations.get(&op) {
            Some(seq) if *seq > reached => {
                let what = format!(
                    "node {id} acknowledges {op:?}, whose record is at {seq}; its log is at {reached}"
                );
                Err(("receipt-durable", what))
            }
            _ => Ok(()),
        }
    }

    /// The first of some changes, with all before it where `up_to`, that a restart would not find reflected. Where nothing
    /// waits for the disk: that the running node does not reflect.
    pub(super) fn lacks(&self, dots: &BTreeSet<(Dot, bool)>) -> Option<Dot> {
        let is_synced = self.durability == Some(Durability::Fsync);
        let context = if is_synced { &self.durable } else { &self.appended };
        let reflects = |dot: Dot, up_to: bool| {
            if up_to {
                context.contains_up_to(dot)
            } else {
                context.contains(dot)
            }
        };
        let lacking = dots.iter().find(|(dot, up_to)| !reflects(*dot, *up_to));
        lacking.map(|(dot, _)| *dot)
    }
}
