//! The arguments of the simulator.

use trilemma_sim::{Profile, Protocol};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Usage: trilemma-sim --protocol raft|paxos|gossip|two-phase|mixed|all [options]
       trilemma-sim --scenario FILE [--trace] [--shrink]

  --profile NAME   standard, large, load, restart, long, watch or client (default standard); with --print alone, what it
                   draws
  --seeds N        runs N seeds (default 1000)
  --from S         the first seed (default 0)
  --seed S         runs one seed
  --trace          prints every event of that run
  --print          prints the scenario of that seed
  --shrink         makes a failing run short and prints it as a scenario
  --scenario FILE  runs a scenario
  --threads T      threads (default: all processors)
  --fail-fast      stops at the first failure
  --history FILE   writes the history of that run, one file for each keyspace: FILE.<number>.jsonl
  --coverage FILE  adds the coverage of this campaign to a file
  --full-coverage  with --coverage: fails if something that the profile must meet was never met
  --hashes         prints the trace hash of each seed

The last line is one JSON object. Exit: 0 nothing found, 1 failures, 2 usage, or too much undecided.";

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) profile: Profile,
    /// The name that was given, `all` included.
    pub(crate) name: String,
    pub(crate) seeds: u64,
    pub(crate) from: u64,
    pub(crate) single: bool,
    pub(crate) trace: bool,
    pub(crate) print: bool,
    pub(crate) shrink: bool,
    pub(crate) scenario: Option<String>,
    pub(crate) threads: usize,
    pub(crate) fail_fast: bool,
    pub(crate) coverage: Option<String>,
    pub(crate) history: Option<String>,
    pub(crate) full_coverage: bool,
    pub(crate) hashes: bool,
}

impl Args {
    /// Whether only the description of a profile is asked for.
    pub(crate) fn is_description(&self) -> bool {
        self.print && !self.single && self.scenario.is_none()
    }
}

/// Reads the arguments; the error says what is wrong.
pub(crate) fn parse(arguments: &[String]) -> Result<Args, String> {
    let mut args = Args {
        seeds: 1000,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..Args::default()
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag}: a value is missing"));
        let number = |text: &String| {
            text.parse::<u64>()
                .map_err(|_| format!("{flag} {text}: expected a number"))
        };
        match flag.as_str() {
            "--protocol" => args.name.clone_from(value()?),
            "--profile" => args.profile = value()?.parse()?,
            "--seeds" => args.seeds = number(value()?)?,
            "--from" => args.from = number(value()?)?,
            "--seed" => {
                args.from = number(value()?)?;
                args.single = true;
            }
            "--threads" => args.threads = number(value()?)?.clamp(1, 256) as usize,
            "--scenario" => args.scenario = Some(value()?.clone()),
            "--history" => args.history = Some(value()?.clone()),
            "--coverage" => args.coverage = Some(value()?.clone()),
            "--trace" => args.trace = true,
            "--print" => args.print = true,
            "--shrink" => args.shrink = true,
            "--fail-fast" => args.fail_fast = true,
            "--full-coverage" => args.full_coverage = true,
            "--hashes" => args.hashes = true,
            other => return Err(format!("{other}: no such option")),
        }
    }
    if args.single {
        args.seeds = 1;
    }
    args.protocols = match args.name.as_str() {
        "all" => Protocol::ALL.to_vec(),
        "" if args.scenario.is_some() || args.is_description() => Vec::new(),
        "" => return Err("--protocol is missing".to_owned()),
        name => vec![name.parse().map_err(|error| format!("{error}, or all"))?],
    };
    Ok(args)
}
