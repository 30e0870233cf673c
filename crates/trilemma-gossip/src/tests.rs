//! Whole clusters of the gossip backend in virtual time.

mod arrivals;
mod checkpoints;
mod differences;
mod exchange;
mod findings;
mod invariants;
mod lazy;
mod list;
mod reads;
mod rejoin;
mod scenarios;
mod seeds;
mod signatures;
mod turns;
mod types;
mod views;

use std::time::Duration;

use trilemma_core::{Command, NodeId, Query, ReadRequest, Receipt, Reply, Request};
use trilemma_testkit::{Cluster, value};

use crate::{Gossip, GossipConfig};

pub(super) const N1: NodeId = NodeId(1);
pub(super) const N2: NodeId = NodeId(2);
pub(super) const N3: NodeId = NodeId(3);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn cluster(size: u32, seed: u64) -> Cluster<Gossip> {
    cluster_with(size, seed, |_| {})
}

pub(super) fn cluster_with(
    size: u32,
    seed: u64,
    adjust: impl Fn(&mut GossipConfig) + 'static,
) -> Cluster<Gossip> {
    Cluster::new(size, seed, move |node, incarnation, seed| {
        let mut config = GossipConfig::new(node, incarnation, (1..=size).map(NodeId), seed);
        adjust(&mut config);
        Gossip::new(config)
    })
}

pub(super) fn receipt(reply: Option<Reply>) -> Receipt {
    match reply {
        Some(Reply::Write(Ok(receipt))) => receipt,
        other => panic!("expected a receipt, got {other:?}"),
    }
}

pub(super) fn put(cluster: &mut Cluster<Gossip>, at: NodeId, seq: u64, key: &str, value: &str) -> Receipt {
    receipt(cluster.write(at, seq, Command::put(key, value)))
}

pub(super) fn get(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Option<String> {
    value(cluster.get(at, key).as_ref()).expect("a local read always answers")
}

pub(super) fn siblings(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Vec<String> {
    let request = Request::Read(ReadRequest {
        query: Query::Siblings(key.into()),
        level: None,
    });
    match cluster.ask(at, request, ms(1000)) {
        Some(Reply::Read(Ok(read))) => read
            .entries
            .iter()
            .map(|entry| entry.state.value.to_string())
            .collect(),
        other => panic!("expected siblings, got {other:?}"),
    }
}

/// Whether all running nodes reflect the same changes and show the same.
pub(super) fn is_equal(cluster: &Cluster<Gossip>) -> bool {
    let up: Vec<NodeId> = cluster
        .ids()
        .into_iter()
        .filter(|id| cluster.is_up(*id))
        .collect();
    up.windows(2).all(|pair| {
        let [a, b] = [cluster.protocol(pair[0]), cluster.protocol(pair[1])];
        a.replica().context() == b.replica().context()
            && a.digest() == b.digest()
            && a.deferred() + b.deferred() == 0
    })
}

pub(super) fn converge(cluster: &mut Cluster<Gossip>, within: Duration) {
    assert!(
        cluster.run_until(within, is_equal),
        "the replicas differ after {within:?}"
    );
}

/// What each running node reflects and shows, for a failing test.
pub(super) fn picture(cluster: &Cluster<Gossip>) -> String {
    let up = cluster.ids().into_iter().filter(|id| cluster.is_up(*id));
    up.map(|id| {
        let gossip = cluster.protocol(id);
        let context = gossip.replica().context().to_wire(usize::MAX);
        let items: Vec<String> = gossip
            .replica()
            .all_items_after(None)
            .map(|item| {
                let observed: Vec<String> = item.observed.iter().map(|dot| dot.to_string()).collect();
                format!(
                    "\n  {} {}: {:?} at {}, observed {observed:?}",
                    item.key, item.dot, item.content, item.stamp.0
                )
            })
            .collect();
        format!(
            "\n{id}: {} deferred, {context:?}{}",
            gossip.deferred(),
            items.concat()
        )
    })
    .collect()
}
