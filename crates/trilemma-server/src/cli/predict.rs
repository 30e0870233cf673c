//! `predict`: how long until every node of a gossip keyspace has a write. Numbers in, numbers out; no node is asked.

mod picture;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use trilemma_gossip::predictor::{Method, Params, Phases, Report, predict_with};

use super::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{self, Form};

/// Computes how long a write in a gossip keyspace takes to every node, and what it costs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma predict --nodes 1000 --fanout 3 --tick 100
  trilemma predict --nodes 1000 --fanout 3 --tick 100 --loss 0.1 --latency 20 --svg spread.svg
  trilemma predict --nodes 100 --fanout 3 --tick 100 --groups 10 --simulate 1000 --seed 7 --output json")]
pub(crate) struct Predict {
    /// Nodes of the keyspace
    #[arg(long, value_name = "N")]
    nodes: u32,
    /// Random peers that a node tells in each tick
    #[arg(long, value_name = "F")]
    fanout: u32,
    /// Period of a tick, in milliseconds
    #[arg(long, value_name = "MS")]
    tick: f64,
    /// Share of messages that are lost, from 0 to 0.999
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// One-way delay, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    latency: f64,
    /// Distinct sources that a node needs before it applies a change
    #[arg(long, value_name = "K", default_value_t = 1)]
    vouchers: u32,
    /// Equal groups; a node tells all of its own group in every tick. 0: none
    #[arg(long, value_name = "G", default_value_t = 0)]
    groups: u32,
    /// Share of the peers that are notified first because most news came from them, from 0 to 1
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    top: f64,
    /// Bytes of one change in a message
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    payload: u32,
    /// All nodes tick in step. Without it each ticks for itself, as real nodes do
    #[arg(long)]
    synchronised: bool,
    /// Simulate so many writes instead of using formulas
    #[arg(long, value_name = "RUNS")]
    simulate: Option<u32>,
    /// Seed of the simulation; the same seed gives the same numbers
    #[arg(long, value_name = "S", default_value_t = 1, requires = "simulate")]
    seed: u64,
    /// Draws the share of informed nodes over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

impl Predict {
    pub(crate) fn run(self, global: &Global) -> Outcome {
        let params = self.params()?;
        let method = self.simulate.map_or(Method::Formula, |runs| Method::MonteCarlo {
            runs,
            seed: self.seed,
        });
        let report = predict_with(&params, method)
            .map_err(|error| Failure::usage(error.to_string(), "see `trilemma predict --help`"))?;
        if self.json || global.output == Form::Json {
            output::line(numbers(&params, &report).to_string());
        } else {
            print(&params, &report);
        }
        if let Some(file) = &self.svg {
            let picture = picture::draw(&params, &report);
            files::write(file, picture.as_bytes()).map_err(|error| {
                Failure::output(
                    format!("{}: the picture cannot be written: {error}", file.display()),
                    "name another file for the picture",
                )
            })?;
        }
        Ok(Exit::Ok)
    }

    fn params(&self) -> Result<Params, Failure> {
        Ok(Params {
            loss: self.loss,
            latency: millis("--latency", self.latency)?,
            vouchers: self.vouchers,
            groups: self.groups,
            top: self.top,
            payload: self.payload,
            phases: if self.synchronised {
                Phases::Synchronised
            } else {
                Phases::Random
            },
            ..Params::new(self.nodes, self.fanout, millis("--tick", self.tick)?)
        })
    }
}

/// Milliseconds from the command line.
fn millis(name: &str, value: f64) -> Result<Duration, Failure> {
    /// Longest time that is taken: an hour.
    const LONGEST: f64 = 3_600_000.0;
    if (0.0..=LONGEST).contains(&value) {
        return Ok(Duration::from_secs_f64(value / 1000.0));
    }
    Err(Failure::usage(
        format!("{name}: {value} is no time from 0 to {LONGEST} ms"),
        "give milliseconds, such as 100 or 0.5",
    ))
}

fn print(params: &Params, report: &Report) {
    let found = &report.prediction;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let unit = if params.phases == Phases::Synchronised {
        "rounds"
    } else {
        "ticks"
    };
    output::table(&[
        row("WHAT", "VALUE".into()),
        row("engine", found.engine.to_string()),
        row("mean", output::duration(found.mean)),
        row("p50", output::duration(found.p50)),
        row("p99", output::duration(found.p99)),
        row("p99.9", output::duration(found.p999)),
        row("p99.99", output::duration(found.p9999)),
        row(&format!("mean in {unit}"), format!("{:.2}", found.rounds)),
        row(&format!("p99 in {unit}"), format!("{:.2}", found.rounds_p99)),
        row("messages per write", format!("{:.0}", found.messages)),
        row(
            "messages per write and node",
            format!("{:.2}", found.messages_per_node),
        ),
        row("copies that arrive at a node", format!("{:.2}", found.copies)),
        row(
            "bytes sent per write and node",
            format!("{:.0}", found.bytes_per_node),
        ),
        row("nodes that rumors miss", format!("{:.2e}", found.residue_nodes)),
        row("share that rumors miss", format!("{:.2e}", found.residue)),
        row("ticks for which a node tells", found.infective_ticks.to_string()),
    ]);
    if found.is_estimate {
        output::line("");
        output::line(
            "The formulas are a rough estimate for these parameters; --simulate 1000 gives numbers to rely on.",
        );
    }
}

fn numbers(params: &Params, report: &Report) -> serde_json::Value {
    let found = &report.prediction;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let curve: Vec<_> = report
        .curve
        .iter()
        .map(|point| json!([ms(point.time), point.share]))
        .collect();
    json!({
        "nodes": params.nodes,
        "fanout": params.fanout,
        "tick_ms": ms(params.tick),
        "loss": params.loss,
        "latency_ms": ms(params.latency),
        "vouchers": params.vouchers,
        "groups": params.groups,
        "top": params.top,
        "payload_bytes": params.payload,
        "synchronised": params.phases == Phases::Synchronised,
        "engine": found.engine.to_string(),
        "is_estimate": found.is_estimate,
        "mean_ms": ms(found.mean),
        "p50_ms": ms(found.p50),
        "p99_ms": ms(found.p99),
        "p999_ms": ms(found.p999),
        "p9999_ms": ms(found.p9999),
        "rounds": found.rounds,
        "rounds_p99": found.rounds_p99,
        "messages": found.messages,
        "messages_per_node": found.messages_per_node,
        "copies": found.copies,
        "bytes_per_node": found.bytes_per_node,
        "residue": found.residue,
        "residue_nodes": found.residue_nodes,
        "infective_ticks": found.infective_ticks,
        "curve_ms_share": curve,
    })
}
