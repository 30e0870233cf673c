//! Campaigns: many seeds on all processors, one line for each failure, one object at the end.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use trilemma_check::history::History;
use trilemma_sim::coverage::{self, Coverage};
use trilemma_sim::{Protocol, Report, Scenario, run as run_scenario, shrink};

use crate::args::Args;

/// Undecided runs, per mille, above which a campaign does not count.
const UNDECIDED_PER_MILLE_MAX: u64 = 1;

#[derive(Default)]
struct Totals {
    seeds: u64,
    failures: u64,
    undecided: u64,
    operations: u64,
    succeeded: u64,
    faults: u64,
    events: u64,
    operations_min: Option<u64>,
    faults_min: Option<u64>,
    few_faults: u64,
    coverage: BTreeMap<Protocol, Coverage>,
}

impl Totals {
    fn add(&mut self, protocol: Protocol, report: &Report) {
        self.seeds += 1;
        self.failures += u64::from(report.failure.is_some());
        self.undecided += u64::from(report.undecided.is_some());
        self.operations += report.operations;
        self.succeeded += report.succeeded;
        self.faults += report.faults;
        self.events += report.events;
        self.few_faults += u64::from(report.faults < 50);
        if report.failure.is_none() {
            let least = |old: Option<u64>, new: u64| Some(old.map_or(new, |old| old.min(new)));
            self.operations_min = least(self.operations_min, report.operations);
            self.faults_min = least(self.faults_min, report.faults);
        }
        self.coverage.entry(protocol).or_default().merge(&report.coverage);
    }
}

/// Text as a JSON string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if (c as u32) < 0x20 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Runs what was asked for.
pub(crate) fn run(args: &Args) -> ExitCode {
    // A panic in a protocol is reported as what it is, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(file) = &args.scenario {
        return one_file(args, file);
    }
    if args.is_description() {
        print!("{}", args.profile.description());
        return ExitCode::SUCCESS;
    }
    if args.single && (args.print || args.trace || args.shrink || args.history.is_some()) {
        let scenario = args.profile.scenario(args.protocols[0], args.from);
        return one(args, &scenario);
    }
    let start = Instant::now();
    let totals = Mutex::new(Totals::default());
    for protocol in &args.protocols {
        campaign(args, *protocol, &totals);
    }
    let totals = totals
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    finish(args, &totals, start.elapsed().as_secs_f64())
}

