//! A token resumes exactly, or not at all.

use super::*;
use crate::tests::caught;

fn applied(position: u64, key: &str) -> ChangeBatch {
    ChangeBatch {
        position,
        changes: vec![Change {
            key: key.into(),
            now: None,
        }],
    }
}

fn positions(items: &[WatchItem]) -> Vec<u64> {
    items.iter().map(|item| item.token().position).collect()
}

#[test]
fn a_token_resumes_after_what_was_seen() {
    let mut ring = Ring::new(0, 10);
    for position in 11..20 {
        ring.push(applied(position, if position % 2 == 0 { "even" } else { "odd" }));
    }
    let since = |position, range: &KeyRange| ring.since(WatchToken { stream: 0, position }, range);
    assert_eq!(
        positions(&since(14, &KeyRange::prefix("even")).unwrap()),
        [16, 18]
    );
    assert_eq!(positions(&since(10, &KeyRange::all()).unwrap()).len(), 9);
    assert!(since(9, &KeyRange::all()).is_none(), "older than the ring");
    assert!(
        since(20, &KeyRange::all()).is_none(),
        "from the future: another history"
    );
    assert!(
        ring.since(
            WatchToken {
                stream: 7,
                position: 14
            },
            &KeyRange::all()
        )
        .is_none()
    );
}

#[test]
fn the_ring_is_bounded_and_knows_what_it_dropped() {
    let mut ring = Ring::new(0, 0);
    for position in 1..=RING_CHANGES_MAX as u64 + 5 {
        ring.push(applied(position, "k"));
    }
    assert!(
        ring.since(
            WatchToken {
                stream: 0,
                position: 4
            },
            &KeyRange::all()
        )
        .is_none()
    );
    let rest = ring
        .since(
            WatchToken {
                stream: 0,
                position: 5,
            },
            &KeyRange::all(),
        )
        .unwrap();
    assert_eq!(rest.len(), RING_CHANGES_MAX);
    ring.reset(RING_CHANGES_MAX as u64 + 100);
    assert!(
        ring.since(
            WatchToken {
                stream: 0,
                position: RING_CHANGES_MAX as u64 + 5
            },
            &KeyRange::all()
        )
        .is_none()
    );
}

#[test]
fn tokens_print_and_parse() {
    let token = WatchToken {
        stream: 0xab,
        position: 12,
    };
    assert_eq!(token.to_string().parse::<WatchToken>().unwrap(), token);
    assert!("12".parse::<WatchToken>().is_err());
}

/// A ring that holds two changes after position 10.
fn ring() -> Ring {
    let mut ring = Ring::new(0, 10);
    ring.push(applied(11, "a"));
    ring.push(applied(12, "b"));
    ring
}

#[test]
fn the_check_sees_a_floor_that_would_skip_changes() {
    let mut ring = ring();
    ring.floor = 11;
    assert!(caught(|| ring.check()).contains("change 11 is not above the floor 11"));
    ring.floor = 13;
    assert!(caught(|| ring.check()).contains("floor 13 is beyond 12"));
}

#[test]
fn the_check_sees_changes_that_are_miscounted_or_out_of_order() {
    let mut uncounted = ring();
    uncounted.changes = 0;
    assert!(caught(|| uncounted.check()).contains("changes are counted"));
    let mut large = ring();
    large.bytes += 1;
    assert!(caught(|| large.check()).contains("bytes are counted"));
    let mut ahead = ring();
    ahead.last = 11;
    assert!(caught(|| ahead.check()).contains("change 12 is beyond the last, 11"));
    let mut swapped = ring();
    swapped.recent[0].position = 12;
    assert!(caught(|| swapped.check()).contains("changes are in order"));
}
