//! Large changes are named to all, and fetched once by each (inside/gossip#large-changes).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use trilemma_core::host::GroupInput;
use trilemma_core::{Incarnation, Protocol, codec};
use trilemma_testkit::Verdict;

use super::*;
use crate::dot::Dot;
use crate::message::Message;

const LARGE: usize = 4096;

/// Messages that were sent, by kind, and changes in them.
#[derive(Default)]
struct Counts {
    bodies: usize,
    names: usize,
    fetches: BTreeMap<NodeId, usize>,
}

type Counted = Rc<RefCell<Counts>>;

/// A cluster in which nobody compares and nobody is sent everything at once, and what it sends.
fn lazy(size: u32, seed: u64, adjust: impl Fn(&mut GossipConfig) + 'static) -> (Cluster<Gossip>, Counted) {
    let mut cluster = cluster_with(size, seed, move |config| {
        config.flush_peers_max = 0;
        config.sync_ticks = 1_000_000;
        config.tick = ms(50);
        adjust(config);
    });
    let counted = Counted::default();
    let seen = Rc::clone(&counted);
    cluster.run_for(ms(500));
    cluster.filter = Some(Box::new(move |_, to, message| {
        let mut counts = seen.borrow_mut();
        match message {
            Message::Rumors { items, .. } => counts.bodies += items.len(),
            Message::Advertise { commands } => counts.names += commands.len(),
            Message::Fetch { .. } => *counts.fetches.entry(to).or_default() += 1,
            _ => {}
        }
        Verdict::Deliver
    }));
    (cluster, counted)
}

fn put_large(cluster: &mut Cluster<Gossip>, seq: u64) {
    put(cluster, N1, seq, &format!("k{seq}"), &"v".repeat(LARGE));
}

#[test]
fn each_node_gets_a_large_change_once() {
    let (mut cluster, counted) = lazy(60, 1, |_| {});
    put_large(&mut cluster, 1);
    converge(&mut cluster, ms(5000));
    cluster.run_for(ms(2000));
    let bodies = counted.borrow().bodies;
    assert!((59..=64).contains(&bodies), "{bodies} bodies for 59 nodes");
}

#[test]
fn with_loss_each_node_gets_a_large_change_little_more_than_once() {
    let mut bodies = 0;
    for seed in 0..4 {
        let (mut cluster, counted) = lazy(40, seed, |_| {});
        cluster.faults.loss = 100;
        put_large(&mut cluster, 1);
        converge(&mut cluster, ms(5000));
        cluster.run_for(ms(2000));
        bodies += counted.borrow().bodies;
    }
    assert!((156..=202).contains(&bodies), "{bodies} bodies for 156 nodes");
}

#[test]
fn a_small_change_is_sent_and_not_named() {
    let (mut cluster, counted) = lazy(20, 2, |_| {});
    put(&mut cluster, N1, 1, "k", "v");
    converge(&mut cluster, ms(5000));
    assert_eq!(counted.borrow().names, 0);
    assert!(counted.borrow().fetches.is_empty());
}

/// What the origin sends at once is lost, and it dies after it has named its change to two.
#[test]
fn who_gets_no_answer_asks_the_next_that_has_named_it() {
    let (mut cluster, counted) = lazy(4, 3, |config| config.fanout = 3);
    let seen = Rc::clone(&counted);
    // Node 1 sends nobody but node 2, and node 2 is deaf to the first that asks.
    let refused = Rc::new(RefCell::new(None));
    cluster.filter = Some(Box::new(move |from, to, message| match message {
        Message::Rumors { items, .. } if from == N1 && !items.is_empty() && to != N2 => Verdict::Drop,
        Message::Fetch { .. } => {
            *seen.borrow_mut().fetches.entry(to).or_default() += 1;
            let first = *refused.borrow_mut().get_or_insert((from, to));
            if first == (from, to) {
                Verdict::Drop
            } else {
                Verdict::Deliver
            }
        }
        _ => Verdict::Deliver,
    }));
    put_large(&mut cluster, 1);
    converge(&mut cluster, ms(3000));
    assert!(counted.borrow().fetches.len() > 1, "others were asked");
}

