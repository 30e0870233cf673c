//! The watches of a client on one connection: each has room for a share of the bytes that the connection may bring unread,
//! so that a watch that nobody reads holds up no other, and all together take bounded memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use trilemma_client::ConnectionId;
use trilemma_client::wire::{ClientReply, ClientRequest};
use trilemma_core::{KeyspaceId, Reason, Ticket, WatchItem, WatchSpec, codec};
use trilemma_node::ReaderEvent;
use trilemma_transport::CallError;

use super::{Remote, State, decode};
use crate::readers::{Item, WatchReader};

/// Bytes of unread items that the watches of a connection share; each has [`ROOM_MIN`] beside.
const SHARED_BYTES: usize = 64 * 1024 * 1024;
/// Least and most bytes of unread items of one watch; the last item may be larger.
const ROOM_MIN: usize = 8 * 1024;
const ROOM_MAX: usize = 512 * 1024;
/// What one watch may take of what is not taken yet.
const SHARE: usize = 32;
/// Bytes by which the last item may exceed the room of a watch: what a node may send in a frame, as it counts them.
const EXCESS_MAX: isize = 64 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: BTreeMap<u64, OpenWatch>,
    /// The last number given to a watch.
    last: u64,
    /// Bytes taken of those that all share.
    taken: usize,
}

#[derive(Debug)]
struct OpenWatch {
    items: mpsc::UnboundedSender<Item>,
    /// Its share.
    share: usize,
    /// Bytes for which the node has heard that there is room, less those that came.
    room: isize,
}

impl Watches {
    /// A new watch: its number, its room, and its items.
    fn open(&mut self) -> (u64, usize, mpsc::UnboundedReceiver<Item>) {
        let (items, receiver) = mpsc::unbounded_channel();
        self.last += 1;
        let share = ((SHARED_BYTES - self.taken) / SHARE).min(ROOM_MAX - ROOM_MIN);
        self.taken += share;
        let room = ROOM_MIN + share;
        let watch = OpenWatch {
            items,
            share,
            room: room.cast_signed(),
        };
        self.open.insert(self.last, watch);
        (self.last, room, receiver)
    }

    /// Whether it was open.
    fn end(&mut self, number: u64) -> bool {
        let ended = self.open.remove(&number);
        self.taken -= ended.as_ref().map_or(0, |watch| watch.share);
        ended.is_some()
    }
}

impl Remote {
    /// Opens a watch.
    pub(super) fn open_watch(
        self: &Arc<Self>,
        state: &mut State,
        (connection, ticket): (ConnectionId, Ticket),
        keyspace: KeyspaceId,
        spec: WatchSpec,
    ) {
        let now = self.now();
        let Some(at) = state.connections.get_mut(&connection) else {
            return;
        };
        let (number, room, items) = at.watches.open();
        let request = ClientRequest::Watch {
            keyspace,
            spec,
            room: room as u64,
        };
        let error = match at.at.send_watch(number, codec::encode(&request)) {
            Ok(()) => {
                let remote = Arc::clone(self);
                let tell = move |event| remote.tell_of_watch(connection, number, event);
                let lost = Reason::Unreachable {
                    why: "the connection was lost".into(),
                };
                let reader = WatchReader::new(items, room, tell).with_end(lost.into());
                state.opened.insert(ticket, reader);
                return state.client.on_watch_open(ticket);
            }
            Err(error) => error,
        };
        at.watches.end(number);
        let reason = match error {
            CallError::TooLarge { size, limit } => Reason::TooLarge {
                what: "the watch".into(),
                size: size as u64,
                limit: limit as u64,
            },
            CallError::Full { what } => Reason::Overloaded { what },
            error => {
                state.connections.remove(&connection);
                return state.client.on_lost(now, connection, &error.to_string());
            }
        };
        state.client.on_watch_refused(now, ticket, reason);
    }

    /// Passes on what has come for a watch. `Err` if the node breaks the rules.
    pub(super) fn take_item(
        self: &Arc<Self>,
        connection: ConnectionId,
        number: u64,
        item: &Bytes,
    ) -> Result<(), String> {
        let item: Item = match decode(item)? {
            ClientReply::Watch(item) => item,
            ClientReply::Bad(what) => Err(Reason::Invalid { what }.into()),
            _ => return Err("the node answered another question".into()),
        };
        let mut state = self.lock();
        let at = state.connections.get_mut(&connection);
        // Of a watch that was cancelled some items may be under way.
        let Some(watch) = at.and_then(|at| at.watches.open.get_mut(&number)) else {
            return Ok(());
        };
        let bytes = item.as_ref().map_or(0, WatchItem::bytes);
        watch.room = watch.room.saturating_sub_unsigned(bytes);
        if watch.room < -EXCESS_MAX {
            return Err("the node sends more than there is room for".into());
        }
        let ends = item.is_err();
        // The reader that has gone has said so, or is about to.
        let _gone = watch.items.send(item);
        drop(state);
        if ends {
            self.end_watch(connection, number);
        }
        Ok(())
    }

    fn end_watch(self: &Arc<Self>, connection: ConnectionId, number: u64) {
        self.with(|state, now| {
            let at = state.connections.get_mut(&connection);
            if at.is_some_and(|at| at.watches.end(number)) {
                state.client.on_watch_ended(now, connection);
            }
        });
    }

    /// Tells the node what the reader of a watch has to say.
    fn tell_of_watch(self: &Arc<Self>, connection: ConnectionId, number: u64, event: ReaderEvent) {
        let sent = {
            let mut state = self.lock();
            let Some(at) = state.connections.get_mut(&connection) else {
                return;
            };
            let Some(watch) = at.watches.open.get_mut(&number) else {
                return;
            };
            let request = match event {
                ReaderEvent::Room(bytes) => {
                    watch.room = watch.room.saturating_add_unsigned(bytes);
                    let bytes = bytes as u64;
                    ClientRequest::Room { bytes }
                }
                ReaderEvent::Gone => ClientRequest::Cancel,
            };
            at.at.send_watch(number, codec::encode(&request))
        };
        match sent {
            Ok(()) if event == ReaderEvent::Gone => self.end_watch(connection, number),
            Ok(()) => {}
            // Without it the watch would stand still, or never end.
            Err(error) => self.lost(connection, &error.to_string()),
        }
    }
}
