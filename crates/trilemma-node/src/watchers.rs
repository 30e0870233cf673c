//! The watches of one keyspace: each reader at its own pace, in bounded memory, and never a silent gap.
//!
//! A watcher is in one of three conditions. It *follows*: changes of its range are queued for it. It is *ahead*: it
//! resumed with a token that this node has not reached yet, and is sent only what comes after. It *needs a reset*: it
//! is new, its token cannot be resumed, the state has jumped, or more waits for it than its byte limit; it is then
//! sent the entries as they are at the moment its reader has room, and follows from there. A watcher that needs a
//! reset costs no memory, so a reader that stands still costs at most its byte limit.
//!
//! Resets are made at the end of a turn, after all changes of the turn were published, so what a reset shows and the
//! position it claims are of the same moment: no watcher is shown an older value of a key after a newer one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trilemma_core::watch::{ITEM_CHANGES_MAX, RING_BYTES_MAX, Ring};
use trilemma_core::{
    ChangeBatch, Entry, Instant, KeyRange, ReadError, Reason, WatchItem, WatchSpec, WatchToken,
};

/// Watchers that are looked at one by one at the end of each turn, without debug assertions.
const CHECKED_MAX: usize = 64;
/// Bytes of entries in one part of a reset.
const RESET_PART_BYTES: usize = 256 * 1024;
/// Bytes of resets of one keyspace that wait for their readers at once. Further ones are made when these have left.
const RESETS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Entries that resets of one keyspace scan in one turn; one whole reset at least.
const SCANNED_ENTRIES_PER_TURN: usize = 50_000;
/// Items handed to a reader before it must say that it has room again, and their bytes.
pub const BURST_ITEMS: usize = 32;
/// See [`BURST_ITEMS`]; one item may be larger.
pub const BURST_BYTES: usize = 512 * 1024;
/// A reader that takes nothing for so long loses what waits for it and is sent a reset when it reads again.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Names a watch towards the host, which chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// What a host says of the reader of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderEvent {
    /// It has room for [`BURST_ITEMS`] items.
    Ready,
    /// It has gone; the watch ends.
    Gone,
}

/// An item for a watch, or why it ends.
pub type Sent = (WatchId, Result<WatchItem, ReadError>);

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    /// Changes up to this position are not for it: it has seen them elsewhere.
    ahead: u64,
    needs_reset: bool,
    pending: VecDeque<WatchItem>,
    bytes: usize,
    /// Whether `pending` is a reset.
    resetting: bool,
    /// Whether the reader has room.
    ready: bool,
    /// When the reader last took something.
    progress: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Watchers {
    ring: Ring,
    watchers: BTreeMap<WatchId, Watcher>,
    /// Bytes of resets that wait for their readers.
    resets_bytes: usize,
    bytes_max: usize,
    /// Resets sent because a reader was too slow.
    slow: u64,
}

impl Watchers {
    /// No watchers yet; the stream begins after `position`. At most `bytes_max` bytes wait for one watcher.
    #[must_use]
    pub fn new(stream: u64, position: u64, bytes_max: usize) -> Self {
        Self {
            ring: Ring::new(stream, position),
            watchers: BTreeMap::new(),
            resets_bytes: 0,
            bytes_max,
            slow: 0,
        }
    }

