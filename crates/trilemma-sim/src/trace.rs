//! The digest over everything that happens in a run, and the lines of its trace.

use xxhash_rust::xxh3::xxh3_64;

const PRIMES: [u64; 2] = [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f];

/// A rolling digest of 128 bits, and a line for each event if somebody wants to read them.
#[derive(Clone, Debug)]
pub struct Trace {
    lanes: [u64; 2],
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; with lines if `verbose`.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self {
            lanes: PRIMES,
            lines: verbose.then(Vec::new),
        }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        for (lane, prime) in self.lanes.iter_mut().zip(PRIMES) {
            *lane = (*lane ^ number).wrapping_mul(prime).rotate_left(29);
        }
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(xxh3_64(bytes));
    }

    /// Adds a line, which is only made if somebody wants to read it.
    pub fn line(&mut self, time: u64, make: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} ms  {}", time as f64 / 1e6, make()));
        }
    }

    /// The digest so far.
    #[must_use]
    pub fn digest(&self) -> u128 {
        u128::from(self.lanes[0]) << 64 | u128::from(self.lanes[1])
    }

    /// The lines so far.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
