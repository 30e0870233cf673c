//! What was chosen, by the disks of a majority or by the word of a node that knows: the registers of a key form a chain,
//! each computed from the one before (Rystsov 2018, section 2.2), so none forgets what another has recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use trilemma_core::{Key, NodeId, OpId};
use trilemma_paxos::register::{Floor, Recent};
use trilemma_paxos::{Ballot, Register};

use super::super::Broken;
use super::refused::Refused;

/// See the module.
pub(super) struct Chosen {
    nodes: u32,
    /// Who holds, or has held, the register of a ballot durably.
    holders: BTreeMap<(Key, Ballot), BTreeSet<NodeId>>,
    chains: BTreeMap<Key, BTreeMap<Ballot, Arc<Register>>>,
    pub(super) refused: Refused,
}

impl Chosen {
    pub(super) fn new(nodes: u32) -> Self {
        Self {
            nodes,
            holders: BTreeMap::new(),
            chains: BTreeMap::new(),
            refused: Refused::default(),
        }
    }

    /// An acceptor's disk holds this register. On a majority of them, it is chosen.
    pub(super) fn hold(
        &mut self,
        id: NodeId,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
    ) -> Result<(), Broken> {
        let holders = self.holders.entry((key.clone(), ballot)).or_default();
        holders.insert(id);
        if holders.len() * 2 > self.nodes as usize {
            return self.choose(key, ballot, register);
        }
        Ok(())
    }

    /// This register is chosen.
    pub(super) fn choose(
        &mut self,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
    ) -> Result<(), Broken> {
        let chain = self.chains.entry(key.clone()).or_default();
        if let Some(known) = chain.get(&ballot) {
            if known == register {
                return Ok(());
            }
            let what = format!("under {ballot} of {key} both {known:?} and {register:?} are chosen");
            return Err(("chosen-unique", what));
        }
        let before = chain.range(..ballot).next_back();
        let after = chain.range((Excluded(ballot), Unbounded)).next();
        let links = [
            before.map(|(before, base)| (*before, base, ballot, register)),
            after.map(|(after, next)| (ballot, register, *after, next)),
        ];
        for (base_ballot, base, next_ballot, next) in links.into_iter().flatten() {
            if let Some(why) = differs(base, next) {
                let what = format!(
                    "the register of {key} chosen under {next_ballot} {why} of the one chosen under {base_ballot}: \
                     {next:?} after {base:?}"
                );
                return Err(("chosen-chain", what));
            }
        }
        chain.insert(ballot, Arc::clone(register));
        self.refused.choose(key, ballot, register)
    }

    /// The newest ballot of each key under which something was chosen.
    pub(super) fn newest(&self) -> impl Iterator<Item = (&Key, Ballot)> {
        let newest = |(key, chain): (_, &BTreeMap<Ballot, _>)| Some((key, *chain.last_key_value()?.0));
        self.chains.iter().filter_map(newest)
    }
}

/// Why `next` was not computed from `base`, or from what was computed from it.
fn differs(base: &Register, next: &Register) -> Option<&'static str> {
    let remembers = |OpId { session, seq }: OpId| {
        let mut floors = next.floors.iter();
        Some(session.basis) <= next.horizon
            || floors.any(|floor| floor.session == session && seq <= floor.seq)
    };
    let result_is_lost = |result: &Recent| !next.recent.contains(result) && !remembers(result.op);
    let floor_is_lost = |floor: &Floor| {
        let Floor { session, seq } = *floor;
        !remembers(OpId { session, seq })
    };
    let mark = |node| {
        let marks = next.proposers.iter().filter(|ballot| ballot.node == node);
        marks.max().copied().unwrap_or_default()
    };
    if next.version < base.version {
        Some("has a version before that")
    } else if next.version == base.version && next.state != base.state {
        Some("has the version, and not the state")
    } else if base.recent.iter().any(result_is_lost) {
        Some("lacks a result")
    } else if base.floors.iter().any(floor_is_lost) || next.horizon < base.horizon {
        Some("lacks a mark of dropped results")
    } else if base.proposers.iter().any(|ballot| mark(ballot.node) < *ballot) {
        Some("lacks a proposer's mark")
    } else {
        None
    }
}
