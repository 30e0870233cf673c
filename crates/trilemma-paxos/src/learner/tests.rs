//! What the learner's own check sees.

use trilemma_core::{Incarnation, NodeId};

use super::*;
use crate::tests::harness::caught;

/// A learner that knows one key, which was deleted.
fn learner() -> (Learner, KeyStates) {
    let ballot = Ballot {
        counter: 1,
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let register = Arc::new(Register {
        version: Version(1),
        ..Register::default()
    });
    let (mut learner, mut slots) = (Learner::default(), KeyStates::default());
    let key = Key::from("x");
    assert!(slots.change_or_make(&key, |slot| learner.learn(slot, &key, ballot, &register)));
    learner.check(&slots);
    (learner, slots)
}

#[test]
fn the_check_sees_a_hash_and_a_bucket_that_are_off() {
    let (mut learner, slots) = learner();
    let of = usize::from(bucket(b"x"));
    learner.hashes[of] ^= 1;
    assert!(caught(|| learner.check(&slots)).contains("the hashes are those of what was learned"));
    learner.hashes[of] ^= 1;
    learner.buckets[of].clear();
    assert!(caught(|| learner.check(&slots)).contains("is in its bucket"));
}

#[test]
fn the_check_sees_a_change_of_a_key_that_nobody_learned() {
    let (mut learner, slots) = learner();
    let (key, now) = ("y".into(), None);
    learner.changes.push(Change { key, now });
    assert!(caught(|| learner.check(&slots)).contains("only learned keys change"));
}

#[test]
fn of_what_changes_twice_the_newest_is_shown() {
    let (mut learner, slots) = learner();
    let (key, now) = (Key::from("a"), None);
    learner.changes.push(Change {
        key: key.clone(),
        now,
    });
    let now = Some(Versioned {
        value: "1".into(),
        created: Version(1),
        modified: Version(1),
        lease: Default::default(),
    });
    learner.changes.push(Change {
        key: key.clone(),
        now: now.clone(),
    });
    let changes = learner.take_changes().concat();
    let shown: Vec<(&Key, bool)> = changes
        .iter()
        .map(|change| (&change.key, change.now.is_some()))
        .collect();
    assert_eq!(shown, [(&key, true), (&"x".into(), false)]);
    learner.check(&slots);
}
