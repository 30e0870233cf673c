//! What the check of an arrived frame sees.

use super::*;

/// What was handed on to one keyspace and to the node itself, and what was dropped.
fn taken(keyspace: u64, node: u64, dropped: u64) -> Taken {
    Taken {
        handed: Counts::from([(KeyspaceId(7), keyspace), (NODE_RECORDS, node)]),
        dropped,
    }
}

#[test]
fn a_message_of_an_arrived_frame_is_handed_on_or_dropped_for_the_disk() {
    let owed = Counts::from([(KeyspaceId(7), 2), (NODE_RECORDS, 1)]);
    let before = taken(5, 3, 1);
    let sees = |after: Taken| after.has_all(&before, &owed).is_err();
    assert!(!sees(taken(7, 4, 1)), "all were handed on");
    assert!(!sees(taken(6, 4, 2)), "one was dropped for the disk");
    assert!(sees(taken(6, 4, 1)), "the second of a keyspace is lost");
    assert!(sees(taken(7, 3, 1)), "the node's own is lost");
    assert!(sees(taken(5, 4, 2)), "more are lost than were dropped");
}
