//! Every node times what reaches it, and compares that with its own prediction (inside/gossip#measured-on-every-node).

use trilemma_core::{LiveStatus, Now, Protocol, WallTime};

use super::*;

/// Nodes, none of which is sent everything at once.
const NODES: u32 = 40;

fn status(cluster: &Cluster<Gossip>, node: NodeId) -> LiveStatus {
    let now = Now {
        instant: cluster.now(),
        wall: WallTime(0),
    };
    cluster.protocol(node).status(now)
}

/// A figure of a node's status.
fn figure(cluster: &Cluster<Gossip>, node: NodeId, name: &str) -> String {
    let details = status(cluster, node).details;
    let found = details.into_iter().find(|(key, _)| key == name);
    found.expect("a figure of the status").1
}

/// Some hundred writes at all nodes in turn, and time for each to reach everybody.
fn write_on(cluster: &mut Cluster<Gossip>, from: u64) {
    for seq in from..from + 240 {
        let at = NodeId((seq % u64::from(NODES)) as u32 + 1);
        put(cluster, at, seq, &format!("k{seq}"), "v");
        cluster.run_for(ms(37));
    }
    cluster.run_for(ms(3000));
}

fn quiet(adjust: impl Fn(&mut GossipConfig) + 'static) -> Cluster<Gossip> {
    let mut cluster = cluster_with(NODES, 5, move |config| {
        config.sync_ticks = 1_000_000;
        config.loss = 0.0;
        adjust(config);
    });
    cluster.run_for(ms(500));
    cluster
}

#[test]
fn a_node_measures_what_it_has_predicted() {
    let mut cluster = quiet(|_| {});
    assert_eq!(figure(&cluster, N1, "measured arrival ms"), "none");
    write_on(&mut cluster, 1);
    let ratios: Vec<u64> = cluster
        .ids()
        .into_iter()
        .map(|node| figure(&cluster, node, "arrival, measured in percent of predicted"))
        .map(|text| text.parse().expect("a number"))
        .collect();
    let mean = ratios.iter().sum::<u64>() as f64 / ratios.len() as f64;
    assert!((85.0..115.0).contains(&mean), "{mean} %: {ratios:?}");
    assert!(cluster.ids().into_iter().all(|node| !is_slow(&cluster, node)));
}

fn is_slow(cluster: &Cluster<Gossip>, node: NodeId) -> bool {
    status(cluster, node).why.contains("were predicted")
}

#[test]
fn a_node_says_when_changes_take_longer_than_it_has_predicted() {
    let mut cluster = quiet(|_| {});
    cluster.faults.loss = 600;
    write_on(&mut cluster, 1);
    assert!(is_slow(&cluster, N1), "{}", status(&cluster, N1).why);
    cluster.faults.loss = 0;
    write_on(&mut cluster, 1000);
    assert!(!is_slow(&cluster, N1), "{}", status(&cluster, N1).why);
}
