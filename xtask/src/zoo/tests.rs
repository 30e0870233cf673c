//! Headers, patches in a copy of a tree, and how outcomes are reported.

use std::collections::BTreeSet;
use std::time::Duration;

use super::hunt::Failure;
use super::patch::Patch;
use super::tree::{Fit, Tree};
use super::{Fate, chosen, line, load, rotated};
use crate::process;
use crate::workspace::Workspace;

const DIFF: &str = "\
--- a/crates/trilemma-raft/src/lib.rs
+++ b/crates/trilemma-raft/src/lib.rs
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
";
const FILE: &str = "crates/trilemma-raft/src/lib.rs";

fn patch(header: &str) -> Result<Patch, String> {
    Patch::parse("stem", &format!("{header}\n{DIFF}"))
}

#[test]
fn a_patch_without_a_header_is_judged_by_its_files() {
    let patch = patch("").expect("a diff is enough");
    assert_eq!((patch.id.as_str(), patch.seeds), ("stem", 20_000));
    assert_eq!(patch.protocols, ["raft"]);
    assert_eq!(patch.files, BTreeSet::from([FILE.to_owned()]));
    let elsewhere = |path: &str| {
        let text = DIFF.replace(FILE, path);
        Patch::parse("stem", &text).expect("a diff is enough").protocols
    };
    assert_eq!(elsewhere("crates/trilemma-paxos/src/proposer.rs"), ["paxos"]);
    assert_eq!(elsewhere("crates/trilemma-gossip/src/lib.rs"), ["gossip"]);
    assert_eq!(elsewhere("crates/trilemma-two-phase/src/lib.rs"), ["two-phase"]);
    assert_eq!(elsewhere("crates/trilemma-core/src/table.rs").len(), 5);
    let text = format!(
        "{DIFF}{}",
        DIFF.replace(FILE, "crates/trilemma-gossip/src/lib.rs")
    );
    let both = Patch::parse("stem", &text).expect("a diff is enough");
    assert_eq!(both.protocols, ["raft", "gossip"]);
}

#[test]
fn a_header_says_more() {
    let header = "ID: R99\nTitle: a title: with a colon\nprotocol: paxos, mixed\nCHECKER: Log-Matching or durability\n\
                  Seeds: 5,000\nFrom: somebody\n";
    let patch = patch(header).expect("the header is sound");
    assert_eq!(
        (patch.id.as_str(), patch.title.as_str()),
        ("R99", "a title: with a colon")
    );
    assert_eq!(patch.protocols, ["paxos", "mixed"]);
    assert_eq!(patch.checkers, ["log-matching", "durability"]);
    assert_eq!(patch.seeds, 5000);
    assert_eq!(patch.incomplete().len(), 2, "rule and why are missing");
}

#[test]
fn a_wrong_header_is_refused() {
    for header in ["Protocol: viewstamped", "Seeds: many", "Seeds: 0", "Checker:"] {
        assert!(patch(header).is_err(), "{header}");
    }
    assert!(Patch::parse("stem", "Id: R1\n").is_err(), "no diff");
    let outside = DIFF.replace(FILE, "../../outside");
    assert!(Patch::parse("stem", &outside).is_err(), "outside of the tree");
}

#[test]
fn new_removed_and_renamed_files_are_seen_and_lines_of_hunks_are_not() {
    let text = "\
diff --git a/new.rs b/new.rs
--- /dev/null
+++ b/new.rs
@@ -0,0 +1,2 @@
+-- not/a/file
+++ not/one/either
diff --git a/old.rs b/old.rs
--- a/old.rs\t2020-01-01 00:00:00
+++ /dev/null
@@ -1 +0,0 @@
--- a/comment.sql
diff --git a/x.rs b/y.rs
similarity index 100%
rename from x.rs
rename to y.rs
";
    let patch = Patch::parse("stem", text).expect("a diff");
    let files: Vec<&str> = patch.files.iter().map(String::as_str).collect();
    assert_eq!(files, ["new.rs", "old.rs", "x.rs", "y.rs"]);
}

/// A repository with one file, and a copy of it inside its own build folder, as the zoo makes it.
fn with_tree(run: impl FnOnce(&Workspace, &Tree, &dyn Fn() -> Option<String>)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workspace = Workspace {
        root: folder.path().into(),
    };
    let file = folder.path().join(FILE);
    std::fs::create_dir_all(file.parent().expect("it has folders above it")).expect("writable");
    std::fs::write(&file, "one\ntwo\nthree\n").expect("writable");
    std::fs::write(folder.path().join(".gitignore"), "/target\n").expect("writable");
    let git = process::command("git")
        .args(["init", "--quiet"])
        .current_dir(folder.path())
        .status();
    assert!(git.expect("git runs").success());
    let copy = folder.path().join("target/zoo/tree");
    let tree = Tree::copy(&workspace, &copy).expect("it is copied");
    run(&workspace, &tree, &|| {
        std::fs::read_to_string(copy.join(FILE)).ok()
    });
}

#[test]
fn a_patch_is_applied_to_the_copy_alone_and_undone() {
    with_tree(|workspace, tree, content| {
        let patch = patch("").expect("sound");
        assert_eq!(tree.fits(&patch), Ok(Fit::Exact));
        assert_eq!(
            content().as_deref(),
            Some("one\ntwo\nthree\n"),
            "a check changes nothing"
        );
        let (fit, before) = tree.apply(&patch).expect("it applies");
        assert_eq!(
            (fit, content().as_deref()),
            (Fit::Exact, Some("one\nTWO\nthree\n"))
        );
        assert_eq!(
            workspace.read(FILE).as_deref(),
            Ok("one\ntwo\nthree\n"),
            "the original stays"
        );
        tree.restore(&before).expect("it is undone");
        assert_eq!(content().as_deref(), Some("one\ntwo\nthree\n"));
    });
}

