//! What every type on the wire or on disk must keep, whatever the bytes.

use std::fmt::Debug;

use allocation_counter::measure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trilemma_core::codec;

/// Memory that any input may cost: errors, names of types, first elements.
const MEMORY_BASE: u64 = 16 * 1024;
/// Memory that a byte of input may cost. An element of a sequence may be two bytes of input and some hundred bytes of
/// memory, and a vector that grows holds up to three times its elements while it moves.
const MEMORY_PER_BYTE: u64 = 1024;

/// Runs `work` on an input of `length` bytes.
///
/// # Panics
/// If it holds more memory at once than such an input may cost.
pub fn frugal<T>(length: usize, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = measure(|| result = Some(work()));
    let allowed = MEMORY_BASE + MEMORY_PER_BYTE * length as u64;
    assert!(
        used.bytes_max <= allowed,
        "{length} bytes of input made the decoder hold {} bytes, {allowed} are allowed",
        used.bytes_max
    );
    result.expect("the work was done")
}

/// Decodes `input` as `T`; what is accepted is the same after it was encoded and decoded again, and its encoding is
/// not longer than the input. (Not always equal to it: postcard takes numbers with needless leading zeros, and sets
/// in any order.)
///
/// # Panics
/// If anything of this does not hold.
pub fn decodes<T>(input: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + Debug + PartialEq,
{
    let value: T = frugal(input.len(), || codec::decode(input)).ok()?;
    let encoded = codec::encode(&value);
    assert!(
        encoded.len() <= input.len(),
        "{} bytes decode to what takes {}: {value:?}",
        input.len(),
        encoded.len()
    );
    let again: T = codec::decode(&encoded).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert_eq!(again, value, "another value comes back");
    assert_eq!(codec::encode(&again), encoded, "other bytes come back");
    Some(value)
}
