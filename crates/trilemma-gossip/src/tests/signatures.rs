//! Signed changes: what nobody but the origin can make, and who lies is named (inside/gossip#signatures).

use std::sync::Arc;

use trilemma_core::host::GroupInput;
use trilemma_core::{Incarnation, Protocol, codec};
use trilemma_testkit::Verdict;

use super::*;
use crate::admission::Refusal;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::message::{Message, PageEnd};
use crate::replica::{Item, Part};
use crate::signatures::{Signatures, Simulated};

const N4: NodeId = NodeId(4);
const WHERE: &str = "cluster/keyspace";

fn keys_of(node: NodeId, domain: &str) -> Signatures {
    Signatures {
        domain: domain.into(),
        authority: Arc::new(Simulated(node)),
    }
}

fn signed(size: u32, seed: u64, adjust: impl Fn(&mut GossipConfig) + 'static) -> Cluster<Gossip> {
    cluster_with(size, seed, move |config| {
        config.signatures = Some(keys_of(config.node, WHERE));
        adjust(config);
    })
}

/// A change that names node 1, in an incarnation that node 1 has left behind.
fn invented(seq: u64) -> Item {
    Item {
        dot: Dot::new(N1, Incarnation(0), seq),
        stamp: Stamp(1 << 16),
        key: format!("k{seq}").as_str().into(),
        content: Some("invented".into()),
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

fn sign(item: &mut Item, node: NodeId, domain: &str) {
    item.set_signed(None);
    keys_of(node, domain).sign(item);
}

/// Node 4 tells node 3.
fn tell(cluster: &mut Cluster<Gossip>, items: Vec<Item>) {
    let context = None;
    let bytes = codec::encode(&Message::Rumors { context, items });
    cluster.input(N3, GroupInput::Receive { from: N4, bytes });
}

fn why(cluster: &Cluster<Gossip>, node: NodeId) -> String {
    cluster.protocol(node).status(trilemma_core::Now::default()).why
}

fn refused(cluster: &Cluster<Gossip>, node: NodeId, why: Refusal) -> u64 {
    cluster.protocol(node).admission.count(why)
}

fn only(cluster: &Cluster<Gossip>, node: NodeId) -> Item {
    let replica = cluster.protocol(node).replica();
    let mut items = replica.all_items_after(None);
    items.next().cloned().expect("a change")
}

/// Whether each change everywhere can be verified by whom it will be passed on to.
fn check_all(cluster: &Cluster<Gossip>) {
    let keys = keys_of(N1, WHERE);
    for node in cluster.ids().into_iter().filter(|node| cluster.is_up(*node)) {
        let gossip = cluster.protocol(node);
        let mut items = gossip.replica().all_items_after(None);
        assert!(items.all(|item| keys.is_valid(item)), "{}", picture(cluster));
        for why in [Refusal::Forged, Refusal::Equivocal] {
            assert_eq!(refused(cluster, node, why), 0, "{why:?} at {node}");
        }
    }
}

/// One voucher, one liar: what it invents is never taken in, nor passed on, and both are named.
#[test]
fn a_liar_cannot_invent_a_change_of_another_node() {
    let mut cluster = signed(4, 1, |_| {});
    put(&mut cluster, N1, 1, "k", "true");
    cluster.run_for(ms(50));
    let mut with_own_key = invented(2);
    sign(&mut with_own_key, N4, WHERE);
    let mut with_borrowed = invented(3);
    with_borrowed.set_signed(only(&cluster, N3).signed());
    tell(&mut cluster, vec![invented(1), with_own_key, with_borrowed]);
    cluster.run_for(ms(5000));
    for node in [N1, N2, N3] {
        for key in ["k1", "k2", "k3"] {
            assert_eq!(get(&mut cluster, node, key), None, "{key} at {node}");
        }
        assert_eq!(get(&mut cluster, node, "k").as_deref(), Some("true"));
    }
    assert_eq!(refused(&cluster, N3, Refusal::Forged), 3);
    let why = why(&cluster, N3);
    assert!(
        why.contains("3 changes that name node 1 as their origin have no valid signature"),
        "{why}"
    );
    assert!(why.contains("node 4 sent them"), "{why}");
    assert_eq!(refused(&cluster, N2, Refusal::Forged), 0, "it was passed on");
}

/// All of a change is signed, its incarnation and its place in the command too.
#[test]
fn a_change_that_was_altered_on_its_way_is_refused() {
    let mut original = invented(5);
    original.observed.add(Dot::new(N2, Incarnation(1), 4));
    (original.part, original.content) = (Part { index: 1, of: 3 }, Some("true".into()));
    sign(&mut original, N1, WHERE);
    let alterations: [fn(&mut Item); 9] = [
        |item| item.dot.origin = N2,
        |item| item.dot.incarnation.0 += 1,
        |item| item.dot.seq += 1,
        |item| item.stamp.0 += 1,
        |item| item.key = "other".into(),
        |item| item.content = None,
        |item| item.observed.add(Dot::new(N2, Incarnation(1), 5)),
        |item| item.observed.clear(),
        |item| item.part.of = 2,
    ];
    for (case, alter) in alterations.into_iter().enumerate() {
        let mut cluster = signed(4, 2, |_| {});
        // Who has just lost its disk gets what others have collected.
        let is_met = |cluster: &Cluster<Gossip>| !cluster.protocol(N3).rejoin.is_blank;
        assert!(cluster.run_until(ms(5000), is_met));
        let mut item = original.clone();
        alter(&mut item);
        tell(&mut cluster, vec![item]);
        cluster.run_for(ms(300));
        assert_eq!(refused(&cluster, N3, Refusal::Forged), 1, "case {case}");
        assert_eq!(cluster.protocol(N3).replica().live(), 0, "case {case}");
        tell(&mut cluster, vec![original.clone()]);
        assert_eq!(cluster.protocol(N3).replica().live(), 1, "as it was, it counts");
    }
}

#[test]
fn a_signed_change_of_another_keyspace_is_refused() {
    let mut cluster = signed(4, 3, |_| {});
    let mut item = invented(1);
    sign(&mut item, N1, "cluster/other");
    tell(&mut cluster, vec![item]);
    cluster.run_for(ms(1000));
    assert_eq!(get(&mut cluster, N3, "k1"), None);
    assert_eq!(refused(&cluster, N3, Refusal::Forged), 1);
}

/// Both versions are of node 1 by its own signature: the first that a node gets stays, and node 1 is named.
#[test]
fn an_origin_that_signs_two_versions_is_named() {
    let mut cluster = signed(4, 4, |_| {});
    let (mut one, mut other) = (invented(1), invented(1));
    other.content = Some("otherwise".into());
    sign(&mut one, N1, WHERE);
    sign(&mut other, N1, WHERE);
    tell(&mut cluster, vec![one.clone()]);
    tell(&mut cluster, vec![one, other]);
    cluster.run_for(ms(1000));
    for node in [N1, N2, N3] {
        assert_eq!(get(&mut cluster, node, "k1").as_deref(), Some("invented"));
    }
    assert_eq!(refused(&cluster, N3, Refusal::Equivocal), 1);
    let why = why(&cluster, N3);
    assert!(
        why.contains("node 1 has signed another one of the same name"),
        "{why}"
    );
}

/// A page with something forged ends its exchange: the context that follows would make the true change look known.
#[test]
fn a_forged_page_ends_its_exchange() {
    let mut cluster = signed(2, 5, |_| {});
    cluster.run_for(ms(300));
    let pulls = |cluster: &Cluster<Gossip>| cluster.protocol(N1).exchange.session(N2);
    cluster.filter = Some(Box::new(|_, _, message| match message {
        Message::Pull { .. } | Message::Compare(_) => Verdict::Deliver,
        _ => Verdict::Drop,
    }));
    put(&mut cluster, N2, 1, "k", "true");
    assert!(cluster.run_until(ms(3000), |cluster| pulls(cluster).is_some()));
    let forged = Item {
        content: Some("forged".into()),
        ..only(&cluster, N2)
    };
    let context = cluster.protocol(N2).replica().context().to_wire(64);
    let incarnation = cluster.protocol(N2).config().incarnation;
    let bytes = codec::encode(&Message::Page {
        session: pulls(&cluster).unwrap_or_default(),
        incarnation,
        snapshot: 1,
        after: None,
        items: vec![forged],
        end: PageEnd::Last(context),
    });
    cluster.input(N1, GroupInput::Receive { from: N2, bytes });
    assert_eq!(pulls(&cluster), None);
    assert_eq!(refused(&cluster, N1, Refusal::Forged), 1);
    cluster.filter = None;
    converge(&mut cluster, ms(3000));
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("true"));
}

/// Rumors, names and fetches, pages, checkpoints, restarts: each node that relays a change has its signature.
#[test]
fn a_signature_survives_whatever_a_change_goes_through() {
    for lazy_bytes in [0, 1_000_000] {
        let mut cluster = signed(4, 6, move |config| {
            (config.flush_peers_max, config.lazy_bytes) = (0, lazy_bytes);
        });
        cluster.crash(N4);
        put(&mut cluster, N1, 1, "k", "v");
        let mut of_two = Command::put("a", "1");
        of_two.mutations.extend(Command::put("b", "1").mutations);
        receipt(cluster.write(N1, 2, of_two));
        converge(&mut cluster, ms(5000));
        // What is left of the command is one change.
        put(&mut cluster, N2, 3, "a", "2");
        converge(&mut cluster, ms(5000));
        cluster.checkpoint(N2);
        cluster.crash(N1);
        cluster.crash(N3);
        cluster.crash(N2);
        cluster.restart(N2);
        cluster.restart(N4);
        converge(&mut cluster, ms(5000));
        for (key, value) in [("k", "v"), ("a", "2"), ("b", "1")] {
            assert_eq!(get(&mut cluster, N4, key).as_deref(), Some(value), "{key}");
        }
        check_all(&cluster);
    }
}

/// Collection forgets what a change has observed, and not its digest: who has lost its disk can verify what is left.
#[test]
fn what_was_collected_can_be_verified_by_who_lost_its_disk() {
    let mut cluster = signed(3, 7, |config| config.tombstone_age_min = ms(1000));
    put(&mut cluster, N1, 1, "k", "1");
    converge(&mut cluster, ms(3000));
    put(&mut cluster, N2, 2, "k", "2");
    let is_collected = |cluster: &Cluster<Gossip>| {
        let uncollected = |id: NodeId| cluster.protocol(id).replica().uncollected();
        is_equal(cluster) && cluster.ids().into_iter().all(|id| uncollected(id) == 0)
    };
    assert!(cluster.run_until(ms(60_000), is_collected));
    assert!(only(&cluster, N1).observed.is_empty());
    cluster.crash(N3);
    cluster.wipe(N3);
    cluster.restart(N3);
    assert!(cluster.run_until(ms(20_000), is_equal), "{}", picture(&cluster));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("2"));
    check_all(&cluster);
}

