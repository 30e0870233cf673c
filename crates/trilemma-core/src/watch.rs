//! Watches: a keyspace's changes as a stream that survives reconnects and never skips silently.
//!
//! A watch begins with the state, with what happens from now on, or after a [`WatchToken`]: [`WatchStart`]. A reader that resumes with one gets every change after it, in order, each command's
//! changes together. Where that is no longer possible (the token is older than the ring of recent changes, or
//! belongs to another node's stream) the stream says so with one [`WatchItem::Reset`] that carries the current
//! entries, and goes on from there: nothing is lost silently, and a slow watcher costs bounded memory.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::bounded_vec;
use crate::codec::optional_duration;
use crate::data::{Change, ChangeBatch};
use crate::id::Version;
use crate::read::{Entry, KeyRange};
use crate::session::CHECKED_MAX;

/// Changes kept per keyspace for watchers that are behind or resume.
pub const RING_CHANGES_MAX: usize = 65_536;
/// Least time between two [`WatchItem::Progress`] of a watch.
pub const PROGRESS_MIN: Duration = Duration::from_millis(100);
/// Most changes in one [`WatchItem::Changes`].
pub const ITEM_CHANGES_MAX: usize = 8192;

/// A place in a change stream: which stream, and the last position seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchToken {
    /// The stream: 0 where all nodes see the same one (`raft`, `two-phase`), else one incarnation of one node.
    pub stream: u64,
    /// The last position seen; 0 is the beginning.
    pub position: u64,
}

impl WatchToken {
    /// The token of a version of a keyspace whose change stream all nodes share (`raft`, `two-phase`): a watch after it is
    /// shown every later change.
    #[must_use]
    pub fn at(version: Version) -> Self {
        Self {
            stream: 0,
            position: version.0,
        }
    }

    /// Whether all nodes see the stream of this token.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.stream == 0
    }
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.stream, self.position)
    }
}

impl std::str::FromStr for WatchToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (stream, position) = text.split_once(':')?;
            Some(WatchToken {
                stream: u64::from_str_radix(stream, 16).ok()?,
                position: position.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParseTokenError(text.chars().take(80).collect()))
    }
}

/// The text was not a watch token as printed by `Display`: `<stream, hex>:<position>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watch token \"{0}\": expected <stream>:<position>, as printed by a watch")]
pub struct ParseTokenError(String);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchStart {
    /// With a `Reset` that holds the current entries.
    #[default]
    State,
    /// With a `Reset` too, of this place of the stream or a later one: a node that is behind it waits.
    StateFrom(WatchToken),
    /// With what happens from now on. A `Progress` comes first, and says when *now* was.
    Now,
    /// After this token, if it can be resumed, else with a `Reset`.
    After(WatchToken),
}

/// What to watch and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// The keys.
    pub range: KeyRange,
    /// Where to begin.
    pub start: WatchStart,
    /// How often a `Progress` is due while nothing happens in the range and something does beside it, from
    /// [`PROGRESS_MIN`]; `None`: never.
    #[serde(deserialize_with = "optional_duration")]
    pub progress: Option<Duration>,
}

impl WatchSpec {
    /// A watch without progress marks.
    #[must_use]
    pub fn new(range: KeyRange, start: WatchStart) -> Self {
        Self {
            range,
            start,
            progress: None,
        }
    }
}

/// One item of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchItem {
    /// Forget what you know: these are the entries now. Sent first unless a token could be resumed, and again after
    /// a gap. May come in several parts: `first` marks the one with which it begins, `last` the final one. A reset may
    /// be given up between two parts, when its reader is too slow or the state has jumped; what was shown of it is
    /// void, and another one begins.
    Reset {
        /// Where to resume after this item.
        token: WatchToken,
        /// Entries of the range in key order.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEM_CHANGES_MAX>")]
        entries: Vec<Entry>,
        /// Whether this is the first part: entries of parts before it are void.
        first: bool,
        /// Whether this is the last part.
        last: bool,
    },
    /// Changes that became visible together.
    Changes {
        /// Where to resume after this item.
        token: WatchToken,
        /// The changes within the range, each key once.
        #[serde(deserialize_with = "bounded_vec::<_, _, ITEM_CHANGES_MAX>")]
        changes: Vec<Change>,
    },
    /// Everything in the range up to this token has been sent: a mark, so that a watch of a quiet range can be resumed
    /// although the changes beside it are forgotten.
    Progress {
        /// Where to resume after this item.
        token: WatchToken,
    },
}

impl WatchItem {
    /// Where to resume after this item.
    #[must_use]
    pub fn token(&self) -> WatchToken {
        match self {
            WatchItem::Reset { token, .. }
            | WatchItem::Changes { token, .. }
            | WatchItem::Progress { token } => *token,
        }
    }

