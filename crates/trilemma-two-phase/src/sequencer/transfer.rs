//! State transfer, the giving side: the decided table, piece by piece, at the receiver's pace.

use std::fmt;

use bytes::Bytes;
use trilemma_core::table::Table;
use trilemma_core::{NodeId, Version};

use super::{LinkState, Sequencer};
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{Message, PIECE_BYTES_MAX};

/// Pieces that one question makes at most: some milliseconds of work.
const MADE_MAX: u32 = 16;

/// The transfer to one member.
pub(super) struct Transfer {
    nonce: u64,
    decided: BatchId,
    unknown_through: BatchId,
    table: Table,
    chunk_bytes: usize,
    pieces: Pieces,
    /// The number of the piece that comes next, and the one before it, which may have been lost.
    next: u32,
    last: Option<(Bytes, bool, bool)>,
}

type Pieces = std::iter::Peekable<Box<dyn Iterator<Item = (Bytes, bool)> + Send>>;

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Transfer of {} to nonce {}, next piece {}",
            self.decided, self.nonce, self.next
        )
    }
}

/// The table as pieces; each tells whether it ends a chunk of the table.
fn pieces(table: &Table, chunk_bytes: usize) -> Pieces {
    let cut = |chunk: Vec<u8>| {
        let chunk = Bytes::from(chunk);
        let count = chunk.len().div_ceil(PIECE_BYTES_MAX).max(1);
        (0..count).map(move |index| {
            let end = chunk.len().min((index + 1) * PIECE_BYTES_MAX);
            (chunk.slice(index * PIECE_BYTES_MAX..end), index + 1 == count)
        })
    };
    let pieces: Box<dyn Iterator<Item = (Bytes, bool)> + Send> =
        Box::new(table.chunks(chunk_bytes).flat_map(cut));
    pieces.peekable()
}

impl Transfer {
    fn new(nonce: u64, table: Table, chunk_bytes: usize, decided: BatchId, unknown_through: BatchId) -> Self {
        Self {
            nonce,
            decided,
            unknown_through,
            pieces: pieces(&table, chunk_bytes),
            table,
            chunk_bytes,
            next: 0,
            last: None,
        }
    }

    fn offer(&self) -> Message {
        Message::Install {
            nonce: self.nonce,
            decided: self.decided,
            position: self.position(),
            unknown_through: self.unknown_through,
        }
    }

    fn position(&self) -> Version {
        self.table.version()
    }

    /// The piece of this number. Almost always it is the next one, or the one before, which was lost. A late question, be it
    /// for the transfer of a former process, may move this anywhere: it begins again for what has passed, and comes to what
    /// is far away by being asked again.
    fn piece(&mut self, index: u32) -> Option<Message> {
        if index.checked_add(1)? < self.next {
            self.pieces = pieces(&self.table, self.chunk_bytes);
            self.next = 0;
        }
        for _ in 0..MADE_MAX {
            if self.next > index {
                break;
            }
            let (bytes, ends_chunk) = self.pieces.next()?;
            self.next += 1;
            self.last = Some((bytes, ends_chunk, self.pieces.peek().is_none()));
        }
        if self.next <= index {
            return None;
        }
        let (bytes, ends_chunk, is_last) = self.last.clone()?;
        Some(Message::Piece {
            nonce: self.nonce,
            index,
            bytes,
            ends_chunk,
            is_last,
        })
    }
}

impl Sequencer {
    /// Begins the transfers that are due. Only when nothing is in flight: a decision that is not durable yet must not
    /// reach a member as part of a state.
    pub(super) fn offer_transfers(&mut self, core: &Core, effects: &mut Out) {
        if !self.flights.is_empty() || !core.ledger.is_joined || self.diverged.is_some() {
            return;
        }
        let unknown_through = self.last_issued(core);
        for (node, link) in &self.links {
            if let LinkState::Blank(nonce) = link.state
                && !self.transfers.contains_key(node)
            {
                let table = core.ledger.table.clone();
                let transfer = Transfer::new(
                    nonce,
                    table,
                    core.config.chunk_bytes,
                    core.ledger.decided,
                    unknown_through,
                );
                effects.send(*node, transfer.offer());
                self.transfers.insert(*node, transfer);
            }
        }
    }

    /// A transfer is for a member that has no state, and for the nonce that it gave last.
    pub(super) fn check_transfers(&self) {
        for (node, transfer) in &self.transfers {
            let state = self.links.get(node).map(|link| link.state);
            assert_eq!(
                state,
                Some(LinkState::Blank(transfer.nonce)),
                "node {node} waits for the state that is sent to it"
            );
        }
    }

    pub(super) fn offer_again(&self, to: NodeId, effects: &mut Out) {
        if let Some(transfer) = self.transfers.get(&to) {
            effects.send(to, transfer.offer());
        }
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, nonce: u64, index: u32, effects: &mut Out) {
        let transfer = self
            .transfers
            .get_mut(&from)
            .filter(|transfer| transfer.nonce == nonce);
        if let Some(piece) = transfer.and_then(|transfer| transfer.piece(index)) {
            effects.send(from, piece);
        }
    }
}

#[cfg(test)]
mod tests;
