//! Random histories under random faults: invariants after every event, linearizability of every key at the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use trilemma_core::{
    Attempt, Command, Instant, KeyRange, NodeId, OpId, Outcome, Protocol, Reason, Reply, Rng, SessionId,
    Ticket, Version, WriteError,
};
use trilemma_testkit::{Faults, get, succeeded, value};

use super::harness::*;
use super::invariants::Invariants;
use super::schedules::seeds;

/// Keys of a run. The last one is deleted, too.
const KEYS: [&str; 3] = ["a", "b", "deleted"];

/// One logical operation: all attempts together.
#[derive(Debug)]
struct Operation {
    op: OpId,
    key: &'static str,
    command: Option<Command>,
    /// The value it writes; `None` for a read or a delete.
    value: Option<String>,
    start: Instant,
    end: Option<Instant>,
    asked: Option<Asked>,
    result: Found,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    node: NodeId,
    ticket: Ticket,
    until: Instant,
    /// The incarnation of the node; its tickets die with it.
    incarnation: u64,
    attempt: Attempt,
}

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Unknown,
    NotApplied,
    /// A write that won.
    Made(Version),
    /// A read, or a failed guard, of this version; `None`: the key was absent and had perhaps been deleted.
    Saw(Option<Version>, Option<String>),
}

