//! What watches and their host say to each other.

use trilemma_core::{ReadError, WatchItem};

/// Names a watch towards the host, which chooses it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// Names what the items of some watches leave by together, a connection, towards the host, which chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a host says of the reader of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderEvent {
    /// It has room for so many bytes more, as [`WatchItem::bytes`] counts. A watch with any room is given a whole item.
    Room(usize),
    /// It has gone; the watch ends.
    Gone,
}

/// Where the items of a watch go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What they leave by.
    pub link: LinkId,
    /// Bytes of items for which there is room at the beginning.
    pub room: usize,
}

/// An item for a watch, or why it ends.
pub type Sent = (WatchId, Result<WatchItem, ReadError>);

/// What a turn may still do for watches.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Keys and changes that are looked at.
    pub(super) keys: usize,
    /// Bytes of items.
    pub(super) bytes: usize,
}

impl Budget {
    /// What one turn may do: a millisecond of work, which is about what writes of others wait for it.
    pub const TURN: Self = Self {
        keys: 5000,
        bytes: 512 * 1024,
    };

    pub(super) fn is_spent(self) -> bool {
        self.keys == 0 || self.bytes == 0
    }

    pub(super) fn spend(&mut self, keys: usize, bytes: usize) {
        // A service costs something even if it finds nothing.
        self.keys = self.keys.saturating_sub(keys.max(1));
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
