//! `demo`: three real nodes on this machine, a partition, a kill, and a verdict that can fail.
//!
//! Nodes, sockets and logs are the real ones; only the packets between the nodes pass through relays that the demo
//! cuts. Clients at every node write unique values to one keyspace of each backend and record the answers.
//! From that record alone the verdict is computed: acknowledged writes lost, convergence, linearizability, and what
//! each side of the partition accepted.

mod check;
mod clients;
mod cluster;
mod history;
mod relay;
mod screen;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use trilemma::{Backend, Command, KeyRange, Keyspace};

use check::Finals;
use clients::{Clients, KEYS};
use cluster::{Cluster, KEYSPACES, NODES};
use history::{Event, History, Micros};
use screen::Screen;
use verdict::{Evidence, MINORITY, QUIET_KEY, Verdict, judge};

use crate::cli::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::tree::{self, Format, Prefix, Tree};

/// The configuration that the demo loads.
const SHOP: &str = include_str!("../../demo/shop.toml");
/// Where in the keyspace `settings` it goes.
const SHOP_PREFIX: &str = "shop";
/// Lengths of the phases.
const WHOLE: Duration = Duration::from_millis(1500);
const SPLIT: Duration = Duration::from_millis(4000);
const HEALED: Duration = Duration::from_millis(1000);
const KILLED: Duration = Duration::from_millis(2500);
const RESTARTED: Duration = Duration::from_millis(1000);
/// Longest time for a node to catch up, and for all nodes to agree at the end.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Splits three nodes on this machine and shows what each backend keeps and gives up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma demo
  trilemma demo --json | tail -n 1

Takes about 15 seconds. Exits with 9 if a promise did not hold: the verdict is computed from what the clients were
answered and what the nodes hold at the end.")]
pub(crate) struct Demo {
    /// Print the verdict as one JSON object, as the last line of standard output
    #[arg(long)]
    json: bool,
    /// Seed of the clients' choices; times still differ from run to run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the nodes' data in this new directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let json = self.json || global.output == output::Form::Json;
        let data = self.data_dir()?;
        let mut screen = Screen::new(json);
        let result = play(self.seed, &data, &mut screen).await;
        if self.keep.is_some() {
            screen.say(&format!("the nodes' data is in {}", data.display()));
        } else if let Err(error) = std::fs::remove_dir_all(&data) {
            output::note(format!("could not remove {}: {error}", data.display()));
        }
        let report = result?;
        if json {
            output::line(report.json(self.seed).to_string());
        }
        Ok(if report.holds() { Exit::Ok } else { Exit::Verdict })
    }

    fn data_dir(&self) -> Result<PathBuf, Failure> {
        let dir = self.keep.clone().unwrap_or_else(|| {
            let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            std::env::temp_dir().join(format!(
                "trilemma-demo-{}-{}",
                std::process::id(),
                since_epoch.as_nanos()
            ))
        });
        std::fs::create_dir(&dir).map_err(|error| {
            Failure::usage(
                format!("{}: {error}", dir.display()),
                "name a directory that does not exist yet",
            )
        })?;
        Ok(dir)
    }
}

/// How long each keyspace took to be current again on a node; `None`: longer than the demo waits.
type CatchUp = BTreeMap<&'static str, Option<Duration>>;

/// What the demo found.
struct Report {
    verdicts: Vec<(&'static str, Backend, Verdict)>,
    after_split: CatchUp,
    after_kill: CatchUp,
    killed: u32,
    settings: usize,
    settings_equal: Vec<u32>,
    dropped: u64,
    took: Duration,
}

impl Report {
    fn holds(&self) -> bool {
        let caught_up = self
            .after_split
            .values()
            .chain(self.after_kill.values())
            .all(Option::is_some);
        caught_up
            && self.settings_equal == NODES
            && self.verdicts.iter().all(|(_, _, verdict)| verdict.holds())
    }

    fn json(&self, seed: u64) -> Json {
        let millis = |times: &CatchUp, name: &str| {
            times
                .get(name)
                .copied()
                .flatten()
                .map(|time| time.as_millis() as u64)
        };
        let keyspaces = self.verdicts.iter().map(|(name, backend, verdict)| {
            let mut object = verdict.json(name, *backend);
            object["catch_up_after_split_ms"] = millis(&self.after_split, name).into();
            object["catch_up_after_kill_ms"] = millis(&self.after_kill, name).into();
            object
        });
        json!({
            "demo": "trilemma",
            "held": self.holds(),
            "seed": seed,
            "took_ms": self.took.as_millis() as u64,
            "keyspaces": keyspaces.collect::<Vec<_>>(),
            "settings_loaded": self.settings,
            "settings_equal_on": self.settings_equal,
            "killed_node": self.killed,
            "packets_dropped": self.dropped,
        })
    }

