//! Random histories: loss, duplication, delay, splits, one-way cuts, crashes, held disks, clocks off by an hour.
//!
//! Checked: no acknowledged write is lost, nothing deleted returns, versions reported by one node grow, and after the
//! heal all replicas are equal within a bounded time.

use std::collections::BTreeMap;

use trilemma_core::{Attempt, Outcome, Protocol, Rng, Ticket, Version};
use trilemma_testkit::write;

use super::*;

const HOUR_MS: i64 = 3600 * 1000;
const KEYS: u64 = 6;

struct Sent {
    at: NodeId,
    ticket: Ticket,
    key: String,
    /// `None`: a delete.
    value: Option<String>,
}

struct Run {
    cluster: Cluster<Gossip>,
    rng: Rng,
    sent: Vec<Sent>,
    offsets: bool,
    /// Whether disks are lost.
    wipes: bool,
}

impl Run {
    fn new(seed: u64, wipes: bool) -> Self {
        let mut rng = Rng::new(seed);
        let size = 2 + rng.below(4) as u32;
        let offsets = rng.below(2) == 0;
        let siblings_max = 1 + rng.below(8) as usize;
        let tombstone_age = [0, 50, 400][rng.below(3) as usize];
        let page_bytes = [200, 256 << 10][rng.below(2) as usize];
        let mut cluster = cluster_with(size, seed, move |config| {
            config.siblings_max = siblings_max;
            config.page_bytes = page_bytes;
            config.tombstone_age_min = ms(tombstone_age);
            // Versions of one node grow here over every jump of its clock.
            config.ahead_max = ms(3 * HOUR_MS as u64);
        });
        cluster.faults.loss = [0, 50, 300][rng.below(3) as usize];
        cluster.faults.duplication = [0, 100][rng.below(2) as usize];
        cluster.faults.delay = (ms(1), ms([2, 20, 400][rng.below(3) as usize]));
        cluster.faults.disk = (ms(0), ms([1, 30][rng.below(2) as usize]));
        Self {
            cluster,
            rng,
            sent: Vec::new(),
            offsets,
            wipes,
        }
    }

    fn node(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        *self.rng.pick(&ids).expect("there are nodes")
    }

    fn command(&mut self) {
        let (at, seq) = (self.node(), self.sent.len() as u64 + 1);
        if !self.cluster.is_up(at) {
            return;
        }
        let key = format!("k{}", self.rng.below(KEYS));
        let value = (self.rng.below(3) > 0).then(|| format!("v{seq}"));
        let command = match &value {
            Some(value) => Command::put(key.as_str(), value.as_str()),
            None => Command::delete(key.as_str()),
        };
        let ticket = self
            .cluster
            .propose(at, write(seq, Attempt::First, command), ms(1000));
        self.sent.push(Sent {
            at,
            ticket,
            key,
            value,
        });
    }

    fn fault(&mut self) {
        let node = self.node();
        match self.rng.below(10) {
            0 | 1 => self.cluster.crash(node),
            2 if self.wipes => self.cluster.wipe(node),
            2 => self.cluster.crash_losing_all(node),
            3 | 4 => self.cluster.restart(node),
            5 => self.cluster.split(&[node]),
            6 => {
                let other = self.node();
                if other != node {
                    self.cluster.cut(node, other);
                }
            }
            7 => self.cluster.heal(),
            8 => {
                let held = self.rng.below(2) == 0;
                self.cluster.hold_disk(node, held);
            }
            _ if self.offsets => {
                let offset = (self.rng.below(3) as i64 - 1) * HOUR_MS;
                self.cluster.set_wall_offset(node, offset);
            }
            _ => {
                self.cluster.hold_disk(node, false);
                if self.cluster.is_up(node) {
                    self.cluster.checkpoint(node);
                }
            }
        }
    }

    fn heal(&mut self) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            self.cluster.hold_disk(id, false);
            self.cluster.restart(id);
            if self.offsets {
                // An hour and more later: what was deferred is due.
                self.cluster.set_wall_offset(id, 2 * HOUR_MS);
            }
        }
        self.cluster.faults.loss = self.cluster.faults.loss.min(50);
    }

    fn version(&self, sent: &Sent) -> Option<Version> {
        match self.cluster.reply(sent.at, sent.ticket) {
            Some(Reply::Write(Ok(receipt))) => Some(receipt.version),
            _ => None,
        }
    }

    /// Acknowledged versions of one node grow in the order of its writes.
    fn check_versions(&self, seed: u64) {
        let mut last: BTreeMap<NodeId, Version> = BTreeMap::new();
        for sent in &self.sent {
            if let Some(version) = self.version(sent) {
                let before = last.insert(sent.at, version).unwrap_or_default();
                assert!(
                    version > before,
                    "seed {seed}: {} reported {version} after {before}",
                    sent.at
                );
            }
        }
    }

    fn check_outcome(&mut self, seed: u64) -> usize {
        let mut checked = 0;
        for key in (0..KEYS).map(|key| format!("k{key}")) {
            let found = self.cluster.protocol(N1).replica().get(key.as_bytes());
            let of_key: Vec<&Sent> = self.sent.iter().filter(|sent| sent.key == key).collect();
            let newest = of_key
                .iter()
                .filter_map(|sent| Some((self.version(sent)?, *sent)))
                .max_by_key(|(v, _)| *v);
            match found {
                Some(state) => {
                    let value = Some(state.value.to_string());
                    let made = of_key.iter().find(|sent| sent.value == value);
                    let made =
                        made.unwrap_or_else(|| panic!("seed {seed}: {key} holds {value:?}, never written"));
                    if let Some((version, sent)) = newest {
                        let is_newer = state.modified >= version;
                        assert!(
                            is_newer,
                            "seed {seed}: {key} is {value:?}, but {:?} was newer",
                            sent.value
                        );
                    }
                    if let Some(version) = self.version(made) {
                        assert_eq!(version, state.modified, "seed {seed}: {key}");
                    }
                }
                None => {
                    let unknown = of_key
                        .iter()
                        .any(|sent| sent.value.is_none() && self.version(sent).is_none());
                    if let Some((version, sent)) = newest {
                        // Two nodes may have given out one stamp; then either may have won.
                        let tied = of_key
                            .iter()
                            .any(|sent| sent.value.is_none() && self.version(sent) == Some(version));
                        let lost = sent.value.is_some() && !unknown && !tied;
                        assert!(
                            !lost,
                            "seed {seed}: {key} is absent, {:?} was acknowledged",
                            sent.value
                        );
                    }
                }
            }
            checked += usize::from(newest.is_some());
        }
        checked
    }
}

