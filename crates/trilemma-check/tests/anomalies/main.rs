//! The power of the checkers: for each anomaly 200 illegal histories, planted in generated legal ones, of which all
//! must be rejected under the right name, while every legal original is accepted.
//!
//! The generators are small models of the services, written for these tests alone.

mod convergence;
mod locks;
mod random;
mod sessions;
mod transactions;
mod watch;

use random::Random;
use trilemma_check::verdict::Verdict;

/// Planted histories per anomaly.
const PLANTED: u64 = 200;
/// Originals to look through for places where an anomaly can be planted.
const TRIED_MAX: u64 = 20_000;

/// Generates legal cases and plants one anomaly in each that has a place for it.
///
/// `plant` returns whether it found a place; what it leaves must then be rejected as one of `rules`.
fn power<Case>(
    rules: &[&str],
    generate: impl Fn(&mut Random) -> Case,
    plant: impl Fn(&mut Case, &mut Random) -> bool,
    check: impl Fn(&Case) -> Verdict,
) {
    let (mut planted, mut undecided) = (0, 0);
    for seed in 0..TRIED_MAX {
        let mut random = Random::new(seed);
        let mut case = generate(&mut random);
        let verdict = check(&case);
        // An original in which nothing was answered has nothing to judge.
        if matches!(verdict, Verdict::Undecided { .. }) {
            undecided += 1;
            continue;
        }
        assert_eq!(verdict, Verdict::Legal, "a legal original, seed {seed}");
        if !plant(&mut case, &mut random) {
            continue;
        }
        match check(&case) {
            Verdict::Illegal(found) if rules.contains(&found.rule) => {
                assert!(
                    !found.what.is_empty() && found.operations.is_sorted(),
                    "seed {seed}: {found:?}"
                );
            }
            verdict => panic!("seed {seed}: planted {rules:?}, found {verdict:?}"),
        }
        planted += 1;
        if planted == PLANTED {
            assert!(
                undecided < PLANTED,
                "{rules:?}: {undecided} originals were left open"
            );
            return;
        }
    }
    panic!("{rules:?}: only {planted} of {TRIED_MAX} originals had a place for it");
}
