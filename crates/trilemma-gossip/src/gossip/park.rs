//! Entries whose stamps are too far ahead of our clock: neither applied nor dropped.
//!
//! Applying one would let a broken clock win over every honest write until real time has caught up, and following it
//! would spread the fault. A parked entry is in neither the store nor the context (covered and absent would mean
//! deleted); it is named in pulls, so that it is not sent again. It is applied when time has passed.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::Now;

use super::{Gossip, Out};
use crate::dot::Dot;
use crate::hlc::{Stamp, is_acceptable};
use crate::message::ITEMS_MAX;
use crate::replica::Item;

#[derive(Debug, Default)]
pub(super) struct Parked {
    by_stamp: BTreeMap<(Stamp, Dot), Item>,
    dots: BTreeSet<Dot>,
    bytes: usize,
}

impl Parked {
    pub(super) fn len(&self) -> usize {
        self.dots.len()
    }

    /// The names of all that is held back.
    pub(super) fn dots(&self) -> &BTreeSet<Dot> {
        &self.dots
    }

    /// Holds the changes of one command back; `false` if there is no room for all of them.
    pub(super) fn park(&mut self, command: &[Item], entries_max: usize, bytes_max: usize) -> bool {
        let new = || command.iter().filter(|item| !self.dots.contains(&item.dot));
        let bytes: usize = new().map(Item::size).sum();
        if new().count() + self.dots.len() > entries_max || self.bytes + bytes > bytes_max {
            return new().next().is_none();
        }
        for item in command {
            if self.dots.insert(item.dot) {
                self.bytes += item.size();
                self.by_stamp.insert((item.stamp, item.dot), item.clone());
            }
        }
        true
    }

    fn pop(&mut self) -> Option<Item> {
        let (_, item) = self.by_stamp.pop_first()?;
        self.dots.remove(&item.dot);
        self.bytes -= item.size();
        Some(item)
    }

    fn first(&self) -> Option<Stamp> {
        self.by_stamp.first_key_value().map(|((stamp, _), _)| *stamp)
    }
}

impl Gossip {
    /// Applies the parked entries whose time has come. Changes of one command have one stamp, so they come together
    /// (more than a message's worth of one stamp is taken in parts).
    pub(super) fn release(&mut self, now: Now, effects: Out<'_>) {
        let mut due = Vec::new();
        while let Some(stamp) = self.parked.first()
            && is_acceptable(stamp, now.wall, self.config.accept_drift)
        {
            due.extend(self.parked.pop());
        }
        let mut group: Vec<Item> = Vec::new();
        for item in due {
            let next_command = group.last().is_some_and(|last| last.command() != item.command());
            if next_command && group.len() + usize::from(item.part.of) > ITEMS_MAX || group.len() == ITEMS_MAX
            {
                self.release_group(std::mem::take(&mut group), effects);
            }
            group.push(item);
        }
        self.release_group(group, effects);
    }

    fn release_group(&mut self, group: Vec<Item>, effects: Out<'_>) {
        self.rumours
            .add_relays(&group, self.config.rumours_max, self.config.infective_ticks());
        self.apply(group, effects);
    }
}
