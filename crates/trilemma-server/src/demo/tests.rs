//! The verdict must be able to fail: histories with planted faults, one for each promise.

use std::ops::Range;

use trilemma::Backend;

use super::check::{Finals, differences, linearizability, lost, write_order};
use super::history::{Event, Record};
use super::verdict::{Evidence, QUIET_KEY, judge};

const SPLIT: Range<u64> = 1000..2000;

fn record(node: u32, key: &str, time: Range<u64>, event: Event) -> Record {
    Record {
        node,
        key: key.into(),
        called: time.start,
        answered: time.end,
        event,
    }
}

fn wrote(node: u32, time: Range<u64>, value: &str, version: u64) -> Record {
    record(
        node,
        "k",
        time,
        Event::Written {
            value: value.into(),
            version,
        },
    )
}

fn refused(node: u32, time: Range<u64>, value: &str) -> Record {
    record(
        node,
        "k",
        time,
        Event::Refused {
            value: value.into(),
            why: "no quorum".into(),
        },
    )
}

fn unknown(node: u32, time: Range<u64>, value: &str) -> Record {
    record(
        node,
        "k",
        time,
        Event::Unknown {
            value: value.into(),
            why: "deadline".into(),
        },
    )
}

fn read(node: u32, time: Range<u64>, found: Option<(&str, u64)>) -> Record {
    let found = found.map(|(value, version)| (value.to_owned(), version));
    record(node, "k", time, Event::Read { found })
}

fn quiet(node: u32, time: Range<u64>, answered: bool) -> Record {
    let event = if answered {
        Event::Read { found: None }
    } else {
        Event::Unread {
            why: "in doubt".into(),
        }
    };
    record(node, QUIET_KEY, time, event)
}

fn finals(value: &str, version: u64) -> Finals {
    Finals::from([("k".into(), (value.into(), version))])
}

#[track_caller]
fn expect(violations: &[String], what: &str) {
    assert!(
        violations.iter().any(|violation| violation.contains(what)),
        "expected \"{what}\" in {violations:?}"
    );
}

#[test]
fn a_correct_history_is_linearizable() {
    let history = [
        read(1, 0..1, None),
        wrote(1, 2..10, "a", 3),
        read(2, 4..6, Some(("a", 3))),
        unknown(3, 5..8, "b"),
        read(1, 11..12, Some(("b", 7))),
        unknown(3, 13..14, "never"),
        wrote(2, 13..20, "c", 9),
        wrote(1, 13..20, "d", 8),
        read(3, 21..22, Some(("c", 9))),
        refused(3, 23..24, "e"),
    ];
    assert_eq!(linearizability(&history), Vec::<String>::new());
    assert_eq!(write_order(&history), Vec::<String>::new());
}

#[test]
fn a_stale_read_is_found() {
    let history = [
        wrote(1, 0..1, "a", 1),
        wrote(1, 2..3, "b", 2),
        read(2, 4..5, Some(("a", 1))),
    ];
    expect(
        &linearizability(&history),
        "a read of \"a\" at node 2 (version 1) began after",
    );
    let missing = [wrote(1, 0..1, "a", 1), read(2, 4..5, None)];
    expect(&linearizability(&missing), "a read of nothing");
}

#[test]
fn two_reads_that_go_backwards_are_found() {
    let history = [
        wrote(1, 0..100, "a", 1),
        wrote(1, 0..100, "b", 2),
        read(2, 4..5, Some(("b", 2))),
        read(3, 6..7, Some(("a", 1))),
    ];
    expect(&linearizability(&history), "a read of \"a\" at node 3");
}

#[test]
fn a_write_ordered_before_one_that_had_ended_is_found() {
    let history = [wrote(1, 0..1, "a", 5), wrote(2, 2..3, "b", 4)];
    expect(&linearizability(&history), "the write of \"b\"");
    let mut across = history.to_vec();
    across[1].key = "other".into();
    assert_eq!(
        linearizability(&across),
        Vec::<String>::new(),
        "each key alone is fine"
    );
    expect(&write_order(&across), "the write of \"b\"");
}

#[test]
fn two_winners_at_one_version_are_found() {
    let history = [wrote(1, 0..5, "a", 5), wrote(3, 0..5, "b", 5)];
    expect(&linearizability(&history), "version 5 is \"a\" and \"b\"");
    let twice = [wrote(1, 0..5, "a", 5), read(2, 2..6, Some(("a", 6)))];
    expect(&linearizability(&twice), "\"a\" has versions 5 and 6");
}

#[test]
fn reads_of_what_was_refused_never_written_or_not_begun_are_found() {
    expect(
        &linearizability(&[refused(1, 0..1, "a"), read(2, 2..3, Some(("a", 1)))]),
        "reported as not applied",
    );
    expect(
        &linearizability(&[read(2, 2..3, Some(("ghost", 1)))]),
        "nobody wrote",
    );
    expect(
        &linearizability(&[read(2, 2..3, Some(("a", 1))), unknown(1, 5..6, "a")]),
        "before its write began",
    );
}

#[test]
fn lost_writes_and_differences_are_found() {
    let history = [
        wrote(1, 0..1, "a", 1),
        wrote(3, 2..3, "b", 2),
        unknown(2, 2..9, "c"),
    ];
    assert_eq!(lost(&history, &[finals("b", 2)]), Vec::<String>::new());
    assert_eq!(
        lost(&history, &[finals("c", 3)]),
        Vec::<String>::new(),
        "the unknown write may have superseded"
    );
    expect(
        &lost(&history, &[finals("a", 1)]),
        "\"b\" was acknowledged at version 2",
    );
    expect(
        &lost(&history, &[finals("b", 2), Finals::new()]),
        "the end is version 0",
    );
    expect(&lost(&history, &[finals("ghost", 4)]), "nobody wrote");
    expect(&lost(&history, &[finals("a", 7)]), "acknowledged was another");
    expect(&lost(&[refused(1, 0..1, "r")], &[finals("r", 1)]), "not applied");
    assert!(differences(&[finals("a", 1), finals("a", 1), finals("a", 1)]).is_empty());
    assert_eq!(
        differences(&[finals("a", 1), finals("a", 1), finals("b", 2)]),
        ["k"]
    );
    assert_eq!(
        differences(&[finals("a", 1), Finals::new(), finals("a", 1)]),
        ["k"]
    );
}

