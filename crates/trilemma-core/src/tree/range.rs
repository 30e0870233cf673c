//! Entries of a tree, one after the other; what two trees do not share.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::slice;

use super::{Entries, Node};

/// The entries of a tree within some bounds, in order.
pub struct Range<'a, K, V> {
    /// What follows the leaf, the lowest nodes last.
    rest: Vec<slice::Iter<'a, Node<K, V>>>,
    /// What is left of the leaf.
    keys: &'a [K],
    values: &'a [V],
    /// The last leaf, and how many of its entries are within the bounds.
    end: Option<(&'a Entries<K, V>, usize)>,
}

impl<K, V> fmt::Debug for Range<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").finish_non_exhaustive()
    }
}

impl<K, V> Clone for Range<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            rest: self.rest.clone(),
            keys: self.keys,
            values: self.values,
            end: self.end,
        }
    }
}

/// Where a bound is: before or after all entries, or beside those of a key.
enum Edge<'q, Q: ?Sized> {
    Open,
    Before(&'q Q),
    After(&'q Q),
}

impl<Q: Ord + ?Sized> Edge<'_, Q> {
    /// How many entries of a leaf are before it; `None` if it is open.
    fn before<K: Borrow<Q>, V>(&self, entries: &Entries<K, V>) -> Option<usize> {
        match *self {
            Edge::Open => None,
            Edge::Before(key) => Some(entries.search(key).unwrap_or_else(|at| at)),
            Edge::After(key) => Some(entries.search(key).map_or_else(|at| at, |at| at + 1)),
        }
    }

    fn key(&self) -> Option<&Q> {
        match *self {
            Edge::Open => None,
            Edge::Before(key) | Edge::After(key) => Some(key),
        }
    }
}

impl<'a, K, V> Range<'a, K, V> {
    pub(super) fn all(root: &'a Node<K, V>) -> Self {
        let mut range = Self::nothing();
        range.descend(root);
        range
    }

    pub(super) fn new<Q: Ord + ?Sized>(root: &'a Node<K, V>, bounds: &impl RangeBounds<Q>) -> Self
    where
        K: Borrow<Q>,
    {
        let start = match bounds.start_bound() {
            Bound::Included(key) => Edge::Before(key),
            Bound::Excluded(key) => Edge::After(key),
            Bound::Unbounded => Edge::Open,
        };
        let end = match bounds.end_bound() {
            Bound::Included(key) => Edge::After(key),
            Bound::Excluded(key) => Edge::Before(key),
            Bound::Unbounded => Edge::Open,
        };
        let mut range = Self::nothing();
        if start
            .key()
            .is_some_and(|start| end.key().is_some_and(|end| start > end))
        {
            return range;
        }
        if let Some(key) = end.key() {
            let mut node = root;
            while let Node::Inner(children) = node {
                node = &children.items[children.position_of(key)];
            }
            if let Node::Leaf(entries) = node {
                range.end = end.before(entries).map(|within| (&**entries, within));
            }
        }
        let mut node = root;
        while let Node::Inner(children) = node {
            let at = start.key().map_or(0, |key| children.position_of(key));
            range.rest.push(children.items[at + 1..].iter());
            node = &children.items[at];
        }
        if let Node::Leaf(entries) = node {
            let skipped = start.before(entries).unwrap_or(0);
            range.enter(entries, skipped);
        }
        range
    }

    fn nothing() -> Self {
        Self {
            rest: Vec::new(),
            keys: &[],
            values: &[],
            end: None,
        }
    }

    /// Goes on with a leaf, but for its first entries.
    fn enter(&mut self, entries: &'a Entries<K, V>, skipped: usize) {
        let mut within = entries.keys.len();
        if let Some((last, end)) = self.end
            && std::ptr::eq(last, entries)
        {
            within = end;
            self.rest.clear();
        }
        self.keys = entries.keys.get(skipped..within).unwrap_or_default();
        self.values = entries.items.get(skipped..within).unwrap_or_default();
    }

    /// Goes on with the first leaf below a node.
    fn descend(&mut self, node: &'a Node<K, V>) {
        let mut node = node;
        loop {
            match node {
                Node::Leaf(entries) => return self.enter(entries, 0),
                Node::Inner(children) => {
                    let mut children = children.items.iter();
                    let Some(first) = children.next() else { return };
                    self.rest.push(children);
                    node = first;
                }
            }
        }
    }

    /// The next entry, which stays the next.
    fn peek(&mut self) -> Option<&'a K> {
        while self.keys.is_empty() && self.next_leaf() {}
        self.keys.first()
    }

    /// The node that follows the leaf.
    fn peek_node(&mut self) -> Option<&'a Node<K, V>> {
        while let Some(children) = self.rest.last() {
            if let Some(child) = children.as_slice().first() {
                return Some(child);
            }
            self.rest.pop();
        }
        None
    }

    /// Passes over the node that follows the leaf.
    fn skip_node(&mut self) {
        if let Some(children) = self.rest.last_mut() {
            children.next();
        }
    }

    /// Goes on with the next leaf. Whether there is one.
    fn next_leaf(&mut self) -> bool {
        while let Some(children) = self.rest.last_mut() {
            match children.next() {
                Some(child) => {
                    self.descend(child);
                    return true;
                }
                None => {
                    self.rest.pop();
                }
            }
        }
        false
    }
}

impl<'a, K, V> Iterator for Range<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (Some((key, keys)), Some((value, values))) =
                (self.keys.split_first(), self.values.split_first())
            {
                (self.keys, self.values) = (keys, values);
                return Some((key, value));
            }
            if !self.next_leaf() {
                return None;
            }
        }
    }
}

/// The keys whose values differ between two trees, in order, each with the value in the first and in the second. What the
/// trees share is passed over without a look at it, so that the changes since a clone are found at the cost of the
/// changes.
#[derive(Debug)]
pub struct Difference<'a, K, V> {
    before: Range<'a, K, V>,
    now: Range<'a, K, V>,
}

impl<'a, K, V> Difference<'a, K, V> {
    pub(super) fn new(before: Range<'a, K, V>, now: Range<'a, K, V>) -> Self {
        Self { before, now }
    }

    /// Passes over what both share from here on.
    fn skip_shared(&mut self) {
        if std::ptr::eq(self.before.keys, self.now.keys) {
            self.before.keys = &[];
            self.now.keys = &[];
        }
        while self.before.keys.is_empty() && self.now.keys.is_empty() {
            match (self.before.peek_node(), self.now.peek_node()) {
                (Some(before), Some(now)) if before.is(now) => {
                    self.before.skip_node();
                    self.now.skip_node();
                }
                _ => return,
            }
        }
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for Difference<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip_shared();
            let order = match (self.before.peek(), self.now.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(now)) => before.cmp(now),
            };
            match order {
                Ordering::Less => return self.before.next().map(|(key, before)| (key, Some(before), None)),
                Ordering::Greater => return self.now.next().map(|(key, now)| (key, None, Some(now))),
                Ordering::Equal => {
                    let ((_, before), (key, now)) = (self.before.next()?, self.now.next()?);
                    if before != now {
                        return Some((key, Some(before), Some(now)));
                    }
                }
            }
        }
    }
}
