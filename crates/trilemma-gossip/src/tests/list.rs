//! The list of what gossip is, sentence by sentence, each on whole clusters (inside/gossip#the-list).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use trilemma_core::host::GroupInput;
use trilemma_core::{Incarnation, Key, NotApplied, Protocol, Reason, WriteError, codec};
use trilemma_testkit::Verdict;

use super::*;
use crate::message::Message;

const N4: NodeId = NodeId(4);

/// Who sent whom of which key.
type Sent = Rc<RefCell<Vec<(NodeId, NodeId, Key)>>>;

/// Notes every change that rumors bring from now on.
fn listen(cluster: &mut Cluster<Gossip>) -> Sent {
    let sent = Sent::default();
    let seen = Rc::clone(&sent);
    cluster.filter = Some(Box::new(move |from, to, message| {
        if let Message::Rumors { items, .. } = message {
            let keys = items.iter().map(|item| (from, to, item.key.clone()));
            seen.borrow_mut().extend(keys);
        }
        Verdict::Deliver
    }));
    sent
}

/// Drops what `drop` says of rumors, and everything else: what a node learns, it learns from rumors.
fn only_rumors(cluster: &mut Cluster<Gossip>, mut passes: impl FnMut(NodeId, NodeId) -> bool + 'static) {
    cluster.filter = Some(Box::new(move |from, to, message| match message {
        Message::Rumors { .. } if passes(from, to) => Verdict::Deliver,
        _ => Verdict::Drop,
    }));
}

fn large(config: &mut GossipConfig) {
    config.flush_peers_max = 0;
}

fn why(cluster: &Cluster<Gossip>, node: NodeId) -> String {
    cluster.protocol(node).status(trilemma_core::Now::default()).why
}

#[test]
fn at_each_tick_a_node_tells_as_many_random_nodes_as_its_fanout() {
    let mut cluster = cluster_with(12, 1, |config| {
        large(config);
        config.fanout = 2;
    });
    cluster.run_for(ms(200));
    let sent = listen(&mut cluster);
    put(&mut cluster, N1, 1, "k", "v");
    let of_one = |sent: &Sent| -> Vec<NodeId> {
        let sent = sent.borrow();
        sent.iter()
            .filter(|(from, ..)| *from == N1)
            .map(|(_, to, _)| *to)
            .collect()
    };
    assert_eq!(of_one(&sent).len(), 2, "at once");
    cluster.run_for(ms(100));
    assert!(of_one(&sent).len() <= 4, "and at the next tick");
    for seq in 2..=60 {
        put(&mut cluster, N1, seq, &format!("k{seq}"), "v");
        cluster.run_for(ms(100));
    }
    let everybody: BTreeSet<NodeId> = (2..=12).map(NodeId).collect();
    assert_eq!(of_one(&sent).into_iter().collect::<BTreeSet<_>>(), everybody);
}

/// Groups {1, 2, 3} and {4, 5, 6}: every message of 1 goes to 2 and 3 in its tick.
#[test]
fn members_of_my_group_always_receive() {
    let mut cluster = cluster_with(6, 2, |config| {
        large(config);
        config.fanout = 1;
        let group = if config.node.0 <= 3 { 1..=3 } else { 4..=6 };
        config.mates = group.map(NodeId).collect();
    });
    cluster.run_for(ms(200));
    let sent = listen(&mut cluster);
    for seq in 1..=40 {
        let key = format!("k{seq}");
        put(&mut cluster, N1, seq, &key, "v");
        cluster.run_for(ms(100));
        let sent = sent.borrow();
        for mate in [N2, N3] {
            let is_sent = sent.iter().any(|sent| *sent == (N1, mate, key.as_str().into()));
            assert!(is_sent, "{mate} was not sent {key}: {sent:?}");
        }
    }
    // And whom others tell, tells its own group: node 4, 5 and 6 learn of all from each other.
    cluster.filter = None;
    converge(&mut cluster, ms(3000));
}

