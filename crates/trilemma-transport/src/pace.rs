//! So many at once, and so many a second: a token bucket.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// How far `next` may be ahead.
    burst: Duration,
    /// When the bucket is full again.
    next: Instant,
}

impl Pace {
    /// A full bucket, of so many a second and so many at once.
    pub(crate) fn new((per_second, at_once): (u32, u32), now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            burst: interval * at_once,
            next: now,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let next = self.next.max(now) + self.interval;
        let has_one = next.saturating_duration_since(now) <= self.burst;
        if has_one {
            self.next = next;
        }
        has_one
    }
}

#[cfg(test)]
mod tests;
