//! What the own check of pending requests sees.

use super::*;
use crate::tests::harness::caught;

/// One read that waits for a version.
fn requests() -> PendingRequests {
    let mut requests = PendingRequests::default();
    let open = Open::Read {
        query: Query::Get("x".into()),
        level: ReadLevel::Linearizable,
        wait: WaitFor::Version(Version(3)),
    };
    requests.add(Ticket(1), Instant::from_nanos(9), open);
    requests.check();
    requests
}

#[test]
fn the_check_sees_a_request_that_nobody_would_answer() {
    let mut undated = requests();
    undated.deadlines.clear();
    assert!(caught(|| undated.check()).contains("each open request has one deadline"));
    let mut misdated = requests();
    misdated.deadlines = BTreeSet::from([(Instant::from_nanos(8), Ticket(1))]);
    assert!(caught(|| misdated.check()).contains("is found by its deadline"));
    let mut unindexed = requests();
    unindexed.on_version.clear();
    assert!(caught(|| unindexed.check()).contains("each read waits for one thing"));
}

#[test]
fn the_check_sees_reads_that_are_miscounted() {
    let mut requests = requests();
    requests.reads = 2;
    assert!(caught(|| requests.check()).contains("2 reads among 1 requests"));
    requests.reads = 0;
    assert!(caught(|| requests.check()).contains("only reads wait for versions"));
}

#[test]
fn a_ticket_that_is_open_cannot_be_used_again() {
    let mut requests = requests();
    let open = Open::Read {
        query: Query::Get("x".into()),
        level: ReadLevel::Linearizable,
        wait: WaitFor::Version(Version(3)),
    };
    assert!(
        caught(|| requests.add(Ticket(1), Instant::ZERO, open)).contains("the host names request t1 once")
    );
}