#[test]
fn a_change_that_needs_vouchers_is_fetched_from_as_many() {
    let (mut cluster, counted) = lazy(12, 4, |config| config.vouchers = 2);
    put_large(&mut cluster, 1);
    converge(&mut cluster, ms(5000));
    let bodies = counted.borrow().bodies;
    assert!((22..=40).contains(&bodies), "{bodies} bodies for 11 nodes");
}

/// A peer names a change in every tick: that it did so twice does not make two sources of it.
#[test]
fn who_names_a_change_again_is_not_asked_again_for_another_voucher() {
    let (mut cluster, counted) = lazy(4, 8, |config| config.vouchers = 2);
    let seen = Rc::clone(&counted);
    cluster.filter = Some(Box::new(move |_, to, message| {
        if let Message::Fetch { .. } = message {
            *seen.borrow_mut().fetches.entry(to).or_default() += 1;
            return Verdict::Drop;
        }
        Verdict::Deliver
    }));
    let named = Dot::new(N2, Incarnation(77), 7);
    for _ in 0..2 {
        advertise(&mut cluster, N2, vec![(named, 1)]);
        cluster.run_for(ms(20));
    }
    assert_eq!(counted.borrow().fetches, BTreeMap::from([(N2, 1)]));
    advertise(&mut cluster, N3, vec![(named, 1)]);
    cluster.run_for(ms(20));
    assert_eq!(counted.borrow().fetches, BTreeMap::from([(N2, 1), (N3, 1)]));
}

fn advertise(cluster: &mut Cluster<Gossip>, from: NodeId, commands: Vec<(Dot, u16)>) {
    let bytes = codec::encode(&Message::Advertise { commands });
    cluster.input(N1, GroupInput::Receive { from, bytes });
}

#[test]
fn invented_names_take_bounded_room_and_are_forgotten() {
    let mut cluster = cluster(3, 5);
    cluster.run_for(ms(300));
    for page in 0..20 {
        let invented = (1..=4096).map(|seq| (Dot::new(N2, Incarnation(77), page * 5000 + seq), 1));
        advertise(&mut cluster, N2, invented.collect());
    }
    assert_eq!(cluster.protocol(N1).fetches.len(), 4096);
    // Another's names have their own room, and its change comes.
    put(&mut cluster, N3, 1, "k", &"v".repeat(LARGE));
    cluster.run_for(ms(1000));
    assert_eq!(get(&mut cluster, N1, "k"), Some("v".repeat(LARGE)));
    assert_eq!(cluster.protocol(N1).fetches.len(), 0);
}

#[test]
fn names_that_cannot_be_are_ignored() {
    let mut cluster = cluster(3, 6);
    cluster.run_for(ms(300));
    let own = cluster.protocol(N1).config().incarnation;
    for command in [
        (Dot::new(N2, Incarnation(1), 0), 1),
        (Dot::new(N2, Incarnation(1), 1), 0),
        (Dot::new(N2, Incarnation(1), 1), u16::MAX),
        (Dot::new(N1, own, 1000), 1),
    ] {
        advertise(&mut cluster, N2, vec![command]);
        assert_eq!(cluster.protocol(N1).fetches.len(), 0, "{command:?}");
    }
    // The last one claims a change that node 1 never made.
    let status = cluster.protocol(N1).status(trilemma_core::Now::default());
    assert!(status.why.contains("identity"), "{}", status.why);
}

/// What a node has written leaves when it is durable, no matter who asks for it.
#[test]
fn a_change_that_is_not_durable_is_not_given_to_who_asks() {
    let (mut cluster, counted) = lazy(3, 7, |_| {});
    cluster.hold_disk(N1, true);
    let command = Command::put("k", "v".repeat(LARGE));
    cluster.propose(
        N1,
        trilemma_testkit::write(1, trilemma_core::Attempt::First, command),
        ms(1000),
    );
    cluster.run_for(ms(10));
    let of_one = cluster.protocol(N1).replica().all_items_after(None).next();
    let dot = of_one.expect("the write shows at its node").dot;
    let bytes = codec::encode(&Message::Fetch {
        commands: vec![(dot, 1)],
    });
    cluster.input(N1, GroupInput::Receive { from: N2, bytes });
    cluster.run_for(ms(500));
    assert_eq!(counted.borrow().bodies, 0);
    cluster.hold_disk(N1, false);
    converge(&mut cluster, ms(1000));
}
