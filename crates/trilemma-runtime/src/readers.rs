//! The readers of watches: tasks of this process and clients elsewhere, each taking items at its own pace.
//!
//! A node hands a reader a bounded burst of items and then waits until it hears that there is room again. What does not
//! fit into the reader's own queue waits here meanwhile.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use trilemma_client::wire::ClientReply;
use trilemma_core::{ReadError, WatchItem, codec};
use trilemma_node::{Destination, LinkId, ReaderEvent, WatchId};
use trilemma_transport::ClientRef;

/// Bytes of items that are handed to a reader before it must say that it has room again.
const ROOM_BYTES: usize = 512 * 1024;

type Item = Result<WatchItem, ReadError>;

/// Where a watch's items go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A task of this process.
    Local(mpsc::Sender<Item>),
    /// A client's request.
    Client(ClientRef, u64),
}

enum Offered {
    Taken,
    Full(Box<Item>),
    Gone,
}

impl Sink {
    fn offer(&self, item: Item) -> Offered {
        match self {
            Sink::Local(sender) => match sender.try_send(item) {
                Ok(()) => Offered::Taken,
                Err(TrySendError::Full(item)) => Offered::Full(Box::new(item)),
                Err(TrySendError::Closed(_)) => Offered::Gone,
            },
            Sink::Client(client, _) if client.is_closed() => Offered::Gone,
            Sink::Client(client, _) if !client.has_room() => Offered::Full(Box::new(item)),
            Sink::Client(client, request) => {
                match client.reply(*request, codec::encode(&ClientReply::Watch(item))) {
                    Ok(()) => Offered::Taken,
                    Err(_gone) => Offered::Gone,
                }
            }
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Sink::Local(sender) => sender.is_closed(),
            Sink::Client(client, _) => client.is_closed(),
        }
    }
}

#[derive(Debug)]
struct Reader {
    sink: Sink,
    waiting: VecDeque<Item>,
    /// Bytes of items that it was given and of which the node has not heard that there is room again.
    given: usize,
}

impl Reader {
    /// Moves on what waits. `None` while some of it does not fit.
    fn push(&mut self) -> Option<ReaderEvent> {
        while let Some(item) = self.waiting.pop_front() {
            let ends = item.is_err();
            match self.sink.offer(item) {
                Offered::Taken if ends => return Some(ReaderEvent::Gone),
                Offered::Taken => {}
                Offered::Gone => return Some(ReaderEvent::Gone),
                Offered::Full(item) => {
                    self.waiting.push_front(*item);
                    return None;
                }
            }
        }
        Some(ReaderEvent::Room(std::mem::take(&mut self.given)))
    }
}

/// All readers of a node's watches.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    readers: BTreeMap<WatchId, Reader>,
    /// Readers that were given items and have not said that there is room again.
    busy: Vec<WatchId>,
    last: u64,
}

impl Readers {
    /// Registers the reader of a new watch.
    pub(crate) fn add(&mut self, sink: Sink) -> (WatchId, Destination) {
        self.last += 1;
        let id = WatchId(self.last);
        let waiting = VecDeque::new();
        let reader = Reader {
            sink,
            waiting,
            given: 0,
        };
        self.readers.insert(id, reader);
        let link = LinkId(id.0);
        (
            id,
            Destination {
                link,
                room: ROOM_BYTES,
            },
        )
    }

    /// Gives a reader an item; [`Readers::push`] moves it on.
    pub(crate) fn give(&mut self, id: WatchId, item: Item) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.given += item.as_ref().map_or(0, WatchItem::bytes);
            reader.waiting.push_back(item);
            if self.busy.last() != Some(&id) {
                self.busy.push(id);
            }
        }
    }

    /// Moves items on, and says of which readers there is news.
    pub(crate) fn push(&mut self, mut tell: impl FnMut(WatchId, ReaderEvent)) {
        let Self { readers, busy, .. } = self;
        busy.retain(|id| {
            let Some(reader) = readers.get_mut(id) else {
                return false;
            };
            let Some(event) = reader.push() else {
                return true;
            };
            tell(*id, event);
            if event == ReaderEvent::Gone {
                readers.remove(id);
            }
            false
        });
    }

    /// Whether some reader has no room for what waits for it.
    pub(crate) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Finds readers that have gone, also those for which nothing has come since.
    pub(crate) fn sweep(&mut self, mut tell: impl FnMut(WatchId)) {
        self.readers.retain(|id, reader| {
            let gone = reader.sink.is_gone();
            if gone {
                tell(*id);
            }
            !gone
        });
    }

    /// Drops the readers of a client that has gone.
    pub(crate) fn client_gone(&mut self, client: &ClientRef, mut tell: impl FnMut(WatchId)) {
        self.readers.retain(|id, reader| {
            let gone = matches!(&reader.sink, Sink::Client(of, _) if of == client);
            if gone {
                tell(*id);
            }
            !gone
        });
    }
}
