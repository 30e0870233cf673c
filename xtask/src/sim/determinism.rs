//! Whether a seed replays a run exactly: in another process, in another build, on another processor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::guest::Guest;
use super::{PROFILE, PROGRAM, PROTOCOLS, build};
use crate::Outcome;
use crate::process::{self, cargo};
use crate::workspace::Workspace;

/// Seeds of each protocol if nothing is said.
const SEEDS: u64 = 100;
/// The processor that the simulator is also compiled for.
const TARGET: &str = "wasm32-unknown-unknown";

/// What was asked for.
struct Options {
    protocols: Vec<&'static str>,
    from: u64,
    seeds: u64,
}

/// Trace hashes by protocol and seed.
type Hashes = BTreeMap<(String, u64), u128>;

/// Runs the comparison.
pub(super) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    let optimised = build(workspace, PROFILE)?;
    let plain = build(workspace, "dev")?;
    let guest = Guest::load(&build_guest(workspace)?)?;
    for protocol in &options.protocols {
        let begin = Instant::now();
        let Options { from, seeds, .. } = options;
        let reference = native(&optimised, protocol, from, seeds)?;
        let again = native(&optimised, protocol, from, seeds)?;
        same(&reference, &again, "the same program in a second process")?;
        let dev = native(&plain, protocol, from, seeds)?;
        same(&reference, &dev, "the program built with the profile dev")?;
        let interpreted: Hashes = guest
            .hashes(protocol, from, seeds)?
            .into_iter()
            .enumerate()
            .map(|(index, hash)| (((*protocol).to_owned(), from + index as u64), hash))
            .collect();
        same(&reference, &interpreted, "the program compiled to WebAssembly")?;
        println!(
            "{protocol}: {seeds} seeds from {from}: traces are equal in two processes, in the profiles {PROFILE} and \
             dev, and as {TARGET} ({:.1} s)",
            begin.elapsed().as_secs_f64()
        );
    }
    println!(
        "0 differences in {} seeds",
        options.protocols.len() as u64 * options.seeds
    );
    Ok(())
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            protocols: PROTOCOLS.to_vec(),
            from: 0,
            seeds: SEEDS,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            let number = || {
                let number = value.parse::<u64>();
                number.map_err(|_| format!("{arg}: expected a number, found \"{value}\""))
            };
            match arg.as_str() {
                "--seeds" => options.seeds = number()?,
                "--from" => options.from = number()?,
                "--protocol" if value == "all" => {}
                "--protocol" => {
                    let name = PROTOCOLS.iter().find(|name| *name == value);
                    let name = name.ok_or_else(|| {
                        format!(
                            "--protocol: expected {} or all, found \"{value}\"",
                            PROTOCOLS.join(", ")
                        )
                    })?;
                    options.protocols = vec![name];
                }
                _ => {
                    return Err(format!(
                        "unknown argument \"{arg}\"; with --determinism go --protocol, --seeds and --from"
                    ));
                }
            }
        }
        if options.seeds == 0 {
            return Err("--seeds: expected a number above 0; comparing nothing proves nothing".into());
        }
        Ok(options)
    }
}

/// Builds the simulator for WebAssembly.
fn build_guest(workspace: &Workspace) -> Result<PathBuf, String> {
    process::target_installed(workspace, TARGET)?;
    let args = [
        "build",
        "--locked",
        "--profile",
        PROFILE,
        "--target",
        TARGET,
        "--package",
        PROGRAM,
        "--example",
        "wasm-trace",
    ];
    process::run(workspace, cargo(), &args)?;
    Ok(workspace
        .target()?
        .join(TARGET)
        .join(PROFILE)
        .join("examples/wasm-trace.wasm"))
}

/// Hashes from this machine's processor.
fn native(program: &Path, protocol: &str, from: u64, seeds: u64) -> Result<Hashes, String> {
    let output = process::command(program)
        .args(["--hashes", "--protocol", protocol])
        .args(["--from", &from.to_string(), "--seeds", &seeds.to_string()])
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let hashes: Hashes = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| parse(line, protocol))
        .collect();
    // Failures are another check's concern: a failing run has a trace, too.
    if hashes.len() as u64 == seeds {
        Ok(hashes)
    } else {
        Err(format!(
            "{} gave {} hashes for {seeds} seeds of {protocol} and ended with {}: {}",
            program.display(),
            hashes.len(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// A line `PROTOCOL SEED HASH`.
fn parse(line: &str, protocol: &str) -> Option<((String, u64), u128)> {
    let mut words = line.split(' ');
    let (name, seed, hash) = (words.next()?, words.next()?, words.next()?);
    let whole = name == protocol && words.next().is_none();
    let hash = u128::from_str_radix(hash, 16).ok()?;
    whole.then_some(((name.to_owned(), seed.parse().ok()?), hash))
}

/// Says the first seed whose hash is another.
fn same(reference: &Hashes, other: &Hashes, what: &str) -> Outcome {
    for ((protocol, seed), hash) in reference {
        match other.get(&(protocol.clone(), *seed)) {
            Some(found) if found == hash => {}
            found => {
                let found = found.map_or("nothing".to_owned(), |found| format!("{found:032x}"));
                return Err(format!(
                    "{protocol} seed {seed}: the trace hash is {hash:032x}, but {found} in {what}; compare \
                     `cargo xtask sim --protocol {protocol} --seed {seed} --trace` of both"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
