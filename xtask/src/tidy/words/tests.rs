//! Retired words are found in comments, texts and names; good English is left alone.

use super::{WORDS, page, source};
use crate::source::Source;
use crate::tidy::File;

fn found(name: &str, text: &str) -> Vec<(String, usize)> {
    let file = File {
        name: name.into(),
        source: Source::new(text),
        of_program: false,
    };
    let word = |what: &str| what.split('"').nth(1).unwrap_or_default().to_owned();
    source(&file)
        .into_iter()
        .map(|finding| (word(&finding.what), finding.line))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    found("crates/trilemma-storage/src/x.rs", text)
        .into_iter()
        .map(|(word, _)| word)
        .collect()
}

#[test]
fn retired_words_are_found_in_comments_texts_and_names() {
    assert_eq!(words("//! A.\n// It gives up its office.\n"), ["office"]);
    assert_eq!(
        words("//! A.\nfn f() { g(\"Settled for\\\n ever\") }\n"),
        ["settled"]
    );
    assert_eq!(words("//! A.\nfn is_settled() {}\n"), ["settled"]);
    assert_eq!(words("//! A.\nstruct Outlet;\n"), ["Outlet"]);
    assert_eq!(words("//! A.\nfn f(r: R) -> bool { r.won }\n"), ["won"]);
    let wrapped = "//! A.\n/// A name of the operation, for\n/// ever.\n";
    assert_eq!(
        found("crates/trilemma-storage/src/x.rs", wrapped),
        [("for ever".to_owned(), 2)]
    );
    assert_eq!(page("docs/src/a.md", "writes, in any split\n").len(), 1);
    assert_eq!(page("docs/src/a.md", "a stray ` here\n\nis settled\n").len(), 1);
}

#[test]
fn good_english_is_left_alone() {
    for good in [
        "//! A.\n// Nobody can tell; room for a group of slots that won; a fresh start.\n",
        "//! A.\nfn f(s: &str) { s.split(','); s.lifetime(); unsettled(); }\n",
        "//! A.\nenum E { NotApplied, Applied }\nfn f(room: other::Room) {}\n",
        "//! A.\n// At the end, the latest. Forever lasts. It waits for: ever more.\n",
    ] {
        assert_eq!(words(good), [""; 0], "{good}");
    }
}

#[test]
fn a_page_may_name_what_the_code_has() {
    assert_eq!(page("docs/src/a.md", "| `Settled` | of a batch |\n").len(), 0);
    assert_eq!(page("docs/src/a.md", "it is settled: `Settled`\n").len(), 1);
}

#[test]
fn a_file_is_not_named_after_a_retired_word() {
    assert_eq!(
        found("crates/trilemma-core/src/desk.rs", "//! A.\n"),
        [("desk.rs".to_owned(), 1)]
    );
    assert_eq!(found("crates/trilemma-core/src/pending.rs", "//! A.\n"), []);
}

#[test]
fn every_word_says_what_to_use_and_can_be_found() {
    for word in WORDS {
        assert!(!word.new.is_empty(), "{}", word.old);
        let text = format!("//! A.\nstruct {};\n", word.old.replace(' ', "_"));
        assert!(words(&text).contains(&word.old.to_owned()), "{}", word.old);
    }
}

#[test]
fn every_retired_word_is_in_the_glossary() {
    let glossary = include_str!("../../../../docs/src/glossary.md");
    let (_, retired) = glossary
        .split_once("## Retired words")
        .expect("the glossary lists the retired words");
    let cells = retired
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let listed: Vec<&str> = cells
        .flat_map(|cell| cell.split(" (").next().unwrap_or(cell).split(", "))
        .collect();
    for word in WORDS {
        assert!(listed.contains(&word.old), "{} is not listed", word.old);
    }
}
