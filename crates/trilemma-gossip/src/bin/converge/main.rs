//! Whether the predicted time to convergence is that of the shipped protocol: clusters of gossip instances in virtual
//! time, beside the prediction that their own settings make. `cargo xtask sim converge` builds and runs it.
//!
//! One write at a time, each at a random node and moment; the time until all nodes reflect it, and the copies of it that
//! they are sent. Anti-entropy is off: what rumors miss counts as missed. Every run of a seed gives the same figures.

mod cells;
mod cluster;
mod measured;
mod plot;

use std::process::ExitCode;

use cells::Cell;
use measured::Measured;

const HELP: &str = "\
Usage: converge [--nodes N,N,…] [--writes N] [--seed S] [--only TEXT] [--smoke] [--json FILE] [--svg FILE]

Measures how many ticks a write takes to all nodes, and fails if a mean is not within 0.3 ticks or 5 % of the prediction,
or a 99th percentile more than a tick above it, or rumors miss a node with more than one write and one in a hundred.

  --nodes N,N,…  nodes of the clusters (default 100,1000)
  --writes N     writes in each cell (default 400; 100 from 1,000 nodes, 10 from 10,000)
  --seed S       seed of the choices (default 1)
  --only TEXT    only cells whose name contains this
  --smoke        one cell of each family, with 60 nodes and 60 writes: a minute
  --json FILE    also writes a line of JSON for each cell
  --svg FILE     also draws measured over predicted means";

struct Options {
    nodes: Vec<u32>,
    writes: Option<u32>,
    seed: u64,
    only: String,
    smoke: bool,
    json: Option<String>,
    svg: Option<String>,
}

impl Options {
    /// The writes of a cell.
    fn writes(&self, cell: &Cell) -> u32 {
        let usual = match cell.nodes {
            _ if self.smoke => 60,
            ..1_000 => 400,
            1_000..10_000 => 100,
            10_000.. => 10,
        };
        self.writes.unwrap_or(usual)
    }
}

fn parse() -> Result<Option<Options>, String> {
    let mut options = Options {
        nodes: Vec::new(),
        writes: None,
        seed: 1,
        only: String::new(),
        smoke: false,
        json: None,
        svg: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{flag}: a value is missing"));
        match flag.as_str() {
            "--nodes" => {
                for text in value()?.split(',') {
                    options.nodes.push(number(text, 20, 16_000)?);
                }
            }
            "--writes" => options.writes = Some(number(&value()?, 1, 1_000_000)?),
            "--seed" => options.seed = u64::from(number(&value()?, 0, u32::MAX)?),
            "--only" => options.only = value()?,
            "--smoke" => options.smoke = true,
            "--json" => options.json = Some(value()?),
            "--svg" => options.svg = Some(value()?),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other}: no such option")),
        }
    }
    if options.nodes.is_empty() {
        let usual: &[u32] = if options.smoke { &[60] } else { &[100, 1_000] };
        options.nodes = usual.to_vec();
    }
    Ok(Some(options))
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|error| format!("{text}: {error}"))?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is outside of {least} to {most}"))
    }
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Measures all cells. Whether all are within the tolerance.
fn run(options: &Options) -> Result<bool, String> {
    println!("{}", Measured::HEAD);
    let mut done: Vec<Measured> = Vec::new();
    for nodes in &options.nodes {
        for cell in cells::all(*nodes, options.smoke) {
            if !cell.name().contains(&options.only) {
                continue;
            }
            let measured = measure(&cell, options).map_err(|why| format!("{}: {why}", cell.name()))?;
            println!("{measured}");
            done.push(measured);
            write_files(options, &done)?;
        }
    }
    if done.is_empty() {
        return Err(format!("no cell's name contains {:?}", options.only));
    }
    let out = done.iter().filter(|cell| !cell.is_within()).count();
    println!("{} cells, {out} outside of the tolerance", done.len());
    Ok(out == 0)
}

fn measure(cell: &Cell, options: &Options) -> Result<Measured, String> {
    let mut cluster = cluster::Cluster::new(cell, options.seed);
    cluster.warm_up();
    let writes: Vec<_> = (0..options.writes(cell)).map(|_| cluster.write()).collect();
    Measured::new(cell, &cluster.prediction()?, &writes)
}

fn write_files(options: &Options, done: &[Measured]) -> Result<(), String> {
    let write = |file: &Option<String>, text: &dyn Fn() -> String| match file {
        Some(file) => std::fs::write(file, text()).map_err(|error| format!("{file}: {error}")),
        None => Ok(()),
    };
    write(&options.json, &|| {
        done.iter().map(|cell| cell.json() + "\n").collect()
    })?;
    write(&options.svg, &|| plot::draw(done))
}