    /// Watches that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Bytes that wait for readers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.watchers.values().map(|watcher| watcher.bytes).sum()
    }

    /// How often a reader was too slow for its changes and was sent a reset.
    #[must_use]
    pub fn slow(&self) -> u64 {
        self.slow
    }

    /// Opens a watch.
    pub fn open(&mut self, now: Instant, id: WatchId, spec: WatchSpec) {
        let mut watcher = Watcher {
            range: spec.range,
            ahead: 0,
            needs_reset: true,
            pending: VecDeque::new(),
            bytes: 0,
            resetting: false,
            ready: true,
            progress: now,
        };
        if let Some(token) = spec.resume {
            let here = self.ring.token();
            if token.stream == here.stream && is_shared(token) && token.position > here.position {
                watcher.ahead = token.position;
                watcher.needs_reset = false;
            } else if let Some(items) = self.ring.since(token, &watcher.range) {
                watcher.needs_reset = false;
                watcher.bytes = items.iter().map(item_bytes).sum();
                watcher.pending = items.into();
            }
        }
        let before = self.watchers.insert(id, watcher);
        assert!(before.is_none(), "the host names watch {id:?} once");
    }

    /// What its reader has to say.
    pub fn on_reader(&mut self, now: Instant, id: WatchId, event: ReaderEvent) {
        match event {
            ReaderEvent::Gone => {
                if let Some(watcher) = self.watchers.remove(&id)
                    && watcher.resetting
                {
                    assert!(watcher.bytes <= self.resets_bytes, "bytes of resets are counted");
                    self.resets_bytes -= watcher.bytes;
                }
            }
            ReaderEvent::Ready => {
                if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.ready = true;
                    watcher.progress = now;
                }
            }
        }
    }

    /// Queues changes for whom they concern.
    pub fn publish(&mut self, applied: ChangeBatch) {
        let (ring, bytes_max) = (&self.ring, self.bytes_max);
        for watcher in self.watchers.values_mut() {
            if watcher.needs_reset || applied.position <= watcher.ahead {
                continue;
            }
            let Some(item) = ring.item(&applied, &watcher.range) else {
                continue;
            };
            let bytes = item_bytes(&item);
            // A reset under way is let through whole, however large; changes behind it are bounded like any others.
            let behind = if watcher.resetting {
                watcher.pending_changes()
            } else {
                watcher.bytes
            };
            if behind > 0 && behind + bytes > bytes_max {
                self.slow += 1;
                watcher.drop_pending(&mut self.resets_bytes);
            } else {
                if watcher.resetting {
                    self.resets_bytes += bytes;
                }
                watcher.bytes += bytes;
                watcher.pending.push_back(item);
            }
        }
        self.ring.push(applied);
    }

    /// The state jumped to `position` without single changes.
    pub fn reset(&mut self, position: u64) {
        self.ring.reset(position);
        let here = self.ring.token().position;
        assert!(
            here >= position,
            "the stream goes on after the state that it jumped to"
        );
        for watcher in self.watchers.values_mut() {
            if watcher.ahead < here {
                watcher.drop_pending(&mut self.resets_bytes);
            }
        }
    }

    /// Moves items on to readers that have room. `scan` gives the entries of a range now.
    pub fn pump(&mut self, now: Instant, scan: impl Fn(&KeyRange) -> Vec<Entry>, sent: &mut Vec<Sent>) {
        let token = self.ring.token();
        let mut scanned = 0;
        for (id, watcher) in &mut self.watchers {
            if !watcher.ready {
                continue;
            }
            if watcher.needs_reset {
                if scanned >= SCANNED_ENTRIES_PER_TURN || self.resets_bytes > RESETS_BYTES_MAX {
                    continue;
                }
                assert!(
                    watcher.pending.is_empty(),
                    "a reset takes the place of what waited"
                );
                let entries = scan(&watcher.range);
                scanned += entries.len().max(1);
                watcher.begin_reset(reset_items(token, entries, self.bytes_max));
                self.resets_bytes += watcher.bytes;
            }
            watcher.send(*id, now, self.bytes_max, &mut self.resets_bytes, sent);
        }
    }

    /// Whether some reader has room and some item waits for it.
    #[must_use]
    pub fn is_pumpable(&self) -> bool {
        self.watchers.values().any(|watcher| {
            let can_reset = watcher.needs_reset && self.resets_bytes <= RESETS_BYTES_MAX;
            watcher.ready && (can_reset || !watcher.pending.is_empty())
        })
    }

    /// Takes back what waits for readers that have taken nothing for long.
    pub fn shed(&mut self, now: Instant) {
        for watcher in self.watchers.values_mut() {
            if !watcher.pending.is_empty() && now.since(watcher.progress) > STALLED_AFTER {
                self.slow += 1;
                watcher.drop_pending(&mut self.resets_bytes);
            }
        }
    }

    /// Ends all watches with this reason.
    pub fn close(&mut self, reason: &Reason, sent: &mut Vec<Sent>) {
        self.resets_bytes = 0;
        for id in std::mem::take(&mut self.watchers).into_keys() {
            sent.push((id, Err(reason.clone().into())));
        }
    }

    /// What must hold between two turns. With many watchers only builds with debug assertions look at each: a turn costs
    /// no more because thousands watch.
    pub fn check(&self) {
        if !cfg!(debug_assertions) && self.watchers.len() > CHECKED_MAX {
            return;
        }
        let mut resets = 0;
        for watcher in self.watchers.values() {
            debug_assert_eq!(
                watcher.bytes,
                watcher.pending.iter().map(item_bytes).sum::<usize>(),
                "bytes of pending items are counted as they are"
            );
            assert!(
                !watcher.needs_reset || watcher.pending.is_empty(),
                "a watcher that needs a reset keeps nothing"
            );
            resets += if watcher.resetting { watcher.bytes } else { 0 };
        }
        assert_eq!(
            resets, self.resets_bytes,
            "bytes of resets are counted as they are"
        );
    }
}

