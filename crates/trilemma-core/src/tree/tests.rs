//! A tree against a model, and how full its nodes are.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Entries, LEAF_MAX, Node, Tree};
use crate::data::Key;
use crate::rng::Rng;

/// What a tree is made of.
#[derive(Default)]
struct Shape {
    leaves: usize,
}

impl<V> Tree<u64, V> {
    /// Checks what must hold of every tree.
    fn check(&self) -> Shape {
        let mut shape = Shape::default();
        let (_, length) = check(&self.root, None, None, &mut shape);
        assert_eq!(length, self.len());
        shape
    }
}

/// The height of a node, and the number of its entries.
fn check<V>(node: &Node<u64, V>, from: Option<u64>, to: Option<u64>, shape: &mut Shape) -> (usize, usize) {
    assert!(node.room().is_some(), "a node has too many items");
    match node {
        Node::Leaf(entries) => {
            assert!(entries.keys.is_sorted_by(|one, other| one < other));
            let within = |key| from.is_none_or(|from| from <= key) && to.is_none_or(|to| key < to);
            assert!(
                entries.keys.iter().all(|key| within(*key)),
                "a key beyond its bounds"
            );
            shape.leaves += 1;
            (0, entries.keys.len())
        }
        Node::Inner(children) => {
            assert!(!children.items.is_empty());
            let (mut height, mut length) = (None, 0);
            for (at, child) in children.items.iter().enumerate() {
                assert!(!child.is_empty(), "an empty child");
                let from = if at == 0 { from } else { Some(children.keys[at]) };
                let to = children.keys.get(at + 1).copied().or(to);
                let (child_height, entries) = check(child, from, to, shape);
                assert_eq!(*height.get_or_insert(child_height), child_height);
                length += entries;
            }
            (height.unwrap_or(0) + 1, length)
        }
    }
}

/// A tree of these keys, each with itself as value.
fn tree(keys: impl IntoIterator<Item = u64>) -> Tree<u64, u64> {
    keys.into_iter().map(|key| (key, key)).collect()
}

#[test]
fn it_is_an_ordered_map() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let keys = [4, 40, 400, 4000][seed as usize % 4];
        let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
        let mut clones: Vec<(Tree<u64, u64>, BTreeMap<u64, u64>)> = Vec::new();
        // Growth and shrinkage in turns, so that both divide and join nodes of every height.
        for step in 0..8000 {
            let inserts = if step / 2000 % 2 == 0 { 800 } else { 200 };
            let key = rng.below(keys);
            if rng.per_mille(inserts) {
                assert_eq!(tree.insert(key, step), model.insert(key, step));
            } else if rng.per_mille(100) {
                let (one, other) = (tree.get_mut(&key), model.get_mut(&key));
                assert_eq!(one, other);
                if let (Some(one), Some(other)) = (one, other) {
                    (*one, *other) = (step, step);
                }
            } else {
                assert_eq!(tree.remove(&key), model.remove(&key));
            }
            assert_eq!((tree.len(), tree.get(&key)), (model.len(), model.get(&key)));
            if step % 500 == 0 {
                clones.push((tree.clone(), model.clone()));
                tree.check();
                assert!(tree.iter().eq(&model));
            }
        }
        for (tree, model) in &clones {
            tree.check();
            assert!(tree.iter().eq(model), "a clone has changed");
        }
        for pair in clones.windows(2) {
            let [(before, before_model), (now, now_model)] = pair else {
                unreachable!("windows of two")
            };
            let differ = |key: &u64| before_model.get(key) != now_model.get(key);
            let expected = (0..keys)
                .filter(differ)
                .map(|key| (key, before_model.get(&key), now_model.get(&key)));
            let found = now
                .changes_since(before)
                .map(|(key, before, now)| (*key, before, now));
            assert!(found.eq(expected));
        }
        let all: Vec<u64> = model.into_keys().collect();
        for key in all {
            assert!(tree.remove(&key).is_some());
        }
        assert_eq!(tree, Tree::new(), "nothing is left");
        assert!(matches!(&tree.root, Node::Leaf(_)), "an empty tree is flat");
    }
}

