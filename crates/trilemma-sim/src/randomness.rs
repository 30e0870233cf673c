//! Where every random decision of a run comes from.
//!
//! One seed names a run. Each thing that needs chance (the plan of faults, one direction of one link, one node's
//! disk, one client) draws from a stream of its own, so that leaving a fault or an operation out of a scenario does
//! not change what the others draw: a shrunken scenario stays close to the one it came from.

use trilemma_core::Rng;

/// What a stream of choices is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The scenario itself: sizes, knobs, faults.
    Plan,
    /// Delays, losses and copies on one directed link.
    Link,
    /// Latencies of one node's disk, and what survives its crashes.
    Disk,
    /// What one client does.
    Client,
    /// Seeds of one node's protocol instances.
    Instance,
    /// What one watcher does.
    Watcher,
    /// The connections of one client library.
    Library,
}

/// The source of all streams of one run.
#[derive(Clone, Copy, Debug)]
pub struct Randomness {
    seed: u64,
}

impl Randomness {
    /// The choices of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream number `index` for a purpose. The same arguments give the same stream.
    #[must_use]
    pub fn stream(self, purpose: Purpose, index: u64) -> Rng {
        let name = (purpose as u64 + 1).wrapping_mul(0xa076_1d64_78bd_642f)
            ^ index.wrapping_mul(0xe703_7ed1_a0b4_28db);
        let mut mixed = Rng::new(self.seed ^ name);
        mixed.fork()
    }
}
