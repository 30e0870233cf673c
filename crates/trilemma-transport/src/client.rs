//! The client's side: many calls at once over one stream of one connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::{Connection, Endpoint, VarInt};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use trilemma_core::NodeId;

use crate::Limits;
use crate::clients::ID_BYTES;
use crate::error::{TransportError, code};
use crate::frame::{FrameReader, Queue, StreamEnd};
use crate::identity::{Identity, Subject, server_name};
use crate::tls;

/// Answers of one stream that wait for its reader.
const STREAM_ANSWERS_MAX: usize = 1024;

/// How a client reaches a node.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    cluster: String,
    identity: Identity,
    address: SocketAddr,
    node: NodeId,
    limits: Limits,
    timeout: Duration,
}

impl ClientConfig {
    /// Reaches the node at `address`, which must prove to be [`ClientConfig::node`] (1 unless set).
    #[must_use]
    pub fn new(cluster: String, identity: Identity, address: SocketAddr) -> Self {
        let timeout = Duration::from_secs(2);
        Self {
            cluster,
            identity,
            address,
            node: NodeId(1),
            limits: Limits::default(),
            timeout,
        }
    }

    /// The node that must be there.
    #[must_use]
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = node;
        self
    }

    /// Longest time for the connection to be made. Default 2 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Why a call has no answer, and whether it may have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection was closed before the request was handed to it.
    #[error("not sent: {why}")]
    NotSent {
        /// Why the connection is closed.
        why: String,
    },
    /// The request was handed over, and the connection broke before an answer came.
    #[error("the answer was lost: {why}")]
    Lost {
        /// Why the connection broke.
        why: String,
    },
    /// The request is larger than a frame may be. Not sent.
    #[error("a request of {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// A connection to one node.
#[derive(Debug)]
pub struct ClientConnection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    connection: Connection,
    queue: Arc<Queue>,
    calls: Mutex<Calls>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<u64, Waiting>,
    last: u64,
    closed: Option<String>,
}

#[derive(Debug)]
enum Waiting {
    Call(oneshot::Sender<Bytes>),
    Stream(mpsc::Sender<Bytes>),
}

impl ClientConnection {
    /// Connects on the current tokio runtime.
    pub async fn connect(config: ClientConfig) -> Result<Self, TransportError> {
        let address = config.address;
        let failed = |why: String| TransportError::Connect { address, why };
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let local: SocketAddr = any.parse().expect("a literal address parses");
        let endpoint = Endpoint::client(local).map_err(|source| TransportError::Bind {
            address: local,
            source,
        })?;
        let tls = tls::client(&config.identity, tls::CLIENT)?;
        let name = server_name(&config.cluster, config.node);
        let connect = async {
            let connecting = endpoint
                .connect_with(tls, address, &name)
                .map_err(|error| failed(error.to_string()))?;
            let connection = connecting.await.map_err(|error| failed(describe(&error)))?;
            let (_, chain) = tls::handshake(&connection);
            let expected = Subject::Node {
                cluster: config.cluster.clone(),
                node: config.node,
            };
            let found = Subject::of(&chain).map_err(failed)?;
            if found != expected {
                return Err(failed(format!(
                    "it was to be {expected}, its certificate names {found}"
                )));
            }
            let (send, receive) = connection
                .open_bi()
                .await
                .map_err(|error| failed(describe(&error)))?;
            Ok((connection, send, receive))
        };
        let (connection, mut send, receive) = tokio::time::timeout(config.timeout, connect)
            .await
            .map_err(|_elapsed| failed(format!("no answer within {:?}", config.timeout)))??;
        let queue = Arc::new(Queue::new(config.limits.queue_bytes));
        let shared = Arc::new(Shared {
            endpoint,
            connection,
            queue: Arc::clone(&queue),
            calls: Mutex::new(Calls::default()),
            limits: config.limits,
        });
        tokio::spawn(async move {
            if let Err(why) = queue.drain_into(&mut send).await {
                tracing::debug!(why, "the stream to the node has ended");
            }
            queue.close();
        });
        let reader = FrameReader::new(receive, config.limits.log_frame_bytes);
        tokio::spawn(read_answers(Arc::clone(&shared), reader));
        Ok(Self { shared })
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.connection.close_reason().is_some()
    }

