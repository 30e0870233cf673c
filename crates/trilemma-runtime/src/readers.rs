//! The readers of watches: tasks of this process and clients elsewhere, each taking items at its own pace.
//!
//! The node gives a watch no more than its reader has room for, so what is given is passed on at once. The items of all
//! watches of a client leave by one stream; the node is notified when that has no room, and when it has again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;
use trilemma_client::wire::ClientReply;
use trilemma_core::{ReadError, WatchItem, codec};
use trilemma_node::{Destination, LinkId, ReaderEvent, WatchId};
use trilemma_transport::ClientRef;

/// Bytes of items that one reader within this process is given before it has read them.
pub(crate) const LOCAL_ROOM: usize = 512 * 1024;
/// The link of a reader within this process, which always has room, is numbered from here.
const LOCAL_LINKS: u64 = 1 << 63;

pub(crate) type Item = Result<WatchItem, ReadError>;

static LAST: AtomicU64 = AtomicU64::new(0);

/// The name of a new watch, never used again by any node of this process.
pub(crate) fn next_id() -> WatchId {
    WatchId(1 + LAST.fetch_add(1, Ordering::Relaxed))
}

/// Where a watch's items go.
#[derive(Debug)]
enum Sink {
    /// A task of this process.
    Local(mpsc::UnboundedSender<Item>),
    /// A client, under this number.
    Client(ClientRef, u64),
}

/// All readers of a node's watches.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    readers: BTreeMap<WatchId, Sink>,
    /// The watches of each client, by the numbers that it has given them.
    clients: BTreeMap<u64, BTreeMap<u64, WatchId>>,
    /// Clients that were given items in this turn.
    given: BTreeMap<u64, ClientRef>,
    /// Clients whose stream has no room.
    full: BTreeSet<u64>,
}

impl Readers {
    /// A task of this process reads a new watch. `None` if it has gone already.
    pub(crate) fn add_local(
        &mut self,
        id: WatchId,
        items: mpsc::UnboundedSender<Item>,
    ) -> Option<Destination> {
        if items.is_closed() {
            return None;
        }
        self.readers.insert(id, Sink::Local(items));
        Some(Destination {
            link: LinkId(LOCAL_LINKS | id.0),
            room: LOCAL_ROOM,
        })
    }

    /// A client reads a new watch. `None` if it has one of this number.
    pub(crate) fn add_client(&mut self, client: ClientRef, number: u64) -> Option<(WatchId, LinkId)> {
        let link = LinkId(client.id());
        let watches = self.clients.entry(client.id()).or_default();
        if watches.contains_key(&number) {
            return None;
        }
        let id = next_id();
        watches.insert(number, id);
        self.readers.insert(id, Sink::Client(client, number));
        Some((id, link))
    }

    /// The watch that a client has given this number, if it is open.
    pub(crate) fn of_client(&self, client: &ClientRef, number: u64) -> Option<WatchId> {
        self.clients.get(&client.id())?.get(&number).copied()
    }

    /// Nobody reads a watch any more.
    pub(crate) fn remove(&mut self, id: WatchId) {
        if let Some(Sink::Client(client, number)) = self.readers.remove(&id)
            && let Some(watches) = self.clients.get_mut(&client.id())
        {
            watches.remove(&number);
        }
    }

    /// A client has gone. Returns its watches.
    pub(crate) fn client_gone(&mut self, client: &ClientRef) -> Vec<WatchId> {
        self.full.remove(&client.id());
        let watches = self.clients.remove(&client.id()).unwrap_or_default();
        for id in watches.values() {
            self.readers.remove(id);
        }
        watches.into_values().collect()
    }

    /// A client's stream has room again.
    pub(crate) fn has_room(&mut self, client: &ClientRef) {
        self.full.remove(&client.id());
    }

    /// Passes an item on to the reader of a watch; an error is the last.
    pub(crate) fn give(&mut self, id: WatchId, item: Item) {
        let ends = item.is_err();
        match self.readers.get(&id) {
            // A reader that has gone says so itself.
            Some(Sink::Local(items)) => drop(items.send(item)),
            Some(Sink::Client(client, number)) => {
                let reply = codec::encode(&ClientReply::Watch(item));
                if let Err(error) = client.reply(*number, reply) {
                    tracing::trace!(%error, "an item found its client gone");
                }
                self.given.entry(client.id()).or_insert_with(|| client.clone());
            }
            None => {}
        }
        if ends {
            self.remove(id);
        }
    }

    /// Says whose stream has no room after what was given.
    pub(crate) fn look(&mut self, mut tell: impl FnMut(LinkId)) {
        for (id, client) in std::mem::take(&mut self.given) {
            if !client.has_room() && self.full.insert(id) {
                tell(LinkId(id));
                client.want_room();
            }
        }
    }
}

/// The items of a watch for who reads them. Dropping it ends the watch.
pub(crate) struct WatchReader {
    items: mpsc::UnboundedReceiver<Item>,
    /// Tells those who give the items.
    tell: Box<dyn Fn(ReaderEvent) + Send + Sync>,
    /// Bytes of items that it is given before it has read them.
    room: usize,
    /// Bytes that were read and not reported.
    read: usize,
    /// What is said at the end if nobody has said anything.
    end: Option<ReadError>,
    ended: bool,
}

impl std::fmt::Debug for WatchReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchReader").finish_non_exhaustive()
    }
}

impl WatchReader {
    pub(crate) fn new(
        items: mpsc::UnboundedReceiver<Item>,
        room: usize,
        tell: impl Fn(ReaderEvent) + Send + Sync + 'static,
    ) -> Self {
        Self {
            items,
            tell: Box::new(tell),
            room,
            read: 0,
            end: None,
            ended: false,
        }
    }

    /// With an error that comes last if the items end without one.
    pub(crate) fn with_end(mut self, end: ReadError) -> Self {
        self.end = Some(end);
        self
    }
}

impl Stream for WatchReader {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.items.poll_recv(cx));
        let item = item.or_else(|| self.end.take().map(Err));
        match &item {
            Some(Ok(item)) => {
                self.read += item.bytes();
                // Not for each item, and early enough that a reader that keeps up is never without.
                if self.read >= self.room / 2 {
                    let bytes = std::mem::take(&mut self.read);
                    (self.tell)(ReaderEvent::Room(bytes));
                }
            }
            Some(Err(_)) | None => self.ended = true,
        }
        Poll::Ready(item)
    }
}

impl Drop for WatchReader {
    fn drop(&mut self) {
        // First: if the node learns of the end before the beginning, it finds that nobody reads.
        self.items.close();
        if !self.ended {
            (self.tell)(ReaderEvent::Gone);
        }
    }
}
