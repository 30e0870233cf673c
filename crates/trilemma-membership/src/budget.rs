//! How many bytes may leave: a token bucket, so that news after a network partition or a mass restart flows at a steady rate
//! instead of in a burst.

use trilemma_core::Instant;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    per_second: u64,
    tokens: i64,
    refilled: Instant,
}

impl Budget {
    /// A full bucket that fills at this rate and holds a third of a second's worth.
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self {
            per_second,
            tokens: (per_second / 3) as i64,
            refilled: Instant::ZERO,
        }
    }

    /// Bytes that may leave now.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        let passed = now.since(self.refilled);
        // Not before a token is due, so that small steps are not lost.
        let due = passed.as_millis().min(1_000) as u64 * self.per_second / 1000;
        if due > 0 {
            self.refilled = now;
            self.tokens = (self.tokens + due as i64).min((self.per_second / 3) as i64);
        }
        usize::try_from(self.tokens).unwrap_or(0)
    }

    /// Counts what leaves, whether there was room or not: probes always leave.
    pub(crate) fn take(&mut self, bytes: usize) {
        let least = -((self.per_second / 3) as i64);
        self.tokens = (self.tokens - bytes as i64).max(least);
    }
}

#[cfg(test)]
mod tests {
    //! The rate over time.

    use std::time::Duration;

    use trilemma_core::Instant;

    use super::Budget;

    #[test]
    fn it_gives_its_rate_and_no_more_than_a_third_of_a_second_at_once() {
        let mut budget = Budget::new(1500);
        assert_eq!(budget.available(Instant::ZERO), 500);
        budget.take(500);
        assert_eq!(budget.available(Instant::ZERO + Duration::from_millis(100)), 150);
        assert_eq!(budget.available(Instant::ZERO + Duration::from_secs(60)), 500);
        budget.take(5_000);
        assert_eq!(budget.available(Instant::ZERO + Duration::from_millis(60_330)), 0);
        assert!(budget.available(Instant::ZERO + Duration::from_millis(60_700)) > 0);
    }
}