    /// Sends a request and waits for its one answer. Dropping the future forgets the answer, not the request.
    pub async fn call(&self, request: Bytes) -> Result<Bytes, CallError> {
        let (sender, answer) = oneshot::channel();
        let id = self.send(request, Waiting::Call(sender))?;
        let forget = Forget {
            shared: &self.shared,
            id,
        };
        let result = answer.await.map_err(|_closed| CallError::Lost {
            why: self.shared.end(),
        });
        drop(forget);
        result
    }

    /// Sends a request that has many answers. They end when the receiver is dropped or the connection ends.
    pub async fn stream(&self, request: Bytes) -> Result<mpsc::Receiver<Bytes>, CallError> {
        let (sender, answers) = mpsc::channel(STREAM_ANSWERS_MAX);
        self.send(request, Waiting::Stream(sender))?;
        Ok(answers)
    }

    fn send(&self, request: Bytes, waiting: Waiting) -> Result<u64, CallError> {
        let limit = self.shared.limits.log_frame_bytes - ID_BYTES;
        if request.len() > limit {
            return Err(CallError::TooLarge {
                size: request.len(),
                limit,
            });
        }
        let mut calls = self.shared.calls();
        if let Some(why) = &calls.closed {
            return Err(CallError::NotSent { why: why.clone() });
        }
        calls.last += 1;
        let id = calls.last;
        if !self.shared.queue.push(&id.to_le_bytes(), request) {
            return Err(CallError::NotSent {
                why: "too much waits to be sent, or the stream has ended".into(),
            });
        }
        calls.waiting.insert(id, waiting);
        Ok(id)
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.shared
            .connection
            .close(VarInt::from_u32(code::CLOSED), b"the client has finished");
        self.shared.queue.close();
        // Lets the close leave; the endpoint's task ends with it.
        self.shared.endpoint.close(VarInt::from_u32(code::CLOSED), b"");
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Held for map operations only.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> String {
        self.calls()
            .closed
            .clone()
            .unwrap_or_else(|| "the connection was closed".into())
    }

    /// Passes an answer on. `Some`: a stream's reader has no room, wait for it.
    fn answer(&self, id: u64, answer: Bytes) -> Option<(mpsc::Sender<Bytes>, Bytes)> {
        let mut calls = self.calls();
        match calls.waiting.get(&id)? {
            Waiting::Call(_) => {
                if let Some(Waiting::Call(waiting)) = calls.waiting.remove(&id) {
                    // The caller has dropped its future.
                    let _gone = waiting.send(answer);
                }
                None
            }
            Waiting::Stream(stream) if stream.is_closed() => {
                calls.waiting.remove(&id);
                None
            }
            Waiting::Stream(stream) => Some((stream.clone(), answer)),
        }
    }
}

async fn read_answers(shared: Arc<Shared>, mut reader: FrameReader) {
    let why = loop {
        match reader.next().await {
            Ok(mut frame) if frame.len() >= ID_BYTES => {
                let id = frame.get_u64_le();
                // A slow reader of a stream holds up this connection's other answers; the node cuts off a client
                // that stays slow.
                if let Some((stream, answer)) = shared.answer(id, frame) {
                    let _gone = stream.send(answer).await;
                }
            }
            Ok(_) => break "the node sent an answer without an id".to_owned(),
            Err(StreamEnd::Violation(why)) => break why,
            Err(StreamEnd::Closed(why)) => {
                break shared
                    .connection
                    .close_reason()
                    .map_or(why, |error| describe(&error));
            }
        }
    };
    shared
        .connection
        .close(VarInt::from_u32(code::CLOSED), why.as_bytes());
    shared.queue.close();
    let mut calls = shared.calls();
    calls.closed = Some(why);
    calls.waiting.clear();
}

fn describe(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("closed by the node: {}", String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}
