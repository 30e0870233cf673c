//! The order of steps, and what a failed or skipped one does.

use super::{Context, Done, Step, chosen, run_steps, steps, unused_seeds};
use crate::workspace::Workspace;

fn run(ends: &[fn(&Context<'_>) -> super::Ended]) -> Result<(), String> {
    let workspace = Workspace { root: ".".into() };
    let context = Context {
        workspace: &workspace,
        install: false,
    };
    let steps: Vec<Step> = ends
        .iter()
        .map(|run| Step {
            name: "sample",
            advice: "mend the sample",
            run: *run,
        })
        .collect();
    run_steps(&context, &steps)
}

#[test]
fn the_first_failure_ends_the_run_and_says_what_to_do() {
    let error = run(&[
        |_| Ok(Done::Passed),
        |_| Err("broken".into()),
        |_| Err("never reached".into()),
    ])
    .expect_err("a step failed");
    assert!(
        error.contains("broken") && error.contains("what to do: mend the sample"),
        "{error}"
    );
    assert!(!error.contains("never reached"), "{error}");
}

#[test]
fn a_skipped_step_does_not_fail_the_run() {
    assert_eq!(
        run(&[|_| Ok(Done::Skipped("no tool".into())), |_| Ok(Done::Passed)]),
        Ok(())
    );
}

#[test]
fn the_cheap_checks_come_first_and_every_step_has_advice() {
    let names: Vec<_> = steps().iter().map(|step| step.name).collect();
    assert_eq!(names[..3], ["tidy", "format", "dependencies"]);
    assert!(steps().iter().all(|step| !step.advice.is_empty()));
}

#[test]
fn a_step_can_be_run_alone_or_with_those_after_it() {
    let names = |choice: &str| {
        let steps = chosen(steps(), &[choice.into()]).expect("the step is there");
        steps.iter().map(|step| step.name).collect::<Vec<_>>()
    };
    assert_eq!(names("--only=wasm32"), ["wasm32"]);
    assert_eq!(names("--from=docs"), ["docs", "api-docs"]);
    assert!(chosen(steps(), &["--only=nothing".into()]).is_err());
}

#[test]
fn every_run_simulates_other_seeds() {
    let (one, other) = (unused_seeds(600, 300), unused_seeds(660, 300));
    assert_eq!(
        other - one,
        300,
        "ranges of neighbouring minutes meet and do not overlap"
    );
    assert_eq!(unused_seeds(659, 300), one);
}
