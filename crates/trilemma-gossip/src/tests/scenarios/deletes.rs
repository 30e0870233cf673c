//! Deletes: they wait for the absent, and what they removed does not return.

use super::*;

/// inside/gossip#tombstone-waits-for-all
#[test]
fn a_delete_waits_for_the_absent_and_resurrects_nothing() {
    let mut cluster = cluster_with(3, 16, |config| config.tombstone_age_min = ms(1000));
    for seq in 1..=20 {
        put(&mut cluster, N1, seq, &format!("k{seq}"), "v");
    }
    converge(&mut cluster, ms(1000));
    cluster.crash(N3);
    for seq in 1..=20 {
        assert!(
            cluster
                .write(N2, 100 + seq, Command::delete(format!("k{seq}")))
                .is_some()
        );
    }
    cluster.run_for(ms(60_000));
    assert!(
        uncollected(&cluster) >= 40,
        "a tombstone went while a member was away"
    );
    let status = cluster.protocol(N1).status(trilemma_core::Now::default());
    assert!(
        status
            .details
            .contains(&("stable frontier waits for".into(), "node 3".into())),
        "{status:?}"
    );
    cluster.restart(N3);
    converge(&mut cluster, ms(3000));
    assert_eq!(cluster.protocol(N3).replica().visible(), 0);
    assert!(
        cluster.run_until(ms(30_000), |cluster| uncollected(cluster) == 0),
        "tombstones stay"
    );
    assert_eq!(cluster.protocol(N1).replica().live(), 0);
    cluster.crash(N2);
    cluster.restart(N2);
    converge(&mut cluster, ms(3000));
    assert_eq!(cluster.protocol(N1).replica().visible(), 0);
}

/// inside/gossip#acknowledgement-ahead
#[test]
fn a_write_delayed_past_collection_does_not_return() {
    let mut cluster = cluster_with(3, 17, |config| config.tombstone_age_min = ms(500));
    cluster.run_for(ms(100));
    let mut delayed = false;
    cluster.filter = Some(Box::new(move |_, to, message| match message {
        Message::Rumors { items, .. } if to == N3 && !items.is_empty() && !delayed => {
            delayed = true;
            Verdict::Delay(ms(60_000))
        }
        Message::Rumors { .. } if to == N3 => Verdict::Drop,
        _ => Verdict::Deliver,
    }));
    put(&mut cluster, N1, 1, "k", "v");
    cluster.write(N1, 2, Command::delete("k"));
    let gone = |cluster: &Cluster<Gossip>| is_equal(cluster) && uncollected(cluster) == 0;
    assert!(cluster.run_until(ms(50_000), gone), "not collected");
    cluster.run_for(ms(61_000));
    assert!(is_equal(&cluster));
    assert_eq!(get(&mut cluster, N3, "k"), None);
}

#[test]
fn a_concurrent_write_meets_a_delete_by_stamp_in_any_order() {
    for newer_delete in [false, true] {
        let mut cluster = cluster_with(3, 18, |config| config.tombstone_age_min = ms(500));
        put(&mut cluster, N1, 1, "k", "base");
        converge(&mut cluster, ms(1000));
        cluster.split(&[N1]);
        cluster.run_for(ms(400));
        let change = |cluster: &mut Cluster<Gossip>, delete: bool| {
            if delete {
                cluster.write(N1, 2, Command::delete("k"));
            } else {
                put(cluster, N2, 3, "k", "kept");
            }
            cluster.run_for(ms(10));
        };
        change(&mut cluster, !newer_delete);
        change(&mut cluster, newer_delete);
        cluster.heal();
        converge(&mut cluster, ms(2000));
        let expected = (!newer_delete).then_some("kept");
        for at in [ms(0), ms(30_000)] {
            cluster.run_for(at);
            for node in [N1, N2, N3] {
                assert_eq!(get(&mut cluster, node, "k").as_deref(), expected);
            }
        }
        assert_eq!(uncollected(&cluster), 0);
    }
}
