//! State transfer, the taking side: pieces are made durable one by one and become the state all at once.

use bytes::Bytes;
use trilemma_core::Version;
use trilemma_core::session::SessionLimits;
use trilemma_core::table::{Table, TableLoader};

use super::Member;
use crate::config::TwoPhaseConfig;
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::Message;
use crate::record::Record;

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Installing {
    decided: BatchId,
    position: Version,
    unknown_through: BatchId,
    pub(crate) pieces: Pieces,
}

/// The pieces received so far.
#[derive(Debug)]
pub(crate) struct Pieces {
    loader: TableLoader,
    chunk: Vec<u8>,
    /// Kept for a checkpoint that is taken before the transfer ends.
    pub(crate) kept: Vec<(Bytes, bool)>,
}

impl Pieces {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            loader: TableLoader::new(limits),
            chunk: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Takes the next piece; fails if it does not decode.
    pub(crate) fn add(&mut self, bytes: Bytes, ends_chunk: bool) -> Result<(), String> {
        self.chunk.extend_from_slice(&bytes);
        self.kept.push((bytes, ends_chunk));
        if ends_chunk {
            let chunk = std::mem::take(&mut self.chunk);
            self.loader.add(&chunk).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Option<Table> {
        self.loader.finish().filter(|_| self.chunk.is_empty())
    }

    fn next(&self) -> u32 {
        u32::try_from(self.kept.len()).unwrap_or(u32::MAX)
    }
}

impl Installing {
    pub(super) fn new(
        config: &TwoPhaseConfig,
        decided: BatchId,
        position: Version,
        unknown_through: BatchId,
    ) -> Self {
        Self {
            decided,
            position,
            unknown_through,
            pieces: Pieces::new(config.session_limits()),
        }
    }

    /// A transfer as its records show it. It ends with its last record or not at all.
    pub(crate) fn replayed(limits: SessionLimits) -> Self {
        Self {
            decided: BatchId::ORIGIN,
            position: Version::ABSENT,
            unknown_through: BatchId::ORIGIN,
            pieces: Pieces::new(limits),
        }
    }
}

impl Member {
    /// The sequencer says that a batch is committed which is not on this chain. Every committed batch was prepared
    /// by every member, so this one has lost records; it must not answer or vote before it has a whole state.
    pub(super) fn lose_state(&mut self, core: &mut Core, committed: BatchId, effects: &mut Out) {
        tracing::error!(%committed, decided = %core.ledger.decided, "records are missing; the state is fetched again");
        core.ledger.is_joined = false;
        self.nonce = self.rng.next_u64().max(1);
        self.give_up_transfer(effects);
        self.greet(core, effects);
    }

    pub(super) fn on_install(&mut self, core: &Core, nonce: u64, offer: Installing, effects: &mut Out) {
        if core.ledger.is_joined || nonce != self.nonce {
            // The sequencer is mistaken about this member.
            self.greet(core, effects);
            return;
        }
        let is_same = |current: &Installing| {
            (current.decided, current.position, current.unknown_through)
                == (offer.decided, offer.position, offer.unknown_through)
        };
        if !self.install.as_ref().is_some_and(is_same) {
            self.give_up_transfer(effects);
            self.install = Some(offer);
        }
        self.fetch_again(core, effects);
    }

    pub(super) fn fetch_again(&self, core: &Core, effects: &mut Out) {
        if let Some(install) = &self.install {
            let (nonce, index) = (self.nonce, install.pieces.next());
            effects.send(core.config.sequencer, Message::Fetch { nonce, index });
        }
    }

    pub(super) fn on_piece(
        &mut self,
        core: &mut Core,
        index: u32,
        bytes: Bytes,
        ends_chunk: bool,
        is_last: bool,
        effects: &mut Out,
    ) {
        let Some(install) = &mut self.install else { return };
        if index != install.pieces.next() {
            return;
        }
        if let Err(why) = install.pieces.add(bytes.clone(), ends_chunk) {
            tracing::error!(%why, "a piece of the sequencer's state does not decode; the transfer restarts");
            self.give_up_transfer(effects);
            return;
        }
        let nonce = self.nonce;
        effects.append_lazy(Record::Piece {
            nonce,
            index,
            bytes,
            ends_chunk,
        });
        if is_last {
            self.finish_install(core, effects);
        } else {
            self.fetch_again(core, effects);
        }
    }

    fn finish_install(&mut self, core: &mut Core, effects: &mut Out) {
        let Some(mut install) = self.install.take() else {
            return;
        };
        effects.discard(std::mem::take(&mut install.pieces.kept));
        let (decided, position, unknown_through) =
            (install.decided, install.position, install.unknown_through);
        let Some(table) = install
            .pieces
            .finish()
            .filter(|table| table.version() == position)
        else {
            tracing::error!("the sequencer's state is not whole; the transfer restarts");
            return;
        };
        let nonce = self.nonce;
        let seq = effects.append(Record::Installed {
            nonce,
            decided,
            unknown_through,
        });
        effects.discard(self.take_state(core, table, decided, unknown_through));
        effects.reset(position.0);
        self.discard_beyond(core, BatchId::ORIGIN, effects);
        self.outcomes.push_back((seq, decided));
        core.wake_versions(effects);
        self.greet(core, effects);
    }

    /// Gives away what has come of a transfer that is of no use any more: half a state may be in it.
    pub(super) fn give_up_transfer(&mut self, effects: &mut Out) {
        if let Some(install) = self.install.take() {
            effects.discard(install);
        }
    }

    /// Makes `table` the decided state, in a replay or at the end of a transfer. Returns the one before.
    pub(crate) fn take_state(
        &mut self,
        core: &mut Core,
        table: Table,
        decided: BatchId,
        unknown_through: BatchId,
    ) -> Table {
        let before = core.ledger.install(table, decided, unknown_through);
        self.fence = self.fence.max(unknown_through).max(decided);
        self.stash.clear();
        self.diverged = None;
        assert!(core.ledger.is_joined, "a member with a state knows its votes");
        assert!(self.install.is_none(), "a transfer that ended is over");
        before
    }
}
