//! Networks and disks that are slower than the settings expect (inside/paxos#a-write-step-by-step).

use trilemma_core::{Attempt, Command};

use super::harness::*;

fn far(cluster: &mut Paxi, one_way: u64, sync: u64) {
    cluster.faults.delay = (millis(one_way), millis(one_way));
    cluster.faults.disk = (millis(sync), millis(sync));
}

/// How long a write and a read take after it, in milliseconds.
fn times(cluster: &mut Paxi, seq: u64, key: &str) -> (u64, u64) {
    let start = cluster.now();
    let written = receipt(cluster.write(N1, seq, Command::put(key, "v")));
    assert!(written.succeeded);
    let middle = cluster.now();
    let read = cluster.get(N2, key);
    assert_eq!(trilemma_testkit::value(read.as_ref()), Ok(Some("v".into())));
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    (millis(middle - start), millis(cluster.now() - middle))
}

/// A round trip of 110 ms does not fit into the 100 ms that a phase gets at first.
#[test]
fn d6_nodes_that_are_far_apart_are_waited_for() {
    let mut cluster = cluster(3, 31);
    far(&mut cluster, 55, 1);
    let (write, read) = times(&mut cluster, 1, "a");
    assert!(write < 500, "the first write takes {write} ms");
    assert!(read < 500, "the first read takes {read} ms");
}

#[test]
fn d6_disks_that_are_slow_are_waited_for() {
    let mut cluster = cluster(3, 32);
    far(&mut cluster, 1, 110);
    let (write, read) = times(&mut cluster, 1, "a");
    assert!(write < 800, "the first write takes {write} ms");
    assert!(read < 500, "the first read takes {read} ms");
}

/// What was learned with one key holds for all.
#[test]
fn d6_how_long_answers_take_is_learned_once() {
    let mut cluster = cluster(3, 33);
    far(&mut cluster, 150, 20);
    let _ = times(&mut cluster, 1, "a");
    let sent = count(&mut cluster);
    let (write, _) = times(&mut cluster, 2, "b");
    assert!(write < 700, "two round trips take {write} ms");
    assert_eq!(
        (sent.borrow().prepares, sent.borrow().accepts),
        (2, 2),
        "nothing is repeated"
    );
}

/// What was learned fades: a lost message is soon noticed again.
#[test]
fn d6_where_answers_are_quick_again_a_loss_is_soon_noticed() {
    let mut cluster = cluster(3, 34);
    far(&mut cluster, 150, 20);
    let _ = times(&mut cluster, 1, "a");
    far(&mut cluster, 1, 1);
    for seq in 2..40 {
        let _ = times(&mut cluster, seq, "a");
    }
    let mut is_lost = false;
    lose(&mut cluster, move |_, _, message| {
        let now = has_accept(message) && !is_lost;
        is_lost = is_lost || has_accept(message);
        now
    });
    let (write, _) = times(&mut cluster, 40, "a");
    assert!(write < 150, "a write with a lost message takes {write} ms");
}

/// A node that has waited long for an absent majority does not go on waiting when it is back.
#[test]
fn d6_a_majority_that_is_back_is_asked_at_once() {
    let mut cluster = cluster(3, 35);
    // From the accept on their answers are lost, and nobody says that they are away: so the node learns to wait.
    let mut is_sent = false;
    lose(&mut cluster, move |_, to, message| {
        is_sent |= has_accept(message);
        is_sent && to == N1
    });
    let command = Command::put("a", "v");
    let ticket = cluster.propose(
        N1,
        trilemma_testkit::write(1, Attempt::First, command),
        60 * SECOND,
    );
    cluster.run_for(20 * SECOND);
    assert_eq!(cluster.reply(N1, ticket), None);
    cluster.cut(N1, N2);
    cluster.cut(N1, N3);
    cluster.run_for(SECOND);
    cluster.filter = None;
    cluster.heal();
    assert!(
        cluster.run_until(SECOND, |cluster| cluster.reply(N1, ticket).is_some()),
        "the phase goes on waiting"
    );
}
