//! The node's side of client connections: requests in, answers out.
//!
//! A client's first bidirectional stream carries its calls, many at once; a further one carries watches, any number of
//! them: what is said of a watch, and its items, many to a request. Both directions carry frames
//! `request id (u64 LE) · bytes`; answers carry the id of their request. The end of the first stream ends the connection.
//!
//! How many items there are for a watch is a matter between its reader and the driver, which gives none to a stream that
//! [has no room](ClientRef::has_room).
//!
//! Nothing here ends a client that reads. A request is read while there is room for its answer; the answer to a request
//! that was read has its room. A client that has read nothing of its answers for [`Limits::client_stall`] is cut off.
//!
//! One that reads no items is not, as long as it asks for no more. It makes the node hold what its stream takes before it
//! has no room, which is 2 MiB and the items of one turn, and all such clients together [`Limits::watch_bytes`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use crate::error::{SendError, code};
use crate::events::Event;
use crate::frame::{FrameReader, StreamEnd};
use crate::link::LinkContext;
use crate::queue::{Payload, Push, Queue, StreamError};
use crate::{Limits, tls};

/// Bytes of a request id.
pub(crate) const ID_BYTES: usize = 8;
/// Largest request on a stream of watches, in bytes.
pub(crate) const WATCH_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes queued for a stream of watches; with half of it there is no room.
const WATCH_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait on a stream of watches, beyond which its client is cut off: it asks and does not read.
const WATCH_STREAM_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A stream of a connected client, as the driver answers it. Clones are the same stream.
#[derive(Clone, Debug)]
pub struct ClientRef(Arc<Client>);

#[derive(Debug)]
struct Client {
    id: u64,
    connection: Connection,
    queue: Arc<Queue>,
    /// Requests that have no answer yet.
    open: Mutex<Open>,
    limits: StreamLimits,
    /// An open request was answered.
    answered: Notify,
    /// The driver wants to know when there is room.
    wants_room: AtomicBool,
}

/// Requests without an answer.
#[derive(Debug, Default)]
struct Open {
    /// Their bytes, by id.
    requests: HashMap<u64, usize>,
    /// The bytes of all.
    bytes: usize,
}

impl Open {
    fn remove(&mut self, request: u64) -> bool {
        let removed = self.requests.remove(&request);
        self.bytes -= removed.unwrap_or(0);
        removed.is_some()
    }
}

impl PartialEq for ClientRef {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ClientRef {}

static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);

impl ClientRef {
    /// Queues an answer.
    ///
    /// The first answer to a request makes room for another one: a client may have a limited number and size of requests
    /// without any answer, beyond which its stream is read no further. It is taken whatever waits already, unless it is
    /// large, much waits for all clients, and much of that for this one: [`SendError::NoRoom`], and the request is owed an
    /// answer still, of at most 64 KiB. Further answers are taken while there [is room](ClientRef::has_room).
    ///
    /// On a stream of watches everything is queued: the driver goes by [`ClientRef::has_room`].
    pub fn reply(&self, request: u64, payload: Bytes) -> Result<(), SendError> {
        self.answer(request, Payload::Ready(payload))
    }

    /// Queues an answer of about `size` bytes, which is made when its turn to be written comes: a large one, that shares
    /// what it shows with the state until then. Otherwise like [`ClientRef::reply`].
    pub fn reply_later(
        &self,
        request: u64,
        size: usize,
        make: impl FnOnce() -> Bytes + Send + 'static,
    ) -> Result<(), SendError> {
        self.answer(request, Payload::Later(size, Box::new(make)))
    }

    fn answer(&self, request: u64, payload: Payload) -> Result<(), SendError> {
        let client = &*self.0;
        let header = request.to_le_bytes();
        if client.limits.of_watches {
            return match client.queue.push_paced(&header, payload, WATCH_STREAM_BYTES_MAX) {
                Push::Queued => Ok(()),
                Push::Closed => Err(SendError::ClientGone),
                Push::Full => {
                    let why = b"it asks for watches and does not read what it is sent";
                    client.connection.close(VarInt::from_u32(code::TOO_SLOW), why);
                    Err(SendError::ClientGone)
                }
            };
        }
        let mut open = client.open();
        let is_owed = open.requests.contains_key(&request);
        let pushed = if is_owed {
            client.queue.push_owed(&header, payload)
        } else {
            client.queue.push(&header, payload)
        };
        if is_owed && pushed != Push::Full {
            open.remove(request);
            client.answered.notify_one();
        }
        match pushed {
            Push::Queued => Ok(()),
            Push::Closed => Err(SendError::ClientGone),
            Push::Full => Err(SendError::NoRoom),
        }
    }

    /// Names the stream among all of this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether it is a stream of watches.
    #[must_use]
    pub fn is_of_watches(&self) -> bool {
        self.0.limits.of_watches
    }

