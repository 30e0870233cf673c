//! Tests of the dot store against a plain set of operations, and of the laws of a lattice join.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Incarnation, NodeId, Rng, Value};

use super::*;
use crate::clock::Stamp;

/// Two plain keys, and two parts of data types.
fn keys() -> [Key; 4] {
    ["a", "b", "c", "d"].map(|name| match name {
        "a" | "b" => name.into(),
        _ => [&[0xff], name.as_bytes()].concat().into(),
    })
}

fn dot(origin: u32, seq: u64) -> Dot {
    Dot::new(NodeId(origin), Incarnation(1), seq)
}

/// One operation and everything of its key that it had observed.
#[derive(Clone, Debug)]
struct Op {
    item: Item,
    past: BTreeSet<Dot>,
}

/// A replica beside its model: the set of operations it reflects.
#[derive(Clone, Default)]
struct Node {
    replica: Replica,
    known: BTreeSet<Dot>,
    seq: u64,
}

#[derive(Default)]
struct World {
    ops: BTreeMap<Dot, Op>,
    clock: u64,
}

impl World {
    fn write(&mut self, node: &mut Node, id: u32, rng: &mut Rng) {
        let key = rng.pick(&keys()).expect("there are keys").clone();
        node.seq += 1;
        // Stamps of different nodes may tie and lag; they never go back against what was observed.
        let floor = self.live(node, &key).map(|op| op.item.stamp.0).max().unwrap_or(0);
        self.clock += rng.below(2);
        let stamp = Stamp((floor + 1).max(self.clock));
        let past = self
            .live(node, &key)
            .flat_map(|op| op.past.iter().copied().chain([op.item.dot]))
            .collect();
        let item = Item {
            dot: dot(id, node.seq),
            stamp,
            key: key.clone(),
            content: (rng.below(4) > 0).then(|| Value::from(format!("{id}.{}", node.seq))),
            observed: node.replica.observed(&key),
            part: Part { index: 0, of: 1 },
        };
        assert_eq!(node.replica.join(&item), Joined::Live);
        node.known.insert(item.dot);
        self.ops.insert(item.dot, Op { item, past });
    }

    /// What the model holds of a key: known operations that no known operation has observed.
    fn live<'a>(&'a self, node: &'a Node, key: &'a Key) -> impl Iterator<Item = &'a Op> + 'a {
        let ops = move || {
            node.known
                .iter()
                .map(|dot| &self.ops[dot])
                .filter(move |op| op.item.key == *key)
        };
        ops().filter(move |op| !ops().any(|other| other.past.contains(&op.item.dot)))
    }

    fn deliver(&self, node: &mut Node, dot: Dot) {
        let op = &self.ops[&dot];
        node.replica.join(&op.item);
        if node.known.insert(dot) {
            // Only the highest observed dot of each incarnation is named; the rest is reflected through it.
            node.known.extend(op.item.observed.iter());
        }
    }

    fn check(&self, node: &Node) {
        let replica = &node.replica;
        let covered: BTreeSet<Dot> = self
            .ops
            .keys()
            .copied()
            .filter(|dot| replica.context().contains(*dot))
            .collect();
        assert_eq!(covered, node.known);
        let (mut visible, mut contested) = (0, 0);
        for key in keys() {
            let model: BTreeSet<Dot> = self.live(node, &key).map(|op| op.item.dot).collect();
            let real: BTreeSet<Dot> = replica
                .siblings(&key)
                .iter()
                .map(|sibling| sibling.item.dot)
                .collect();
            assert_eq!(real, model, "siblings of {key}");
            // Of a part a tombstone hides nothing.
            let is_part = key[0] == 0xff;
            let best = self
                .live(node, &key)
                .filter(|op| !is_part || op.item.content.is_some())
                .max_by_key(|op| (op.item.stamp, op.item.dot.origin));
            let value = best.and_then(|op| op.item.content.clone());
            assert_eq!(
                replica.get(&key).map(|state| state.value),
                value,
                "winner of {key}"
            );
            visible += u64::from(value.is_some() && !is_part);
            contested += u64::from(model.len() > 1);
        }
        assert_eq!((replica.visible(), replica.contested()), (visible, contested));
    }
}

/// What a whole exchange does: every missing body, then the context.
fn merge(into: &Replica, from: &Replica) -> Replica {
    let mut merged = into.clone();
    let spans = from.context().minus(into.context());
    for (dot, key) in from.live_within(&spans, None) {
        merged.join(from.item_of(key, dot).expect("it is live"));
    }
    merged.join_context(from.context());
    merged
}

fn image(replica: &Replica) -> (Context, Vec<Dot>, u64, u64) {
    let live = replica.all_items_after(None).map(|item| item.dot).collect();
    (
        replica.context().clone(),
        live,
        replica.digest(),
        replica.visible(),
    )
}

