//! Random histories of data types on three to five nodes: loss, duplication, delay, splits, one-way cuts, crashes, held disks,
//! lost disks, clocks that differ; against plain models of what each promises.
//!
//! **Counters.** Every addition has a digit of its own in base 4. After convergence each digit is 0 or 1: no addition counts
//! twice. It is 1 for what was acknowledged and that no reset had seen, 0 for what a reset had seen that took place.
//! **Sets.** An element is there exactly if some addition of it is not among those that a removal had seen.
//! **Bounded counters.** At no moment has more been taken, by acknowledged operations, than was ever granted.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Rng, Ticket};

use super::*;
use crate::dot::Dot;

const ELEMENTS: u64 = 3;

/// One operation of a client.
#[derive(Debug)]
struct Sent {
    at: NodeId,
    ticket: Ticket,
    update: Update,
    /// The change that it made at its node, if it made one. The disk may have lost it.
    dot: Option<Dot>,
    /// The earlier operations whose changes its node showed.
    seen: BTreeSet<usize>,
    /// Counts the disks that its node has lost.
    disk: usize,
}

struct Run {
    cluster: Cluster<Gossip>,
    rng: Rng,
    sent: Vec<Sent>,
    wipes: bool,
    lost_disks: BTreeMap<NodeId, usize>,
    additions: u32,
    granted: u128,
}

const fn key_of(of: DataType) -> &'static str {
    match of {
        DataType::Counter => "counter",
        DataType::BoundedCounter => "stock",
        _ => "set",
    }
}

impl Run {
    fn new(seed: u64, wipes: bool) -> Self {
        let mut rng = Rng::new(seed);
        let size = 3 + rng.below(3) as u32;
        let tombstone_age = [0, 50, 400][rng.below(3) as usize];
        let page_bytes = [200, 256 << 10][rng.below(2) as usize];
        let mut cluster = cluster_with(size, seed, move |config| {
            config.siblings_max = 1;
            config.page_bytes = page_bytes;
            config.tombstone_age_min = ms(tombstone_age);
        });
        cluster.faults.loss = [0, 50, 300][rng.below(3) as usize];
        cluster.faults.duplication = [0, 100][rng.below(2) as usize];
        cluster.faults.delay = (ms(1), ms([2, 20, 400][rng.below(3) as usize]));
        cluster.faults.disk = (ms(0), ms([1, 30][rng.below(2) as usize]));
        for id in cluster.ids() {
            let offset = rng.below(800) as i64 - 400;
            cluster.set_wall_offset(id, offset);
        }
        Self {
            cluster,
            rng,
            sent: Vec::new(),
            wipes,
            lost_disks: BTreeMap::new(),
            additions: 0,
            granted: 0,
        }
    }

    fn node(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        *self.rng.pick(&ids).expect("there are nodes")
    }

    fn next_update(&mut self) -> Update {
        let element = |rng: &mut Rng| format!("e{}", rng.below(ELEMENTS)).into();
        match self.rng.below(10) {
            0..=2 if self.additions < 30 => {
                self.additions += 1;
                Update::Add(1 << (2 * self.additions))
            }
            0..=2 => Update::Reset,
            3 if self.rng.below(3) == 0 => Update::Reset,
            3..=5 => Update::Insert(element(&mut self.rng)),
            6 | 7 => Update::Remove(element(&mut self.rng)),
            _ => match self.rng.below(5) {
                0 => Update::Grant(self.rng.below(6)),
                1 => Update::Transfer {
                    to: self.node(),
                    amount: self.rng.below(4),
                },
                _ => Update::Spend(self.rng.below(4)),
            },
        }
    }

