//! Registers, tables, sets and lists: is there one order of all operations, each within its interval, in which every
//! answer is right?

use trilemma_check::history::{Answer, Call, Change, Entry, Guard, Operation, Outcome};
use trilemma_check::linearizability::{Budget, Finding, check};
use trilemma_check::model::Model;
use trilemma_check::verdict::Verdict;
use trilemma_core::Rng;

use super::{Tally, dump, seeds};

/// Most keys, and the key of a pair that says nothing.
const KEYS: usize = 3;
/// Nothing: an absent key, a removal.
const NONE: u8 = 0;

/// What is asked, in small numbers: keys from 0, values and elements from 1.
#[derive(Clone, Debug)]
enum Ask {
    Get(usize),
    /// All guards and all changes, as (key, value).
    Command {
        guards: Vec<(usize, u8)>,
        changes: Vec<(usize, u8)>,
        /// Its form: as a put, a delete, a compare-and-set or a command.
        shown: Form,
    },
    Range {
        from: usize,
        to: usize,
        limit: Option<usize>,
    },
    Add(usize, u8),
    Members(usize),
    Append(usize, u8),
    List(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Put,
    Delete,
    Cas,
    Command,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
enum Say {
    Value(u8),
    Won(bool),
    Entries(Vec<(usize, u8)>, bool),
    Elements(Vec<u8>),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Failed,
    Unknown,
}

#[derive(Clone, Debug)]
struct Op {
    invoke: u64,
    returned: u64,
    fate: Fate,
    ask: Ask,
    say: Say,
}

#[derive(Clone, Default, Debug)]
struct State {
    values: [u8; KEYS],
    sets: [u16; KEYS],
    lists: [Vec<u8>; KEYS],
}

impl State {
    /// Runs a call; its right answer.
    fn run(&mut self, ask: &Ask) -> Say {
        match ask {
            Ask::Get(key) => Say::Value(self.values[*key]),
            Ask::Command {
                guards,
                changes,
                shown,
            } => {
                let succeeded = guards.iter().all(|(key, value)| self.values[*key] == *value);
                for (key, value) in changes.iter().filter(|_| succeeded) {
                    self.values[*key] = *value;
                }
                match shown {
                    Form::Put | Form::Delete => Say::Done,
                    Form::Cas | Form::Command => Say::Won(succeeded),
                }
            }
            Ask::Range { from, to, limit } => {
                let all = (*from..*to).filter(|key| self.values[*key] != NONE);
                let mut entries: Vec<(usize, u8)> = all.map(|key| (key, self.values[key])).collect();
                let most = limit.unwrap_or(KEYS);
                let more = entries.len() > most;
                entries.truncate(most);
                Say::Entries(entries, more)
            }
            Ask::Add(key, element) => {
                self.sets[*key] |= 1 << element;
                Say::Done
            }
            Ask::Members(key) => Say::Elements(
                (0..16)
                    .filter(|element| self.sets[*key] & 1 << element != 0)
                    .collect(),
            ),
            Ask::Append(key, element) => {
                self.lists[*key].push(*element);
                Say::Done
            }
            Ask::List(key) => Say::Elements(self.lists[*key].clone()),
        }
    }
}

/// Whether some order explains every answer: all are tried.
fn has_order(ops: &[Op], done: u32, state: &State) -> bool {
    let open = |at: usize| done & 1 << at == 0 && ops[at].fate != Fate::Failed;
    let due = (0..ops.len()).filter(|at| open(*at) && ops[*at].fate == Fate::Answered);
    let Some(first) = due.map(|at| ops[at].returned).min() else {
        return true;
    };
    (0..ops.len()).any(|at| {
        let op = &ops[at];
        if !open(at) || op.invoke > first {
            return false;
        }
        let mut after = state.clone();
        let say = after.run(&op.ask);
        if op.fate == Fate::Answered && say != op.say {
            return false;
        }
        has_order(ops, done | 1 << at, &after)
    })
}

struct Draw<'a> {
    rng: &'a mut Rng,
    model: Model,
    keys: u64,
    values: u64,
    /// The value that only this operation writes, where values are unique.
    own: Option<u8>,
}

impl Draw<'_> {
    fn key(&mut self) -> usize {
        self.rng.below(self.keys) as usize
    }

    fn value(&mut self) -> u8 {
        let any = 1 + self.rng.below(self.values) as u8;
        self.own.unwrap_or(any)
    }

    fn seen(&mut self) -> u8 {
        self.rng.below(self.values + 1) as u8
    }

    fn put(&mut self) -> Ask {
        let changes = vec![(self.key(), self.value())];
        let (guards, shown) = (Vec::new(), Form::Put);
        Ask::Command {
            guards,
            changes,
            shown,
        }
    }

    fn cas(&mut self) -> Ask {
        let key = self.key();
        let removes = self.model != Model::CasRegister && self.rng.below(4) == 0;
        let changes = vec![(key, if removes { NONE } else { self.value() })];
        let (guards, shown) = (vec![(key, self.seen())], Form::Cas);
        Ask::Command {
            guards,
            changes,
            shown,
        }
    }

