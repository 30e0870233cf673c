//! A token resumes exactly, or not at all.

use super::*;
use crate::tests::caught;

const BYTES_MAX: usize = 32 * 1024 * 1024;

fn applied(position: u64, key: &str) -> ChangeBatch {
    ChangeBatch {
        position,
        changes: vec![Change {
            key: key.into(),
            now: None,
        }],
    }
}

/// The positions of the items after a token, if it can be resumed.
fn since(ring: &Ring, position: u64, range: &KeyRange) -> Option<Vec<u64>> {
    let items = ring
        .after(position)
        .filter_map(|applied| ring.item(applied, range));
    let positions = items.map(|item| item.token().position).collect();
    ring.covers(position).then_some(positions)
}

#[test]
fn a_token_resumes_after_what_was_seen() {
    let mut ring = Ring::new(0, 10, BYTES_MAX);
    for position in 11..20 {
        ring.push(applied(position, if position % 2 == 0 { "even" } else { "odd" }));
    }
    assert_eq!(since(&ring, 14, &KeyRange::prefix("even")), Some(vec![16, 18]));
    assert_eq!(since(&ring, 10, &KeyRange::all()).unwrap().len(), 9);
    assert_eq!(since(&ring, 19, &KeyRange::all()), Some(vec![]));
    assert_eq!(since(&ring, 9, &KeyRange::all()), None, "older than the ring");
    assert_eq!(since(&ring, 20, &KeyRange::all()), None, "from the future");
}

#[test]
fn the_ring_is_bounded_and_knows_what_it_dropped() {
    let mut ring = Ring::new(0, 0, BYTES_MAX);
    for position in 1..=RING_CHANGES_MAX as u64 + 5 {
        ring.push(applied(position, "k"));
    }
    assert_eq!(since(&ring, 4, &KeyRange::all()), None);
    let rest = since(&ring, 5, &KeyRange::all()).unwrap();
    assert_eq!(rest.len(), RING_CHANGES_MAX);
    ring.reset(RING_CHANGES_MAX as u64 + 100);
    assert_eq!(since(&ring, RING_CHANGES_MAX as u64 + 5, &KeyRange::all()), None);
}

#[test]
fn a_ring_that_is_too_small_keeps_the_newest_changes() {
    let mut ring = Ring::new(0, 0, 1);
    ring.push(applied(1, "a"));
    assert_eq!(since(&ring, 0, &KeyRange::all()), Some(vec![1]));
    ring.push(applied(2, "b"));
    assert_eq!(since(&ring, 0, &KeyRange::all()), None);
    assert_eq!(since(&ring, 1, &KeyRange::all()), Some(vec![2]));
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
    let mut ring = Ring::new(0, 10, BYTES_MAX);
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
