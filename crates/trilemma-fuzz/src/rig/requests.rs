//! Something that a client may ask.

use trilemma_core::{
    Attempt, Command, DataType, Guard, Key, KeyRange, Mutation, NodeId, OpId, Query, ReadLevel, ReadRequest,
    Request, SessionId, Update, Version,
};

use crate::source::Source;

pub(super) fn key(source: &mut Source<'_>) -> Key {
    const KEYS: [&str; 5] = ["a", "b", "c", "d/e", "\u{10ffff}"];
    if source.once_in(4) {
        // Many keys, so that what is sent in pages has some.
        return Key::from(format!("k{}", source.byte()));
    }
    Key::from(*source.pick(&KEYS))
}

/// Something that a client may ask. `count` numbers operations.
pub fn request(source: &mut Source<'_>, count: u64) -> Request {
    let session = SessionId {
        basis: Version(source.below(3) as u64),
        nonce: source.below(6) as u64,
    };
    let again = source.once_in(4);
    let op = OpId {
        session,
        seq: if again { 1 + count / 2 } else { 1 + count },
    };
    match source.below(8) {
        0..=4 => Request::Write {
            op,
            attempt: if again { Attempt::Retry } else { Attempt::First },
            command: command(source),
        },
        5 => Request::Outcome {
            op,
            command: source.once_in(2).then(|| command(source)),
        },
        _ => Request::Read(read(source)),
    }
}

fn read(source: &mut Source<'_>) -> ReadRequest {
    let query = match source.below(4) {
        0 => Query::Get(key(source)),
        1 => Query::Siblings(key(source)),
        2 => Query::Typed {
            key: key(source),
            of: *source.pick(&DataType::ALL),
            range: KeyRange::all(),
            limit: source.below(4) as u32,
        },
        _ => Query::Range {
            range: KeyRange {
                start: key(source),
                end: source.once_in(2).then(|| key(source)),
            },
            limit: source.below(4) as u32,
        },
    };
    let level = match source.below(4) {
        0 => None,
        1 => Some(ReadLevel::Linearizable),
        2 => Some(ReadLevel::Local),
        _ => Some(ReadLevel::MinVersion(Version(source.below(40) as u64))),
    };
    ReadRequest { query, level }
}

fn update(source: &mut Source<'_>) -> Update {
    let element = key(source);
    match source.below(9) {
        7 => Update::Set("v".into()),
        0 => Update::Add(source.below(9) as i64 - 4),
        1 => Update::Reset,
        2 => Update::Grant(source.below(9) as u64),
        3 => Update::Spend(source.below(9) as u64),
        4 => Update::Transfer {
            to: NodeId(source.below(5) as u32),
            amount: source.below(9) as u64,
        },
        5 => Update::Insert(element),
        6 => Update::Remove(element),
        _ => Update::Assign {
            field: element,
            value: "v".into(),
        },
    }
}

fn command(source: &mut Source<'_>) -> Command {
    let key = key(source);
    let value = vec![b'v'; *source.pick(&[0, 1, 5, 700])];
    match source.below(8) {
        6 => Command::update(key, update(source)),
        0..=2 => Command::put(key, value),
        3 => Command::delete(key),
        4 => Command::compare_and_set(key, source.once_in(2).then(|| "v".into()), Some(value.into())),
        _ => Command {
            guards: vec![Guard::Version {
                key: key.clone(),
                is: Version(source.below(20) as u64),
            }],
            mutations: vec![
                Mutation::Put {
                    key: self::key(source),
                    value: value.into(),
                    lease: None,
                },
                Mutation::Delete { key },
            ],
        },
    }
}
