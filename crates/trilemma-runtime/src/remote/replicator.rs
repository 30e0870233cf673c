//! A keyspace of nodes on other machines, behind the same trait as one in this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use trilemma_client::{Answer, Call, What};
use trilemma_core::pending::PendingKind;
use trilemma_core::replicator::{Convergent, OpContext, Replicator, WatchStream};
use trilemma_core::{
    Backend, Command, Descriptor, Entry, Key, NodeId, OpId, Outcome, ReadError, ReadReply, ReadRequest,
    Reason, Receipt, Reply, Request, StatusWatch, WatchSpec, WriteError,
};
use trilemma_node::EPOCH;

use super::resuming::{OpenWatch as _, Resuming};
use super::{Answered, Remote, unexpected};
use crate::replicator::siblings;

/// A keyspace of remote nodes.
#[derive(Clone, Debug)]
pub(super) struct RemoteReplicator {
    pub(super) remote: Arc<Remote>,
    pub(super) name: Arc<str>,
    pub(super) backend: Backend,
    pub(super) status: StatusWatch,
    /// The only server to ask, if there is one.
    pub(super) server: Option<NodeId>,
}

fn epoch(cx: &OpContext) -> Result<(), Reason> {
    if cx.epoch == EPOCH {
        Ok(())
    } else {
        Err(Reason::StaleEpoch { now: EPOCH })
    }
}

impl RemoteReplicator {
    pub(super) async fn call(&self, what: What, timeout: Duration) -> Answered {
        let server = self.server;
        let call = Call {
            what,
            server,
            timeout,
        };
        self.remote.call(call).await
    }

    async fn ask(&self, cx: &OpContext, request: Request) -> Reply {
        let kind = PendingKind::of(&request);
        if let Err(reason) = epoch(cx) {
            return kind.refused(reason);
        }
        let what = What::Request {
            keyspace: Arc::clone(&self.name),
            backend: self.backend,
            request,
        };
        match self.call(what, cx.timeout).await.answer {
            Answer::Reply(reply) => reply,
            Answer::Refused(reason) => kind.refused(reason),
            Answer::Overview(_) | Answer::Members(_) | Answer::Watching(_) => kind.refused(unexpected()),
        }
    }
}

/// The client answered a request of one kind with the answer of another: our own bug.
fn mismatched(reply: &Reply) -> ! {
    panic!("a client answered with the wrong kind of reply: {reply:?}")
}

#[async_trait]
impl Replicator for RemoteReplicator {
    fn descriptor(&self) -> &'static Descriptor {
        self.backend.descriptor()
    }

    fn status(&self) -> StatusWatch {
        self.status.clone()
    }

    async fn read(&self, cx: &OpContext, request: ReadRequest) -> Result<ReadReply, ReadError> {
        request.query.validate()?;
        match self.ask(cx, Request::Read(request)).await {
            Reply::Read(result) => result,
            other => mismatched(&other),
        }
    }

    async fn write(&self, cx: &OpContext, command: Command) -> Result<Receipt, WriteError> {
        command.validate()?;
        let (op, attempt) = (cx.op, cx.attempt);
        match self.ask(cx, Request::Write { op, attempt, command }).await {
            Reply::Write(result) => result,
            other => mismatched(&other),
        }
    }

    async fn watch(&self, cx: &OpContext, spec: WatchSpec) -> Result<WatchStream, ReadError> {
        spec.range.validate()?;
        epoch(cx)?;
        let watch = self.open_watch(spec.clone(), cx.timeout).await?;
        Ok(Box::pin(Resuming::new(self.clone(), spec, watch, cx.timeout)))
    }

    async fn outcome(
        &self,
        cx: &OpContext,
        op: OpId,
        command: Option<Command>,
    ) -> Result<Outcome, ReadError> {
        let request = Request::Outcome { op, command };
        request.validate()?;
        match self.ask(cx, request).await {
            Reply::Outcome(result) => result,
            other => mismatched(&other),
        }
    }

    fn convergent(&self) -> Option<&dyn Convergent> {
        (self.backend == Backend::Gossip).then_some(self as &dyn Convergent)
    }
}

#[async_trait]
impl Convergent for RemoteReplicator {
    async fn siblings(&self, cx: &OpContext, key: Key) -> Result<Vec<Entry>, ReadError> {
        siblings(self, cx, key).await
    }
}
