//! The bytes on the wire and on disk, frozen: a change here breaks running clusters and stored data.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trilemma_core::session::OpResult;
use trilemma_core::{Incarnation, Key, NodeId, Version, Versioned, codec};

use super::harness::op_of;
use crate::message::{Answer, Ask, ChosenValue, ITEMS_MAX, Listed, Message, PAGE_MAX};
use crate::record::{AcceptedRecord, ChosenRecord, Record};
use crate::register::{Change, FLOORS_MAX, Floor, Keep, Proposed, RECENT_MAX, Recent, Register};
use crate::{Ballot, checkpoint::Chunk, checkpoint::KeyStateEntry, checkpoint::LearnedEntry};

fn ballot(counter: u64) -> Ballot {
    Ballot {
        counter,
        node: NodeId(2),
        incarnation: Incarnation(3),
    }
}

fn register() -> Arc<Register> {
    let result = OpResult::Applied {
        succeeded: true,
        version: Version(5),
        found: Version(0),
    };
    Arc::new(Register {
        version: Version(5),
        state: Some(Versioned {
            value: "v".into(),
            created: Version(4),
            modified: Version(5),
            lease: None,
        }),
        recent: vec![Recent {
            op: op_of(9, 1),
            result,
        }],
        floors: vec![Floor {
            session: op_of(8, 0).session,
            seq: 7,
        }],
        horizon: Some(Version(6)),
        proposers: vec![ballot(300)],
    })
}

fn key() -> Key {
    "k".into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `value` has exactly these bytes, and they mean exactly that value.
fn frozen<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, expected: &str) {
    let bytes = codec::encode(value);
    assert_eq!(hex(&bytes), expected, "{value:?}");
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
    for length in 0..bytes.len() {
        assert!(
            codec::decode::<T>(&bytes[..length]).is_err(),
            "a cut message decodes: {value:?}"
        );
    }
}

#[test]
fn registers_are_frozen() {
    frozen(
        &*register(),
        "05030176040500010009010001050001000807010601ac020203",
    );
    frozen(&Register::default(), "000200000000");
}

#[test]
fn asks_are_frozen() {
    let (key, register) = (key(), register());
    let ask = |ask| Message::Asks(vec![ask]);
    frozen(&Message::Asks(Vec::new()), "0000");
    frozen(
        &ask(Ask::Prepare {
            key: key.clone(),
            ballot: ballot(7),
        }),
        "000100016b070203",
    );
    frozen(
        &ask(Ask::Accept {
            key: key.clone(),
            ballot: ballot(7),
            register: Arc::clone(&register).into(),
            next: ballot(8),
        }),
        "000101016b07020305030176040500010009010001050001000807010601ac020203080203",
    );
    let change = Proposed::Change(Arc::new(Change {
        base: ballot(6),
        version: register.version,
        state: register.state.clone(),
        results: register.recent.clone(),
        keep: Keep {
            recent: 64,
            floors: 300,
        },
    }));
    frozen(
        &ask(Ask::Accept {
            key: key.clone(),
            ballot: ballot(7),
            register: change,
            next: ballot(8),
        }),
        "000101016b0702030504060203010176040500010009010001050040ac02080203",
    );
    frozen(
        &ask(Ask::Read {
            key: key.clone(),
            round: 9,
        }),
        "000102016b09",
    );
    frozen(
        &ask(Ask::Chosen {
            key,
            ballot: ballot(7),
        }),
        "000103016b070203",
    );
}

#[test]
fn answers_are_frozen() {
    let (key, register) = (key(), Arc::new(Register::default()));
    let answer = |answer| Message::Answers(vec![answer]);
    frozen(
        &answer(Answer::Promise {
            key: key.clone(),
            ballot: ballot(7),
            accepted: ballot(6),
            register: Arc::clone(&register),
        }),
        "010100016b070203060203000200000000",
    );
    frozen(
        &answer(Answer::Accepted {
            key: key.clone(),
            ballot: ballot(7),
            promised: ballot(8),
        }),
        "010101016b070203080203",
    );
    frozen(
        &answer(Answer::Refused {
            key: key.clone(),
            ballot: ballot(7),
            seen: ballot(9),
        }),
        "010102016b070203090203",
    );
    frozen(
        &answer(Answer::Held {
            key: key.clone(),
            round: 9,
            accepted: ballot(6),
            register,
        }),
        "010103016b09060203000200000000",
    );
    frozen(
        &answer(Answer::Lacks {
            key,
            ballot: ballot(7),
        }),
        "010104016b070203",
    );
}