/// The top 20 % of ten senders are two: those that were first most often.
#[test]
fn the_nodes_that_send_me_most_news_receive() {
    let mut cluster = cluster_with(11, 3, |config| {
        large(config);
        (config.fanout, config.top_senders_percent) = (6, 20);
    });
    // All tell node 1 something; nodes 2 and 3 tell most of what it hears first.
    for round in 0..12 {
        for node in 2..=11 {
            let writes = if node <= 3 { 5 } else { 1 };
            for write in 0..writes {
                let key = format!("{node}-{round}-{write}");
                let seq = u64::from(node) * 1000 + round * 10 + write;
                put(&mut cluster, NodeId(node), seq, &key, "v");
            }
        }
        only_rumors(&mut cluster, |from, to| to == N1 && from != N1);
        cluster.run_for(ms(100));
    }
    let sent = listen(&mut cluster);
    for seq in 1..=10 {
        let key = format!("mine-{seq}");
        put(&mut cluster, N1, seq, &key, "v");
        for useful in [N2, N3] {
            let expected = (N1, useful, key.as_str().into());
            assert!(sent.borrow().contains(&expected), "{useful} was not sent {key}");
        }
    }
    let targets: BTreeSet<NodeId> = sent.borrow().iter().map(|(_, to, _)| *to).collect();
    assert!(targets.len() > 6, "the others are random: {targets:?}");
}

#[test]
fn at_least_one_target_is_random() {
    let mut cluster = cluster_with(8, 4, |config| {
        large(config);
        (config.fanout, config.top_senders_percent) = (2, 100);
        config.mates = (1..=2).map(NodeId).collect();
    });
    cluster.run_for(ms(100));
    put(&mut cluster, N3, 1, "k", "v");
    converge(&mut cluster, ms(3000));
    let sent = listen(&mut cluster);
    for seq in 2..=200 {
        put(&mut cluster, N1, seq, "k", "v");
    }
    let targets: BTreeSet<NodeId> = sent.borrow().iter().map(|(_, to, _)| *to).collect();
    assert_eq!(targets, (2..=8).map(NodeId).collect());
}

#[test]
fn a_message_heard_from_one_source_is_invisible_from_two_visible() {
    let mut cluster = cluster_with(4, 5, |config| config.vouchers = 2);
    cluster.run_for(ms(50));
    only_rumors(&mut cluster, |from, to| (from, to) == (N1, N3));
    put(&mut cluster, N1, 1, "k", "v");
    cluster.run_for(ms(1000));
    assert_eq!(
        get(&mut cluster, N1, "k").as_deref(),
        Some("v"),
        "the node that made it"
    );
    assert_eq!(get(&mut cluster, N3, "k"), None, "heard from one");
    only_rumors(&mut cluster, |from, to| (from, to) == (N1, N2));
    put(&mut cluster, N1, 2, "k2", "v");
    cluster.run_for(ms(50));
    // Relay on hearing: node 2 passes on what it does not show yet, and with node 1 that makes two sources.
    only_rumors(&mut cluster, |_, to| to == N3);
    cluster.run_for(ms(400));
    assert_eq!(get(&mut cluster, N2, "k2"), None);
    assert_eq!(
        get(&mut cluster, N3, "k2").as_deref(),
        Some("v"),
        "heard from two"
    );
    cluster.filter = None;
    converge(&mut cluster, ms(5000));
}

#[test]
fn a_message_of_a_trusted_node_counts_at_once() {
    let mut cluster = cluster_with(4, 6, |config| {
        config.vouchers = 3;
        config.trusted = [N2].into();
    });
    cluster.run_for(ms(50));
    only_rumors(&mut cluster, |from, to| {
        (from, to) == (N2, N3) || (from, to) == (N1, N2)
    });
    put(&mut cluster, N2, 1, "k", "v");
    cluster.run_for(ms(50));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("v"));
    put(&mut cluster, N1, 2, "j", "v");
    cluster.run_for(ms(500));
    assert_eq!(
        get(&mut cluster, N3, "j"),
        None,
        "node 2 itself does not believe node 1 alone, and it is one of two"
    );
    cluster.filter = None;
    converge(&mut cluster, ms(5000));
}

/// With the list of nodes that may write: others are refused where they write, and where they are believed to have.
#[test]
fn an_origin_that_is_not_on_the_list_is_never_applied_and_is_named() {
    let mut cluster = cluster_with(3, 7, |config| {
        // Node 3 does not know the rule, or does not keep it.
        config.origins = (config.node != N3).then(|| [N1].into());
    });
    put(&mut cluster, N3, 1, "k", "forged");
    put(&mut cluster, N1, 2, "j", "true");
    match cluster.write(N2, 3, Command::put("j", "v")) {
        Some(Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. })))) => {
            let origins = trilemma_core::NodeSet::of(N1);
            assert_eq!(reason, Reason::NotAnOrigin { node: N2, origins });
            assert!(reason.may_differ_elsewhere() && !reason.decides_operation());
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    cluster.run_for(ms(5000));
    for node in [N1, N2] {
        assert_eq!(get(&mut cluster, node, "k"), None);
        assert_eq!(get(&mut cluster, node, "j").as_deref(), Some("true"));
        let why = why(&cluster, node);
        assert!(why.contains("changes of node 3, which may not write"), "{why}");
    }
}

