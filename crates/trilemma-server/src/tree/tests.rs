//! Round trips: random trees in every format, planted difficulties, and the loader's difference.

use std::collections::BTreeMap;

use trilemma::Value;

use super::scalar::encode;
use super::*;

mod formats;

/// Seeded numbers (splitmix64): a failure prints its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn text(&mut self) -> String {
        const TRICKY: &[&str] = &[
            "",
            "null",
            "true",
            "5",
            "-0",
            "-0.0",
            "1e3",
            "1e300",
            "{}",
            "[]",
            "\"5\"",
            "\"",
            "!date 1979-05-27",
            "!x",
            "~",
            "#0",
            "a/b",
            "a.b",
            "yes",
            "no",
            "on",
            "0x1f",
            "007",
            "1_000",
            "2001-12-14",
            ".inf",
            "NaN",
            " lead",
            "trail ",
            "a: b",
            "- a",
            "# c",
            "a #b",
            "$HOME",
            "it's",
            "\\",
            "line\nbreak",
            "tab\there",
            "\u{1F980}",
            "grüße",
            "=",
            "<<",
            "*a",
            "&a",
            "!",
            "|",
            ">",
            "%",
            "@",
            "`",
            "---",
            "...",
            "\r\n",
            "\u{7f}",
            "\u{85}",
            "\u{feff}",
            "\u{2028}",
            "'",
            "''",
            "\"\"",
            "?",
            ":",
            ",",
            "{",
            "}",
            "12:30:45",
            "0o17",
            "+1",
            "1.",
            ".5",
            "~1",
            "~2",
            "~3",
            "~4",
            "\n",
            "a\n\nb\n",
            "  \n x",
            "null ",
            "Null",
            "0b1",
            "1e",
            "!float nan",
            "\u{0}",
        ];
        match self.below(3) {
            0 => {
                let length = self.below(12);
                (0..length)
                    .map(|_| char::from(b' ' + self.below(95) as u8))
                    .collect()
            }
            1 => {
                let length = 1 + self.below(8);
                (0..length)
                    .map(|_| char::from(b'a' + self.below(26) as u8))
                    .collect()
            }
            _ => TRICKY[self.below(TRICKY.len() as u64) as usize].into(),
        }
    }

    fn leaf(&mut self, format: Format) -> Tree {
        match self.below(9) {
            0 if format != Format::Toml => Tree::Null,
            1 => Tree::Bool(self.below(2) == 0),
            2 => Tree::Integer(i128::from(self.next() as i64 >> self.below(64))),
            3 if matches!(format, Format::Json | Format::Yaml) => Tree::Integer(self.next().into()),
            4 => match f64::from_bits(self.next()) {
                value if value.is_finite() || matches!(format, Format::Toml | Format::Yaml) => {
                    Tree::Float(value)
                }
                _ => Tree::Float(-0.0),
            },
            5 => Tree::Float((self.below(2000) as f64 - 1000.0) / 8.0),
            6 if format == Format::Toml => {
                const DATES: &[&str] = &[
                    "1979-05-27T07:32:00Z",
                    "1979-05-27T00:32:00.999999-07:00",
                    "1979-05-27",
                    "07:32:00",
                ];
                Tree::Date(DATES[self.below(4) as usize].into())
            }
            _ => Tree::Text(self.text()),
        }
    }

    fn tree(&mut self, format: Format, depth: u64) -> Tree {
        match self.below(4) {
            0 if depth > 0 => {
                let length = if self.below(10) == 0 {
                    12 + self.below(100)
                } else {
                    self.below(4)
                };
                Tree::Array((0..length).map(|_| self.tree(format, depth - 1)).collect())
            }
            1 if depth > 0 => self.map(format, depth),
            _ => self.leaf(format),
        }
    }

    fn map(&mut self, format: Format, depth: u64) -> Tree {
        let length = self.below(6);
        Tree::Map(
            (0..length)
                .map(|_| (self.text(), self.tree(format, depth - 1)))
                .collect(),
        )
    }

    fn document(&mut self, format: Format) -> Tree {
        match format {
            Format::Toml => self.map(format, 4),
            Format::Json | Format::Yaml => self.tree(format, 4),
            Format::Env => {
                let length = self.below(8);
                let member = |random: &mut Self| (format!("N_{}", random.below(100)), decode(&random.text()));
                Tree::Map((0..length).map(|_| member(self)).collect())
            }
        }
    }
}

