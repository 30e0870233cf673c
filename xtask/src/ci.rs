//! `cargo xtask ci`: everything that must pass before a change goes in, in the order in which it fails fastest.
//!
//! A step is a line in [`steps`]. It ends done, skipped with a reason that the summary repeats, or failed with advice.

use std::time::{Instant, SystemTime};

use crate::process::{self, cargo};
use crate::workspace::Workspace;
use crate::{Outcome, flags};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask ci [--install] [--list] [--only=STEP] [--from=STEP]

Runs every check in order and stops at the first that fails.

  --install  install cargo-deny if it is missing; takes minutes. Without it licences, bans and sources are checked
             all the same (step `dependencies`), advisories are not
  --list     only list the steps
  --only     run this step alone
  --from     run this step and those after it";

/// Crates that must build where there is no operating system.
const WASM: &[&str] = &[
    "trilemma-client",
    "trilemma-core",
    "trilemma-gossip",
    "trilemma-membership",
    "trilemma-node",
    "trilemma-paxos",
    "trilemma-raft",
    "trilemma-two-phase",
    "trilemma-check",
    "trilemma-sim",
    "trilemma-testkit",
];
const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Seeds of each protocol that every run simulates, other ones each time.
const SEEDS: u64 = 300;
/// Profiles beside the standard one, with seeds of each protocol that every run simulates: some ten seconds for each.
const PROFILES: &[(&str, u64)] = &[
    ("large", 1),
    ("load", 4),
    ("restart", 40),
    ("long", 5),
    ("watch", 60),
    ("client", 60),
];
/// Seeds of each protocol whose traces are compared between builds and processors.
const SEEDS_COMPARED: u64 = 5;
/// Mutants of the zoo that every run must kill, other ones each day.
const MUTANTS: usize = 4;

/// How a step ended, if it did not fail.
#[derive(Debug, PartialEq)]
enum Done {
    Passed,
    /// Not run, and why.
    Skipped(String),
}

type Ended = Result<Done, String>;

/// One check.
struct Step {
    name: &'static str,
    /// What to do when it fails.
    advice: &'static str,
    run: fn(&Context<'_>) -> Ended,
}

struct Context<'a> {
    workspace: &'a Workspace,
    install: bool,
}

impl Context<'_> {
    fn cargo(&self, args: &[&str]) -> Ended {
        process::run(self.workspace, cargo(), args).map(|()| Done::Passed)
    }
}

