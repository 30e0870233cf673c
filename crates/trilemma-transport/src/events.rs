//! What the driver is notified of, and the bounded queues that carry it.
//!
//! There are four, in the order in which they are read: what is urgent among peers (votes, heartbeats,
//! acknowledgements, ups and downs), their data, clients, and large requests of clients. So a flood of clients delays no
//! peer, data delay no vote, and a flood of large values delays no small request. Each is bounded in events and in bytes. A task that reads a connection waits for room; meanwhile QUIC's windows
//! fill, and the other side waits too. Refusals do not wait: anybody can cause one, so they are dropped when the driver
//! is busy, and counted.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use trilemma_core::{NodeId, ProcessId};

use crate::clients::{ClientRef, WATCH_REQUEST_BYTES_MAX};
use crate::error::Refusal;
use crate::{Lane, Limits};

/// Requests above this size are large. No request on a stream of watches is.
const LARGE_REQUEST_BYTES: usize = 64 * 1024;
const _: () = assert!(
    WATCH_REQUEST_BYTES_MAX <= LARGE_REQUEST_BYTES,
    "what is said of watches stays in order"
);

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
    /// A request of a client. Small ones may come before large ones that it has sent earlier.
    ClientRequest {
        /// The client, to answer to.
        client: ClientRef,
        /// The request's number within the client's stream.
        request: u64,
        /// The request.
        payload: Bytes,
    },
    /// A client's stream has room for answers again: the answer to [`ClientRef::want_room`].
    ClientRoom {
        /// The client.
        client: ClientRef,
    },
    /// A client's stream has ended: nobody waits for answers to its requests any more. Comes once, after the last request
    /// of this [`ClientRef`] that is not large.
    ClientGone {
        /// The client.
        client: ClientRef,
    },
    /// The endpoint accepts no connections any more, though nobody has closed it.
    Ended,
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

/// The receiving end for the driver. Bounded: while a queue is full, connections that feed it are read no further.
#[derive(Debug)]
pub struct Events {
    urgent: Receiver,
    data: Receiver,
    clients: Receiver,
    large: Receiver,
}

impl Events {
    /// The next event, peers first; `None` once the endpoint is gone.
    pub async fn recv(&mut self) -> Option<Event> {
        let Self {
            urgent,
            data,
            clients,
            large,
        } = self;
        let event = tokio::select! {
            biased;
            Some(event) = urgent.receiver.recv() => urgent.taken(event),
            Some(event) = data.receiver.recv() => data.taken(event),
            Some(event) = clients.receiver.recv() => clients.taken(event),
            Some(event) = large.receiver.recv() => large.taken(event),
            else => return None,
        };
        Some(event)
    }

    /// The next event if one is there already, peers first.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.try_peer()
            .or_else(|| self.try_client())
            .or_else(|| self.try_large())
    }

    /// The next event that is not of a client if one is there already, the urgent ones first.
    pub fn try_peer(&mut self) -> Option<Event> {
        self.urgent.try_recv().or_else(|| self.data.try_recv())
    }

    /// The next event of a client that is no large request, if one is there already.
    pub fn try_client(&mut self) -> Option<Event> {
        self.clients.try_recv()
    }

    /// The next large request of a client if one is there already.
    pub fn try_large(&mut self) -> Option<Event> {
        self.large.try_recv()
    }

    /// Events that wait, of peers and of clients.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let peers = self.urgent.receiver.len() + self.data.receiver.len();
        let clients = self.clients.receiver.len() + self.large.receiver.len();
        (peers, clients)
    }
}

#[derive(Debug)]
struct Receiver {
    receiver: mpsc::Receiver<Event>,
    budget: ByteBudget,
}

impl Receiver {
    fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok()?;
        Some(self.taken(event))
    }

    fn taken(&self, event: Event) -> Event {
        self.budget.give_back(&event);
        event
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // A task that waits for room learns that nobody reads any more.
        self.budget.permits.close();
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    urgent: Sender,
    data: Sender,
    clients: Sender,
    large: Sender,
}

#[derive(Clone, Debug)]
struct Sender {
    sender: mpsc::Sender<Event>,
    budget: ByteBudget,
}

/// The queue was dropped by its reader: the node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

/// Bytes that a queue may still hold, as permits.
#[derive(Clone, Debug)]
struct ByteBudget {
    permits: Arc<Semaphore>,
    bytes_max: u32,
}

impl ByteBudget {
    fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS)) as u32;
        let permits = Arc::new(Semaphore::new(bytes_max as usize));
        Self { permits, bytes_max }
    }

    /// The permits that an event takes; an event larger than the whole queue takes all of it.
    fn share(&self, event: &Event) -> u32 {
        u32::try_from(event.bytes()).map_or(self.bytes_max, |bytes| bytes.min(self.bytes_max))
    }

    fn give_back(&self, event: &Event) {
        self.permits.add_permits(self.share(event) as usize);
    }
}

/// Queues of events with these limits, each.
pub(crate) fn queues(limits: &Limits) -> (EventSender, Events) {
    let queue = || {
        let (sender, receiver) = mpsc::channel(limits.events.max(1));
        let budget = ByteBudget::new(limits.event_bytes);
        let sender = Sender {
            sender,
            budget: budget.clone(),
        };
        (sender, Receiver { receiver, budget })
    };
    let (urgent, urgent_receiver) = queue();
    let (data, data_receiver) = queue();
    let (clients, clients_receiver) = queue();
    let (large, large_receiver) = queue();
    let sender = EventSender {
        urgent,
        data,
        clients,
        large,
    };
    let events = Events {
        urgent: urgent_receiver,
        data: data_receiver,
        clients: clients_receiver,
        large: large_receiver,
    };
    (sender, events)
}

impl EventSender {
    /// The queue of an event.
    fn of(&self, event: &Event) -> &Sender {
        match event {
            Event::Frame {
                lane: Lane::Log | Lane::Bulk,
                ..
            } => &self.data,
            Event::ClientRequest { payload, .. } if payload.len() > LARGE_REQUEST_BYTES => &self.large,
            Event::ClientRequest { .. } | Event::ClientRoom { .. } | Event::ClientGone { .. } => {
                &self.clients
            }
            Event::Frame {
                lane: Lane::Control | Lane::Datagram,
                ..
            }
            | Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::Refused { .. }
            | Event::Ended => &self.urgent,
        }
    }

    /// Queues an event; waits for room.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Ended> {
        let Sender { sender, budget } = self.of(&event);
        let share = budget.share(&event);
        if share > 0 {
            let permits = budget
                .permits
                .acquire_many(share)
                .await
                .map_err(|_closed| Ended)?;
            // Given back by the receiver.
            permits.forget();
        }
        sender.send(event).await.map_err(|_closed| Ended)
    }

    /// Queues an event without payload if there is room; `false` if it was dropped.
    pub(crate) fn offer(&self, event: Event) -> bool {
        debug_assert_eq!(event.bytes(), 0, "what has a payload waits for its room");
        let Sender { sender, .. } = self.of(&event);
        !matches!(sender.try_send(event), Err(TrySendError::Full(_)))
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.urgent.sender.is_closed()
    }
}