fn finish(args: &Args, totals: &Totals, seconds: f64) -> ExitCode {
    let empty = match cover(args, totals) {
        Ok(empty) => empty,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    println!(
        "{} operations ({} succeeded), {} faults, {} events in {seconds:.1} s; least per seed: {} operations, {} faults; {} seeds with fewer than 50 faults",
        totals.operations,
        totals.succeeded,
        totals.faults,
        totals.events,
        totals.operations_min.unwrap_or(0),
        totals.faults_min.unwrap_or(0),
        totals.few_faults,
    );
    for (protocol, coverage) in &totals.coverage {
        let events = coverage::events(args.profile, *protocol).into_iter();
        let counts: Vec<String> = events
            .map(|(event, met)| format!("{event} {met} {}", coverage.count(event, met)))
            .collect();
        if !counts.is_empty() {
            println!("{protocol}: {}", counts.join(", "));
        }
    }
    println!(
        "{{\"protocol\":{},\"seeds\":{},\"failures\":{},\"undecided\":{},\"ops\":{},\"faults\":{},\"seeds_per_minute\":{:.0}}}",
        quote(&args.name),
        totals.seeds,
        totals.failures,
        totals.undecided,
        totals.operations,
        totals.faults,
        totals.seeds as f64 * 60.0 / seconds.max(1e-9),
    );
    if totals.failures > 0 || (args.full_coverage && empty > 0) {
        ExitCode::from(1)
    } else if totals.undecided * 1000 > totals.seeds * UNDECIDED_PER_MILLE_MAX {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn campaign(args: &Args, protocol: Protocol, totals: &Mutex<Totals>) {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= args.seeds {
                return;
            }
            let seed = args.from + index;
            let report = run_scenario(&args.profile.scenario(protocol, seed), false);
            if args.hashes {
                println!("{protocol} {seed} {:032x}", report.hash);
            }
            if let Some(why) = &report.undecided {
                println!(
                    "undecided {{\"protocol\":\"{protocol}\",\"seed\":{seed},\"what\":{}}}",
                    quote(why)
                );
            }
            if let Some(failure) = &report.failure {
                println!(
                    "failure {{\"protocol\":\"{protocol}\",\"seed\":{seed},\"checker\":\"{}\",\"what\":{}}}",
                    failure.checker,
                    quote(&failure.what)
                );
                if args.fail_fast {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            totals
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .add(protocol, &report);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
}

fn one_file(args: &Args, file: &str) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::from(2);
        }
    };
    match text.parse::<Scenario>() {
        Ok(scenario) => one(args, &scenario),
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn one(args: &Args, scenario: &Scenario) -> ExitCode {
    let start = Instant::now();
    if args.print {
        print!("{scenario}");
    }
    let report = run_scenario(scenario, args.trace);
    report.trace.iter().for_each(|line| println!("{line}"));
    if let Some(failure) = &report.failure {
        println!(
            "failure {{\"protocol\":\"{}\",\"seed\":{},\"checker\":\"{}\",\"what\":{}}}",
            scenario.protocol,
            scenario.seed,
            failure.checker,
            quote(&failure.what)
        );
    }
    if let (true, Some(failure)) = (args.shrink, &report.failure) {
        let shrunk = shrink::shrink(scenario, failure.checker);
        println!("# fails by {}, shrunk in {} runs", failure.checker, shrunk.runs);
        print!("{}", shrunk.scenario);
    }
    if let Some(file) = &args.history {
        for (slot, operations) in &report.histories {
            let name = format!("{file}.{slot}.jsonl");
            let history = History {
                operations: operations.clone(),
            };
            if let Err(error) = std::fs::File::create(&name).and_then(|file| history.write(file)) {
                eprintln!("{name}: {error}");
            }
        }
    }
    println!("hash {:032x}", report.hash);
    let mut totals = Totals::default();
    totals.add(scenario.protocol, &report);
    let args = Args {
        name: scenario.protocol.to_string(),
        coverage: args.coverage.clone(),
        ..Args::default()
    };
    finish(&args, &totals, start.elapsed().as_secs_f64())
}

/// Prints the coverage with what earlier campaigns have saved, and saves it. Returns the number of empty cells.
fn cover(args: &Args, totals: &Totals) -> Result<usize, String> {
    let Some(file) = &args.coverage else { return Ok(0) };
    let mut coverage = totals.coverage.clone();
    let failed = |why: String| format!("{file}: {why}");
    match std::fs::read_to_string(file) {
        Ok(text) => load(&text, &mut coverage).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let mut lines = String::new();
    let mut empty = 0;
    for (protocol, coverage) in &coverage {
        println!("{}", coverage.matrix(*protocol));
        for (class, phase) in coverage.empty(args.profile, *protocol) {
            println!("empty: {protocol} {class} {phase}");
            empty += 1;
        }
        for (class, phase, count) in coverage.cells() {
            lines += &format!("{protocol} {class} {phase} {count}\n");
        }
    }
    std::fs::write(file, lines).map_err(|error| failed(error.to_string()))?;
    Ok(empty)
}

/// Adds the counts of a file of lines `protocol class phase count`.
fn load(text: &str, coverage: &mut BTreeMap<Protocol, Coverage>) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = match words[..] {
            [protocol, class, phase, count] => protocol
                .parse::<Protocol>()
                .ok()
                .zip(count.parse().ok())
                .map(|(protocol, count)| (protocol, class, phase, count)),
            _ => None,
        };
        let Some((protocol, class, phase, count)) = parsed else {
            return Err(format!(
                "line {}: expected protocol, class, phase and count",
                number + 1
            ));
        };
        coverage
            .entry(protocol)
            .or_default()
            .add(protocol, class, phase, count);
    }
    Ok(())
}