/// Random writes and faults, then a heal and the time to converge.
fn history(seed: u64, wipes: bool) -> Run {
    let mut run = Run::new(seed, wipes);
    for _ in 0..60 {
        match run.rng.below(3) {
            0 => run.fault(),
            _ => run.command(),
        }
        let pause = [ms(0), ms(3), ms(50), ms(300)][run.rng.below(4) as usize];
        run.cluster.run_for(pause);
    }
    run.heal();
    let converged = run.cluster.run_until(ms(30_000), is_equal);
    assert!(
        converged,
        "seed {seed}: the replicas differ 30 s after the heal: {}",
        picture(&run.cluster)
    );
    for id in run.cluster.ids() {
        assert_eq!(
            run.cluster.protocol(id).divergences(),
            0,
            "seed {seed}: node {id}"
        );
    }
    run
}

fn run(seed: u64) -> (usize, usize) {
    let mut run = history(seed, false);
    run.check_versions(seed);
    let checked = run.check_outcome(seed);
    let acknowledged = run.sent.iter().filter(|sent| run.version(sent).is_some()).count();
    // Alive: a write succeeds at every node and is everywhere soon; every earlier operation has a final outcome.
    for (position, id) in run.cluster.ids().into_iter().enumerate() {
        put(
            &mut run.cluster,
            id,
            500 + position as u64,
            "alive",
            &id.to_string(),
        );
    }
    converge(&mut run.cluster, ms(15_000));
    for sent in 0..run.sent.len() {
        let (at, op) = (run.sent[sent].at, trilemma_testkit::op(sent as u64 + 1));
        let known = run.version(&run.sent[sent]);
        match run
            .cluster
            .ask(at, Request::Outcome { op, command: None }, ms(2000))
        {
            Some(Reply::Outcome(Ok(Outcome::Applied(receipt)))) => {
                assert!(known.is_none_or(|known| known == receipt.version), "seed {seed}");
            }
            Some(Reply::Outcome(Ok(Outcome::NotApplied))) => {
                assert_eq!(known, None, "seed {seed}: {op} was acknowledged");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    (acknowledged, checked)
}

#[test]
fn random_histories_lose_nothing_resurrect_nothing_and_converge() {
    let seeds = std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(300);
    let (mut acknowledged, mut checked) = (0, 0);
    let first = std::env::var("TRILEMMA_SEED_FIRST")
        .ok()
        .and_then(|first| first.parse().ok())
        .unwrap_or(0);
    for seed in first..first + seeds {
        let (writes, keys) = run(seed);
        acknowledged += writes;
        checked += keys;
    }
    assert!(
        acknowledged > 10 * seeds as usize && checked > 3 * seeds as usize,
        "{acknowledged} {checked}"
    );
}

#[test]
fn random_histories_with_lost_disks_converge_and_nothing_comes_back_unseen() {
    let seeds = std::env::var("TRILEMMA_SEEDS").ok();
    let seeds = seeds.and_then(|count| count.parse().ok()).unwrap_or(200);
    let (mut collected, mut written) = (0, 0);
    for seed in 5_000_000..5_000_000 + seeds {
        let mut run = history(seed, true);
        written += run.sent.len();
        // What is left after a while is what stands: collection and write-backs have changed nothing that reads see.
        let shown = |run: &Run| {
            let all = trilemma_core::KeyRange::all();
            run.cluster.protocol(N1).scan(&all, usize::MAX)
        };
        let before = shown(&run);
        let picture = self::picture(&run.cluster);
        run.cluster.run_for(ms(20_000));
        assert!(
            is_equal(&run.cluster) && shown(&run) == before,
            "seed {seed}: {}{}",
            picture,
            self::picture(&run.cluster)
        );
        let ids = run.cluster.ids();
        let left = ids
            .iter()
            .map(|id| run.cluster.protocol(*id).replica().uncollected());
        collected += usize::from(left.sum::<usize>() == 0);
    }
    let seeds = usize::try_from(seeds).expect("few enough");
    assert!(
        written > 20 * seeds && 2 * collected > seeds,
        "{written} writes, everything collected in {collected} runs"
    );
}
