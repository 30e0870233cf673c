//! The keyed check of an element: SipHash-2-4 (Aumasson and Bernstein 2012) of its 16 bytes.

use std::fmt;

use super::symbol::Element;

/// The secret under which peers reconcile: 128 bits. Peers with different ones find everything different.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Secret(pub [u64; 2]);

// It stays out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The check of an element.
    #[must_use]
    pub fn check(self, element: Element) -> u64 {
        let [k0, k1] = self.0;
        let mut state = State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ]);
        // The last word holds the length alone: 16 bytes are two words.
        let words = [element.0 as u64, (element.0 >> 64) as u64, 16 << 56];
        for word in words {
            state.0[3] ^= word;
            state.rounds(2);
            state.0[0] ^= word;
        }
        state.0[2] ^= 0xff;
        state.rounds(4);
        let [v0, v1, v2, v3] = state.0;
        v0 ^ v1 ^ v2 ^ v3
    }
}

struct State([u64; 4]);

impl State {
    fn rounds(&mut self, count: usize) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        for _ in 0..count {
            v0 = v0.wrapping_add(v1);
            v1 = v1.rotate_left(13) ^ v0;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v3);
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.wrapping_add(v3);
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.wrapping_add(v1);
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        }
        self.0 = [v0, v1, v2, v3];
    }
}