struct Run {
    cluster: Paxi,
    rng: Rng,
    invariants: Rc<RefCell<Invariants>>,
    history: Vec<Operation>,
    /// Sessions of the clients; the one that begins next takes the place of the first.
    sessions: Vec<SessionId>,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x9a_05);
        let size = if rng.per_mille(300) { 5 } else { 3 };
        let recent = *rng.pick(&[2, 4, 64, 64]).expect("there are some");
        let sessions = *rng.pick(&[1, 3, 128]).expect("there are some");
        let mut cluster = cluster_with(size, seed, move |config| {
            config.recent_max = recent;
            config.sessions_max = sessions;
            config.round_timeout = millis(30);
            config.sync_interval = millis(100);
            config.confirm_after = millis(200);
        });
        let invariants = Invariants::watch(&mut cluster);
        Self {
            cluster,
            rng,
            invariants,
            history: Vec::new(),
            sessions: vec![op_of(7, 0).session],
            seed,
        }
    }

    fn node(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        *self.rng.pick(&ids).expect("there are nodes")
    }

    fn propose(&mut self) {
        let node = self.node();
        if !self.cluster.is_up(node) {
            return;
        }
        let seq = self.history.len() as u64 + 1;
        if self.rng.per_mille(100) {
            let nonce = 100 + seq;
            let basis = fresh_op(&self.cluster, node, 0).session.basis;
            self.sessions.push(SessionId { basis, nonce });
            if self.sessions.len() > 4 {
                self.sessions.remove(0);
            }
        }
        let session = *self.rng.pick(&self.sessions).expect("there is one");
        let op = OpId { session, seq };
        let key = *self.rng.pick(&KEYS).expect("there are keys");
        let text = format!("{seq}");
        let (command, value) = match self.rng.below(10) {
            0..4 => (Some(Command::put(key, text.clone())), Some(text)),
            4..6 => {
                let expected = self
                    .history
                    .iter()
                    .rev()
                    .find(|other| other.key == key && other.value.is_some());
                let expected = expected.and_then(|other| other.value.clone()).map(Into::into);
                (
                    Some(Command::compare_and_set(key, expected, Some(text.clone().into()))),
                    Some(text),
                )
            }
            6 if key == "deleted" => (Some(Command::delete(key)), None),
            _ => (None, None),
        };
        let request = match &command {
            Some(command) => write_as(op, Attempt::First, command.clone()),
            None => get(key, None),
        };
        let timeout = millis(20 + self.rng.below(300));
        let start = self.cluster.now();
        let ticket = self.cluster.propose(node, request, timeout);
        self.history.push(Operation {
            op,
            key,
            command,
            value,
            start,
            end: None,
            asked: Some(Asked {
                node,
                ticket,
                until: start + timeout + millis(20),
                incarnation: self.invariants.borrow().incarnation(node),
                attempt: Attempt::First,
            }),
            result: Found::Nothing,
        });
    }

    /// Retries an unknown write under its id, or asks what became of it.
    fn follow_up(&mut self) {
        let node = self.node();
        let unknown =
            |operation: &&mut Operation| operation.result == Found::Unknown && operation.asked.is_none();
        let Some(operation) = self.history.iter_mut().rev().find(unknown) else {
            return;
        };
        let (Some(command), true) = (operation.command.clone(), self.cluster.is_up(node)) else {
            return;
        };
        let timeout = millis(20 + self.rng.below(300));
        let request = if self.rng.per_mille(500) {
            write_as(operation.op, Attempt::Retry, command)
        } else {
            outcome_of(operation.op, command)
        };
        operation.asked = Some(Asked {
            node,
            ticket: self.cluster.propose(node, request, timeout),
            until: self.cluster.now() + timeout + millis(20),
            incarnation: self.invariants.borrow().incarnation(node),
            attempt: Attempt::Retry,
        });
    }

    /// A copy of the first attempt of a write that was done was long on its way. Nobody waits for its answer.
    fn late(&mut self) {
        let node = self.node();
        let made = |operation: &&Operation| matches!(operation.result, Found::Made(_));
        let made: Vec<&Operation> = self.history.iter().filter(made).collect();
        if let Some(operation) = self.rng.pick(&made)
            && let (Some(command), true) = (operation.command.clone(), self.cluster.is_up(node))
        {
            let first = write_as(operation.op, Attempt::First, command);
            self.cluster.propose(node, first, millis(200));
        }
    }

    fn run_for(&mut self, time: Duration) {
        let (history, invariants, seed) = (&mut self.history, &self.invariants, self.seed);
        self.cluster.run_until(time, |cluster| {
            invariants.borrow_mut().check(cluster);
            history
                .iter_mut()
                .for_each(|operation| operation.look(cluster, &invariants.borrow(), seed));
            false
        });
    }

    fn fault(&mut self) {
        let node = self.node();
        match self.rng.below(14) {
            0..2 => {
                self.cluster.crash(node);
                self.invariants.borrow_mut().on_crash(node);
            }
            2 => {
                self.cluster.crash_losing_all(node);
                self.invariants.borrow_mut().on_crash(node);
            }
            3..6 => self.cluster.restart(node),
            6 => {
                if self.cluster.is_up(node) {
                    self.cluster.hold_disk(node, false);
                    self.cluster.checkpoint(node);
                }
            }
            7 => {
                let other = self.node();
                if other != node {
                    self.cluster.cut(node, other);
                }
            }
            8 => {
                let other = self.node();
                self.cluster.split(&[node, other]);
            }
            9..11 => self.cluster.heal(),
            11 => self.cluster.hold_disk(node, true),
            12 => self.cluster.hold_disk(node, false),
            _ => {
                let slow = Duration::from_micros(300 + self.rng.below(30_000));
                self.cluster.faults = Faults {
                    loss: self.rng.below(200) as u32,
                    duplication: self.rng.below(200) as u32,
                    delay: (Duration::from_micros(50), slow),
                    ..Faults::default()
                };
            }
        }
    }

    fn heal(&mut self) {
        self.cluster.heal();
        self.cluster.faults = Faults::default();
        for node in self.cluster.ids() {
            self.cluster.restart(node);
            self.cluster.hold_disk(node, false);
        }
        self.run_for(SECOND);
    }

    /// After everything is well again, every node serves and all show the same.
    fn check_liveness(&mut self) {
        for node in self.cluster.ids() {
            for key in KEYS {
                let seq = self.history.len() as u64 + 1;
                let (start, command) = (self.cluster.now(), Command::put(key, format!("{seq}")));
                // A session of now: older ones may have been forgotten. If the node was behind, it is not after that.
                let mut op = fresh_op(&self.cluster, node, seq);
                let request = write_as(op, Attempt::First, command.clone());
                let mut reply = self.cluster.ask(node, request, SECOND);
                if !succeeded(reply.as_ref()) {
                    assert_eq!(refusal(reply), Reason::SessionExpired);
                    op = fresh_op(&self.cluster, node, seq);
                    let request = write_as(op, Attempt::First, command.clone());
                    reply = self.cluster.ask(node, request, SECOND);
                }
                let receipt = receipt(reply);
                self.history.push(Operation {
                    op,
                    key,
                    command: Some(command),
                    value: Some(format!("{seq}")),
                    start,
                    end: Some(self.cluster.now()),
                    asked: None,
                    result: Found::Made(receipt.version),
                });
            }
        }
        let view = |cluster: &Paxi, node: NodeId| -> Vec<_> {
            let learned = cluster.protocol(node).learned();
            learned
                .map(|(key, ballot, register)| (key.clone(), ballot, register.clone()))
                .collect()
        };
        let equal = self.cluster.run_until(10 * SECOND, |cluster| {
            cluster
                .ids()
                .iter()
                .all(|node| view(cluster, *node) == view(cluster, N1))
        });
        assert!(equal, "seed {}: the learned views stay different", self.seed);
        for key in KEYS {
            let now = value(self.cluster.get(N2, key).as_ref()).expect("a read succeeds");
            let shown = self.cluster.protocol(N3).scan(&KeyRange::key(&key.into()), 1);
            assert_eq!(
                shown.first().map(|entry| entry.state.value.to_string()),
                now,
                "seed {}",
                self.seed
            );
        }
    }

    /// Every key's history is that of one register.
    fn check_history(&self) {
        for key in KEYS {
            let of_key: Vec<&Operation> = self
                .history
                .iter()
                .filter(|operation| operation.key == key)
                .collect();
            check_values(&of_key, self.seed);
            check_order(&of_key, self.seed);
        }
    }
}