    /// The operations that a node shows, but for `itself`. Of those that a later one of the same part stands for, a node need
    /// not know the names.
    fn seen(&self, at: NodeId, itself: usize) -> BTreeSet<usize> {
        let gossip = self.cluster.protocol(at);
        let shows = |sent: &Sent| sent.dot.is_some_and(|dot| gossip.is_taken(dot));
        let all = || {
            self.sent
                .iter()
                .enumerate()
                .filter(move |(place, _)| *place != itself)
        };
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        for (place, sent) in all().filter(|(_, sent)| shows(sent)) {
            seen.insert(place);
            let is_before = |(other, earlier): &(usize, &Sent)| match (&sent.update, &earlier.update) {
                (Update::Add(_), Update::Add(_)) => {
                    let is_one_part = (earlier.at, earlier.disk) == (sent.at, sent.disk);
                    is_one_part && earlier.dot.is_some() && earlier.dot < sent.dot
                }
                (one, other_update) => {
                    one.element().is_some()
                        && one.element() == other_update.element()
                        && sent.seen.contains(other)
                }
            };
            seen.extend(all().filter(is_before).map(|(other, _)| other));
        }
        seen
    }

    fn command(&mut self) {
        let at = self.node();
        if !self.cluster.is_up(at) {
            return;
        }
        let update = self.next_update();
        let seen = self.seen(at, usize::MAX);
        let gossip = self.cluster.protocol(at);
        let before = gossip.shared.coming_seq();
        let seq = self.sent.len() as u64 + 1;
        let command = Command::update(key_of(update.of()), update.clone());
        let request = write(seq, Attempt::First, command);
        let ticket = self.cluster.propose(at, request, ms(1000));
        let shared = &self.cluster.protocol(at).shared;
        let (after, incarnation) = (shared.coming_seq(), shared.config.incarnation);
        let dot = (after > before).then(|| Dot::new(at, incarnation, after - 1));
        if let (Update::Grant(amount), Some(_)) = (&update, dot) {
            self.granted += u128::from(*amount);
        }
        self.sent.push(Sent {
            at,
            ticket,
            update,
            dot,
            seen,
            disk: self.lost_disks.get(&at).copied().unwrap_or_default(),
        });
    }

    /// Starts a node. What its disk does not bring back, and no lost one had, has never left it: it is gone. Later its context
    /// closes the incarnation and holds the names of such changes, too.
    fn restart(&mut self, node: NodeId) {
        if self.cluster.is_up(node) {
            return;
        }
        self.cluster.restart(node);
        let disk = self.lost_disks.get(&node).copied().unwrap_or_default();
        let context = self.cluster.protocol(node).replica().context();
        for sent in self
            .sent
            .iter_mut()
            .filter(|sent| sent.at == node && sent.disk == disk)
        {
            sent.dot = sent.dot.filter(|dot| context.contains(*dot));
        }
    }

    fn fault(&mut self) {
        let node = self.node();
        match self.rng.below(10) {
            0 | 1 => self.cluster.crash(node),
            2 if self.wipes => {
                self.cluster.wipe(node);
                *self.lost_disks.entry(node).or_default() += 1;
            }
            2 => self.cluster.crash_losing_all(node),
            3 | 4 => self.restart(node),
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
            _ => {
                self.cluster.hold_disk(node, false);
                if self.cluster.is_up(node) {
                    self.cluster.checkpoint(node);
                }
            }
        }
    }

    /// Sends an operation once more to the node that had it: whatever became of it, it counts once.
    fn repeat(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let place = self.rng.below(self.sent.len() as u64) as usize;
        let sent = &self.sent[place];
        if !self.cluster.is_up(sent.at) || self.is_lost(sent) {
            return;
        }
        let command = Command::update(key_of(sent.update.of()), sent.update.clone());
        let request = write(place as u64 + 1, Attempt::Retry, command);
        let (at, first) = (sent.at, sent.ticket);
        let is_in_doubt = !matches!(self.cluster.reply(at, first), Some(Reply::Write(Ok(_))));
        let before = self.cluster.protocol(at).shared.coming_seq();
        let ticket = self.cluster.propose(at, request, ms(1000));
        let shared = &self.cluster.protocol(at).shared;
        let (after, incarnation) = (shared.coming_seq(), shared.config.incarnation);
        if after > before {
            // The first copy had not survived: this is when it ran, and what was seen by then is more.
            let sent = &self.sent[place];
            assert!(is_in_doubt && sent.dot.is_none(), "{sent:?} ran twice");
            let seen = self.seen(at, place);
            let sent = &mut self.sent[place];
            sent.dot = Some(Dot::new(at, incarnation, after - 1));
            (sent.seen, sent.ticket) = (seen, ticket);
        } else if is_in_doubt {
            self.sent[place].ticket = ticket;
        }
    }