fn map_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, text)| ((*key).into(), (*text).into()))
        .collect()
}

fn stored(tree: &Tree, prefix: &Prefix) -> BTreeMap<String, String> {
    entries(tree, prefix).expect("the tree can be stored")
}

fn values(entries: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let value = |(key, text): (&String, &String)| (key.clone(), Value::from(text.as_str()));
    entries.iter().map(value).collect()
}

fn restored(entries: &BTreeMap<String, String>, prefix: &Prefix) -> Option<Tree> {
    let pairs = entries.iter().map(|(key, text)| (key.as_str(), text.as_str()));
    tree_of(pairs, prefix).expect("the entries form a tree")
}

#[test]
fn every_text_means_one_leaf_and_every_leaf_has_one_text() {
    let mut random = Random(1);
    for round in 0..20_000 {
        let text = random.text();
        assert_eq!(encode(&decode(&text)), text, "round {round}");
        for format in Format::ALL {
            let leaf = random.leaf(format);
            assert_eq!(decode(&encode(&leaf)), leaf, "round {round}");
        }
    }
    for (text, leaf) in [
        ("5", Tree::Integer(5)),
        ("\"5\"", Tree::Text("5".into())),
        ("\"\\\"5\\\"\"", Tree::Text("\"5\"".into())),
        ("\"plain\"", Tree::Text("\"plain\"".into())),
        ("007", Tree::Text("007".into())),
        ("1.50", Tree::Text("1.50".into())),
        ("-0", Tree::Text("-0".into())),
        ("-0.0", Tree::Float(-0.0)),
        ("18446744073709551615", Tree::Integer(u64::MAX.into())),
        ("!date 1979-05-27", Tree::Date("1979-05-27".into())),
        ("!date tomorrow", Tree::Text("!date tomorrow".into())),
        ("", Tree::Text(String::new())),
    ] {
        assert_eq!(decode(text), leaf);
        assert_eq!(encode(&leaf), text);
    }
}

#[test]
fn random_documents_round_trip_through_entries_and_through_each_format() {
    for format in Format::ALL {
        for seed in 0..800 {
            let tree = Random(seed).document(format);
            let prefix = Prefix::new(if seed % 2 == 0 { "" } else { "app/settings/" });
            let entries = stored(&tree, &prefix);
            assert!(
                entries
                    .keys()
                    .all(|key| !key.is_empty() && key.starts_with(prefix.as_str()))
            );
            assert_eq!(
                restored(&entries, &prefix).as_ref(),
                Some(&tree),
                "{format:?} seed {seed}: entries"
            );
            let text = emit(format, &tree).expect("the format holds the tree");
            let parsed = parse(format, &text, "test");
            assert_eq!(parsed.as_ref(), Ok(&tree), "{format:?} seed {seed}:\n{text}");
        }
    }
}

#[test]
fn the_order_of_keys_is_the_order_of_elements() {
    let tree = Tree::Array((0..1234).map(Tree::Integer).collect());
    let texts: Vec<String> = stored(&tree, &Prefix::default()).into_values().collect();
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(index, text)| *text == index.to_string())
    );
    let keys: Vec<String> = stored(&tree, &Prefix::default()).into_keys().collect();
    assert_eq!((&*keys[9], &*keys[10], &*keys[100]), ("#9", "#_10", "#__100"));
}

#[test]
fn names_are_escaped_and_dots_mean_nothing() {
    let text = r##"{"a.b": {"x/y": 1, "~": 2, "#3": 3, "": 4, "#": 5}}"##;
    let tree = parse(Format::Json, text, "test").unwrap();
    let expected = map_of(&[
        ("a.b/x~1y", "1"),
        ("a.b/~0", "2"),
        ("a.b/~23", "3"),
        ("a.b/~3", "4"),
        ("a.b/~2", "5"),
    ]);
    assert_eq!(stored(&tree, &Prefix::default()), expected);
}

