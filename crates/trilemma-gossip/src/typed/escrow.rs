//! Bounded counters: nobody takes what it has no right to (escrow; Balegas et al. 2015, "Extending eventually consistent
//! cloud databases for enforcing numeric invariants").
//!
//! Each actor has a row that it alone writes: what it granted, what it spent, and what it gave to others. Its rights are what
//! it granted and was given, less what it spent and gave away. All numbers only grow, so a row that is seen late shows its
//! actor fewer rights than it has, never more: every node sees its own row whole, and what others gave it only after they
//! have. So the sum of all that was ever spent is at most the sum of all that was ever granted, in every partition.
//!
//! The rights of a disk that is lost are lost with it. Whether it had spent them cannot be known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{self, bounded_vec};
use trilemma_core::datatype::Escrow;
use trilemma_core::{NodeId, Value};

use super::{Actor, PARTS_MAX};

/// What one actor has done. Frozen by a golden test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    granted: u128,
    spent: u128,
    /// By the actor that got it, ascending.
    #[serde(deserialize_with = "bounded_vec::<_, _, PARTS_MAX>")]
    given: Vec<(Actor, u128)>,
}

impl Row {
    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        codec::decode(content).ok()
    }

    pub(super) fn to_value(&self) -> Value {
        codec::encode_vec(self).into()
    }

    /// What both say. An actor's writes follow each other, so that there is one; if not, the greater of each counts.
    pub(super) fn join(mut self, other: &Row) -> Self {
        self.granted = self.granted.max(other.granted);
        self.spent = self.spent.max(other.spent);
        for (to, amount) in &other.given {
            let more = amount.saturating_sub(self.given_to(*to));
            // What is there is at least that much: the sum cannot overflow.
            self.give(*to, more);
        }
        self
    }

    fn given_to(&self, actor: Actor) -> u128 {
        let found = self.given.binary_search_by_key(&actor, |(to, _)| *to);
        found.map_or(0, |at| self.given[at].1)
    }

    /// `None`: the sum is at its end.
    pub(super) fn grant(mut self, amount: u64) -> Option<Self> {
        self.granted = self.granted.checked_add(amount.into())?;
        Some(self)
    }

    pub(super) fn spend(mut self, amount: u64) -> Option<Self> {
        self.spent = self.spent.checked_add(amount.into())?;
        Some(self)
    }

    /// Gives rights away; saturates.
    pub(super) fn give(&mut self, to: Actor, amount: u128) {
        match self.given.binary_search_by_key(&to, |(to, _)| *to) {
            Ok(at) => self.given[at].1 = self.given[at].1.saturating_add(amount),
            Err(at) => self.given.insert(at, (to, amount)),
        }
    }
}

/// The rows of all actors, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) BTreeMap<Actor, Row>);

impl Rows {
    /// What an actor may spend or give away.
    pub(super) fn rights(&self, actor: Actor) -> u128 {
        let own = self.0.get(&actor);
        let granted = own.map_or(0, |row| row.granted);
        let used = own.map_or(0, |row| {
            let given = row.given.iter().map(|(_, amount)| *amount);
            given.fold(row.spent, u128::saturating_add)
        });
        let received = self.0.values().map(|row| row.given_to(actor));
        received.fold(granted, u128::saturating_add).saturating_sub(used)
    }

    /// The actor that a node is now, as far as known.
    pub(super) fn newest_of(&self, node: NodeId) -> Option<Actor> {
        let actors = self.0.keys().copied();
        actors.filter(|actor| actor.node == node).max()
    }

    /// What all of it reads as. A node that says what it is now, `own`, knows more than others may: a reading that all must
    /// have alike leaves it out.
    pub(super) fn reading(&self, own: Option<Actor>) -> Escrow {
        let sum = |of: fn(&Row) -> u128| self.0.values().map(of).fold(0, u128::saturating_add);
        // A row that says what was spent may be here before the one that granted it.
        let value = sum(|row| row.granted).saturating_sub(sum(|row| row.spent));
        let (mut rights, mut lost) = (BTreeMap::new(), 0_u128);
        // An actor may have been given rights before its own row is here.
        let given = self
            .0
            .values()
            .flat_map(|row| row.given.iter().map(|(to, _)| *to));
        let actors: std::collections::BTreeSet<Actor> =
            self.0.keys().copied().chain(given).chain(own).collect();
        for actor in &actors {
            let newest = actors.range(..).rev().find(|other| other.node == actor.node);
            if newest == Some(actor) {
                rights.insert(actor.node, self.rights(*actor));
            } else {
                lost = lost.saturating_add(self.rights(*actor));
            }
        }
        Escrow::new(value, &rights, lost)
    }
}

#[cfg(test)]
mod tests {
    use trilemma_core::Incarnation;

    use super::*;

    fn actor(node: u32, since: u64) -> Actor {
        Actor {
            node: NodeId(node),
            since: Incarnation(since),
        }
    }

    fn row(granted: u128, spent: u128, given: &[(Actor, u128)]) -> Row {
        let given = given.to_vec();
        Row {
            granted,
            spent,
            given,
        }
    }

    #[test]
    fn golden_bytes() {
        let row = row(300, 1, &[(actor(2, 3), 4)]);
        assert_eq!(&row.to_value()[..], [172, 2, 1, 1, 2, 3, 4]);
        assert_eq!(Row::decode(&row.to_value()), Some(row));
        assert_eq!(Row::decode(b"\xff"), None);
    }

    #[test]
    fn rights_follow_from_the_rows() {
        let (one, two, old) = (actor(1, 1), actor(2, 5), actor(2, 1));
        let rows = Rows(BTreeMap::from([
            (one, row(10, 3, &[(two, 4)])),
            (old, row(2, 1, &[])),
            (two, row(0, 1, &[])),
        ]));
        assert_eq!((rows.rights(one), rows.rights(two), rows.rights(old)), (3, 3, 1));
        assert_eq!(rows.newest_of(NodeId(2)), Some(two));
        let reading = rows.reading(None);
        assert_eq!((reading.value, reading.lost), (7, 1));
        let rights: Vec<_> = reading.rights().collect();
        assert_eq!(rights, [(NodeId(1), 3), (NodeId(2), 3)]);
        let reading = rows.reading(Some(actor(1, 9)));
        assert_eq!(
            (reading.rights().count(), reading.lost),
            (1, 4),
            "a node knows its own disk"
        );
    }

    #[test]
    fn what_is_not_here_yet_shows_less_never_more() {
        let (one, two) = (actor(1, 1), actor(2, 1));
        let rows = Rows(BTreeMap::from([(two, row(0, 4, &[]))]));
        assert_eq!((rows.rights(two), rows.reading(None).value), (0, 0));
        let rows = Rows(BTreeMap::from([(one, row(10, 0, &[(two, 4)]))]));
        assert_eq!(rows.rights(two), 4);
    }

    #[test]
    fn two_versions_of_a_row_count_with_the_greater_of_each() {
        let two = actor(2, 1);
        let joined = row(5, 1, &[(two, 2)]).join(&row(4, 3, &[(two, 1), (actor(3, 1), 7)]));
        assert_eq!(joined, row(5, 3, &[(two, 2), (actor(3, 1), 7)]));
        let most = row(u128::MAX, 0, &[(two, u128::MAX)]).join(&row(0, 0, &[(two, 1)]));
        assert_eq!((most.clone().grant(1), most.given_to(two)), (None, u128::MAX));
    }
}
