//! Whose turn it is, by what each has handed over.

use super::*;

const KIB: usize = 1024;

/// Takes so many bytes of keyspaces that never run out. Returns what each has handed over.
fn shares(costs: &[usize], bytes: usize) -> Vec<usize> {
    let mut rounds = Rounds::new(costs.len());
    (0..costs.len()).for_each(|keyspace| rounds.waits(keyspace));
    let mut handed = vec![0; costs.len()];
    while handed.iter().sum::<usize>() < bytes {
        let next = rounds.take(|keyspace| Some(costs[keyspace])).expect("all wait");
        handed[next] += costs[next];
        rounds.check();
    }
    handed
}

#[test]
fn keyspaces_get_the_same_bytes_whatever_the_size_of_their_records() {
    let handed = shares(&[1024 * KIB, 100, 60 * KIB, 8 * 1024 * KIB], 256 * 1024 * KIB);
    for bytes in handed {
        let off = bytes.abs_diff(64 * 1024 * KIB);
        assert!(off <= 8 * 1024 * KIB, "{bytes}");
    }
}

#[test]
fn one_alone_gets_everything() {
    assert_eq!(shares(&[1024 * KIB], 10 * 1024 * KIB), [10 * 1024 * KIB]);
}

#[test]
fn who_has_just_come_waits_for_one_round_at_most() {
    let mut rounds = Rounds::new(3);
    rounds.waits(0);
    rounds.waits(1);
    for _ in 0..100 {
        rounds.take(|keyspace| (keyspace < 2).then_some(64 * KIB));
    }
    rounds.waits(2);
    let mut before = 0;
    while rounds.take(|_| Some(64 * KIB)) != Some(2) {
        before += 64 * KIB;
    }
    assert!(before <= 3 * QUANTUM_BYTES, "{before}");
}

#[test]
fn who_has_nothing_left_keeps_no_credit() {
    let mut rounds = Rounds::new(2);
    rounds.waits(0);
    assert_eq!(rounds.take(|_| Some(KIB)), Some(0));
    assert_eq!(rounds.take(|_| None), None);
    rounds.check();
    rounds.waits(0);
    rounds.waits(0);
    assert_eq!(rounds.credits, [Some(QUANTUM_BYTES), None]);
    assert_eq!(rounds.waiting().collect::<Vec<_>>(), [0]);
}
