//! An ordered map whose clones are O(1): what holds the state of every backend.
//!
//! A B+ tree (Comer 1979): entries in leaves, in order; above them nodes of children with the keys between them. Clones share
//! nodes, and a change copies the shared nodes on its way down, no others, so that what a clone shows never changes.
//!
//! How full its nodes are is what it costs in memory. A node that has become too large gives entries to a neighbour that
//! has room, and is divided only if none has; the last node of each height is divided at its end, since keys often come
//! in ascending order. So leaves are nearly full where keys come in order, and four fifths full where they do not.

mod items;
mod range;

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use items::{Direction, Items, search};

pub use range::{Difference, Range};

/// Entries of a leaf at most: few enough to be moved at once, enough to make what is beside them in memory small. With the
/// one too many that a leaf holds until it gives one away, a leaf of a table is 2 KiB large, and one of pointers 1 KiB.
const LEAF_MAX: usize = 30;
/// Children of another node at most: there are so few of these nodes that their size hardly matters.
const CHILDREN_MAX: usize = 60;

/// An ordered map. A clone is O(1) and shares memory; look-ups and changes are O(log n).
#[derive(Clone)]
pub struct Tree<K, V> {
    root: Node<K, V>,
    length: usize,
}

/// A node, which its clones share. Which kind it is stands beside the pointer, not in what it points to: so a leaf is as large
/// as its entries, and not as the children of another node, which may be twice that.
enum Node<K, V> {
    Leaf(Arc<Entries<K, V>>),
    Inner(Arc<Children<K, V>>),
}

type Entries<K, V> = Items<K, V, { LEAF_MAX + 1 }>;

/// Nodes of one height, in order. The key of a node is not greater than any in it, and greater than every key before it;
/// that of the first is not looked at.
type Children<K, V> = Items<K, Node<K, V>, { CHILDREN_MAX + 1 }>;

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Node::Leaf(entries) => Node::Leaf(Arc::clone(entries)),
            Node::Inner(children) => Node::Inner(Arc::clone(children)),
        }
    }
}

impl<K, V> Node<K, V> {
    fn leaf(entries: Entries<K, V>) -> Self {
        Node::Leaf(Arc::new(entries))
    }

    fn inner(children: Children<K, V>) -> Self {
        Node::Inner(Arc::new(children))
    }

    /// Whether both are one node, in the same memory.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Node::Leaf(one), Node::Leaf(other)) => Arc::ptr_eq(one, other),
            (Node::Inner(one), Node::Inner(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// How many items it could still hold; `None` if it holds one too many.
    fn room(&self) -> Option<usize> {
        match self {
            Node::Leaf(entries) => entries.room(),
            Node::Inner(children) => children.room(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(entries) => entries.keys.is_empty(),
            Node::Inner(children) => children.keys.is_empty(),
        }
    }

    /// Whether it should be joined with a neighbour.
    fn is_small(&self) -> bool {
        match self {
            Node::Leaf(entries) => entries.keys.len() < LEAF_MAX / 4,
            Node::Inner(children) => children.keys.len() < CHILDREN_MAX / 4,
        }
    }

    /// Whether what two nodes of one height hold fits in one.
    fn fits_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Node::Leaf(one), Node::Leaf(other)) => one.fit_with(other),
            (Node::Inner(one), Node::Inner(other)) => one.fit_with(other),
            _ => false,
        }
    }
}

impl<K, V> Children<K, V> {
    /// Where the child is that holds a key, if any does.
    fn position_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        match search(&self.keys[1..], key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Tree<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: Node::leaf(Entries::new()),
            length: 0,
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(children) => node = &children.items[children.position_of(key)],
                Node::Leaf(entries) => return entries.search(key).ok().map(|at| &entries.items[at]),
            }
        }
    }

    /// Whether there is an entry for a key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries within some bounds, in order; none if the bounds are reversed.
    pub fn range<Q: Ord + ?Sized>(&self, bounds: impl RangeBounds<Q>) -> Range<'_, K, V>
    where
        K: Borrow<Q>,
    {
        Range::new(&self.root, &bounds)
    }

    /// All entries, in order.
    pub fn iter(&self) -> Range<'_, K, V> {
        Range::all(&self.root)
    }

    /// The keys whose values are not what they were in `before`, in order, with the value then and now.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Difference<'a, K, V> {
        Difference::new(before.iter(), self.iter())
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V: Clone> Tree<K, V> {
    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let children = Arc::make_mut(children);
                    let at = children.position_of(key);
                    node = &mut children.items[at];
                }
                Node::Leaf(entries) => {
                    let entries = Arc::make_mut(entries);
                    let at = entries.search(key).ok()?;
                    return Some(&mut entries.items[at]);
                }
            }
        }
    }

    /// Sets the value of a key. Returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let bound = key.clone();
        let before = insert(&mut self.root, key, value, true);
        if self.root.room().is_none() {
            let mut children = Children::new();
            children.insert(0, bound, self.root.clone());
            self.root = Node::leaf(Entries::new());
            divide(&mut children, 0, true);
            self.root = Node::inner(children);
        }
        self.length += usize::from(before.is_none());
        before
    }

    /// The value of a key, to be changed: what `make` returns if it has none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.contains_key(&key) {
            self.insert(key.clone(), make());
        }
        let Some(value) = self.get_mut(&key) else {
            unreachable!("the key was there, or has been inserted")
        };
        value
    }

    /// Takes out a key. Returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // What is not there needs no copies.
        self.get(key)?;
        let before = remove(&mut self.root, key);
        self.length -= usize::from(before.is_some());
        while let Node::Inner(children) = &self.root
            && let [only] = &children.items[..]
        {
            self.root = only.clone();
        }
        before
    }
}

