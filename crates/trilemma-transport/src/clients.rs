//! The node's side of client connections: requests in, answers out.
//!
//! A client opens one bidirectional stream. Both directions carry frames `request id (u64 LE) · bytes`; answers carry
//! the id of their request, and a request may have many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;

use crate::Limits;
use crate::endpoint::Event;
use crate::error::{SendError, code};
use crate::frame::{FrameReader, Queue, StreamEnd};

/// Bytes of a request id.
pub(crate) const ID_BYTES: usize = 8;

/// A connected client, as the driver answers it. Clones are the same client.
#[derive(Clone, Debug)]
pub struct ClientRef {
    id: u64,
    connection: Connection,
    queue: Arc<Queue>,
}

impl PartialEq for ClientRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ClientRef {}

static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);

impl ClientRef {
    /// Queues an answer. A client that lets its queue fill is cut off: it learns that its requests' fate is unknown.
    pub fn reply(&self, request: u64, payload: Bytes) -> Result<(), SendError> {
        if self.queue.push(&request.to_le_bytes(), payload) {
            return Ok(());
        }
        self.connection.close(
            VarInt::from_u32(code::TOO_SLOW),
            b"the client does not read its answers",
        );
        Err(SendError::ClientGone)
    }

    /// Whether more answers fit comfortably. Streams of answers wait while it is not so.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Whether the client has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }
}

/// Serves one authenticated client until it goes.
pub(crate) async fn serve(connection: Connection, limits: Limits, events: mpsc::Sender<Event>) {
    let Ok((mut send, receive)) = connection.accept_bi().await else {
        return;
    };
    let queue = Arc::new(Queue::new(limits.client_queue_bytes));
    let client = ClientRef {
        id: NEXT_CLIENT.fetch_add(1, Ordering::Relaxed),
        connection: connection.clone(),
        queue: Arc::clone(&queue),
    };
    let writer = Arc::clone(&queue);
    tokio::spawn(async move {
        if let Err(why) = writer.drain_into(&mut send).await {
            tracing::debug!(why, "a client's stream has ended");
        }
        writer.close();
    });
    let mut reader = FrameReader::new(receive, limits.log_frame_bytes);
    let why = loop {
        match reader.next().await {
            Ok(mut frame) if frame.len() >= ID_BYTES => {
                let request = frame.get_u64_le();
                let event = Event::ClientRequest {
                    client: client.clone(),
                    request,
                    payload: frame,
                };
                if events.send(event).await.is_err() {
                    break "the node stops".to_owned();
                }
            }
            Ok(_) => break "a request without an id".to_owned(),
            Err(StreamEnd::Closed(why) | StreamEnd::Violation(why)) => break why,
        }
    };
    connection.close(VarInt::from_u32(code::CLOSED), why.as_bytes());
    queue.close();
}