    fn is_lost(&self, sent: &Sent) -> bool {
        self.lost_disks.get(&sent.at).copied().unwrap_or_default() > sent.disk
    }

    fn is_acknowledged(&self, sent: &Sent) -> bool {
        let reply = self.cluster.reply(sent.at, sent.ticket);
        matches!(reply, Some(Reply::Write(Ok(_))))
    }

    /// The bound, at this moment.
    fn check_bound(&self, seed: u64) {
        let spent = self.sent.iter().filter(|sent| self.is_acknowledged(sent));
        let spent = spent.map(|sent| match sent.update {
            Update::Spend(amount) => u128::from(amount),
            _ => 0,
        });
        let spent: u128 = spent.sum();
        assert!(spent <= self.granted, "seed {seed}: {spent} of {}", self.granted);
    }

    fn heal(&mut self) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            self.cluster.hold_disk(id, false);
            self.restart(id);
        }
        self.cluster.faults.loss = self.cluster.faults.loss.min(50);
    }

    /// Whether an operation took place, as all nodes know now: by its own name, or by that of a later one of its part, which has
    /// its sum in it. A node that has lost its disk may have notified the others of the later one alone.
    fn happened(&self, sent: &Sent) -> bool {
        let context = self.cluster.protocol(N1).replica().context();
        let is_known = |sent: &Sent| sent.dot.is_some_and(|dot| context.contains(dot));
        let sums = |sent: &Sent| match sent.update.of() {
            DataType::Counter => sent.update != Update::Reset,
            of => of == DataType::BoundedCounter,
        };
        let is_one_part = |later: &Sent| {
            let is_one_key = sums(sent) && sums(later) && later.update.of() == sent.update.of();
            is_one_key && (later.at, later.disk) == (sent.at, sent.disk) && later.dot > sent.dot
        };
        let is_in_later = |later: &Sent| is_one_part(later) && is_known(later);
        is_known(sent) || sent.dot.is_some() && self.sent.iter().any(is_in_later)
    }

    fn check_acknowledged(&self, seed: u64) {
        for sent in &self.sent {
            let is_safe = self.is_acknowledged(sent) && sent.dot.is_some() && !self.is_lost(sent);
            assert!(!is_safe || self.happened(sent), "seed {seed}: {sent:?} is lost");
        }
    }

    /// Returns the number of additions that count.
    fn check_counter(&mut self, seed: u64) -> usize {
        let total = count(&mut self.cluster, N1, "counter").unwrap_or_default();
        let happened: Vec<&Sent> = self.sent.iter().filter(|sent| self.happened(sent)).collect();
        let is_reset = |sent: &&&Sent| sent.update == Update::Reset;
        let reset: BTreeSet<usize> = happened
            .iter()
            .filter(is_reset)
            .flat_map(|sent| sent.seen.iter().copied())
            .collect();
        let (mut expected, mut counted) = (0, 0);
        for (place, sent) in self.sent.iter().enumerate() {
            if let Update::Add(delta) = sent.update
                && self.happened(sent)
                && !reset.contains(&place)
            {
                expected += i128::from(delta);
                counted += 1;
            }
        }
        assert_eq!(total, expected, "seed {seed}: {:#?}", self.sent);
        counted
    }

    /// Returns the number of elements that are there.
    fn check_set(&mut self, seed: u64) -> usize {
        let found = members(&mut self.cluster, N1, "set");
        let mut expected = Vec::new();
        for element in (0..ELEMENTS).map(|number| format!("e{number}")) {
            let is_removal = |sent: &&Sent| sent.update == remove(&element) && self.happened(sent);
            let removed = self.sent.iter().filter(is_removal);
            let removed: BTreeSet<usize> = removed.flat_map(|sent| sent.seen.iter().copied()).collect();
            let is_left = |(place, sent): (usize, &Sent)| {
                sent.update == insert(&element) && self.happened(sent) && !removed.contains(&place)
            };
            if self.sent.iter().enumerate().any(is_left) {
                expected.push(element);
            }
        }
        assert_eq!(found, expected, "seed {seed}: {:#?}", self.sent);
        found.len()
    }

    fn check_stock(&mut self, seed: u64) {
        let happened: Vec<&Sent> = self.sent.iter().filter(|sent| self.happened(sent)).collect();
        let sum = |of: fn(&Update) -> u64| {
            happened
                .iter()
                .map(|sent| u128::from(of(&sent.update)))
                .sum::<u128>()
        };
        let granted = sum(|update| match update {
            Update::Grant(amount) => *amount,
            _ => 0,
        });
        let spent = sum(|update| match update {
            Update::Spend(amount) => *amount,
            _ => 0,
        });
        let is_there = !entries(&mut self.cluster, N1, "stock", DataType::BoundedCounter).is_empty();
        if is_there {
            assert!(
                self.wipes || spent <= granted,
                "seed {seed}: {spent} of {granted}"
            );
            let value = escrow(&mut self.cluster, N1, "stock").value;
            assert_eq!(value, granted.saturating_sub(spent), "seed {seed}");
        }
    }
}

