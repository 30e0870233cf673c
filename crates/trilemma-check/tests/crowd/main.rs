//! Ten thousand operations on one register by fifty clients, a tenth never answered: the verdict is right. How long it
//! takes is measured by `cargo run --release -p trilemma-check --example crowd`.

mod generate;

use generate::{CROWDS, crowd, plant};
use trilemma_check::linearizability::{Budget, check};
use trilemma_check::verdict::Verdict;

/// Fewer steps than by default, so that unoptimised builds give up in seconds.
const BUDGET: Budget = Budget {
    steps: 300_000,
    steps_to_confirm: 30_000,
};

/// The shapes of which a legal history must be found legal: those with unique values, or with so few that nearly any
/// unknown write explains a read. In between a search may have to give up, which is honest.
const DECIDED: [&str; 3] = ["unique values", "five values", "unique values, compare-and-set"];

#[test]
fn a_crowd_on_one_register_is_judged_rightly() {
    for shape in CROWDS {
        let mut history = crowd(0, shape);
        let verdict = check(&history, shape.model, BUDGET).verdict;
        match verdict {
            Verdict::Legal => {}
            Verdict::Undecided { why } => {
                assert!(!DECIDED.contains(&shape.name), "{}: {why}", shape.name);
            }
            Verdict::Illegal(found) => panic!("{} is legal: {found:?}", shape.name),
        }
        plant(&mut history, 0);
        let verdict = check(&history, shape.model, BUDGET).verdict;
        assert!(
            matches!(verdict, Verdict::Illegal(_)),
            "{} is illegal: {verdict:?}",
            shape.name
        );
    }
}
