//! Calls of a history as requests, and answers the other way.

use trilemma_check::history::{Answer, Call, Guard};
use trilemma_core::{Command, Key, KeyRange, Mutation, NodeId, Query, Reply, Value, Version};

pub(super) fn served_by(reply: Option<&Reply>) -> Option<NodeId> {
    match reply {
        Some(Reply::Write(Ok(receipt)) | Reply::Outcome(Ok(trilemma_core::Outcome::Applied(receipt)))) => {
            Some(receipt.served_by)
        }
        _ => None,
    }
}

pub(super) fn written(call: &Call, succeeded: bool, version: u64) -> Answer {
    let version = (version > 0).then_some(version);
    match call {
        Call::Put { .. } | Call::Delete { .. } => Answer::Done { version },
        _ => Answer::Won { succeeded, version },
    }
}

pub(super) fn command(call: &Call) -> Option<Command> {
    let value = |text: &Option<String>| text.as_ref().map(|text| Value::from(text.as_str()));
    Some(match call {
        Call::Put { key, value } => Command::put(key.as_str(), value.as_str()),
        Call::Delete { key } => Command::delete(key.as_str()),
        Call::Cas {
            key,
            expected,
            value: new,
        } => Command::compare_and_set(key.as_str(), value(expected), value(new)),
        Call::Command { guards, changes } => Command {
            guards: guards.iter().map(guard).collect(),
            mutations: changes
                .iter()
                .map(|change| {
                    let key = Key::from(change.key.as_str());
                    match value(&change.value) {
                        Some(value) => Mutation::Put {
                            key,
                            value,
                            lease: None,
                        },
                        None => Mutation::Delete { key },
                    }
                })
                .collect(),
        },
        _ => return None,
    })
}

fn guard(guard: &Guard) -> trilemma_core::Guard {
    match guard {
        Guard::Value { key, is } => trilemma_core::Guard::Value {
            key: key.as_str().into(),
            is: is.as_ref().map(|text| text.as_str().into()),
        },
        Guard::Version { key, is } => trilemma_core::Guard::Version {
            key: key.as_str().into(),
            is: Version(*is),
        },
    }
}

pub(super) fn query(call: &Call) -> Option<Query> {
    Some(match call {
        Call::Get { key } => Query::Get(key.as_str().into()),
        Call::Range { start, end, limit } => Query::Range {
            range: KeyRange {
                start: start.as_str().into(),
                end: end.as_ref().map(|end| end.as_str().into()),
            },
            limit: limit.unwrap_or(0),
        },
        _ => return None,
    })
}
