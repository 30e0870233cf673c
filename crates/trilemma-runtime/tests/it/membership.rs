//! Members that find out who of them works: SWIM between whole nodes.

use std::time::Duration;

use trilemma_core::NodeId;
use trilemma_runtime::{MemberOverview, MemberState, MembershipOverview, MembershipSettings, NodeConfig};

use crate::cluster::Cluster;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// Longest wait for what must come: machines may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

fn with_members(config: &mut NodeConfig) {
    config.membership = Some(MembershipSettings {
        zone: format!("zone-{}", config.node),
        ..MembershipSettings::default()
    });
}

async fn members(cluster: &Cluster, id: NodeId) -> MembershipOverview {
    let members = cluster.members(id).await;
    members.expect("membership is configured")
}

/// Waits until a node believes this of a member.
async fn until(
    cluster: &Cluster,
    at: NodeId,
    member: NodeId,
    holds: impl Fn(&MemberOverview) -> bool,
) -> MemberOverview {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let found = members(cluster, at).await.members;
            if let Some(found) = found
                .into_iter()
                .find(|found| found.node == member && holds(found))
            {
                return found;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    match waited.await {
        Ok(found) => found,
        Err(_) => panic!("node {at} of {member}: {:?}", members(cluster, at).await),
    }
}

#[tokio::test]
async fn a_killed_node_is_dead_for_all_and_comes_back_with_a_greater_epoch() {
    let cluster = Cluster::start_with(with_members).await;
    for at in [ONE, TWO, THREE] {
        for member in [ONE, TWO, THREE] {
            let alive = |found: &MemberOverview| found.state == MemberState::Alive;
            let found = until(&cluster, at, member, alive).await;
            assert_eq!((found.epoch, found.zone), (1, format!("zone-{member}")));
        }
    }
    // Probes are answered, and each answer is timed.
    until(&cluster, ONE, THREE, |found| found.round_trip_micros.is_some()).await;
    cluster.take(THREE).abort().await;
    for at in [ONE, TWO] {
        until(&cluster, at, THREE, |found| found.state == MemberState::Dead).await;
        let counts = members(&cluster, at).await.counts;
        assert!(
            counts.died >= 1 && counts.sent_bytes > 0 && counts.received_bytes > 0,
            "{counts:?}"
        );
    }
    cluster.start_node(THREE).await.expect("it starts again");
    for at in [ONE, TWO, THREE] {
        let found = until(&cluster, at, THREE, |found| {
            found.state == MemberState::Alive && found.epoch > 1
        });
        assert_eq!(found.await.epoch, 2, "an epoch for each start");
    }
}

/// One cut off learns of nobody, and nobody of it; both sides find each other again without help.
#[tokio::test]
async fn a_node_that_was_cut_off_refutes_its_death() {
    let cluster = Cluster::start_with(with_members).await;
    for (at, member) in [(ONE, THREE), (TWO, THREE), (THREE, ONE)] {
        until(&cluster, at, member, |found| found.state == MemberState::Alive).await;
    }
    cluster.cut(Some(THREE));
    for (at, member) in [(ONE, THREE), (TWO, THREE), (THREE, ONE)] {
        until(&cluster, at, member, |found| found.state == MemberState::Dead).await;
    }
    cluster.cut(None);
    for (at, member) in [(ONE, THREE), (TWO, THREE), (THREE, ONE)] {
        until(&cluster, at, member, |found| found.state == MemberState::Alive).await;
    }
    let found = until(&cluster, ONE, THREE, |found| found.state == MemberState::Alive).await;
    assert!(found.epoch == 1 && found.counter > 0, "the same run: {found:?}");
}

#[tokio::test]
async fn a_node_without_membership_knows_of_none_and_disturbs_no_other() {
    let cluster = Cluster::start_with(|config| {
        if config.node != THREE {
            with_members(config);
        }
    })
    .await;
    until(&cluster, ONE, TWO, |found| found.state == MemberState::Alive).await;
    assert_eq!(cluster.members(THREE).await, None);
    let known = members(&cluster, ONE).await.members;
    assert!(known.iter().all(|found| found.node != THREE), "{known:?}");
}