impl Operation {
    /// Takes the answer, if it has come.
    fn look(&mut self, cluster: &Paxi, invariants: &Invariants, seed: u64) {
        let Some(asked) = self.asked else { return };
        let incarnation = invariants.incarnation(asked.node);
        let reply = match cluster.reply(asked.node, asked.ticket) {
            Some(reply) => reply,
            // The node has crashed, or is down past the deadline: nobody will answer.
            None if cluster.now() > asked.until => {
                assert!(
                    !cluster.is_up(asked.node) || incarnation != asked.incarnation,
                    "seed {seed}: {} was not answered by its deadline",
                    self.op
                );
                self.asked = None;
                self.result = if self.command.is_some() {
                    Found::Unknown
                } else {
                    Found::NotApplied
                };
                return;
            }
            None => return,
        };
        self.asked = None;
        self.end = Some(cluster.now());
        self.result = self.found(reply, asked.attempt);
    }

    fn found(&self, reply: &Reply, attempt: Attempt) -> Found {
        match reply {
            Reply::Read(Ok(read)) => match read.entries.first() {
                Some(entry) => Found::Saw(Some(entry.state.modified), Some(entry.state.value.to_string())),
                None if self.key == "deleted" => Found::Saw(None, None),
                None => Found::Saw(Some(Version::ABSENT), None),
            },
            Reply::Write(Ok(receipt)) | Reply::Outcome(Ok(Outcome::Applied(receipt))) => {
                if receipt.succeeded {
                    Found::Made(receipt.version)
                } else {
                    Found::Saw(Some(receipt.version), None)
                }
            }
            Reply::Write(Err(WriteError::NotApplied(error))) => {
                let fenced = matches!(error.reason, Reason::Fenced);
                assert!(
                    attempt == Attempt::First || fenced,
                    "a retry was refused for certain: {error:?}"
                );
                Found::NotApplied
            }
            Reply::Outcome(Ok(Outcome::NotApplied)) => Found::NotApplied,
            Reply::Read(Err(_)) => Found::NotApplied,
            Reply::Write(Err(_)) | Reply::Outcome(_) => Found::Unknown,
        }
    }
}

