//! What a node holds.

use std::borrow::Borrow;
use std::cmp::Ordering;

use arrayvec::ArrayVec;

/// Keys in order, each with an item: at most `N`, the last of which is one too many. The keys are apart, so that a search
/// touches little memory.
#[derive(Clone)]
pub(super) struct Items<K, T, const N: usize> {
    pub(super) keys: ArrayVec<K, N>,
    pub(super) items: ArrayVec<T, N>,
}

/// Where a key is among keys in order, or would be. To compare keys costs far more than the rest, and what is searched for
/// is mostly there: so this ends at the key, where that of the standard library goes on.
pub(super) fn search<K: Borrow<Q>, Q: Ord + ?Sized>(keys: &[K], key: &Q) -> Result<usize, usize> {
    let (mut low, mut high) = (0, keys.len());
    while low < high {
        let middle = low.midpoint(high);
        match keys[middle].borrow().cmp(key) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(middle),
        }
    }
    Err(low)
}

/// Where items go.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Left,
    Right,
}

impl<K, T, const N: usize> Items<K, T, N> {
    /// How many it could still hold; `None` if it holds one too many.
    pub(super) fn room(&self) -> Option<usize> {
        (N - 1).checked_sub(self.keys.len())
    }

    /// Whether both fit in one.
    pub(super) fn fit_with(&self, other: &Self) -> bool {
        self.keys.len() + other.keys.len() < N
    }

    pub(super) fn new() -> Self {
        Self {
            keys: ArrayVec::new(),
            items: ArrayVec::new(),
        }
    }

    /// Where a key is, or would be.
    pub(super) fn search<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        search(&self.keys, key)
    }

    pub(super) fn insert(&mut self, at: usize, key: K, item: T) {
        self.keys.insert(at, key);
        self.items.insert(at, item);
    }

    pub(super) fn remove(&mut self, at: usize) -> (K, T) {
        (self.keys.remove(at), self.items.remove(at))
    }

    /// Takes out its last item, or the second half.
    pub(super) fn divide(&mut self, at_end: bool) -> Self {
        let length = self.keys.len();
        let middle = if at_end { length - 1 } else { length / 2 };
        Self {
            keys: self.keys.drain(middle..).collect(),
            items: self.items.drain(middle..).collect(),
        }
    }

    /// Takes the first `items` of those on its right, or gives it as many of its last.
    pub(super) fn shift(&mut self, right: &mut Self, to: Direction, items: usize) {
        match to {
            Direction::Left => {
                self.keys.extend(right.keys.drain(..items));
                self.items.extend(right.items.drain(..items));
            }
            Direction::Right => {
                let first = self.keys.len() - items;
                right.keys = self.keys.drain(first..).chain(right.keys.drain(..)).collect();
                right.items = self.items.drain(first..).chain(right.items.drain(..)).collect();
            }
        }
    }

    /// Takes all of those on its right.
    pub(super) fn append(&mut self, right: Self) {
        self.keys.extend(right.keys);
        self.items.extend(right.items);
    }
}
