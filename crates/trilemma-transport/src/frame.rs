//! Frames on a stream: `length (u32 LE) · bytes`.
//!
//! The length is not believed: memory grows only as bytes arrive, and a frame beyond the limit ends the stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;

/// Bytes of the length.
const PREFIX_BYTES: usize = 4;
/// Frames written with one call.
const WRITE_FRAMES_MAX: usize = 256;

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
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(StreamEnd::Closed("the stream was finished".into())),
                Err(error) => return Err(StreamEnd::Closed(error.to_string())),
            }
        }
    }
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

/// Frames that wait to be written, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
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
        // Held for moves only, which do not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame that follows `header` on the stream; `false` if it does not fit or the stream has ended.
    pub(crate) fn push(&self, header: &[u8], frame: Bytes) -> bool {
        let mut state = self.lock();
        let size = PREFIX_BYTES + header.len() + frame.len();
        if state.closed || (state.bytes > 0 && state.bytes + size > self.limit) {
            return false;
        }
        let mut prefix = BytesMut::with_capacity(PREFIX_BYTES + header.len());
        prefix.extend_from_slice(&((header.len() + frame.len()) as u32).to_le_bytes());
        prefix.extend_from_slice(header);
        state.chunks.push_back(prefix.freeze());
        state.chunks.push_back(frame);
        state.bytes += size;
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Whether less than half of the room is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().bytes < self.limit / 2
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.chunks.clear();
        state.bytes = 0;
        drop(state);
        self.filled.notify_one();
    }

    /// Writes what is queued until the stream or the queue ends.
    pub(crate) async fn drain_into(&self, stream: &mut SendStream) -> Result<(), String> {
        loop {
            let mut chunks: Vec<Bytes> = {
                let mut state = self.lock();
                if state.closed {
                    return Ok(());
                }
                let count = state.chunks.len().min(2 * WRITE_FRAMES_MAX);
                state.chunks.drain(..count).collect()
            };
            if chunks.is_empty() {
                self.filled.notified().await;
                continue;
            }
            let size: usize = chunks.iter().map(Bytes::len).sum();
            stream
                .write_all_chunks(&mut chunks)
                .await
                .map_err(|error| error.to_string())?;
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_sub(size);
        }
    }
}
