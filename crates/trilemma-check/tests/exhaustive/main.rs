//! Every checker against trying every order: random small histories, legal or not, judged by a plain reference that
//! shares nothing with the checker and leaves no case out.
//!
//! `TRILEMMA_SEEDS=1000000 cargo test --release -p trilemma-check --test exhaustive` judges a million histories per
//! model. A disagreement prints the seed and the history, which then becomes a test of its own in `kept`.

mod convergence;
mod kept;
mod linear;
mod locks;
mod sessions;
mod transactions;
mod watch;

use trilemma_check::history::{History, Operation};

/// Histories per model; `TRILEMMA_SEEDS` sets another number.
const SEEDS: u64 = 3_000;

/// The seeds to run: `TRILEMMA_SEEDS` of them, from `TRILEMMA_FIRST_SEED` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        )
    };
    let first = number("TRILEMMA_FIRST_SEED").unwrap_or(0);
    first..first + number("TRILEMMA_SEEDS").unwrap_or(SEEDS)
}

/// The history as the file that `trilemma check` reads.
fn dump(operations: &[Operation]) -> String {
    let mut text = Vec::new();
    let operations = operations.to_vec();
    History { operations }.write(&mut text).expect("memory holds it");
    String::from_utf8(text).expect("JSON is text")
}

/// How many histories of a model were legal, illegal and left open. A test of which all are alike is no test.
#[derive(Default)]
struct Tally {
    legal: u64,
    illegal: u64,
    undecided: u64,
}

impl Tally {
    fn finish(&self, model: &str) {
        let all = self.legal + self.illegal + self.undecided;
        println!(
            "{model}: {all} histories agree: {} legal, {} illegal, {} undecided",
            self.legal, self.illegal, self.undecided
        );
        if all >= 500 {
            assert!(self.legal * 20 > all, "{model}: {} of {all} legal", self.legal);
            assert!(
                self.illegal * 20 > all,
                "{model}: {} of {all} illegal",
                self.illegal
            );
            assert!(
                self.undecided * 5 < all,
                "{model}: {} of {all} undecided",
                self.undecided
            );
        }
    }
}
