//! The hybrid logical clock (Kulkarni et al. 2014): stamps near wall time that never go back.
//!
//! A stamp is 48 bits of milliseconds and 16 bits of counter. Stamps of peers that are too far ahead of our wall
//! clock are not followed (the entry is *parked*), and a lease is made durable ahead of the stamps given out, so that
//! no later stamp is below an earlier one even if the wall clock jumps back over a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trilemma_core::{Version, WallTime};

/// How far ahead of the stamps in use the durable lease is kept. A quick restart begins that much ahead of the wall
/// clock, so it stays below the default `accept_drift` of the peers.
pub const LEASE_AHEAD: Duration = Duration::from_millis(250);

/// A reading of a hybrid logical clock. Greater is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of this millisecond.
    #[must_use]
    pub const fn at(wall: WallTime) -> Self {
        let millis = if wall.0 >> 48 == 0 { wall.0 } else { (1 << 48) - 1 };
        Stamp(millis << 16)
    }

    /// The millisecond of the stamp.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The stamp as the version that clients see.
    #[must_use]
    pub const fn version(self) -> Version {
        Version(self.0)
    }
}

/// One node's clock for one keyspace.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Stamp,
    lease: Stamp,
}

impl Clock {
    /// The newest stamp issued or seen.
    #[must_use]
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Every stamp up to this one may have been issued before a crash.
    #[must_use]
    pub fn lease(&self) -> Stamp {
        self.lease
    }

    /// A stamp above every stamp issued, seen or restored; `None` when the range is used up (a clock beyond the
    /// year 10889).
    pub fn issue(&mut self, wall: WallTime) -> Option<Stamp> {
        let next = self.last.0.checked_add(1)?;
        self.last = Stamp(next.max(Stamp::at(wall).0));
        Some(self.last)
    }

    /// Whether the lease must be extended before the last stamp may be told: the new lease, to be made durable.
    pub fn extend_lease(&mut self) -> Option<Stamp> {
        let ahead = (LEASE_AHEAD.as_millis() as u64) << 16;
        if self.last.0.saturating_add(ahead / 2) <= self.lease.0 {
            return None;
        }
        self.lease = Stamp(self.last.0.saturating_add(ahead));
        Some(self.lease)
    }

    /// Follows a stamp of a peer that [`is_acceptable`].
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// Takes a durable lease or stamp at restart: everything issued from now on is above it.
    pub fn restore(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
        self.lease = self.lease.max(stamp);
    }
}

/// Whether `stamp` is at most `drift` ahead of our wall clock.
#[must_use]
pub fn is_acceptable(stamp: Stamp, wall: WallTime, drift: Duration) -> bool {
    let limit = wall
        .0
        .saturating_add(u64::try_from(drift.as_millis()).unwrap_or(u64::MAX));
    stamp.millis() <= limit
}

#[cfg(test)]
mod tests;