/// All steps, in order.
fn steps() -> Vec<Step> {
    let step = |name, advice, run| Step { name, advice, run };
    vec![
        step(
            "tidy",
            "each finding names its file and says what to change",
            |cx| crate::tidy::run(cx.workspace, &[]).map(|()| Done::Passed),
        ),
        step("format", "run `cargo fmt --all`", |cx| {
            cx.cargo(&["fmt", "--all", "--check"])
        }),
        step(
            "dependencies",
            "see deny.toml: it says what is allowed, and why",
            |cx| crate::dependencies::check(cx.workspace).map(|()| Done::Passed),
        ),
        step(
            "zoo-patches",
            "renew the patch against the present code; if its bug cannot be planted any more, remove it and say why",
            |cx| crate::zoo::check_own(cx.workspace).map(|()| Done::Passed),
        ),
        step(
            "lints",
            "repeat the command, mend what it names; a lint is relaxed only with a reason beside it",
            |cx| {
                cx.cargo(&[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ])
            },
        ),
        step(
            "reuse",
            "select what is built from the whole workspace, as xtask/src/programs.rs does, and start it through xtask/src/process.rs",
            |cx| crate::programs::check_reuse(cx.workspace).map(|()| Done::Passed),
        ),
        step(
            "wasm32",
            "a pure crate reached for the operating system; `cargo tree -p CRATE` shows through what",
            wasm,
        ),
        step(
            "tests",
            "repeat the command with the test's name; a seed in its output replays the run",
            |cx| cx.cargo(&["test", "--workspace", "--locked"]),
        ),
        step(
            "simulation",
            "`cargo xtask sim --protocol PROTOCOL --seed SEED --trace` shows the run, `--shrink` makes it short",
            |cx| {
                let from = unused_seeds(seconds_since_epoch(), SEEDS);
                crate::sim::campaign(cx.workspace, "standard", "all", from, SEEDS).map(|()| Done::Passed)
            },
        ),
        step(
            "profiles",
            "`cargo xtask sim --profile PROFILE --protocol PROTOCOL --seed SEED --trace` shows the run, `--shrink` makes it short",
            profiles,
        ),
        step(
            "membership",
            "`cargo xtask sim swim --smoke` repeats it: a figure missed its bar; or `--seeds 300`: a seed broke a rule",
            membership,
        ),
        step(
            "convergence",
            "`cargo xtask sim converge --smoke` repeats it: mend the predictor, or the core if that misbehaves, not the tolerance",
            |cx| crate::sim::converge(cx.workspace, &["--smoke".to_owned()]).map(|()| Done::Passed),
        ),
        step(
            "scenarios",
            "`cargo xtask sim --scenario FILE --trace` shows the run: an old bug is back",
            scenarios,
        ),
        step(
            "determinism",
            "something took time, order or randomness from outside; compare both traces of the seed",
            |cx| {
                let from = unused_seeds(seconds_since_epoch(), SEEDS_COMPARED);
                crate::sim::compare(cx.workspace, from, SEEDS_COMPARED).map(|()| Done::Passed)
            },
        ),
        step(
            "zoo",
            "a bug that was found before is not found any more: see what the simulator stopped doing",
            |cx| {
                let day = seconds_since_epoch() / (24 * 60 * 60);
                crate::zoo::handful(cx.workspace, day, MUTANTS).map(|()| Done::Passed)
            },
        ),
        step(
            "cargo-deny",
            "see deny.toml: it says what is allowed, and why",
            deny,
        ),
        step(
            "advisories",
            "update the crate, or say in deny.toml why the advisory does not concern us",
            advisories,
        ),
        step(
            "docs",
            "run `cargo xtask docs`, look at the change, put it into the commit",
            |cx| crate::docs::run(cx.workspace, &["--check".into(), "--build".into()]).map(|()| Done::Passed),
        ),
        step(
            "api-docs",
            "repeat the command; a link in a comment leads nowhere",
            |cx| {
                let strict = "build.rustdocflags=[\"-D\", \"warnings\"]";
                cx.cargo(&["doc", "--workspace", "--no-deps", "--locked", "--config", strict])
            },
        ),
    ]
}

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let (choice, others): (Vec<String>, Vec<String>) = args
        .iter()
        .cloned()
        .partition(|arg| arg.starts_with("--only=") || arg.starts_with("--from="));
    let flags = flags(&others, &["--install", "--list"])?;
    let steps = chosen(steps(), &choice)?;
    if flags.contains(&"--list") {
        steps.iter().for_each(|step| println!("{}", step.name));
        return Ok(());
    }
    let context = Context {
        workspace,
        install: flags.contains(&"--install"),
    };
    run_steps(&context, &steps)
}

/// The steps that `--only=` and `--from=` leave.
fn chosen(mut steps: Vec<Step>, choice: &[String]) -> Result<Vec<Step>, String> {
    for choice in choice {
        let (kind, name) = choice.split_once('=').unwrap_or((choice, ""));
        let at = steps.iter().position(|step| step.name == name).ok_or_else(|| {
            let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
            format!("no step is called \"{name}\"; there are {}", names.join(", "))
        })?;
        steps.drain(..at);
        if kind == "--only" {
            steps.truncate(1);
        }
    }
    Ok(steps)
}

