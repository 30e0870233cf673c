//! Doors to private decoders, for the fuzz targets of `trilemma-fuzz` (feature `fuzz`). Not an interface.

use bytes::{Bytes, BytesMut};
use rustls_pki_types::CertificateDer;
use trilemma_core::codec;

use crate::frame::{StreamEnd, split, store};
use crate::hello::Hello;
use crate::identity::Subject;

/// Splits a stream that arrives in these pieces into frames, as a reader does; says why if it breaks the rules, after
/// the frames that came before. Also tells how many bytes wait for the rest of a frame.
pub fn frames(pieces: &[&[u8]], limit: usize) -> (Vec<Bytes>, Result<usize, String>) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        store(&mut buffer, piece);
        loop {
            match split(&mut buffer, limit) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(StreamEnd::Violation(why) | StreamEnd::Closed(why)) => return (frames, Err(why)),
            }
        }
    }
    (frames, Ok(buffer.len()))
}

/// Decodes a hello and encodes it again.
pub fn hello(bytes: &[u8]) -> Result<Bytes, String> {
    let hello = Hello::decode(bytes).map_err(|refusal| refusal.to_string())?;
    Ok(codec::encode(&hello))
}

/// Whom a certificate names, as its URI.
pub fn subject(certificate: &[u8]) -> Result<String, String> {
    Subject::of(&[CertificateDer::from(certificate)]).map(|subject| subject.uri())
}
