//! The Replicators of a running node: every backend behind the one trait, through the inbox of its thread.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use trilemma_core::pending::refused_write;
use trilemma_core::replicator::{Convergent, OpContext, Replicator, WatchStream};
use trilemma_core::{
    Backend, Command, Descriptor, Entry, Key, KeyspaceId, OpId, Outcome, Query, ReadError, ReadReply,
    ReadRequest, Reason, Receipt, Reply, Request, StatusWatch, UnknownCause, WatchItem, WatchSpec,
    WriteError,
};
use trilemma_node::EPOCH;

use crate::inbox::{Envelope, INBOX_MAX, WATCH_QUEUE_MAX};

/// A keyspace of a node in the same process.
#[derive(Clone, Debug)]
pub struct LocalReplicator {
    pub(crate) backend: Backend,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) status: StatusWatch,
    pub(crate) inbox: mpsc::Sender<Envelope>,
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
        let (items, receiver) = mpsc::channel(WATCH_QUEUE_MAX);
        self.send(Envelope::Watch {
            keyspace: self.keyspace,
            spec,
            items,
        })?;
        Ok(Box::pin(ReceiverStream(receiver)))
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

/// A channel's receiving end as a stream.
pub(crate) struct ReceiverStream(pub(crate) mpsc::Receiver<Result<WatchItem, ReadError>>);

impl Stream for ReceiverStream {
    type Item = Result<WatchItem, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
