//! Many clients of one register, some of which never hear what became of their operations.

use trilemma_check::history::{Answer, Call, Operation, Outcome};
use trilemma_check::model::Model;
use trilemma_core::Rng;

/// What a crowd does.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    pub(crate) operations: usize,
    pub(crate) clients: u64,
    /// Of a hundred operations, how many are never answered.
    pub(crate) unknown: u64,
    /// Distinct values; 0: every write has its own.
    pub(crate) values: u64,
}

const BASE: Shape = Shape {
    name: "unique values",
    model: Model::Register,
    operations: 10_000,
    clients: 50,
    unknown: 10,
    values: 0,
};

/// The shapes that are measured and checked.
pub(crate) const CROWDS: [Shape; 6] = [
    BASE,
    Shape {
        name: "a hundred values",
        values: 100,
        ..BASE
    },
    Shape {
        name: "five values",
        values: 5,
        ..BASE
    },
    Shape {
        name: "unique values, compare-and-set",
        model: Model::CasRegister,
        ..BASE
    },
    Shape {
        name: "a hundred values, compare-and-set",
        model: Model::CasRegister,
        values: 100,
        ..BASE
    },
    Shape {
        name: "five values, compare-and-set",
        model: Model::CasRegister,
        values: 5,
        ..BASE
    },
];

/// A legal history of one register, in the order in which its operations took effect.
pub(crate) fn crowd(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    let mut free: Vec<u64> = (0..shape.clients).map(|_| rng.below(1_000)).collect();
    // A client whose operation is never answered goes on under another number, as a new process.
    let mut names: Vec<u64> = (0..shape.clients).collect();
    let mut next_name = shape.clients;
    let mut slots: Vec<(u64, Operation)> = Vec::new();
    for number in 0..shape.operations {
        let client = rng.below(shape.clients) as usize;
        let invoke = free[client] + 1 + rng.below(500);
        let effect = invoke + 1 + rng.below(1_000);
        let returned = effect + 1 + rng.below(1_000);
        free[client] = returned;
        let is_unknown = rng.below(100) < shape.unknown;
        let key = String::from("r");
        let value = match shape.values {
            0 => format!("v{number}"),
            values => format!("v{}", rng.below(values)),
        };
        let call = match rng.below(100) {
            0..50 => Call::Get { key },
            50..75 if shape.model == Model::CasRegister => Call::Cas {
                key,
                expected: None,
                value: Some(value),
            },
            _ => Call::Put { key, value },
        };
        let operation = Operation {
            process: names[client],
            invoke,
            returned: (!is_unknown).then_some(returned),
            call,
            outcome: Outcome::Unknown,
        };
        if is_unknown {
            names[client] = next_name;
            next_name += 1;
        }
        // Half of the unknown ones never happen; the others may happen long after.
        let late = if is_unknown { rng.below(20_000) } else { 0 };
        let effect = if is_unknown && rng.below(2) == 0 {
            u64::MAX
        } else {
            effect + late
        };
        slots.push((effect, operation));
    }
    slots.sort_by_key(|(effect, _)| *effect);
    let mut held: Option<String> = None;
    for (effect, operation) in &mut slots {
        // What a compare-and-set expects is drawn when it runs: what is there, or something else.
        if let Call::Cas { expected, .. } = &mut operation.call {
            *expected = if rng.below(2) == 0 {
                held.clone()
            } else {
                Some("v0".into())
            };
        }
        if *effect == u64::MAX {
            continue;
        }
        let answer = run(&mut held, &operation.call);
        if operation.returned.is_some() {
            operation.outcome = Outcome::Ok(answer);
        }
    }
    slots.into_iter().map(|(_, operation)| operation).collect()
}

fn run(held: &mut Option<String>, call: &Call) -> Answer {
    match call {
        Call::Put { value, .. } => {
            *held = Some(value.clone());
            Answer::Done { version: None }
        }
        Call::Cas { expected, value, .. } => {
            let succeeded = held == expected;
            if succeeded {
                held.clone_from(value);
            }
            Answer::Won {
                succeeded,
                version: None,
            }
        }
        _ => Answer::Value {
            value: held.clone(),
            version: None,
            at: None,
        },
    }
}

/// Makes the history illegal: after everybody has stopped two reads, one after the other, find first one value that
/// only one write made, then another one, then the first again.
pub(crate) fn plant(history: &mut Vec<Operation>, seed: u64) {
    let mut rng = Rng::new(seed);
    let end = history
        .iter()
        .filter_map(|operation| operation.returned)
        .max()
        .unwrap_or(0);
    // Two writes of their own values in the middle of the history, answered, one after the other.
    let middle = end / 2 + rng.below(end / 4);
    let mut at = middle;
    let mut add = |history: &mut Vec<Operation>, call: Call, outcome: Outcome| {
        history.push(Operation {
            process: 1_000_000,
            invoke: at,
            returned: Some(at + 1),
            call,
            outcome,
        });
        at += 2;
    };
    let key = || String::from("r");
    for value in ["planted-1", "planted-2"] {
        let call = Call::Put {
            key: key(),
            value: value.into(),
        };
        add(history, call, Outcome::Ok(Answer::Done { version: None }));
    }
    let answer = Answer::Value {
        value: Some("planted-1".into()),
        version: None,
        at: None,
    };
    add(history, Call::Get { key: key() }, Outcome::Ok(answer));
}
