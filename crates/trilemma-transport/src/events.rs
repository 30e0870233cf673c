//! What the driver is notified of, and the bounded queue that carries it.
//!
//! The queue is bounded in events and in bytes. A task that reads a connection waits for room; meanwhile QUIC's windows
//! fill, and the other side waits too. Refusals do not wait: anybody can cause one, so they are dropped when the driver
//! is busy, and counted.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use trilemma_core::{NodeId, ProcessId};

use crate::clients::ClientRef;
use crate::error::Refusal;
use crate::{Lane, Limits};

/// What the driver is notified of.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    PeerUp {
        /// The peer's process.
        process: ProcessId,
        /// Where it is.
        address: SocketAddr,
    },
    /// A peer's connection has ended; comes once for each [`Event::PeerUp`], before the next one of this peer. May come
    /// long after the peer went.
    PeerDown {
        /// The peer.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A connection was refused, by this side or the other. Dropped while the driver is far behind.
    Refused {
        /// The peer, where it is known.
        node: Option<NodeId>,
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// A frame of a peer.
    Frame {
        /// The peer's process.
        from: ProcessId,
        /// The lane.
        lane: Lane,
        /// The frame.
        payload: Bytes,
    },
    /// A request of a client.
    ClientRequest {
        /// The client, to answer to.
        client: ClientRef,
        /// The request's number within the client's stream.
        request: u64,
        /// The request.
        payload: Bytes,
    },
    /// A client's stream has ended: nobody waits for answers to its requests any more. Comes after the last request
    /// of this [`ClientRef`], once.
    ClientGone {
        /// The client.
        client: ClientRef,
    },
}

impl Event {
    /// Bytes of the payload that the queue holds for this event.
    fn bytes(&self) -> usize {
        match self {
            Event::Frame { payload, .. } | Event::ClientRequest { payload, .. } => payload.len(),
            _ => 0,
        }
    }
}

/// The receiving end for the driver. Bounded: while it is full, connections are read no further.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    budget: ByteBudget,
}

impl Events {
    /// The next event; `None` once the endpoint is gone.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await?;
        self.budget.give_back(&event);
        Some(event)
    }

    /// The next event if one is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok()?;
        self.budget.give_back(&event);
        Some(event)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // A task that waits for room learns that nobody reads any more.
        self.budget.permits.close();
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    sender: mpsc::Sender<Event>,
    budget: ByteBudget,
}

/// The queue was dropped by its reader: the node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

/// Bytes that the queue may still hold, as permits.
#[derive(Clone, Debug)]
struct ByteBudget {
    permits: Arc<Semaphore>,
    bytes_max: u32,
}

impl ByteBudget {
    /// The permits that an event takes; an event larger than the whole queue takes all of it.
    fn share(&self, event: &Event) -> u32 {
        u32::try_from(event.bytes()).map_or(self.bytes_max, |bytes| bytes.min(self.bytes_max))
    }

    fn give_back(&self, event: &Event) {
        self.permits.add_permits(self.share(event) as usize);
    }
}

/// A queue of events with these limits.
pub(crate) fn queue(limits: &Limits) -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(limits.events.max(1));
    let bytes_max = limits
        .event_bytes
        .clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS)) as u32;
    let permits = Arc::new(Semaphore::new(bytes_max as usize));
    let budget = ByteBudget { permits, bytes_max };
    let sender = EventSender {
        sender,
        budget: budget.clone(),
    };
    (sender, Events { receiver, budget })
}

impl EventSender {
    /// Queues an event; waits for room.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Ended> {
        let share = self.budget.share(&event);
        if share > 0 {
            let permits = self
                .budget
                .permits
                .acquire_many(share)
                .await
                .map_err(|_closed| Ended)?;
            // Given back by the receiver.
            permits.forget();
        }
        self.sender.send(event).await.map_err(|_closed| Ended)
    }

    /// Queues an event without payload if there is room; `false` if it was dropped.
    pub(crate) fn offer(&self, event: Event) -> bool {
        debug_assert_eq!(event.bytes(), 0, "what has a payload waits for its room");
        !matches!(self.sender.try_send(event), Err(TrySendError::Full(_)))
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