#[test]
fn random_histories_agree_with_a_plain_set_of_operations() {
    let mut seen = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut world = World::default();
        let mut nodes = vec![Node::default(); 3];
        for _ in 0..60 {
            let at = rng.below(3) as usize;
            match rng.below(4) {
                0 | 1 => world.write(&mut nodes[at], at as u32 + 1, &mut rng),
                2 => {
                    let dots: Vec<Dot> = world.ops.keys().copied().collect();
                    if let Some(dot) = rng.pick(&dots) {
                        world.deliver(&mut nodes[at], *dot);
                    }
                }
                _ => {
                    let from = nodes[rng.below(3) as usize].clone();
                    nodes[at].replica = merge(&nodes[at].replica, &from.replica);
                    nodes[at].known.extend(&from.known);
                }
            }
            world.check(&nodes[at]);
            seen.0 += nodes[at].replica.contested();
            seen.1 += u64::from(nodes[at].replica.context().intervals() > 3);
        }
        for a in &nodes {
            for b in &nodes {
                if a.replica.context() == b.replica.context() {
                    seen.2 += 1;
                    assert_eq!(a.replica.digest(), b.replica.digest());
                }
            }
        }
    }
    assert!(
        seen.0 > 100 && seen.1 > 100 && seen.2 > 1200,
        "the histories exercise nothing: {seen:?}"
    );
}

/// inside/gossip#losers-stay
#[test]
fn merging_is_associative_commutative_and_idempotent() {
    for seed in 0..400 {
        let mut rng = Rng::new(1_000 + seed);
        let mut world = World::default();
        let mut nodes = vec![Node::default(); 3];
        for _ in 0..30 {
            let at = rng.below(3) as usize;
            world.write(&mut nodes[at], at as u32 + 1, &mut rng);
            let dots: Vec<Dot> = world.ops.keys().copied().collect();
            let to = rng.below(3) as usize;
            if let Some(dot) = rng.pick(&dots) {
                world.deliver(&mut nodes[to], *dot);
            }
        }
        let [a, b, c] = [&nodes[0].replica, &nodes[1].replica, &nodes[2].replica];
        assert_eq!(image(&merge(a, b)), image(&merge(b, a)), "seed {seed}");
        assert_eq!(image(&merge(a, a)), image(a));
        let left = merge(&merge(a, b), c);
        assert_eq!(image(&left), image(&merge(a, &merge(b, c))), "seed {seed}");
        assert_eq!(image(&merge(&left, b)), image(&left));
    }
}

fn item(dot: Dot, stamp: u64, content: Option<&str>, observed: &[Dot]) -> Item {
    let mut set = Observed::default();
    observed.iter().for_each(|dot| set.add(*dot));
    Item {
        dot,
        stamp: Stamp(stamp),
        key: "k".into(),
        content: content.map(Value::from),
        observed: set,
        part: Part { index: 0, of: 1 },
    }
}

fn replica(items: &[&Item]) -> Replica {
    let mut replica = Replica::default();
    for item in items {
        replica.join(item);
    }
    replica
}

#[test]
fn the_loser_is_kept_until_it_is_observed() {
    // The note's example: dropping A at the merge would make the result depend on the order.
    let a = item(dot(1, 1), 5, Some("a"), &[]);
    let newer = item(dot(2, 1), 9, Some("b"), &[]);
    let delete = item(dot(3, 1), 12, None, &[newer.dot]);
    let (w, u, v) = (replica(&[&a]), replica(&[&newer]), replica(&[&delete]));
    let left = merge(&merge(&w, &u), &v);
    assert_eq!(image(&left), image(&merge(&w, &merge(&u, &v))));
    assert_eq!(left.siblings(b"k").len(), 2);
    assert_eq!(
        left.get(b"k"),
        None,
        "the delete is newer than the write it did not observe"
    );
}

#[test]
fn a_tombstone_of_a_part_takes_what_it_has_observed_and_nothing_else() {
    let part = |item: Item| Item {
        key: [&[0xff][..], b"part"].concat().into(),
        ..item
    };
    let seen = part(item(dot(1, 1), 5, Some("seen"), &[]));
    let older = part(item(dot(2, 1), 6, Some("unseen"), &[]));
    let removal = part(item(dot(3, 1), 900, None, &[seen.dot]));
    for order in [[&seen, &removal, &older], [&older, &removal, &seen]] {
        let mut replica = replica(&order);
        let key = &seen.key;
        assert_eq!(replica.get(key).map(|state| state.value), Some("unseen".into()));
        assert!(!replica.hides(key) && replica.values(key).len() == 1);
        let digest = replica.digest();
        assert!(
            !replica.collect(removal.dot, |item| item.dot == older.dot),
            "not by all"
        );
        assert!(replica.collect(removal.dot, |_| true));
        assert_eq!(
            (replica.digest(), replica.live(), replica.parts()),
            (digest, 1, 1)
        );
        replica.join(&seen);
        assert_eq!(replica.live(), 1, "what is gone stays gone");
    }
}

