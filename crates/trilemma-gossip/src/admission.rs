//! Which changes of others are looked at at all: those of an origin that may write, and that it has signed where the keyspace
//! asks for that. All others are neither kept nor passed on, but counted, by origin and by who sent them.

use std::collections::BTreeMap;

use tracing::warn;
use trilemma_core::NodeId;

use crate::config::{Durability, GossipConfig};
use crate::replica::{Item, Replica};
use crate::signatures::{Signatures, is_stripped};
use crate::store::{Source, Store};

/// Most counters. Origins can be invented: what comes beyond is refused, too, and not counted.
const COUNTERS_MAX: usize = 1024;

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Its origin may not write.
    NotAnOrigin,
    /// It has no valid signature of its origin for this keyspace.
    Forged,
    /// Its origin has signed another change of the same name.
    Equivocal,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// By reason, origin, and who sent it.
    refused: BTreeMap<(Refusal, NodeId, NodeId), u64>,
}

impl Admission {
    /// What was refused for this reason: by origin and by who sent it, how much.
    pub(crate) fn refused(&self, why: Refusal) -> impl Iterator<Item = (NodeId, NodeId, u64)> {
        let of = self.refused.iter().filter(move |((of, ..), _)| *of == why);
        of.map(|((_, origin, from), count)| (*origin, *from, *count))
    }

    /// How much was refused for this reason.
    pub(crate) fn count(&self, why: Refusal) -> u64 {
        self.refused(why).map(|(.., count)| count).sum()
    }

    /// Drops the changes that are refused. Nobody else gets to know them from this node. `false` if the sender cannot be
    /// correct: a correct node keeps nothing that it has not verified.
    pub(crate) fn admit(
        &mut self,
        config: &GossipConfig,
        store: &Store,
        (from, source): (NodeId, Source),
        items: &mut Vec<Item>,
        is_rejoining: bool,
    ) -> bool {
        let is_loose = is_rejoining || config.durability != Durability::Fsync;
        let replica = &store.replica;
        let mut is_sound = true;
        items.retain_mut(|item| {
            let refusal = match &config.signatures {
                _ if !config.is_origin(item.dot.origin) => Some(Refusal::NotAnOrigin),
                Some(_) if is_known(replica, item, source) => None,
                Some(signatures) => check(signatures, replica, item, is_loose),
                None if item.signed().is_some() => {
                    item.set_signed(None);
                    None
                }
                None => None,
            };
            if let Some(why) = refusal {
                self.note(why, from, item);
                is_sound &= why == Refusal::NotAnOrigin;
            }
            refusal.is_none()
        });
        is_sound
    }

    fn note(&mut self, why: Refusal, from: NodeId, item: &Item) {
        let counter = (why, item.dot.origin, from);
        if self.refused.len() >= COUNTERS_MAX && !self.refused.contains_key(&counter) {
            return;
        }
        let count = self.refused.entry(counter).or_default();
        if *count == 0 {
            let dot = item.dot;
            match why {
                Refusal::NotAnOrigin => {
                    warn!(%from, %dot, "refused a change of a node that may not write in this keyspace");
                }
                Refusal::Forged => warn!(%from, %dot, "refused a change that its origin has not signed"),
                Refusal::Equivocal => {
                    warn!(%from, %dot, "refused a change: its origin has signed another one of the same name");
                }
            }
        }
        *count = count.saturating_add(1);
    }
}

/// Whether a change need not be verified: it is here, or will be dropped. One that an exchange brings may repair what is here.
fn is_known(replica: &Replica, item: &Item, source: Source) -> bool {
    match replica.item(item.dot) {
        Some(known) => known == item,
        None => source == Source::Rumors && replica.context().contains(item.dot),
    }
}

/// Why a change is refused where signatures are asked for, if so.
fn check(signatures: &Signatures, replica: &Replica, item: &Item, is_loose: bool) -> Option<Refusal> {
    let is_reflected = replica.context().contains(item.dot);
    let is_lacking = is_stripped(item) && !is_reflected && !is_loose;
    if is_lacking || !signatures.is_valid(item) {
        return Some(Refusal::Forged);
    }
    let contradicts = |known: &Item| {
        let is_whole = !is_stripped(known) && !is_stripped(item);
        !known.is_same_but_for_observed(item) || is_whole && !known.observed.is_same_set(&item.observed)
    };
    let known = replica.item(item.dot);
    known.is_some_and(contradicts).then_some(Refusal::Equivocal)
}
