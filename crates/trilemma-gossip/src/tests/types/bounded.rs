//! Bounded counters: the bound holds in every partition and over every loss.

use super::*;

fn rights(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Vec<(u32, u128)> {
    let reading = escrow(cluster, at, key);
    reading.rights().map(|(node, amount)| (node.0, amount)).collect()
}

fn spend(cluster: &mut Cluster<Gossip>, at: NodeId, seq: u64, amount: u64) -> Option<Reply> {
    cluster.write(at, seq, Command::update("stock", Update::Spend(amount)))
}

#[test]
fn a_node_takes_what_it_has_the_right_to_and_no_more() {
    let mut cluster = three(1);
    update(&mut cluster, N1, 1, "stock", Update::Grant(10));
    update(&mut cluster, N2, 2, "stock", Update::Grant(0));
    converge(&mut cluster, ms(1000));
    update(
        &mut cluster,
        N1,
        3,
        "stock",
        Update::Transfer { to: N2, amount: 4 },
    );
    converge(&mut cluster, ms(1000));
    assert_eq!(rights(&mut cluster, N3, "stock"), [(1, 6), (2, 4)]);
    split(&mut cluster);
    receipt(spend(&mut cluster, N1, 4, 6));
    receipt(spend(&mut cluster, N2, 5, 3));
    let reason = refusal(spend(&mut cluster, N1, 6, 1));
    assert_eq!(
        reason.to_string(),
        "not enough rights: node 1 may take 0 of bounded counter \"stock\", 1 were asked for; node 2 has 4"
    );
    assert!(reason.may_differ_elsewhere() && !reason.decides_operation());
    assert!(matches!(
        refusal(spend(&mut cluster, N3, 7, 1)),
        Reason::NotEnoughRights { here: 0, .. }
    ));
    heal(&mut cluster);
    assert_eq!(escrow(&mut cluster, N3, "stock").value, 1);
    assert_eq!(rights(&mut cluster, N1, "stock"), [(2, 1)]);
}

#[test]
fn the_rights_of_a_lost_disk_are_lost_and_nobody_takes_twice() {
    let mut cluster = three(2);
    update(&mut cluster, N1, 1, "stock", Update::Grant(10));
    converge(&mut cluster, ms(1000));
    split(&mut cluster);
    // The others never learn of it.
    receipt(spend(&mut cluster, N1, 2, 9));
    cluster.wipe(N1);
    cluster.restart(N1);
    heal(&mut cluster);
    assert!(matches!(
        refusal(spend(&mut cluster, N1, 3, 5)),
        Reason::NotEnoughRights { here: 0, .. }
    ));
    update(&mut cluster, N1, 4, "stock", Update::Grant(3));
    let reading = escrow(&mut cluster, N1, "stock");
    assert_eq!((reading.value, reading.lost), (13, 10));
    receipt(spend(&mut cluster, N1, 5, 3));
}

#[test]
fn rights_survive_restarts() {
    let mut cluster = three(3);
    update(&mut cluster, N1, 1, "stock", Update::Grant(10));
    for round in 0..5 {
        receipt(spend(&mut cluster, N1, 10 + round, 2));
        cluster.crash(N1);
        cluster.restart(N1);
        cluster.run_for(ms(200));
    }
    refusal(spend(&mut cluster, N1, 20, 1));
    converge(&mut cluster, ms(1000));
    assert_eq!(escrow(&mut cluster, N2, "stock").value, 0);
}

#[test]
fn what_could_break_the_bound_is_refused() {
    let mut cluster = three(4);
    update(&mut cluster, N1, 1, "stock", Update::Grant(10));
    let wrong = |reason: Reason| match reason {
        Reason::WrongType { why, .. } => why,
        other => panic!("{other}"),
    };
    assert!(wrong(refusal(cluster.write(N1, 2, Command::delete("stock")))).contains("cannot be deleted"));
    let to = |to| Command::update("stock", Update::Transfer { to, amount: 1 });
    assert!(wrong(refusal(cluster.write(N1, 3, to(N2)))).contains("grant 0 there first"));
    assert!(wrong(refusal(cluster.write(N1, 4, to(N1)))).contains("to itself"));
    let mut unsynced = cluster_with(2, 5, |config| config.durability = Durability::Os);
    unsynced.run_for(ms(500));
    let grant = Command::update("stock", Update::Grant(1));
    assert!(matches!(
        refusal(unsynced.write(N1, 1, grant)),
        Reason::Unsupported { .. }
    ));
}
