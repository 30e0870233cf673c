//! Generated parts follow the descriptors; links and references that lead nowhere are found.

use super::Pages;
use super::citations;
use super::generated::rewrite;
use super::links::{anchors, check, code_references, links};

#[test]
fn a_generated_part_is_replaced_and_the_rest_stays() {
    let page = "before\n<!-- generated: needs -->\nold\n<!-- end generated -->\nafter\n";
    let (new, problems) = rewrite(page);
    assert!(problems.is_empty());
    assert!(
        new.starts_with("before\n<!-- generated: needs -->\n\n| the code needs |"),
        "{new}"
    );
    assert!(
        new.ends_with("<!-- end generated -->\nafter\n") && !new.contains("old"),
        "{new}"
    );
    assert_eq!(
        rewrite(&new),
        (new.clone(), vec![]),
        "a second time changes nothing"
    );
}

#[test]
fn markers_that_are_wrong_are_reported() {
    assert_eq!(
        rewrite("<!-- generated: nothing -->\n<!-- end generated -->")
            .1
            .len(),
        1
    );
    assert_eq!(
        rewrite("<!-- generated: descriptor etcd -->\n<!-- end generated -->")
            .1
            .len(),
        1
    );
    assert_eq!(rewrite("<!-- generated: needs -->\n").1.len(), 1);
}

fn part(name: &str) -> String {
    let (text, problems) = rewrite(&format!("<!-- generated: {name} --><!-- end generated -->"));
    assert!(problems.is_empty(), "{problems:?}");
    text
}

#[test]
fn the_partition_table_says_what_each_backend_does() {
    let table = part("partition");
    let row = |operation: &str, backend: &str| {
        let rows: Vec<&str> = table
            .lines()
            .skip_while(|line| !line.starts_with(&format!("| {operation}")))
            .collect();
        let row = rows.iter().find(|line| line.contains(&format!("`{backend}`")));
        row.expect("every backend has a row")
            .split(" | ")
            .skip(2)
            .map(|cell| cell.trim_end_matches(" |").to_owned())
            .collect::<Vec<_>>()
    };
    let refused = "**refused**";
    assert_eq!(row("put", "gossip"), ["answers"; 4]);
    assert_eq!(row("put", "paxos"), ["answers", "answers", refused, "answers"]);
    assert_eq!(row("put", "two-phase"), ["answers", refused, refused, refused]);
    assert_eq!(row("compare-and-set", "gossip"), ["unsupported"; 4]);
    assert_eq!(row("guarded batch", "paxos"), ["unsupported"; 4]);
    assert_eq!(row("range: linearizable", "paxos"), ["unsupported"; 4]);
    assert_eq!(row("get: strongest", "raft")[2], refused);
    assert!(
        row("get: strongest", "two-phase")
            .iter()
            .all(|cell| cell.starts_with("answers, linearizable"))
    );
}

#[test]
fn availability_has_the_digits_that_matter() {
    let table = part("availability");
    assert!(table.contains("99.50 %") || table.contains("99.60 %"), "{table}");
    assert!(
        table.contains("| what needs any node | 100 % | 100 % | 100 % |"),
        "{table}"
    );
    assert!(table.contains("99.9999"), "{table}");
}

#[test]
fn links_outside_code_are_found() {
    let text = "[a](b.md#c) and [d](e \"title\") `[no](no.md)`\n```\n[no](no.md)\n```\n[f](g)";
    let found: Vec<_> = links(text);
    assert_eq!(found, [(1, "b.md#c".into()), (1, "e".into()), (5, "g".into())]);
}

#[test]
fn headings_make_anchors() {
    let text = "# Did it happen?\n## `put` & co\n## Same\n## Same\n```\n# no\n```\n#no";
    let found: Vec<_> = anchors(text).into_iter().collect();
    assert_eq!(found, ["did-it-happen", "put--co", "same", "same-1"]);
}

fn problems(extra: &[(&str, &str)]) -> Vec<String> {
    let mut pages = Pages::new();
    pages.insert(
        "docs/src/SUMMARY.md".into(),
        "[one](one.md)\n[two](in/two.md)".into(),
    );
    pages.insert("docs/src/one.md".into(), "# One\n[two](in/two.md#two)".into());
    pages.insert(
        "docs/src/in/two.md".into(),
        "# Two\n[root](../../../README.md) [self](#two)".into(),
    );
    pages.insert(
        "README.md".into(),
        "# Root\n[dir](crates) [web](https://docs.rs/)".into(),
    );
    for (name, text) in extra {
        pages.insert((*name).into(), (*text).into());
    }
    let mut files: Vec<String> = pages.keys().cloned().collect();
    files.push("crates/a/src/lib.rs".into());
    check(&pages, &files, |_| Ok("fn it_holds() {}".into()))
}