    fn show(&self, screen: &mut Screen) {
        screen.say("verdict, computed from what the clients were answered and what the nodes hold now:");
        for (name, backend, verdict) in &self.verdicts {
            let descriptor = backend.descriptor();
            screen.say(&format!(
                "  {} {name} ({backend}) keeps {}, gives up {}",
                if verdict.holds() { "held  " } else { "BROKEN" },
                descriptor.keeps,
                descriptor.gives_up
            ));
            screen.say(&format!(
                "         in the partition: nodes 1+2 accepted {}, node 3 accepted {}; reads answered {} and {}; {} of {} writes acknowledged, {} lost; nodes {}",
                verdict.majority.accepted,
                verdict.minority.accepted,
                verdict.majority.read,
                verdict.minority.read,
                verdict.acknowledged,
                verdict.writes,
                verdict.acked_lost,
                if verdict.converged { "agree" } else { "DIFFER" },
            ));
            for what in &verdict.broken {
                screen.say(&format!("         broken: {what}"));
            }
        }
        let equal: Vec<String> = self.settings_equal.iter().map(ToString::to_string).collect();
        screen.say(&format!(
            "  {} shop.toml: {} keys, equal to the file on node {}",
            if self.settings_equal == NODES {
                "held  "
            } else {
                "BROKEN"
            },
            self.settings,
            equal.join(", ")
        ));
        screen.say(&format!("took {}", output::duration(self.took)));
    }
}

async fn play(seed: u64, data: &std::path::Path, screen: &mut Screen) -> Result<Report, Failure> {
    let began = Instant::now();
    screen.say("three nodes start, with real logs, mutual TLS and one keyspace per backend");
    let mut cluster = Cluster::start(data).await?;
    cluster.ready().await?;
    let shop = tree::parse(Format::Toml, SHOP, "shop.toml")?;
    let settings = load(&cluster, &shop).await?;
    screen.say(&format!(
        "{settings} keys of shop.toml are loaded into \"settings\"\n"
    ));
    let history = History::new();
    write_quiet_keys(&cluster, &history).await?;
    let mut clients: BTreeMap<u32, Clients> = BTreeMap::new();
    for node in NODES {
        clients.insert(node, Clients::start(&cluster, &history, node, 1, seed)?);
    }

    phase(
        screen,
        &history,
        "clients at every node write and read; the network is whole",
        WHOLE,
    )
    .await;
    cluster.network.set_cut(&[1, 2], &[MINORITY], true);
    let split = phase(
        screen,
        &history,
        "SPLIT: node 3 can no longer reach nodes 1 and 2",
        SPLIT,
    )
    .await;
    cluster.network.set_cut(&[1, 2], &[MINORITY], false);
    let after_split = catch_up(&cluster, &history, MINORITY).await?;
    let current = times(&after_split);
    phase(
        screen,
        &history,
        &format!("HEALED: node 3 is current again after {current}"),
        HEALED,
    )
    .await;

    let killed = cluster.leader("locks").unwrap_or(2);
    cluster.kill(killed).await;
    if let Some(clients) = clients.remove(&killed) {
        clients.stop().await;
    }
    let title = format!("KILLED: node {killed}, the leader of \"locks\", is gone without a word");
    phase(screen, &history, &title, KILLED).await;
    cluster.start_node(killed).await?;
    let after_kill = catch_up(&cluster, &history, killed).await?;
    clients.insert(killed, Clients::start(&cluster, &history, killed, 2, seed)?);
    let title = format!(
        "RESTARTED: node {killed} is current again after {}",
        times(&after_kill)
    );
    phase(screen, &history, &title, RESTARTED).await;

    for (_, clients) in clients {
        clients.stop().await;
    }
    let finals = agreement(&cluster).await?;
    let verdicts = KEYSPACES.into_iter().map(|(name, backend)| {
        let records = history.of(name);
        let evidence = Evidence {
            backend,
            records: &records,
            split: split.clone(),
            finals: &finals[name],
        };
        (name, backend, judge(&evidence))
    });
    let report = Report {
        verdicts: verdicts.collect(),
        after_split,
        after_kill,
        killed,
        settings,
        settings_equal: equal_on(&finals["settings"], &shop),
        dropped: cluster.network.dropped(),
        took: began.elapsed(),
    };
    cluster.stop().await?;
    report.show(screen);
    Ok(report)
}

/// Lets time pass, and shows it.
async fn phase(screen: &mut Screen, history: &History, title: &str, length: Duration) -> Range<Micros> {
    const TICK: Duration = Duration::from_millis(200);
    screen.say(title);
    let since = history.now();
    let until = Instant::now() + length;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        tokio::time::sleep(left.min(TICK)).await;
        screen.tick(history, since);
    }
    let phase = since..history.now();
    screen.end(history, phase.clone());
    phase
}

