//! Frames between nodes: many messages of many keyspaces in one, so that all messages of a turn to one peer leave
//! together.
//!
//! A frame is a sequence of items `keyspace id (u32 LE) · length (u32 LE) · bytes`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trilemma_core::{KeyspaceId, Lane, NodeId};

use crate::effects::Envelope;

/// Bytes in front of each item.
pub const ITEM_HEADER_BYTES: usize = 8;
/// Bytes after which a frame is closed and another begun. Well below every lane's limit.
const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// Bytes of a datagram; what does not fit one travels on the control lane.
const DATAGRAM_BYTES: usize = 1100;

/// Adds one item to a frame.
pub fn put_item(frame: &mut BytesMut, keyspace: KeyspaceId, bytes: &[u8]) {
    frame.reserve(ITEM_HEADER_BYTES + bytes.len());
    frame.put_u32_le(keyspace.0);
    frame.put_u32_le(u32::try_from(bytes.len()).expect("a message is far below 4 GiB"));
    frame.put_slice(bytes);
}

/// Takes the next item off a frame; `Err` if what is left is not an item.
pub fn take_item(frame: &mut Bytes) -> Result<Option<(KeyspaceId, Bytes)>, &'static str> {
    if frame.is_empty() {
        return Ok(None);
    }
    if frame.len() < ITEM_HEADER_BYTES {
        return Err("a frame ends inside an item's header");
    }
    let keyspace = KeyspaceId(frame.get_u32_le());
    let length = frame.get_u32_le() as usize;
    if length > frame.len() {
        return Err("an item is longer than its frame");
    }
    Ok(Some((keyspace, frame.split_to(length))))
}

/// Messages of one turn, gathered by peer and lane.
#[derive(Debug)]
pub struct Coalescer {
    frame_bytes: usize,
    frames: BTreeMap<(NodeId, Lane), BytesMut>,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new(FRAME_BYTES_TARGET)
    }
}

impl Coalescer {
    /// Closes a frame that would grow beyond this number of bytes, at most 256 KiB. A message that is larger travels in a
    /// frame of its own.
    #[must_use]
    pub fn new(frame_bytes: usize) -> Self {
        Self {
            frame_bytes: frame_bytes.min(FRAME_BYTES_TARGET),
            frames: BTreeMap::new(),
        }
    }

    /// Packs all messages of a turn: frame by frame they are handed to `send`, with receiver and lane.
    pub fn pack(
        &mut self,
        messages: impl IntoIterator<Item = Envelope>,
        send: &mut impl FnMut(NodeId, Lane, Bytes),
    ) {
        for message in messages {
            self.put(&message, send);
        }
        for ((to, lane), frame) in &mut self.frames {
            if !frame.is_empty() {
                send(*to, *lane, frame.split().freeze());
            }
        }
    }

    /// Adds a message; hands out a frame that has become full.
    fn put(&mut self, message: &Envelope, send: &mut impl FnMut(NodeId, Lane, Bytes)) {
        let Envelope {
            keyspace,
            to,
            lane,
            bytes,
            ..
        } = message;
        let large = ITEM_HEADER_BYTES + bytes.len() > DATAGRAM_BYTES;
        let lane = match lane {
            Lane::Datagram if large => Lane::Control,
            lane => *lane,
        };
        let room = match lane {
            Lane::Datagram => self.frame_bytes.min(DATAGRAM_BYTES),
            _ => self.frame_bytes,
        };
        let frame = self.frames.entry((*to, lane)).or_default();
        if !frame.is_empty() && frame.len() + ITEM_HEADER_BYTES + bytes.len() > room {
            send(*to, lane, frame.split().freeze());
        }
        put_item(frame, *keyspace, bytes);
    }
}

#[cfg(test)]
mod tests;
