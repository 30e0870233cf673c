//! The hybrid logical clock (Kulkarni et al. 2014): stamps near wall time that never go back.
//!
//! A stamp is 48 bits of milliseconds and 16 bits of counter. Stamps of peers that are too far ahead of our wall
//! clock are not followed (the entry is *deferred*), and a lease is made durable ahead of the stamps given out, so that
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
    /// The newest position of the session record that may have been reported. Never goes back, also where stamps do.
    position: Stamp,
    /// The position of the newest entry of the session record.
    recorded: Stamp,
    /// How far ahead of the wall clock this node's stamps were when it started, if it left them.
    reset: Option<Duration>,
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

    /// The position of the session record that clients may use as their basis.
    #[must_use]
    pub fn position(&self) -> Stamp {
        self.position
    }

    /// How far ahead the stamps of earlier incarnations were, if this one has left them.
    #[must_use]
    pub fn reset_by(&self) -> Option<Duration> {
        self.reset
    }

    /// A stamp above every stamp issued, seen or restored; `None` when the range is used up (a clock beyond the
    /// year 10889).
    pub fn issue(&mut self, wall: WallTime) -> Option<Stamp> {
        let next = self.last.0.checked_add(1)?;
        self.last = Stamp(next.max(Stamp::at(wall).0));
        self.position = self.position.max(self.last);
        Some(self.last)
    }

    /// The position of the next entry of the session record: that of its stamp, if that is above all others and not
    /// below the basis of its session. The same when the entry is replayed.
    pub fn record(&mut self, stamp: Stamp, basis: Version) -> Version {
        let at = stamp.0.max(basis.0).max(self.recorded.0.saturating_add(1));
        self.recorded = Stamp(at);
        self.position = self.position.max(self.recorded);
        self.recorded.version()
    }

    /// Whether the lease must be extended before the last stamp may be reported: the new lease, to be made durable.
    pub fn extend_lease(&mut self) -> Option<Stamp> {
        let ahead = (LEASE_AHEAD.as_millis() as u64) << 16;
        if self.last.0.saturating_add(ahead / 2) <= self.lease.0 {
            return None;
        }
        self.lease = Stamp(self.last.0.saturating_add(ahead));
        assert!(self.last <= self.lease, "a lease below the stamps in use");
        Some(self.lease)
    }

    /// Follows a stamp of a peer that [`is_acceptable`].
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
        self.position = self.position.max(stamp);
    }

    /// Takes a durable lease or stamp at restart: everything issued from now on is above it.
    pub fn restore(&mut self, stamp: Stamp) {
        self.observe(stamp);
        self.lease = self.lease.max(stamp);
    }

    /// Takes the newest lease record, which is below a former one if an incarnation left stamps that were ahead.
    pub fn restore_lease(&mut self, lease: Stamp) {
        self.observe(lease);
        self.lease = lease;
    }

    /// Takes what a checkpoint says of the session record: all of its entries are at or below this position.
    pub fn restore_position(&mut self, position: Stamp) {
        self.position = self.position.max(position);
        self.recorded = self.recorded.max(position);
    }

    /// At the start of an incarnation: leaves stamps that are more than `ahead_max` ahead of the wall clock, so that
    /// others need not defer our writes until real time has caught up. Says how far ahead the stamps were.
    ///
    /// `newest` is the newest stamp of other nodes that was shown, if that is not ahead; `None` where nothing speaks for
    /// the wall clock. Then it may as well be the wall clock that is wrong now (a board without a battery begins in 1970), and
    /// stamps go on from where they were.
    ///
    /// Safe because dots of this incarnation are new and its writes observe what is here: they replace it whatever the
    /// stamps say. Only versions of keys that were written ahead go back, once. Positions of the session record stay
    /// where they are: a repeat must be distinguished from a new operation.
    pub fn start(&mut self, wall: WallTime, ahead_max: Duration, newest: Option<Stamp>) -> Option<Duration> {
        let newest = newest.filter(|_| !is_acceptable(self.last, wall, ahead_max))?;
        let ahead = Duration::from_millis(self.last.millis().saturating_sub(wall.0));
        let lease = Some(self.lease).filter(|lease| is_acceptable(*lease, wall, ahead_max));
        self.last = newest.max(lease.unwrap_or_default());
        self.lease = self.last;
        self.reset = Some(ahead);
        assert!(
            is_acceptable(self.last, wall, ahead_max),
            "stamps that were left are still in use"
        );
        Some(ahead)
    }

    /// The clock's own invariants.
    pub(crate) fn check(&self) {
        assert!(
            self.last <= self.position,
            "a stamp {:?} above the position {:?}",
            self.last,
            self.position
        );
        assert!(
            self.recorded <= self.position,
            "the session record is ahead of its position"
        );
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