fn insert<K: Ord + Clone, V: Clone>(node: &mut Node<K, V>, key: K, value: V, is_last: bool) -> Option<V> {
    match node {
        Node::Leaf(entries) => {
            let entries = Arc::make_mut(entries);
            match entries.search(&key) {
                Ok(at) => Some(std::mem::replace(&mut entries.items[at], value)),
                Err(at) => {
                    entries.insert(at, key, value);
                    None
                }
            }
        }
        Node::Inner(children) => {
            let children = Arc::make_mut(children);
            let at = children.position_of(&key);
            let is_last = is_last && at + 1 == children.keys.len();
            let before = insert(&mut children.items[at], key, value, is_last);
            if children.items[at].room().is_none() {
                make_room(children, at, is_last);
            }
            before
        }
    }
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    node: &mut Node<K, V>,
    key: &Q,
) -> Option<V> {
    match node {
        Node::Leaf(entries) => {
            let entries = Arc::make_mut(entries);
            let at = entries.search(key).ok()?;
            let (_, value) = entries.remove(at);
            Some(value)
        }
        Node::Inner(children) => {
            let children = Arc::make_mut(children);
            let at = children.position_of(key);
            let before = remove(&mut children.items[at], key);
            if children.items[at].is_small() {
                join(children, at);
            }
            before
        }
    }
}

/// Sees to it that a child that has one item too many has not. `is_last`: no node of its height follows it.
fn make_room<K: Clone, V: Clone>(children: &mut Children<K, V>, at: usize, is_last: bool) {
    let room = |at: usize| children.items.get(at).and_then(|node| node.room()).unwrap_or(0);
    let (before, after) = (at.checked_sub(1).map_or(0, room), room(at + 1));
    if is_last {
        divide(children, at, true);
    } else if before > 0 {
        shift(children, at - 1, Direction::Left, before.div_ceil(2));
    } else if after > 0 {
        shift(children, at, Direction::Right, after.div_ceil(2));
    } else {
        divide(children, at, false);
    }
}

/// Divides a child: before its last item, or in half.
fn divide<K: Clone, V: Clone>(children: &mut Children<K, V>, at: usize, at_end: bool) {
    let (bound, rest) = match &mut children.items[at] {
        Node::Leaf(entries) => {
            let rest = Arc::make_mut(entries).divide(at_end);
            (rest.keys[0].clone(), Node::leaf(rest))
        }
        Node::Inner(inner) => {
            let rest = Arc::make_mut(inner).divide(at_end);
            (rest.keys[0].clone(), Node::inner(rest))
        }
    };
    children.insert(at + 1, bound, rest);
}

/// Moves items between two children that follow each other.
fn shift<K: Clone, V: Clone>(children: &mut Children<K, V>, at: usize, to: Direction, items: usize) {
    let bound = &mut children.keys[at + 1];
    let [left, right] = &mut children.items[at..at + 2] else {
        unreachable!("two children")
    };
    *bound = match (left, right) {
        (Node::Leaf(left), Node::Leaf(right)) => {
            let (left, right) = (Arc::make_mut(left), Arc::make_mut(right));
            left.shift(right, to, items);
            right.keys[0].clone()
        }
        (Node::Inner(left), Node::Inner(right)) => {
            let (left, right) = (Arc::make_mut(left), Arc::make_mut(right));
            right.keys[0] = bound.clone();
            left.shift(right, to, items);
            right.keys[0].clone()
        }
        _ => unreachable!("children of one node have one height"),
    };
}

/// Joins a child that has become small with a neighbour, if both fit in one, or takes it out if it is empty.
fn join<K: Clone, V: Clone>(children: &mut Children<K, V>, at: usize) {
    if children.items[at].is_empty() {
        children.remove(at);
        return;
    }
    let fits = |at: usize| {
        let pair = children.items.get(at..at + 2);
        pair.is_some_and(|pair| pair[0].fits_with(&pair[1]))
    };
    let at = match at.checked_sub(1) {
        Some(before) if fits(before) => before,
        _ if fits(at) => at,
        _ => return,
    };
    let (bound, right) = children.remove(at + 1);
    match (&mut children.items[at], right) {
        (Node::Leaf(left), Node::Leaf(right)) => Arc::make_mut(left).append(Arc::unwrap_or_clone(right)),
        (Node::Inner(left), Node::Inner(right)) => {
            let mut right = Arc::unwrap_or_clone(right);
            right.keys[0] = bound;
            Arc::make_mut(left).append(right);
        }
        _ => unreachable!("children of one node have one height"),
    }
}

impl<K, V> FromIterator<(K, V)> for Tree<K, V>
where
    K: Ord + Clone,
    V: Clone,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut tree = Self::new();
        tree.extend(entries);
        tree
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Tree<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Tree<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Range<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Tree<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.iter().eq(other)
    }
}

impl<K: Eq, V: Eq> Eq for Tree<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests;
