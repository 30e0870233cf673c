//! Bytes on the wire and on disk: postcard with the bounds that make it fit for a trust boundary.
//!
//! postcard alone accepts trailing bytes, and a sequence's claimed length may make a decoder reserve far more than
//! the input could hold. Here every decode consumes its whole input, sequences carry a limit and grow only as
//! elements really arrive ([`bounded_vec`]), byte strings are checked against the bytes that are left, and wire
//! types hold no maps and no zero-sized elements. So memory used is at most a small multiple of the frame.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Bytes that came from a peer, a disk or a client could not be read as the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {length} bytes do not decode ({why})")]
pub struct DecodeError {
    /// The type that was expected.
    pub what: &'static str,
    /// Length of the input in bytes.
    pub length: usize,
    /// What the decoder met.
    pub why: String,
}

/// Encodes `value`.
///
/// # Panics
/// Never for the project's own wire types: they contain no type that postcard cannot write.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    encode_vec(value).into()
}

/// Encodes `value` into a vector of its own.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_vec<T: Serialize>(value: &T) -> Vec<u8> {
    encode_onto(value, Vec::new())
}

/// Appends the encoding of `value` to `out`, without an allocation of its own.
///
/// # Panics
/// As [`encode`].
pub fn encode_onto<T: Serialize>(value: &T, out: Vec<u8>) -> Vec<u8> {
    let encoded = postcard::serialize_with_flavor(value, Onto(out));
    encoded.expect("wire types hold only what postcard can write")
}

/// Encodes `value` into memory of exactly its size. It is written into `scratch` first, which keeps what it has grown to, up to
/// 1 MiB: a message of many entries would otherwise be moved each time that its memory doubles.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_exact<T: Serialize>(value: &T, scratch: &mut Vec<u8>) -> Bytes {
    /// What is kept, at most: a batch of entries as they usually are.
    const KEPT_MAX: usize = 1024 * 1024;
    scratch.clear();
    let encoded = encode_onto(value, std::mem::take(scratch));
    let bytes = Bytes::copy_from_slice(&encoded);
    if encoded.capacity() <= KEPT_MAX {
        *scratch = encoded;
    }
    bytes
}

/// Writes to the end of a vector.
struct Onto(Vec<u8>);

impl postcard::ser_flavors::Flavor for Onto {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Decodes a value that must span all of `input`.
pub fn decode<T: DeserializeOwned>(input: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = take(input)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(error::<T>(input, format!("{} bytes are left over", rest.len())))
}

/// Decodes a value from the front of `input`; returns it with what follows.
pub fn take<T: DeserializeOwned>(input: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    postcard::take_from_bytes(input).map_err(|cause| error::<T>(input, cause.to_string()))
}

fn error<T>(input: &[u8], why: String) -> DecodeError {
    DecodeError {
        what: std::any::type_name::<T>(),
        length: input.len(),
        why,
    }
}

/// A time as it is written: its parts of a second are less than one. Otherwise it would be read as another, which may be
/// longer on the wire.
struct ExactDuration(Duration);

impl<'de> Deserialize<'de> for ExactDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As serde writes it.
        #[derive(Deserialize)]
        struct Parts {
            secs: u64,
            nanos: u32,
        }
        const SECOND: u32 = 1_000_000_000;
        let Parts { secs, nanos } = Parts::deserialize(deserializer)?;
        if nanos >= SECOND {
            return Err(D::Error::custom(format_args!("{nanos} ns beside {secs} s")));
        }
        Ok(Self(Duration::new(secs, nanos)))
    }
}

/// Reads a time. For `#[serde(deserialize_with = "duration")]`.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    ExactDuration::deserialize(deserializer).map(|exact| exact.0)
}

/// The same of one that may be missing.
pub fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<ExactDuration>::deserialize(deserializer)?.map(|exact| exact.0))
}

/// Reads a sequence of at most `MAX` elements. For `#[serde(deserialize_with = "bounded_vec::<_, _, 64>")]`.
///
/// The claimed length is not believed: the vector grows only as elements arrive.
pub fn bounded_vec<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                if elements.len() == MAX {
                    return Err(A::Error::custom(format_args!("more than {MAX} elements")));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    const { assert!(size_of::<T>() > 0, "a zero-sized element would cost no input") };
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Reads a byte string of at most `MAX` bytes. For `#[serde(deserialize_with = "bounded_bytes::<_, 1024>")]`.
pub fn bounded_bytes<'de, D, const MAX: usize>(deserializer: D) -> Result<Bytes, D::Error>
where
    D: Deserializer<'de>,
{
    bounded_octets::<D, Vec<u8>, MAX>(deserializer).map(Bytes::from)
}

/// Reads a byte string of at most `MAX` bytes into whatever holds it.
pub(crate) fn bounded_octets<'de, D, T, const MAX: usize>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> From<&'a [u8]>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<T: for<'a> From<&'a [u8]>, const MAX: usize> Visitor<'_> for Bounded<T, MAX> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            if bytes.len() > MAX {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            Ok(T::from(bytes))
        }
    }

    deserializer.deserialize_bytes(Bounded::<T, MAX>(PhantomData))
}

/// Reads text of at most `MAX` bytes. For `#[serde(deserialize_with = "bounded_text::<_, 256>")]`.
pub fn bounded_text<'de, D, const MAX: usize>(deserializer: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bounded<const MAX: usize>;

    impl<const MAX: usize> Visitor<'_> for Bounded<MAX> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} bytes of text")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            if text.len() > MAX {
                return Err(E::invalid_length(text.len(), &self));
            }
            Ok(text.to_owned())
        }
    }

    deserializer.deserialize_str(Bounded::<MAX>)
}