fn times(times: &CatchUp) -> String {
    let slowest = times
        .values()
        .copied()
        .max_by_key(|time| time.unwrap_or(Duration::MAX))
        .flatten();
    slowest.map_or_else(|| format!("more than {AGREEMENT:?}"), output::duration)
}

/// Writes the shop's configuration through node 1.
async fn load(cluster: &Cluster, shop: &Tree) -> Result<usize, Failure> {
    let entries = tree::entries(shop, &Prefix::new(SHOP_PREFIX))?;
    let count = entries.len();
    let keyspace = cluster.keyspace(1, "settings", Backend::Paxos)?;
    let mut writes = JoinSet::new();
    for (key, text) in entries {
        let keyspace = keyspace.clone();
        writes.spawn(async move { crate::cli::write(&keyspace, Command::put(key, text), AGREEMENT).await });
    }
    while let Some(done) = writes.join_next().await {
        done.map_err(|error| {
            Failure::new(Exit::Start, format!("loading broke off: {error}"), "report this")
        })??;
    }
    Ok(count)
}

/// Writes the keys that are only read from then on.
async fn write_quiet_keys(cluster: &Cluster, history: &History) -> Result<(), Failure> {
    for (name, backend) in KEYSPACES {
        let keyspace = cluster.keyspace(1, name, backend)?;
        clients::put(&keyspace, history, 1, QUIET_KEY, format!("quiet-{name}")).await;
        let written = history
            .of(name)
            .iter()
            .any(|record| matches!(record.event, Event::Written { .. }));
        if !written {
            return Err(Failure::new(
                Exit::Start,
                format!(
                    "keyspace \"{name}\" refused its first write: {:?}",
                    history.of(name)
                ),
                "run the demo again, or report this",
            ));
        }
    }
    Ok(())
}

/// Waits until reads at `node` show everything that had been acknowledged when this was called, per keyspace.
async fn catch_up(cluster: &Cluster, history: &History, node: u32) -> Result<CatchUp, Failure> {
    let began = Instant::now();
    let mut waits = JoinSet::new();
    for (name, backend) in KEYSPACES {
        let mut marks: BTreeMap<&str, u64> = KEYS.into_iter().map(|key| (key, 0)).collect();
        for record in history.of(name) {
            if let (Event::Written { version, .. }, Some(mark)) =
                (&record.event, marks.get_mut(record.key.as_str()))
            {
                *mark = (*mark).max(*version);
            }
        }
        let keyspace = cluster.keyspace(node, name, backend)?;
        waits.spawn(async move {
            let current = async {
                for (key, mark) in marks {
                    wait_for(&keyspace, key, mark).await;
                }
            };
            let done = tokio::time::timeout(AGREEMENT, current).await;
            (name, done.is_ok().then(|| began.elapsed()))
        });
    }
    let mut times = CatchUp::new();
    while let Some(done) = waits.join_next().await {
        let (name, time) = done.map_err(|error| {
            Failure::new(Exit::Start, format!("waiting broke off: {error}"), "report this")
        })?;
        times.insert(name, time);
    }
    Ok(times)
}

async fn wait_for(keyspace: &Keyspace, key: &str, version: u64) {
    loop {
        // A read that is refused is one that the node cannot answer yet.
        if let Ok(found) = keyspace.entry(key).await
            && found.map_or(0, |found| found.modified.0) >= version
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What each node holds, once all hold the same or time is over.
async fn agreement(cluster: &Cluster) -> Result<BTreeMap<&'static str, Vec<Finals>>, Failure> {
    let until = Instant::now() + AGREEMENT;
    let mut finals = BTreeMap::new();
    for (name, backend) in KEYSPACES {
        loop {
            let mut held = Vec::new();
            for node in NODES {
                let keyspace = cluster.keyspace(node, name, backend)?;
                // What cannot be read counts as nothing, and so as a difference and a loss.
                let entries = keyspace.range(KeyRange::all()).await.unwrap_or_default();
                let entries = entries
                    .iter()
                    .map(|entry| (entry.key.to_string(), clients::state(&entry.state)));
                held.push(entries.collect::<Finals>());
            }
            if check::differences(&held).is_empty() || Instant::now() > until {
                finals.insert(name, held);
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(finals)
}

/// The nodes that hold exactly the shop's configuration.
fn equal_on(finals: &[Finals], shop: &Tree) -> Vec<u32> {
    let prefix = Prefix::new(SHOP_PREFIX);
    let equal = |held: &Finals| {
        let texts = held
            .iter()
            .map(|(key, (value, _))| (key.as_str(), value.as_str()));
        matches!(tree::tree_of(texts, &prefix), Ok(Some(found)) if found == *shop)
    };
    let nodes = NODES.into_iter().zip(finals);
    nodes
        .filter(|(_, held)| equal(held))
        .map(|(node, _)| node)
        .collect()
}
