//! The table against what a reader of the data model would expect.

use super::*;
use crate::data::{Command, Value};
use crate::id::SessionId;
use crate::rng::Rng;
use crate::session::SESSION_RESULTS_MAX;
use crate::tests::caught;

fn op(seq: u64) -> OpId {
    OpId {
        session: SessionId::default(),
        seq,
    }
}

fn succeeded(effect: &Effect) -> bool {
    matches!(effect.result, Some(OpResult::Applied { succeeded: true, .. }))
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
        "a key that comes back is created again"
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
            succeeded: false,
            version: Version(2),
            found: Version(1)
        })
    );
    assert!(effect.changes.is_empty() && table.get(b"b").is_none());
    command.guards = vec![Guard::Version {
        key: "a".into(),
        is: Version(1),
    }];
    assert!(succeeded(&table.apply(op(3), &command, Version(3))));
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
    assert_eq!(copy.sessions(), table.sessions());
}

/// A table with many sessions, many results, keys and values of all sizes.
fn large(rng: &mut Rng) -> Table {
    let mut table = Table::default();
    let mut at = 0;
    for _ in 0..rng.below(300) {
        let session = SessionId {
            basis: Version(rng.below(u64::MAX)),
            nonce: rng.next_u64(),
        };
        let first = rng.below(u64::MAX - SESSION_RESULTS_MAX);
        for seq in first..first + rng.below(SESSION_RESULTS_MAX + 2) {
            at += 1 + rng.below(1000);
            let op = OpId { session, seq };
            if rng.below(20) == 0 {
                table.fence(op, Version(at));
            } else {
                // A guard that fails: a result, no key.
                let mut command = Command::put("", "");
                command.guards = vec![Guard::Version {
                    key: "a".into(),
                    is: Version(7),
                }];
                table.apply(op, &command, Version(at));
            }
        }
    }
    for index in 0..rng.below(500) {
        let most = *rng.pick(&[30, 3000, 100_000]).expect("a list");
        let value = vec![0; rng.below(most) as usize];
        at += 1;
        table.apply(op(index), &Command::put(format!("{index}"), value), Version(at));
    }
    at += 1;
    let longest = "k".repeat(crate::data::KEY_BYTES_MAX);
    let command = Command::put(longest.as_str(), vec![0; crate::data::VALUE_BYTES_MAX]);
    table.apply(op(1000), &command, Version(at));
    table
}

fn loaded(chunks: impl IntoIterator<Item = Vec<u8>>) -> Table {
    let mut loader = TableLoader::new(crate::session::SESSIONS_MAX);
    for chunk in chunks {
        loader.add(&chunk).expect("a chunk that was written is read");
    }
    loader.finish().expect("a head")
}

/// The whole session record was one chunk, of any size, which decoders then refused.
#[test]
fn c1_every_chunk_of_a_large_table_is_within_the_limit_and_makes_an_equal_table() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let table = large(&mut rng);
        let chunk_bytes = *rng.pick(&[1, 1000, CHUNK_BYTES, usize::MAX]).expect("a list");
        let chunks: Vec<_> = table.chunks(chunk_bytes).collect();
        let closed_at = chunk_bytes.clamp(1, CHUNK_BYTES);
        for (index, chunk) in chunks.iter().enumerate() {
            // The entry that closes a chunk goes in whole: a full session, or the longest key with the longest value.
            let entry_max = match chunk[0] {
                1 => 100 + crate::data::KEY_BYTES_MAX + crate::data::VALUE_BYTES_MAX,
                _ => 100 + 33 * SESSION_RESULTS_MAX as usize,
            };
            let limit = 2 * closed_at + entry_max;
            assert!(
                chunk.len() <= limit,
                "seed {seed}, chunk {index}: {} bytes",
                chunk.len()
            );
            assert_eq!(check_chunk(chunk), Ok(()), "seed {seed}, chunk {index}");
        }
        let copy = loaded(chunks);
        assert_eq!(copy.digest(), table.digest(), "seed {seed}");
        assert_eq!(
            (copy.version(), copy.sessions()),
            (table.version(), table.sessions()),
            "seed {seed}"
        );
    }
}

