//! Tests of dots and observed sets.

use super::*;

fn dot(origin: u32, incarnation: u64, seq: u64) -> Dot {
    Dot::new(NodeId(origin), Incarnation(incarnation), seq)
}

#[test]
fn an_observed_set_keeps_the_highest_of_each_incarnation_and_covers_what_is_below() {
    let mut observed = Observed::default();
    for mark in [dot(2, 1, 7), dot(1, 3, 4), dot(2, 1, 5), dot(1, 2, 9)] {
        observed.add(mark);
    }
    assert_eq!(
        observed.iter().collect::<Vec<_>>(),
        [dot(1, 2, 9), dot(1, 3, 4), dot(2, 1, 7)]
    );
    assert!(observed.is_valid());
    assert!(observed.covers(dot(2, 1, 6)) && observed.covers(dot(2, 1, 7)));
    assert!(
        !observed.covers(dot(2, 1, 8)) && !observed.covers(dot(2, 2, 1)) && !observed.covers(dot(3, 1, 1))
    );
}

#[test]
fn an_unsorted_or_numberless_set_of_a_peer_is_recognised() {
    assert!(!Observed::from(vec![dot(2, 1, 1), dot(1, 1, 1)]).is_valid());
    assert!(!Observed::from(vec![dot(1, 1, 1), dot(1, 1, 2)]).is_valid());
    assert!(!Observed::from(vec![dot(1, 1, 0)]).is_valid());
}
