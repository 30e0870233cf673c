//! Random histories with faults. `TRILEMMA_SEEDS` sets how many seeds run, `TRILEMMA_SEED` replays one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use trilemma_core::session::OpResult;
use trilemma_core::{
    Attempt, Command, Instant, NodeId, Outcome, Reply, Request, Rng, Ticket, Value, Version, WriteError,
};
use trilemma_testkit::{get, op, write};

use super::harness::*;
use super::invariants::Invariants;

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Wrote { succeeded: bool, version: Version },
    Refused,
    Unknown,
    Read { value: Option<(Version, String)> },
}

#[derive(Debug)]
struct Operation {
    seq: u64,
    key: &'static str,
    command: Option<Command>,
    start: Instant,
    end: Option<Instant>,
    asked: Option<(NodeId, Ticket, u64, Instant)>,
    answer: Answer,
}

struct Run {
    cluster: TestCluster,
    rng: Rng,
    invariants: Rc<RefCell<Invariants>>,
    history: Vec<Operation>,
    seed: u64,
    wipes: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x2_9c);
        let size = [2, 3, 3, 3, 5][rng.below(5) as usize];
        let depth = [1, 4, 8][rng.below(3) as usize];
        let timeout = millis(30 + rng.below(200));
        let mut cluster = cluster_with(size, seed, move |config| {
            config.pipeline_depth = depth;
            config.prepare_timeout = timeout;
            config.retry_interval = millis(10);
        });
        let invariants = Invariants::watch(&mut cluster);
        let wipes = rng.per_mille(300);
        Self {
            cluster,
            rng,
            invariants,
            history: Vec::new(),
            seed,
            wipes,
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
        let key = *self.rng.pick(&KEYS).expect("there are keys");
        let command = match self.rng.below(10) {
            0..5 => Some(Command::put(key, format!("{seq}"))),
            5 => {
                let mut wrote = self.history.iter().rev().filter(|other| other.key == key);
                let expected = wrote.find(|other| other.command.is_some()).map(|other| other.seq);
                let expected = expected.map(|seq| Value::from(format!("{seq}")));
                Some(Command::compare_and_set(
                    key,
                    expected,
                    Some(format!("{seq}").into()),
                ))
            }
            _ => None,
        };
        let request = match &command {
            Some(command) => write(seq, Attempt::First, command.clone()),
            None => get(key, None),
        };
        let timeout = millis(20 + self.rng.below(400));
        let start = self.cluster.now();
        let ticket = self.cluster.propose(node, request, timeout);
        let incarnation = self.invariants.borrow().incarnation(node);
        self.history.push(Operation {
            seq,
            key,
            command,
            start,
            end: None,
            asked: Some((node, ticket, incarnation, start + timeout + millis(5))),
            answer: Answer::Nothing,
        });
    }

    /// Retries an unknown write under its id, or asks what became of it.
    fn follow_up(&mut self) {
        let node = self.node();
        let is_open =
            |operation: &&mut Operation| operation.answer == Answer::Unknown && operation.asked.is_none();
        let Some(operation) = self.history.iter_mut().rev().find(is_open) else {
            return;
        };
        let (Some(command), true) = (operation.command.clone(), self.cluster.is_up(node)) else {
            return;
        };
        let request = if self.rng.per_mille(500) {
            write(operation.seq, Attempt::Retry, command)
        } else {
            Request::Outcome {
                op: op(operation.seq),
                command: None,
            }
        };
        let timeout = millis(20 + self.rng.below(400));
        let until = self.cluster.now() + timeout + millis(5);
        let ticket = self.cluster.propose(node, request, timeout);
        operation.asked = Some((node, ticket, self.invariants.borrow().incarnation(node), until));
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

    fn crash(&mut self, node: NodeId) {
        if self.cluster.is_up(node) {
            self.invariants.borrow_mut().on_crash(node);
            if self.rng.per_mille(500) {
                self.cluster.crash(node);
            } else {
                self.cluster.crash_losing_all(node);
            }
        }
    }

    fn fault(&mut self) {
        let node = self.node();
        let other = self.node();
        match self.rng.below(14) {
            0 => {
                self.cluster.faults.loss = self.rng.below(200) as u32;
                self.cluster.faults.duplication = self.rng.below(200) as u32;
            }
            1 => self.cluster.faults.delay.1 = Duration::from_micros(200 + self.rng.below(20_000)),
            2 => self.cluster.faults.disk.1 = Duration::from_micros(200 + self.rng.below(20_000)),
            3 | 4 => self.crash(node),
            5..8 => {
                for node in self.cluster.ids() {
                    self.cluster.restart(node);
                }
            }
            8 if node != other => self.cluster.cut(node, other),
            9 => self.cluster.split(&[node]),
            10 | 11 => self.cluster.heal(),
            12 => {
                let held = self.rng.per_mille(500);
                self.cluster.hold_disk(node, held);
            }
            13 if self.wipes && node != N1 && self.rng.per_mille(300) => {
                self.invariants.borrow_mut().on_wipe(node);
                self.cluster.wipe(node);
            }
            _ if self.cluster.is_up(node) => {
                self.cluster.hold_disk(node, false);
                self.run_for(millis(30));
                self.cluster.checkpoint(node);
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.cluster.heal();
        self.cluster.faults = Default::default();
        for node in self.cluster.ids() {
            self.cluster.restart(node);
            self.cluster.hold_disk(node, false);
        }
        self.run_for(millis(1000));
        resolve(&mut self.cluster);
        self.run_for(millis(10));
    }

    fn finish(mut self) -> (usize, usize) {
        self.heal();
        let seq = self.history.len() as u64 + 1;
        for (index, node) in self.cluster.ids().into_iter().enumerate() {
            let reply = put(&mut self.cluster, node, seq + index as u64, "after");
            assert!(
                receipt(reply).succeeded,
                "seed {}: no write after the heal",
                self.seed
            );
        }
        resolve(&mut self.cluster);
        self.judge_answers();
        self.judge_order();
        let acked = |operation: &&Operation| matches!(operation.answer, Answer::Wrote { .. });
        let aborts = self.invariants.borrow().aborts();
        (self.history.iter().filter(acked).count(), aborts)
    }

    /// The answers that callers got are what the decided state says, on every node.
    fn judge_answers(&self) {
        for operation in self
            .history
            .iter()
            .filter(|operation| operation.command.is_some())
        {
            let results: Vec<_> = self
                .cluster
                .ids()
                .into_iter()
                .map(|node| result_at(&self.cluster, node, op(operation.seq)))
                .collect();
            let seed = self.seed;
            assert!(
                results.iter().all(|result| *result == results[0]),
                "seed {seed}: {operation:?}: {results:?}"
            );
            match (&operation.answer, results[0]) {
                (
                    Answer::Wrote { succeeded, version },
                    Some(OpResult::Applied {
                        succeeded: did,
                        version: at,
                        ..
                    }),
                ) => {
                    assert_eq!((*succeeded, *version), (did, at), "seed {seed}: {operation:?}");
                }
                (Answer::Wrote { .. }, other) => panic!("seed {seed}: {operation:?} is lost: {other:?}"),
                (Answer::Refused, Some(OpResult::Applied { .. })) => {
                    panic!("seed {seed}: {operation:?} took effect")
                }
                _ => {}
            }
        }
    }

    /// Strict serializability of the writes, and linearizability of each key with its local reads.
    fn judge_order(&self) {
        let seed = self.seed;
        for (index, one) in self.history.iter().enumerate() {
            for other in &self.history[..index] {
                for (earlier, later) in [(one, other), (other, one)] {
                    if earlier.end.is_none_or(|end| end >= later.start) {
                        continue;
                    }
                    match (earlier.position(), later.position()) {
                        (Some((true, a, _)), Some((true, b, _))) => {
                            assert!(a < b, "seed {seed}: {earlier:?} before {later:?}")
                        }
                        (Some((_, a, true)), Some((false, b, _))) if earlier.key == later.key => {
                            assert!(a <= b, "seed {seed}: stale read: {earlier:?} before {later:?}");
                        }
                        (Some((false, a, _)), Some((true, b, _))) => {
                            assert!(
                                a < b,
                                "seed {seed}: read of the future: {earlier:?} before {later:?}"
                            );
                        }
                        _ => {}
                    }
                }
            }
            self.judge_value(one);
        }
    }

    /// A read returns what the write of that version wrote, and not before it began.
    fn judge_value(&self, read: &Operation) {
        let Answer::Read {
            value: Some((version, text)),
        } = &read.answer
        else {
            return;
        };
        let seq: u64 = text.parse().expect("values are numbers");
        let write = &self.history[seq as usize - 1];
        assert!(
            read.end.is_none_or(|end| write.start <= end),
            "seed {}: {read:?}",
            self.seed
        );
        let result = result_at(&self.cluster, N1, op(seq));
        assert!(
            matches!(result, Some(OpResult::Applied { succeeded: true, version: at, .. }) if at == *version),
            "seed {}: {read:?} but the write {result:?}",
            self.seed
        );
    }
}

impl Operation {
    /// (whether it is a write, its position, whether the key then has that position)
    fn position(&self) -> Option<(bool, Version, bool)> {
        match &self.answer {
            Answer::Wrote { succeeded, version } => Some((true, *version, *succeeded)),
            Answer::Read { value } => Some((
                false,
                value.as_ref().map_or(Version::ABSENT, |(version, _)| *version),
                true,
            )),
            _ => None,
        }
    }

    fn look(&mut self, cluster: &TestCluster, invariants: &Invariants, seed: u64) {
        let Some((node, ticket, incarnation, until)) = self.asked else {
            return;
        };
        let is_first = self.answer == Answer::Nothing;
        let Some(reply) = cluster.reply(node, ticket) else {
            if invariants.incarnation(node) != incarnation {
                // Its node has died; the caller hears nothing.
                self.answer = Answer::Unknown;
                self.asked = None;
            } else {
                assert!(
                    cluster.now() <= until,
                    "seed {seed}: {self:?} is not answered in time"
                );
            }
            return;
        };
        self.asked = None;
        self.end = Some(cluster.now());
        self.answer = match reply {
            Reply::Write(Ok(receipt)) => Answer::Wrote {
                succeeded: receipt.succeeded,
                version: receipt.version,
            },
            Reply::Write(Err(WriteError::NotApplied(_))) => Answer::Refused,
            Reply::Write(Err(_)) => Answer::Unknown,
            Reply::Read(Ok(read)) => Answer::Read {
                value: read
                    .entries
                    .first()
                    .map(|entry| (entry.state.modified, entry.state.value.to_string())),
            },
            Reply::Read(Err(_)) => Answer::Refused,
            Reply::Outcome(Ok(Outcome::Applied(receipt))) => Answer::Wrote {
                succeeded: receipt.succeeded,
                version: receipt.version,
            },
            Reply::Outcome(Ok(Outcome::NotApplied)) => Answer::Refused,
            Reply::Outcome(_) => Answer::Unknown,
        };
        if self.answer == Answer::Unknown {
            self.end = None;
        }
        assert!(is_first || self.command.is_some());
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut run = Run::new(seed);
    for _ in 0..60 {
        for _ in 0..run.rng.below(6) {
            run.propose();
        }
        if run.rng.per_mille(300) {
            run.follow_up();
        }
        if run.rng.per_mille(350) {
            run.fault();
        }
        // A long pause now and then lets nodes notice who is gone, and batches time out.
        let pause = if run.rng.per_mille(100) { 500 } else { 20 };
        let pause = Duration::from_micros(run.rng.below(pause * 1000));
        run.run_for(pause);
        if run.rng.per_mille(60) {
            run.heal();
        }
    }
    run.finish()
}

#[test]
fn random_histories_are_strictly_serializable_and_all_or_nothing() {
    if let Some(seed) = std::env::var("TRILEMMA_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        run(seed);
        return;
    }
    let seeds = std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    let (mut acked, mut aborted) = (0, 0);
    for seed in 0..seeds.unwrap_or(300) {
        let result = std::panic::catch_unwind(|| run(seed));
        match result {
            Ok((more_acked, more_aborted)) => {
                acked += more_acked;
                aborted += more_aborted;
            }
            Err(cause) => {
                eprintln!("failed with TRILEMMA_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{acked} writes acknowledged, {aborted} batches aborted");
    assert!(acked > 0 && aborted > 0, "the histories must show both outcomes");
}