/// A winner that is written back is a write of the node that does it.
#[test]
fn a_winner_that_is_written_back_is_signed_by_who_does_it() {
    let mut cluster = signed(4, 8, |config| config.siblings_max = 1);
    cluster.run_for(ms(300));
    cluster.split(&[N1, N2]);
    put(&mut cluster, N1, 1, "k", "a");
    put(&mut cluster, N3, 2, "k", "b");
    cluster.run_for(ms(300));
    cluster.heal();
    let is_one = |cluster: &Cluster<Gossip>| {
        let siblings = |id: NodeId| cluster.protocol(id).replica().siblings(b"k").len();
        is_equal(cluster) && cluster.ids().into_iter().all(|id| siblings(id) == 1)
    };
    assert!(cluster.run_until(ms(30_000), is_one), "{}", picture(&cluster));
    check_all(&cluster);
}

/// Nobody can bring back what was replaced by calling it damage, for its signature is as good as ever.
#[test]
fn who_is_not_trusted_repairs_nothing() {
    let cluster = signed(3, 9, |config| config.trusted = [N2].into());
    let config = cluster.protocol(N1).config();
    assert!(config.may_repair(N2) && !config.may_repair(N3));
    assert!(cluster_with(3, 9, |_| {}).protocol(N1).config().may_repair(N3));
}

