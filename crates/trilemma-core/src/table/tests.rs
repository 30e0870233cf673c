//! The table against what a reader of the data model would expect.

use super::*;
use crate::data::Value;
use crate::id::SessionId;

fn op(seq: u64) -> OpId {
    OpId {
        session: SessionId::default(),
        seq,
    }
}

fn won(effect: &Effect) -> bool {
    matches!(effect.result, Some(OpResult::Applied { won: true, .. }))
}

#[test]
fn versions_tell_creation_from_change() {
    let mut table = Table::default();
    table.apply(op(1), &Command::put("a", "1"), Version(1));
    table.apply(op(2), &Command::put("a", "2"), Version(2));
    let state = table.get(b"a").unwrap();
    assert_eq!((state.created, state.modified), (Version(1), Version(2)));
    table.apply(op(3), &Command::delete("a"), Version(3));
    assert!(table.get(b"a").is_none());
    table.apply(op(4), &Command::put("a", "3"), Version(4));
    assert_eq!(
        table.get(b"a").unwrap().created,
        Version(4),
        "a key that comes back is created anew"
    );
}

#[test]
fn a_batch_happens_wholly_or_not_at_all() {
    let mut table = Table::default();
    table.apply(op(1), &Command::put("a", "1"), Version(1));
    let mut command = Command::compare_and_set("a", Some(Value::from("wrong")), Some("2".into()));
    command.mutations.push(Mutation::Put {
        key: "b".into(),
        value: "2".into(),
        lease: None,
    });
    let effect = table.apply(op(2), &command, Version(2));
    assert_eq!(
        effect.result,
        Some(OpResult::Applied {
            won: false,
            version: Version(2),
            found: Version(1)
        })
    );
    assert!(effect.changes.is_empty() && table.get(b"b").is_none());
    command.guards = vec![Guard::Version {
        key: "a".into(),
        is: Version(1),
    }];
    assert!(won(&table.apply(op(3), &command, Version(3))));
    assert_eq!(table.get(b"b").unwrap().modified, Version(3));
}

#[test]
fn a_repeat_changes_nothing_and_a_fence_holds() {
    let mut table = Table::default();
    let first = table.apply(op(1), &Command::put("a", "1"), Version(1));
    table.apply(op(2), &Command::put("a", "2"), Version(2));
    let repeat = table.apply(op(1), &Command::put("a", "1"), Version(3));
    assert_eq!(repeat.result, first.result);
    assert!(repeat.changes.is_empty());
    assert_eq!(&table.get(b"a").unwrap().value[..], b"2");

    assert_eq!(table.fence(op(3), Version(4)), Some(OpResult::Fenced));
    assert_eq!(
        table.apply(op(3), &Command::put("a", "3"), Version(5)).result,
        Some(OpResult::Fenced)
    );
    assert_eq!(&table.get(b"a").unwrap().value[..], b"2");
    assert_eq!(table.fence(op(1), Version(6)), first.result);
}

#[test]
fn one_key_changed_twice_by_one_command_is_one_change() {
    let mut table = Table::default();
    let mut command = Command::put("a", "1");
    command.mutations.push(Mutation::Delete { key: "a".into() });
    let effect = table.apply(op(1), &command, Version(1));
    assert_eq!(
        effect.changes,
        vec![Change {
            key: "a".into(),
            now: None
        }]
    );
}

#[test]
fn ranges_are_half_open_and_reversed_ranges_are_empty() {
    let mut table = Table::default();
    for (index, key) in ["a", "a/1", "a/2", "b"].into_iter().enumerate() {
        table.apply(
            op(index as u64),
            &Command::put(key, "x"),
            Version(index as u64 + 1),
        );
    }
    let keys = |range: &KeyRange| {
        table
            .range(range)
            .map(|(key, _)| key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&KeyRange::prefix("a/")), ["a/1", "a/2"]);
    assert_eq!(
        keys(&KeyRange {
            start: "a/1".into(),
            end: Some("b".into())
        }),
        ["a/1", "a/2"]
    );
    assert_eq!(keys(&KeyRange::key(&"a".into())), ["a"]);
    assert!(
        keys(&KeyRange {
            start: "b".into(),
            end: Some("a".into())
        })
        .is_empty()
    );
    let (page, more) = table.query(&Query::Range {
        range: KeyRange::all(),
        limit: 3,
    });
    assert_eq!((page.len(), more), (3, true));
}

#[test]
fn chunks_rebuild_an_equal_table() {
    let mut table = Table::default();
    for index in 0..5000_u64 {
        let value = "x".repeat(index as usize % 300);
        table.apply(
            op(index),
            &Command::put(format!("key/{index}"), value),
            Version(index + 1),
        );
    }
    let mut loader = TableLoader::new(crate::session::SESSIONS_MAX);
    let chunks: Vec<_> = table.chunks(CHUNK_BYTES).collect();
    assert!(chunks.len() > 3, "the table is larger than one chunk");
    for chunk in &chunks {
        loader.add(chunk).unwrap();
    }
    let copy = loader.finish().unwrap();
    assert_eq!(
        (copy.digest(), copy.version(), copy.len()),
        (table.digest(), table.version(), table.len())
    );
    assert_eq!(copy.sessions().export(), table.sessions().export());
}