    fn delete(&mut self) -> Ask {
        let (guards, changes, shown) = (Vec::new(), vec![(self.key(), NONE)], Form::Delete);
        Ask::Command {
            guards,
            changes,
            shown,
        }
    }

    /// With any number of guards and changes, also none.
    fn command(&mut self) -> Ask {
        let own = self.key();
        let is_wide = self.model == Model::KeyValue;
        let pairs = |draw: &mut Self, most: u64, writes: bool| -> Vec<(usize, u8)> {
            let count = draw.rng.below(most + 1);
            (0..count)
                .map(|_| {
                    let key = if is_wide { draw.key() } else { own };
                    let value = match writes {
                        true if draw.rng.below(4) > 0 => draw.value(),
                        true => NONE,
                        false => draw.seen(),
                    };
                    (key, value)
                })
                .collect()
        };
        let guards = pairs(self, 2, false);
        let mut changes = pairs(self, 2, true);
        if !is_wide && guards.is_empty() && changes.is_empty() {
            changes.push((own, self.value()));
        }
        let shown = Form::Command;
        Ask::Command {
            guards,
            changes,
            shown,
        }
    }

    fn ask(&mut self) -> Ask {
        let key = self.key();
        match (self.model, self.rng.below(10)) {
            (Model::Set, 0..5) => Ask::Add(key, self.value()),
            (Model::Set, _) => Ask::Members(key),
            (Model::List, 0..5) => Ask::Append(key, self.value()),
            (Model::List, _) => Ask::List(key),
            (_, 0..3) => self.put(),
            (Model::CasRegister | Model::PerKey | Model::KeyValue, 3..5) => self.cas(),
            (Model::PerKey | Model::KeyValue, 5) => self.delete(),
            (Model::PerKey | Model::KeyValue, 6) => self.command(),
            (Model::KeyValue, 7) => Ask::Range {
                from: self.rng.below(2) as usize,
                to: 1 + self.rng.below(KEYS as u64) as usize,
                limit: (self.rng.below(2) == 0).then_some(1),
            },
            _ => Ask::Get(key),
        }
    }

    /// Some answer of the right kind, right or not.
    fn say(&mut self, ask: &Ask) -> Say {
        match ask {
            Ask::Get(_) => Say::Value(self.seen()),
            Ask::Command { shown, .. } => match shown {
                Form::Put | Form::Delete => Say::Done,
                Form::Cas | Form::Command => Say::Won(self.rng.below(2) == 0),
            },
            Ask::Range { from, to, limit } => {
                let mut entries: Vec<(usize, u8)> = (*from..*to).map(|key| (key, self.seen())).collect();
                entries.retain(|(_, value)| *value != NONE);
                entries.truncate(limit.unwrap_or(KEYS));
                let more = limit.is_some_and(|limit| limit == entries.len()) && self.rng.below(2) == 0;
                Say::Entries(entries, more)
            }
            Ask::Add(..) | Ask::Append(..) => Say::Done,
            Ask::Members(_) => {
                let mut elements: Vec<u8> = (1..=self.values as u8).collect();
                elements.retain(|_| self.rng.below(2) == 0);
                Say::Elements(elements)
            }
            Ask::List(_) => {
                let count = self.rng.below(4);
                Say::Elements(
                    (0..count)
                        .map(|_| 1 + self.rng.below(self.values) as u8)
                        .collect(),
                )
            }
        }
    }
}

/// A random history: answers of a correct object, of which some are then changed, or all drawn.
fn random(seed: u64, model: Model) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let count = 2 + rng.below(6) as usize;
    let (spread, length) = (4 + rng.below(40), 2 + rng.below(16));
    let is_unique = rng.below(3) == 0;
    let keys = match model {
        Model::KeyValue => 1 + rng.below(KEYS as u64),
        _ => 1 + rng.below(2),
    };
    let unknown = [5, 15, 40][rng.below(3) as usize];
    let wrong = [0, 10, 100][rng.below(3) as usize];
    let values = if is_unique { count as u64 } else { 1 + rng.below(3) };
    let mut ops: Vec<Op> = (0..count)
        .map(|number| {
            let invoke = rng.below(spread);
            let returned = invoke + rng.below(length);
            let mut draw = Draw {
                rng: &mut rng,
                model,
                keys,
                values,
                own: is_unique.then_some(number as u8 + 1),
            };
            let ask = draw.ask();
            let say = draw.say(&ask);
            let fate = match rng.below(100) {
                dice if dice < unknown => Fate::Unknown,
                dice if dice < unknown + 5 => Fate::Failed,
                _ => Fate::Answered,
            };
            Op {
                invoke,
                returned,
                fate,
                ask,
                say,
            }
        })
        .collect();
    // In the order of an instant of each interval; of an unknown one also later.
    let mut instants: Vec<(u64, usize)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let late = if op.fate == Fate::Unknown { 30 } else { 0 };
        instants.push((op.invoke + rng.below(op.returned - op.invoke + 1 + late), at));
    }
    instants.sort_unstable();
    let mut state = State::default();
    for (_, at) in instants {
        if ops[at].fate == Fate::Failed || ops[at].fate == Fate::Unknown && rng.below(2) == 0 {
            continue;
        }
        let say = state.run(&ops[at].ask);
        if rng.below(100) >= wrong {
            ops[at].say = say;
        }
    }
    ops
}

