//! Dissemination: statements that ride on messages, the least-sent first, each a bounded number of times (SWIM, section 4.1).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::NodeId;

use crate::message::{UPDATES_MAX, Update};

/// Most statements that are passed on at a time; of more, those that were sent most give way.
const PENDING_MAX: usize = 4_096;

/// What is passed on. At most one statement for each member: a newer one supersedes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updates {
    pending: BTreeMap<NodeId, Pending>,
    /// Least-sent first, of those the newest first.
    order: BTreeSet<(u16, Reverse<u64>, NodeId)>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Pending {
    update: Update,
    sends: u16,
    number: u64,
}

impl Updates {
    /// Passes a statement on from now on; `sends` counts as sent already.
    pub(crate) fn push(&mut self, update: Update, sends: u16) {
        self.remove(update.node);
        // Comparisons of tables bring what gives way.
        if self.order.len() >= PENDING_MAX
            && let Some((_, _, most_sent)) = self.order.last().copied()
        {
            self.remove(most_sent);
        }
        self.next += 1;
        let pending = Pending {
            sends,
            number: self.next,
            update,
        };
        self.order
            .insert((sends, Reverse(pending.number), pending.update.node));
        self.pending.insert(pending.update.node, pending);
    }

    /// Stops passing on what is said of a member.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if let Some(former) = self.pending.remove(&node) {
            self.order.remove(&(former.sends, Reverse(former.number), node));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether what is said of this member is still passed on.
    pub(crate) fn holds(&self, node: NodeId) -> bool {
        self.pending.contains_key(&node)
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Takes statements for a message to `to`, of at most this many bytes. What was sent `sends_max` times is passed on no
    /// further.
    pub(crate) fn take(&mut self, to: NodeId, bytes_max: usize, sends_max: u16) -> Vec<Update> {
        let mut left = bytes_max;
        let mut taken = Vec::new();
        let mut keys = Vec::new();
        for key in &self.order {
            // Some large ones do not end the search for small ones, many do.
            if taken.len() == UPDATES_MAX || left < 4 || keys.len() > 2 * UPDATES_MAX {
                break;
            }
            let pending = &self.pending[&key.2];
            let size = pending.update.size();
            if size <= left && key.2 != to {
                left -= size;
                keys.push(*key);
                taken.push(pending.update.clone());
            }
        }
        for (sends, number, node) in keys {
            self.order.remove(&(sends, number, node));
            if sends + 1 >= sends_max {
                self.pending.remove(&node);
            } else if let Some(pending) = self.pending.get_mut(&node) {
                pending.sends = sends + 1;
                self.order.insert((sends + 1, number, node));
            }
        }
        taken
    }

    /// The module's own invariants.
    pub(crate) fn check(&self) {
        assert_eq!(self.pending.len(), self.order.len(), "updates and their order");
    }
}

#[cfg(test)]
mod tests {
    //! Order, bounds and supersession.

    use trilemma_core::NodeId;

    use super::Updates;
    use crate::message::{Detail, Update};
    use crate::standing::{Incarnation, Standing, State};

    fn update(node: u32, counter: u32) -> Update {
        Update {
            node: NodeId(node),
            standing: Standing::new(Incarnation { epoch: 1, counter }, State::Alive),
            detail: Detail::None,
        }
    }

    #[test]
    fn the_least_sent_goes_first_and_each_a_bounded_number_of_times() {
        let mut updates = Updates::default();
        let to = NodeId(99);
        updates.push(update(1, 0), 0);
        assert_eq!(updates.take(to, 100, 3).len(), 1);
        updates.push(update(2, 0), 0);
        let size = update(1, 0).size();
        assert_eq!(
            updates.take(to, size, 3),
            [update(2, 0)],
            "sent never before once"
        );
        let mut left = Vec::new();
        while !updates.is_empty() {
            left.extend(updates.take(to, 100, 3).iter().map(|update| update.node.0));
            updates.check();
        }
        left.sort_unstable();
        assert_eq!(left, [1, 1, 2, 2]);
    }

    #[test]
    fn a_newer_statement_supersedes_and_nobody_is_sent_his_own() {
        let mut updates = Updates::default();
        updates.push(update(1, 0), 0);
        updates.push(update(1, 1), 0);
        assert_eq!(updates.len(), 1);
        assert_eq!(updates.take(NodeId(1), 100, 3), []);
        assert_eq!(updates.take(NodeId(2), 100, 3), [update(1, 1)]);
    }
}