/// Each value has one version, each version one value, and what was refused is never seen.
fn check_values(history: &[&Operation], seed: u64) {
    let mut values: BTreeMap<Version, String> = BTreeMap::new();
    let mut made = BTreeSet::new();
    for operation in history {
        let (version, seen) = match (&operation.result, &operation.value) {
            (Found::Made(version), value) => {
                assert!(made.insert(*version), "seed {seed}: two writes made {version}");
                (*version, value.clone())
            }
            (Found::Saw(Some(version), Some(seen)), _) => (*version, Some(seen.clone())),
            _ => continue,
        };
        let Some(seen) = seen else { continue };
        let known = values.entry(version).or_insert_with(|| seen.clone());
        assert_eq!(*known, seen, "seed {seed}: {version} has two values");
    }
    let distinct: BTreeSet<&String> = values.values().collect();
    assert_eq!(
        distinct.len(),
        values.len(),
        "seed {seed}: a value was written twice: {values:?}"
    );
    for operation in history
        .iter()
        .filter(|operation| operation.result == Found::NotApplied)
    {
        if let Some(value) = &operation.value {
            assert!(
                !distinct.contains(value),
                "seed {seed}: {value} was refused and is there"
            );
        }
    }
}

/// What ended before another began has no higher version; a write's is lower than everything that began after it.
fn check_order(history: &[&Operation], seed: u64) {
    let version = |operation: &Operation| match operation.result {
        Found::Made(version) | Found::Saw(Some(version), _) => Some(version),
        _ => None,
    };
    for later in history {
        let Some(after) = version(later) else { continue };
        for earlier in history {
            let (Some(before), Some(end)) = (version(earlier), earlier.end) else {
                continue;
            };
            if end >= later.start {
                continue;
            }
            assert!(
                before <= after,
                "seed {seed}: {later:?} is older than {earlier:?}"
            );
            let is_write = matches!(later.result, Found::Made(_));
            assert!(
                !is_write || before < after,
                "seed {seed}: {later:?} does not follow {earlier:?}"
            );
        }
    }
}

/// The whole: random operations, retries, questions and faults; then peace, liveness, convergence, and the checks.
#[test]
fn random_histories_are_linearizable() {
    let mut made = 0;
    for seed in 0..seeds(300) {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            for _ in 0..run.rng.below(4) {
                run.propose();
            }
            if run.rng.per_mille(300) {
                run.follow_up();
            }
            if run.rng.per_mille(300) {
                run.late();
            }
            if run.rng.per_mille(350) {
                run.fault();
            }
            let pause = millis(1 + run.rng.below(25));
            run.run_for(pause);
        }
        run.heal();
        run.check_liveness();
        run.check_history();
        made += run
            .history
            .iter()
            .filter(|operation| matches!(operation.result, Found::Made(_)))
            .count();
    }
    assert!(made > 0, "some writes succeed");
}

/// The same seed gives the same run, to the last byte of every node's state.
#[test]
fn a_seed_determines_everything() {
    let state = || {
        let mut run = Run::new(5);
        for _ in 0..40 {
            run.propose();
            run.fault();
            run.run_for(millis(7));
        }
        run.heal();
        let ids = run.cluster.ids();
        let states: Vec<Vec<Vec<u8>>> = ids
            .iter()
            .map(|node| run.cluster.protocol(*node).checkpoint().collect())
            .collect();
        (states, run.cluster.now())
    };
    assert_eq!(state(), state());
}

/// Writes go on while every node crashes in turn, is restored from a checkpoint, and its records replayed.
#[test]
fn a_rolling_restart_from_checkpoints_loses_nothing() {
    let mut cluster = cluster(3, 77);
    for seq in 1..=30u64 {
        let node = NodeId(1 + (seq % 3) as u32);
        let victim = NodeId(1 + ((seq + 1) % 3) as u32);
        if seq % 2 == 0 {
            cluster.checkpoint(victim);
        }
        cluster.crash(victim);
        let command = Command::put(format!("k{}", seq % 5), format!("{seq}"));
        assert!(succeeded(
            cluster
                .ask(node, write_as(op_of(1, seq), Attempt::First, command), SECOND)
                .as_ref()
        ));
        cluster.restart(victim);
        let read = value(cluster.get(victim, &format!("k{}", seq % 5)).as_ref());
        assert_eq!(read, Ok(Some(format!("{seq}"))));
    }
}
