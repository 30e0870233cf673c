//! A fake simulator says what real ones say; what counts is what it reported.
#![cfg(unix)]

use std::path::Path;
use std::time::Duration;

use super::{End, Script, hunt, run};
use crate::process;
use crate::zoo::patch::Patch;

/// Runs `test` with a program of this shell text, which finds `$protocol`, `$from` and `$seeds`.
fn with_simulator(text: &str, test: impl FnOnce(&Path)) {
    // A process that another test starts meanwhile would have this program open for writing, and it could not run.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("simulator");
    let head = "#!/bin/sh\nprotocol=$3 from=$5 seeds=$7\n\
                summary() { echo \"{\\\"failures\\\":$1,\\\"undecided\\\":$2}\"; }\n";
    // A process of its own writes it. Otherwise: another test starts a process while this one has the file open, the
    // new process has a copy of the handle until it runs its program, and ours is "busy".
    let source = folder.path().join("source");
    std::fs::write(&source, format!("{head}{text}\n")).expect("writable");
    let copied = process::command("cp").arg(&source).arg(&program).status();
    assert!(copied.expect("cp runs").success());
    let allowed = process::command("chmod").arg("755").arg(&program).status();
    assert!(allowed.expect("chmod runs").success());
    test(&program);
}

fn end_of(text: &str) -> End {
    let mut end = None;
    with_simulator(text, |program| {
        end = Some(run(
            program,
            ("standard", "raft"),
            5,
            10,
            1,
            Duration::from_secs(2),
        ));
    });
    end.expect("it was run")
}

#[test]
fn a_reported_failure_counts_however_the_process_ends() {
    let line = r#"echo 'failure {"protocol":"raft","seed":7,"checker":"panic","what":"a \"quoted\" text"}'"#;
    for after in ["summary 1 0; exit 1", "kill -9 $$", "exec sleep 60"] {
        match end_of(&format!("{line}; {after}")) {
            End::Found(failure) => {
                assert_eq!((failure.seed, failure.checker.as_str()), (7, "panic"));
                assert_eq!(failure.what, "a \"quoted\" text");
            }
            other => panic!("{after}: {other:?}"),
        }
    }
}

#[test]
fn an_end_without_a_reported_failure_is_no_finding() {
    assert_eq!(end_of("summary 0 0"), End::Nothing { undecided: 0 });
    assert_eq!(end_of("summary 0 3; exit 2"), End::Nothing { undecided: 3 });
    for broken in [
        "kill -9 $$",
        "exit 1",
        "exit 2",
        "summary 1 0; exit 1",
        "exec sleep 60",
        "true",
    ] {
        let end = end_of(broken);
        assert!(matches!(end, End::Broken(_)), "{broken}: {end:?}");
    }
    let missing = run(
        Path::new("/no/such/program"),
        ("standard", "raft"),
        0,
        1,
        1,
        Duration::from_secs(1),
    );
    assert!(matches!(missing, End::Broken(_)), "{missing:?}");
}

fn patch(header: &str) -> Patch {
    Patch::parse(
        "stem",
        &format!("{header}\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"),
    )
    .expect("sound")
}

#[test]
fn protocols_take_turns_until_one_finds_something() {
    let text = "if [ $protocol = paxos ] && [ $from -le 700 ] && [ $((from + seeds)) -gt 700 ]; then\n\
                echo \"failure {\\\"protocol\\\":\\\"paxos\\\",\\\"seed\\\":700,\\\"checker\\\":\\\"c\\\",\\\"what\\\":\\\"\\\"}\"; exit 1; fi\nsummary 0 0";
    with_simulator(text, |program| {
        let found = hunt(program, &patch("Protocol: raft, paxos\nSeeds: 5000"), &[], 1);
        // 256 of each, then 1,024 of raft, then 445 of paxos.
        assert_eq!(
            (found.found.map(|failure| failure.seed), found.seeds),
            (Some(700), 256 + 256 + 1024 + 445)
        );
        let budget = hunt(program, &patch("Protocol: raft, paxos\nSeeds: 600"), &[], 1);
        assert_eq!(
            (budget.found, budget.seeds),
            (None, 1200),
            "700 is beyond the budget"
        );
    });
}

#[test]
fn a_protocol_that_crashes_is_reported_and_does_not_hide_the_others() {
    with_simulator("[ $protocol = raft ] && kill -9 $$; summary 0 0", |program| {
        let hunt = hunt(program, &patch("Protocol: raft, gossip\nSeeds: 300"), &[], 1);
        assert_eq!((hunt.found, hunt.seeds), (None, 300));
        assert_eq!(hunt.broken.len(), 1, "{:?}", hunt.broken);
    });
}

#[test]
fn scenarios_of_the_patch_come_before_seeds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writable");
    write("a.txt", "# Another protocol's.\nprotocol paxos\n");
    write("b.txt", "# Ours.\nprotocol raft\nseed 1\n");
    write("notes.md", "protocol raft\n");
    let scripts = Script::all(folder.path()).expect("readable");
    assert_eq!(scripts.len(), 2);
    let text = "if [ $1 = --scenario ]; then echo 'failure {\"protocol\":\"raft\",\"seed\":1,\"checker\":\"c\",\"what\":\"\"}'; \
                exit 1; fi\nsummary 0 0";
    with_simulator(text, |program| {
        let found = hunt(program, &patch("Protocol: raft\nSeeds: 10"), &scripts, 1);
        let script = found.found.and_then(|failure| failure.script);
        assert_eq!((script, found.seeds), (Some(scripts[1].clone()), 0));
        let none = hunt(program, &patch("Protocol: gossip\nSeeds: 10"), &scripts, 1);
        assert_eq!((none.found, none.seeds), (None, 10));
    });
}
