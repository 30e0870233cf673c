//! Random schedules by seed, with the output of the simulator of nodes: `cargo xtask zoo` reads both.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use trilemma_membership::schedule::{self, Broken};

/// Runs these seeds; whether none broke a rule.
pub(crate) fn run(seeds: Range<u64>) -> bool {
    let (from, count) = (seeds.start, seeds.end - seeds.start);
    let mut failures = 0;
    for seed in seeds {
        let Err(Broken { checker, what }) = caught(seed) else {
            continue;
        };
        failures += 1;
        println!(
            "failure {{\"protocol\":\"membership\",\"seed\":{seed},\"checker\":\"{checker}\",\"what\":\"{}\"}}",
            plain(&what)
        );
    }
    println!(
        "{{\"protocol\":\"membership\",\"from\":{from},\"seeds\":{count},\"failures\":{failures},\"undecided\":0}}"
    );
    failures == 0
}

/// An invariant of a member that breaks is a finding like any other.
fn caught(seed: u64) -> Result<(), Broken> {
    catch_unwind(AssertUnwindSafe(|| schedule::run(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Broken {
            checker: "panic",
            what: text.unwrap_or_default(),
        })
    })
}

/// Text for JSON, without what would need an escape.
fn plain(text: &str) -> String {
    text.replace(['"', '\\'], "'").replace(char::is_control, " ")
}
