//! How far this node trusts itself: the local health multiplier (Lifeguard, section IV-A).
//!
//! A node that gets no answers, or is accused itself, may be the slow one. It then probes less often and waits longer before
//! it accuses.

use std::time::Duration;

/// Greatest value (`S`).
pub const HEALTH_MAX: u8 = 8;

/// A counter from 0, healthy, to [`HEALTH_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health(u8);

impl Health {
    /// The counter.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }

    /// A sign that this node is slow: a missing nack, a probe that nobody answered, a suspicion that had to be refuted, a
    /// wake-up that came late.
    pub(crate) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(HEALTH_MAX);
    }

    /// A sign that it is not: a probe that was answered in time.
    pub(crate) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// A time that this node grants others, the longer the less it trusts itself.
    #[must_use]
    pub fn scale(self, time: Duration) -> Duration {
        time * (u32::from(self.0) + 1)
    }
}

#[cfg(test)]
mod tests {
    //! The range of the counter.

    use std::time::Duration;

    use super::{HEALTH_MAX, Health};

    #[test]
    fn it_stays_in_its_range_and_lengthens_times() {
        let mut health = Health::default();
        health.better();
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(1));
        (0..20).for_each(|_| health.worse());
        assert_eq!(health.value(), HEALTH_MAX);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(9));
    }
}
