//! Where the time of a turn goes.

use std::time::{Duration, Instant};

use trilemma_node::Observer;

/// Times the parts of a turn and keeps the longest.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    begun: Instant,
    /// When the last part ended.
    last: Instant,
    part: &'static str,
    longest: Duration,
}

impl Default for Stopwatch {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            last: now,
            part: "",
            longest: Duration::ZERO,
        }
    }
}

impl Stopwatch {
    /// A turn begins.
    pub(super) fn start(&mut self) {
        *self = Self::default();
    }

    /// How long the turn has taken, and its longest part.
    pub(super) fn end(&self) -> (Duration, &'static str, Duration) {
        (self.last - self.begun, self.part, self.longest)
    }
}

impl Observer for Stopwatch {
    fn passed(&mut self, part: &'static str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        if took > self.longest {
            (self.part, self.longest) = (part, took);
        }
    }
}
