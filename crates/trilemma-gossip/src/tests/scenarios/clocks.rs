//! Clocks that are wrong, ahead or back: nobody follows them, and nothing is lost.

use super::*;

/// inside/gossip#clock-ahead
#[test]
fn a_clock_one_year_ahead_moves_nobody_and_is_deferred() {
    let mut cluster = cluster(3, 12);
    put(&mut cluster, N2, 1, "k", "honest");
    cluster.set_wall_offset(N1, YEAR_MS);
    put(&mut cluster, N1, 2, "k", "future");
    put(&mut cluster, N1, 3, "other", "future");
    cluster.run_for(ms(5000));
    for node in [N2, N3] {
        assert_eq!(get(&mut cluster, node, "k").as_deref(), Some("honest"));
        assert_eq!(cluster.protocol(node).deferred(), 2);
        let ahead = cluster.protocol(node).clock().millis() as i64 - 1_700_000_000_000 - 10_000;
        assert!(ahead < 500, "the clock followed by {ahead} ms");
    }
    let before = put(&mut cluster, N3, 4, "z", "still works");
    assert!(before.version.0 >> 16 < 1_700_000_100_000);
    // inside/gossip#deferred-is-not-dropped: time passes, and what was deferred appears everywhere.
    for node in [N1, N2, N3] {
        cluster.set_wall_offset(node, YEAR_MS + 1000);
    }
    converge(&mut cluster, ms(3000));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("future"));
    assert_eq!(get(&mut cluster, N2, "other").as_deref(), Some("future"));
}

/// inside/gossip#deferred-is-not-dropped
#[test]
fn a_deferred_change_is_passed_on_and_kept_over_sync_and_restart() {
    let mut cluster = cluster(3, 13);
    cluster.filter = Some(Box::new(|from, to, _| {
        // Node 3 knows node 1 only through node 2.
        if from.0 + to.0 == 4 {
            Verdict::Drop
        } else {
            Verdict::Deliver
        }
    }));
    cluster.set_wall_offset(N1, HOUR_MS);
    cluster.set_wall_offset(N3, HOUR_MS);
    put(&mut cluster, N2, 1, "ahead", "before");
    put(&mut cluster, N1, 2, "ahead", "v");
    put(&mut cluster, N2, 3, "now", "v");
    cluster.run_for(ms(3000));
    let deferred = |cluster: &Cluster<Gossip>| [N1, N2, N3].map(|node| cluster.protocol(node).deferred());
    assert_eq!(deferred(&cluster), [0, 1, 0]);
    // A node whose clock is behind keeps nothing from the others.
    assert_eq!(get(&mut cluster, N3, "ahead").as_deref(), Some("v"));
    for checkpointed in [false, true] {
        if checkpointed {
            cluster.checkpoint(N2);
        }
        cluster.crash_losing_all(N2);
        cluster.cut(N1, N2);
        cluster.cut(N3, N2);
        cluster.restart(N2);
        assert_eq!(deferred(&cluster), [0, 1, 0], "kept, not fetched again");
        assert_eq!(get(&mut cluster, N2, "ahead").as_deref(), Some("before"));
        let clock = cluster.protocol(N2).clock().millis();
        assert!(
            clock < 1_700_000_100_000,
            "the clock follows what is deferred: {clock}, checkpointed {checkpointed}"
        );
    }
    cluster.heal();
    cluster.set_wall_offset(N2, HOUR_MS);
    converge(&mut cluster, ms(5000));
    assert_eq!(get(&mut cluster, N2, "ahead").as_deref(), Some("v"));
    assert_eq!(
        siblings(&mut cluster, N2, "ahead").len(),
        siblings(&mut cluster, N1, "ahead").len()
    );
}

#[test]
fn a_write_that_knows_nothing_of_a_deferred_change_is_concurrent_to_it() {
    let mut cluster = cluster_with(3, 39, |config| config.tombstone_age_min = ms(0));
    put(&mut cluster, N2, 1, "k", "before");
    converge(&mut cluster, ms(1000));
    cluster.set_wall_offset(N1, HOUR_MS);
    cluster.write(N1, 2, Command::delete("k"));
    cluster.run_for(ms(3000));
    assert_eq!(get(&mut cluster, N2, "k").as_deref(), Some("before"));
    let written = put(&mut cluster, N2, 3, "k", "meanwhile");
    assert!(written.version.0 >> 16 < 1_700_000_100_000);
    cluster.run_for(ms(10_000));
    assert_eq!(get(&mut cluster, N2, "k").as_deref(), Some("meanwhile"));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("meanwhile"));
    assert_eq!(get(&mut cluster, N1, "k"), None, "node 1 believes its own clock");
    // The delete was made before, but its stamp is newer; when its time comes it wins everywhere.
    for node in [N2, N3] {
        cluster.set_wall_offset(node, HOUR_MS);
    }
    converge(&mut cluster, ms(5000));
    for node in [N1, N2, N3] {
        assert_eq!(get(&mut cluster, node, "k"), None);
    }
    assert!(cluster.run_until(ms(30_000), |cluster| uncollected(cluster) == 0));
    assert!(is_equal(&cluster));
}

/// inside/gossip#clock-back
#[test]
fn a_clock_that_jumps_back_over_a_restart_issues_nothing_old() {
    for checkpointed in [false, true] {
        let mut cluster = cluster(1, 14);
        let mut last = put(&mut cluster, N1, 1, "k", "v").version;
        for seq in 2..10 {
            if checkpointed {
                cluster.checkpoint(N1);
            }
            cluster.crash_losing_all(N1);
            cluster.set_wall_offset(N1, -(seq as i64) * HOUR_MS);
            cluster.restart(N1);
            let next = put(&mut cluster, N1, seq, "k", "v").version;
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }
}