impl Watcher {
    /// Gives up what waits; the reader is sent a reset when it has room.
    fn drop_pending(&mut self, resets_bytes: &mut usize) {
        if self.resetting {
            *resets_bytes -= self.bytes;
        }
        self.pending.clear();
        self.bytes = 0;
        self.resetting = false;
        self.needs_reset = true;
        self.ahead = 0;
    }

    fn begin_reset(&mut self, items: Vec<WatchItem>) {
        self.bytes = items.iter().map(item_bytes).sum();
        self.pending = items.into();
        self.needs_reset = false;
        self.resetting = true;
    }

    /// Bytes of changes that wait behind a reset.
    fn pending_changes(&self) -> usize {
        let changes = |item: &&WatchItem| matches!(item, WatchItem::Changes { .. });
        self.pending
            .iter()
            .rev()
            .take_while(changes)
            .map(item_bytes)
            .sum()
    }

    fn send(
        &mut self,
        id: WatchId,
        now: Instant,
        bytes_max: usize,
        resets_bytes: &mut usize,
        sent: &mut Vec<Sent>,
    ) {
        let mut burst = 0;
        for _ in 0..BURST_ITEMS {
            let Some(item) = self.pending.pop_front() else {
                break;
            };
            let bytes = item_bytes(&item);
            burst += bytes;
            self.bytes -= bytes;
            if self.resetting {
                *resets_bytes -= bytes;
            }
            if self.resetting && matches!(item, WatchItem::Reset { last: true, .. }) {
                self.resetting = false;
                // The changes behind it are counted as changes from here on.
                *resets_bytes -= self.bytes;
            }
            self.ready = false;
            self.progress = now;
            sent.push((id, Ok(item)));
            if burst >= BURST_BYTES.min(bytes_max) {
                break;
            }
        }
    }
}

/// Whether all nodes see the stream of this token.
fn is_shared(token: WatchToken) -> bool {
    token.stream == 0
}

/// What an item costs in memory, about.
fn item_bytes(item: &WatchItem) -> usize {
    const ITEM: usize = 64;
    match item {
        WatchItem::Reset { entries, .. } => {
            ITEM + entries
                .iter()
                .map(|entry| 96 + entry.key.len() + entry.state.value.len())
                .sum::<usize>()
        }
        WatchItem::Changes { changes, .. } => {
            let value = |change: &trilemma_core::Change| change.now.as_ref().map_or(0, |now| now.value.len());
            ITEM + changes
                .iter()
                .map(|change| 96 + change.key.len() + value(change))
                .sum::<usize>()
        }
    }
}

/// The entries as one reset in parts that fit a frame, and are no larger than what may wait for one watcher.
fn reset_items(token: WatchToken, entries: Vec<Entry>, bytes_max: usize) -> Vec<WatchItem> {
    const { assert!(RESET_PART_BYTES < RING_BYTES_MAX) };
    let mut items = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.key.len() + entry.state.value.len();
        part.push(entry);
        if bytes >= RESET_PART_BYTES.min(bytes_max) || part.len() == ITEM_CHANGES_MAX {
            // Only the last part carries a token to resume from: a broken reset starts again.
            items.push(WatchItem::Reset {
                token: WatchToken::default(),
                entries: std::mem::take(&mut part),
                first: items.is_empty(),
                last: false,
            });
            bytes = 0;
        }
    }
    items.push(WatchItem::Reset {
        token,
        entries: part,
        first: items.is_empty(),
        last: true,
    });
    items
}

#[cfg(test)]
mod tests;
