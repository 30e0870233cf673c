//! Frames on a stream: `length (u32 LE) · bytes`.
//!
//! The length is not believed: memory grows only as bytes arrive, and a frame beyond the limit ends the stream.
//!
//! Small frames are copied together before they are written. QUIC keeps what was written, piece by piece, until it is
//! acknowledged, and searches those pieces for each packet: a thousand small pieces cost more than their copy.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;

/// Bytes of the length.
const PREFIX_BYTES: usize = 4;
/// Frames up to this size are copied together; larger ones are handed on as they are.
const COPY_BYTES_MAX: usize = 8 * 1024;
/// Bytes that are copied together, and that a reader reserves at once.
const BUFFER_BYTES: usize = 32 * 1024;
/// Pieces written with one call.
const WRITE_PIECES_MAX: usize = 32;

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The other side closed it, or the connection ended.
    Closed(String),
    /// The other side broke the rules.
    Violation(String),
}

/// Splits a stream into frames.
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, limit: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Result<Bytes, StreamEnd> {
        loop {
            if let Some(frame) = split(&mut self.buffer, self.limit)? {
                return Ok(frame);
            }
            // Takes what has arrived, without reserving for what is only claimed.
            match self.stream.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => store(&mut self.buffer, &chunk.bytes),
                Ok(None) => return Err(StreamEnd::Closed("the stream was finished".into())),
                Err(error) => return Err(StreamEnd::Closed(error.to_string())),
            }
        }
    }
}

/// Appends what has arrived. Frames that were split off share the buffer, so a new one is taken in large pieces.
pub(crate) fn store(buffer: &mut BytesMut, arrived: &[u8]) {
    if buffer.capacity() - buffer.len() < arrived.len() {
        buffer.reserve(arrived.len().max(BUFFER_BYTES));
    }
    buffer.extend_from_slice(arrived);
}

/// Takes a whole frame off the front of `buffer`, if one is there.
pub(crate) fn split(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, StreamEnd> {
    let Some(prefix) = buffer.get(..PREFIX_BYTES) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(prefix.try_into().expect("four bytes")) as usize;
    if length > limit {
        return Err(StreamEnd::Violation(format!(
            "a frame of {length} bytes, the limit is {limit}"
        )));
    }
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Writes one frame.
pub(crate) async fn write(stream: &mut SendStream, frame: &[u8]) -> Result<(), String> {
    let prefix = (frame.len() as u32).to_le_bytes();
    let mut whole = BytesMut::with_capacity(PREFIX_BYTES + frame.len());
    whole.extend_from_slice(&prefix);
    whole.extend_from_slice(frame);
    stream.write_all(&whole).await.map_err(|error| error.to_string())
}

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

/// Frames that wait to be written, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Whole pieces, before `tail`.
    pieces: VecDeque<Bytes>,
    /// Where small frames are copied together.
    tail: BytesMut,
    /// Bytes queued or being written.
    bytes: usize,
    closed: bool,
}

impl State {
    /// Makes a piece of what was copied together.
    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn put(&mut self, header: &[u8], frame: Bytes) {
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
            self.pieces.push_back(frame);
        }
    }
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            filled: Notify::new(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Held for moves and copies only, which do not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame that follows `header` on the stream. A queue that [has room](Queue::has_room) takes any one frame.
    pub(crate) fn push(&self, header: &[u8], frame: Bytes) -> Push {
        let mut state = self.lock();
        let size = PREFIX_BYTES + header.len() + frame.len();
        if state.closed {
            return Push::Closed;
        }
        if state.bytes >= self.limit / 2 && state.bytes + size > self.limit {
            return Push::Full;
        }
        state.put(header, frame);
        state.bytes += size;
        drop(state);
        self.filled.notify_one();
        Push::Queued
    }

    /// Whether less than half of the room is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().bytes < self.limit / 2
    }

    /// Whether the stream has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        *state = State {
            closed: true,
            ..State::default()
        };
        drop(state);
        self.filled.notify_one();
    }

    /// Writes what is queued until the stream or the queue ends.
    pub(crate) async fn drain_into(&self, stream: &mut SendStream) -> Result<(), String> {
        let mut pieces = Vec::with_capacity(WRITE_PIECES_MAX);
        loop {
            {
                let mut state = self.lock();
                if state.closed {
                    return Ok(());
                }
                state.cut();
                let count = state.pieces.len().min(WRITE_PIECES_MAX);
                pieces.extend(state.pieces.drain(..count));
            }
            if pieces.is_empty() {
                self.filled.notified().await;
                continue;
            }
            let size: usize = pieces.iter().map(Bytes::len).sum();
            stream
                .write_all_chunks(&mut pieces)
                .await
                .map_err(|error| error.to_string())?;
            pieces.clear();
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_sub(size);
        }
    }
}
