//! Two nodes, a cut in each direction, a restart.

use super::*;
use crate::tests::caught;

const MS: Duration = Duration::from_millis(1);

struct Pair {
    now: Instant,
    a: Liveness,
    b: Liveness,
}

impl Pair {
    fn new() -> Self {
        let node = |incarnation, peer| {
            Liveness::new(
                LivenessConfig::default(),
                Incarnation(incarnation),
                [NodeId(peer)],
            )
        };
        Self {
            now: Instant::ZERO,
            a: node(1, 2),
            b: node(1, 1),
        }
    }

    fn run(&mut self, time: Duration, a_to_b: bool, b_to_a: bool) {
        let end = self.now + time;
        while self.now < end {
            let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
            self.a.tick(self.now, |_, ping| from_a.push(ping));
            self.b.tick(self.now, |_, ping| from_b.push(ping));
            self.now = self.now + MS;
            for ping in from_a.into_iter().filter(|_| a_to_b) {
                self.b.receive(self.now, NodeId(1), ping);
            }
            for ping in from_b.into_iter().filter(|_| b_to_a) {
                self.a.receive(self.now, NodeId(2), ping);
            }
        }
    }

    fn connected(&self) -> (bool, bool) {
        (
            self.a.view().is_connected(NodeId(2)),
            self.b.view().is_connected(NodeId(1)),
        )
    }
}

#[test]
fn two_nodes_connect_and_a_cut_in_either_direction_parts_both() {
    for (a_to_b, b_to_a) in [(false, true), (true, false), (false, false)] {
        let mut pair = Pair::new();
        assert_eq!(pair.connected(), (false, false));
        pair.run(200 * MS, true, true);
        assert_eq!(pair.connected(), (true, true));
        pair.run(400 * MS, a_to_b, b_to_a);
        assert_eq!(
            pair.connected(),
            (false, false),
            "a one-way cut is a cut: {a_to_b} {b_to_a}"
        );
        pair.run(200 * MS, true, true);
        assert_eq!(pair.connected(), (true, true), "healed");
    }
}

#[test]
fn a_restart_is_reported_even_though_the_peer_never_seemed_away() {
    let mut pair = Pair::new();
    pair.run(200 * MS, true, true);
    pair.b = Liveness::new(LivenessConfig::default(), Incarnation(2), [NodeId(1)]);
    let ping = Ping {
        incarnation: Incarnation(2),
        number: 1,
        echo: None,
    };
    let view = pair
        .a
        .receive(pair.now, NodeId(2), ping)
        .expect("a new incarnation is news");
    assert_eq!(
        view.peers[&NodeId(2)],
        Peer {
            incarnation: Incarnation(2),
            connected: false
        }
    );
    let old = Ping {
        incarnation: Incarnation(1),
        number: 99,
        echo: None,
    };
    assert!(
        pair.a.receive(pair.now, NodeId(2), old).is_none(),
        "a ping of the former incarnation is stale"
    );
}

#[test]
fn a_node_that_hears_nobody_reports_it_once() {
    let mut node = Liveness::new(LivenessConfig::default(), Incarnation(1), [NodeId(2), NodeId(3)]);
    let ticks = (0..1000_u64).map(|millis| Instant::ZERO + Duration::from_millis(7000 + millis));
    let views: Vec<(Instant, PeerView)> = ticks
        .filter_map(|now| Some((now, node.tick(now, |_, _| ())?)))
        .collect();
    let [(at, view)] = &views[..] else {
        panic!("one view, not {views:?}");
    };
    assert_eq!(
        *at,
        Instant::ZERO + Duration::from_millis(7301),
        "after one timeout"
    );
    assert!(view.peers.is_empty());
}

#[test]
fn the_check_sees_a_node_that_counts_as_connected_without_proof() {
    let mut pair = Pair::new();
    pair.a.check(pair.now);
    pair.a.peers.get_mut(&NodeId(2)).expect("a peer").connected = true;
    assert!(caught(|| pair.a.check(pair.now)).contains("counts as connected and has echoed nothing"));
    let contact = pair.a.peers.get_mut(&NodeId(2)).expect("a peer");
    contact.proven = Some(Instant::ZERO);
    assert!(caught(|| pair.a.check(pair.now)).contains("was never heard"));
}

#[test]
fn the_check_sees_numbers_that_were_not_given_out_and_too_many_of_them() {
    let mut pair = Pair::new();
    let contact = pair.a.peers.get_mut(&NodeId(2)).expect("a peer");
    contact.sent.push_back((1, Instant::ZERO));
    assert!(caught(|| pair.a.check(pair.now)).contains("number 1 was given out"));
    let contact = pair.a.peers.get_mut(&NodeId(2)).expect("a peer");
    contact.next_number = 100;
    contact.sent = (1..=100).map(|number| (number, Instant::ZERO)).collect();
    assert!(caught(|| pair.a.check(pair.now)).contains("is bounded"));
}

#[test]
fn the_check_sees_an_echo_from_the_future() {
    let mut pair = Pair::new();
    let contact = pair.a.peers.get_mut(&NodeId(2)).expect("a peer");
    contact.incarnation = Some(Incarnation(1));
    contact.proven = Some(pair.now + Duration::from_millis(1));
    assert!(caught(|| pair.a.check(pair.now)).contains("has echoed what is sent at"));
}