    /// Asks for an [`Event::ClientRoom`] once a stream of watches has room.
    pub fn want_room(&self) {
        self.0.wants_room.store(true, Ordering::Relaxed);
        self.0.queue.look_again();
    }

    /// Whether more answers fit comfortably. Items of watches wait while it is not so.
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
    fn open(&self) -> MutexGuard<'_, Open> {
        // Held for map operations and the queueing of one answer only.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for one more request and its answer, and opens it.
    async fn admit(&self, request: u64, bytes: usize) -> Result<(), StreamEnd> {
        // What is said of watches is not answered one by one.
        if self.limits.of_watches {
            return Ok(());
        }
        loop {
            if self.has_place(bytes) {
                let mut open = self.open();
                if open.requests.insert(request, bytes).is_some() {
                    let why = format!("request id {request} was used again before its first answer");
                    return Err(StreamEnd::Violation(why));
                }
                open.bytes += bytes;
                return Ok(());
            }
            tokio::select! {
                () = self.answered.notified() => {}
                () = self.queue.drained() => {}
                why = self.connection.closed() => return Err(StreamEnd::Closed(why.to_string())),
            }
        }
    }

    fn has_place(&self, bytes: usize) -> bool {
        let open = self.open();
        let limits = &self.limits;
        // One request is always taken, however large.
        let fits = open.requests.is_empty()
            || (open.requests.len() < limits.requests && open.bytes + bytes <= limits.request_bytes);
        drop(open);
        fits && self.queue.takes_requests()
    }
}

/// What a stream of a client may make this node hold.
#[derive(Clone, Copy, Debug)]
struct StreamLimits {
    frame_bytes: usize,
    queue_bytes: usize,
    requests: usize,
    request_bytes: usize,
    /// How long it may read nothing of what waits for it. `None`: who answers looks after it.
    stall: Option<Duration>,
    of_watches: bool,
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
        request_bytes: limits.client_request_bytes,
        stall: Some(limits.client_stall),
        of_watches: false,
    };
    let first = serve_stream(&connection, send, receive, calls, &context);
    tokio::pin!(first);
    let why = tokio::select! {
        why = &mut first => why,
        // The connection has ended, and so does the first stream, which says that its client has gone.
        why = further => {
            let _the_same = first.await;
            why
        }
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
                frame_bytes: WATCH_REQUEST_BYTES_MAX,
                queue_bytes: WATCH_QUEUE_BYTES,
                requests: 0,
                request_bytes: 0,
                stall: None,
                of_watches: true,
            };
            let why = serve_stream(&connection, send, receive, limits, &context).await;
            tracing::trace!(why, "a client's stream of watches has ended");
        });
    }
}

/// Serves one stream; returns why it ended.
async fn serve_stream(
    connection: &Connection,
    send: SendStream,
    receive: RecvStream,
    limits: StreamLimits,
    context: &LinkContext,
) -> String {
    let budget = if limits.of_watches {
        &context.items
    } else {
        &context.answers
    };
    let queue = Arc::new(Queue::of_client(limits.queue_bytes, budget));
    context.queues.add(&queue);
    let client = ClientRef(Arc::new(Client {
        id: NEXT_CLIENT.fetch_add(1, Ordering::Relaxed),
        connection: connection.clone(),
        queue,
        open: Mutex::new(Open::default()),
        limits,
        answered: Notify::new(),
        wants_room: AtomicBool::new(false),
    }));
    let gone = Gone(client.clone());
    tokio::spawn(write_answers(client.clone(), send, context.clone()));
    if limits.of_watches {
        tokio::spawn(report_room(client.clone(), context.clone()));
    }
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

async fn write_answers(client: ClientRef, mut send: SendStream, context: LinkContext) {
    let Client {
        connection,
        queue,
        limits,
        ..
    } = &*client.0;
    if let Err(why) = queue.drain_into(&mut send, limits.stall).await {
        tracing::trace!(%why, "a client's stream has ended");
        if let StreamError::Stalled(_) = why {
            context.metrics.clients_cut_off.add(1);
            let why = format!("the client does not read its answers: {why}");
            connection.close(VarInt::from_u32(code::TOO_SLOW), why.as_bytes());
        }
    }
    queue.close();
}

/// Notifies the driver when there is room, whenever it wants to know.
async fn report_room(client: ClientRef, context: LinkContext) {
    while !client.is_closed() {
        if client.has_room() && client.0.wants_room.swap(false, Ordering::Relaxed) {
            let client = client.clone();
            if context.events.send(Event::ClientRoom { client }).await.is_err() {
                return;
            }
        }
        client.0.queue.drained().await;
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
        if let Err(end) = client.0.admit(request, frame.len()).await {
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
