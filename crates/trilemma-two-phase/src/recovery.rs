//! Recovery: what the log and the checkpoint say becomes the state again (inside/two-phase#restart).
//!
//! A member's replay leaves its prepared batches on the chain, so their keys are held before the first read. The
//! sequencer's replay leaves nothing undecided: what its log has not decided is aborted.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{self, bounded_bytes, bounded_vec};
use trilemma_core::table::{self, TableLoader};
use trilemma_core::{Checkpoint, Corrupt, Instant};

use crate::batch::Batch;
use crate::ids::BatchId;
use crate::member::{Installing, Pieces};
use crate::message::{CHAIN_MAX, PIECE_BYTES_MAX};
use crate::record::Record;
use crate::two_phase::{Role, TwoPhase};

/// Most decided, unfinished batches in a checkpoint. Far beyond what can be; bounds the decoder alone.
const RECENT_MAX: usize = 1 << 20;

/// One chunk of a checkpoint. `Head` is first, `End` last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Chunk {
    Head(Head),
    /// A chunk of the decided table.
    Table(Vec<u8>),
    /// The next batch of a member's chain.
    Prepared(Arc<Batch>),
    /// A piece of a transfer that has not ended.
    Piece {
        #[serde(deserialize_with = "bounded_bytes::<_, PIECE_BYTES_MAX>")]
        bytes: Bytes,
        ends_chunk: bool,
    },
    End,
}

/// What a checkpoint holds beside table and chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) is_sequencer: bool,
    pub(crate) is_joined: bool,
    pub(crate) decided: BatchId,
    pub(crate) floor: BatchId,
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    pub(crate) recent: Vec<BatchId>,
    pub(crate) finished: BatchId,
    pub(crate) unknown_through: BatchId,
    pub(crate) fence: BatchId,
}

/// A checkpoint whose chunks are being read.
#[derive(Debug)]
pub(crate) struct Loading {
    head: Head,
    table: TableLoader,
    prepared: Vec<Arc<Batch>>,
    pieces: Vec<(Bytes, bool)>,
}

/// Whether `restore` could read this chunk of a checkpoint.
fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    match codec::decode(chunk)? {
        Chunk::Table(bytes) => table::check_chunk(&bytes),
        Chunk::Head(_) | Chunk::Prepared(_) | Chunk::Piece { .. } | Chunk::End => Ok(()),
    }
}

fn corrupt(why: impl Into<String>) -> Corrupt {
    Corrupt(why.into())
}

impl TwoPhase {
    pub(crate) fn load(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        let chunk: Chunk = codec::decode(chunk)?;
        let Some(loading) = &mut self.loading else {
            let Chunk::Head(head) = chunk else {
                return Err(corrupt("a checkpoint does not begin with its head"));
            };
            self.loading = Some(Loading {
                head,
                table: TableLoader::new(self.core.config.session_limits()),
                prepared: Vec::new(),
                pieces: Vec::new(),
            });
            return Ok(());
        };
        match chunk {
            Chunk::Head(_) => return Err(corrupt("a checkpoint has two heads")),
            Chunk::Table(bytes) => loading.table.add(&bytes)?,
            Chunk::Prepared(batch) => loading.prepared.push(batch),
            Chunk::Piece { bytes, ends_chunk } => loading.pieces.push((bytes, ends_chunk)),
            Chunk::End => {
                if let Some(loading) = self.loading.take() {
                    self.finish_loading(loading)?;
                }
            }
        }
        Ok(())
    }

