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
fn the_lease_is_ahead_of_every_stamp_issued_and_a_restart_begins_above_it() {
    let mut clock = Clock::default();
    let mut durable = Stamp::default();
    let mut issued = Stamp::default();
    for wall in (10_000..20_000).step_by(7) {
        issued = clock.issue(WallTime(wall)).expect("room");
        if let Some(lease) = clock.extend_lease() {
            durable = lease;
        }
        assert!(
            issued <= durable,
            "{issued:?} was issued above the lease {durable:?}"
        );
    }
    let mut again = Clock::default();
    again.restore(durable);
    let first = again.issue(WallTime(1)).expect("room");
    assert!(first > issued);
    assert!(first.millis() <= issued.millis() + LEASE_AHEAD.as_millis() as u64 + 1);
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

#[test]
fn stamps_far_ahead_are_left_at_a_start_where_something_speaks_for_the_wall_clock() {
    let (wall, ahead_max) = (WallTime(1_000_000), Duration::from_secs(10));
    let newest = Stamp::at(WallTime(999_000));
    let restored = |stamp: u64| {
        let mut clock = Clock::default();
        clock.restore(Stamp::at(WallTime(stamp)));
        clock
    };
    assert_eq!(
        restored(1_010_000).start(wall, ahead_max, Some(newest)),
        None,
        "soon waited out"
    );
    assert_eq!(
        restored(9_000_000).start(wall, ahead_max, None),
        None,
        "nothing speaks for it"
    );
    let mut clock = restored(9_000_000);
    let reported = clock.position();
    assert_eq!(
        clock.start(wall, ahead_max, Some(newest)),
        Some(Duration::from_secs(8000))
    );
    assert_eq!(clock.issue(wall), Some(Stamp::at(wall)));
    assert!(
        clock.extend_lease().is_some(),
        "the former lease protects no stamp any more"
    );
    let (first, second) = (
        clock.record(Stamp::at(wall), Version(0)),
        clock.record(Stamp::at(wall), Version(0)),
    );
    assert!(
        first < second,
        "positions of the session record grow all the same"
    );
    assert!(clock.position() >= reported);
    clock.check();
}

#[test]
fn a_position_below_a_stamp_is_caught() {
    let mut clock = Clock::default();
    clock.issue(WallTime(1000));
    clock.check();
    clock.last = Stamp::at(WallTime(2000));
    assert!(std::panic::catch_unwind(|| clock.check()).is_err());
}
