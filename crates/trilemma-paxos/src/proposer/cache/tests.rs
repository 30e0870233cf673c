//! What the cache's own check sees.

use trilemma_core::{Incarnation, NodeId};

use super::*;
use crate::tests::harness::caught;

fn cached(base: u64, ballot: u64) -> Cached {
    let of = |counter| Ballot {
        counter,
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    Cached {
        ballot: of(ballot),
        base: of(base),
        register: Arc::default(),
    }
}

#[test]
fn the_check_sees_a_generation_that_is_too_large() {
    let mut cache = Cache::new(2);
    cache.put(&"x".into(), cached(1, 2));
    cache.put(&"y".into(), cached(1, 2));
    cache.check();
    cache.young.insert("z".into(), cached(1, 2));
    assert!(caught(|| cache.check()).contains("the young generation is bounded"));
}

#[test]
fn a_ballot_below_what_its_promise_reported_is_not_kept() {
    let mut cache = Cache::new(2);
    assert!(caught(|| cache.put(&"x".into(), cached(2, 2))).contains("above what its promise reported"));
}
