//! Tests of what is shown of a key while changes of it are deferred.

use super::*;
use crate::dot::Observed;
use crate::replica::Part;

fn dot(origin: u32, seq: u64) -> Dot {
    let incarnation = trilemma_core::Incarnation(1);
    Dot::new(trilemma_core::NodeId(origin), incarnation, seq)
}

fn item(dot: Dot, wall: u64, value: &str, observed: &[Dot]) -> Item {
    let mut set = Observed::default();
    observed.iter().for_each(|dot| set.add(*dot));
    Item {
        dot,
        stamp: Stamp::at(WallTime(wall)),
        key: "k".into(),
        content: Some(value.into()),
        observed: set,
        part: Part { index: 0, of: 1 },
    }
}

fn config() -> GossipConfig {
    let node = trilemma_core::NodeId(9);
    GossipConfig::new(node, trilemma_core::Incarnation(1), [], 1)
}

fn shown(deferred: &Deferred, replica: &Replica) -> Vec<Dot> {
    let siblings = deferred.shadow(b"k").unwrap_or_else(|| replica.siblings(b"k"));
    siblings.iter().map(|sibling| sibling.item.dot).collect()
}

#[test]
fn a_shadow_goes_on_as_if_nothing_were_deferred_and_ends_with_the_last_one() {
    let (mut replica, mut deferred) = (Replica::default(), Deferred::default());
    let old = item(dot(1, 1), 10, "old", &[]);
    let (soon, later) = (
        item(dot(2, 1), 5_000, "soon", &[old.dot]),
        item(dot(2, 2), 9_000, "later", &[old.dot, dot(2, 1)]),
    );
    let meanwhile = item(dot(1, 2), 20, "meanwhile", &[old.dot]);
    replica.join(&old);
    for ahead in [&soon, &later] {
        deferred.add(&replica, ahead);
        replica.join(ahead);
    }
    assert_eq!(shown(&deferred, &replica), [old.dot]);
    replica.join(&meanwhile);
    deferred.join(&meanwhile);
    assert_eq!(
        shown(&deferred, &replica),
        [meanwhile.dot],
        "it has observed the old one"
    );
    deferred.check(&replica);
    assert!(deferred.due(WallTime(4_000), &config()).is_empty());
    for (wall, due, then) in [
        (4_600, &soon, vec![meanwhile.dot, soon.dot]),
        (8_600, &later, vec![later.dot, meanwhile.dot]),
    ] {
        assert_eq!(deferred.due(WallTime(wall), &config()), std::slice::from_ref(due));
        assert!(deferred.show(due) && !deferred.show(due));
        let mut dots = shown(&deferred, &replica);
        dots.sort_unstable();
        let mut then = then;
        then.sort_unstable();
        assert_eq!(dots, then);
        deferred.check(&replica);
    }
    assert!(!deferred.holds(b"k") && deferred.len() == 0);
}

#[test]
fn a_deferred_change_that_was_replaced_is_over() {
    let (mut replica, mut deferred) = (Replica::default(), Deferred::default());
    let ahead = item(dot(1, 1), 90_000, "ahead", &[]);
    let later = item(dot(2, 1), 95_000, "later", &[ahead.dot]);
    for change in [&ahead, &later] {
        deferred.add(&replica, change);
        replica.join(change);
    }
    // Written by a node that had seen the first, after its clock was set right.
    let after = item(dot(1, 2), 20, "after", &[ahead.dot]);
    replica.join(&after);
    deferred.join(&after);
    assert_eq!(shown(&deferred, &replica), [after.dot]);
    assert_eq!(deferred.dots().iter().collect::<Vec<_>>(), [&later.dot]);
    let all = item(dot(1, 3), 30, "all", &[after.dot, later.dot]);
    replica.join(&all);
    deferred.join(&all);
    assert_eq!((shown(&deferred, &replica), deferred.len()), (vec![all.dot], 0));
    deferred.check(&replica);
}

#[test]
fn a_wrong_count_of_bytes_is_caught() {
    let mut deferred = Deferred::default();
    let mut replica = Replica::default();
    let ahead = item(dot(1, 1), 9_000, "v", &[]);
    deferred.add(&replica, &ahead);
    replica.join(&ahead);
    deferred.check(&replica);
    deferred.bytes += 1;
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| deferred.check(&replica))).is_err());
}

/// A peer can make up a command of any size, spread over messages; what is logged of it at once is bounded all the same.
#[test]
fn a_command_larger_than_any_becomes_due_in_pieces() {
    let (mut replica, mut deferred) = (Replica::default(), Deferred::default());
    let value = "v".repeat(1 << 20);
    for index in 0..12 {
        let mut part = item(dot(2, 1 + u64::from(index)), 5_000, &value, &[]);
        part.key = format!("k{index}").into();
        part.part = Part { index, of: 12 };
        deferred.add(&replica, &part);
        replica.join(&part);
    }
    let config = config();
    let mut shown = 0;
    while shown < 12 {
        let due = deferred.due(WallTime(9_000), &config);
        assert!(!due.is_empty());
        let bytes = size(&due);
        assert!(
            bytes <= config.page_bytes + COMMAND_ITEMS_BYTES_MAX,
            "{bytes} bytes"
        );
        shown += due.len();
        assert!(due.iter().all(|item| deferred.show(item)));
        deferred.check(&replica);
    }
    assert_eq!(deferred.len(), 0);
}