    fn finish_loading(&mut self, loading: Loading) -> Result<(), Corrupt> {
        let head = loading.head;
        let is_sequencer = matches!(self.role, Role::Sequencer(_));
        if head.is_sequencer != is_sequencer {
            return Err(corrupt(
                "the checkpoint is that of another role; the sequencer of a view is fixed",
            ));
        }
        self.check_age(head.decided)?;
        let is_in_order = std::iter::once(&head.floor)
            .chain(&head.recent)
            .is_sorted_by(|a, b| a < b);
        if !is_in_order || *head.recent.last().unwrap_or(&head.floor) != head.decided {
            return Err(corrupt("the decided batches of a checkpoint are not in order"));
        }
        let ledger = &mut self.core.ledger;
        ledger.table = loading
            .table
            .finish()
            .ok_or_else(|| corrupt("a checkpoint has no table"))?;
        ledger.is_joined = head.is_joined;
        ledger.decided = head.decided;
        ledger.floor = head.floor;
        ledger.recent = head.recent.into();
        ledger.finished = head.finished;
        ledger.unknown_through = head.unknown_through;
        self.core.recorded = head.finished;
        for batch in loading.prepared {
            self.replay_prepare(batch)?;
        }
        for (index, (bytes, ends_chunk)) in loading.pieces.into_iter().enumerate() {
            self.replay_piece(u32::try_from(index).unwrap_or(u32::MAX), bytes, ends_chunk)?;
        }
        if let Role::Member(member) = &mut self.role {
            member.fence = member.fence.max(head.fence);
        }
        Ok(())
    }

    pub(crate) fn replay_record(&mut self, record: Record) -> Result<(), Corrupt> {
        if self.loading.is_some() {
            return Err(corrupt("a checkpoint has no end"));
        }
        match record {
            Record::Joined { epoch } => {
                if epoch != self.core.config.epoch {
                    return Err(corrupt(format!("joined in {epoch}, configured is another view")));
                }
                self.core.ledger.is_joined = true;
                Ok(())
            }
            Record::Prepare(batch) => self.replay_prepare(batch),
            Record::Decision(batch) => self.replay_decision(&batch),
            Record::Refuse { id } => {
                let member = self.as_member("a refusal")?;
                member.fence = member.fence.max(id);
                Ok(())
            }
            Record::Outcome { decided } => self.replay_outcome(decided),
            Record::Watermark { below } => {
                self.core.ledger.finish(below);
                self.core.recorded = self.core.ledger.finished;
                Ok(())
            }
            Record::Piece {
                index,
                bytes,
                ends_chunk,
                ..
            } => self.replay_piece(index, bytes, ends_chunk),
            Record::Installed {
                decided,
                unknown_through,
                ..
            } => self.replay_installed(decided, unknown_through),
        }
    }

    fn as_member(&mut self, what: &str) -> Result<&mut crate::member::Member, Corrupt> {
        match &mut self.role {
            Role::Member(member) => Ok(member),
            Role::Sequencer(_) => Err(corrupt(format!("{what} of a member in the log of the sequencer"))),
        }
    }

    /// Ids of this incarnation must be greater than all that the log has.
    fn check_age(&self, id: BatchId) -> Result<(), Corrupt> {
        let config = &self.core.config;
        let is_sequencer = matches!(self.role, Role::Sequencer(_));
        if is_sequencer && (id.epoch, id.incarnation) >= (config.epoch, config.incarnation) {
            return Err(corrupt(format!(
                "batch {id} is of this or a later incarnation ({}.{}); the incarnation must grow with every start",
                config.epoch.0, config.incarnation.0
            )));
        }
        Ok(())
    }

    fn replay_decision(&mut self, batch: &Batch) -> Result<(), Corrupt> {
        if !matches!(self.role, Role::Sequencer(_)) {
            return Err(corrupt(
                "a decision in the log of a member that is not the sequencer",
            ));
        }
        self.check_age(batch.id)?;
        let ledger = &mut self.core.ledger;
        if batch.prev != ledger.decided || batch.id <= ledger.decided || !batch.fits(ledger.version()) {
            return Err(corrupt(format!(
                "batch {} after {} does not follow {}",
                batch.id, batch.prev, ledger.decided
            )));
        }
        batch.apply(&mut ledger.table);
        ledger.advance(batch.id);
        ledger.is_joined = true;
        Ok(())
    }

    fn replay_prepare(&mut self, batch: Arc<Batch>) -> Result<(), Corrupt> {
        let (decided, end) = (self.core.ledger.decided, self.core.ledger.version());
        let member = self.as_member("a prepared batch")?;
        while member.chain.pop_beyond(batch.prev).is_some() {}
        let end = match member.chain.tip() {
            Some(tip) if tip.id == batch.prev => tip.last(),
            None if decided == batch.prev => end,
            _ => {
                return Err(corrupt(format!(
                    "batch {} is chained on {}, which is not there",
                    batch.id, batch.prev
                )));
            }
        };
        if batch.id <= member.fence || batch.id <= batch.prev || !batch.fits(end) {
            return Err(corrupt(format!("batch {} is prepared out of order", batch.id)));
        }
        member.fence = batch.id;
        member.chain.push(batch, Instant::ZERO);
        Ok(())
    }

