//! A list that has one element nearly always.
//!
//! Each key has a list of siblings, and each change that replaces another a list of what it has observed. A vector of one
//! element costs an allocation, its length and its room beside the element; this costs nothing beside it where the element
//! leaves room for a tag.

use std::ops::Deref;

/// A list. Equal lists have one form: one element is never in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Few<T> {
    One([T; 1]),
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few::Many(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::One(one) => one,
            Few::Many(many) => many,
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut list: Vec<T>) -> Self {
        if list.len() > 1 {
            return Few::Many(list);
        }
        list.pop().map_or_else(Self::default, |only| Few::One([only]))
    }
}

impl<T> From<Few<T>> for Vec<T> {
    fn from(list: Few<T>) -> Self {
        match list {
            Few::One(one) => one.into(),
            Few::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_of_one_form() {
        for length in 0..4 {
            let list: Vec<u64> = (0..length).collect();
            let few = Few::from(list.clone());
            assert_eq!(few[..], list[..]);
            assert_eq!(matches!(few, Few::One(_)), length == 1);
            assert_eq!(Vec::from(few), list);
        }
        assert_eq!(Few::<u64>::default(), Few::from(Vec::new()));
    }
}