#[test]
fn what_leads_nowhere_is_found() {
    assert_eq!(problems(&[]), [""; 0]);
    assert_eq!(problems(&[("README.md", "[gone](gone.md)")]).len(), 1);
    assert_eq!(
        problems(&[("README.md", "[no heading](docs/src/one.md#three)")]).len(),
        1
    );
    assert_eq!(problems(&[("README.md", "[above](#below)")]).len(), 1);
    assert_eq!(
        problems(&[("docs/src/three.md", "# Three")]).len(),
        1,
        "not in the summary"
    );
}

#[test]
fn references_to_code_are_checked() {
    assert_eq!(
        code_references("see `crates/a/src/lib.rs::it_holds`, `lib.rs`").len(),
        1
    );
    assert_eq!(
        problems(&[("README.md", "`crates/a/src/lib.rs::it_holds`")]),
        [""; 0]
    );
    assert_eq!(
        problems(&[("README.md", "`crates/a/src/lib.rs::it_hold`")]).len(),
        1
    );
    assert_eq!(
        problems(&[("README.md", "`crates/b/src/lib.rs::it_holds`")]).len(),
        1
    );
}

#[test]
fn examples_are_those_that_are_compiled() {
    let compiled = "//! ```no_run\n//! use a::B;\n//! let b = B::new();\n//! ```";
    let found = |page: &str| {
        let pages = Pages::from([("README.md".into(), page.into())]);
        super::examples::check(&pages, compiled, &["ci", "docs"])
    };
    assert_eq!(
        found("```rust\nuse a::B;\n\nfn main() {\n    let b = B::new();\n}\n```\n"),
        [""; 0]
    );
    assert_eq!(found("```rust\nlet b = B::old();\n```\n").len(), 1);
    assert_eq!(found("```toml\na = 1\n```\n```sh\na = = 1\n```\n"), [""; 0]);
    assert_eq!(found("```toml\na = = 1\n```\n").len(), 1);
    assert_eq!(found("`cargo xtask ci`, `cargo xtask docs --check`"), [""; 0]);
    assert_eq!(found("`cargo xtask zoo`").len(), 1);
}

/// What the check of citations says of one file with this text.
fn cited(name: &str, text: &str) -> Vec<String> {
    let pages = Pages::from([(
        "docs/src/inside/raft.md".into(),
        "# Raft\n## Pitfalls\n### Pre-vote\n".into(),
    )]);
    citations::check(&pages, &[name.to_owned()], |_| Ok(text.to_owned()))
}

#[test]
fn citations_of_headings_that_exist_are_accepted() {
    let rule = "Rule: a leader is asked first (inside/raft#pre-vote; Raft 9.6)\n";
    assert_eq!(cited("zoo/R01.patch", rule), [""; 0]);
    assert_eq!(
        cited(
            "crates/a/src/lib.rs",
            "// inside/raft#pitfalls, inside/raft.md#raft.\n"
        ),
        [""; 0]
    );
    assert_eq!(
        cited(
            "crates/a/src/lib.rs",
            "// the inside/raft page, pitfalls of old\n"
        ),
        [""; 0],
        "no anchor, no number"
    );
    assert_eq!(
        cited("xtask/src/docs/tests.rs", "inside/raft#nothing"),
        [""; 0],
        "only code, tests and the zoo cite"
    );
}

#[test]
fn citations_that_lead_nowhere_are_found() {
    for (name, text) in [
        ("zoo/R01.patch", "Rule: (inside/raft#pre-votes)"),
        ("zoo/open/R01.patch", "Rule: (inside/paxos#pre-vote)"),
        ("crates/a/src/lib.rs", "//! x\n/// inside/raft#prevote: y"),
        ("crates/a/tests/plays/b.txt", "# inside/raft#pre"),
    ] {
        assert_eq!(cited(name, text).len(), 1, "{name}: {text}");
    }
    let found = cited("crates/a/src/lib.rs", "//! x\n/// inside/raft#prevote: y");
    assert!(found[0].starts_with("crates/a/src/lib.rs:2: `inside/raft#prevote` cites no heading"));
}

#[test]
fn numbers_of_notes_that_are_not_here_are_found() {
    for text in [
        "Rule: x (consensus.md pitfall 12)",
        "// Pitfalls 20 and 21: x",
        "//! Recovery (design §7).",
        "//! Rumors (design note, section 4).",
    ] {
        assert_eq!(cited("crates/a/src/lib.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn a_planted_bug_names_the_rule_it_breaks() {
    let cited = |header: &str| cited("zoo/R01.patch", &format!("{header}\n\ndiff --git a/x b/x\n"));
    assert_eq!(cited("Id: R01\nRule: x (inside/raft#pre-vote)"), [""; 0]);
    assert_eq!(cited("Id: R01\nRule: x (Raft 9.6)").len(), 1);
    assert_eq!(cited("Id: R01\nWhy: inside/raft#pre-vote").len(), 1);
}
