//! A set of 128-bit fingerprints: which states the search has left behind.
//!
//! Two different states have the same fingerprint with a probability of about n² / 2¹²⁹ for n states: below 10⁻²⁴
//! for the twenty million steps of the default budget.

/// A set of fingerprints by open addressing, of which the order is never looked at.
pub(super) struct Memo {
    slots: Vec<u128>,
    count: usize,
}

/// Most slots: 2²⁵ fingerprints take 512 MiB, and as much again for a moment while the set grows to that.
const SLOTS_MAX: usize = 1 << 25;

/// An empty slot; the fingerprint 0 is kept as 1.
const EMPTY: u128 = 0;

impl Memo {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; 64],
            count: 0,
        }
    }

    /// Whether no more fingerprints may be added.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() == SLOTS_MAX && (self.count + 1) * 4 > SLOTS_MAX * 3
    }

    /// Adds a fingerprint; false if it is there already. The caller stops when the set is full.
    pub(super) fn insert(&mut self, fingerprint: u128) -> bool {
        if (self.count + 1) * 4 > self.slots.len() * 3 && self.slots.len() < SLOTS_MAX {
            self.grow();
        }
        let is_new = Self::put(&mut self.slots, fingerprint.max(1));
        self.count += usize::from(is_new);
        is_new
    }

    fn put(slots: &mut [u128], fingerprint: u128) -> bool {
        let mask = slots.len() - 1;
        let mut slot = fingerprint as usize & mask;
        loop {
            if slots[slot] == EMPTY {
                slots[slot] = fingerprint;
                return true;
            }
            if slots[slot] == fingerprint {
                return false;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mut larger = vec![EMPTY; self.slots.len() * 2];
        for fingerprint in self.slots.iter().filter(|slot| **slot != EMPTY) {
            Self::put(&mut larger, *fingerprint);
        }
        self.slots = larger;
    }
}

/// The fingerprint of one fact, such as "operation 7 is done" or "key 3 holds value 9". Those of several are added.
pub(super) fn fingerprint(kind: u64, what: u64) -> u128 {
    let high = mix(what.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ mix(kind.wrapping_add(0x243F_6A88_85A3_08D3)));
    let low = mix(what.wrapping_add(0xD1B5_4A32_D192_ED03) ^ mix(kind.wrapping_add(0x1319_8A2E_0370_7344)));
    (u128::from(high) << 64) | u128::from(low)
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