#[test]
fn a_patch_that_does_not_apply_says_so_and_changes_nothing() {
    with_tree(|_, tree, content| {
        let text = DIFF
            .replace("-two", "-2")
            .replace(" one", " 1")
            .replace(" three", " 3");
        let patch = Patch::parse("stem", &text).expect("sound");
        assert!(tree.fits(&patch).is_err());
        assert!(tree.apply(&patch).is_err());
        assert_eq!(content().as_deref(), Some("one\ntwo\nthree\n"));
    });
}

#[test]
fn a_patch_whose_surroundings_changed_applies_loosely() {
    with_tree(|_, tree, content| {
        let text = DIFF.replace(" three", " drei");
        let patch = Patch::parse("stem", &text).expect("sound");
        let (fit, before) = tree.apply(&patch).expect("it applies");
        assert_eq!(
            (fit, content().as_deref()),
            (Fit::Loose, Some("one\nTWO\nthree\n"))
        );
        tree.restore(&before).expect("it is undone");
        assert_eq!(content().as_deref(), Some("one\ntwo\nthree\n"));
    });
}

#[test]
fn a_new_file_of_a_patch_is_gone_afterwards() {
    with_tree(|_, tree, content| {
        let text = format!(
            "--- /dev/null\n+++ b/new/file.rs\n@@ -0,0 +1 @@\n+new\n--- a/{FILE}\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-one\n-two\n-three\n"
        );
        let patch = Patch::parse("stem", &text).expect("sound");
        let (_, before) = tree.apply(&patch).expect("it applies");
        assert_eq!(content(), None);
        tree.restore(&before).expect("it is undone");
        assert_eq!(content().as_deref(), Some("one\ntwo\nthree\n"));
        assert_eq!(
            tree.fits(&patch),
            Ok(Fit::Exact),
            "or the new file would stand in its way"
        );
    });
}

#[test]
fn the_copy_follows_the_tree_and_leaves_what_is_equal_alone() {
    with_tree(|workspace, tree, content| {
        let copy = tree.workspace().root;
        let time = |name: &str| {
            std::fs::metadata(copy.join(name))
                .and_then(|meta| meta.modified())
                .ok()
        };
        let before = time(".gitignore");
        // As an interrupted run leaves it behind.
        tree.apply(&patch("").expect("sound")).expect("it applies");
        std::fs::write(copy.join("stale.rs"), "").expect("writable");
        std::fs::write(workspace.root.join("added.rs"), "").expect("writable");
        Tree::copy(workspace, &copy).expect("it is copied again");
        assert_eq!(content().as_deref(), Some("one\ntwo\nthree\n"));
        assert!(!copy.join("stale.rs").exists() && copy.join("added.rs").exists());
        assert_eq!(time(".gitignore"), before, "cargo would build it again");
    });
}

#[test]
fn outcomes_are_reported_with_what_was_expected() {
    let patch = patch("Checker: durability").expect("sound");
    let failure = Failure {
        script: None,
        protocol: "raft".into(),
        seed: 17,
        checker: "liveness".into(),
        what: "nothing".into(),
    };
    let reported = |fate: &Fate| line(&patch, Fit::Exact, fate, Duration::from_secs(3));
    let killed = reported(&Fate::Killed {
        failure: failure.clone(),
        seeds: 18,
    });
    assert!(
        killed.contains("killed by liveness after 18 seeds: raft seed 17"),
        "{killed}"
    );
    assert!(killed.contains("expected durability"), "{killed}");
    let survived = reported(&Fate::Survived {
        seeds: 9,
        notes: vec!["no end within 600 s".into()],
    });
    assert!(
        survived.contains("SURVIVED 9 seeds") && survived.contains("no end"),
        "{survived}"
    );
    assert!(reported(&Fate::NotItsFault(failure)).contains("NOT COUNTED"));
}

#[test]
fn a_folder_is_read_in_order_and_chosen_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(load(folder.path()).is_err(), "no patches at all");
    for name in ["b.patch", "a.patch", "notes.md"] {
        std::fs::write(folder.path().join(name), DIFF).expect("writable");
    }
    let patches = load(folder.path()).expect("both are sound");
    let ids = |patches: &[Patch]| patches.iter().map(|patch| patch.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&patches), ["a", "b"]);
    let only =
        |id: &str| chosen(patches.clone(), &BTreeSet::from([id.to_owned()])).map(|patches| ids(&patches));
    assert_eq!(only("b"), Ok(vec!["b".to_owned()]));
    assert!(only("c").is_err());
    std::fs::write(folder.path().join("c.patch"), format!("Id: a\n{DIFF}")).expect("writable");
    assert!(load(folder.path()).is_err(), "two with one id");
}

#[test]
fn a_handful_comes_round_to_every_patch() {
    let names: Vec<&str> = "a b c d e f g h i j".split(' ').collect();
    assert_eq!(rotated(&names, 0, 4), ["a", "c", "e", "g"]);
    assert_eq!(rotated(&names, 15, 4), ["f", "h", "j", "b"]);
    let seen: BTreeSet<&str> = (0..10).flat_map(|turn| rotated(&names, turn, 4)).collect();
    assert_eq!(seen.len(), names.len());
    assert_eq!(rotated(&names[..2], 7, 4).len(), 2, "each once at most");
    assert!(rotated(&[], 7, 4).is_empty());
}