fn run(seed: u64, wipes: bool) -> (usize, usize, usize) {
    let mut run = Run::new(seed, wipes);
    for _ in 0..80 {
        match run.rng.below(7) {
            0 | 1 => run.fault(),
            2 => run.repeat(),
            _ => run.command(),
        }
        let pause = [ms(0), ms(3), ms(50), ms(300)][run.rng.below(4) as usize];
        run.cluster.run_for(pause);
        run.check_bound(seed);
    }
    run.heal();
    let converged = run.cluster.run_until(ms(30_000), is_equal);
    assert!(converged, "seed {seed}: {}", picture(&run.cluster));
    run.check_bound(seed);
    run.check_acknowledged(seed);
    let (counted, members) = (run.check_counter(seed), run.check_set(seed));
    run.check_stock(seed);
    let first: Vec<_> = readings(&mut run.cluster, N1);
    for id in run.cluster.ids() {
        assert_eq!(readings(&mut run.cluster, id), first, "seed {seed}: node {id}");
    }
    // What is collected and written back later changes no reading.
    run.cluster.run_for(ms(10_000));
    assert_eq!(readings(&mut run.cluster, N1), first, "seed {seed}: later");
    let acknowledged = run.sent.iter().filter(|sent| run.is_acknowledged(sent)).count();
    (acknowledged, counted, members)
}

fn readings(cluster: &mut Cluster<Gossip>, at: NodeId) -> Vec<Vec<trilemma_core::Entry>> {
    let all = [DataType::Counter, DataType::BoundedCounter, DataType::Set];
    all.map(|of| entries(cluster, at, key_of(of), of)).into()
}

fn runs(first: u64, wipes: bool) {
    let seeds = std::env::var("TRILEMMA_SEEDS").ok();
    let seeds: u64 = seeds.and_then(|count| count.parse().ok()).unwrap_or(25);
    let (mut acknowledged, mut counted, mut members) = (0, 0, 0);
    for seed in first..first + seeds {
        let found = run(seed, wipes);
        acknowledged += found.0;
        counted += found.1;
        members += found.2;
    }
    let seeds = usize::try_from(seeds).expect("few enough");
    assert!(
        acknowledged > 10 * seeds && counted > seeds && 2 * members > seeds,
        "{acknowledged} acknowledged, {counted} additions and {members} elements at the end"
    );
}

#[test]
fn random_histories_of_data_types_agree_with_their_models() {
    runs(0, false);
}

#[test]
fn random_histories_of_data_types_agree_with_their_models_where_disks_are_lost() {
    runs(7_000_000, true);
}
