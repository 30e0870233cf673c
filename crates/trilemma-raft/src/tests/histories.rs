//! Random histories under faults: the invariants of the paper after every event, and linearizability at the end.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Attempt, Command, Reply, Rng, Ticket, WriteError};
use trilemma_testkit::{Faults, get, succeeded, write};

use super::*;

/// What must hold at every moment (Raft figure 3, and durability).
#[derive(Default)]
struct Invariants {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    committed: BTreeMap<Index, Entry>,
    terms: BTreeMap<NodeId, Term>,
}

impl Invariants {
    fn check(&mut self, cluster: &Cluster<Raft>) {
        let up: Vec<NodeId> = cluster
            .ids()
            .into_iter()
            .filter(|id| cluster.is_up(*id))
            .collect();
        for id in &up {
            let raft = cluster.protocol(*id);
            let term = raft.term();
            if raft.is_leader() {
                let leader = *self.leaders.entry(term).or_insert(*id);
                assert_eq!(leader, *id, "two leaders in {term}");
            }
            assert!(
                raft.shared.applied() <= raft.commit(),
                "applied beyond commit at {id}"
            );
            self.terms.insert(*id, term);
            let known = self
                .committed
                .last_key_value()
                .map_or(Index(0), |(index, _)| *index);
            let mut index = known.next();
            while index <= raft.commit() {
                let Some(entry) = raft.entry(index) else { break };
                self.committed.insert(index, entry.clone());
                let holders = self.holders(cluster, index, entry);
                let states = || {
                    let state = |id: &NodeId| {
                        let r = cluster.protocol(*id);
                        (
                            *id,
                            r.shared.log.base(),
                            r.shared.log.end(),
                            r.durable(),
                            r.commit(),
                            r.term(),
                        )
                    };
                    up.iter().map(state).collect::<Vec<_>>()
                };
                assert!(
                    holders * 2 > cluster.ids().len(),
                    "{index} is committed and durable on {holders} nodes: {:?}",
                    states()
                );
                index = index.next();
            }
            for (index, entry) in self
                .committed
                .range(raft.shared.log.base().index.next()..)
                .take_while(|(index, _)| **index <= raft.commit())
            {
                assert_eq!(
                    raft.entry(*index),
                    Some(entry),
                    "node {id} commits another entry {index}"
                );
            }
        }
        for id in &up {
            // Leader completeness: a leader of a later term holds everything committed before it was elected.
            let raft = cluster.protocol(*id);
            let newest = self.leaders.keys().next_back().copied().unwrap_or_default();
            if raft.is_leader() && raft.term() == newest {
                for (index, entry) in self.committed.range(raft.shared.log.base().index.next()..) {
                    assert_eq!(
                        raft.entry(*index),
                        Some(entry),
                        "leader {id} lacks committed entry {index}"
                    );
                }
            }
        }
        let pairs = up
            .iter()
            .flat_map(|a| up.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a < b);
        for (a, b) in pairs {
            log_matching(cluster.protocol(a), cluster.protocol(b));
        }
    }

    /// Nodes that hold an entry durably, as far as can be seen: a node that is down may hold it too.
    fn holders(&self, cluster: &Cluster<Raft>, index: Index, entry: &Entry) -> usize {
        let holds = |id: &NodeId| {
            if !cluster.is_up(*id) {
                return true;
            }
            let raft = cluster.protocol(*id);
            index <= raft.shared.log.base().index
                || (raft.entry(index) == Some(entry) && index <= raft.durable())
        };
        cluster.ids().iter().filter(|id| holds(id)).count()
    }

    fn on_vote(&mut self, from: NodeId, term: Term, to: NodeId) {
        let first = *self.votes.entry((from, term)).or_insert(to);
        assert_eq!(first, to, "node {from} votes twice in {term}");
    }
}

/// If two logs agree on an entry's term, they agree on everything before it.
fn log_matching(a: &Raft, b: &Raft) {
    let last = a.shared.log.last().min(b.shared.log.last());
    let first = a.shared.log.base().index.max(b.shared.log.base().index).next();
    let mut agree = false;
    let mut index = last;
    while index >= first && index > Index(0) {
        let same = a.shared.log.term(index) == b.shared.log.term(index);
        assert!(same || !agree, "logs agree behind {index} and differ at it");
        agree |= same;
        if same {
            assert_eq!(a.entry(index), b.entry(index));
        }
        index = index.prev();
    }
}

