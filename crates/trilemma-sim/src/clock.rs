//! A node's clocks: a monotonic one that runs fast or slow, and a wall clock that also jumps.

use trilemma_core::{Instant, Now, WallTime};

/// What the wall clocks show when virtual time begins, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// What a monotonic clock shows at the start of its process, so that earlier instants can be expressed.
const INSTANT_START: u64 = 1_000_000_000;
/// Millionths.
const MILLION: u64 = 1_000_000;

/// The clocks of one node. Virtual time is in nanoseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    /// When the node's process started: its monotonic clock begins again.
    started: u64,
    /// How fast it runs, in millionths: 1,000,000 is right.
    rate: u64,
    /// What the wall clock shows beyond virtual time, in milliseconds.
    offset_ms: i64,
}

impl Clock {
    /// A clock that runs `drift_ppm` millionths fast and is `offset_ms` milliseconds ahead.
    #[must_use]
    pub fn new(offset_ms: i64, drift_ppm: i64) -> Self {
        let rate = (MILLION as i64 + drift_ppm).clamp(1000, 1000 * MILLION as i64) as u64;
        Self {
            started: 0,
            rate,
            offset_ms,
        }
    }

    /// The process has started.
    pub fn start(&mut self, time: u64) {
        self.started = time;
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, ms: i64) {
        self.offset_ms = self.offset_ms.saturating_add(ms);
    }

    /// What both clocks show at a virtual time.
    #[must_use]
    pub fn now(&self, time: u64) -> Now {
        Now {
            instant: self.instant(time),
            wall: self.wall(time),
        }
    }

    /// What the wall clock shows at a virtual time.
    #[must_use]
    pub fn wall(&self, time: u64) -> WallTime {
        let ms = WALL_START_MS + (time / MILLION) as i64 + self.offset_ms;
        WallTime(ms.max(0) as u64)
    }

    /// What the monotonic clock shows at a virtual time.
    #[must_use]
    pub fn instant(&self, time: u64) -> Instant {
        let passed =
            u128::from(time.saturating_sub(self.started)) * u128::from(self.rate) / u128::from(MILLION);
        Instant::from_nanos(INSTANT_START + passed as u64)
    }

    /// The first virtual time at which the monotonic clock shows at least `instant`.
    #[must_use]
    pub fn time_of(&self, instant: Instant) -> u64 {
        if instant == Instant::NEVER {
            return u64::MAX;
        }
        let passed = u128::from(instant.as_nanos().saturating_sub(INSTANT_START)) * u128::from(MILLION);
        let passed = passed.div_ceil(u128::from(self.rate));
        self.started
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}
