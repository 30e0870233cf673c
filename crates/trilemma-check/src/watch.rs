//! Watches: whether streams of changes are ordered, unique, atomic, reliable, resumable and within their keys.
//!
//! The guarantees that etcd documents for its watch, judged per [`Stream`] alone, against the authoritative changes
//! where known ([`Truth`]), against the other streams, and against what clients were answered ([`check_history`]).
//! Rules:
//!
//! - `watch-order`: a position, or the version of a key, goes back.
//! - `watch-unique`: a change is delivered twice.
//! - `watch-atomic`: the changes of one commit come in part, or apart.
//! - `watch-gap`: a change is missing between two that were delivered, or before a [`Item::Progress`].
//! - `watch-resume`: a stream continued from a position skips or repeats, or does not begin again where it must.
//! - `watch-reset`: the state that a [`Item::Reset`] gives is not that of its position.
//! - `watch-filter`: a key outside of those asked for.
//! - `watch-thin-air`: a change that nobody made.
//! - `watch-disagreement`: two streams tell different changes of one position.
//!
//! `operations` of a violation are positions in the slice of streams, or in the history for [`check_history`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

mod cross_stream;
mod history;
mod segment;
mod versus_history;

pub use history::check_history;

/// A place in a change stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which stream of changes: one for all nodes where they share an order, else one incarnation of one node.
    pub stream: u64,
    /// The last position seen; 0 is the beginning.
    pub at: u64,
}

/// The keys from `start` to before `end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The first key.
    #[serde(default)]
    pub start: String,
    /// The first key after; `None`: to the last.
    #[serde(default)]
    pub end: Option<String>,
}

impl Keys {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        let mut end: Vec<char> = prefix.chars().collect();
        while let Some(last) = end.pop() {
            // The next character in order; there is none after the greatest, and a gap where surrogates would be.
            let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
            if let Some(next) = next {
                end.push(next);
                let end = Some(end.into_iter().collect());
                return Self {
                    start: prefix.into(),
                    end,
                };
            }
        }
        Self {
            start: prefix.into(),
            end: None,
        }
    }

    /// Whether `key` is among them.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        key >= self.start.as_str() && self.end.as_ref().is_none_or(|end| key < end.as_str())
    }
}

/// A key's state, as a stream or the truth shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The key.
    pub key: String,
    /// Its value; `None`: it was removed.
    #[serde(default)]
    pub value: Option<String>,
    /// The version of the change that made the value, where known.
    #[serde(default)]
    pub version: Option<u64>,
}

impl State {
    /// Whether both tell the same value, and the same version where both know it.
    fn agrees(&self, other: &State) -> bool {
        let versions = self.version == other.version || self.version.is_none() || other.version.is_none();
        self.value == other.value && versions
    }

    fn show(&self) -> String {
        let value = self.value.as_deref().unwrap_or("nothing");
        match self.version {
            Some(version) => format!("{} = {value} (version {version})", self.key),
            None => format!("{} = {value}", self.key),
        }
    }
}

/// In a file a reset that says nothing of further parts is whole.
const fn yes() -> bool {
    true
}

/// What a watcher was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Item {
    /// Forget everything: these are the entries of the watched keys. May come in parts.
    Reset {
        /// Where the stream goes on after the last part. Of the other parts it says nothing.
        position: Position,
        /// The entries, in key order over all parts.
        #[serde(default)]
        entries: Vec<State>,
        /// Whether this is the last part. A stream that ends before it ends without the reset.
        #[serde(default = "yes")]
        last: bool,
    },
    /// Changes that became visible together.
    Changes {
        /// Where the stream goes on after this.
        position: Position,
        /// The changes of the watched keys.
        changes: Vec<State>,
        /// Whether the next item holds more of the same commit.
        #[serde(default)]
        more: bool,
    },
    /// A bookmark: everything up to this position has been sent.
    Progress {
        /// The position.
        position: Position,
    },
}

/// What one watcher was sent on one connection, in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Who watched.
    pub process: u64,
    /// What was watched.
    pub keys: Keys,
    /// The position from which it was continued; `None`: it begins with a reset.
    pub resume: Option<Position>,
    /// What came.
    pub items: Vec<Item>,
}

/// Changes that were made together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where they stand.
    pub position: u64,
    /// Each key at most once.
    pub changes: Vec<State>,
}

/// Every change of one stream of changes, from some position on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Which stream of changes.
    pub stream: u64,
    /// The position after which all is known.
    pub from: u64,
    /// The entries at that position.
    pub entries: BTreeMap<String, State>,
    /// The commits after it, by ascending position.
    pub commits: Vec<Commit>,
}

/// Checks every stream by itself, against the truth of its stream of changes if there is one, else against the other
/// streams. `truths` in any order, one per stream of changes. A truth out of order leaves the check undecided, and so
/// does the lack of any item.
#[must_use]
pub fn check(streams: &[Stream], truths: &[Truth]) -> Verdict {
    if streams.iter().all(|stream| stream.items.is_empty()) {
        let why = "no watch was sent anything, so there is nothing to judge".into();
        return Verdict::Undecided { why };
    }
    let mut known = BTreeMap::new();
    for truth in truths {
        let ordered = truth
            .commits
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position);
        let after = truth
            .commits
            .first()
            .is_none_or(|first| first.position > truth.from);
        if !ordered || !after || known.insert(truth.stream, truth).is_some() {
            let why = format!(
                "the known changes of stream {} are not one ascending list",
                truth.stream
            );
            return Verdict::Undecided { why };
        }
    }
    let segments = match segment::segments(streams) {
        Ok(segments) => segments,
        Err(found) => return found,
    };
    for (id, truth) in &known {
        let shown: Vec<_> = segments.iter().filter(|part| part.id == *id).collect();
        if let Some(found) = versus_history::truth(&shown, truth) {
            return found;
        }
    }
    let unknown: Vec<_> = segments
        .iter()
        .filter(|part| !known.contains_key(&part.id))
        .collect();
    cross_stream::check(&unknown).unwrap_or(Verdict::Legal)
}
