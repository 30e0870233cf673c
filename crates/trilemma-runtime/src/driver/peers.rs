//! The driver's side towards peers: frames in, coalesced frames out, beats.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use trilemma_core::host::GroupInput;
use trilemma_core::liveness::Beat;
use trilemma_core::{KeyspaceId, Lane, NodeId, PeerView, codec};
use trilemma_transport::Transport;

use super::Driver;
use crate::config::NODE_RECORDS;
use crate::wire::{ITEM_HEADER_BYTES, put_item, take_item};

/// Bytes after which a frame is closed and another begun. Well below every lane's limit.
const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// Bytes of a datagram; what does not fit one travels on the control lane.
const DATAGRAM_BYTES: usize = 1100;

/// Messages of the current turn, by peer and lane.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: BTreeMap<(NodeId, Lane), BytesMut>,
    /// Frames that the transport did not take (peer away or queue full), since the start.
    pub(crate) dropped: u64,
}

impl Outbox {
    /// Adds a message.
    pub(crate) fn put(
        &mut self,
        transport: &Transport,
        to: NodeId,
        lane: Lane,
        keyspace: KeyspaceId,
        bytes: &[u8],
    ) {
        let large = ITEM_HEADER_BYTES + bytes.len() > DATAGRAM_BYTES;
        let lane = if lane == Lane::Datagram && large {
            Lane::Control
        } else {
            lane
        };
        let frame = self.frames.entry((to, lane)).or_default();
        let room = if lane == Lane::Datagram {
            DATAGRAM_BYTES
        } else {
            FRAME_BYTES_TARGET
        };
        if !frame.is_empty() && frame.len() + ITEM_HEADER_BYTES + bytes.len() > room {
            let full = frame.split().freeze();
            self.dropped += u64::from(!send(transport, to, lane, full));
        }
        put_item(self.frames.entry((to, lane)).or_default(), keyspace, bytes);
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, transport: &Transport) {
        for ((to, lane), frame) in &mut self.frames {
            if !frame.is_empty() {
                self.dropped += u64::from(!send(transport, *to, *lane, frame.split().freeze()));
            }
        }
    }
}

/// Sends a frame; `false` if it was dropped. A lost frame is a lost message, which every protocol expects.
fn send(transport: &Transport, to: NodeId, lane: Lane, frame: Bytes) -> bool {
    let lane = match lane {
        Lane::Control => trilemma_transport::Lane::Control,
        Lane::Log => trilemma_transport::Lane::Log,
        Lane::Bulk => trilemma_transport::Lane::Bulk,
        Lane::Datagram => trilemma_transport::Lane::Datagram,
    };
    match transport.send(to, lane, frame) {
        Ok(()) => true,
        Err(error) => {
            tracing::trace!(%to, %error, "a frame was dropped");
            false
        }
    }
}

impl Driver {
    /// Takes a frame apart and steps whom its items concern.
    pub(super) fn on_frame(&mut self, from: NodeId, mut frame: Bytes) {
        loop {
            match take_item(&mut frame) {
                Ok(Some((NODE_RECORDS, bytes))) => self.on_beat(from, &bytes),
                Ok(Some((keyspace, bytes))) => match self.by_id.get(&keyspace).copied() {
                    Some(slot) => self.step(slot, self.clock.now(), GroupInput::Receive { from, bytes }),
                    None => {
                        tracing::warn!(%from, %keyspace, "a message for a keyspace that is not configured here")
                    }
                },
                Ok(None) => return,
                Err(why) => {
                    tracing::warn!(%from, why, "a malformed frame; the rest of it is dropped");
                    return;
                }
            }
        }
    }

    fn on_beat(&mut self, from: NodeId, bytes: &[u8]) {
        match codec::decode::<Beat>(bytes) {
            Ok(beat) => {
                if let Some(view) = self.liveness.receive(self.clock.now().instant, from, beat) {
                    self.on_view(&view);
                }
            }
            Err(error) => tracing::warn!(%from, %error, "a malformed beat is dropped"),
        }
    }

    /// Sends beats if they are due.
    pub(super) fn beat(&mut self) {
        let now = self.clock.now().instant;
        let Self {
            liveness,
            outbox,
            transport,
            ..
        } = self;
        let view = liveness.tick(now, |to, beat| {
            outbox.put(transport, to, Lane::Control, NODE_RECORDS, &codec::encode(&beat));
        });
        if let Some(view) = view {
            self.on_view(&view);
        }
    }

    fn on_view(&mut self, view: &PeerView) {
        let now = self.clock.now();
        self.identity.view = view.clone();
        self.next_status = now.instant;
        for slot in 0..self.slots.len() {
            self.step(slot, now, GroupInput::Peers(view.clone()));
        }
    }
}
