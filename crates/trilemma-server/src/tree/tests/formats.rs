//! What single formats accept, keep and refuse.

use super::*;

#[test]
fn dotenv_comments_begin_after_a_space_or_tab_as_in_shells() {
    let text = "A= # note\nB=   # note\nC=8080\t# note\nD=pa#ss\nE=\"x\"\t# note\nF=http://h/#part\nG=\nH=#x\nI=a #b\r\nJ=\t#\r\nK=a\t\n";
    let tree = parse(Format::Env, text, "test").unwrap();
    let expected = map_of(&[
        ("A", ""),
        ("B", ""),
        ("C", "8080"),
        ("D", "pa#ss"),
        ("E", "x"),
        ("F", "http://h/#part"),
        ("G", ""),
        ("H", "#x"),
        ("I", "a"),
        ("J", ""),
        ("K", "a"),
    ]);
    assert_eq!(stored(&tree, &Prefix::default()), expected);
    // Readers disagree on what this is.
    assert!(parse(Format::Env, "A=\"x\"#note\n", "test").is_err());
}

#[test]
fn numbers_keep_every_digit_or_are_refused_where_they_stand() {
    let kept = [
        (Format::Yaml, "a: 18446744073709551615", "18446744073709551615"),
        (Format::Yaml, "a: 18446744073709551616", "18446744073709551616"),
        (Format::Yaml, "a: -9223372036854775809", "-9223372036854775809"),
        (Format::Yaml, "a: +18446744073709551617", "18446744073709551617"),
        (
            Format::Yaml,
            "a: 170141183460469231731687303715884105727",
            "170141183460469231731687303715884105727",
        ),
        (
            Format::Yaml,
            "b: &b 170141183460469231731687303715884105727\na: *b",
            "170141183460469231731687303715884105727",
        ),
        (
            Format::Yaml,
            "a: -170141183460469231731687303715884105728",
            "-170141183460469231731687303715884105728",
        ),
        (
            Format::Yaml,
            "a: '170141183460469231731687303715884105728'",
            "170141183460469231731687303715884105728",
        ),
        (Format::Yaml, "a: 0xFF", "255"),
        (
            Format::Yaml,
            "a: 0x742d35Cc6634C0532925a3b844Bc454e4438f44e",
            "0x742d35Cc6634C0532925a3b844Bc454e4438f44e",
        ),
        (Format::Yaml, "a: 31.39999999999999999999999999999999", "31.4"),
        (Format::Yaml, "a: !!float 5", "5.0"),
        (Format::Yaml, "a: .inf", "!float inf"),
        (Format::Yaml, "a: -.INF", "!float -inf"),
        (Format::Yaml, "a: &x1 .inf", "!float inf"),
        (Format::Yaml, "a: -0", "0"),
        (Format::Yaml, "a: -0.0", "-0.0"),
        (
            Format::Yaml,
            "a: 000000000000000000000000000000000000000001",
            "000000000000000000000000000000000000000001",
        ),
        (Format::Json, "{\"-0\": \"-0\", \"a\": -0}", "0"),
        (Format::Json, "{\"a\": -0.0}", "-0.0"),
        (Format::Json, "{\"a\": -0e1}", "-0.0"),
        (Format::Json, "{\"a\": 1E5}", "100000.0"),
        (Format::Toml, "a = -0", "0"),
    ];
    for (format, text, expected) in kept {
        let tree = parse(format, text, "file");
        let tree = tree.unwrap_or_else(|error| panic!("{text}: {error}"));
        let entries = stored(&tree, &Prefix::default());
        assert_eq!(entries.get("a").map(String::as_str), Some(expected), "{text}");
    }
    let refused = [
        (
            Format::Yaml,
            "b: 1\na: 170141183460469231731687303715884105728\n",
            2,
            4,
        ),
        (
            Format::Yaml,
            "a: -170141183460469231731687303715884105729\n",
            1,
            4,
        ),
        (
            Format::Yaml,
            "- 1\n-   115792089237316195423570985008687907853269984665640564039457584007913129639935\n",
            2,
            5,
        ),
        (Format::Yaml, "a: {b: [1e400]}\n", 1, 9),
        (Format::Yaml, "a: -1e999\n", 1, 4),
        (Format::Yaml, "a: !!float 1e400\n", 1, 0),
        (Format::Json, "{\"a\":\n 1e400}", 2, 0),
        (Format::Json, "{\"a\": -0,\n \"b\": 18446744073709551616}", 2, 7),
        (Format::Toml, "a = 1\nb = 18446744073709551616\n", 2, 0),
        (Format::Toml, "a = 1\nb = 1e400\n", 2, 0),
    ];
    for (format, text, line, column) in refused {
        match parse(format, text, "file") {
            Err(TreeError::Syntax {
                line: l, column: c, ..
            }) => {
                assert_eq!(l, line, "{text}");
                assert!(c == column || column == 0, "{text}: column {c}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    for broken in ["-", "{\"a\": -", "\"", "\"\\", "-0-0", "[-0", "\"-0"] {
        assert!(parse(Format::Json, broken, "file").is_err(), "{broken}");
    }
}

#[test]
fn yaml_documents_without_content_are_nothing() {
    let one = map_of(&[("a", "1")]);
    for text in [
        "a: 1\n---\n",
        "---\na: 1\n---\n\n",
        "---\n---\na: 1\n",
        "# note\n---\na: 1\n...\n",
        "---\n# note\n---\na: 1\n---\n# note\n---\n",
        "a: 1\n...\n---\n...\n",
    ] {
        let tree = parse(Format::Yaml, text, "file").unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(stored(&tree, &Prefix::default()), one, "{text:?}");
    }
    for text in ["", "\n", "# note\n", "---\n", "---\n---\n"] {
        assert_eq!(parse(Format::Yaml, text, "file"), Ok(Tree::Null), "{text:?}");
    }
    match parse(Format::Yaml, "a: 1\n---\n---\nb: 2\n", "file") {
        Err(TreeError::Syntax { line, what, .. }) => {
            assert_eq!(line, 4, "{what}");
            assert!(what.contains("document") && !what.contains("budget"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn yaml_limits_are_those_of_bytes_depth_and_what_aliases_stand_for() {
    let mut many = String::from("base: &base {a: 1, b: [x, y]}\n");
    for index in 0..20_000 {
        many.push_str(&format!("m{index}:\n  <<: *base\n  c: {index}\n"));
    }
    let mut notes = String::from("list:\n");
    notes.push_str(&"# note\n".repeat(1000));
    notes.push_str("- a\n");
    let long = format!("\"{}\": 1\n", "k".repeat(3000));
    for text in [&many, &notes, &long] {
        let found = parse(Format::Yaml, text, "file").err();
        assert_eq!(found, None, "{:.60}", text);
    }
    let deep = format!("a: {}1{}\n", "[".repeat(80), "]".repeat(80));
    match parse(Format::Yaml, &deep, "file") {
        Err(TreeError::Syntax { line, what, .. }) => {
            assert!(line == 1 && what.contains("deeper"), "{line}: {what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn yaml_aliases_are_expanded_and_a_bomb_is_refused() {
    let tree = parse(Format::Yaml, "base: &b {x: 1}\nuse: *b\n", "test").unwrap();
    assert_eq!(
        stored(&tree, &Prefix::default()),
        map_of(&[("base/x", "1"), ("use/x", "1")])
    );
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
    }
    match parse(Format::Yaml, &bomb, "test") {
        Err(TreeError::Syntax { what, .. }) => assert!(what.contains("aliases stand for"), "{what}"),
        other => panic!("{:?}", other.is_ok()),
    }
}

#[test]
fn dotenv_values_are_the_stored_texts() {
    let text = "# c\nexport A=1\nB='x y # z'\nC=\"a\\nb\\$\" # note\nD=plain # note\nE=\n";
    let tree = parse(Format::Env, text, "test").unwrap();
    let expected = map_of(&[
        ("A", "1"),
        ("B", "x y # z"),
        ("C", "a\nb$"),
        ("D", "plain"),
        ("E", ""),
    ]);
    assert_eq!(stored(&tree, &Prefix::default()), expected);
}

#[test]
fn faults_name_line_and_column() {
    let cases = [
        (Format::Toml, "a = 1\nb = = 2\n", 2, 5),
        (Format::Toml, "a = 1\na = 2\n", 2, 1),
        (Format::Json, "{\n  \"a\": 1,\n  \"a\": 2\n}", 3, 5),
        (Format::Json, "{\"a\":\n 123456789012345678901234567890}", 2, 2),
        (Format::Yaml, "a: 1\nb: [1, 2\n", 0, 0),
        (Format::Yaml, "a: 1\na: 2\n", 2, 1),
        (Format::Yaml, "80: http\n", 1, 1),
        (Format::Yaml, "a: !Ref b\n", 1, 0),
        (Format::Yaml, "a: 1\n---\nb: 2\n", 0, 0),
        (Format::Env, "A=1\nB\n", 2, 1),
        (Format::Env, "A=1\nA=2\n", 2, 1),
        (Format::Env, "A=x$HOME\n", 1, 4),
        (Format::Env, "A=\"open\n", 1, 3),
    ];
    for (format, text, line, column) in cases {
        match parse(format, text, "file") {
            Err(TreeError::Syntax {
                line: l,
                column: c,
                what,
                ..
            }) => {
                assert!(line == 0 || l == line, "{text:?}: line {l}, {what}");
                assert!(column == 0 || c == column, "{text:?}: column {c}, {what}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}
