//! Tests of vouchers: who has to say what before it counts.

use std::time::Duration;

use trilemma_core::{Incarnation, Rng};

use super::*;
use crate::clock::Stamp;
use crate::dot::Observed;
use crate::replica::Part;

const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);

fn config(vouchers: u32) -> GossipConfig {
    let mut config = GossipConfig::new(NodeId(1), Incarnation(1), (1..=5).map(NodeId), 1);
    config.vouchers = vouchers;
    config.tick = Duration::from_millis(100);
    config.clamp()
}

fn part(seq: u64, index: u16, of: u16, value: &str) -> Item {
    Item {
        dot: Dot::new(NodeId(5), Incarnation(1), seq),
        stamp: Stamp(seq << 16),
        key: format!("k{seq}").as_str().into(),
        content: Some(value.into()),
        observed: Observed::default(),
        part: Part { index, of },
    }
}

fn item(seq: u64, value: &str) -> Item {
    part(seq, 0, 1, value)
}

/// Hears `items` from `from`, with nothing reflected; returns the numbers of what may be taken in.
fn hear(vouching: &mut Vouching, config: &GossipConfig, from: NodeId, items: &[Item]) -> Vec<u64> {
    let heard = vouching.hear(config, &Replica::default(), from, items.to_vec(), false);
    vouching.check(config, &Context::default());
    heard.trusted.iter().map(|item| item.dot.seq).collect()
}

#[test]
fn a_change_counts_when_enough_distinct_peers_have_sent_it() {
    let (config, mut vouching) = (config(3), Vouching::default());
    assert_eq!(hear(&mut vouching, &config, N2, &[item(1, "a")]), []);
    assert_eq!(
        hear(&mut vouching, &config, N2, &[item(1, "a")]),
        [],
        "the same peer again"
    );
    assert_eq!(hear(&mut vouching, &config, N3, &[item(1, "a")]), []);
    assert_eq!(hear(&mut vouching, &config, N4, &[item(1, "a")]), [1]);
    assert_eq!(vouching.len(), 0);
}

#[test]
fn a_trusted_peer_needs_no_other() {
    let mut config = config(3);
    config.trusted.insert(N4);
    let mut vouching = Vouching::default();
    assert_eq!(hear(&mut vouching, &config, N2, &[item(1, "a")]), []);
    assert_eq!(
        hear(&mut vouching, &config, N4, &[item(1, "a"), item(2, "b")]),
        [1, 2]
    );
    assert_eq!(vouching.len(), 0);
}

#[test]
fn vouchers_of_another_version_do_not_count() {
    let (config, mut vouching) = (config(2), Vouching::default());
    assert_eq!(hear(&mut vouching, &config, N2, &[item(1, "forged")]), []);
    assert_eq!(hear(&mut vouching, &config, N3, &[item(1, "true")]), []);
    assert_eq!(vouching.contradictions(), &BTreeMap::from([(NodeId(5), 1)]));
    let heard = vouching.hear(&config, &Replica::default(), N4, vec![item(1, "true")], false);
    assert_eq!(heard.trusted, [item(1, "true")]);
    assert_eq!(vouching.len(), 0, "the forged version goes with it");
}

#[test]
fn what_a_change_has_observed_is_part_of_its_version() {
    let (config, mut vouching) = (config(2), Vouching::default());
    let mut forged = item(2, "a");
    forged.observed.add(Dot::new(N3, Incarnation(1), 7));
    assert_eq!(hear(&mut vouching, &config, N2, &[forged.clone()]), []);
    assert_eq!(hear(&mut vouching, &config, N3, &[item(2, "a")]), []);
    assert_eq!(hear(&mut vouching, &config, N4, &[item(2, "a")]), [2]);
    // A node that has lost its disk hears from some what others have collected: what both have observed counts.
    for (from, item, ready) in [(N2, forged, 0), (N3, item(2, "a"), 1)] {
        let heard = vouching.hear(&config, &Replica::default(), from, vec![item], true);
        assert_eq!(heard.trusted.len(), ready);
        assert!(heard.trusted.iter().all(|item| item.observed.is_empty()));
    }
}

