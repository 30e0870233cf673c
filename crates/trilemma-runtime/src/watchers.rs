//! The watchers of one keyspace: each gets its own pace, bounded memory, and never a silent gap.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use trilemma_core::watch::{ITEM_CHANGES_MAX, RING_BYTES_MAX, Ring};
use trilemma_core::{Applied, Entry, KeyRange, ReadError, Reason, WatchItem, WatchSpec, WatchToken};
use trilemma_transport::ClientRef;

use crate::wire::ClientReply;

/// Watches of one keyspace at one node.
const WATCHERS_MAX: usize = 4096;
/// Items that wait for one slow watcher before it is cut off (it resumes with its last token).
const PENDING_ITEMS_MAX: usize = 16_384;
/// Bytes of entries in one part of a reset.
const RESET_PART_BYTES: usize = 256 * 1024;

/// Where a watcher's items go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A task of this process.
    Local(mpsc::Sender<Result<WatchItem, ReadError>>),
    /// A client's request.
    Client(ClientRef, u64),
}

enum Sent {
    Yes,
    Full(Box<Result<WatchItem, ReadError>>),
    Gone,
}

impl Sink {
    fn send(&self, item: Result<WatchItem, ReadError>) -> Sent {
        match self {
            Sink::Local(sender) => match sender.try_send(item) {
                Ok(()) => Sent::Yes,
                Err(TrySendError::Full(item)) => Sent::Full(Box::new(item)),
                Err(TrySendError::Closed(_)) => Sent::Gone,
            },
            Sink::Client(client, request) => {
                if client.is_closed() {
                    return Sent::Gone;
                }
                if !client.has_room() {
                    return Sent::Full(Box::new(item));
                }
                let reply = trilemma_core::codec::encode(&ClientReply::Watch(item));
                if client.reply(*request, reply).is_ok() {
                    Sent::Yes
                } else {
                    Sent::Gone
                }
            }
        }
    }
}

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    sink: Sink,
    pending: VecDeque<WatchItem>,
}

/// All watchers of one keyspace, and the recent changes they may resume from.
#[derive(Debug)]
pub(crate) struct Watchers {
    ring: Ring,
    watchers: Vec<Watcher>,
}

impl Watchers {
    /// No watchers yet; the stream begins after `position`.
    pub(crate) fn new(stream: u64, position: u64) -> Self {
        Self {
            ring: Ring::new(stream, position),
            watchers: Vec::new(),
        }
    }

    /// Adds a watcher. `scan` gives the entries now, if they are needed.
    pub(crate) fn add(&mut self, spec: WatchSpec, sink: Sink, scan: impl FnOnce(&KeyRange) -> Vec<Entry>) {
        if self.watchers.len() == WATCHERS_MAX {
            let what = format!("{WATCHERS_MAX} watches of this keyspace are open at this node already");
            let _full_or_gone = sink.send(Err(Reason::Overloaded { what }.into()));
            return;
        }
        let resumed = spec.resume.and_then(|token| self.ring.since(token, &spec.range));
        let pending = resumed
            .unwrap_or_else(|| reset_items(self.ring.token(), scan(&spec.range)))
            .into();
        self.watchers.push(Watcher {
            range: spec.range,
            sink,
            pending,
        });
        self.pump();
    }

    /// Tells all watchers of changes.
    pub(crate) fn publish(&mut self, applied: Applied) {
        for watcher in &mut self.watchers {
            watcher.pending.extend(self.ring.item(&applied, &watcher.range));
        }
        self.ring.push(applied);
    }

    /// Starts all watchers anew: the state jumped to `position` without single changes.
    pub(crate) fn reset(&mut self, position: u64, scan: impl Fn(&KeyRange) -> Vec<Entry>) {
        self.ring.reset(position);
        for watcher in &mut self.watchers {
            watcher.pending = reset_items(self.ring.token(), scan(&watcher.range)).into();
        }
    }

    /// Moves items on to whoever has room, and drops whoever is gone or too slow.
    pub(crate) fn pump(&mut self) {
        self.watchers.retain_mut(|watcher| {
            while let Some(item) = watcher.pending.pop_front() {
                match watcher.sink.send(Ok(item)) {
                    Sent::Yes => {}
                    Sent::Gone => return false,
                    Sent::Full(item) => {
                        watcher.pending.extend((*item).ok());
                        watcher.pending.rotate_right(1);
                        return watcher.pending.len() <= PENDING_ITEMS_MAX;
                    }
                }
            }
            true
        });
    }

    /// Whether some watcher waits for room.
    pub(crate) fn is_pending(&self) -> bool {
        self.watchers.iter().any(|watcher| !watcher.pending.is_empty())
    }

    /// Ends all watches with this reason.
    pub(crate) fn close(&mut self, reason: &Reason) {
        for watcher in self.watchers.drain(..) {
            // Best effort: a reader that has no room learns of the end by the closed stream.
            let _full_or_gone = watcher.sink.send(Err(reason.clone().into()));
        }
    }
}

/// The entries as one reset in parts that fit a frame.
fn reset_items(token: WatchToken, entries: Vec<Entry>) -> Vec<WatchItem> {
    const { assert!(RESET_PART_BYTES < RING_BYTES_MAX) };
    let mut items = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.key.len() + entry.state.value.len();
        part.push(entry);
        if bytes >= RESET_PART_BYTES || part.len() == ITEM_CHANGES_MAX {
            // Only the last part carries a token to resume from: a broken reset starts again.
            let entries = std::mem::take(&mut part);
            items.push(WatchItem::Reset {
                token: WatchToken::default(),
                entries,
                last: false,
            });
            bytes = 0;
        }
    }
    items.push(WatchItem::Reset {
        token,
        entries: part,
        last: true,
    });
    items
}
