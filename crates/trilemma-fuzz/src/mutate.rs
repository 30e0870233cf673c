//! Changes to valid encodings: what a bit flip, a bug of another version or malice makes of them.

use crate::source::Source;

/// Most changes of one input.
const CHANGES_MAX: usize = 4;
/// Longest piece that is copied, inserted or removed.
const PIECE_BYTES_MAX: usize = 64;

/// Numbers at which decoders and arithmetic break: every width's ends, and lengths that lie.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    4096,
    65_535,
    65_536,
    0x00ff_ffff,
    i32::MAX as u64,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// One of `samples` with zero to four changes. Raw bytes of the input if there are no samples, and now and then.
pub fn mutated<S: AsRef<[u8]>>(source: &mut Source<'_>, samples: &[S]) -> Vec<u8> {
    if samples.is_empty() || source.once_in(32) {
        return source.bytes(256).to_vec();
    }
    let mut bytes = source.pick(samples).as_ref().to_vec();
    for _ in 0..source.below(CHANGES_MAX + 1) {
        change(source, &mut bytes, samples);
    }
    bytes
}

/// Changes `bytes` once. `samples` lend pieces.
pub fn change<S: AsRef<[u8]>>(source: &mut Source<'_>, bytes: &mut Vec<u8>, samples: &[S]) {
    let place = source.below(bytes.len() + 1);
    match source.below(9) {
        // Numbers come first: nearly every byte of the project's formats belongs to one.
        0 | 1 => replace_number(bytes, place, *source.pick(&NUMBERS)),
        2 => {
            let near = number_at(bytes, place).map(|(number, _)| number);
            let step = i64::from(source.byte() as i8);
            replace_number(bytes, place, near.unwrap_or(0).wrapping_add_signed(step));
        }
        3 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << source.below(8);
            }
        }
        4 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = source.byte();
            }
        }
        5 => {
            let length = source.below(PIECE_BYTES_MAX);
            let piece = source.bytes(length).to_vec();
            bytes.splice(place..place, piece);
        }
        6 => {
            let end = bytes.len().min(place + 1 + source.below(PIECE_BYTES_MAX));
            bytes.drain(place.min(end)..end);
        }
        7 if !samples.is_empty() => {
            let other = source.pick(samples).as_ref();
            let from = source.below(other.len() + 1);
            let end = other.len().min(from + source.below(PIECE_BYTES_MAX));
            let over = bytes.len().min(place + source.below(PIECE_BYTES_MAX));
            bytes.splice(place..over, other[from..end].iter().copied());
        }
        _ => bytes.truncate(place),
    }
}

/// The variable-length number (LEB128, as postcard writes it) at `place`, and its end.
fn number_at(bytes: &[u8], place: usize) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (position, byte) in bytes.get(place..)?.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * position as u32).min(63);
        if byte & 0x80 == 0 {
            return Some((number, place + position + 1));
        }
    }
    None
}

fn replace_number(bytes: &mut Vec<u8>, place: usize, mut number: u64) {
    let end = number_at(bytes, place).map_or(place.min(bytes.len()), |(_, end)| end);
    let mut encoded = Vec::with_capacity(10);
    while number >= 0x80 {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
    bytes.splice(place.min(end)..end, encoded);
}