#[test]
fn the_changes_of_a_command_count_together() {
    let (config, mut vouching) = (config(2), Vouching::default());
    let whole = [part(1, 0, 2, "a"), part(2, 1, 2, "b")];
    assert_eq!(hear(&mut vouching, &config, N2, &whole), []);
    // Node 3 holds a newer change of the first key already, and passes on what is live.
    assert_eq!(hear(&mut vouching, &config, N3, &whole[1..]), []);
    assert_eq!(hear(&mut vouching, &config, N4, &whole), [1, 2]);
}

#[test]
fn a_forged_part_does_not_hold_a_command_up() {
    let (config, mut vouching) = (config(2), Vouching::default());
    assert_eq!(hear(&mut vouching, &config, N2, &[part(2, 1, 2, "forged")]), []);
    assert_eq!(hear(&mut vouching, &config, N3, &[item(1, "a")]), []);
    assert_eq!(hear(&mut vouching, &config, N4, &[item(1, "a")]), [1]);
}

#[test]
fn what_is_held_is_passed_on_and_ends_when_a_newer_change_counts() {
    let (config, mut vouching) = (config(2), Vouching::default());
    hear(&mut vouching, &config, N2, &[item(1, "a")]);
    let parts: Vec<&Item> = vouching.parts((item(1, "a").dot, 1)).collect();
    assert_eq!(parts, [&item(1, "a")]);
    let mut newer = Item {
        key: "k1".into(),
        ..item(9, "b")
    };
    newer.observed.add(item(1, "a").dot);
    vouching.on_taken(&[newer.clone()]);
    assert_eq!(vouching.len(), 0);
    // And late news of it is held no more.
    let mut replica = Replica::default();
    replica.join(&newer);
    let heard = vouching.hear(&config, &replica, N3, vec![item(1, "a")], false);
    assert!(heard.trusted.is_empty() && heard.commands.is_empty() && !heard.is_incomplete);
    assert_eq!(vouching.len(), 0);
}

#[test]
fn a_peer_that_floods_takes_its_own_room_only() {
    let mut config = config(2);
    config.unvouched_bytes_max = 4 * config.unvouched_bytes_each();
    let mut vouching = Vouching::default();
    let large = "x".repeat(1 << 20);
    let flood: Vec<Item> = (10..20).map(|seq| item(seq, &large)).collect();
    let heard = vouching.hear(&config, &Replica::default(), N2, flood, false);
    assert!(heard.is_incomplete && heard.trusted.is_empty());
    vouching.check(&config, &Context::default());
    assert_eq!(hear(&mut vouching, &config, N3, &[item(1, "a")]), []);
    assert_eq!(hear(&mut vouching, &config, N4, &[item(1, "a")]), [1]);
    // What the flood has sent counts if another says the same, and its room is free again.
    let held: Vec<Dot> = vouching.held.keys().copied().collect();
    assert_eq!(held.len(), 3, "{held:?}");
    assert_eq!(hear(&mut vouching, &config, N3, &[item(10, &large)]), [10]);
    assert_eq!(hear(&mut vouching, &config, N2, &[item(13, &large)]), []);
    assert_eq!(vouching.len(), 3);
}