/// Contexts say nothing about origins, so they need the vouchers that are set; signed changes need none.
#[test]
fn a_signed_change_needs_no_voucher_and_a_context_does() {
    let mut cluster = signed(4, 10, |config| config.vouchers = 2);
    cluster.run_for(ms(50));
    cluster.filter = Some(Box::new(|from, to, message| match message {
        Message::Rumors { .. } if (from, to) == (N1, N3) => Verdict::Deliver,
        _ => Verdict::Drop,
    }));
    put(&mut cluster, N1, 1, "k", "v");
    cluster.run_for(ms(300));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("v"), "heard from one");
    let config = cluster.protocol(N3).config();
    assert!(config.suffices(N1) && !config.is_trusted(N1));
}

#[test]
fn with_signatures_replicas_converge_whatever_happens() {
    for seed in 0..12 {
        let mut cluster = signed(5, 200 + seed, move |config| {
            config.vouchers = 1 + u32::from(seed % 2 == 0);
            config.tombstone_age_min = ms(1000);
            config.flush_peers_max = if seed % 3 == 0 { 0 } else { 8 };
            config.siblings_max = 2;
        });
        cluster.faults.loss = 200;
        for round in 0..60_u64 {
            let node = NodeId(1 + (round % 5) as u32);
            let put = Command::put(format!("hot{}", round % 3), round.to_string().as_str());
            let _sent = cluster.write(node, 2 * round + 1, put);
            let delete = Command::delete(format!("hot{}", (round + 1) % 3));
            let _sent = cluster.write(node, 2 * round + 2, delete);
            match round {
                15 => cluster.checkpoint(N3),
                20 => cluster.crash(N2),
                25 => {
                    cluster.wipe(N2);
                    cluster.restart(N2);
                }
                30 => cluster.split(&[N1, N2]),
                40 => cluster.heal(),
                45 => cluster.crash(N3),
                50 => cluster.restart(N3),
                _ => {}
            }
            cluster.run_for(ms(50));
        }
        cluster.faults.loss = 0;
        let is_equal = cluster.run_until(ms(30_000), is_equal);
        assert!(is_equal, "seed {seed}: {}", picture(&cluster));
        check_all(&cluster);
    }
}

/// What is not signed is written as before; a signature costs its 64 bytes, one for the digest that is missing, and one more
/// for its mark.
#[test]
fn an_unsigned_change_costs_no_byte_more() {
    let item = invented(1);
    let mut other = item.clone();
    sign(&mut other, N1, WHERE);
    let (bare, with) = (codec::encode(&item), codec::encode(&other));
    assert_eq!(with.len() - bare.len(), 64 + 1 + 2, "{with:?}");
    assert!(with.len() <= other.size());
    for item in [item, other] {
        assert_eq!(codec::decode::<Item>(&codec::encode(&item)).as_ref(), Ok(&item));
    }
    assert!(
        codec::decode::<Item>(&with[..with.len() - 1]).is_err(),
        "half a signature"
    );
}

/// Where nobody asks for signatures they are dropped: two copies of a change must be equal.
#[test]
fn a_signature_that_nobody_asks_for_is_dropped() {
    let mut cluster = cluster(4, 11);
    let mut item = invented(1);
    sign(&mut item, N1, WHERE);
    tell(&mut cluster, vec![item]);
    assert_eq!(only(&cluster, N3).signed(), None);
}
