//! The client's side: many requests at once over one stream of one connection, and any number of watches over another.
//!
//! Requests are numbered by the caller, and answers come with their numbers, in any order. Who waits for which, and for
//! how long, is the caller's matter; so is that no more items come for a watch than it has room for.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use thiserror::Error;
use trilemma_core::NodeId;

use crate::Limits;
use crate::clients::{ID_BYTES, WATCH_REQUEST_BYTES_MAX};
use crate::error::{TransportError, code};
use crate::frame::{FrameReader, StreamEnd};
use crate::identity::{Identity, Subject, server_name};
use crate::queue::{Payload, Push, Queue};
use crate::timing::Timing;
use crate::{socket, tls};

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

/// Why a request was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection has ended.
    #[error("the connection has ended: {why}")]
    Closed {
        /// Why.
        why: String,
    },
    /// The connection lives, and as much is under way on it as it takes.
    #[error("full: {what}")]
    Full {
        /// Which limit was met.
        what: String,
    },
    /// The request is larger than a frame may be.
    #[error("a request of {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// A connection to one node. It ends when it is dropped.
#[derive(Debug)]
pub struct ClientConnection {
    endpoint: Endpoint,
    connection: Connection,
    queue: Arc<Queue>,
    /// What is to be sent of watches.
    watch_queue: Arc<Queue>,
    limits: Limits,
}

/// The answers that come on a connection.
pub struct Answers {
    connection: Connection,
    queue: Arc<Queue>,
    reader: FrameReader,
}

/// The items of the watches of a connection.
pub struct Items {
    connection: Connection,
    queue: Arc<Queue>,
    /// Largest frame of the node, in bytes.
    frame_bytes: usize,
    /// `None` until there is a watch.
    answers: Option<Answers>,
}

impl ClientConnection {
    /// Connects on the current tokio runtime.
    pub async fn connect(config: ClientConfig) -> Result<(Self, Answers, Items), TransportError> {
        let (address, timeout, limits) = (config.address, config.timeout, config.limits);
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let local: SocketAddr = any.parse().expect("a literal address parses");
        let socket = UdpSocket::bind(local).and_then(|socket| socket::open(socket, None));
        let endpoint = socket.map_err(|source| TransportError::Bind {
            address: local,
            source,
        })?;
        let tls = tls::client(&config.identity, tls::CLIENT, &Timing::default())?;
        let (connection, send, receive) = tokio::time::timeout(timeout, open(&config, &endpoint, tls))
            .await
            .unwrap_or_else(|_elapsed| Err(format!("no answer within {timeout:?}")))
            .map_err(|why| TransportError::Connect { address, why })?;
        let queue = Arc::new(Queue::new(limits.queue_bytes));
        let watch_queue = Arc::new(Queue::new(limits.queue_bytes));
        let answers = Answers {
            connection: connection.clone(),
            queue: Arc::clone(&queue),
            reader: FrameReader::new(receive, limits.log_frame_bytes),
        };
        let items = Items {
            connection: connection.clone(),
            queue: Arc::clone(&watch_queue),
            frame_bytes: limits.log_frame_bytes,
            answers: None,
        };
        let this = Self {
            endpoint,
            connection,
            queue: Arc::clone(&queue),
            watch_queue,
            limits,
        };
        tokio::spawn(write(queue, send));
        Ok((this, answers, items))
    }

    /// Queues a request for the node. Its answer comes under the same number, which no request without an answer has.
    pub fn send(&self, number: u64, request: Bytes) -> Result<(), CallError> {
        check_size(request.len(), self.limits.log_frame_bytes - ID_BYTES)?;
        self.push(&self.queue, number, request)
    }

    /// Queues what is to be said of the watch of this number, at most 64 KiB. [`Items`] brings what comes for it.
    pub fn send_watch(&self, number: u64, request: Bytes) -> Result<(), CallError> {
        check_size(request.len(), WATCH_REQUEST_BYTES_MAX - ID_BYTES)?;
        self.push(&self.watch_queue, number, request)
    }

    fn push(&self, queue: &Queue, number: u64, request: Bytes) -> Result<(), CallError> {
        match queue.push(&number.to_le_bytes(), Payload::Ready(request)) {
            Push::Queued => Ok(()),
            Push::Full => Err(CallError::Full {
                what: "too much waits to be sent to this node already".into(),
            }),
            Push::Closed => Err(CallError::Closed { why: self.end() }),
        }
    }

    fn end(&self) -> String {
        let reason = self.connection.close_reason();
        reason.map_or_else(|| "its stream has ended".into(), |error| describe(&error))
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// The next answer and the number of its request. `Err` says why the connection has ended.
    pub async fn next(&mut self) -> Result<(u64, Bytes), String> {
        let why = match self.reader.next().await {
            Ok(mut frame) if frame.len() >= ID_BYTES => return Ok((frame.get_u64_le(), frame)),
            Ok(_) => "the node sent an answer without an id".to_owned(),
            Err(StreamEnd::Violation(why)) => why,
            Err(StreamEnd::Closed(why)) => {
                let reason = self.connection.close_reason();
                reason.map_or(why, |error| describe(&error))
            }
        };
        self.connection
            .close(VarInt::from_u32(code::CLOSED), why.as_bytes());
        self.queue.close();
        Err(why)
    }
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl Items {
    /// The next item and the number of its watch. `Err` says why the connection has ended.
    pub async fn next(&mut self) -> Result<(u64, Bytes), String> {
        loop {
            if let Some(answers) = &mut self.answers {
                return answers.next().await;
            }
            self.queue.filled().await;
            let opened = self.connection.open_bi().await;
            let (send, receive) = opened.map_err(|error| describe(&error))?;
            tokio::spawn(write(Arc::clone(&self.queue), send));
            self.answers = Some(Answers {
                connection: self.connection.clone(),
                queue: Arc::clone(&self.queue),
                reader: FrameReader::new(receive, self.frame_bytes),
            });
        }
    }
}

/// Writes what is queued until the stream ends.
async fn write(queue: Arc<Queue>, mut send: SendStream) {
    if let Err(why) = queue.drain_into(&mut send, None).await {
        tracing::debug!(%why, "a stream to the node has ended");
    }
    queue.close();
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
        self.connection
            .close(VarInt::from_u32(code::CLOSED), b"the client has finished");
        self.queue.close();
        self.watch_queue.close();
        // Lets the close leave; the endpoint's task ends with it.
        self.endpoint.close(VarInt::from_u32(code::CLOSED), b"");
    }
}

fn describe(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("closed by the node: {}", String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}
