//! One connection to one peer: a stream and a bounded queue for each lane, datagrams beside them.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, VarInt};
use trilemma_core::ProcessId;

use crate::counters::Metrics;
use crate::error::{SendError, code};
use crate::events::{Ended, Event, EventSender};
use crate::faults::Faults;
use crate::frame::{FrameReader, StreamEnd};
use crate::queue::{ClientBudget, Payload, Push, Queue, Queues};
use crate::{Lane, Limits, tls};

/// The lanes that are streams, most urgent first. A stream begins with its place in this list.
const STREAM_LANES: [Lane; 3] = [Lane::Control, Lane::Log, Lane::Bulk];

fn frame_limit(limits: &Limits, lane: Lane) -> usize {
    match lane {
        Lane::Control | Lane::Datagram => limits.control_frame_bytes,
        Lane::Log => limits.log_frame_bytes,
        Lane::Bulk => limits.bulk_frame_bytes,
    }
}

/// What the links of an endpoint share.
#[derive(Clone, Debug)]
pub(crate) struct LinkContext {
    pub(crate) events: EventSender,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) faults: Arc<Faults>,
    /// Answers that wait for all clients.
    pub(crate) answers: Arc<ClientBudget>,
    /// Items of watches that do. They have a budget of their own: nothing ends a client that does not read them.
    pub(crate) items: Arc<ClientBudget>,
    /// The queues of all streams.
    pub(crate) queues: Arc<Queues>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    peer: ProcessId,
    connection: Connection,
    queues: [Arc<Queue>; 3],
    limits: Limits,
    context: LinkContext,
}

impl Link {
    /// A link over an authenticated connection, ready to send.
    pub(crate) fn start(
        peer: ProcessId,
        connection: Connection,
        limits: Limits,
        context: LinkContext,
    ) -> Self {
        connection.set_receive_window(VarInt::from_u32(tls::PEER_WINDOW));
        let queues = [(); 3].map(|()| Arc::new(Queue::new(limits.queue_bytes)));
        for (place, queue) in queues.iter().enumerate() {
            context.queues.add(queue);
            let (connection, queue) = (connection.clone(), Arc::clone(queue));
            tokio::spawn(async move {
                if let Err(why) = send_lane(&connection, place, &queue).await {
                    tracing::debug!(peer = %peer.node, why, "a lane's stream has ended");
                }
                queue.close();
            });
        }
        Self {
            peer,
            connection,
            queues,
            limits,
            context,
        }
    }

    /// Begins to read what the peer sends.
    pub(crate) fn listen(&self) {
        let reader = Reader {
            peer: self.peer,
            connection: self.connection.clone(),
            limits: self.limits,
            context: self.context.clone(),
        };
        tokio::spawn(reader.clone().accept_lanes());
        tokio::spawn(reader.datagrams());
    }

    /// Queues a frame.
    pub(crate) fn send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let limit = frame_limit(&self.limits, lane);
        if frame.len() > limit {
            return Err(SendError::TooLarge {
                size: frame.len(),
                limit,
            });
        }
        let lane = if lane == Lane::Datagram {
            let fits = self
                .connection
                .max_datagram_size()
                .is_some_and(|size| frame.len() <= size);
            if fits {
                return self
                    .connection
                    .send_datagram(frame)
                    .map_err(|_| SendError::NotConnected(self.peer.node));
            }
            Lane::Control
        } else {
            lane
        };
        let place = STREAM_LANES
            .iter()
            .position(|other| *other == lane)
            .expect("every other lane is a stream");
        match self.queues[place].push(&[], Payload::Ready(frame)) {
            Push::Queued => Ok(()),
            Push::Full => Err(SendError::QueueFull(self.peer.node)),
            Push::Closed => Err(SendError::NotConnected(self.peer.node)),
        }
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.queues.iter().for_each(|queue| queue.close());
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }
}

async fn send_lane(connection: &Connection, place: usize, queue: &Queue) -> Result<(), String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    let urgency = STREAM_LANES.len() as i32 - place as i32;
    stream.set_priority(urgency).map_err(|error| error.to_string())?;
    stream
        .write_all(&[place as u8])
        .await
        .map_err(|error| error.to_string())?;
    let drained = queue.drain_into(&mut stream, None).await;
    drained.map_err(|error| error.to_string())
}

#[derive(Clone)]
struct Reader {
    peer: ProcessId,
    connection: Connection,
    limits: Limits,
    context: LinkContext,
}

impl Reader {
    /// Accepts the peer's streams, one for each lane; a second one for a lane is against the rules.
    async fn accept_lanes(self) {
        let mut open = [false; STREAM_LANES.len()];
        while let Ok(mut stream) = self.connection.accept_uni().await {
            let mut place = [0];
            if stream.read_exact(&mut place).await.is_err() {
                continue;
            }
            let place = usize::from(place[0]);
            match open.get_mut(place) {
                Some(is_open) if !*is_open => *is_open = true,
                _ => return self.violation(&format!("a stream for lane {place}, which is open or unknown")),
            }
            tokio::spawn(self.clone().read_lane(STREAM_LANES[place], stream));
        }
    }

    async fn read_lane(self, lane: Lane, stream: RecvStream) {
        let mut reader = FrameReader::new(stream, frame_limit(&self.limits, lane));
        loop {
            match reader.next().await {
                // Waits while the driver is busy; meanwhile the stream's window fills and the peer waits too.
                Ok(payload) => {
                    if self.pass_on(lane, payload).await.is_err() {
                        return;
                    }
                }
                Err(StreamEnd::Closed(_)) => return,
                Err(StreamEnd::Violation(why)) => return self.violation(&format!("{why} (lane {lane:?})")),
            }
        }
    }

    async fn datagrams(self) {
        while let Ok(payload) = self.connection.read_datagram().await {
            if self.pass_on(Lane::Datagram, payload).await.is_err() {
                return;
            }
        }
    }

    async fn pass_on(&self, lane: Lane, payload: Bytes) -> Result<(), Ended> {
        if self.context.faults.is_blocked(self.peer.node) {
            return Ok(());
        }
        self.context.metrics.received(lane, payload.len());
        let from = self.peer;
        self.context
            .events
            .send(Event::Frame { from, lane, payload })
            .await
    }

    fn violation(&self, why: &str) {
        tracing::warn!(peer = %self.peer.node, why, "the peer broke the protocol; the connection is closed");
        self.connection
            .close(VarInt::from_u32(code::VIOLATION), why.as_bytes());
    }
}
