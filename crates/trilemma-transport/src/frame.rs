//! Frames on a stream: `length (u32 LE) · bytes`.
//!
//! The length is not believed: memory grows only as bytes arrive, and a frame beyond the limit ends the stream.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

/// Bytes of the length.
pub(crate) const PREFIX_BYTES: usize = 4;
/// Bytes that are copied together, and that a reader reserves at once.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;

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
