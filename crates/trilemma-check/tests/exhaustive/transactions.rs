//! Isolation levels, each by what a store of that level may do, tried in every order.
//!
//! - read uncommitted: some order of the committed transactions gives lists of which every read is a beginning once
//!   what did not commit is left out; own appends are seen.
//! - read committed: some order, in which each read sees what the key was after some earlier transaction.
//! - snapshot isolation: some order of begins and commits; reads see the state at their begin and own writes; of two
//!   that write the same key one commits before the other begins.
//! - serializable: some order, one transaction after the other; then with that of each process, and that of time.
//!
//! At every level nobody reads what was asked for only after the read had returned.

use trilemma_check::history::{Answer, Call, Operation, Outcome, Step};
use trilemma_check::transactions::{Level, check};
use trilemma_check::verdict::Verdict;
use trilemma_core::Rng;

use super::{Tally, dump, seeds};

const KEYS: usize = 2;
const LEVELS: [Level; 6] = [
    Level::ReadUncommitted,
    Level::ReadCommitted,
    Level::SnapshotIsolation,
    Level::Serializable,
    Level::SessionSerializable,
    Level::StrictSerializable,
];

/// What a key holds: the elements of a list, or at most one value of a register.
type Held = Vec<u8>;
type State = [Held; KEYS];

#[derive(Clone, Debug)]
enum Do {
    Read(usize, Held),
    /// A key and an element that nobody else writes.
    Write(usize, u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Committed,
    Aborted,
    Unknown,
}

#[derive(Clone, Debug)]
struct Tx {
    process: u64,
    invoke: u64,
    returned: u64,
    fate: Fate,
    steps: Vec<Do>,
}

struct Case {
    txs: Vec<Tx>,
    is_list: [bool; KEYS],
}

/// The transaction that writes an element.
const fn writer(element: u8) -> usize {
    element as usize / 8
}

impl Case {
    fn put(&self, held: &mut Held, key: usize, element: u8) {
        if !self.is_list[key] {
            held.clear();
        }
        held.push(element);
    }

    /// Runs a transaction on its own copy of `state`; `None` if a read of it, once answered, saw something else.
    fn run(&self, at: usize, state: &State) -> Option<State> {
        let tx = &self.txs[at];
        let mut state = state.clone();
        for step in &tx.steps {
            match step {
                Do::Read(key, found) if tx.fate == Fate::Committed && state[*key] != *found => return None,
                Do::Read(..) => {}
                Do::Write(key, element) => self.put(&mut state[*key], *key, *element),
            }
        }
        Some(state)
    }

    fn writes(&self, at: usize, key: usize) -> impl Iterator<Item = u8> + '_ {
        self.txs[at].steps.iter().filter_map(move |step| match step {
            Do::Write(to, element) if *to == key => Some(*element),
            _ => None,
        })
    }

    /// The reads that were answered, with their transaction.
    fn reads(&self) -> impl Iterator<Item = (usize, usize, &Held)> {
        let committed = self
            .txs
            .iter()
            .enumerate()
            .filter(|(_, tx)| tx.fate == Fate::Committed);
        committed.flat_map(|(at, tx)| {
            tx.steps.iter().filter_map(move |step| match step {
                Do::Read(key, found) => Some((at, *key, found)),
                Do::Write(..) => None,
            })
        })
    }

    /// Whether every read shows what somebody had asked to write to the key by then, nothing twice.
    fn is_possible(&self) -> bool {
        self.reads().all(|(at, key, found)| {
            let asked = |element: &u8| {
                let by = writer(*element);
                by < self.txs.len()
                    && self.writes(by, key).any(|written| written == *element)
                    && self.txs[by].invoke <= self.txs[at].returned
            };
            let is_single = self.is_list[key] || found.len() <= 1;
            let is_twice = (1..found.len()).any(|place| found[..place].contains(&found[place]));
            is_single && !is_twice && found.iter().all(asked)
        })
    }

