//! The verdict on one keyspace, computed from the history alone.

use std::ops::Range;

use serde_json::{Value as Json, json};
use trilemma::Backend;

use super::check::{Finals, differences, linearizability, lost, write_order};
use super::history::{Event, Micros, Record};

/// The node that is split off.
pub(super) const MINORITY: u32 = 3;
/// The key that is written before the partition and only read in it.
pub(super) const QUIET_KEY: &str = "quiet";

/// Evidence about one keyspace.
pub(super) struct Evidence<'a> {
    /// Its backend.
    pub(super) backend: Backend,
    /// Everything its clients did.
    pub(super) records: &'a [Record],
    /// When the network was split.
    pub(super) split: Range<Micros>,
    /// What each node holds at the end.
    pub(super) finals: &'a [Finals],
}

/// Operations of one side of the partition, called and answered in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Acknowledged writes.
    pub(super) accepted: usize,
    /// Writes that were certainly not applied.
    pub(super) refused: usize,
    /// Writes of unknown outcome.
    pub(super) unknown: usize,
    /// Reads at the strongest level that were answered.
    pub(super) read: usize,
    /// Reads that were not.
    pub(super) unread: usize,
    /// Of these, reads of the key that nobody writes.
    pub(super) quiet_read: usize,
    /// The same, not answered.
    pub(super) quiet_unread: usize,
    /// The last reason for a refusal.
    pub(super) why: String,
}

impl Side {
    /// Counts what one side did within `time`.
    pub(super) fn count(records: &[Record], time: &Range<Micros>, minority: bool) -> Self {
        let mut side = Side::default();
        let inside = |record: &&Record| record.within(time) && (record.node == MINORITY) == minority;
        for record in records.iter().filter(inside) {
            let quiet = usize::from(record.key == QUIET_KEY);
            match &record.event {
                Event::Written { .. } => side.accepted += 1,
                Event::Refused { why, .. } => {
                    side.refused += 1;
                    side.why.clone_from(why);
                }
                Event::Unknown { .. } => side.unknown += 1,
                Event::Read { .. } => {
                    side.read += 1;
                    side.quiet_read += quiet;
                }
                Event::Unread { why } => {
                    side.unread += 1;
                    side.quiet_unread += quiet;
                    if side.why.is_empty() {
                        side.why.clone_from(why);
                    }
                }
            }
        }
        side
    }
}

/// What the evidence shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) minority: Side,
    pub(super) majority: Side,
    pub(super) writes: usize,
    pub(super) acknowledged: usize,
    pub(super) converged: bool,
    pub(super) acked_lost: usize,
    /// Broken promises, each a sentence. Empty: the verdict holds.
    pub(super) broken: Vec<String>,
}

impl Verdict {
    /// Whether every promise held.
    pub(super) fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    /// As scripts see it, with the keyspace's name.
    pub(super) fn json(&self, name: &str, backend: Backend) -> Json {
        let side = |side: &Side| {
            json!({
                "accepted": side.accepted, "refused": side.refused, "unknown": side.unknown,
                "read": side.read, "unread": side.unread, "why": side.why,
            })
        };
        json!({
            "name": name,
            "backend": backend.name(),
            "accepted_minority": self.minority.accepted,
            "accepted_majority": self.majority.accepted,
            "converged": self.converged,
            "acked_lost": self.acked_lost,
            "verdict": if self.holds() { "held" } else { "broken" },
            "broken": self.broken,
            "writes": self.writes,
            "acknowledged": self.acknowledged,
            "minority": side(&self.minority),
            "majority": side(&self.majority),
        })
    }
}

/// Most sentences of one kind that a verdict lists.
const LISTED_MAX: usize = 5;

/// Judges a keyspace by what its backend promises.
pub(super) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let Evidence {
        backend,
        records,
        split,
        finals,
    } = evidence;
    let minority = Side::count(records, split, true);
    let majority = Side::count(records, split, false);
    let mut broken = Vec::new();
    let lost = lost(records, finals);
    let differences = differences(finals);
    broken.extend(
        lost.iter()
            .take(LISTED_MAX)
            .map(|what| format!("an acknowledged write is gone: {what}")),
    );
    broken.extend(
        differences
            .iter()
            .take(LISTED_MAX)
            .map(|key| format!("the nodes differ at the end on {key}")),
    );
    if backend.descriptor().linearizable_reads {
        broken.extend(
            linearizability(records)
                .into_iter()
                .take(LISTED_MAX)
                .map(|what| format!("not linearizable: {what}")),
        );
    }
    // `raft` and `two-phase` order all writes of the keyspace in one history.
    if matches!(backend, Backend::Raft | Backend::TwoPhase) {
        broken.extend(
            write_order(records)
                .into_iter()
                .take(LISTED_MAX)
                .map(|what| format!("out of order: {what}")),
        );
    }
    split_promises(*backend, &minority, &majority, &mut broken);
    let acknowledged = records
        .iter()
        .filter(|record| matches!(record.event, Event::Written { .. }))
        .count();
    let reads = |record: &&Record| matches!(record.event, Event::Read { .. } | Event::Unread { .. });
    if acknowledged == 0 {
        broken.push("no write was acknowledged at all, so nothing was shown".into());
    }
    Verdict {
        minority,
        majority,
        writes: records.len() - records.iter().filter(reads).count(),
        acknowledged,
        converged: differences.is_empty(),
        acked_lost: lost.len(),
        broken,
    }
}

/// What each backend keeps and gives up in a partition.
fn split_promises(backend: Backend, minority: &Side, majority: &Side, broken: &mut Vec<String>) {
    let sides = [
        ("the side of node 3", minority),
        ("the side of nodes 1 and 2", majority),
    ];
    match backend {
        Backend::Gossip => {
            for (name, side) in sides {
                if side.accepted == 0 || side.refused + side.unknown + side.unread > 0 {
                    broken.push(format!(
                        "{name} did not stay available: {} writes accepted, {} refused, {} unknown, {} reads refused",
                        side.accepted, side.refused, side.unknown, side.unread
                    ));
                }
            }
        }
        Backend::Raft | Backend::Paxos => {
            if minority.accepted > 0 {
                broken.push(format!(
                    "node 3 alone, without a majority, accepted {} writes",
                    minority.accepted
                ));
            }
            if minority.read > 0 {
                broken.push(format!(
                    "node 3 alone, without a majority, answered {} linearizable reads",
                    minority.read
                ));
            }
            if majority.accepted == 0 {
                broken.push("the majority accepted no write in the partition".into());
            }
        }
        Backend::TwoPhase => {
            for (name, side) in sides {
                if side.accepted > 0 {
                    broken.push(format!(
                        "{name} accepted {} writes although a member was missing",
                        side.accepted
                    ));
                }
                if side.quiet_read == 0 || side.quiet_unread > 0 {
                    broken.push(format!(
                        "{name} answered {} and refused {} reads of a key that nobody was writing",
                        side.quiet_read, side.quiet_unread
                    ));
                }
            }
        }
    }
}