    /// What it costs in memory, about: the measure of the room that a reader gives.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const ITEM_BYTES: usize = 64;
        let rest: usize = match self {
            WatchItem::Reset { entries, .. } => entries.iter().map(Entry::bytes).sum(),
            WatchItem::Changes { changes, .. } => changes.iter().map(Change::bytes).sum(),
            WatchItem::Progress { .. } => 0,
        };
        ITEM_BYTES + rest
    }
}

/// The recent changes of one keyspace on one node, in bounded memory.
#[derive(Debug)]
pub struct Ring {
    stream: u64,
    recent: VecDeque<ChangeBatch>,
    changes: usize,
    bytes: usize,
    bytes_max: usize,
    /// Everything after this position is in `recent`.
    floor: u64,
    last: u64,
}

impl Ring {
    /// A ring for this stream that begins after `position` and keeps about `bytes_max` bytes, the newest changes in any
    /// case.
    #[must_use]
    pub fn new(stream: u64, position: u64, bytes_max: usize) -> Self {
        Self {
            stream,
            recent: VecDeque::new(),
            changes: 0,
            bytes: 0,
            bytes_max,
            floor: position,
            last: position,
        }
    }

    /// The token of the newest change.
    #[must_use]
    pub fn token(&self) -> WatchToken {
        self.token_at(self.last)
    }

    /// The token of a position.
    #[must_use]
    pub fn token_at(&self, position: u64) -> WatchToken {
        WatchToken {
            stream: self.stream,
            position,
        }
    }

    /// Whether all changes after `position` are known.
    #[must_use]
    pub fn covers(&self, position: u64) -> bool {
        position >= self.floor && position <= self.last
    }

    /// Adds changes. Positions must grow; an entry without changes only moves the position.
    pub fn push(&mut self, applied: ChangeBatch) {
        assert!(
            applied.position > self.last,
            "change {} after {}",
            applied.position,
            self.last
        );
        self.last = applied.position;
        if applied.changes.is_empty() {
            return;
        }
        self.changes += applied.changes.len();
        self.bytes += size(&applied);
        self.recent.push_back(applied);
        while self.is_over() && self.recent.len() > 1 {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.changes -= oldest.changes.len();
            self.bytes -= size(&oldest);
            self.floor = oldest.position;
        }
        self.check();
    }

    fn is_over(&self) -> bool {
        self.changes > RING_CHANGES_MAX || self.bytes > self.bytes_max
    }

    /// The ring's invariants: what it holds lies between floor and last, and is counted. A floor that is off would skip
    /// changes silently.
    fn check(&self) {
        assert!(
            self.floor <= self.last,
            "floor {} is beyond {}",
            self.floor,
            self.last
        );
        let first = self.recent.front().map_or(u64::MAX, |applied| applied.position);
        let newest = self.recent.back().map_or(self.floor, |applied| applied.position);
        assert!(
            first > self.floor,
            "change {first} is not above the floor {}",
            self.floor
        );
        assert!(
            newest <= self.last,
            "change {newest} is beyond the last, {}",
            self.last
        );
        assert!(!self.is_over() || self.recent.len() == 1, "the ring is bounded");
        assert_eq!(self.recent.is_empty(), self.changes == 0, "changes are counted");
        if cfg!(debug_assertions) && self.recent.len() <= CHECKED_MAX {
            let changes: usize = self.recent.iter().map(|applied| applied.changes.len()).sum();
            assert_eq!(changes, self.changes, "changes are counted");
            assert_eq!(
                self.recent.iter().map(size).sum::<usize>(),
                self.bytes,
                "bytes are counted"
            );
            assert!(
                self.recent.iter().is_sorted_by(|a, b| a.position < b.position),
                "changes are in order"
            );
        }
    }

    /// Forgets everything up to `position`, whose changes this node has not seen one by one (a snapshot came).
    pub fn reset(&mut self, position: u64) {
        *self = Self::new(self.stream, position.max(self.last), self.bytes_max);
    }

    /// The changes after a position, oldest first. They are all that there were if the ring [covers](Ring::covers) it.
    pub fn after(&self, position: u64) -> impl Iterator<Item = &ChangeBatch> {
        let first = self
            .recent
            .partition_point(|applied| applied.position <= position);
        self.recent.range(first..)
    }

    /// One `ChangeBatch` as an item of a watch on `range`; `None` if nothing in it is within.
    #[must_use]
    pub fn item(&self, applied: &ChangeBatch, range: &KeyRange) -> Option<WatchItem> {
        let within = |change: &&Change| range.contains(&change.key);
        let changes: Vec<Change> = applied.changes.iter().filter(within).cloned().collect();
        let token = self.token_at(applied.position);
        (!changes.is_empty()).then_some(WatchItem::Changes { token, changes })
    }
}

fn size(applied: &ChangeBatch) -> usize {
    applied.changes.iter().map(Change::bytes).sum()
}

#[cfg(test)]
mod tests;