    fn must_precede(&self, one: usize, other: usize, level: Level) -> bool {
        let (first, second) = (&self.txs[one], &self.txs[other]);
        if first.fate != Fate::Committed || level < Level::SessionSerializable {
            return false;
        }
        let place = |tx: &Tx, at: usize| (tx.invoke, tx.returned, at);
        let in_process = first.process == second.process && place(first, one) < place(second, other);
        in_process || level == Level::StrictSerializable && first.returned < second.invoke
    }

    fn is_serial(&self, level: Level, done: u32, state: &State) -> bool {
        let open = |at: usize| done & 1 << at == 0 && self.txs[at].fate != Fate::Aborted;
        let all = 0..self.txs.len();
        if all
            .clone()
            .all(|at| !open(at) || self.txs[at].fate == Fate::Unknown)
        {
            return true;
        }
        all.clone().any(|at| {
            // Nobody who was placed may have had to wait for this one.
            let is_late = all
                .clone()
                .any(|other| done & 1 << other != 0 && self.must_precede(at, other, level));
            open(at)
                && !is_late
                && self
                    .run(at, state)
                    .is_some_and(|after| self.is_serial(level, done | 1 << at, &after))
        })
    }

    /// `begun` holds each transaction's state at its end, if it has begun.
    fn is_snapshot(&self, begun: &mut [Option<State>], done: u32, state: &State) -> bool {
        let all = 0..self.txs.len();
        let open = |at: usize| done & 1 << at == 0 && self.txs[at].fate != Fate::Aborted;
        if all
            .clone()
            .all(|at| !open(at) || self.txs[at].fate == Fate::Unknown)
        {
            return true;
        }
        for at in all.filter(|at| open(*at)) {
            match begun[at].clone() {
                None => {
                    // Begins; of those that write the same key only one is under way.
                    let writes = |one: usize, key: usize| self.writes(one, key).next().is_some();
                    let clashes = (0..self.txs.len()).any(|other| {
                        let under_way = begun[other].is_some() && done & 1 << other == 0;
                        under_way && (0..KEYS).any(|key| writes(at, key) && writes(other, key))
                    });
                    if clashes {
                        continue;
                    }
                    let Some(after) = self.run(at, state) else {
                        continue;
                    };
                    begun[at] = Some(after);
                    if self.is_snapshot(begun, done, state) {
                        return true;
                    }
                    begun[at] = None;
                }
                Some(after) => {
                    let mut next = state.clone();
                    for key in 0..KEYS {
                        if self.writes(at, key).next().is_some() {
                            next[key] = after[key].clone();
                        }
                    }
                    if self.is_snapshot(begun, done | 1 << at, &next) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Calls `is_right` with orders of the committed transactions and any of the unknown ones, until one is.
    fn some_order(
        &self,
        with_unknown: bool,
        order: &mut Vec<usize>,
        is_right: &dyn Fn(&[usize]) -> bool,
    ) -> bool {
        let all = 0..self.txs.len();
        let is_whole = |order: &[usize]| {
            let mut all = all.clone();
            all.all(|at| self.txs[at].fate != Fate::Committed || order.contains(&at))
        };
        if is_whole(order) && is_right(order) {
            return true;
        }
        for at in all.clone() {
            let is_open = match self.txs[at].fate {
                Fate::Committed => true,
                Fate::Unknown => with_unknown,
                Fate::Aborted => false,
            };
            if is_open && !order.contains(&at) {
                order.push(at);
                if self.some_order(with_unknown, order, is_right) {
                    return true;
                }
                order.pop();
            }
        }
        false
    }

    /// The states before each transaction of the order, and after the last.
    fn states(&self, order: &[usize]) -> Vec<State> {
        let mut states = vec![State::default()];
        for at in order {
            let mut state = states[states.len() - 1].clone();
            for step in &self.txs[*at].steps {
                if let Do::Write(key, element) = step {
                    self.put(&mut state[*key], *key, *element);
                }
            }
            states.push(state);
        }
        states
    }

    fn is_committed_read(&self, order: &[usize]) -> bool {
        let states = self.states(order);
        let committed = order.iter().enumerate();
        committed
            .filter(|(_, at)| self.txs[**at].fate == Fate::Committed)
            .all(|(place, at)| {
                let mut own: [Option<Held>; KEYS] = Default::default();
                self.txs[*at].steps.iter().all(|step| match step {
                    Do::Write(key, element) => {
                        let held = own[*key].get_or_insert_with(|| states[place][*key].clone());
                        self.put(held, *key, *element);
                        true
                    }
                    Do::Read(key, found) => match &own[*key] {
                        Some(held) => held == found,
                        None => states[..=place].iter().any(|state| state[*key] == *found),
                    },
                })
            })
    }

    fn is_uncommitted_read(&self, order: &[usize]) -> bool {
        let states = self.states(order);
        let last = &states[states.len() - 1];
        order.iter().all(|at| {
            let mut own: [Held; KEYS] = Default::default();
            self.txs[*at].steps.iter().all(|step| match step {
                Do::Write(key, element) => {
                    own[*key].push(*element);
                    true
                }
                Do::Read(key, _) if !self.is_list[*key] => true,
                Do::Read(key, found) => {
                    let is_committed = |element: &&u8| self.txs[writer(**element)].fate == Fate::Committed;
                    let clean: Held = found.iter().filter(is_committed).copied().collect();
                    let mut rest = found.iter();
                    let sees_own = own[*key].iter().all(|own| rest.any(|element| element == own));
                    sees_own && last[*key].starts_with(&clean)
                }
            })
        })
    }

    fn is_allowed(&self, level: Level) -> bool {
        if !self.is_possible() {
            return false;
        }
        match level {
            Level::ReadUncommitted => {
                self.some_order(false, &mut Vec::new(), &|order| self.is_uncommitted_read(order))
            }
            Level::ReadCommitted => {
                self.some_order(true, &mut Vec::new(), &|order| self.is_committed_read(order))
            }
            Level::SnapshotIsolation => {
                self.is_snapshot(&mut vec![None; self.txs.len()], 0, &State::default())
            }
            _ => self.is_serial(level, 0, &State::default()),
        }
    }

    fn operations(&self) -> Vec<Operation> {
        let key = |key: usize| ["x", "y"][key].to_string();
        let step = |step: &Do, is_answer: bool| match step {
            Do::Read(at, found) => Step::Read {
                key: key(*at),
                found: is_answer.then(|| found.iter().map(u8::to_string).collect()),
            },
            Do::Write(at, element) if self.is_list[*at] => Step::Append {
                key: key(*at),
                element: element.to_string(),
            },
            Do::Write(at, element) => Step::Write {
                key: key(*at),
                value: element.to_string(),
            },
        };
        let operation = |tx: &Tx| Operation {
            process: tx.process,
            invoke: tx.invoke,
            returned: Some(tx.returned),
            call: Call::Transaction {
                steps: tx.steps.iter().map(|done| step(done, false)).collect(),
            },
            outcome: match tx.fate {
                Fate::Committed => Outcome::Ok(Answer::Committed {
                    steps: tx.steps.iter().map(|done| step(done, true)).collect(),
                }),
                Fate::Aborted => Outcome::Fail,
                Fate::Unknown => Outcome::Unknown,
            },
        };
        self.txs.iter().map(operation).collect()
    }
}

/// Transactions of a store that is sometimes serial, sometimes reads old states, sometimes answers anything.
fn random(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let count = 2 + rng.below(4) as usize;
    let is_list = [rng.below(2) == 0, rng.below(2) == 0];
    let (spread, length) = (1 + rng.below(60), 1 + rng.below(30));
    let mut free = [0_u64; 3];
    let unknown = [0, 15, 40][rng.below(3) as usize];
    let mut txs: Vec<Tx> = Vec::new();
    for at in 0..count {
        let process = rng.below(3);
        let invoke = free[process as usize] + rng.below(spread);
        let returned = invoke + rng.below(length);
        free[process as usize] = returned + rng.below(2);
        let steps = (0..1 + rng.below(3)).map(|number| {
            let key = rng.below(KEYS as u64) as usize;
            match rng.below(2) {
                0 => Do::Read(key, Held::new()),
                _ => Do::Write(key, (at * 8) as u8 + number as u8),
            }
        });
        let steps = steps.collect();
        let fate = match rng.below(100) {
            dice if dice < unknown => Fate::Unknown,
            dice if dice < unknown + 8 => Fate::Aborted,
            _ => Fate::Committed,
        };
        txs.push(Tx {
            process,
            invoke,
            returned,
            fate,
            steps,
        });
    }
    let mut case = Case { txs, is_list };
    answer(&mut case, &mut rng);
    case
}

/// Fills in what is read.
fn answer(case: &mut Case, rng: &mut Rng) {
    let mut instants: Vec<(u64, usize)> = Vec::new();
    for (at, tx) in case.txs.iter().enumerate() {
        instants.push((tx.invoke + rng.below(tx.returned - tx.invoke + 1), at));
    }
    if rng.below(3) == 0 {
        // In no order at all.
        instants
            .iter_mut()
            .for_each(|(instant, _)| *instant = rng.below(8));
    }
    instants.sort_unstable();
    let (old, any) = (
        [0, 20, 60][rng.below(3) as usize],
        [0, 0, 25][rng.below(3) as usize],
    );
    let mut states = vec![State::default()];
    for (_, at) in instants {
        let from = match rng.below(100) {
            dice if dice < old => rng.below(states.len() as u64) as usize,
            _ => states.len() - 1,
        };
        let mut state = states[from].clone();
        let mut last = states[states.len() - 1].clone();
        let is_done = match case.txs[at].fate {
            Fate::Committed => true,
            Fate::Aborted => rng.below(6) == 0,
            Fate::Unknown => rng.below(2) == 0,
        };
        for number in 0..case.txs[at].steps.len() {
            match case.txs[at].steps[number].clone() {
                Do::Write(key, element) => {
                    case.put(&mut state[key], key, element);
                    case.put(&mut last[key], key, element);
                }
                Do::Read(key, _) => {
                    let mut found = state[key].clone();
                    if rng.below(100) < any {
                        found = drawn(case, rng, key);
                    } else if rng.below(100) < old {
                        found = states[rng.below(states.len() as u64) as usize][key].clone();
                    }
                    case.txs[at].steps[number] = Do::Read(key, found);
                }
            }
        }
        if is_done {
            states.push(last);
        }
    }
}

/// Any elements of a key.
fn drawn(case: &Case, rng: &mut Rng, key: usize) -> Held {
    let mut all: Held = (0..case.txs.len()).flat_map(|at| case.writes(at, key)).collect();
    let most = if case.is_list[key] { 3 } else { 1 };
    let mut found = Held::new();
    for _ in 0..rng.below(most + 1) {
        if !all.is_empty() {
            found.push(all.remove(rng.below(all.len() as u64) as usize));
        }
    }
    found
}

fn compare(level: Level) {
    let mut tally = Tally::default();
    for seed in seeds() {
        let case = random(seed);
        let is_allowed = case.is_allowed(level);
        let history = case.operations();
        let about = || format!("seed {seed} {level:?}:\n{}", dump(&history));
        match check(&history, level) {
            Verdict::Legal => {
                assert!(is_allowed, "legal, and no order allows it; {}", about());
                tally.legal += 1;
            }
            Verdict::Illegal(violation) => {
                assert!(
                    !is_allowed,
                    "{violation:?}, and some order allows it; {}",
                    about()
                );
                tally.illegal += 1;
            }
            Verdict::Undecided { why } => panic!("{why}; {}", about()),
        }
    }
    tally.finish(&format!("{level:?}"));
}

#[test]
fn read_uncommitted_agrees_with_trying_every_order() {
    compare(LEVELS[0]);
}

#[test]
fn read_committed_agrees_with_trying_every_order() {
    compare(LEVELS[1]);
}

#[test]
fn snapshot_isolation_agrees_with_trying_every_order() {
    compare(LEVELS[2]);
}

#[test]
fn serializable_agrees_with_trying_every_order() {
    compare(LEVELS[3]);
}

#[test]
fn session_serializable_agrees_with_trying_every_order() {
    compare(LEVELS[4]);
}

#[test]
fn strict_serializable_agrees_with_trying_every_order() {
    compare(LEVELS[5]);
}
