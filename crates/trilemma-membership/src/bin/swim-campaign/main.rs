//! The campaign of the membership core: whole clusters in virtual time, measured against the goals of the design.
//! `cargo xtask sim swim` builds and runs it.

mod measures;
mod seeds;

use std::process::ExitCode;

use measures::{Bar, MEASURES, Scale};

const HELP: &str = "\
Usage: swim-campaign [--smoke] [--only MEASURE] [--seed S] [--nodes N]
       swim-campaign --seeds COUNT [--from SEED]

Prints a table of what was measured, and fails if a bar is missed.

  --smoke         small clusters, some seconds
  --only MEASURE  one of: detection, loss, starved, partition, restart, idle, tables
  --seed S        the first seed (default 1)
  --nodes N       nodes of each cluster (default 1000, 100 with --smoke); tables has ten times as many
  --seeds COUNT   measures nothing: so many random schedules of faults. Prints a line for each that breaks a rule, as the simulator
                  of nodes does, and a summary
  --from SEED     the first of them (default 0)";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let mut arguments = std::env::args().skip(1);
    let mut scale = Scale::default();
    let mut only = None;
    let mut nodes = None;
    let mut count = None;
    let mut from = 0;
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag}: a value is missing"))
        };
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match flag.as_str() {
            "--smoke" => scale = Scale::smoke(),
            "--only" => only = Some(value()?),
            "--seed" => scale.seed = number(value()?)?,
            "--seeds" => count = Some(number(value()?)?),
            "--from" => from = number(value()?)?,
            "--nodes" => nodes = Some(number(value()?)?),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(true);
            }
            other => return Err(format!("{other}: no such option")),
        }
    }
    if let Some(count) = count {
        return Ok(seeds::run(from..from.saturating_add(count)));
    }
    if let Some(nodes) = nodes {
        scale.nodes = nodes.clamp(4, 16_000) as u32;
    }
    if let Some(only) = &only
        && !MEASURES.iter().any(|(name, _)| name == only)
    {
        return Err(format!("{only}: no such measure"));
    }
    println!("{:46} {:>12} {:>12}", "measure", "figure", "bar");
    let mut is_met = true;
    for (name, measure) in MEASURES {
        if only.as_deref().is_none_or(|only| only == *name) {
            let begin = std::time::Instant::now();
            let bars = measure(&scale);
            is_met &= bars.iter().all(Bar::is_met);
            bars.iter().for_each(|bar| println!("{bar}"));
            println!("  ({name}: {:.1} s)", begin.elapsed().as_secs_f64());
        }
    }
    Ok(is_met)
}
