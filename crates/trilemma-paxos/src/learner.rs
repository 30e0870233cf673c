//! The learner: what this node knows to be chosen. Local reads, scans and watches show this and nothing else.
//!
//! A register that an acceptor holds need not be chosen: it may have reached a minority and be overwritten. The
//! learner takes only what a proposer has counted a majority for, so no key ever goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use trilemma_core::data::map_bounds;
use trilemma_core::view::MapView;
use trilemma_core::{Change, Entry, Key, KeyRange, Versioned, View};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::acceptor::CHECKED_KEYS_MAX;
use super::ballot::Ballot;
use super::message::BUCKETS;
use super::register::Register;

/// Changes, and after them bytes, with which a part of what was learned is closed.
const PART_CHANGES_MAX: usize = 1024;
const PART_BYTES: usize = 1024 * 1024;

/// A register that was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    pub(crate) ballot: Ballot,
    pub(crate) register: Arc<Register>,
}

/// What was chosen, by key, with what anti-entropy needs to find differences.
#[derive(Debug)]
pub(crate) struct Learner {
    map: OrdMap<Key, Learned>,
    /// The keys of each bucket, so that a page of one bucket does not cost a walk over all keys.
    buckets: Vec<BTreeSet<Key>>,
    /// For each bucket, the exclusive or of the hashes of its (key, ballot) pairs.
    hashes: Vec<u64>,
    keys: u64,
    tombstones: u64,
    /// Changes not yet published to watchers.
    changes: BTreeMap<Key, Option<Versioned>>,
    /// Messages that named an older version under a newer ballot: a broken peer.
    pub(crate) regressions: u64,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            map: OrdMap::new(),
            buckets: vec![BTreeSet::new(); BUCKETS],
            hashes: vec![0; BUCKETS],
            keys: 0,
            tombstones: 0,
            changes: BTreeMap::new(),
            regressions: 0,
        }
    }
}

/// The bucket that a key falls into.
pub(crate) fn bucket(key: &[u8]) -> u8 {
    xxh3_64(key).to_le_bytes()[0]
}

fn hash(key: &[u8], ballot: Ballot) -> u64 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&ballot.counter.to_le_bytes());
    bytes[8..12].copy_from_slice(&ballot.node.0.to_le_bytes());
    bytes[12..].copy_from_slice(&ballot.incarnation.0.to_le_bytes());
    xxh3_64_with_seed(key, xxh3_64(&bytes))
}

impl Learner {
    pub(crate) fn map(&self) -> &OrdMap<Key, Learned> {
        &self.map
    }

