//! Frames that wait to be written to one stream, bounded in bytes.
//!
//! Small frames are copied together before they are written. QUIC keeps what was written, piece by piece, until it is
//! acknowledged, and searches those pieces for each packet: a thousand small pieces cost more than their copy.
//!
//! Large answers are made when their turn to be written comes. Until then they share their values with the table, and
//! no turn of the node pays for the encoding of a hundred of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use tokio::sync::Notify;

use crate::frame::{BUFFER_BYTES, PREFIX_BYTES};

/// Frames up to this size are copied together; larger ones are handed on as they are.
const COPY_BYTES_MAX: usize = 8 * 1024;
/// Pieces written with one call.
const WRITE_PIECES_MAX: usize = 32;
/// Bytes of them after which no further piece is taken.
const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Answers up to this size have room whatever else waits: receipts and refusals, which reach nobody in another way.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// What became of a frame that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It will be written.
    Queued,
    /// There is no room for it.
    Full,
    /// The stream has ended.
    Closed,
}

/// A frame's content.
pub(crate) enum Payload {
    /// As it is.
    Ready(Bytes),
    /// Of about this size; made when it is written.
    Later(usize, Box<dyn FnOnce() -> Bytes + Send>),
}

impl Payload {
    fn size(&self) -> usize {
        match self {
            Payload::Ready(bytes) => bytes.len(),
            Payload::Later(size, _) => *size,
        }
    }
}

/// Bytes that wait for all clients of a node together, and what of them is a client's fair share.
#[derive(Debug)]
pub(crate) struct ClientBudget {
    bytes: AtomicUsize,
    /// Queues that are not empty.
    holders: AtomicUsize,
    limit: usize,
}

impl ClientBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
            limit,
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A queue has gone from `before` to `after` bytes.
    fn change(&self, before: usize, after: usize) {
        // Wraps below zero on the way and never in the sum.
        self.bytes
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        let (was, is) = (usize::from(before > 0), usize::from(after > 0));
        self.holders.fetch_add(is.wrapping_sub(was), Ordering::Relaxed);
    }

    /// Whether `factor` times the budget is taken, and a queue with `mine` bytes has more than an equal share of it.
    fn is_over(&self, factor: usize, mine: usize) -> bool {
        let holders = self.holders.load(Ordering::Relaxed).max(1);
        self.bytes() >= factor * self.limit && mine > self.limit / holders
    }
}

/// The queues of all streams of an endpoint, to be written out before it closes.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<Vec<Weak<Queue>>>);

impl Queues {
    pub(crate) fn add(&self, queue: &Arc<Queue>) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have gone are dropped when as many more would need room.
        if queues.len() == queues.capacity() {
            queues.retain(|queue| queue.strong_count() > 0);
        }
        queues.push(Arc::downgrade(queue));
    }

    /// Writes out what waits everywhere, and takes no more.
    pub(crate) async fn finish(&self) {
        let queues = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let queues: Vec<Arc<Queue>> = queues.iter().filter_map(Weak::upgrade).collect();
        queues.iter().for_each(|queue| queue.finish());
        for queue in queues {
            queue.ended().await;
        }
    }
}

/// See the module.
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    /// Bytes were written.
    drained: Notify,
    /// The stream has ended.
    ended: Notify,
    limit: usize,
    budget: Option<Arc<ClientBudget>>,
}

#[derive(Default)]
struct State {
    /// Whole pieces, before `tail`.
    pieces: VecDeque<Piece>,
    /// Where small frames are copied together.
    tail: BytesMut,
    /// Bytes queued or being written.
    bytes: usize,
    /// No more comes; what is here is still written.
    finished: bool,
    closed: bool,
}

enum Piece {
    Bytes(Bytes),
    /// A whole frame: its header, what it counts for, its content.
    Frame(Vec<u8>, usize, Box<dyn FnOnce() -> Bytes + Send>),
}

