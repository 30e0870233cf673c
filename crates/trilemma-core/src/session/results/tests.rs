//! Results of a session against a map.

use std::collections::BTreeMap;

use super::*;
use crate::id::Version;
use crate::rng::Rng;
use crate::tests::caught;

fn result(version: u64) -> OpResult {
    OpResult::Applied {
        succeeded: true,
        version: Version(version),
        found: Version::ABSENT,
    }
}

/// Against a map, with copies that must not change: appended, inserted, replaced, dropped.
#[test]
fn results_behave_as_a_map_and_copies_stay_as_they_were() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut results = Results::default();
        let mut map: BTreeMap<u64, OpResult> = BTreeMap::new();
        let mut copies: Vec<(Results, BTreeMap<u64, OpResult>)> = Vec::new();
        let mut next = 1;
        for step in 0..400 {
            match rng.below(10) {
                0 => {
                    let floor = map.keys().next().copied().unwrap_or(0) + rng.below(40);
                    results.drop_through(floor);
                    map = map.split_off(&(floor + 1));
                }
                1 => copies.push((results.clone(), map.clone())),
                2 | 3 => {
                    let seq = 1 + rng.below(next);
                    results.set(seq, result(step));
                    map.insert(seq, result(step));
                }
                _ => {
                    next += 1 + rng.below(3);
                    results.set(next, result(step));
                    map.insert(next, result(step));
                }
            }
            results.check();
            let seq = rng.below(next + 2);
            assert_eq!(
                results.get(seq),
                map.get(&seq).copied(),
                "seed {seed}, step {step}"
            );
            assert_eq!(results.len(), map.len());
            assert_eq!(results.first(), map.keys().next().copied());
            assert_eq!(results.last(), map.keys().next_back().copied());
        }
        copies.push((results, map));
        for (results, map) in copies {
            assert!(
                results.iter().copied().eq(map.clone()),
                "seed {seed}: a copy has changed"
            );
            assert!(
                results == map.into_iter().collect(),
                "equal results are equal however they came"
            );
        }
    }
}

#[test]
fn the_check_sees_a_chunk_that_is_empty_or_has_grown_too_large() {
    let mut results: Results = [(1, result(1))].into_iter().collect();
    let chunks = Arc::make_mut(&mut results.chunks);
    chunks.push_back(Arc::default());
    assert!(caught(|| results.check()).contains("no chunk of results is empty"));
    let entries: Vec<Entry> = (1..=65).map(|seq| (seq, result(seq))).collect();
    results.chunks = Arc::new([Arc::new(entries)].into());
    results.len = 65;
    assert!(caught(|| results.check()).contains("chunks of results are bounded"));
}
