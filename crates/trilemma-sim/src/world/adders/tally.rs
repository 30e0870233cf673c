//! All changes of adders, and what they come to.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::datatype::{Escrow, Number};
use trilemma_core::{DataType, Incarnation, Key, NodeId};
use trilemma_node::Engine;

use super::Change;
use crate::invariants::Broken;

/// What became of a change, as far as its adder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It counts.
    Happened,
    /// It does not.
    Refused,
    /// It may.
    Unknown,
}

#[derive(Debug)]
struct Made {
    change: Change,
    fate: Fate,
    /// Who acknowledged it.
    node: NodeId,
    /// When it was first asked for, and when its adder knew the last of it.
    invoke: u64,
    returned: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    made: Vec<Made>,
    /// Ones that were ever asked for, and room.
    counts: i128,
    granted: u128,
    /// When each node last lost what it alone had acknowledged.
    lost_at: BTreeMap<NodeId, u64>,
    /// The most that each node has shown of the counter in its incarnation.
    most: BTreeMap<(NodeId, Incarnation), i128>,
}

impl Tally {
    pub(super) fn asked(&mut self, change: &Change) {
        match change {
            Change::Count => self.counts += 1,
            Change::Grant(amount) => self.granted += u128::from(*amount),
            _ => {}
        }
    }

    pub(super) fn note(&mut self, change: Change, fate: Fate, node: NodeId, (invoke, returned): (u64, u64)) {
        // The answer may have been on its way when its node lost what it says.
        let is_lost = self.lost_at.get(&node).is_some_and(|at| *at >= invoke);
        let fate = if is_lost && fate == Fate::Happened {
            Fate::Unknown
        } else {
            fate
        };
        self.made.push(Made {
            change,
            fate,
            node,
            invoke,
            returned,
        });
    }

    pub(super) fn disk_lost(&mut self, node: NodeId, now: u64) {
        self.lost_at.insert(node, now);
        let acknowledged = self.made.iter_mut();
        for made in acknowledged.filter(|made| made.node == node && made.fate == Fate::Happened) {
            made.fate = Fate::Unknown;
        }
    }

    /// A running node shows this of the counter.
    pub(super) fn shown(&mut self, id: NodeId, incarnation: Incarnation, shown: i128) -> Result<(), Broken> {
        if shown > self.counts {
            let what = format!(
                "node {id} shows {shown} of a counter to which {} was added",
                self.counts
            );
            return Err(("counter", what));
        }
        let most = self.most.entry((id, incarnation)).or_default();
        if shown < *most {
            let what = format!("node {id} shows {shown} of a counter after {most}");
            return Err(("counter", what));
        }
        *most = shown;
        Ok(())
    }

    fn fates<'a>(&'a self, of: impl Fn(&Change) -> bool + 'a) -> impl Iterator<Item = &'a Made> + 'a {
        self.made.iter().filter(move |made| of(&made.change))
    }

    /// A node at rest shows what all changes make.
    pub(super) fn judge(&self, id: NodeId, engine: &Engine) -> Result<(), Broken> {
        let shown = counted(engine)?;
        let counts = || self.fates(|change| matches!(change, Change::Count));
        let least = counts().filter(|made| made.fate == Fate::Happened).count() as i128;
        let most = counts().filter(|made| made.fate != Fate::Refused).count() as i128;
        if !(least..=most).contains(&shown) {
            let what = format!("node {id} shows {shown} of a counter, and from {least} to {most} were added");
            return Err(("counter", what));
        }
        let spent: u128 = self.made.iter().map(spent).sum();
        if spent > self.granted {
            let what = format!(
                "{spent} were taken of a bounded counter, and {} were granted",
                self.granted
            );
            return Err(("bounded-counter", what));
        }
        let escrow = entries(engine, "bounded", DataType::BoundedCounter)?;
        let escrow = escrow.first().map(|(_, value)| Escrow::from_value(value));
        let escrow = escrow
            .transpose()
            .map_err(|error| ("bounded-counter", error.to_string()))?;
        if escrow.is_some_and(|escrow| escrow.value > self.granted) {
            let what = format!(
                "node {id} shows more of a bounded counter than the {} granted",
                self.granted
            );
            return Err(("bounded-counter", what));
        }
        self.judge_set(id, engine)
    }

    fn judge_set(&self, id: NodeId, engine: &Engine) -> Result<(), Broken> {
        let shown = entries(engine, "set", DataType::Set)?;
        let shown: BTreeSet<&Key> = shown.iter().map(|(key, _)| key).collect();
        let asked = self.made.iter().filter_map(|made| made.change.element());
        let asked: BTreeSet<&Key> = asked.collect();
        if let Some(element) = shown.difference(&asked).next() {
            return Err((
                "set",
                format!("node {id} shows {element}, which nobody has inserted"),
            ));
        }
        for element in asked {
            let of = |made: &&Made| made.change.element() == Some(element) && made.fate != Fate::Refused;
            let is_insert = |made: &&Made| matches!(made.change, Change::Insert(_));
            let inserts = || self.made.iter().filter(of).filter(is_insert);
            let removals = || self.made.iter().filter(of).filter(|made| !is_insert(made));
            let is_shown = shown.contains(element);
            // A removal takes away what its node has seen: nothing that began later, wherever and whatever clocks say.
            let last = inserts().find(|insert| {
                insert.fate == Fate::Happened && removals().all(|removal| removal.returned < insert.invoke)
            });
            if let Some(last) = last.filter(|_| !is_shown) {
                let what = format!(
                    "node {id} does not show {element}, which was inserted after all removals: {last:?}"
                );
                return Err(("set", what));
            }
            // Surely all that its node had inserted before.
            let is_gone = |removal: &Made| {
                removal.fate == Fate::Happened
                    && inserts().all(|insert| {
                        insert.fate == Fate::Happened
                            && insert.node == removal.node
                            && insert.returned < removal.invoke
                    })
            };
            if is_shown && (inserts().next().is_none() || removals().any(is_gone)) {
                let what = format!("node {id} shows {element}, which was removed or never inserted");
                return Err(("set", what));
            }
        }
        Ok(())
    }
}

/// What was surely taken by a change.
fn spent(made: &Made) -> u128 {
    match made.change {
        Change::Spend(amount) if made.fate == Fate::Happened => amount.into(),
        _ => 0,
    }
}

/// What a node shows of the counter.
pub(super) fn counted(engine: &Engine) -> Result<i128, Broken> {
    let found = entries(engine, "counter", DataType::Counter)?;
    let number = found.first().map(|(_, value)| Number::from_value(value));
    let number = number
        .transpose()
        .map_err(|error| ("counter", error.to_string()))?;
    Ok(number.map_or(0, |number| number.0))
}

fn entries(engine: &Engine, key: &str, of: DataType) -> Result<Vec<(Key, trilemma_core::Value)>, Broken> {
    let Engine::Gossip(host) = engine else {
        return Ok(Vec::new());
    };
    let found = host.protocol().typed(&key.into(), of);
    let found = found.map_err(|reason| ("data-type", format!("{key} cannot be read: {reason}")))?;
    Ok(found
        .into_iter()
        .map(|entry| (entry.key, entry.state.value))
        .collect())
}