fn run_steps(context: &Context<'_>, steps: &[Step]) -> Outcome {
    let begin = Instant::now();
    let mut skipped = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!(
            "\n[{}/{}] {} (at {})",
            index + 1,
            steps.len(),
            step.name,
            seconds(begin)
        );
        let own = Instant::now();
        match (step.run)(context) {
            Ok(Done::Passed) => println!("    {}: passed in {}", step.name, seconds(own)),
            Ok(Done::Skipped(why)) => {
                println!("    {}: SKIPPED: {why}", step.name);
                skipped.push(format!("{} ({why})", step.name));
            }
            Err(error) => {
                return Err(format!(
                    "step \"{}\" failed after {}: {error}\nwhat to do: {}",
                    step.name,
                    seconds(own),
                    step.advice
                ));
            }
        }
    }
    println!(
        "\n{} of {} steps passed in {}",
        steps.len() - skipped.len(),
        steps.len(),
        seconds(begin)
    );
    for step in &skipped {
        println!("skipped: {step}");
    }
    Ok(())
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

fn wasm(context: &Context<'_>) -> Ended {
    process::target_installed(context.workspace, WASM_TARGET)?;
    let mut args = vec!["build", "--locked", "--target", WASM_TARGET, "--lib"];
    for package in WASM {
        args.extend(["--package", package]);
    }
    context.cargo(&args)
}

fn seconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |passed| passed.as_secs())
}

/// The first seed of a range of `count` that no run of another minute has. The simulator prints it, so that a failure
/// can be replayed.
fn unused_seeds(seconds_since_epoch: u64, count: u64) -> u64 {
    seconds_since_epoch / 60 * count
}

/// The membership core: what it is measured by, and random schedules.
fn membership(context: &Context<'_>) -> Ended {
    crate::sim::swim(context.workspace, &["--smoke".to_owned()])?;
    crate::sim::swim(context.workspace, &["--seeds".to_owned(), "300".to_owned()])?;
    Ok(Done::Passed)
}

/// Other seeds of each profile each time.
fn profiles(context: &Context<'_>) -> Ended {
    for (profile, seeds) in PROFILES {
        let from = unused_seeds(seconds_since_epoch(), *seeds);
        crate::sim::campaign(context.workspace, profile, "all", from, *seeds)?;
    }
    Ok(Done::Passed)
}

/// Every scenario that once showed a bug.
fn scenarios(context: &Context<'_>) -> Ended {
    match crate::sim::scenarios(context.workspace, "crates/trilemma-sim/scenarios/")? {
        0 => Ok(Done::Skipped(
            "crates/trilemma-sim/scenarios has no *.txt yet".into(),
        )),
        count => {
            println!("    {count} scenarios are legal");
            Ok(Done::Passed)
        }
    }
}

/// Makes sure that cargo-deny can be run; otherwise says why the step is skipped.
fn deny_or_skip(context: &Context<'_>) -> Result<Option<Done>, String> {
    if process::works("cargo-deny", &["--version"]) {
        return Ok(None);
    }
    if !context.install {
        let how = "cargo-deny is not installed; `cargo install --locked cargo-deny` or --install installs it";
        return Ok(Some(Done::Skipped(how.into())));
    }
    context.cargo(&["install", "--locked", "cargo-deny"])?;
    Ok(None)
}

fn deny(context: &Context<'_>) -> Ended {
    if let Some(skipped) = deny_or_skip(context)? {
        return Ok(skipped);
    }
    context.cargo(&[
        "deny",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ])
}

/// Known vulnerabilities. Their database is fetched, which not every machine can: then the step is skipped, loudly.
fn advisories(context: &Context<'_>) -> Ended {
    if let Some(skipped) = deny_or_skip(context)? {
        return Ok(skipped);
    }
    if !process::works("cargo-deny", &["--locked", "fetch", "db"]) {
        return Ok(Done::Skipped(
            "the advisory database cannot be reached from here".into(),
        ));
    }
    context.cargo(&["deny", "--locked", "check", "advisories"])
}

#[cfg(test)]
mod tests;