fn key(number: usize) -> String {
    format!("k{number}")
}

fn value(number: u8) -> Option<String> {
    (number != NONE).then(|| number.to_string())
}

fn call(ask: &Ask) -> Call {
    let text = |number: u8| number.to_string();
    match ask {
        Ask::Get(at) => Call::Get { key: key(*at) },
        Ask::Command {
            guards,
            changes,
            shown,
        } => match (shown, &guards[..], &changes[..]) {
            (Form::Put, [], [(at, written)]) => Call::Put {
                key: key(*at),
                value: text(*written),
            },
            (Form::Delete, [], [(at, _)]) => Call::Delete { key: key(*at) },
            (Form::Cas, [(at, expected)], [(_, written)]) => Call::Cas {
                key: key(*at),
                expected: value(*expected),
                value: value(*written),
            },
            _ => Call::Command {
                guards: guards
                    .iter()
                    .map(|(at, is)| Guard::Value {
                        key: key(*at),
                        is: value(*is),
                    })
                    .collect(),
                changes: changes
                    .iter()
                    .map(|(at, written)| Change {
                        key: key(*at),
                        value: value(*written),
                    })
                    .collect(),
            },
        },
        Ask::Range { from, to, limit } => Call::Range {
            start: key(*from),
            end: Some(key(*to)),
            limit: limit.map(|limit| limit as u32),
        },
        Ask::Add(at, element) => Call::Add {
            key: key(*at),
            element: text(*element),
        },
        Ask::Members(at) => Call::Members { key: key(*at) },
        Ask::Append(at, element) => Call::Append {
            key: key(*at),
            element: text(*element),
        },
        Ask::List(at) => Call::List { key: key(*at) },
    }
}

fn answer(say: &Say) -> Answer {
    match say {
        Say::Value(found) => Answer::Value {
            value: value(*found),
            version: None,
            at: None,
        },
        Say::Won(succeeded) => Answer::Won {
            succeeded: *succeeded,
            version: None,
        },
        Say::Entries(entries, more) => Answer::Entries {
            entries: entries
                .iter()
                .map(|(at, found)| Entry {
                    key: key(*at),
                    value: found.to_string(),
                    version: None,
                })
                .collect(),
            more: *more,
            at: None,
        },
        Say::Elements(elements) => Answer::Elements {
            elements: elements.iter().map(u8::to_string).collect(),
        },
        Say::Done => Answer::Done { version: None },
    }
}

fn operations(ops: &[Op]) -> Vec<Operation> {
    let operation = |(at, op): (usize, &Op)| Operation {
        process: at as u64,
        invoke: op.invoke,
        returned: Some(op.returned),
        call: call(&op.ask),
        outcome: match op.fate {
            Fate::Answered => Outcome::Ok(answer(&op.say)),
            Fate::Failed => Outcome::Fail,
            Fate::Unknown => Outcome::Unknown,
        },
    };
    ops.iter().enumerate().map(operation).collect()
}

fn compare(model: Model) {
    let mut tally = Tally::default();
    for seed in seeds() {
        let ops = random(seed, model);
        let is_legal = has_order(&ops, 0, &State::default());
        let history = operations(&ops);
        let report = check(&history, model, Budget::default());
        let about = || format!("seed {seed} {model}: {:#?}\n{}", report.engines, dump(&history));
        let is_right = match &report.verdict {
            Verdict::Legal => is_legal,
            Verdict::Illegal(violation) => !is_legal && violation.rule != "engines-disagree",
            Verdict::Undecided { .. } => false,
        };
        assert!(
            is_right,
            "legal is {is_legal}, found {:?}; {}",
            report.verdict,
            about()
        );
        // Of several objects each has findings of its own, of which the worst is reported: never worse than the truth.
        for (engine, finding) in report.engines.iter().filter(|_| is_legal) {
            if let Finding::Verdict(verdict) = finding {
                assert!(verdict.is_legal(), "{engine}; {}", about());
            }
        }
        if is_legal {
            tally.legal += 1;
        } else {
            tally.illegal += 1;
        }
    }
    tally.finish(model.name());
}

#[test]
fn register_agrees_with_trying_every_order() {
    compare(Model::Register);
}

#[test]
fn cas_register_agrees_with_trying_every_order() {
    compare(Model::CasRegister);
}

#[test]
fn key_value_agrees_with_trying_every_order() {
    compare(Model::KeyValue);
}

#[test]
fn per_key_agrees_with_trying_every_order() {
    compare(Model::PerKey);
}

#[test]
fn set_agrees_with_trying_every_order() {
    compare(Model::Set);
}

#[test]
fn list_agrees_with_trying_every_order() {
    compare(Model::List);
}
