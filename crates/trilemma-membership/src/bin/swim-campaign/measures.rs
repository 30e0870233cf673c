//! What is measured, how, and what must be reached.

use std::fmt;
use std::time::Duration;

use trilemma_core::{Instant, NodeId, Rng};
use trilemma_membership::world::{Change, World};
use trilemma_membership::{Config, State};

/// How large and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) nodes: u32,
    pub(crate) seed: u64,
    /// Failures of the measure `detection`.
    failures: u32,
    /// Virtual time of the measures `starved` and `loss`.
    long: Duration,
    /// How long a network partition lasts.
    partition: Duration,
    /// How many times as many nodes the measure `tables` has.
    tables: u32,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            nodes: 1_000,
            seed: 1,
            failures: 200,
            long: secs(300),
            partition: secs(600),
            tables: 10,
        }
    }
}

impl Scale {
    pub(crate) fn smoke() -> Self {
        Self {
            nodes: 100,
            failures: 20,
            long: secs(60),
            partition: secs(60),
            ..Self::default()
        }
    }
}

/// A figure and what it must be.
#[derive(Debug)]
pub(crate) struct Bar {
    what: String,
    figure: f64,
    unit: &'static str,
    /// The figure must not be above; below if negative. `None`: for information.
    limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Most(f64),
    Least(f64),
}