#[test]
fn anti_entropy_is_frozen() {
    let key = key();
    frozen(
        &Message::Digest {
            buckets: vec![1, 300],
        },
        "020201ac02",
    );
    frozen(
        &Message::Listing {
            bucket: 5,
            after: "a".into(),
            entries: vec![Listed {
                key: key.clone(),
                ballot: ballot(7),
                digest: 9,
            }],
            more: true,
        },
        "0305016101016b0702030901",
    );
    frozen(
        &Message::NextPage {
            bucket: 5,
            after: key.clone(),
        },
        "0405016b",
    );
    frozen(
        &Message::Fetch {
            keys: vec![key.clone()],
        },
        "0501016b",
    );
    let item = ChosenValue {
        key,
        ballot: ballot(7),
        register: Arc::new(Register::default()),
    };
    frozen(
        &Message::Values { items: vec![item] },
        "0601016b070203000200000000",
    );
}

#[test]
fn records_are_frozen() {
    let register = Arc::new(Register::default());
    let accepted = AcceptedRecord {
        key: key(),
        ballot: ballot(7),
        promised: ballot(8),
        register: Arc::clone(&register).into(),
    };
    let chosen = |register| ChosenRecord {
        key: key(),
        ballot: ballot(7),
        register,
    };
    let record = Record {
        promised: vec![(key(), ballot(9))],
        accepted: vec![accepted],
        chosen: vec![chosen(None), chosen(Some(register))],
    };
    frozen(
        &record,
        "01016b09020301016b07020308020300020000000002016b07020300016b07020301000200000000",
    );
    frozen(&Record::default(), "000000");
}

#[test]
fn checkpoints_are_frozen() {
    let key_state = KeyStateEntry {
        key: key(),
        promised: ballot(8),
        accepted: ballot(7),
        register: Arc::new(Register::default()),
    };
    let learned = LearnedEntry {
        key: key(),
        ballot: ballot(7),
        register: None,
    };
    assert_eq!(
        hex(&codec::encode(&Chunk::KeyStates(vec![key_state]))),
        "0001016b080203070203000200000000"
    );
    assert_eq!(
        hex(&codec::encode(&Chunk::Learned(vec![learned]))),
        "0101016b07020300"
    );
}

/// No list of a message is longer than its limit, whatever a peer sends.
#[test]
fn lists_are_bounded() {
    let read = |round| Ask::Read { key: key(), round };
    let asks = |count: usize| codec::encode(&Message::Asks((0..count as u64).map(read).collect()));
    assert!(codec::decode::<Message>(&asks(ITEMS_MAX)).is_ok());
    assert!(codec::decode::<Message>(&asks(ITEMS_MAX + 1)).is_err());
    let fetch = |count: usize| {
        codec::encode(&Message::Fetch {
            keys: vec![key(); count],
        })
    };
    assert!(codec::decode::<Message>(&fetch(PAGE_MAX)).is_ok());
    assert!(codec::decode::<Message>(&fetch(PAGE_MAX + 1)).is_err());
    let digest = |count: usize| {
        codec::encode(&Message::Digest {
            buckets: vec![0; count],
        })
    };
    assert!(codec::decode::<Message>(&digest(256)).is_ok());
    assert!(codec::decode::<Message>(&digest(257)).is_err());
    let recent = Recent {
        op: op_of(1, 1),
        result: OpResult::Fenced,
    };
    let floor = |client: usize| Floor {
        session: op_of(client as u64, 1).session,
        seq: 1,
    };
    let holds = |recents: usize, floors: usize| {
        let register = Register {
            recent: vec![recent; recents],
            floors: (0..floors).map(floor).collect(),
            ..Register::default()
        };
        codec::decode::<Register>(&codec::encode(&register)).is_ok()
    };
    assert!(holds(RECENT_MAX, FLOORS_MAX));
    assert!(!holds(RECENT_MAX + 1, 0));
    assert!(!holds(0, FLOORS_MAX + 1));
    let disordered = Register {
        floors: [2, 1].map(floor).to_vec(),
        ..Register::default()
    };
    assert!(codec::decode::<Register>(&codec::encode(&disordered)).is_err());
}

/// Registers as they were stored before they had floors. What they have dropped counts as forgotten for all sessions of
/// that time.
#[test]
fn former_registers_are_read() {
    let read = |hex: &str| -> Register {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hexadecimal");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        codec::decode(&bytes).expect("it is read")
    };
    assert_eq!(read("000000000000000000"), Register::default());
    let with_value = read("050101760405000100090100010500ac02020300000001ac020203010009020106");
    let fence = Recent {
        op: op_of(9, 2),
        result: OpResult::Fenced,
    };
    let mut expected = (*register()).clone();
    expected.recent.insert(0, fence);
    expected.floors.clear();
    assert_eq!(with_value, expected);
    // The same, but a result under ballot 7 was dropped.
    let dropped = read("050101760405000100090100010500ac02020307020301ac020203010009020106");
    assert_eq!(dropped.horizon, Some(Version(300)));
}