/// A history in which every promise of `backend` holds.
fn good(backend: Backend) -> Vec<Record> {
    let mut history = vec![wrote(1, 0..10, "before", 1)];
    match backend {
        Backend::Gossip => {
            history.extend([wrote(1, 1100..1110, "m", 2), wrote(3, 1100..1110, "n", 3)]);
        }
        Backend::Raft | Backend::Paxos => {
            history.extend([wrote(1, 1100..1110, "m", 2), refused(3, 1100..1110, "n")]);
        }
        Backend::TwoPhase => {
            history.extend([refused(1, 1100..1110, "m"), refused(3, 1100..1110, "n")]);
            history.extend([1, 2, 3].map(|node| quiet(node, 1200..1201, true)));
        }
    }
    history.push(wrote(2, 2100..2110, "after", 9));
    history
}

fn broken(backend: Backend, records: &[Record]) -> Vec<String> {
    let finals = [finals("after", 9), finals("after", 9), finals("after", 9)];
    judge(&Evidence {
        backend,
        records,
        split: SPLIT,
        finals: &finals,
    })
    .broken
}

#[test]
fn each_promise_of_a_partition_can_be_broken() {
    for backend in Backend::ALL {
        assert_eq!(broken(backend, &good(backend)), Vec::<String>::new(), "{backend}");
    }
    let with = |backend: Backend, extra: Record| {
        let mut history = good(backend);
        history.push(extra);
        broken(backend, &history)
    };
    expect(
        &with(Backend::Gossip, refused(3, 1200..1210, "x")),
        "did not stay available",
    );
    expect(
        &with(Backend::Gossip, unknown(1, 1200..1210, "x")),
        "did not stay available",
    );
    expect(
        &broken(Backend::Gossip, &good(Backend::Raft)),
        "the side of node 3 did not stay available",
    );
    for backend in [Backend::Raft, Backend::Paxos] {
        expect(
            &with(backend, wrote(3, 1200..1210, "x", 5)),
            "without a majority, accepted 1 writes",
        );
        expect(
            &with(backend, read(3, 1200..1210, Some(("m", 2)))),
            "answered 1 linearizable reads",
        );
        expect(
            &broken(backend, &good(Backend::TwoPhase)),
            "the majority accepted no write",
        );
    }
    expect(
        &with(Backend::TwoPhase, wrote(1, 1200..1210, "x", 5)),
        "although a member was missing",
    );
    expect(
        &with(Backend::TwoPhase, quiet(3, 1200..1210, false)),
        "refused 1 reads",
    );
    expect(
        &broken(Backend::TwoPhase, &good(Backend::Raft)),
        "answered 0 and refused 0 reads",
    );
    expect(&broken(Backend::Raft, &[]), "no write was acknowledged");
}

#[test]
fn losses_and_differences_break_the_verdict_of_every_backend() {
    for backend in Backend::ALL {
        let records = good(backend);
        let judge = |finals: [Finals; 3]| {
            judge(&Evidence {
                backend,
                records: &records,
                split: SPLIT,
                finals: &finals,
            })
        };
        let gone = judge([finals("before", 1), finals("before", 1), finals("before", 1)]);
        assert!(
            !gone.holds() && gone.converged && gone.acked_lost > 0,
            "{backend}"
        );
        let apart = judge([finals("after", 9), finals("after", 9), finals("later", 10)]);
        assert!(!apart.holds() && !apart.converged, "{backend}");
    }
}

#[test]
fn a_write_that_began_before_the_partition_does_not_count_in_it() {
    let mut history = good(Backend::Raft);
    history.push(wrote(3, 990..1005, "x", 4));
    // Answered in the partition, called before it: the majority may have acknowledged it in time.
    assert!(
        !broken(Backend::Raft, &history)
            .iter()
            .any(|what| what.contains("without a majority"))
    );
}

#[tokio::test]
async fn the_relays_carry_cut_and_mend() {
    let network = super::relay::Network::open(&[1, 2]).await.unwrap();
    let bind = || tokio::net::UdpSocket::bind(("127.0.0.1", 0));
    let (one, two) = (bind().await.unwrap(), bind().await.unwrap());
    network.set_listen(1, one.local_addr().unwrap());
    network.set_listen(2, two.local_addr().unwrap());
    let mut packet = [0; 16];
    for cut in [false, true, false] {
        network.set_cut(&[1], &[2], cut);
        let dropped = network.dropped();
        one.send_to(b"there", network.address(1, 2)).await.unwrap();
        if cut {
            let swallowed = async {
                while network.dropped() == dropped {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            let patience = std::time::Duration::from_secs(10);
            tokio::time::timeout(patience, swallowed)
                .await
                .expect("a cut link swallows packets");
            assert!(two.try_recv(&mut packet).is_err(), "a cut link carries nothing");
            continue;
        }
        let (length, relay) = two.recv_from(&mut packet).await.unwrap();
        assert_eq!(&packet[..length], b"there");
        two.send_to(b"back", relay).await.unwrap();
        let (length, from) = one.recv_from(&mut packet).await.unwrap();
        assert_eq!((&packet[..length], from), (&b"back"[..], network.address(1, 2)));
    }
}
