//! How long a statement takes to a member, and so how long a suspicion must last at least.
//!
//! Asynchronous push to `f` random targets per tick `τ` grows at first like `e^{αt}` with `ατ = fq·e^{−αℓ}`, `q` the share of
//! messages that arrive and `ℓ` their delay, and reaches the last members like `e^{−fqt/τ}`. So a given member has received a
//! statement, with probability `1 − δ`, after `t(δ) = ln N/α + (τ/fq)·ln(1/δ) + ℓ`. A suspicion must reach its member and
//! the refutation must come back: twice that. The predictor of `trilemma-gossip` computes more, and
//! is up to one tick later, for it takes in what chance does while few have heard: a test there holds both beside each other.

use std::time::Duration;

/// What the time depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Members, the sender included.
    pub members: u32,
    /// Random targets of one tick.
    pub fanout: u32,
    /// Time between two ticks of one member.
    pub tick: Duration,
    /// Share of messages that are lost, from 0 to below 1.
    pub loss: f64,
    /// One-way delay of a message, processing included.
    pub latency: Duration,
}

impl Spread {
    /// The time after which a given member has received a statement, but for this probability. Zero if there is nobody else.
    #[must_use]
    pub fn time_to(&self, miss_probability: f64) -> Duration {
        if self.members < 2 {
            return Duration::ZERO;
        }
        let rate = self.rate();
        let latency = self.latency.as_secs_f64();
        let growth = if latency > 0.0 {
            lambert_w(rate * latency) / latency
        } else {
            rate
        };
        let miss = miss_probability.clamp(1e-12, 0.5);
        let seconds = f64::from(self.members).ln() / growth + (1.0 / miss).ln() / rate + latency;
        // Whole milliseconds: the same on every machine, whatever its logarithm rounds to.
        Duration::from_millis((seconds * 1000.0).ceil().clamp(0.0, 1e9) as u64)
    }

    /// Messages that arrive from one member in a second.
    fn rate(&self) -> f64 {
        let fanout = self.fanout.clamp(1, self.members - 1);
        let arrive = (1.0 - self.loss).clamp(0.01, 1.0);
        f64::from(fanout) * arrive / self.tick.as_secs_f64().max(1e-3)
    }
}

/// How often each member passes a statement on, so that all of `members` receive it but with this probability: flooding with
/// limit L misses a member with probability `e^{−Lq}`.
#[must_use]
pub fn sends_for(members: u32, loss: f64, miss_probability: f64) -> u16 {
    let arrive = (1.0 - loss).clamp(0.01, 1.0);
    let miss = miss_probability.clamp(1e-12, 0.5);
    let sends = (f64::from(members.max(2)) / miss).ln() / arrive;
    sends.ceil().clamp(1.0, 1000.0) as u16
}

/// The `w` with `w·e^w = x`, for positive `x`, by Newton's method.
fn lambert_w(x: f64) -> f64 {
    let mut w = (1.0 + x).ln();
    for _ in 0..20 {
        let e = w.exp();
        w -= (w * e - x) / (e * (w + 1.0));
    }
    w
}

#[cfg(test)]
mod tests {
    //! The figures of the design, section "Failure detection".

    use std::time::Duration;

    use super::{Spread, sends_for};

    fn spread(members: u32, loss: f64) -> Spread {
        Spread {
            members,
            fanout: 3,
            tick: Duration::from_millis(200),
            loss,
            latency: Duration::from_millis(10),
        }
    }

    #[test]
    fn twice_the_time_to_a_member_is_what_the_design_computed() {
        for (members, loss, seconds) in [
            (100, 0.0, 2.0),
            (1_000, 0.0, 2.3),
            (10_000, 0.0, 2.7),
            (100, 0.3, 2.7),
            (1_000, 0.3, 3.2),
            (10_000, 0.3, 3.7),
        ] {
            let computed = 2.0 * spread(members, loss).time_to(1e-4).as_secs_f64();
            assert!(
                (computed - seconds).abs() < 0.06,
                "{members} members, loss {loss}: {computed} instead of {seconds}"
            );
        }
    }

    #[test]
    fn nobody_else_takes_no_time_and_odd_settings_have_an_answer() {
        assert_eq!(spread(1, 0.0).time_to(1e-4), Duration::ZERO);
        let odd = Spread {
            fanout: 0,
            tick: Duration::ZERO,
            loss: 1.0,
            latency: Duration::ZERO,
            members: 2,
        };
        assert!(odd.time_to(0.0) > Duration::ZERO);
    }

    #[test]
    fn an_update_is_sent_some_ten_times() {
        assert_eq!(sends_for(1_000, 0.0, 0.01), 12);
        assert_eq!(sends_for(10_000, 0.0, 0.01), 14);
        assert!(sends_for(0, 1.0, 0.0) <= 1000);
    }
}
