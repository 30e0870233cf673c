//! What counts as code, and what a `use` declaration brings in.

use super::Source;

fn words(text: &str, word: &str) -> usize {
    Source::new(text).find_word(word).count()
}

#[test]
fn comments_and_literals_are_no_code() {
    assert_eq!(
        words(
            "// tokio\n/* tokio /* tokio */ tokio */\n/// tokio\nfn f() {}",
            "tokio"
        ),
        0
    );
    assert_eq!(
        words(
            r##"let a = "tokio \" tokio"; let b = r#"tokio " tokio"#; let c = b"tokio";"##,
            "tokio"
        ),
        0
    );
    assert_eq!(
        words(
            "let q = '\"'; tokio::spawn(x); let e = '\\''; tokio::spawn(y);",
            "tokio"
        ),
        2
    );
    assert_eq!(words("fn f<'a>(x: &'a str) { tokio::spawn(x) }", "tokio"), 1);
    assert_eq!(words("let u = '\\u{1f600}'; let ü = 'ü'; tokio::x()", "tokio"), 1);
}

#[test]
fn string_literals_are_found_and_nothing_else_is() {
    let text = r##"let a = "one"; // "no"
        /* "no" */ let b = r#"two " 2"#; let c = b"three"; let d = '"'; let e = b'"'; let f = '#';"##;
    let source = Source::new(text);
    let found: Vec<&str> = source.strings.iter().map(|range| &text[range.clone()]).collect();
    assert_eq!(found, ["\"one\"", "r#\"two \" 2\"#", "b\"three\""]);
}

#[test]
fn words_are_whole() {
    assert_eq!(words("my_tokio::x(); tokio_util::y();", "tokio"), 0);
    assert_eq!(words("a.HashMapped", "HashMap"), 0);
    assert_eq!(words("let r#fn = std::fs::read(p);", "std::fs"), 1);
}

#[test]
fn blanking_keeps_offsets_and_lines() {
    let source = Source::new("let a = \"ü\n\";\ntokio::x();\n");
    assert_eq!(source.code.len(), source.text.len());
    let at = source.find_word("tokio").next().expect("is there");
    assert_eq!(source.line_of(at), 3);
    assert_eq!(source.line(3), "tokio::x();");
}

#[test]
fn groups_are_taken_apart() {
    let source = Source::new(
        "use std::{fs::{self, File}, sync::Arc as A, time::{Duration, Instant}};\npub(crate) use a::b::*;\nuse x;",
    );
    let paths: Vec<String> = source.imports().into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        paths,
        [
            "std::fs",
            "std::fs::File",
            "std::sync::Arc",
            "std::time::Duration",
            "std::time::Instant",
            "a::b::*",
            "x"
        ]
    );
}

#[test]
fn inline_test_modules_are_known() {
    let source = Source::new(
        "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}",
    );
    let inside = |name: &str| {
        let at = source.find_word(name).next().expect("is there");
        source.in_inline_tests(at)
    };
    assert!(!inside("a") && inside("b") && !inside("c") && !inside("d"));
}
