//! The node's side of client connections: requests in, answers out.
//!
//! A client's first bidirectional stream carries its calls, many at once; each further one carries few requests that
//! have many answers, one stream each so that a reader that is slow for one holds up no other. Both directions carry
//! frames `request id (u64 LE) · bytes`; answers carry the id of their request. A client that loses interest ends the
//! stream; the end of the first stream ends the connection.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use crate::counters::Metrics;
use crate::error::{SendError, code};
use crate::events::Event;
use crate::frame::{FrameReader, Push, Queue, StreamEnd};
use crate::link::LinkContext;
use crate::{Limits, tls};

/// Bytes of a request id.
pub(crate) const ID_BYTES: usize = 8;
/// Largest frame that asks for a stream of answers, in bytes.
pub(crate) const STREAM_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of answers queued for one stream of them. It is paced by [`ClientRef::has_room`], so little is enough.
const STREAM_QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Requests without an answer on a stream of answers.
const STREAM_REQUESTS_MAX: usize = 4;

/// A stream of a connected client, as the driver answers it. Clones are the same stream.
#[derive(Clone, Debug)]
pub struct ClientRef(Arc<Client>);

#[derive(Debug)]
struct Client {
    id: u64,
    connection: Connection,
    queue: Queue,
    /// Requests that have no answer yet.
    open: Mutex<HashSet<u64>>,
    open_max: usize,
    /// An open request was answered.
    answered: Notify,
    metrics: Arc<Metrics>,
}

impl PartialEq for ClientRef {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ClientRef {}

static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);

impl ClientRef {
    /// Queues an answer. A client that lets its queue fill is cut off: it learns that its requests' fate is unknown.
    ///
    /// The first answer to a request makes room for another one: a client may have a limited number of requests
    /// without any answer, beyond which its stream is read no further.
    pub fn reply(&self, request: u64, payload: Bytes) -> Result<(), SendError> {
        let client = &*self.0;
        if client.open().remove(&request) {
            client.answered.notify_one();
        }
        match client.queue.push(&request.to_le_bytes(), payload) {
            Push::Queued => Ok(()),
            Push::Closed => Err(SendError::ClientGone),
            Push::Full => {
                client.metrics.clients_cut_off.add(1);
                let why = b"the client does not read its answers";
                client.connection.close(VarInt::from_u32(code::TOO_SLOW), why);
                client.queue.close();
                Err(SendError::ClientGone)
            }
        }
    }

    /// Whether more answers fit comfortably. Streams of answers wait while it is not so; when it is, any one answer
    /// is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.queue.has_room()
    }

    /// Whether the client has gone, or has ended this stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.queue.is_closed()
    }
}

impl Client {
    fn open(&self) -> MutexGuard<'_, HashSet<u64>> {
        // Held for set operations only.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request may be open, and opens it.
    async fn admit(&self, request: u64) -> Result<(), StreamEnd> {
        loop {
            {
                let mut open = self.open();
                if open.len() < self.open_max {
                    return if open.insert(request) {
                        Ok(())
                    } else {
                        let why = format!("request id {request} was used again before its first answer");
                        Err(StreamEnd::Violation(why))
                    };
                }
            }
            tokio::select! {
                () = self.answered.notified() => {}
                why = self.connection.closed() => return Err(StreamEnd::Closed(why.to_string())),
            }
        }
    }
}

/// What a stream of a client may make this node hold.
struct StreamLimits {
    frame_bytes: usize,
    queue_bytes: usize,
    requests: usize,
}

/// Serves one authenticated client until it goes.
pub(crate) async fn serve(connection: Connection, limits: Limits, context: LinkContext) {
    connection.set_send_window(tls::CLIENT_SEND_WINDOW);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(tls::CLIENT_STREAMS_MAX));
    let Ok((send, receive)) = connection.accept_bi().await else {
        return;
    };
    let further = accept_further(&connection, &context);
    let calls = StreamLimits {
        frame_bytes: limits.log_frame_bytes,
        queue_bytes: limits.client_queue_bytes,
        requests: limits.requests_in_flight.max(1),
    };
    let first = serve_stream(&connection, send, receive, calls, &context);
    let why = tokio::select! {
        why = first => why,
        why = further => why,
    };
    connection.close(VarInt::from_u32(code::CLOSED), why.as_bytes());
}

async fn accept_further(connection: &Connection, context: &LinkContext) -> String {
    loop {
        let (send, receive) = match connection.accept_bi().await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let (connection, context) = (connection.clone(), context.clone());
        tokio::spawn(async move {
            let limits = StreamLimits {
                frame_bytes: STREAM_REQUEST_BYTES_MAX,
                queue_bytes: STREAM_QUEUE_BYTES,
                requests: STREAM_REQUESTS_MAX,
            };
            let why = serve_stream(&connection, send, receive, limits, &context).await;
            tracing::trace!(why, "a client's stream of answers has ended");
        });
    }
}

/// Serves one stream; returns why it ended.
async fn serve_stream(
    connection: &Connection,
    mut send: SendStream,
    receive: RecvStream,
    limits: StreamLimits,
    context: &LinkContext,
) -> String {
    let client = ClientRef(Arc::new(Client {
        id: NEXT_CLIENT.fetch_add(1, Ordering::Relaxed),
        connection: connection.clone(),
        queue: Queue::new(limits.queue_bytes),
        open: Mutex::new(HashSet::new()),
        open_max: limits.requests,
        answered: Notify::new(),
        metrics: Arc::clone(&context.metrics),
    }));
    let gone = Gone(client.clone());
    let writer = client.clone();
    tokio::spawn(async move {
        if let Err(why) = writer.0.queue.drain_into(&mut send).await {
            tracing::trace!(why, "a client's stream has ended");
        }
        writer.0.queue.close();
    });
    let mut reader = FrameReader::new(receive, limits.frame_bytes);
    let end = read_requests(&client, &mut reader, context).await;
    drop(gone);
    // The driver has ended: nobody needs to know.
    let _ended = context.events.send(Event::ClientGone { client }).await;
    match end {
        StreamEnd::Closed(why) => why,
        StreamEnd::Violation(why) => {
            connection.close(VarInt::from_u32(code::VIOLATION), why.as_bytes());
            why
        }
    }
}

/// Closes the queue of a stream whose requests are no longer read, even when the reading future is dropped.
struct Gone(ClientRef);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.0.queue.close();
    }
}

async fn read_requests(client: &ClientRef, reader: &mut FrameReader, context: &LinkContext) -> StreamEnd {
    loop {
        let mut frame = match reader.next().await {
            Ok(frame) if frame.len() >= ID_BYTES => frame,
            Ok(_) => return StreamEnd::Violation("a request without an id".into()),
            Err(end) => return end,
        };
        let request = frame.get_u64_le();
        if let Err(end) = client.0.admit(request).await {
            return end;
        }
        context.metrics.requests.add(1);
        let event = Event::ClientRequest {
            client: client.clone(),
            request,
            payload: frame,
        };
        if context.events.send(event).await.is_err() {
            return StreamEnd::Closed("the node stops".into());
        }
    }
}