impl State {
    /// Makes a piece of what was copied together.
    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Bytes(self.tail.split().freeze()));
        }
    }

    fn put(&mut self, header: &[u8], payload: Payload) {
        match payload {
            Payload::Ready(frame) => self.put_ready(header, frame),
            Payload::Later(size, make) => {
                self.cut();
                let size = PREFIX_BYTES + header.len() + size;
                self.pieces.push_back(Piece::Frame(header.to_vec(), size, make));
            }
        }
    }

    fn put_ready(&mut self, header: &[u8], frame: Bytes) {
        let copy = frame.len() <= COPY_BYTES_MAX;
        let needed = PREFIX_BYTES + header.len() + if copy { frame.len() } else { 0 };
        if self.tail.capacity() - self.tail.len() < needed {
            self.cut();
            self.tail.reserve(BUFFER_BYTES.max(needed));
        }
        let length = (header.len() + frame.len()) as u32;
        self.tail.extend_from_slice(&length.to_le_bytes());
        self.tail.extend_from_slice(header);
        if copy {
            self.tail.extend_from_slice(&frame);
        } else {
            self.cut();
            self.pieces.push_back(Piece::Bytes(frame));
        }
    }

    /// Takes the next pieces to be written; returns what they count for.
    fn take(&mut self, pieces: &mut Vec<Bytes>) -> usize {
        self.cut();
        let mut counted = 0;
        while pieces.len() < WRITE_PIECES_MAX && counted < WRITE_BYTES_MAX {
            match self.pieces.pop_front() {
                Some(Piece::Bytes(bytes)) => {
                    counted += bytes.len();
                    pieces.push(bytes);
                }
                Some(Piece::Frame(header, size, make)) => {
                    counted += size;
                    let frame = make();
                    let mut front = BytesMut::with_capacity(PREFIX_BYTES + header.len());
                    front.extend_from_slice(&((header.len() + frame.len()) as u32).to_le_bytes());
                    front.extend_from_slice(&header);
                    pieces.extend([front.freeze(), frame]);
                }
                None => break,
            }
        }
        counted
    }
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            filled: Notify::new(),
            drained: Notify::new(),
            ended: Notify::new(),
            limit,
            budget: None,
        }
    }

    /// One whose bytes are counted among those of all clients.
    pub(crate) fn of_client(limit: usize, budget: &Arc<ClientBudget>) -> Self {
        let mut queue = Self::new(limit);
        queue.budget = Some(Arc::clone(budget));
        queue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Held for moves and copies only, which do not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &mut State, after: usize) {
        if let Some(budget) = &self.budget {
            budget.change(state.bytes, after);
        }
        state.bytes = after;
    }

    fn is_over(&self, factor: usize, mine: usize) -> bool {
        let over = |budget: &Arc<ClientBudget>| budget.is_over(factor, mine);
        self.budget.as_ref().is_some_and(over)
    }

    /// Queues a frame that follows `header` on the stream. A queue of which less than half is taken takes any one frame.
    pub(crate) fn push(&self, header: &[u8], payload: Payload) -> Push {
        let size = PREFIX_BYTES + header.len() + payload.size();
        self.put(header, payload, |state| {
            state.bytes >= self.limit / 2 && state.bytes + size > self.limit
        })
    }

    /// Queues the answer to a request that was admitted. It has room, unless it is large, twice the budget of all clients
    /// is taken, and this client has more than its share of it: then it is to be refused in a few words.
    pub(crate) fn push_owed(&self, header: &[u8], payload: Payload) -> Push {
        let is_large = payload.size() > SMALL_BYTES_MAX;
        self.put(header, payload, |state| is_large && self.is_over(2, state.bytes))
    }

    /// Queues an item of a watch whether or not there is room, up to `bytes_max`: who pushes sees to it that this is never
    /// met, unless the client asks for what it does not read.
    pub(crate) fn push_paced(&self, header: &[u8], payload: Payload, bytes_max: usize) -> Push {
        self.put(header, payload, |state| state.bytes > bytes_max)
    }

    fn put(&self, header: &[u8], payload: Payload, is_full: impl FnOnce(&State) -> bool) -> Push {
        let mut state = self.lock();
        if state.closed || state.finished {
            return Push::Closed;
        }
        if is_full(&state) {
            return Push::Full;
        }
        let after = state.bytes + PREFIX_BYTES + header.len() + payload.size();
        state.put(header, payload);
        self.count(&mut state, after);
        drop(state);
        self.filled.notify_one();
        Push::Queued
    }

    /// Whether less than half of the room is taken, and no more than a fair share where room is short for all.
    /// [`Queue::drained`] tells when to look again.
    pub(crate) fn has_room(&self) -> bool {
        let bytes = self.lock().bytes;
        bytes < self.limit / 2 && !self.is_over(1, bytes)
    }

    /// Whether another request may be read whose answer will wait here. [`Queue::drained`] tells when to look again.
    pub(crate) fn takes_requests(&self) -> bool {
        let bytes = self.lock().bytes;
        bytes < self.limit && !self.is_over(1, bytes)
    }

    /// Waits until bytes were written since the last call.
    pub(crate) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Has [`Queue::drained`] return once.
    pub(crate) fn look_again(&self) {
        self.drained.notify_one();
    }

    /// Waits until something is queued, or the stream has ended.
    pub(crate) async fn filled(&self) {
        while {
            let state = self.lock();
            !state.closed && state.bytes == 0
        } {
            self.filled.notified().await;
        }
    }

    /// Whether the stream has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes no more. What waits is still written, and then the stream is closed.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
    }

    /// Waits until the stream has ended.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_closed() {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        self.count(&mut state, 0);
        *state = State {
            closed: true,
            ..State::default()
        };
        drop(state);
        self.filled.notify_one();
        self.drained.notify_one();
        self.ended.notify_waiters();
    }

    /// Writes what is queued until the stream or the queue ends. It is an error if nothing can be written for the time
    /// of `stall`. What was queued before [`Queue::finish`] has arrived when this returns.
    pub(crate) async fn drain_into(
        &self,
        stream: &mut SendStream,
        stall: Option<Duration>,
    ) -> Result<(), StreamError> {
        let mut pieces = Vec::with_capacity(WRITE_PIECES_MAX + 1);
        loop {
            let counted = {
                let mut state = self.lock();
                if state.closed {
                    return Ok(());
                }
                let counted = state.take(&mut pieces);
                if counted == 0 && state.finished {
                    break;
                }
                counted
            };
            if counted == 0 {
                self.filled.notified().await;
                continue;
            }
            write(stream, &mut pieces, stall).await?;
            let mut state = self.lock();
            let after = state.bytes.saturating_sub(counted);
            self.count(&mut state, after);
            drop(state);
            self.drained.notify_one();
        }
        // Fails only where the stream has ended already, which the next line finds, too.
        let _ended = stream.finish();
        let _code = stream
            .stopped()
            .await
            .map_err(|error| StreamError::Closed(error.to_string()))?;
        Ok(())
    }
}

/// Why a queue could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// The stream has ended.
    #[error("{0}")]
    Closed(String),
    /// The other side has read nothing for this time.
    #[error("nothing was read for {0:?}")]
    Stalled(Duration),
}

async fn write(
    stream: &mut SendStream,
    pieces: &mut Vec<Bytes>,
    stall: Option<Duration>,
) -> Result<(), StreamError> {
    let closed = |error: quinn::WriteError| StreamError::Closed(error.to_string());
    let Some(stall) = stall else {
        stream.write_all_chunks(pieces).await.map_err(closed)?;
        pieces.clear();
        return Ok(());
    };
    let mut rest = &mut pieces[..];
    while !rest.is_empty() {
        let written = tokio::time::timeout(stall, stream.write_chunks(rest))
            .await
            .map_err(|_elapsed| StreamError::Stalled(stall))?
            .map_err(closed)?;
        rest = &mut rest[written.chunks..];
    }
    pieces.clear();
    Ok(())
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("bytes", &state.bytes)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}
