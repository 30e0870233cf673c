//! The member table of one node: small, because a simulation holds thousands of them.
//!
//! An entry is a pointer to the shared record and a packed [`Standing`]: 16 bytes. Entries are ordered by node id; a look-up
//! is a binary search. Sums over 1,024 leaves, kept up to date, let two nodes find what they know differently in a few
//! bytes (a flat Merkle tree of two levels); they tell tables of honest nodes apart, not forged ones.

use std::sync::Arc;

use trilemma_core::NodeId;

use crate::message::{SUMS_MAX, Sums};
use crate::record::Record;
use crate::standing::{Standing, State};

/// Most members of a table, the node itself included.
pub const MEMBERS_MAX: usize = 16_384;
/// Leaves of the comparison, as a power of two.
const LEAVES_LOG2: u8 = 10;
/// Members of one bucket of a comparison, about: some hundred bytes of listing.
const BUCKET_MEMBERS: usize = 16;
/// Fewest buckets, as a power of two, so that a comparison takes as many bytes in a small cluster as in a large one.
const BUCKETS_LOG2_MIN: u8 = 6;

/// A member in a table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Arc<Record>,
    pub(crate) standing: Standing,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    leaves: Box<[u32]>,
    counts: [u32; State::ALL.len()],
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            leaves: vec![0; 1 << LEAVES_LOG2].into(),
            counts: [0; State::ALL.len()],
        }
    }

    /// Makes room for that many, once, when a saved list is loaded.
    pub(crate) fn reserve(&mut self, members: usize) {
        self.entries.reserve_exact(members);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn position(&self, node: NodeId) -> Result<usize, usize> {
        // Saved lists are loaded in order.
        if self.entries.last().is_none_or(|last| last.record.node < node) {
            return Err(self.entries.len());
        }
        self.entries
            .binary_search_by_key(&node, |entry| entry.record.node)
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.position(node).ok().map(|at| &self.entries[at])
    }

    pub(crate) fn standing(&self, node: NodeId) -> Option<Standing> {
        self.get(node).map(|entry| entry.standing)
    }

    /// Adds or replaces a member. What is known never gets less: the caller has compared.
    pub(crate) fn set(&mut self, record: Arc<Record>, standing: Standing) {
        let node = record.node;
        match self.position(node) {
            Ok(at) => {
                let entry = &mut self.entries[at];
                let former = entry.standing;
                assert!(former <= standing, "member {node}: {standing} after {former}");
                entry.record = record;
                entry.standing = standing;
                self.counts[former.state() as usize] -= 1;
                let leaf = &mut self.leaves[leaf(node)];
                *leaf = leaf.wrapping_sub(sum(node, former));
            }
            Err(at) => self.entries.insert(at, Entry { record, standing }),
        }
        self.counts[standing.state() as usize] += 1;
        let leaf = &mut self.leaves[leaf(node)];
        *leaf = leaf.wrapping_add(sum(node, standing));
    }

    /// Members in this state.
    pub(crate) fn count(&self, state: State) -> usize {
        self.counts[state as usize] as usize
    }

    /// Members that take part, the node itself included.
    pub(crate) fn present(&self) -> usize {
        self.count(State::Alive) + self.count(State::Suspect)
    }

    /// In how many buckets this table is best compared, as a power of two.
    pub(crate) fn buckets_log2(&self) -> u8 {
        let buckets = self.entries.len().div_ceil(BUCKET_MEMBERS).next_power_of_two();
        (buckets.trailing_zeros() as u8).clamp(BUCKETS_LOG2_MIN, LEAVES_LOG2)
    }

    /// The sums of some buckets.
    pub(crate) fn sums(&self, buckets_log2: u8, first: u16) -> Sums {
        let buckets = 1_usize << buckets_log2.min(LEAVES_LOG2);
        let count = buckets.min(SUMS_MAX);
        let sums = (0..count).map(|offset| self.bucket_sum(buckets, (usize::from(first) + offset) % buckets));
        Sums {
            buckets_log2,
            first,
            sums: sums.collect(),
        }
    }

    /// The low 16 bits: one difference in 65,536 is overlooked, until the next change.
    fn bucket_sum(&self, buckets: usize, bucket: usize) -> [u8; 2] {
        let leaves = self.leaves.iter().skip(bucket).step_by(buckets);
        let sum = leaves.fold(0_u32, |sum, leaf| sum.wrapping_add(*leaf));
        (sum as u16).to_le_bytes()
    }

    /// The buckets that differ from the sums of another node: number of buckets, and which differ.
    pub(crate) fn differing(&self, sums: &Sums) -> (usize, Vec<usize>) {
        let buckets = 1_usize << sums.buckets_log2.min(LEAVES_LOG2);
        let differing = sums.sums.iter().take(buckets).enumerate();
        let differing = differing.filter_map(|(offset, sum)| {
            let bucket = (usize::from(sums.first) + offset) % buckets;
            (self.bucket_sum(buckets, bucket) != *sum).then_some(bucket)
        });
        (buckets, differing.collect())
    }

    /// The members of some buckets, from a position on and round the end.
    pub(crate) fn in_buckets(
        &self,
        buckets: usize,
        which: &[usize],
        from: usize,
    ) -> impl Iterator<Item = &Entry> {
        let (before, after) = self.entries.split_at(from.min(self.entries.len()));
        let all = after.iter().chain(before);
        all.filter(move |entry| which.contains(&(leaf(entry.record.node) % buckets)))
    }

    /// The module's own invariants; takes time in proportion to the table.
    pub(crate) fn check(&self) {
        let mut counts = [0; State::ALL.len()];
        let mut leaves = vec![0_u32; 1 << LEAVES_LOG2];
        for entry in &self.entries {
            counts[entry.standing.state() as usize] += 1;
            let leaf = &mut leaves[leaf(entry.record.node)];
            *leaf = leaf.wrapping_add(sum(entry.record.node, entry.standing));
        }
        assert_eq!(counts, self.counts, "counts of states");
        assert_eq!(*leaves, *self.leaves, "sums of leaves");
        assert!(
            self.entries.is_sorted_by(|a, b| a.record.node < b.record.node),
            "members out of order"
        );
        assert!(
            self.entries.len() <= MEMBERS_MAX,
            "{} members",
            self.entries.len()
        );
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn leaf(node: NodeId) -> usize {
    (mix(u64::from(node.0) + 1) as usize) & ((1 << LEAVES_LOG2) - 1)
}

fn sum(node: NodeId, standing: Standing) -> u32 {
    let mixed = mix(standing.comparable() ^ mix(u64::from(node.0) + 1));
    mixed as u32
}

#[cfg(test)]
mod tests {
    //! Order, counts and comparisons.

    use std::sync::Arc;

    use trilemma_core::NodeId;

    use super::{SUMS_MAX, Table};
    use crate::record::Record;
    use crate::standing::{Incarnation, Standing, State};

    fn table(nodes: impl IntoIterator<Item = u32>) -> Table {
        let mut table = Table::new();
        for node in nodes {
            let record = Arc::new(Record::new(NodeId(node), "here"));
            table.set(record, Standing::new(Incarnation::first(1), State::Alive));
        }
        table
    }

    fn set(table: &mut Table, node: u32, counter: u32, state: State) {
        let record = table.get(NodeId(node)).expect("present").record.clone();
        table.set(record, Standing::new(Incarnation { epoch: 1, counter }, state));
    }

    #[test]
    fn equal_tables_compare_equal_however_they_came_about() {
        let (mut forward, backward) = (table(1..=500), table((1..=500).rev()));
        assert_eq!(forward.differing(&backward.sums(4, 0)).1, Vec::<usize>::new());
        set(&mut forward, 77, 0, State::Suspect);
        assert!(
            forward.differing(&backward.sums(4, 0)).1.is_empty(),
            "a suspicion is no difference"
        );
        set(&mut forward, 77, 0, State::Dead);
        let (buckets, differing) = forward.differing(&backward.sums(4, 5));
        assert_eq!(differing.len(), 1);
        let listed: Vec<u32> = forward
            .in_buckets(buckets, &differing, 300)
            .map(|entry| entry.record.node.0)
            .collect();
        assert!(
            listed.contains(&77) && listed.len() > 15 && listed.len() < 100,
            "{listed:?}"
        );
        forward.check();
    }

    #[test]
    fn a_comparison_has_a_fixed_size() {
        for members in [1, 10, 300, 5_000] {
            let table = table(1..=members);
            let sums = table.sums(table.buckets_log2(), u16::MAX);
            assert!(sums.sums.len() <= SUMS_MAX);
            assert!(table.differing(&sums).1.is_empty());
        }
    }

    #[test]
    fn sums_from_elsewhere_are_no_danger() {
        let table = table(1..=100);
        let mut sums = table.sums(6, 0);
        sums.buckets_log2 = u8::MAX;
        sums.first = u16::MAX;
        table.differing(&sums);
    }
}
