//! Transactions and the batches they travel in.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_vec;
use trilemma_core::session::OpResult;
use trilemma_core::table::Table;
use trilemma_core::{Change, ChangeBatch, Command, Key, OpId, Version};

use crate::ids::BatchId;

/// Most transactions of one batch. Bounds the work of one step.
pub const TRANSACTIONS_MAX: usize = 4096;
/// What a transaction weighs beside its keys and values, in bytes.
const TRANSACTION_OVERHEAD: usize = 32;

/// One entry of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transaction {
    /// A client's write, evaluated again, with the same result, wherever the chain is applied. One whose guard the
    /// sequencer found to fail carries that guard alone: its place in the chain makes the answer final, also for a
    /// duplicate of the request that arrives later.
    Write {
        /// The operation.
        op: OpId,
        /// The change.
        command: Command,
    },
    /// Resolves an operation: if it has not run, it never will.
    Fence {
        /// The operation.
        op: OpId,
    },
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// The operation's final result; `None` if the record of its session was evicted.
    pub(crate) result: Option<OpResult>,
    /// What changed.
    pub(crate) changes: Vec<Change>,
}

impl Transaction {
    /// The operation that it runs or resolves.
    #[must_use]
    pub fn op(&self) -> OpId {
        match self {
            Transaction::Write { op, .. } | Transaction::Fence { op } => *op,
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Transaction::Write { command, .. } => TRANSACTION_OVERHEAD + command.size(),
            Transaction::Fence { .. } => TRANSACTION_OVERHEAD,
        }
    }

    pub(crate) fn apply(&self, table: &mut Table, at: Version) -> Done {
        match self {
            Transaction::Write { op, command } => {
                let effect = table.apply(*op, command, at);
                Done {
                    result: effect.result,
                    changes: effect.changes,
                }
            }
            Transaction::Fence { op } => Done {
                result: table.fence(*op, at),
                changes: Vec::new(),
            },
        }
    }
}

/// Transactions that are prepared, decided or aborted together, with their place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// The batch it follows, or [`BatchId::ORIGIN`].
    pub prev: BatchId,
    /// The position of its first transaction; the others follow without a gap.
    pub first: Version,
    /// At least one, in order.
    #[serde(deserialize_with = "bounded_vec::<_, _, TRANSACTIONS_MAX>")]
    pub transactions: Vec<Transaction>,
}

impl Batch {
    /// The position of its last transaction.
    #[must_use]
    pub fn last(&self) -> Version {
        Version((self.first.0 - 1).saturating_add(self.transactions.len() as u64))
    }

    /// Whether it may follow a chain that ends at position `end`.
    pub(crate) fn fits(&self, end: Version) -> bool {
        self.first == end.next() && !self.transactions.is_empty() && self.first.0 < u64::MAX / 2
    }

    /// The keys that it may change, sorted, each once.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let writes = self
            .transactions
            .iter()
            .filter_map(|transaction| match transaction {
                Transaction::Write { command, .. } => Some(command),
                Transaction::Fence { .. } => None,
            });
        let mut keys: Vec<Key> = writes
            .flat_map(|command| command.mutations.iter().map(|mutation| mutation.key().clone()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Applies it to `table`, which stands right before it.
    pub(crate) fn apply(&self, table: &mut Table) -> Vec<Done> {
        let positions = (self.first.0..).map(Version);
        let numbered = positions.zip(&self.transactions);
        numbered
            .map(|(at, transaction)| transaction.apply(table, at))
            .collect()
    }
}

/// The change events of a batch whose first transaction stands at `first`: one for each, without changes, too, as a watch that
/// begins at its version must learn that it is reached.
pub(crate) fn events(first: Version, done: Vec<Done>) -> impl Iterator<Item = ChangeBatch> {
    let positions = first.0..;
    positions.zip(done).map(|(position, done)| ChangeBatch {
        position,
        changes: done.changes,
    })
}
