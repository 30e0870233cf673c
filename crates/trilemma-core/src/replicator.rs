//! The one trait behind which every backend stands.
//!
//! Small and dyn-safe: conveniences live in the facade's `Keyspace`, a multi-key write is a [`Command`], and what
//! only some backends can do is a capability object that is absent where it would lie.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::Stream;

use crate::data::{Command, Key};
use crate::descriptor::Descriptor;
use crate::error::{ReadError, WriteError};
use crate::id::{Epoch, OpId};
use crate::protocol::Attempt;
use crate::read::{Entry, ReadReply, ReadRequest};
use crate::receipt::{Outcome, Receipt};
use crate::status::StatusWatch;
use crate::watch::{WatchItem, WatchSpec};

/// What accompanies every operation.
#[derive(Clone, Debug)]
pub struct OpContext {
    /// Names the operation. Reads carry one too, for traces.
    pub op: OpId,
    /// Whether `op` may have been sent before.
    pub attempt: Attempt,
    /// How long the caller waits from now. The answer comes by then: for a write that was sent, as `Unknown`.
    pub timeout: std::time::Duration,
    /// The epoch that the caller believes in.
    pub epoch: Epoch,
}

/// A keyspace's items as they come; ends when the node stops.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, ReadError>> + Send>>;

/// What every backend can do without lying.
#[async_trait]
pub trait Replicator: Send + Sync + 'static {
    /// What the backend promises. Checked by the conformance suite; the docs are generated from it.
    fn descriptor(&self) -> &'static Descriptor;

    /// What holds now on this node, and why not more.
    fn status(&self) -> StatusWatch;

    /// Reads. Never served weaker than `request.level`; by default at the strongest level the backend has.
    async fn read(&self, cx: &OpContext, request: ReadRequest) -> Result<ReadReply, ReadError>;

    /// Writes. `Ok` says what was achieved (a failed guard is an `Ok` with `succeeded = false`); an error says whether the
    /// command may have been applied. A repeat with the same `cx.op` takes effect at most once.
    async fn write(&self, cx: &OpContext, command: Command) -> Result<Receipt, WriteError>;

    /// Watches a range. See [`crate::watch`].
    async fn watch(&self, cx: &OpContext, spec: WatchSpec) -> Result<WatchStream, ReadError>;

    /// Resolves an `Unknown`. Final: before it answers `NotApplied` the operation is fenced, so that a late copy can
    /// no longer apply. `command` is what the operation carried, if the caller still knows.
    async fn outcome(&self, cx: &OpContext, op: OpId, command: Option<Command>)
    -> Result<Outcome, ReadError>;

    /// Concurrent values, where the backend keeps them.
    fn convergent(&self) -> Option<&dyn Convergent> {
        None
    }
}

/// What only convergent backends can do.
#[async_trait]
pub trait Convergent: Send + Sync {
    /// Every concurrent value of a key, the one that reads choose first.
    async fn siblings(&self, cx: &OpContext, key: Key) -> Result<Vec<Entry>, ReadError>;
}

/// A shared replicator.
pub type SharedReplicator = Arc<dyn Replicator>;
