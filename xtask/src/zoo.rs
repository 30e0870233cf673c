//! `cargo xtask zoo`: a test suite is worth the bugs that it finds, so known ones are planted, each alone, and must be
//! found.
//!
//! A failure counts only if the tree without the patch passes with the same seed.

mod hunt;
mod patch;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{self, cargo};
use crate::sim::{MEMBERSHIP, PROFILE, PROGRAM, SWIM};
use crate::workspace::Workspace;
use crate::{Outcome, programs};
use hunt::{End, Failure, Script, hunt};
use patch::Patch;
use tree::{Fit, Tree};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask zoo [--dir DIR] [--only ID]... [--jobs N] [--check]

Applies each DIR/*.patch, alone, to a copy of the tree, builds the simulator from it and looks for a failure: first with
the scenarios that once showed a bug, then with seeds. The last line is \"killed K of N\"; exit code 0 only if all were.
A patch that does not apply, or not build, was not killed.

  --dir DIR  the folder of patches (default: zoo)
  --only ID  only this patch; may be repeated, or name several with commas
  --jobs N   processors to use (default: all)
  --check    only checks that every patch applies and what its header says

A patch may begin with lines \"Key: value\": Id (default: the file's name), Title, Rule and Why for readers, Protocol
(raft, paxos, gossip, two-phase, mixed, all, membership; default: by the files that it touches), Checker (which is expected to see
it), Seeds (of each protocol, within which it must be found; default: 20000), Profile (whose seeds; default: standard).";

/// The project's own zoo, relative to the root.
const HOME: &str = "zoo";
/// Scenarios that once showed a bug, relative to the root.
const SCENARIOS: &str = "crates/trilemma-sim/scenarios";
/// Seeds of each protocol that the tree without a patch must pass before anything counts.
const CLEAN: u64 = 300;
/// Longest that these may take.
const CLEAN_LIMIT: Duration = Duration::from_secs(600);

/// What was asked for.
struct Options {
    dir: Option<PathBuf>,
    only: BTreeSet<String>,
    jobs: usize,
    check: bool,
}

/// What became of one patch.
#[derive(Debug)]
enum Fate {
    Killed {
        failure: Failure,
        seeds: u64,
    },
    Survived {
        seeds: u64,
        notes: Vec<String>,
    },
    /// The tree fails at this seed without the patch, too.
    NotItsFault(Failure),
    DoesNotApply(String),
    DoesNotBuild(String),
}

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    let home = workspace.root.join(HOME);
    let dir = options.dir.as_ref().unwrap_or(&home);
    let patches = chosen(load(dir)?, &options.only)?;
    let zoo = Zoo::open(workspace, options.jobs)?;
    if options.check {
        return check(&zoo.tree, &patches, options.dir.is_none());
    }
    let killed = zoo.run(&patches);
    let count = killed.as_ref().copied().unwrap_or(0);
    println!("killed {count} of {}", patches.len());
    match killed? {
        killed if killed == patches.len() => Ok(()),
        killed => Err(format!(
            "{} patches were not killed, see above",
            patches.len() - killed
        )),
    }
}

/// Checks headers of the project's own zoo, and that its patches apply.
pub(crate) fn check_own(workspace: &Workspace) -> Outcome {
    run(workspace, &["--check".into()])
}

/// Runs `count` patches of the project's own zoo, others with each `turn`.
pub(crate) fn handful(workspace: &Workspace, turn: u64, count: usize) -> Outcome {
    let patches = load(&workspace.root.join(HOME))?;
    let ids: Vec<&str> = patches.iter().map(|patch| patch.id.as_str()).collect();
    let chosen = rotated(&ids, turn, count).join(",");
    println!("    zoo: {chosen}");
    run(workspace, &["--only".into(), chosen])
}

/// `count` of the names, spread over all of them, so that a day's handful is of several protocols; each turn the next.
fn rotated<'a>(names: &[&'a str], turn: u64, count: usize) -> Vec<&'a str> {
    let count = count.min(names.len());
    let step = names.len().checked_div(count).unwrap_or(1);
    let turn = turn.checked_rem(names.len() as u64).unwrap_or(0) as usize;
    (0..count)
        .map(|place| names[(turn + place * step) % names.len()])
        .collect()
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            dir: None,
            only: BTreeSet::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            check: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, given) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| {
                (name, Some(value.to_owned()))
            });
            let mut value = || {
                let value = given.clone().or_else(|| args.next().cloned());
                value.ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--dir" => options.dir = Some(PathBuf::from(value()?)),
                "--only" => options
                    .only
                    .extend(value()?.split(',').map(|id| id.trim().to_owned())),
                "--jobs" => {
                    let text = value()?;
                    options.jobs = match text.parse() {
                        Ok(jobs) if jobs > 0 => jobs,
                        _ => return Err(format!("--jobs: expected a number above 0, found \"{text}\"")),
                    };
                }
                "--check" => options.check = true,
                _ => {
                    return Err(format!(
                        "unknown argument \"{arg}\"; known are --dir, --only, --jobs, --check and --help"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// All patches of a folder, by name.
fn load(dir: &Path) -> Result<Vec<Patch>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut patches: Vec<Patch> = Vec::new();
    for path in paths {
        let named = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let patch = Patch::parse(&stem, &text).map_err(named)?;
        if patches.iter().any(|other| other.id == patch.id) {
            return Err(named(format!("another patch has the id {}", patch.id)));
        }
        patches.push(patch);
    }
    if patches.is_empty() {
        return Err(format!("{}: no *.patch; --dir names the folder", dir.display()));
    }
    Ok(patches)
}

/// Those patches that `--only` names, or all.
fn chosen(patches: Vec<Patch>, only: &BTreeSet<String>) -> Result<Vec<Patch>, String> {
    if only.is_empty() {
        return Ok(patches);
    }
    if let Some(missing) = only
        .iter()
        .find(|id| patches.iter().all(|patch| patch.id != **id))
    {
        let ids: Vec<&str> = patches.iter().map(|patch| patch.id.as_str()).collect();
        return Err(format!(
            "no patch is called \"{missing}\"; there are {}",
            ids.join(", ")
        ));
    }
    Ok(patches
        .into_iter()
        .filter(|patch| only.contains(&patch.id))
        .collect())
}

fn check(tree: &Tree, patches: &[Patch], own: bool) -> Outcome {
    let mut problems = Vec::new();
    for patch in patches {
        match tree.fits(patch) {
            Ok(Fit::Exact) => {}
            Ok(Fit::Loose) => println!("    note: {} applies only loosely; renew it", patch.id),
            Err(why) => problems.push(format!("{} does not apply: {why}", patch.id)),
        }
        if own {
            problems.extend(patch.incomplete());
        }
    }
    problems.iter().for_each(|problem| println!("{problem}"));
    if problems.is_empty() {
        println!("zoo: {} patches apply", patches.len());
        Ok(())
    } else {
        Err(format!(
            "{} problems with patches, see above; renew what does not apply against the present code",
            problems.len()
        ))
    }
}

/// Who runs seeds: the simulator of nodes, or the campaign of the membership core.
struct Programs {
    simulator: PathBuf,
    swim: PathBuf,
}

impl Programs {
    fn of(&self, protocol: &str) -> &Path {
        if protocol == MEMBERSHIP {
            &self.swim
        } else {
            &self.simulator
        }
    }
}

/// The copy of the tree, and where it is built.
struct Zoo {
    tree: Tree,
    /// Kept between runs, so that each build is small.
    target: PathBuf,
    /// The programs without a patch.
    unpatched: Programs,
    jobs: usize,
    /// What is run before any seed.
    scripts: Vec<Script>,
    /// Held for as long as the folder is in use; the system gives it back.
    _lock: std::fs::File,
}

impl Zoo {
    fn open(workspace: &Workspace, jobs: usize) -> Result<Self, String> {
        let folder = workspace.target()?.join("zoo");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let lock = std::fs::File::create(folder.join("lock")).map_err(failed)?;
        lock.try_lock()
            .map_err(|error| format!("{}: another zoo runs here: {error}", folder.display()))?;
        Ok(Self {
            tree: Tree::copy(workspace, &folder.join("tree"))?,
            target: folder.join("target"),
            unpatched: Programs {
                simulator: folder.join("unpatched"),
                swim: folder.join("unpatched-swim"),
            },
            jobs,
            scripts: Script::all(&workspace.root.join(SCENARIOS))?,
            _lock: lock,
        })
    }

    /// Runs all patches; returns how many were killed.
    fn run(&self, patches: &[Patch]) -> Result<usize, String> {
        let begin = Instant::now();
        self.clean(patches)?;
        println!("    unpatched: clean ({:.0} s)", begin.elapsed().as_secs_f64());
        let mut killed = 0;
        let mut needed = Vec::new();
        for patch in patches {
            let begin = Instant::now();
            let (fit, fate) = self.judge(patch)?;
            println!("{}", line(patch, fit, &fate, begin.elapsed()));
            if let Fate::Killed { seeds, .. } = fate {
                killed += 1;
                needed.push(seeds);
            }
        }
        needed.sort_unstable();
        if let (Some(most), Some(median)) = (needed.last(), needed.get(needed.len() / 2)) {
            let seconds = begin.elapsed().as_secs_f64();
            println!("    seeds needed: median {median}, most {most}; {seconds:.0} s in all");
        }
        Ok(killed)
    }

    /// Builds the tree without a patch, and sees that it passes.
    fn clean(&self, patches: &[Patch]) -> Outcome {
        let protocols: BTreeSet<&str> = patches
            .iter()
            .flat_map(|patch| patch.protocols.iter().copied())
            .collect();
        for protocol in &protocols {
            let program = self
                .build(protocol)
                .map_err(|why| format!("the tree does not build without a patch: {why}"))?;
            let kept = self.unpatched.of(protocol);
            std::fs::copy(&program, kept).map_err(|error| format!("{}: {error}", kept.display()))?;
        }
        for protocol in protocols {
            let why = match hunt::run(
                self.unpatched.of(protocol),
                ("standard", protocol),
                0,
                CLEAN,
                self.jobs,
                CLEAN_LIMIT,
            ) {
                End::Nothing { .. } => continue,
                End::Found(failure) => format!("{}: {}", failure.checker, failure.what),
                End::Broken(why) => why,
            };
            return Err(format!(
                "nothing counts, since the tree fails without a patch: {protocol}: {why}; \
                 `cargo xtask sim --protocol {protocol} --seeds {CLEAN}` shows it"
            ));
        }
        Ok(())
    }

    /// Applies, builds, hunts, restores. An error is of the zoo itself.
    fn judge(&self, patch: &Patch) -> Result<(Fit, Fate), String> {
        let (fit, before) = match self.tree.apply(patch) {
            Ok(applied) => applied,
            Err(why) => return Ok((Fit::Exact, Fate::DoesNotApply(why))),
        };
        let first = patch.protocols.first().copied().unwrap_or_default();
        let fate = match self.build(first) {
            Ok(program) => self.fate(&program, patch),
            Err(why) => Fate::DoesNotBuild(why),
        };
        self.tree.restore(&before)?;
        Ok((fit, fate))
    }

    fn fate(&self, program: &Path, patch: &Patch) -> Fate {
        let hunt = hunt(program, patch, &self.scripts, self.jobs);
        let Some(failure) = hunt.found else {
            return Fate::Survived {
                seeds: hunt.seeds,
                notes: hunt.broken,
            };
        };
        let (program, seed) = (self.unpatched.of(&failure.protocol), failure.seed);
        let without = match &failure.script {
            Some(script) => hunt::play(program, script, CLEAN_LIMIT),
            None => hunt::run(
                program,
                (&patch.profile, &failure.protocol),
                seed,
                1,
                1,
                CLEAN_LIMIT,
            ),
        };
        match without {
            End::Nothing { undecided: 0 } => Fate::Killed {
                failure,
                seeds: hunt.seeds,
            },
            _ => Fate::NotItsFault(failure),
        }
    }

    /// Builds what runs seeds of a protocol, from the copy as it is; returns the program, or what the compiler says first.
    fn build(&self, protocol: &str) -> Result<PathBuf, String> {
        let name = if protocol == MEMBERSHIP { SWIM } else { PROGRAM };
        let output = process::command(cargo())
            .args(["build", "--quiet"])
            .args(programs::selection(PROFILE, &[name]))
            .args(["--jobs", &self.jobs.to_string()])
            .arg("--target-dir")
            .arg(&self.target)
            .current_dir(self.tree.workspace().root)
            .output()
            .map_err(|error| format!("`cargo build`: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let first = text.lines().find(|line| line.starts_with("error"));
            return Err(first.unwrap_or(text.trim()).to_owned());
        }
        Ok(self.target.join(PROFILE).join(programs::file_name(name)))
    }
}

/// One line of the report.
fn line(patch: &Patch, fit: Fit, fate: &Fate, took: Duration) -> String {
    let mut notes: Vec<String> = Vec::new();
    let outcome = match fate {
        Fate::Killed { failure, seeds } => {
            if !patch.checkers.is_empty() && !patch.checkers.contains(&failure.checker) {
                notes.push(format!("expected {}", patch.checkers.join(" or ")));
            }
            match &failure.script {
                Some(script) => format!("killed by {} in scenario {script}", failure.checker),
                None => format!(
                    "killed by {} after {seeds} seeds: {} seed {}",
                    failure.checker, failure.protocol, failure.seed
                ),
            }
        }
        Fate::Survived { seeds, notes: broken } => {
            notes.extend(broken.iter().cloned());
            format!("SURVIVED {seeds} seeds of {}", patch.protocols.join(", "))
        }
        Fate::NotItsFault(failure) => {
            let of = match &failure.script {
                Some(script) => format!("scenario {script}"),
                None => format!("{} seed {}", failure.protocol, failure.seed),
            };
            format!(
                "NOT COUNTED: {of} fails without the patch, too ({})",
                failure.checker
            )
        }
        Fate::DoesNotApply(why) => format!("DOES NOT APPLY: {why}"),
        Fate::DoesNotBuild(why) => format!("DOES NOT BUILD: {why}"),
    };
    if fit == Fit::Loose {
        notes.push("applied loosely, renew it".into());
    }
    let notes = if notes.is_empty() {
        String::new()
    } else {
        format!(" ({})", notes.join("; "))
    };
    format!("{:8} {outcome}{notes}, {:.1} s", patch.id, took.as_secs_f64())
}

#[cfg(test)]
mod tests;