#[test]
fn a_range_has_what_is_within_its_bounds_and_reversed_bounds_have_nothing() {
    let bounds = |key: u64| [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded];
    for length in [0, 1, 2, 30, 31, 70, 2100] {
        let tree = tree((0..length).map(|key| 2 * key));
        let edges = (0..8)
            .chain(55..75)
            .chain([2 * length, 2 * length + 1, 1000, 1001]);
        let edges: Vec<u64> = edges.collect();
        for (start, end) in edges
            .iter()
            .flat_map(|start| edges.iter().map(move |end| (*start, *end)))
        {
            for start in bounds(start) {
                for end in bounds(end) {
                    let within = |key: &u64| std::ops::RangeBounds::contains(&(start, end), key);
                    let expected = (0..length).map(|key| 2 * key).filter(within);
                    let found = tree.range::<u64>((start, end)).map(|(key, _)| *key);
                    assert!(found.eq(expected), "{start:?} to {end:?} of {length}");
                }
            }
        }
    }
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let keys = 100_000;
    let full = |tree: &Tree<u64, u64>| tree.len() as f64 / (tree.check().leaves * LEAF_MAX) as f64;
    let ascending = full(&tree(0..keys));
    assert!(ascending > 0.99, "ascending: {ascending}");
    let descending = full(&tree((0..keys).rev()));
    assert!(descending > 0.9, "descending: {descending}");
    // Forty rows of keys that grow at once, as those of forty services do.
    let rows = full(&tree((0..keys).map(|key| key % 40 * keys + key)));
    assert!(rows > 0.9, "rows: {rows}");
    let mut rng = Rng::new(1);
    let random = full(&tree((0..keys).map(|_| rng.next_u64())));
    assert!(random > 0.78, "random: {random}");
}

/// Each key is below the one before, above all of a full leaf: what would leave a leaf for each of them if a leaf were always
/// divided at its end.
#[test]
fn keys_that_fall_into_one_gap_do_not_leave_a_leaf_each() {
    let mut tree = tree(0..2000);
    tree.extend((1_000_000..1_100_000).rev().map(|key| (key, key)));
    let leaves = tree.check().leaves;
    assert!(leaves < tree.len() / (LEAF_MAX / 2), "{leaves} leaves");
}

#[test]
fn what_is_left_after_removals_is_not_spread_thin() {
    let mut rng = Rng::new(7);
    let mut tree = tree(0..100_000);
    while tree.len() > 1000 {
        tree.remove(&rng.below(100_000));
    }
    let shape = tree.check();
    assert!(shape.leaves < 1000 / (LEAF_MAX / 8), "{} leaves", shape.leaves);
}

/// A snapshot must not cost what the state does, neither when it is made nor when the state goes on.
#[test]
fn a_change_beside_a_clone_copies_one_path() {
    let mut tree = tree(0..100_000);
    let clone = tree.clone();
    tree.insert(50_000, 0);
    let mut shared = 0;
    let mut nodes = vec![(&clone.root, &tree.root)];
    let mut copied = 0;
    while let Some((before, now)) = nodes.pop() {
        if before.is(now) {
            shared += 1;
            continue;
        }
        copied += 1;
        if let (Node::Inner(before), Node::Inner(now)) = (before, now) {
            nodes.extend(before.items.iter().zip(&now.items));
        }
    }
    assert!(copied <= 5 && shared > 30, "{copied} copied, {shared} shared");
    assert_eq!((clone.get(&50_000), tree.get(&50_000)), (Some(&50_000), Some(&0)));
}

/// A leaf of small entries must not take what the children of another node do.
#[test]
fn a_leaf_is_as_large_as_its_entries() {
    let counters = size_of::<[usize; 2]>();
    let lengths = size_of::<[usize; 2]>();
    let leaf = |entry: usize| counters + lengths + (LEAF_MAX + 1) * entry;
    assert_eq!(size_of::<Entries<Key, u64>>() + counters, leaf(32));
    assert_eq!(size_of::<Entries<u64, u64>>() + counters, leaf(16));
    // With a key and a pointer, and with a key and its state, leaves are just what a power of two holds.
    assert!(leaf(32) <= 1024 && leaf(64) <= 2048);
}
