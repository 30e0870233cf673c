//! What an exchange costs before bodies (inside/gossip#finding-what-differs): bytes and round trips between two nodes that hold
//! the same but for `d` changes.
//!
//! The row of the list: *synchronising 1,000,000 keys with d differences: at most 1.6 × 26 bytes × d + 1 kB and one round trip;
//! d = 0: at most 64 bytes*. `TRILEMMA_KEYS=1000000 cargo test --release` runs it at that size; by default it is 20,000.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use trilemma_core::codec::{decode, encode};
use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::protocol::Peer;
use trilemma_core::{Incarnation, Instant, Message as _, Now, PeerView, Rng, WallTime};

use super::*;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::message::Message;
use crate::reconcile::Secret;
use crate::replica::{Item, Part, Replica};

/// Whose changes all are, but for those of tests.
const ORIGIN: NodeId = N3;

fn item(incarnation: u64, seq: u64, key: &str) -> Item {
    Item {
        dot: Dot::new(ORIGIN, Incarnation(1_700_000_000_000 + incarnation), seq),
        stamp: Stamp::at(WallTime(900_000)),
        key: key.into(),
        content: Some("a value".into()),
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

fn keys() -> u64 {
    let keys = std::env::var("TRILEMMA_KEYS").ok();
    keys.map_or(20_000, |keys| keys.parse().expect("a number of keys"))
}

/// A state with all keys. A clone shares memory.
fn base() -> Replica {
    static BASE: OnceLock<Replica> = OnceLock::new();
    let build = || {
        let mut replica = Replica::new(Secret::default());
        for seq in 1..=keys() {
            replica.join(&item(0, seq, &format!("key/{seq}")));
        }
        replica
    };
    BASE.get_or_init(build).clone()
}

/// Two nodes, and all that they send each other.
struct Pair {
    hosts: BTreeMap<NodeId, Host<Gossip>>,
    now: Now,
    output: Output,
    under_way: Vec<(NodeId, NodeId, Vec<u8>)>,
    /// Bytes and number of messages of each kind; of pages without their changes.
    kinds: BTreeMap<&'static str, (usize, usize)>,
    /// Bytes and number of changes in pages.
    bodies: (usize, usize),
}

impl Pair {
    /// Nodes with these states; the second one has lost its disk, if `is_blank`, and been given that state since.
    fn new(first: Replica, second: Replica, is_blank: bool) -> Self {
        Self::with(first, second, is_blank, |_| {})
    }

    fn with(first: Replica, second: Replica, is_blank: bool, adjust: impl Fn(&mut GossipConfig)) -> Self {
        let mut pair = Self {
            hosts: BTreeMap::new(),
            now: Now {
                instant: Instant::from_nanos(1),
                wall: WallTime(1_000_000),
            },
            output: Output::default(),
            under_way: Vec::new(),
            kinds: BTreeMap::new(),
            bodies: (0, 0),
        };
        for (node, replica) in [(N1, first), (N2, second)] {
            let mut config = GossipConfig::new(node, Incarnation(1_700_000_000_009), [N1, N2], 1);
            adjust(&mut config);
            let mut gossip = Gossip::new(config);
            gossip.store.replica = replica;
            if !is_blank || node == N1 {
                gossip.rejoin.note_found();
            }
            pair.hosts.insert(node, Host::new(gossip));
            pair.step(node, GroupInput::Start);
        }
        pair.deliver();
        pair
    }

    fn gossip(&self, node: NodeId) -> &Gossip {
        self.hosts[&node].protocol()
    }

    fn step(&mut self, node: NodeId, input: GroupInput) {
        let host = self.hosts.get_mut(&node).expect("one of the two");
        host.step(self.now, input, &mut self.output);
        host.step(self.now, GroupInput::EndTurn, &mut self.output);
        while host.goes_on() {
            host.step(self.now, GroupInput::EndTurn, &mut self.output);
        }
        while let Some(last) = self.output.records.pop() {
            self.output.records.clear();
            let up_to = last.seq;
            host.step(self.now, GroupInput::Persisted { up_to }, &mut self.output);
        }
        assert_eq!(self.output.rejected, None);
        for sent in self.output.sends.drain(..) {
            self.under_way.push((node, sent.to, sent.bytes.to_vec()));
        }
        self.output.clear();
    }

    /// Delivers everything, in order, until nothing is under way.
    fn deliver(&mut self) {
        while !self.under_way.is_empty() {
            let (from, to, bytes) = self.under_way.remove(0);
            self.note(&bytes);
            let bytes = bytes.into();
            self.step(to, GroupInput::Receive { from, bytes });
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        let message: Message = decode(bytes).expect("it decodes");
        let mut length = bytes.len();
        if let Message::Page { items, .. } = &message {
            let bodies: usize = items.iter().map(|item| encode(item).len()).sum();
            length -= bodies;
            self.bodies.0 += bodies;
            self.bodies.1 += items.len();
        }
        let (sum, count) = self.kinds.entry(message.kind()).or_default();
        *sum += length;
        *count += 1;
    }

    /// `node` gets to know that the other one can be reached, and finds out whether they differ.
    fn greet(&mut self, node: NodeId) {
        let other = if node == N1 { N2 } else { N1 };
        for connected in [false, true] {
            let peer = Peer {
                incarnation: Incarnation(1_700_000_000_009),
                connected,
            };
            let peers = [(other, peer)].into_iter().collect();
            self.step(node, GroupInput::Peers(PeerView { peers }));
        }
        self.deliver();
    }

    /// Bytes of all that was sent, but for changes.
    fn bytes(&self) -> usize {
        self.kinds.values().map(|(bytes, _)| bytes).sum()
    }

    fn count(&self, kind: &str) -> usize {
        self.kinds.get(kind).map_or(0, |(_, count)| *count)
    }

    fn assert_equal(&self) {
        let (one, other) = (self.gossip(N1), self.gossip(N2));
        assert_eq!(one.digest(), other.digest());
        assert_eq!(one.replica().context(), other.replica().context());
        assert_eq!(one.replica().live(), other.replica().live());
    }
}

/// The row, for the mean of some exchanges: how many symbols are needed is a matter of chance, and estimated. At least
/// eight of ten take one round trip.
#[derive(Default)]
struct Row {
    exchanges: usize,
    one_round_trip: usize,
}

impl Row {
    /// Exchanges of so many differences.
    fn add(&mut self, differences: usize, exchanges: &[Pair]) {
        let limit = differences * 26 * 8 / 5 + 1000;
        let bytes = exchanges.iter().map(Pair::bytes).sum::<usize>() / exchanges.len();
        assert!(
            bytes <= limit,
            "{bytes} bytes for {differences} differences, more than {limit}: {:?}",
            exchanges[0].kinds
        );
        let is_one = |pair: &&Pair| pair.count("pull") + pair.count("more-symbols") == 1;
        self.one_round_trip += exchanges.iter().filter(is_one).count();
        self.exchanges += exchanges.len();
    }

    fn finish(&self) {
        let (one, all) = (self.one_round_trip, self.exchanges);
        assert!(one * 10 >= all * 8, "one round trip in {one} of {all}");
    }
}

/// Removes live changes that the context keeps: what replaced them was collected. Those of different parity are different ones.
fn without(mut replica: Replica, rng: &mut Rng, count: usize, parity: u64) -> Replica {
    let before = replica.live();
    while replica.live() + count > before {
        let seq = 2 * rng.below(keys() / 2) + 1 + parity;
        replica.remove(item(0, seq, "").dot);
    }
    replica
}

#[test]
fn equal_states_cost_64_bytes() {
    let mut pair = Pair::new(base(), base(), false);
    pair.greet(N1);
    assert!(pair.bytes() <= 64, "{:?}", pair.kinds);
    assert_eq!(pair.kinds.keys().copied().collect::<Vec<_>>(), ["compare"]);
}

/// Contexts tell what differs: each change that is missing opens a gap.
#[test]
fn what_contexts_tell_costs_less_than_symbols() {
    for differences in [1_usize, 10, 100, 1000, 2000] {
        let mut first = base();
        for at in 1..=differences as u64 {
            first.join(&item(1, 2 * at, &format!("new/{at}")));
        }
        let mut pair = Pair::new(first, base(), false);
        pair.greet(N1);
        assert_eq!(pair.bodies.1, differences, "each body once");
        pair.assert_equal();
        let mut row = Row::default();
        row.add(differences, &[pair]);
        row.finish();
    }
}

/// A disk was lost, and came back with most of what it held: of 20,000 or a million changes some were lost with it, and some
/// are dead.
#[test]
fn a_lost_disk_costs_what_differs() {
    let mut rng = Rng::new(7);
    let mut row = Row::default();
    for differences in [0_usize, 1, 10, 100, 1000, 2000] {
        let dead = differences / 2;
        let mut exchange = || {
            let mut first = without(base(), &mut rng, dead, 0);
            for at in 1..=(differences - dead) as u64 {
                first.join(&item(1, at, &format!("new/{at}")));
            }
            let mut pair = Pair::new(first, base(), true);
            pair.greet(N2);
            assert_eq!(
                pair.count("symbols") - pair.count("more-symbols"),
                1,
                "{:?}",
                pair.kinds
            );
            assert_eq!(
                pair.bodies.1,
                differences - dead,
                "each missing body once, and no other"
            );
            pair.assert_equal();
            assert!(pair.gossip(N2).has_met(N1));
            pair
        };
        let exchanges: Vec<Pair> = (0..6).map(|_| exchange()).collect();
        row.add(differences, &exchanges);
    }
    row.finish();
}

/// Equal contexts with unequal states: what either shows is kept, at the cost of the difference.
#[test]
fn a_repair_costs_what_differs() {
    let mut rng = Rng::new(8);
    let mut row = Row::default();
    for differences in [2_usize, 7, 100, 1000] {
        let mut exchange = || {
            let first = without(base(), &mut rng, differences / 2, 0);
            let second = without(base(), &mut rng, differences - differences / 2, 1);
            let mut pair = Pair::new(first, second, false);
            pair.greet(N1);
            pair
        };
        let mut exchanges: Vec<Pair> = (0..6).map(|_| exchange()).collect();
        row.add(differences, &exchanges);
        for pair in &mut exchanges {
            pair.greet(N2);
            pair.assert_equal();
            assert_eq!(pair.gossip(N1).replica().live() as u64, keys());
        }
    }
    row.finish();
}

/// What differs too much for symbols is sent as it is.
#[test]
fn much_that_differs_is_sent_in_pages() {
    let mut rng = Rng::new(9);
    let mut pair = Pair::new(base(), without(base(), &mut rng, 6000, 0), false);
    pair.greet(N2);
    pair.greet(N1);
    pair.assert_equal();
    assert_eq!(pair.count("symbols"), 0, "{:?}", pair.kinds);
    let mut pair = Pair::new(base(), Replica::new(Secret::default()), true);
    pair.greet(N2);
    pair.assert_equal();
    assert_eq!(pair.count("symbols"), 0, "{:?}", pair.kinds);
}

/// P19 of the design: symbols that mean nothing are noticed, and everything is asked for instead.
#[test]
fn p19_symbols_of_another_secret_are_noticed() {
    let mut rng = Rng::new(10);
    let mut other = Replica::new(Secret([1, 2]));
    base().all_items_after(None).for_each(|item| {
        other.join(item);
    });
    let mut pair = Pair::new(without(base(), &mut rng, 5, 0), other, true);
    pair.greet(N2);
    pair.assert_equal();
    assert_eq!(pair.gossip(N2).replica().live() as u64, keys() - 5);
}

/// P25 of the design: what is deferred is held, passed on and reflected, like all else in the store; what is unvouched is in
/// neither store nor context, nor in the symbols.
#[test]
fn p25_what_is_pending_is_in_store_context_and_symbols_or_in_none() {
    let ahead = Item {
        stamp: Stamp::at(WallTime(2_000_000)),
        ..item(1, 1, "ahead")
    };
    let rumor = |item: Item| {
        let items = vec![item];
        encode(&Message::Rumors { context: None, items })
    };
    let mut pair = Pair::new(base(), base(), true);
    let bytes = rumor(ahead.clone());
    pair.step(N1, GroupInput::Receive { from: N2, bytes });
    pair.under_way.clear();
    assert_eq!(pair.gossip(N1).deferred(), 1);
    pair.greet(N2);
    assert_eq!(pair.gossip(N2).deferred(), 1, "{:?}", pair.kinds);
    pair.now.wall = WallTime(2_000_000);
    pair.now.instant = Instant::from_nanos(2_000_000_000);
    for node in [N1, N2] {
        pair.step(node, GroupInput::Wake);
        assert!(
            pair.gossip(node).shown(b"ahead").len() == 1,
            "released everywhere"
        );
    }
    // Unvouched: of three members two must have said it.
    let mut pair = Pair::with(base(), base(), false, |config| {
        config.members.insert(N3);
        config.vouchers = 2;
    });
    let symbols = pair.gossip(N1).replica().sketch().symbols().to_vec();
    let bytes = rumor(item(1, 1, "unvouched"));
    pair.step(N1, GroupInput::Receive { from: N2, bytes });
    let replica = pair.gossip(N1).replica();
    assert!(!replica.context().contains(item(1, 1, "").dot));
    assert_eq!(replica.sketch().symbols(), symbols);
}

/// P26 of the design: after a crash at any step of a search, and of what follows it, nothing is missing and nothing dead is
/// back.
#[test]
fn p26_a_crash_at_any_step_of_a_search_loses_nothing() {
    let (mut searches, mut early) = (0, 0);
    for step in 0..24_u64 {
        let mut cluster = cluster_with(2, 61 + step, |config| {
            config.page_bytes = 400;
            // So each start counts as one with an empty disk.
            config.durability = crate::Durability::Os;
        });
        for seq in 1..=60 {
            put(&mut cluster, N1, seq, &format!("k{seq}"), "old");
        }
        converge(&mut cluster, ms(3000));
        cluster.crash(N2);
        for seq in 1..=20 {
            put(&mut cluster, N1, 100 + seq, &format!("k{}", 50 + seq), "new");
        }
        let seen = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = std::rc::Rc::clone(&seen);
        cluster.filter = Some(Box::new(move |_, _, message| match message {
            Message::Rumors { .. } => trilemma_testkit::Verdict::Drop,
            Message::Symbols { .. } | Message::Want { .. } => {
                count.set(count.get() + 1);
                trilemma_testkit::Verdict::Deliver
            }
            _ => trilemma_testkit::Verdict::Deliver,
        }));
        cluster.faults.disk = (ms(1), ms(4));
        cluster.restart(N2);
        let target = 60 + (step as usize / 3).min(9);
        let reached = cluster.run_until(ms(4000), |cluster| {
            let replica = cluster.protocol(N2).replica();
            seen.get() >= step as usize % 3 && replica.live() >= target
        });
        assert!(reached, "no exchange took place in run {step}");
        early += usize::from(cluster.protocol(N2).replica().live() < 70);
        cluster.crash(N2);
        if step % 3 == 0 {
            cluster.crash(N1);
            cluster.restart(N1);
        }
        cluster.restart(N2);
        converge(&mut cluster, ms(10_000));
        searches += seen.get();
        for node in [N1, N2] {
            assert_eq!(cluster.protocol(node).replica().visible(), 70, "run {step}");
            assert_eq!(get(&mut cluster, node, "k55").as_deref(), Some("new"));
            assert_eq!(get(&mut cluster, node, "k5").as_deref(), Some("old"));
        }
    }
    assert!(searches > 24, "nothing was searched for: {searches}");
    assert!(early > 5, "the crashes came too late: {early}");
}

/// P27 of the design: replicas collect at different moments, and are equal all the same.
#[test]
fn p27_collection_at_different_times_costs_nothing() {
    let deleted = Item {
        content: None,
        ..item(1, 1, "key/1")
    };
    let mut late = base();
    late.join(&deleted);
    let mut early = late.clone();
    assert!(early.collect(deleted.dot, |_| true));
    assert!(early.live() < late.live());
    let mut pair = Pair::new(early, late, false);
    for node in [N1, N2, N1] {
        pair.greet(node);
    }
    assert_eq!(pair.kinds.keys().copied().collect::<Vec<_>>(), ["compare"]);
    assert!(pair.bytes() <= 3 * 64, "{:?}", pair.kinds);
}

/// Enough exchanges are served: the next peer is asked to come back, and does.
#[test]
fn a_busy_node_says_so_and_is_asked_again_later() {
    let mut pair = Pair::with(base(), base(), false, |config| {
        config.members.extend([3, 4, 5, 6, 7].map(NodeId));
        config.serving_max = 4;
    });
    let pull = |session| Message::Pull {
        session,
        incarnation: Incarnation(1),
        context: crate::context::WireContext::default(),
        deferred: Vec::new(),
        mutual: false,
        whole: false,
        outline: bytes::Bytes::new(),
    };
    for node in 3..=7 {
        let (from, bytes) = (NodeId(node), encode(&pull(u64::from(node))));
        pair.step(N1, GroupInput::Receive { from, bytes });
    }
    let answers = std::mem::take(&mut pair.under_way);
    let kinds: Vec<&str> = answers
        .iter()
        .map(|(_, _, bytes)| decode::<Message>(bytes).expect("it decodes").kind())
        .collect();
    assert_eq!(kinds, ["page", "page", "page", "page", "busy"]);
    let refused: Message = decode(&answers[4].2).expect("it decodes");
    assert_eq!(
        refused,
        Message::Busy {
            session: 7,
            retry_after_ms: 1000
        }
    );
    // The other side: nothing is asked before its time.
    let (mut shared, mut effects) = (
        crate::shared::Shared::new(GossipConfig::new(N2, Incarnation(1), [N1, N2], 1)),
        crate::gossip::Out::default(),
    );
    let store = crate::store::Store::default();
    let mut exchange = crate::exchange::Exchange::default();
    let mut now = Now::default();
    let goal = crate::exchange::Goal::Missing;
    let mut ask = |exchange: &mut crate::exchange::Exchange, shared: &mut crate::shared::Shared, now: Now| {
        exchange.pull(shared, &store, now, N1, goal, true, &mut effects);
        exchange.open()
    };
    let mut waited = 0;
    for _ in 0..20 {
        assert_eq!(ask(&mut exchange, &mut shared, now), 1);
        let session = exchange.session(N1).expect("it is open");
        exchange.on_busy(&mut shared, now, N1, (session ^ 1, ms(1000)));
        assert_eq!(exchange.open(), 1, "an answer to something else");
        exchange.on_busy(&mut shared, now, N1, (session, ms(1000)));
        assert_eq!(exchange.open(), 0);
        let asked = now;
        while ask(&mut exchange, &mut shared, now) == 0 {
            now.instant = now.instant + ms(10);
            waited += 1;
        }
        assert!(now.instant.since(asked.instant) <= ms(4010), "without end");
        exchange.give_up(N1);
    }
    assert!(waited > 300, "nobody waits: {waited}");
}