#[test]
fn a_context_counts_as_far_as_enough_peers_claim_it() {
    let (config, mut vouching) = (config(2), Vouching::default());
    let context = |seqs: &[u64]| {
        let mut context = Context::default();
        seqs.iter().for_each(|seq| context.insert(item(*seq, "").dot));
        context
    };
    hear(&mut vouching, &config, N2, &[item(4, "d")]);
    let none = vouching.on_claimed(&config, N2, &context(&[1, 2, 4]), false);
    assert_eq!(none, Context::default());
    let both = vouching.on_claimed(&config, N3, &context(&[2, 3, 4]), false);
    assert_eq!(both, context(&[2]), "4 is held, 1 and 3 are claimed once");
    let mut own = Context::default();
    own.insert(Dot::new(N2, Incarnation(1), 3));
    own.insert(Dot::new(N3, Incarnation(1), 3));
    let reflected = vouching.on_claimed(&config, N2, &own, false);
    assert!(
        reflected.contains(Dot::new(N2, Incarnation(1), 3)),
        "of its own changes each is believed"
    );
    assert!(!reflected.contains(Dot::new(N3, Incarnation(1), 3)));
    vouching.forget_peer(N2);
    let none = vouching.on_claimed(&config, N4, &context(&[1]), false);
    assert_eq!(
        none,
        Context::default(),
        "who has begun another incarnation may have lost it"
    );
    let all = vouching.on_claimed(&config, N4, &context(&[1, 4]), true);
    assert_eq!(all, context(&[1]), "what is held is never taken for reflected");
    vouching.on_context(&context(&[4]));
    assert_eq!(vouching.len(), 0);
}

#[test]
fn any_order_of_hearing_agrees_with_counting() {
    let mut rng = Rng::new(3);
    for _ in 0..500 {
        let config = config(1 + rng.below(4) as u32);
        let mut vouching = Vouching::default();
        let (mut sent, mut replica) = (
            BTreeMap::<(u64, String), BTreeSet<NodeId>>::new(),
            Replica::default(),
        );
        let mut taken: BTreeMap<u64, String> = BTreeMap::new();
        for _ in 0..60 {
            let (seq, version) = (
                1 + rng.below(6),
                ["true", "forged"][usize::from(rng.below(4) == 0)],
            );
            let from = NodeId(2 + rng.below(4) as u32);
            sent.entry((seq, version.into())).or_default().insert(from);
            let expected = sent[&(seq, version.into())].len() >= config.vouchers as usize;
            let heard = vouching.hear(&config, &replica, from, vec![item(seq, version)], false);
            let is_new = expected && !taken.contains_key(&seq);
            assert_eq!(
                heard.trusted.len(),
                usize::from(is_new),
                "{seq} {version}: {sent:?}"
            );
            if is_new {
                replica.join(&item(seq, version));
                taken.insert(seq, version.into());
            }
            vouching.check(&config, replica.context());
        }
    }
}

#[test]
fn what_is_held_is_sent_again_a_page_at_a_time() {
    let (mut config, mut vouching) = (config(2), Vouching::default());
    let items: Vec<Item> = (1..=5).map(|seq| item(seq, "a")).collect();
    hear(&mut vouching, &config, N2, &items);
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.extend(vouching.again(&config, 2).into_iter().map(|(first, _)| first.seq));
    }
    assert_eq!(sent, [1, 2, 3, 4, 5, 1, 2, 3, 4], "a page ends at the last");
    config.trusted.insert(config.node);
    assert_eq!(
        vouching.again(&config, 2),
        [],
        "the word of a trusted node is not hearsay"
    );
}

#[test]
fn what_there_is_no_room_for_is_no_news_however_often_it_is_sent() {
    let (config, mut vouching) = (config(2), Vouching::default());
    for (at, version) in ["a", "b", "c", "d", "e", "e"].into_iter().enumerate() {
        let heard = vouching.hear(&config, &Replica::default(), N2, vec![item(1, version)], false);
        let is_first = usize::from(at == 0);
        assert_eq!(
            (heard.news, heard.commands.len()),
            (is_first, is_first),
            "{version}"
        );
    }
    assert_eq!(vouching.contradictions(), &BTreeMap::from([(NodeId(5), 3)]));
    let large = "x".repeat(3 << 20);
    let flood: Vec<Item> = (10..13).map(|seq| item(seq, &large)).collect();
    let first = vouching.hear(&config, &Replica::default(), N2, flood.clone(), false);
    let again = vouching.hear(&config, &Replica::default(), N2, flood, false);
    assert!(first.is_incomplete && again.is_incomplete);
    assert_eq!((again.news, again.commands.len()), (0, 0));
}