#[test]
fn a_loaded_difference_always_leaves_a_tree_and_pruned_leaves_the_files() {
    for seed in 0..1500 {
        let mut random = Random(seed);
        let (before, file) = (random.document(Format::Json), random.document(Format::Json));
        let prefix = Prefix::new("p");
        let wanted = stored(&file, &prefix);
        for prune in [false, true] {
            let mut entries = stored(&before, &prefix);
            let found = diff(&values(&entries), &wanted, &prefix, prune);
            for (key, _) in &found.removed {
                entries.remove(key).expect("removed keys exist");
            }
            let puts = found.added.iter().map(|(key, text)| (key, text));
            for (key, text) in puts.chain(found.changed.iter().map(|(key, _, new)| (key, new))) {
                entries.insert(key.clone(), text.clone());
            }
            let after = restored(&entries, &prefix);
            if prune {
                assert_eq!(after.as_ref(), Some(&file), "seed {seed}");
            } else {
                assert!(after.is_some(), "seed {seed}");
            }
            assert!(
                diff(&values(&entries), &wanted, &prefix, prune).is_empty(),
                "seed {seed}: a second load does nothing"
            );
        }
    }
}

#[test]
fn a_difference_tells_added_changed_removed_and_kept() {
    let prefix = Prefix::default();
    let before = map_of(&[
        ("a/b", "1"),
        ("gone", "x"),
        ("list/#0", "a"),
        ("list/#1", "b"),
        ("same", "s"),
        ("v", "1"),
    ]);
    let wanted = map_of(&[
        ("a/b", "2"),
        ("list/#0", "a"),
        ("new", "n"),
        ("same", "s"),
        ("v/w", "1"),
    ]);
    let before = values(&before);
    let found = diff(&before, &wanted, &prefix, false);
    assert_eq!(
        found.added,
        [("new".into(), "n".into()), ("v/w".into(), "1".into())]
    );
    assert_eq!(found.changed, [("a/b".into(), "1".into(), "2".into())]);
    assert_eq!(
        found.removed,
        [
            ("list/#1".into(), Value::from("b")),
            ("v".into(), Value::from("1"))
        ]
    );
    assert_eq!(found.kept, ["gone"]);
    assert_eq!(found.unchanged, 2);
    assert_eq!(diff(&before, &wanted, &prefix, true).removed.len(), 3);
}

#[test]
fn what_is_stored_is_compared_as_bytes() {
    let wanted = map_of(&[("a", "\\xff"), ("b", "\u{fffd}"), ("c", "")]);
    let bytes = |bytes: &'static [u8]| Value::from(bytes);
    let stored = BTreeMap::from([
        ("a".to_owned(), bytes(b"\xff")),
        ("b".to_owned(), bytes(b"\xff")),
        ("c".to_owned(), bytes(b"")),
    ]);
    let found = diff(&stored, &wanted, &Prefix::default(), false);
    assert_eq!(found.unchanged, 1, "{found:?}");
    assert_eq!(
        found.changed,
        [
            ("a".into(), bytes(b"\xff"), "\\xff".into()),
            ("b".into(), bytes(b"\xff"), "\u{fffd}".into())
        ]
    );
}

