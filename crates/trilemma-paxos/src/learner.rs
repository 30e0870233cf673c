//! The learner: what this node knows to be chosen. Local reads, scans and watches show this and nothing else.
//!
//! A register that an acceptor holds need not be chosen: it may have reached a minority and be overwritten. The
//! learner takes only what a proposer has counted a majority for, so no key ever goes back.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use trilemma_core::{Change, Entry, Key, KeyRange, Version, Versioned};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::acceptor::CHECKED_KEYS_MAX;
use super::ballot::Ballot;
use super::key_states::{KeyState, KeyStates};
use super::message::BUCKETS;
use super::register::Register;

/// Changes, and after them bytes, with which a part of what was learned is closed.
const PART_CHANGES_MAX: usize = 1024;
const PART_BYTES: usize = 1024 * 1024;

/// What anti-entropy needs to find differences in what was chosen, and watchers what has changed. What was chosen itself is in
/// the state of its key.
#[derive(Debug)]
pub(crate) struct Learner {
    /// The keys of each bucket, so that a page of one bucket does not cost a walk over all keys.
    buckets: Vec<BTreeSet<Key>>,
    /// For each bucket, the exclusive or of the hashes of its (key, ballot, digest of the register).
    hashes: Vec<u64>,
    /// Changes not yet published to watchers, in the order in which they were learned.
    changes: Vec<Change>,
    /// Messages that named an older version under a newer ballot: a broken peer.
    pub(crate) regressions: u64,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            buckets: vec![BTreeSet::new(); BUCKETS],
            hashes: vec![0; BUCKETS],
            changes: Vec::new(),
            regressions: 0,
        }
    }
}

/// The bucket that a key falls into.
pub(crate) fn bucket(key: &[u8]) -> u8 {
    xxh3_64(key).to_le_bytes()[0]
}

fn hash(key: &[u8], ballot: Ballot, digest: u64) -> u64 {
    let mut bytes = [0; 28];
    bytes[..8].copy_from_slice(&ballot.counter.to_le_bytes());
    bytes[8..12].copy_from_slice(&ballot.node.0.to_le_bytes());
    bytes[12..20].copy_from_slice(&ballot.incarnation.0.to_le_bytes());
    bytes[20..].copy_from_slice(&digest.to_le_bytes());
    xxh3_64_with_seed(key, xxh3_64(&bytes))
}

impl Learner {
    /// Takes a chosen register; returns whether it was news. A change of the value is kept for watchers.
    pub(crate) fn learn(
        &mut self,
        slot: &mut KeyState,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
    ) -> bool {
        let old_ballot = slot.learned();
        let old_version = slot.shown().map_or(Version::ABSENT, |old| old.version);
        if ballot <= old_ballot {
            return false;
        }
        if register.version < old_version {
            self.regressions += 1;
            return false;
        }
        let bucket = usize::from(bucket(key));
        if old_ballot > Ballot::ZERO {
            self.hashes[bucket] ^= hash(key, old_ballot, slot.digest());
        } else {
            self.buckets[bucket].insert(key.clone());
        }
        slot.learn(ballot, register);
        self.hashes[bucket] ^= hash(key, ballot, slot.digest());
        if register.version > old_version {
            let (key, now) = (key.clone(), register.state.clone());
            self.changes.push(Change { key, now });
        }
        true
    }

    /// The learner's invariants: buckets and hashes say what the key states hold. A hash that is off would make anti-entropy
    /// send without end, or never.
    pub(crate) fn check(&self, slots: &KeyStates) {
        assert_eq!(self.hashes.len(), BUCKETS, "one hash for each bucket");
        assert_eq!(self.buckets.len(), BUCKETS, "one set of keys for each bucket");
        if cfg!(debug_assertions) && slots.len() <= CHECKED_KEYS_MAX {
            self.check_every_key(slots);
        }
    }

    fn check_every_key(&self, slots: &KeyStates) {
        let mut hashes = vec![0; BUCKETS];
        let mut learned = 0;
        for (key, slot) in slots.iter().filter(|(_, slot)| slot.learned() > Ballot::ZERO) {
            let bucket = usize::from(bucket(key));
            assert!(self.buckets[bucket].contains(key), "key {key:?} is in its bucket");
            hashes[bucket] ^= hash(key, slot.learned(), slot.digest());
            learned += 1;
        }
        let in_buckets: usize = self.buckets.iter().map(BTreeSet::len).sum();
        assert_eq!(in_buckets, learned, "buckets hold the learned keys and no others");
        assert_eq!(hashes, self.hashes, "the hashes are those of what was learned");
        let is_learned = |change: &Change| slots.learned(&change.key) > Ballot::ZERO;
        assert!(self.changes.iter().all(is_learned), "only learned keys change");
    }

    /// What has changed since the last call, each key once, in parts that a watch can show: nothing is promised across keys.
    pub(crate) fn take_changes(&mut self) -> Vec<Vec<Change>> {
        let mut changes = std::mem::take(&mut self.changes);
        if changes.len() > 1 {
            // The newest of each key comes first.
            changes.reverse();
            changes.sort_by(|a, b| a.key.cmp(&b.key));
            changes.dedup_by(|later, first| later.key == first.key);
        }
        let mut parts: Vec<Vec<Change>> = Vec::new();
        let mut bytes = usize::MAX;
        for change in changes {
            if bytes >= PART_BYTES || parts.last().is_none_or(|part| part.len() >= PART_CHANGES_MAX) {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += change.bytes();
            parts.last_mut().expect("one was begun").push(change);
        }
        parts
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The hash of each bucket.
    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The keys of a bucket after `after`, in order, with their ballots and digests.
    pub(crate) fn bucket_after<'a>(
        &'a self,
        slots: &'a KeyStates,
        bucket: u8,
        after: &Key,
    ) -> impl Iterator<Item = (&'a Key, Ballot, u64)> + 'a {
        self.buckets[usize::from(bucket)]
            .range::<Key, _>((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|key| {
                let slot = slots.get(key)?;
                Some((key, slot.learned(), slot.digest()))
            })
    }
}

/// What this node has learned of one key that exists.
pub(crate) fn get<'a>(slots: &'a KeyStates, key: &[u8]) -> Option<&'a Versioned> {
    slots.get(key)?.shown()?.state.as_ref()
}

/// The keys of a range that exist, in order.
pub(crate) fn entries<'a>(slots: &'a KeyStates, range: &'a KeyRange) -> impl Iterator<Item = Entry> + 'a {
    slots.range(range).filter_map(|(key, slot)| {
        let state = slot.shown()?.state.clone()?;
        Some(Entry {
            key: key.clone(),
            state,
        })
    })
}

#[cfg(test)]
mod tests;
