//! What the learner's own check sees.

use trilemma_core::{Incarnation, NodeId, Version};

use super::*;
use crate::tests::harness::caught;

/// A learner that knows one key, which was deleted.
fn learner() -> Learner {
    let ballot = Ballot {
        counter: 1,
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let register = Register {
        version: Version(1),
        ..Register::default()
    };
    let mut learner = Learner::default();
    assert!(learner.learn(&"x".into(), ballot, &Arc::new(register)));
    learner.check();
    learner
}

#[test]
fn the_check_sees_counts_that_are_off() {
    let mut learner = learner();
    learner.keys += 1;
    assert!(caught(|| learner.check()).contains("1 keys and 1 tombstones are counted among 1 registers"));
    learner.keys = 1;
    learner.tombstones = 0;
    assert!(caught(|| learner.check()).contains("keys and tombstones are counted"));
}

#[test]
fn the_check_sees_a_hash_and_a_bucket_that_are_off() {
    let mut learner = learner();
    let of = usize::from(bucket(b"x"));
    learner.hashes[of] ^= 1;
    assert!(caught(|| learner.check()).contains("the hashes are those of what was learned"));
    learner.hashes[of] ^= 1;
    learner.buckets[of].clear();
    assert!(caught(|| learner.check()).contains("is in its bucket"));
}

#[test]
fn the_check_sees_a_change_of_a_key_that_nobody_learned() {
    let mut learner = learner();
    learner.changes.insert("y".into(), None);
    assert!(caught(|| learner.check()).contains("only learned keys change"));
}