#[test]
fn c1_a_full_session_record_is_many_chunks_and_less_than_half_as_large() {
    let mut table = Table::default();
    for at in 0..200 * SESSION_RESULTS_MAX {
        let (session, seq) = (at % 200, 1 + at / 200);
        let session = SessionId {
            basis: Version(1_000_000),
            nonce: u64::MAX - session,
        };
        table.apply(OpId { session, seq }, &Command::delete("a"), Version(at + 1));
    }
    let chunks: Vec<_> = table.chunks(CHUNK_BYTES).collect();
    assert!(chunks.len() > 5);
    let largest = chunks.iter().map(Vec::len).max().unwrap_or(0);
    assert!(largest < 2 * CHUNK_BYTES, "{largest}");
    let whole = codec::encode(&WholeRecord::of(table.sessions())).len();
    let parts: usize = chunks.iter().map(Vec::len).sum();
    assert!(
        3 * whole > 11_000_000 && 2 * parts < whole,
        "{parts} bytes, as one chunk {whole}"
    );
}

/// The first format: `WholeHead` with all sessions, then entries.
#[test]
fn the_chunks_of_earlier_versions_are_read_and_the_bytes_of_chunks_are_kept() {
    let hex = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut table = Table::default();
    table.apply(op(1), &Command::put("a", "x"), Version(3));
    table.fence(op(2), Version(4));
    let old = codec::encode_vec(&TableChunk::WholeHead {
        version: table.version,
        sessions: WholeRecord::of(&table.sessions),
    });
    assert_eq!(hex(&old), "0004000100000400020000010001030000000201");
    let chunks: Vec<_> = table.chunks(CHUNK_BYTES).collect();
    let expected = ["020400", "03010000040002010001030002 01", "0101016101780303 00"];
    let expected: Vec<String> = expected.iter().map(|hex| hex.replace(' ', "")).collect();
    assert_eq!(
        chunks.iter().map(|chunk| hex(chunk)).collect::<Vec<_>>(),
        expected
    );
    let copy = loaded([old, chunks[2].clone()]);
    assert_eq!(
        (copy.digest(), copy.sessions()),
        (table.digest(), table.sessions())
    );
}

#[test]
fn the_check_sees_a_key_that_is_newer_than_its_table() {
    let mut table = Table::default();
    let effect = table.apply(op(1), &Command::put("a", "1"), Version(5));
    table.check(&effect.changes);
    table.map.get_mut(&Key::from("a")).expect("it was put").created = Version(6);
    assert!(caught(|| table.check(&[])).contains("created at v6 and modified at v5, the table is at v5"));
    table.version = Version(4);
    assert!(caught(|| table.check(&effect.changes)).contains("changed at the last position"));
}

#[test]
fn the_check_sees_a_change_that_did_not_happen() {
    let mut table = Table::default();
    let effect = table.apply(op(1), &Command::put("a", "1"), Version(5));
    table.map.remove(&Key::from("a"));
    assert!(caught(|| table.check(&effect.changes)).contains("is what the table holds"));
}

#[test]
fn a_chunk_with_a_key_that_is_newer_than_its_table_is_refused() {
    let mut table = Table::default();
    table.apply(op(1), &Command::put("a", "1"), Version(5));
    table.version = Version(4);
    let mut loader = TableLoader::new(8);
    let loaded: Result<Vec<()>, Corrupt> = table
        .chunks(CHUNK_BYTES)
        .map(|chunk| loader.add(&chunk))
        .collect();
    assert!(loaded.is_err_and(|corrupt| corrupt.0.contains("modified at v5, in a table at v4")));
}

#[test]
fn a_digest_is_that_of_what_the_table_holds() {
    let mut rng = Rng::new(7);
    let (mut table, mut seen) = (Table::default(), std::collections::BTreeMap::new());
    for seq in 1..=500 {
        let key = format!("k{}", rng.below(20));
        let command = match rng.below(4) {
            0 => Command::delete(key),
            _ => Command::put(key, format!("v{}", rng.below(9)).repeat(rng.below(90) as usize)),
        };
        table.apply(op(seq), &command, Version(seq));
        let mut loader = TableLoader::new(1);
        for chunk in table.chunks(64) {
            loader.add(&chunk).unwrap();
        }
        let copy = loader.finish().unwrap();
        assert_eq!(copy.digest(), table.digest());
        let entries: Vec<_> = table
            .map
            .iter()
            .map(|(key, state)| (key.clone(), state.clone()))
            .collect();
        let known = seen.entry(table.digest()).or_insert_with(|| entries.clone());
        assert_eq!(*known, entries, "equal digests of different tables");
    }
    assert!(seen.len() > 400, "{}", seen.len());
}

#[test]
fn a_digest_that_is_not_of_the_entries_is_noticed() {
    let mut table = Table::default();
    table.apply(op(1), &Command::put("a", "1"), Version(1));
    table.digest ^= 1;
    let why = caught(|| {
        table.apply(op(2), &Command::put("b", "1"), Version(2));
    });
    assert!(why.contains("the digest is that of the entries"), "{why}");
}