#[test]
fn an_observed_write_is_replaced_whatever_the_stamps_say() {
    let ahead = item(dot(1, 1), 900, Some("ahead"), &[]);
    let after = item(dot(2, 1), 5, Some("after"), &[ahead.dot]);
    for order in [[&ahead, &after], [&after, &ahead]] {
        let replica = replica(&order);
        assert_eq!(replica.get(b"k").expect("there").value, "after".into());
        assert_eq!(replica.siblings(b"k").len(), 1);
    }
}

#[test]
fn a_tombstone_is_collected_when_all_is_stable_and_it_hides_nothing() {
    let write = item(dot(1, 1), 5, Some("old"), &[]);
    let delete = item(dot(2, 1), 9, None, &[]);
    let newer = item(dot(3, 1), 12, Some("new"), &[]);
    let mut wins = replica(&[&delete, &newer]);
    let digest = wins.digest();
    assert!(
        !wins.collect(delete.dot, |item| item.dot == delete.dot),
        "a sibling is not stable"
    );
    assert!(wins.collect(delete.dot, |_| true));
    assert_eq!((wins.live(), wins.digest()), (1, digest), "it goes unseen");
    assert_eq!(
        wins.join(&delete),
        Joined::Stale,
        "a late copy does not bring it back"
    );

    // A later write of an incarnation covers its earlier delete, also where that still hides something. Would the
    // replica of that node have dropped what was hidden, the others would show it again, and it would not.
    let mut both = replica(&[&write, &delete]);
    assert!(both.hides(b"k") && !both.collect(delete.dot, |_| true));
    assert_eq!((both.live(), both.get(b"k")), (2, None));
    let mut late = replica(&[&write, &delete]);
    let after = item(dot(2, 2), 12, Some("after"), &[write.dot, delete.dot]);
    both.join(&after);
    late.join(&after);
    assert_eq!(image(&late), image(&both));
    assert_eq!(late.values(&"k".into()).len(), 1);
}

#[test]
fn what_no_correct_node_sends_is_recognised() {
    let good = item(dot(1, 3), 5, Some("v"), &[dot(1, 2)]);
    assert_eq!(good.defect(), None);
    let part = |index, of| Item {
        part: Part { index, of },
        ..good.clone()
    };
    assert!(
        part(1, 1).defect().is_some()
            && part(3, 9).defect().is_some()
            && part(0, u16::MAX).defect().is_some()
    );
    let empty = Item {
        key: Key::default(),
        ..good.clone()
    };
    assert!(empty.defect().is_some());
    assert!(item(dot(1, 3), 5, None, &[dot(1, 3)]).defect().is_some());
}

#[test]
fn a_wrong_figure_or_index_is_caught() {
    let sound = replica(&[
        &item(dot(1, 1), 5, Some("v"), &[]),
        &item(dot(2, 1), 6, None, &[]),
    ]);
    sound.check();
    let corruptions: [fn(&mut Replica); 5] = [
        |replica| replica.index.visible += 1,
        |replica| replica.index.digest ^= 1,
        |replica| _ = replica.index.uncollected.remove(&dot(2, 1)),
        |replica| replica.index.live.remove(dot(1, 1)),
        |replica| replica.context = Context::default(),
    ];
    for (at, corrupt) in corruptions.into_iter().enumerate() {
        let mut replica = sound.clone();
        corrupt(&mut replica);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| replica.check()));
        assert!(caught.is_err(), "corruption {at}");
    }
}

#[test]
fn what_two_replicas_with_equal_contexts_show_is_kept_on_both() {
    let (x, y) = (
        item(dot(1, 1), 5, Some("x"), &[]),
        item(dot(1, 2), 6, Some("y"), &[]),
    );
    let observing = item(dot(2, 1), 7, Some("z"), &[dot(1, 1)]);
    let context = replica(&[&x, &y, &observing]).context().clone();
    let of = |items: &[&Item]| {
        let mut replica = replica(items);
        replica.join_context(&context);
        replica
    };
    let (one, other) = (of(&[&x]), of(&[&y, &observing]));
    let repaired = |mut into: Replica, from: &Replica| {
        for item in from.all_items_after(None) {
            into.restore(item);
        }
        into.check();
        into
    };
    let (a, b) = (repaired(one.clone(), &other), repaired(other, &one));
    assert_eq!(image(&a), image(&b));
    let dots: Vec<Dot> = a.all_items_after(None).map(|item| item.dot).collect();
    assert_eq!(dots, [dot(1, 2), dot(2, 1)], "what was observed stays away");
    // One name for two changes.
    let (mut left, mut right) = (of(&[&x]), of(&[&item(dot(1, 1), 5, Some("other"), &[])]));
    let theirs: Vec<Item> = right.all_items_after(None).cloned().collect();
    assert!(
        right.restore(&x) != left.restore(&theirs[0]),
        "one of the two changes its mind"
    );
    assert_eq!(image(&left), image(&right));
    // One name for changes of two keys: a peer that breaks its rules does not break us.
    let elsewhere = Item {
        key: "other".into(),
        ..x.clone()
    };
    assert!(!left.restore(&elsewhere));
    left.check();
}
