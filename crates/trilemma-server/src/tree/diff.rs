//! What `load` would do: stored entries against a file's.
//!
//! Loading adds and changes. It deletes without `--prune` only what could not stand beside the file's tree: keys
//! within an array of the file (an array is replaced as a whole), and keys that contradict the file's shape (a value
//! where the file has a map, or the other way round). So what is stored always forms a tree that can be exported.
//!
//! What is stored is compared as bytes: not every value is text, and one that only looks like the file's is another one.

use std::collections::BTreeMap;

use trilemma::Value;

use super::Prefix;
use super::path::Segment;

/// The difference between stored entries and wanted ones, all in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Keys to put that do not exist.
    pub(crate) added: Vec<(String, String)>,
    /// Keys to put that hold something else: key, old, new.
    pub(crate) changed: Vec<(String, Value, String)>,
    /// Keys to delete: they contradict the file, or are not in it and `--prune` was given.
    pub(crate) removed: Vec<(String, Value)>,
    /// Keys that are not in the file and stay.
    pub(crate) kept: Vec<String>,
    /// Number of keys that are as wanted already.
    pub(crate) unchanged: usize,
}

impl Diff {
    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Number of keys to write or delete.
    pub(crate) fn len(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

/// What an inner path of the file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Map,
    Array,
}

/// Compares what is `stored` under `prefix` with what is `wanted`.
pub(crate) fn diff(
    stored: &BTreeMap<String, Value>,
    wanted: &BTreeMap<String, String>,
    prefix: &Prefix,
    prune: bool,
) -> Diff {
    let inner = inner_paths(wanted, prefix);
    let mut diff = Diff::default();
    for (key, value) in stored {
        if wanted.contains_key(key) {
            continue;
        }
        if prune || contradicts(key, wanted, &inner, prefix) {
            diff.removed.push((key.clone(), value.clone()));
        } else {
            diff.kept.push(key.clone());
        }
    }
    for (key, text) in wanted {
        match stored.get(key) {
            Some(old) if old[..] == *text.as_bytes() => diff.unchanged += 1,
            // An empty map adds nothing to one that has members and keeps them.
            _ if text == "{}" && has_members(&diff.kept, key, prefix) => {
                if let Some(old) = stored.get(key) {
                    diff.removed.push((key.clone(), old.clone()));
                }
            }
            Some(old) => diff.changed.push((key.clone(), old.clone(), text.clone())),
            None => diff.added.push((key.clone(), text.clone())),
        }
    }
    diff
}

/// The proper ancestors of `key` with the segment that follows each, the root (`""`) first.
fn ancestors<'a>(key: &'a str, prefix: &Prefix) -> impl Iterator<Item = (&'a str, &'a str)> {
    let start = prefix.as_str().len();
    let path = &key[start..];
    let slashes = path.match_indices('/').map(move |(at, _)| start + at);
    std::iter::once(None).chain(slashes.map(Some)).map(move |slash| {
        let (ancestor, rest) = match slash {
            None => ("", path),
            Some(at) => (&key[..at], &key[at + 1..]),
        };
        (ancestor, rest.split('/').next().unwrap_or_default())
    })
}

fn kind_of(segment: &str) -> Kind {
    match Segment::decode(segment) {
        Some(Segment::Index(_)) => Kind::Array,
        _ => Kind::Map,
    }
}

fn inner_paths<'a>(wanted: &'a BTreeMap<String, String>, prefix: &Prefix) -> BTreeMap<&'a str, Kind> {
    let mut inner = BTreeMap::new();
    for key in wanted.keys() {
        for (ancestor, segment) in ancestors(key, prefix) {
            inner.insert(ancestor, kind_of(segment));
        }
    }
    inner
}

fn contradicts(
    key: &str,
    wanted: &BTreeMap<String, String>,
    inner: &BTreeMap<&str, Kind>,
    prefix: &Prefix,
) -> bool {
    let root = format!("{}~4", prefix.as_str());
    if key == root || inner.contains_key(key) {
        return true;
    }
    if let Some(text) = wanted.get(&root) {
        return text != "{}"
            || ancestors(key, prefix)
                .next()
                .is_some_and(|(_, s)| kind_of(s) == Kind::Array);
    }
    ancestors(key, prefix).any(|(ancestor, segment)| {
        let below_value = wanted
            .get(ancestor)
            .is_some_and(|text| text != "{}" || kind_of(segment) == Kind::Array);
        let other_shape = inner
            .get(ancestor)
            .is_some_and(|kind| *kind == Kind::Array || kind_of(segment) != *kind);
        below_value || other_shape
    })
}

/// Whether some key of `kept` lies below the map at `key`.
fn has_members(kept: &[String], key: &str, prefix: &Prefix) -> bool {
    let below = if key == format!("{}~4", prefix.as_str()) {
        prefix.as_str().to_owned()
    } else {
        format!("{key}/")
    };
    let from = kept.partition_point(|kept| *kept < below);
    kept.get(from).is_some_and(|kept| kept.starts_with(&below))
}
