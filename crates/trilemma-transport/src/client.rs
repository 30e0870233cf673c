//! The client's side: many calls at once over one stream of one connection, and a stream for each request that has many
//! answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use trilemma_core::NodeId;

use crate::Limits;
use crate::clients::{ID_BYTES, STREAM_REQUEST_BYTES_MAX};
use crate::error::{TransportError, code};
use crate::frame::{self, FrameReader, Push, Queue, StreamEnd};
use crate::identity::{Identity, Subject, server_name};
use crate::tls;

/// Answers of one stream that wait for its reader. Further ones wait at the node.
const STREAM_ANSWERS_MAX: usize = 128;
/// Streams of answers that one connection has open at once; a node accepts more, so that those just ended do not count.
const STREAMS_MAX: usize = tls::CLIENT_STREAMS_MAX as usize / 2;

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
    /// Streams of answers that may still be opened.
    streams: Arc<Semaphore>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<u64, oneshot::Sender<Bytes>>,
    last: u64,
    closed: Option<String>,
}

impl ClientConnection {
    /// Connects on the current tokio runtime.
    pub async fn connect(config: ClientConfig) -> Result<Self, TransportError> {
        let (address, timeout, limits) = (config.address, config.timeout, config.limits);
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let local: SocketAddr = any.parse().expect("a literal address parses");
        let endpoint = Endpoint::client(local).map_err(|source| TransportError::Bind {
            address: local,
            source,
        })?;
        let tls = tls::client(&config.identity, tls::CLIENT)?;
        let (connection, mut send, receive) = tokio::time::timeout(timeout, open(&config, &endpoint, tls))
            .await
            .unwrap_or_else(|_elapsed| Err(format!("no answer within {timeout:?}")))
            .map_err(|why| TransportError::Connect { address, why })?;
        let queue = Arc::new(Queue::new(limits.queue_bytes));
        let shared = Arc::new(Shared {
            endpoint,
            connection,
            queue: Arc::clone(&queue),
            calls: Mutex::new(Calls::default()),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            limits,
        });
        tokio::spawn(async move {
            if let Err(why) = queue.drain_into(&mut send).await {
                tracing::debug!(why, "the stream to the node has ended");
            }
            queue.close();
        });
        let reader = FrameReader::new(receive, limits.log_frame_bytes);
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
        let id = self.send(request, sender)?;
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

    /// Sends a request that has many answers, over a stream of its own. They end when the connection ends, or when the
    /// receiver is dropped, of which the node is notified. A reader that is slow holds up this stream alone.
    ///
    /// A request may have 64 KiB; a connection has at most 128 such streams open.
    pub async fn stream(&self, request: Bytes) -> Result<mpsc::Receiver<Bytes>, CallError> {
        check_size(request.len(), STREAM_REQUEST_BYTES_MAX - ID_BYTES)?;
        let not_sent = |why: String| CallError::NotSent { why };
        if let Some(why) = &self.shared.calls().closed {
            return Err(not_sent(why.clone()));
        }
        let place = Arc::clone(&self.shared.streams)
            .try_acquire_owned()
            .map_err(|_| {
                not_sent(format!(
                    "{STREAMS_MAX} streams of answers are open on this connection, which is the limit; \
                 drop one or use another connection"
                ))
            })?;
        let connection = &self.shared.connection;
        let (mut send, receive) = connection
            .open_bi()
            .await
            .map_err(|error| not_sent(describe(&error)))?;
        let mut frame = Vec::with_capacity(ID_BYTES + request.len());
        // The only request of this stream, so any number would do.
        frame.extend_from_slice(&1_u64.to_le_bytes());
        frame.extend_from_slice(&request);
        frame::write(&mut send, &frame)
            .await
            .map_err(|why| CallError::Lost { why })?;
        let (sender, answers) = mpsc::channel(STREAM_ANSWERS_MAX);
        let reader = FrameReader::new(receive, self.shared.limits.log_frame_bytes);
        tokio::spawn(read_stream(reader, send, sender, place));
        Ok(answers)
    }

    fn send(&self, request: Bytes, waiting: oneshot::Sender<Bytes>) -> Result<u64, CallError> {
        check_size(request.len(), self.shared.limits.log_frame_bytes - ID_BYTES)?;
        let mut calls = self.shared.calls();
        if let Some(why) = &calls.closed {
            return Err(CallError::NotSent { why: why.clone() });
        }
        calls.last += 1;
        let id = calls.last;
        let why = match self.shared.queue.push(&id.to_le_bytes(), request) {
            Push::Queued => {
                calls.waiting.insert(id, waiting);
                return Ok(id);
            }
            Push::Full => "too much waits to be sent to this node already",
            Push::Closed => "the stream to the node has ended",
        };
        Err(CallError::NotSent { why: why.into() })
    }
}

fn check_size(size: usize, limit: usize) -> Result<(), CallError> {
    if size > limit {
        return Err(CallError::TooLarge { size, limit });
    }
    Ok(())
}

/// Connects, checks who is there, and opens the stream of calls.
async fn open(
    config: &ClientConfig,
    endpoint: &Endpoint,
    tls: quinn::ClientConfig,
) -> Result<(Connection, SendStream, RecvStream), String> {
    let name = server_name(&config.cluster, config.node);
    let connecting = endpoint
        .connect_with(tls, config.address, &name)
        .map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| describe(&error))?;
    let (_, chain) = tls::handshake(&connection);
    let expected = Subject::Node {
        cluster: config.cluster.clone(),
        node: config.node,
    };
    let found = Subject::of(&chain)?;
    if found != expected {
        return Err(format!("it was to be {expected}, its certificate names {found}"));
    }
    let (send, receive) = connection.open_bi().await.map_err(|error| describe(&error))?;
    Ok((connection, send, receive))
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

    /// Passes an answer on.
    fn answer(&self, id: u64, answer: Bytes) {
        let waiting = self.calls().waiting.remove(&id);
        if let Some(waiting) = waiting {
            // The caller has dropped its future.
            let _gone = waiting.send(answer);
        }
    }
}

/// Passes the answers of one stream on until the stream or its reader ends. Whatever ends it, dropping `send` and the
/// reader tells the node.
async fn read_stream(
    mut reader: FrameReader,
    send: SendStream,
    answers: mpsc::Sender<Bytes>,
    place: OwnedSemaphorePermit,
) {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = answers.closed() => break,
        };
        match next {
            Ok(mut frame) if frame.len() >= ID_BYTES => {
                frame.advance(ID_BYTES);
                if answers.send(frame).await.is_err() {
                    break;
                }
            }
            Ok(_) => break,
            Err(end) => {
                tracing::trace!(?end, "a stream of answers has ended");
                break;
            }
        }
    }
    drop((send, reader, place));
}

async fn read_answers(shared: Arc<Shared>, mut reader: FrameReader) {
    let why = loop {
        match reader.next().await {
            Ok(mut frame) if frame.len() >= ID_BYTES => {
                let id = frame.get_u64_le();
                shared.answer(id, frame);
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