    /// Number of keys that exist, and of tombstones.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.keys, self.tombstones)
    }

    /// The ballot of what is known of `key`; [`Ballot::ZERO`] if nothing is.
    pub(crate) fn ballot(&self, key: &[u8]) -> Ballot {
        self.map.get(key).map_or(Ballot::ZERO, |learned| learned.ballot)
    }

    /// Takes a chosen register; returns whether it was news. A change of the value is kept for watchers.
    pub(crate) fn learn(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>) -> bool {
        let old = self.map.get_mut(key);
        let (old_ballot, old_version) = old.as_ref().map_or((Ballot::ZERO, Default::default()), |old| {
            (old.ballot, old.register.version)
        });
        if ballot <= old_ballot {
            return false;
        }
        if register.version < old_version {
            self.regressions += 1;
            return false;
        }
        if let Some(old) = &old {
            assert!(
                self.keys >= u64::from(old.register.state.is_some())
                    && self.tombstones >= u64::from(old.register.is_tombstone()),
                "key {key:?} was counted when it was learned"
            );
            self.keys -= u64::from(old.register.state.is_some());
            self.tombstones -= u64::from(old.register.is_tombstone());
        }
        self.keys += u64::from(register.state.is_some());
        self.tombstones += u64::from(register.is_tombstone());
        let bucket = usize::from(bucket(key));
        if old_ballot > Ballot::ZERO {
            self.hashes[bucket] ^= hash(key, old_ballot);
        } else {
            self.buckets[bucket].insert(key.clone());
        }
        self.hashes[bucket] ^= hash(key, ballot);
        if register.version > old_version {
            self.changes.insert(key.clone(), register.state.clone());
        }
        let register = Arc::clone(register);
        let learned = Learned { ballot, register };
        let before = match old {
            Some(old) => Some(std::mem::replace(old, learned)),
            None => self.map.insert(key.clone(), learned),
        };
        assert!(
            before.is_none_or(|before| before.ballot < ballot),
            "what is learned of key {key:?} only grows"
        );
        true
    }

    /// The learner's invariants: counts, buckets and hashes say what the map holds. A hash that is off would make
    /// anti-entropy send without end, or never.
    pub(crate) fn check(&self) {
        assert_eq!(self.hashes.len(), BUCKETS, "one hash for each bucket");
        assert_eq!(self.buckets.len(), BUCKETS, "one set of keys for each bucket");
        assert!(
            self.keys + self.tombstones <= self.map.len() as u64,
            "{} keys and {} tombstones are counted among {} registers",
            self.keys,
            self.tombstones,
            self.map.len()
        );
        assert!(self.changes.len() <= self.map.len(), "only learned keys change");
        if cfg!(debug_assertions) && self.map.len() <= CHECKED_KEYS_MAX {
            self.check_every_key();
        }
    }

    fn check_every_key(&self) {
        let mut hashes = vec![0; BUCKETS];
        let (mut keys, mut tombstones) = (0, 0);
        for (key, learned) in &self.map {
            let bucket = usize::from(bucket(key));
            assert!(
                learned.ballot > Ballot::ZERO,
                "key {key:?} was learned under a ballot"
            );
            assert!(self.buckets[bucket].contains(key), "key {key:?} is in its bucket");
            hashes[bucket] ^= hash(key, learned.ballot);
            keys += u64::from(learned.register.state.is_some());
            tombstones += u64::from(learned.register.is_tombstone());
        }
        let in_buckets: usize = self.buckets.iter().map(BTreeSet::len).sum();
        assert_eq!(
            in_buckets,
            self.map.len(),
            "buckets hold the learned keys and no others"
        );
        assert_eq!(hashes, self.hashes, "the hashes are those of what was learned");
        assert_eq!(
            (keys, tombstones),
            self.counts(),
            "keys and tombstones are counted"
        );
    }

    /// What has changed since the last call, each key once, in parts that a watch can show: nothing is promised across keys.
    pub(crate) fn take_changes(&mut self) -> Vec<Vec<Change>> {
        let mut parts: Vec<Vec<Change>> = Vec::new();
        let mut bytes = usize::MAX;
        for (key, now) in std::mem::take(&mut self.changes) {
            let change = Change { key, now };
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

    /// The keys of a bucket after `after`, in order, with their ballots.
    pub(crate) fn bucket_after<'a>(
        &'a self,
        bucket: u8,
        after: &Key,
    ) -> impl Iterator<Item = (&'a Key, Ballot)> + 'a {
        self.buckets[usize::from(bucket)]
            .range::<Key, _>((Bound::Excluded(after), Bound::Unbounded))
            .map(|key| (key, self.ballot(key)))
    }

    /// What this node has learned of one key that exists.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.map.get(key)?.register.state.as_ref()
    }

    /// The keys of a range that exist now, to be read later.
    pub(crate) fn view(&self, range: &KeyRange) -> impl View + use<> {
        MapView::new(&self.map, range, |_, learned| learned.register.state.clone())
    }

    /// The keys of a range that exist, in order.
    pub(crate) fn entries<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = Entry> + 'a {
        // An ordered map panics on a reversed range, and a peer or user may send one.
        let bounds = if range.is_empty() {
            (Bound::Included(&b""[..]), Bound::Excluded(&b""[..]))
        } else {
            map_bounds(range)
        };
        self.map.range::<_, [u8]>(bounds).filter_map(|(key, learned)| {
            let state = learned.register.state.clone()?;
            Some(Entry {
                key: key.clone(),
                state,
            })
        })
    }
}

#[cfg(test)]
mod tests;