/// One operation of the history.
#[derive(Debug)]
struct Operation {
    key: u64,
    /// The value written; `None` is a read.
    wrote: Option<u64>,
    invoked: Instant,
    node: NodeId,
    ticket: Ticket,
    returned: Option<Instant>,
}

struct Run {
    cluster: Cluster<Raft>,
    rng: Rng,
    operations: Vec<Operation>,
    invariants: std::rc::Rc<std::cell::RefCell<Invariants>>,
    seed: u64,
}

const KEYS: u64 = 3;

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let size = if rng.per_mille(700) { 3 } else { 5 };
        let (kept, batch) = (
            [2, 10, 20_000][rng.below(3) as usize],
            [1, 2, 4096][rng.below(3) as usize],
        );
        let inflight = [1, 3, 64][rng.below(3) as usize];
        let mut cluster = cluster_with(size, rng.next_u64(), move |config| {
            config.kept_entries = kept;
            config.append_entries_max = batch;
            config.inflight_max = inflight;
        });
        let invariants = std::rc::Rc::new(std::cell::RefCell::new(Invariants::default()));
        let votes = std::rc::Rc::clone(&invariants);
        cluster.filter = Some(Box::new(move |from, to, message| {
            if let Message::VoteReply { term, granted: true } = message {
                votes.borrow_mut().on_vote(from, *term, to);
            }
            trilemma_testkit::Verdict::Deliver
        }));
        Self {
            cluster,
            rng,
            operations: Vec::new(),
            invariants,
            seed,
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.cluster.now() + time;
        while self.cluster.now() < end {
            let slice = self.rng.between(MS, 8 * MS);
            let invariants = std::rc::Rc::clone(&self.invariants);
            self.cluster.run_until(slice, |cluster| {
                invariants.borrow_mut().check(cluster);
                false
            });
            let now = self.cluster.now();
            for operation in &mut self.operations {
                if operation.returned.is_none()
                    && self.cluster.reply(operation.node, operation.ticket).is_some()
                {
                    operation.returned = Some(now);
                }
            }
        }
    }

    fn operate(&mut self) {
        let ids = self.cluster.ids();
        let node = *self.rng.pick(&ids).expect("there are nodes");
        if !self.cluster.is_up(node) {
            return;
        }
        let key = self.rng.below(KEYS);
        let number = self.operations.len() as u64 + 1;
        let name = format!("key/{key}");
        let wrote = self.rng.per_mille(600).then_some(number);
        let request = match wrote {
            Some(number) => write(number, Attempt::First, Command::put(name, number.to_string())),
            None => get(&name, None),
        };
        let invoked = self.cluster.now();
        let ticket = self.cluster.propose(node, request, 2000 * MS);
        self.operations.push(Operation {
            key,
            wrote,
            invoked,
            node,
            ticket,
            returned: None,
        });
    }

    fn fault(&mut self) {
        let ids = self.cluster.ids();
        let node = *self.rng.pick(&ids).expect("there are nodes");
        let other = *self.rng.pick(&ids).expect("there are nodes");
        match self.rng.below(12) {
            0 => self.cluster.crash(node),
            1 => self.cluster.crash_losing_all(node),
            2..=4 => self.cluster.restart(node),
            5 if node != other => self.cluster.cut(node, other),
            6 => self.cluster.split(&[node]),
            7 => self.cluster.heal(),
            8 if self.cluster.is_up(node) => self.cluster.hold_disk(node, true),
            9 if self.cluster.is_up(node) => self.cluster.hold_disk(node, false),
            10 if self.cluster.is_up(node) => {
                self.cluster.hold_disk(node, false);
                self.cluster.checkpoint(node);
            }
            _ => {
                let faults = &mut self.cluster.faults;
                faults.loss = [0, 20, 200][self.rng.below(3) as usize];
                faults.duplication = [0, 100][self.rng.below(2) as usize];
                faults.delay.1 = [1, 5, 60][self.rng.below(3) as usize] * MS;
                faults.disk.1 = [1, 30][self.rng.below(2) as usize] * MS;
                faults.turn = [0, 1, 20][self.rng.below(3) as usize] * MS;
            }
        }
    }

    fn finish(&mut self) {
        self.cluster.faults = Faults::default();
        self.cluster.heal();
        for id in self.cluster.ids() {
            self.cluster.restart(id);
            self.cluster.hold_disk(id, false);
        }
        self.run_for(3000 * MS);
        let seed = self.seed;
        let id = leader(&self.cluster).unwrap_or_else(|| panic!("seed {seed}: no leader after the heal"));
        let last = write(u64::MAX, Attempt::First, Command::put("last", "word"));
        let ticket = self.cluster.propose(id, last, 2000 * MS);
        self.run_for(500 * MS);
        let reply = self.cluster.reply(id, ticket);
        assert!(
            succeeded(reply),
            "seed {seed}: no write after the heal: {reply:?}"
        );
        for key in 0..KEYS {
            let invoked = self.cluster.now();
            let ticket = self
                .cluster
                .propose(id, get(&format!("key/{key}"), None), 2000 * MS);
            self.operations.push(Operation {
                key,
                wrote: None,
                invoked,
                node: id,
                ticket,
                returned: None,
            });
        }
        self.run_for(1000 * MS);
        let ids = self.cluster.ids();
        let digest = |id: &NodeId| self.cluster.protocol(*id).table().digest();
        let digests: BTreeSet<u64> = ids.iter().map(digest).collect();
        assert_eq!(digests.len(), 1, "seed {seed}: replicas differ after the heal");
        self.judge();
    }

    /// Linearizability per key: every acknowledged operation has a version, values are unique, so the order is known;
    /// it must respect real time.
    fn judge(&self) {
        let seed = self.seed;
        for key in 0..KEYS {
            // Version each value was written at; reads at the version of what they saw, behind its write.
            let mut points: Vec<(u64, bool, Instant, Instant)> = Vec::new();
            let mut written: BTreeMap<u64, u64> = BTreeMap::new();
            for operation in self.operations.iter().filter(|operation| operation.key == key) {
                let reply = self.cluster.reply(operation.node, operation.ticket);
                let returned = operation.returned.unwrap_or(Instant::NEVER);
                match (reply, operation.wrote) {
                    (Some(Reply::Write(Ok(receipt))), Some(value)) => {
                        assert!(
                            written.insert(receipt.version.0, value).is_none(),
                            "seed {seed}: one version twice"
                        );
                        points.push((receipt.version.0, false, operation.invoked, returned));
                    }
                    (Some(Reply::Read(Ok(read))), None) => {
                        let version = read.entries.first().map_or(0, |entry| entry.state.modified.0);
                        if let Some(entry) = read.entries.first() {
                            let value: u64 = entry.state.value.to_string().parse().expect("our own value");
                            let known = written.get(&version).is_none_or(|written| *written == value);
                            assert!(known, "seed {seed}: version {version} has two values");
                        }
                        points.push((version, true, operation.invoked, returned));
                    }
                    (Some(Reply::Write(Err(WriteError::NotApplied(_)))), Some(value)) => {
                        let shown = self.cluster.ids().iter().any(|id| {
                            let applied = self
                                .cluster
                                .applied(*id)
                                .iter()
                                .flat_map(|applied| &applied.changes);
                            let text = value.to_string();
                            applied
                                .filter_map(|change| change.now.as_ref())
                                .any(|s| s.value.to_string() == text)
                        });
                        assert!(!shown, "seed {seed}: {value} was refused and yet applied");
                    }
                    _ => {}
                }
            }
            // If a returned before b was invoked, a must not come after b in the order of versions.
            points.sort_by_key(|(version, is_read, ..)| (*version, *is_read));
            let mut latest_invoked = Instant::ZERO;
            for (version, _, invoked, returned) in &points {
                assert!(
                    *returned >= latest_invoked,
                    "seed {seed}, key {key}: version {version} returned before something older was invoked"
                );
                latest_invoked = latest_invoked.max(*invoked);
            }
        }
    }
}

#[test]
fn random_histories_keep_every_promise() {
    let seeds = std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    for seed in 0..seeds {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            for _ in 0..run.rng.below(6) {
                run.operate();
            }
            if run.rng.per_mille(400) {
                run.fault();
            }
            let pause = run.rng.between(MS, 120 * MS);
            run.run_for(pause);
        }
        run.finish();
    }
}