#[test]
fn a_change_in_two_versions_is_named() {
    let mut cluster = cluster_with(4, 8, |config| config.vouchers = 2);
    cluster.run_for(ms(50));
    put(&mut cluster, N1, 1, "k", "true");
    cluster.run_for(ms(2)); // All have heard it once.
    let Some(item) = cluster
        .protocol(N1)
        .replica()
        .all_items_after(None)
        .next()
        .cloned()
    else {
        panic!("node 1 has its own change");
    };
    let forged = crate::replica::Item {
        content: Some("forged".into()),
        ..item
    };
    let message = Message::Rumors {
        context: None,
        items: vec![forged],
    };
    let bytes = codec::encode(&message);
    cluster.input(N3, GroupInput::Receive { from: N4, bytes });
    cluster.run_for(ms(1));
    let why = why(&cluster, N3);
    assert!(why.contains("1 changes of node 1 came in two versions"), "{why}");
    converge(&mut cluster, ms(5000));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("true"));
}

#[test]
fn the_newest_wins() {
    let mut cluster = cluster(3, 9);
    cluster.split(&[N1]);
    cluster.run_for(ms(500));
    put(&mut cluster, N2, 1, "k", "older");
    cluster.run_for(ms(100));
    put(&mut cluster, N1, 2, "k", "newer");
    cluster.heal();
    converge(&mut cluster, ms(3000));
    for node in [N1, N2, N3] {
        assert_eq!(get(&mut cluster, node, "k").as_deref(), Some("newer"));
    }
}

#[test]
fn there_is_no_central_unit() {
    for absent in 1..=5 {
        let mut cluster = cluster(5, 10 + u64::from(absent));
        cluster.run_for(ms(200));
        cluster.crash(NodeId(absent));
        let others: Vec<NodeId> = (1..=5).filter(|id| *id != absent).map(NodeId).collect();
        for (seq, node) in (1..).zip(&others) {
            put(&mut cluster, *node, seq, &format!("k{node}"), "v");
        }
        converge(&mut cluster, ms(3000));
        cluster.restart(NodeId(absent));
        converge(&mut cluster, ms(5000));
        assert_eq!(cluster.protocol(NodeId(absent)).replica().visible(), 4);
    }
}

/// Vouchers under everything at once: loss, hot keys, batches, deletes, restarts and a lost disk.
#[test]
fn with_vouchers_replicas_converge_whatever_happens() {
    for seed in 0..20 {
        let mut cluster = cluster_with(5, 100 + seed, move |config| {
            config.vouchers = 2 + u32::from(seed % 2 == 0);
            config.tombstone_age_min = ms(1000);
            config.flush_peers_max = if seed % 3 == 0 { 0 } else { 8 };
        });
        cluster.faults.loss = 200;
        let mut seq = 0;
        for round in 0..60_u64 {
            let node = NodeId(1 + (round % 5) as u32);
            seq += 1;
            let _sent = cluster.write(
                node,
                seq,
                Command::put(format!("hot{}", round % 3), round.to_string().as_str()),
            );
            seq += 1;
            let _sent = cluster.write(node, seq, Command::delete(format!("hot{}", (round + 1) % 3)));
            match round {
                20 => cluster.crash(N2),
                25 => cluster.restart(N2),
                30 => cluster.split(&[N1, N2]),
                40 => cluster.heal(),
                _ => {}
            }
            cluster.run_for(ms(50));
        }
        cluster.faults.loss = 0;
        let is_equal = cluster.run_until(ms(30_000), is_equal);
        assert!(is_equal, "seed {seed}: {}", picture(&cluster));
        let held: BTreeMap<NodeId, usize> = cluster
            .ids()
            .into_iter()
            .map(|id| (id, cluster.protocol(id).vouching.len()))
            .collect();
        cluster.run_for(ms(10_000));
        let intervals = cluster.protocol(N1).replica().context().intervals();
        assert!(intervals <= 12, "{intervals} intervals, held {held:?}");
    }
}

#[test]
fn more_vouchers_than_peers_are_brought_into_range() {
    let mut config = GossipConfig::new(N1, Incarnation(1), [N1, N2, N3], 1);
    config.vouchers = 7;
    assert_eq!(Gossip::new(config).config().vouchers, 2);
}
