//! What the inbox's own check sees.

use super::*;
use crate::tests::harness::caught;

#[test]
fn the_check_sees_a_request_that_is_over_and_remembered() {
    let mut inbox = Inbox::new(Incarnation(1), 4);
    assert_eq!(inbox.admit(4), Admitted::New);
    inbox.floor = 5;
    assert!(caught(|| inbox.check()).contains("requests below 5 are over"));
}

#[test]
fn the_check_sees_more_requests_than_are_remembered() {
    let mut inbox = Inbox::new(Incarnation(1), 4);
    inbox.seen = (0..=4).map(|number| (number, None)).collect();
    assert!(caught(|| inbox.check()).contains("remembered requests are bounded"));
}
