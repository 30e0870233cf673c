//! The Replicators of a running node: every backend behind the one trait, through the inbox of its thread.

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use trilemma_core::pending::refused_write;
use trilemma_core::replicator::{Convergent, OpContext, Replicator, WatchStream};
use trilemma_core::{
    Backend, Command, Descriptor, Entry, Key, KeyspaceId, OpId, Outcome, Query, ReadError, ReadReply,
    ReadRequest, Reason, Receipt, Reply, Request, StatusWatch, UnknownCause, WatchSpec, WriteError,
};
use trilemma_node::{EPOCH, ReaderEvent, WatchId};

use crate::inbox::{Envelope, INBOX_MAX};
use crate::readers::{LOCAL_ROOM, WatchReader, next_id};

/// A keyspace of a node in the same process.
#[derive(Clone, Debug)]
pub struct LocalReplicator {
    pub(crate) backend: Backend,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) status: StatusWatch,
    pub(crate) inbox: mpsc::Sender<Envelope>,
    /// What readers of watches have to say. At most one event for each half of a reader's room, and one for its end.
    pub(crate) readers: mpsc::UnboundedSender<(WatchId, ReaderEvent)>,
}

impl LocalReplicator {
    /// Puts a request into the inbox. `Ok(None)`: it was taken, but the node stopped before it answered.
    async fn ask(&self, cx: &OpContext, request: Request) -> Result<Option<Reply>, Reason> {
        if cx.epoch != EPOCH {
            return Err(Reason::StaleEpoch { now: EPOCH });
        }
        let (reply, answer) = oneshot::channel();
        self.send(Envelope::Propose {
            keyspace: self.keyspace,
            request,
            timeout: cx.timeout,
            asked: std::time::Instant::now(),
            reply,
        })?;
        Ok(answer.await.ok())
    }

    fn send(&self, envelope: Envelope) -> Result<(), Reason> {
        self.inbox.try_send(envelope).map_err(|error| match error {
            TrySendError::Full(_) => Reason::Overloaded {
                what: format!("{INBOX_MAX} requests wait for this node already"),
            },
            TrySendError::Closed(_) => Reason::Stopping,
        })
    }
}

/// A protocol answered a request of one kind with the answer of another: our own bug.
fn mismatched(reply: &Reply) -> ! {
    panic!("a protocol answered with the wrong kind of reply: {reply:?}")
}

#[async_trait]
impl Replicator for LocalReplicator {
    fn descriptor(&self) -> &'static Descriptor {
        self.backend.descriptor()
    }

    fn status(&self) -> StatusWatch {
        self.status.clone()
    }

    async fn read(&self, cx: &OpContext, request: ReadRequest) -> Result<ReadReply, ReadError> {
        request.query.validate()?;
        match self.ask(cx, Request::Read(request)).await? {
            Some(Reply::Read(result)) => result,
            Some(other) => mismatched(&other),
            None => Err(Reason::Stopping.into()),
        }
    }

    async fn write(&self, cx: &OpContext, command: Command) -> Result<Receipt, WriteError> {
        command.validate()?;
        let (op, attempt) = (cx.op, cx.attempt);
        let request = Request::Write { op, attempt, command };
        match self.ask(cx, request).await {
            Ok(Some(Reply::Write(result))) => result,
            Ok(Some(other)) => mismatched(&other),
            Ok(None) => Err(WriteError::Unknown {
                op,
                cause: UnknownCause::Stopped,
            }),
            Err(reason) => Err(refused_write(op, attempt, reason)),
        }
    }

    async fn watch(&self, _cx: &OpContext, spec: WatchSpec) -> Result<WatchStream, ReadError> {
        spec.range.validate()?;
        let (items, receiver) = mpsc::unbounded_channel();
        let id = next_id();
        self.send(Envelope::Watch {
            id,
            keyspace: self.keyspace,
            spec,
            items,
        })?;
        let node = self.readers.clone();
        let tell = move |event| {
            // The node has stopped: it gives nothing any more.
            let _stopped = node.send((id, event));
        };
        Ok(Box::pin(WatchReader::new(receiver, LOCAL_ROOM, tell)))
    }

    async fn outcome(
        &self,
        cx: &OpContext,
        op: OpId,
        command: Option<Command>,
    ) -> Result<Outcome, ReadError> {
        let request = Request::Outcome { op, command };
        request.validate()?;
        match self.ask(cx, request).await? {
            Some(Reply::Outcome(result)) => result,
            Some(other) => mismatched(&other),
            None => Err(Reason::Stopping.into()),
        }
    }

    fn convergent(&self) -> Option<&dyn Convergent> {
        (self.backend == Backend::Gossip).then_some(self as &dyn Convergent)
    }
}

#[async_trait]
impl Convergent for LocalReplicator {
    async fn siblings(&self, cx: &OpContext, key: Key) -> Result<Vec<Entry>, ReadError> {
        siblings(self, cx, key).await
    }
}

/// Asks any replicator for the siblings of a key.
pub(crate) async fn siblings<R: Replicator>(
    of: &R,
    cx: &OpContext,
    key: Key,
) -> Result<Vec<Entry>, ReadError> {
    let request = ReadRequest {
        query: Query::Siblings(key),
        level: None,
    };
    of.read(cx, request).await.map(|reply| reply.entries)
}
