//! Configuration trees of the command line: files in four formats, entries of a keyspace.

use std::collections::BTreeMap;

use trilemma_fuzz::mutate::mutated;
use trilemma_fuzz::source::Source;

use crate::tree::{DEPTH_MAX, Format, Prefix, Tree, TreeError, emit, entries, parse, tree_of};

targets! {
    json(1500, 512) => file(Format::Json, &JSON);
    toml(1500, 512) => file(Format::Toml, &TOML);
    yaml(1500, 512) => file(Format::Yaml, &YAML);
    env(1500, 512) => file(Format::Env, &ENV);
    stored_entries(3000, 256) => stored_entries_of;
}

const JSON: [&str; 3] = [
    r#"{"a":{"b":[1,-2.5e300,null,true,"\u00e9\ud83d\ude00\n",{}],"":[],"~/#0":"5"},"n":18446744073709551615}"#,
    r#"[[[[[["deep"]]]]],0.1,1e-7,-0.0,123456789012345678901234567890]"#,
    "  \"text\"  ",
];
const TOML: [&str; 3] = [
    "a = 1\nb.c.d = [1979-05-27T07:32:00Z, 07:32:00]\n[t.'x y']\nf = inf\ng = -0.0\n[[l]]\nk = '''\ntext'''\n[[l]]\n",
    "x = {y = {z = [[], {}, \"\\u00e9\"]}}\nh = 0xdead_beef\n1979 = 1979-05-27\n",
    "[a.b]\nc = \"\"\"\\\n  long\"\"\"\n[a]\nd = nan\n",
];
const YAML: [&str; 5] = [
    "a:\n  b: [1, 2.5, ~, yes, \"\\x41\"]\n  c: |\n    text\n    more\nd: &x {k: v}\ne: *x\n",
    "- !!str 5\n- ? complex\n  : value\n- >-\n  folded\n  text\n- 0x1f\n- .inf\n- 2001-12-14\n",
    "--- # one\n'it''s': {<<: {a: 1}, b: [[[[]]]]}\n...\n",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "%YAML 1.2\n---\nkey: -0.0\n? - x\n: y\n",
];
const ENV: [&str; 2] = [
    "# comment\nA=1\nexport B = \"two\\n$A\" # tail\nC='raw $A'\nD=\n",
    "URL=https://x/?a=b#c\nM=\"line\nline\"\nE=a\\ b\n",
];

/// A text of a format: refused with line and column, or a tree that comes back from entries and from its own text.
fn file<const N: usize>(format: Format, samples: &'static [&'static str; N]) -> impl Fn(&[u8]) {
    move |input| {
        let source = &mut Source::new(input);
        let mut text = mutated(source, samples);
        if source.once_in(64) {
            // Nesting far beyond every limit: an error, not the end of the stack.
            let open = *source.pick(&[&b"["[..], b"{\"a\":", b"- ", b"a: {", b"[[", b"a=["]);
            text.extend(open.repeat(20_000));
        }
        let text = String::from_utf8_lossy(&text);
        match parse(format, &text, "file") {
            Ok(tree) => survives(format, &tree),
            Err(TreeError::Syntax { line, what, .. }) => {
                assert!(line <= text.lines().count() + 1, "line {line}: {what}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn survives(format: Format, tree: &Tree) {
    assert!(depth(tree) <= DEPTH_MAX + 1, "{} deep", depth(tree));
    match emit(format, tree) {
        Ok(text) => assert_eq!(
            parse(format, &text, "file").as_ref(),
            Ok(tree),
            "{format:?}:\n{text}"
        ),
        Err(error) => panic!("{format:?} holds what was read from it: {error}\n{tree:?}"),
    }
    let prefix = Prefix::new("p");
    // Keys have limits of their own, with errors.
    if let Ok(entries) = entries(tree, &prefix) {
        assert_eq!(restored(&entries, &prefix).as_ref(), Ok(&Some(tree.clone())));
    }
}

fn restored(entries: &BTreeMap<String, String>, prefix: &Prefix) -> Result<Option<Tree>, TreeError> {
    tree_of(
        entries.iter().map(|(key, text)| (key.as_str(), text.as_str())),
        prefix,
    )
}

fn depth(tree: &Tree) -> usize {
    1 + match tree {
        Tree::Array(elements) => elements.iter().map(depth).max().unwrap_or(0),
        Tree::Map(members) => members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Entries that applications wrote: no tree, or one that is stored as these entries.
fn stored_entries_of(input: &[u8]) {
    const KEYS: [&str; 13] = [
        "a", "a/b", "#0", "#1", "a/#0", "a/#_10", "~4", "a/~4", "~3", "~2x", "~0~1", "#__100", "",
    ];
    const TEXTS: [&str; 9] = [
        "1",
        "{}",
        "[]",
        "\"5\"",
        "!date 1979-05-27",
        "!float nan",
        "-0.0",
        "",
        "x",
    ];
    let source = &mut Source::new(input);
    let mut stored = BTreeMap::new();
    for _ in 0..source.below(6) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let key = if source.once_in(3) {
            mutated(source, &KEYS)
        } else {
            source.pick(&KEYS).as_bytes().to_vec()
        };
        let value = if source.once_in(3) {
            mutated(source, &TEXTS)
        } else {
            source.pick(&TEXTS).as_bytes().to_vec()
        };
        stored.insert(text(key), text(value));
    }
    let prefix = Prefix::new("");
    // A whole document that is one value, and was loaded below a longer prefix, is a value here.
    let of_this_tree = |key: &str| key.strip_suffix("/~4").unwrap_or(key).to_owned();
    let expected = stored
        .iter()
        .map(|(key, value)| (of_this_tree(key), value.clone()));
    let expected: BTreeMap<String, String> = expected.collect();
    if let Ok(Some(tree)) = restored(&stored, &prefix) {
        assert_eq!(entries(&tree, &prefix).as_ref(), Ok(&expected), "{tree:?}");
        assert_eq!(
            expected.len(),
            stored.len(),
            "two entries are one value of {tree:?}"
        );
    }
}
