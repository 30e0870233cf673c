//! Tests of the hybrid logical clock.

use super::*;

#[test]
fn stamps_grow_while_the_wall_clock_stands_or_jumps_back() {
    let mut clock = Clock::default();
    let mut last = Stamp::default();
    for wall in [1000, 1000, 1000, 500, 1001, 3, 2000, 1999] {
        let stamp = clock.issue(WallTime(wall)).expect("room");
        assert!(stamp > last && stamp.millis() >= wall.min(1000));
        last = stamp;
    }
    assert_eq!(last, Stamp((2000 << 16) + 1));
}

#[test]
fn the_lease_is_ahead_of_every_stamp_told_and_a_restart_begins_above_it() {
    let mut clock = Clock::default();
    let mut durable = Stamp::default();
    let mut told = Stamp::default();
    for wall in (10_000..20_000).step_by(7) {
        told = clock.issue(WallTime(wall)).expect("room");
        if let Some(lease) = clock.extend_lease() {
            durable = lease;
        }
        assert!(told <= durable, "{told:?} was told above the lease {durable:?}");
    }
    let mut again = Clock::default();
    again.restore(durable);
    let first = again.issue(WallTime(1)).expect("room");
    assert!(first > told);
    assert!(first.millis() <= told.millis() + LEASE_AHEAD.as_millis() as u64 + 1);
}

#[test]
fn a_stamp_beyond_the_drift_is_not_acceptable() {
    let drift = Duration::from_millis(500);
    assert!(is_acceptable(Stamp::at(WallTime(1500)), WallTime(1000), drift));
    assert!(!is_acceptable(Stamp::at(WallTime(1501)), WallTime(1000), drift));
    assert!(is_acceptable(Stamp(u64::MAX), WallTime(u64::MAX), drift));
}

#[test]
fn the_end_of_the_range_is_an_answer_and_not_an_overflow() {
    let mut clock = Clock::default();
    clock.observe(Stamp(u64::MAX));
    assert_eq!(clock.issue(WallTime(1)), None);
    assert_eq!(Stamp::at(WallTime(u64::MAX)).millis(), (1 << 48) - 1);
}