    fn replay_outcome(&mut self, decided: BatchId) -> Result<(), Corrupt> {
        if decided == self.core.ledger.decided {
            return Ok(());
        }
        let Role::Member(member) = &mut self.role else {
            return Err(corrupt("an outcome of a member in the log of the sequencer"));
        };
        if !member.chain.contains(decided) {
            return Err(corrupt(format!(
                "batch {decided} is committed and was never prepared"
            )));
        }
        while let Some(prepared) = member.chain.pop_through(decided) {
            prepared.batch.apply(&mut self.core.ledger.table);
            self.core.ledger.advance(prepared.batch.id);
        }
        Ok(())
    }

    fn replay_piece(&mut self, index: u32, bytes: Bytes, ends_chunk: bool) -> Result<(), Corrupt> {
        let limits = self.core.config.session_limits();
        let member = self.as_member("a piece of a transfer")?;
        if index == 0 {
            member.install = Some(Installing::replayed(limits));
        }
        let Some(install) = &mut member.install else {
            return Err(corrupt("a transfer does not begin with its first piece"));
        };
        if install.pieces.kept.len() != index as usize {
            return Err(corrupt(format!("piece {index} of a transfer is out of order")));
        }
        install.pieces.add(bytes, ends_chunk).map_err(Corrupt)
    }

    fn replay_installed(&mut self, decided: BatchId, unknown_through: BatchId) -> Result<(), Corrupt> {
        let Role::Member(member) = &mut self.role else {
            return Err(corrupt("a transferred state in the log of the sequencer"));
        };
        let pieces: Option<Pieces> = member.install.take().map(|install| install.pieces);
        let table = pieces.and_then(Pieces::finish);
        let table = table.ok_or_else(|| corrupt("a transferred state is not whole"))?;
        while member.chain.pop_beyond(BatchId::ORIGIN).is_some() {}
        drop(member.take_state(&mut self.core, table, decided, unknown_through));
        Ok(())
    }

    pub(crate) fn make_checkpoint(&self) -> Checkpoint {
        let ledger = &self.core.ledger;
        let mut head = Head {
            is_sequencer: false,
            is_joined: ledger.is_joined,
            decided: ledger.decided,
            floor: ledger.floor,
            recent: Vec::new(),
            finished: ledger.finished,
            unknown_through: ledger.unknown_through,
            fence: BatchId::ORIGIN,
        };
        let (table, mut rest) = match &self.role {
            Role::Sequencer(sequencer) => {
                let (decided, recent, table) = sequencer.appended(&self.core);
                (head.is_sequencer, head.decided, head.recent) = (true, decided, recent);
                head.is_joined |= sequencer.is_joining();
                (table, Vec::new())
            }
            Role::Member(member) => {
                head.recent = ledger.recent.iter().copied().collect();
                head.fence = member.fence;
                let prepared = member.chain.iter().map(|link| Arc::clone(&link.batch));
                let mut rest: Vec<Chunk> = prepared.map(Chunk::Prepared).collect();
                let pieces = member.install.iter().flat_map(|install| &install.pieces.kept);
                rest.extend(pieces.map(|(bytes, ends_chunk)| Chunk::Piece {
                    bytes: bytes.clone(),
                    ends_chunk: *ends_chunk,
                }));
                (ledger.table.clone(), rest)
            }
        };
        assert!(
            rest.len() <= CHAIN_MAX || !ledger.is_joined,
            "a chain is longer than its limit"
        );
        rest.push(Chunk::End);
        let chunks = std::iter::once(Chunk::Head(head))
            .chain(table.chunks(self.core.config.chunk_bytes).map(Chunk::Table))
            .chain(rest);
        Checkpoint::new(chunks.map(|chunk| codec::encode_vec(&chunk)), check_chunk)
    }
}