#[test]
fn what_a_format_cannot_hold_is_refused_with_the_path() {
    let cases = [
        (Format::Toml, r#"{"a": {"b": null}}"#, "a/b"),
        (Format::Toml, r#"{"a": 18446744073709551615}"#, "a"),
        (Format::Toml, "[1]", "the root"),
        (Format::Env, r#"{"a": {"b": 1}}"#, "a"),
        (Format::Env, r#"{"a b": 1}"#, "a b"),
    ];
    for (format, text, expected) in cases {
        let tree = parse(Format::Json, text, "test").unwrap();
        match emit(format, &tree) {
            Err(TreeError::Value { path, .. }) => assert_eq!(path, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
    let tree = Tree::Map(BTreeMap::from([("x".into(), Tree::Float(f64::NAN))]));
    assert!(emit(Format::Json, &tree).is_err());
}

#[test]
fn stored_entries_that_form_no_tree_are_named() {
    for pairs in [
        &[("a", "1"), ("a/b", "2")][..],
        &[("a/#0", "1"), ("a/b", "2")],
        &[("a/#0", "1"), ("a/#2", "2")],
        &[("a//b", "1")],
        &[("~4", "{}"), ("a", "1")],
    ] {
        let found = tree_of(pairs.iter().copied(), &Prefix::default());
        assert!(
            matches!(found, Err(TreeError::Stored { .. })),
            "{pairs:?}: {found:?}"
        );
    }
    assert_eq!(tree_of([], &Prefix::default()), Ok(None));
}

/// Whatever `load` may store, an export of the whole keyspace reads back.
#[test]
fn every_prefix_that_is_good_for_loading_is_part_of_a_tree() {
    let documents = [
        "{\"db\": {\"host\": \"h\"}}",
        "5",
        "{}",
        "[1, 2]",
        "\"text\"",
        "null",
    ];
    for text in [
        "",
        "app",
        "app/",
        "a/b",
        "a.b",
        "~3",
        "~0x",
        "~2#",
        "#0",
        "grün/x y",
    ] {
        let prefix = Prefix::for_load(text).expect(text);
        for document in documents {
            let tree = parse(Format::Json, document, "test").unwrap();
            let entries = stored(&tree, &prefix);
            assert_eq!(
                restored(&entries, &prefix).as_ref(),
                Some(&tree),
                "{text}: {document}"
            );
            let whole = restored(&entries, &Prefix::default());
            assert!(whole.is_some(), "{text}: {document}");
            assert_eq!(stored(&whole.unwrap(), &Prefix::default()).len(), entries.len());
        }
    }
    for text in [
        "/app", "//", "/", "a//b", "/a/b/", "~4", "a/~9", "~", "#x", "a/#", "#_1",
    ] {
        let refused = Prefix::for_load(text);
        let is_root = text.trim_matches('/').is_empty();
        assert!(
            is_root || matches!(refused, Err(TreeError::Value { .. })),
            "{text}: {refused:?}"
        );
        // What somebody else has stored there can be looked at.
        assert!(Prefix::new(text).as_str().starts_with(text.trim_end_matches('/')));
    }
}

#[test]
fn real_files_round_trip() {
    let samples = [
        (Format::Yaml, include_str!("samples/compose.yaml"), 35),
        (Format::Json, include_str!("samples/package.json"), 25),
        (Format::Env, include_str!("samples/app.env"), 9),
        (Format::Toml, include_str!("../../demo/shop.toml"), 100),
    ];
    for (format, text, keys_min) in samples {
        let tree = parse(format, text, "sample").expect("a real file");
        let prefix = Prefix::new("sample");
        let entries = stored(&tree, &prefix);
        assert!(entries.len() >= keys_min, "{format:?}: {} keys", entries.len());
        let exported = restored(&entries, &prefix).expect("entries");
        assert_eq!(exported, tree, "{format:?}");
        let written = emit(format, &exported).expect("the format it came from");
        assert_eq!(
            parse(format, &written, "export"),
            Ok(tree),
            "{format:?}:\n{written}"
        );
    }
}

#[test]
fn a_sample_is_stored_as_people_expect() {
    let tree = parse(Format::Yaml, include_str!("samples/compose.yaml"), "sample").unwrap();
    let entries = stored(&tree, &Prefix::new("compose"));
    for (key, text) in [
        ("compose/services/web/ports/#0", "443:8443"),
        ("compose/services/web/environment/DEBUG", "\"false\""),
        (
            "compose/services/db/environment/POSTGRES_PASSWORD_FILE",
            "/run/secrets/db",
        ),
        ("compose/services/db/shm_size", "268435456"),
        ("compose/services/db/logging/options/max-size", "10m"),
        ("compose/volumes/db", "{}"),
        ("compose/volumes/cache", "null"),
    ] {
        assert_eq!(entries.get(key).map(String::as_str), Some(text), "{key}");
    }
}
