//! How long to wait for answers before asking again: learned, because nobody knows the network and the disks beforehand.
//!
//! The time starts at a least one that the settings name, follows what answers took recently, and doubles with each wait in
//! vain. So peers that are far away, or disks under pressure, cost a few repeats once, and not each operation its deadline;
//! and a lost message is noticed soon where answers are quick. After Jacobson, *Congestion Avoidance and Control* (SIGCOMM
//! 1988), and RFC 6298: twice the longest recent time stands for mean and deviation.

use std::time::Duration;

/// The time that answers of one kind get.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    min: Duration,
    doublings_max: u32,
    /// What answers took recently: the longest, which fades by an eighth with each one that was quicker.
    took: Duration,
    /// Waits in vain since the last answer.
    in_vain: u32,
}

impl Patience {
    /// Waits at least `min`, and at most `min` doubled so many times.
    #[must_use]
    pub fn new(min: Duration, doublings_max: u32) -> Self {
        Self {
            min,
            doublings_max: doublings_max.min(31),
            took: Duration::ZERO,
            in_vain: 0,
        }
    }

    /// How long to wait now. `in_vain` is how often the asker has waited in vain itself; what others have waited counts,
    /// too.
    #[must_use]
    pub fn limit(&self, in_vain: u32) -> Duration {
        let doublings = self.in_vain.max(in_vain).min(self.doublings_max);
        let max = self.min.saturating_mul(1 << self.doublings_max);
        let limit = self.min.max(self.took.saturating_mul(2));
        limit.saturating_mul(1 << doublings).min(max)
    }

    /// What answers took recently.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Somebody who had waited `in_vain` times in vain has done so once more; returns the new number.
    pub fn waited_in_vain(&mut self, in_vain: u32) -> u32 {
        let in_vain = in_vain.saturating_add(1).min(self.doublings_max);
        self.in_vain = self.in_vain.max(in_vain);
        in_vain
    }

    /// An answer has come after so long.
    pub fn answered(&mut self, took: Duration) {
        self.took = took.max(self.took - self.took / 8);
        self.in_vain = 0;
    }

    /// Waits in vain say nothing any more: a peer that was away is back.
    pub fn forget_waits(&mut self) {
        self.in_vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_in_vain_is_waited_for_twice_as_long_up_to_a_limit() {
        let mut patience = Patience::new(100 * MS, 3);
        assert_eq!(patience.limit(0), 100 * MS);
        let mut in_vain = 0;
        for limit in [200, 400, 800, 800, 800] {
            in_vain = patience.waited_in_vain(in_vain);
            assert_eq!(patience.limit(in_vain), limit * MS);
            assert_eq!(
                patience.limit(0),
                limit * MS,
                "the next asker need not learn it again"
            );
        }
    }

    #[test]
    fn what_answers_take_is_kept_and_fades() {
        let mut patience = Patience::new(100 * MS, 6);
        patience.waited_in_vain(0);
        patience.answered(140 * MS);
        assert_eq!(patience.limit(0), 280 * MS);
        patience.answered(140 * MS);
        assert_eq!(
            patience.limit(0),
            280 * MS,
            "answers that take as long change nothing"
        );
        for _ in 0..40 {
            patience.answered(MS);
        }
        assert_eq!(patience.limit(0), 100 * MS);
    }

    #[test]
    fn one_asker_that_is_slower_than_the_others_gets_its_time() {
        let mut patience = Patience::new(100 * MS, 6);
        let once = patience.waited_in_vain(0);
        let in_vain = patience.waited_in_vain(once);
        patience.answered(MS);
        assert_eq!(patience.limit(in_vain), 400 * MS);
        assert_eq!(patience.limit(0), 100 * MS);
    }
}