impl Bar {
    pub(crate) fn is_met(&self) -> bool {
        match self.limit {
            None => true,
            Some(Limit::Most(most)) => self.figure <= most,
            Some(Limit::Least(least)) => self.figure >= least,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bar = match self.limit {
            None => "-".to_owned(),
            Some(Limit::Most(most)) => format!("<= {most}"),
            Some(Limit::Least(least)) => format!(">= {least}"),
        };
        let missed = if self.is_met() { "" } else { "   MISSED" };
        let figure = format!("{:.2} {}", self.figure, self.unit);
        write!(f, "{:46} {figure:>12} {bar:>12}{missed}", self.what)
    }
}

fn bar(what: impl Into<String>, figure: f64, unit: &'static str, limit: Limit) -> Bar {
    Bar {
        what: what.into(),
        figure,
        unit,
        limit: Some(limit),
    }
}

fn info(what: impl Into<String>, figure: f64, unit: &'static str) -> Bar {
    Bar {
        what: what.into(),
        figure,
        unit,
        limit: None,
    }
}

/// A measure with its name.
type Measure = (&'static str, fn(&Scale) -> Vec<Bar>);

/// All measures.
pub(crate) const MEASURES: &[Measure] = &[
    ("detection", detection),
    ("loss", loss),
    ("starved", starved),
    ("partition", partition),
    ("restart", restart),
    ("idle", idle),
    ("tables", tables),
];

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A founded cluster that is whole and quiet.
fn quiet(nodes: u32, seed: u64, adjust: impl Fn(&mut Config)) -> World {
    let mut world = World::founded(nodes, seed, adjust);
    let whole = world.run_until(secs(60), World::is_whole);
    assert!(whole.is_some(), "seed {seed}: no whole cluster in a minute");
    world.run(secs(10));
    world
}

fn is_known_dead(world: &World, node: NodeId) -> bool {
    let is_dead = |standing: trilemma_membership::Standing| standing.state() == State::Dead;
    world
        .running()
        .all(|member| member.standing(node).is_some_and(is_dead))
}

/// The value below which that share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(at.clamp(1, sorted.len()) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// From the crash of a node to the moment when every other one holds it for dead.
fn detection(scale: &Scale) -> Vec<Bar> {
    let mut times = Vec::new();
    let mut rng = Rng::new(scale.seed);
    let mut seed = scale.seed;
    while times.len() < scale.failures as usize {
        let mut world = quiet(scale.nodes, seed, |_| {});
        seed += 1;
        for _ in 0..20.min(scale.nodes / 4) {
            let victim = NodeId(rng.below(u64::from(scale.nodes)) as u32 + 1);
            if world.member(victim).is_none() {
                continue;
            }
            world.crash(victim);
            let known = world.run_until(secs(60), |world| is_known_dead(world, victim));
            times.push(known.map_or(f64::INFINITY, |time| time.as_secs_f64()));
            world.run(Duration::from_millis(rng.below(900)));
        }
    }
    times.sort_by(f64::total_cmp);
    let nodes = scale.nodes;
    vec![
        bar(
            format!("{nodes} nodes: failure known to all, median"),
            quantile(&times, 0.5),
            "s",
            Limit::Most(4.5),
        ),
        bar(
            format!("{nodes} nodes: failure known to all, p99"),
            quantile(&times, 0.99),
            "s",
            Limit::Most(8.0),
        ),
        info(format!("{nodes} nodes: failures"), times.len() as f64, ""),
    ]
}

fn is_dead(change: &Change) -> bool {
    change.standing.state() == State::Dead
}

fn is_suspect_or_dead(change: &Change) -> bool {
    matches!(change.standing.state(), State::Suspect | State::Dead)
}

/// Suspicions and false deaths when datagrams are lost and nobody fails.
fn loss(scale: &Scale) -> Vec<Bar> {
    let mut world = quiet(scale.nodes, scale.seed, |_| {});
    world.net.loss_per_mille = 50;
    world.record_changes(is_suspect_or_dead);
    world.run(scale.long);
    let dead = world.changes.iter().filter(|change| is_dead(change)).count();
    let suspects = world.changes.len() - dead;
    let hours = f64::from(scale.nodes) * scale.long.as_secs_f64() / 3600.0;
    vec![
        bar(
            "5 % loss: healthy nodes taken for dead",
            dead as f64,
            "",
            Limit::Most(0.0),
        ),
        info(
            "5 % loss: suspicions for each observer",
            suspects as f64 / f64::from(scale.nodes),
            "",
        ),
        info("5 % loss: node-hours", hours, "h"),
    ]
}

/// Healthy nodes that are taken for dead because some others are starved: as many runs as it takes until plain SWIM has
/// enough of them for a comparison.
fn starved(scale: &Scale) -> Vec<Bar> {
    /// False deaths of plain SWIM for which Lifeguard may have one.
    const TIMES: f64 = 50.0;
    const RUNS_MAX: u64 = 20;
    let nodes = scale.nodes.min(100);
    let (mut plain, mut lifeguard, mut of_starved, mut runs) = (0, 0, 0, 0);
    while runs < RUNS_MAX && (plain as f64) < 4.0 * TIMES {
        let seed = scale.seed + runs;
        plain += false_deaths(scale, seed, nodes, true).0;
        let deaths = false_deaths(scale, seed, nodes, false);
        lifeguard += deaths.0;
        of_starved += deaths.1;
        runs += 1;
    }
    let ratio = plain as f64 / (lifeguard as f64).max(1.0);
    let minutes = runs as f64 * scale.long.as_secs_f64() / 60.0;
    vec![
        info(format!("{nodes} nodes, a tenth starved: time"), minutes, "min"),
        info("false deaths of healthy nodes, plain SWIM", plain as f64, ""),
        info("false deaths of healthy nodes, Lifeguard", lifeguard as f64, ""),
        bar(
            "plain / Lifeguard, if that has none / 1",
            ratio,
            "x",
            Limit::Least(TIMES),
        ),
        info("deaths of starved nodes, Lifeguard", of_starved as f64, ""),
    ]
}

/// False deaths in all tables of healthy nodes, and of starved ones. A tenth of the nodes, and at least one, runs for moments
/// between pauses.
fn false_deaths(scale: &Scale, seed: u64, nodes: u32, plain: bool) -> (usize, usize) {
    let mut world = quiet(nodes, seed, |config| config.danger_plain_swim = plain);
    let mut rng = Rng::new(seed);
    let starved = (nodes / 10).max(1);
    let mut next: Vec<Instant> = vec![world.now(); starved as usize];
    world.record_changes(is_dead);
    let end = world.now() + scale.long;
    while world.now() < end {
        for (index, due) in next.iter_mut().enumerate() {
            if *due <= world.now() {
                let pause = rng.between(Duration::from_millis(100), secs(8));
                world.pause(NodeId(index as u32 + 1), pause);
                // From 1 to 512 ms, as often below 20 as above: short enough to miss answers.
                let runs = Duration::from_millis(1 << rng.below(10));
                *due = world.now() + pause + runs;
            }
        }
        world.run(Duration::from_millis(1));
    }
    let of_starved = world
        .changes
        .iter()
        .filter(|change| change.node.0 <= starved)
        .count();
    (world.changes.len() - of_starved, of_starved)
}

/// Bytes of a node in each second since this one.
fn rates(world: &World, since: usize, nodes: u32) -> Vec<f64> {
    let seconds = world.seconds().iter().skip(since);
    seconds
        .map(|second| second.bytes as f64 / f64::from(nodes))
        .collect()
}

fn second(world: &World) -> usize {
    (world.now().as_nanos() / 1_000_000_000) as usize
}

fn greatest(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

/// Bytes that an idle node may send in a second; steady traffic.
const STEADY: f64 = 2_000.0;

/// Two halves that cannot reach each other, and can again.
fn partition(scale: &Scale) -> Vec<Bar> {
    let nodes = scale.nodes;
    let mut world = quiet(nodes, scale.seed, |_| {});
    let quiet = rates(&world, second(&world).saturating_sub(10), nodes);
    world.partition((1..=nodes / 2).map(NodeId));
    world.run(scale.partition);
    let halves = world.running().all(|member| {
        let counts = member.status().counts;
        counts[State::Alive as usize] + counts[State::Dead as usize] == nodes as usize
            && counts[State::Dead as usize] * 2 <= nodes as usize + 1
    });
    let healed = second(&world);
    world.heal();
    let whole = world.run_until(secs(120), World::is_whole);
    world.run(secs(10));
    let rates = rates(&world, healed, nodes);
    vec![
        bar(
            format!("{nodes} nodes: halves hold each other for dead"),
            f64::from(u8::from(halves)),
            "",
            Limit::Least(1.0),
        ),
        bar(
            format!("{nodes} nodes: whole again after the heal"),
            whole.map_or(f64::INFINITY, |t| t.as_secs_f64()),
            "s",
            Limit::Most(10.0),
        ),
        bar(
            "peak of the heal, bytes of a node",
            greatest(&rates),
            "B/s",
            Limit::Most(2.0 * STEADY),
        ),
        info("idle before, bytes of a node", greatest(&quiet), "B/s"),
    ]
}

/// Every node restarts at the same moment.
fn restart(scale: &Scale) -> Vec<Bar> {
    let nodes = scale.nodes;
    let mut world = quiet(nodes, scale.seed, |_| {});
    let all: Vec<NodeId> = world.ids().collect();
    all.iter().for_each(|node| world.crash(*node));
    world.run(secs(1));
    let begin = second(&world);
    all.iter().for_each(|node| world.start(*node));
    let whole = world.run_until(secs(120), World::is_whole);
    world.run(secs(5));
    let rates = rates(&world, begin, nodes);
    vec![
        bar(
            format!("{nodes} nodes restart: all see all"),
            whole.map_or(f64::INFINITY, |t| t.as_secs_f64()),
            "s",
            Limit::Most(30.0),
        ),
        bar(
            "peak of the restart, bytes of a node",
            greatest(&rates),
            "B/s",
            Limit::Most(3.0 * STEADY),
        ),
    ]
}

/// What an idle node sends, in clusters of all sizes.
fn idle(scale: &Scale) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut all = Vec::new();
    for nodes in [10, 30, 100, 300, 1_000] {
        if nodes > scale.nodes {
            continue;
        }
        let mut world = quiet(nodes, scale.seed, |_| {});
        let begin = second(&world) + 1;
        world.run(secs(30));
        let rates = rates(&world, begin, nodes);
        let mean = rates[..28].iter().sum::<f64>() / 28.0;
        all.push(mean);
        bars.push(bar(
            format!("{nodes} nodes idle, bytes of a node"),
            mean,
            "B/s",
            Limit::Most(STEADY),
        ));
    }
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    bars.push(bar(
        "idle, largest cluster to smallest",
        greatest(&all) / least,
        "x",
        Limit::Most(1.5),
    ));
    bars
}

/// Thousands of full tables at once.
fn tables(scale: &Scale) -> Vec<Bar> {
    let nodes = scale.nodes * scale.tables;
    let begin = std::time::Instant::now();
    let mut world = World::founded(nodes, scale.seed, |config| {
        config.swap_interval = secs(3_600);
        config.save_interval = secs(3_600);
        config.members_max = nodes as usize;
    });
    world.run(secs(1));
    let built = begin.elapsed().as_secs_f64();
    let victim = NodeId(nodes / 2);
    world.crash(victim);
    let known = world.run_until(secs(60), |world| is_known_dead(world, victim));
    let entries = f64::from(nodes) * f64::from(nodes);
    let memory = resident_bytes();
    vec![
        info(format!("{nodes} full tables built"), built, "s"),
        info(
            format!("{nodes} nodes: failure known to all"),
            known.map_or(f64::INFINITY, |t| t.as_secs_f64()),
            "s",
        ),
        bar(
            format!("{nodes} full tables, memory"),
            memory / f64::from(1 << 30),
            "GiB",
            Limit::Most(8.0),
        ),
        info("memory for each observer and member", memory / entries, "B"),
        bar(
            "time on one core",
            begin.elapsed().as_secs_f64(),
            "s",
            Limit::Most(600.0),
        ),
    ]
}

/// Greatest memory of this process so far, where the system says it; 0 elsewhere.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
