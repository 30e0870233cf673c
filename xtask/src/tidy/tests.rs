//! Every rule finds its bad sample, names it, and leaves the good one alone.

use super::{File, Finding, advice, check, files, imitation, layering, leaks, manifests, pure, sizes};
use crate::source::Source;
use crate::workspace::{Package, Workspace};

fn file(name: &str, text: &str) -> File {
    File {
        name: name.into(),
        source: Source::new(text),
        of_program: false,
    }
}

fn rules(findings: &[Finding]) -> Vec<(&str, usize)> {
    findings
        .iter()
        .map(|finding| (finding.rule, finding.line))
        .collect()
}

fn package(name: &str, manifest: &str) -> Package {
    Package {
        name: name.into(),
        dir: format!("crates/{name}"),
        manifest: manifest.parse().expect("the sample is TOML"),
    }
}

fn manifest(name: &str, text: &str) -> Vec<Finding> {
    layering::manifest(&package(name, text), "Cargo.toml", text)
}

#[test]
fn a_manifest_may_only_name_what_is_below() {
    assert!(
        manifest(
            "trilemma-gossip",
            "[dependencies]\ntrilemma-core.workspace = true\nserde = \"1\""
        )
        .is_empty()
    );
    let findings = manifest(
        "trilemma-gossip",
        "[dependencies]\ntrilemma-core.workspace = true\ntrilemma-raft.workspace = true\n",
    );
    assert_eq!(rules(&findings), [("layering", 3)]);
    assert!(
        findings[0]
            .to_string()
            .contains("trilemma-gossip has trilemma-raft")
    );
    assert!(findings[0].to_string().contains("trilemma-core"));
}

#[test]
fn tests_and_targets_and_new_names_are_no_way_round() {
    let cases = [
        "[dev-dependencies]\ntrilemma-runtime.workspace = true",
        "[target.'cfg(unix)'.dependencies]\ntrilemma-storage.workspace = true",
        "[dependencies]\nharmless = { package = \"trilemma-transport\", path = \"../t\" }",
        "[dependencies]\ntokio = \"1\"",
        "[dev-dependencies]\nrand = \"0.9\"",
    ];
    for case in cases {
        assert_eq!(
            rules(&manifest("trilemma-raft", case)),
            [("layering", 2)],
            "{case}"
        );
    }
    let checker = "[dev-dependencies]\ntrilemma-check.workspace = true";
    assert!(manifest("trilemma-raft", checker).is_empty());
}

#[test]
fn the_server_has_the_facade_and_the_checkers_alone() {
    let both = "[dependencies]\ntrilemma.workspace = true\ntrilemma-check.workspace = true";
    assert!(manifest("trilemma-server", both).is_empty());
    for other in ["trilemma-core", "trilemma-runtime", "quinn", "rustls"] {
        let text = format!("[dependencies]\n{other}.workspace = true");
        assert_eq!(
            rules(&manifest("trilemma-server", &text)),
            [("layering", 2)],
            "{other}"
        );
    }
}

#[test]
fn test_gear_is_for_tests_alone() {
    let test = "[dev-dependencies]\ntrilemma-testkit.workspace = true\n";
    assert!(manifest("trilemma-gossip", test).is_empty());
    let program = "[dependencies]\ntrilemma-testkit.workspace = true\n";
    assert_eq!(rules(&manifest("trilemma-gossip", program)), [("layering", 2)]);
    // Core's own tests would compile core twice, with two sets of types.
    assert_eq!(rules(&manifest("trilemma-core", test)), [("layering", 2)]);
}

#[test]
fn a_package_without_a_place_is_found() {
    assert_eq!(rules(&manifest("trilemma-new", "")), [("layering", 1)]);
}

#[test]
fn source_may_only_name_what_is_below() {
    let good = file(
        "crates/trilemma-gossip/src/a.rs",
        "//! A.\nuse trilemma_core::Key;\n// trilemma_raft::x\n",
    );
    assert!(layering::source("trilemma-gossip", &good).is_empty());
    let bad = file(
        "crates/trilemma-gossip/src/a.rs",
        "//! A.\nuse trilemma_core::Key;\nuse trilemma_raft::Raft;\n",
    );
    assert_eq!(
        rules(&layering::source("trilemma-gossip", &bad)),
        [("layering", 3)]
    );
    let checker = "//! A.\n#[cfg(test)]\nmod tests {\n use trilemma_check::History;\n}\n";
    assert!(layering::source("trilemma-gossip", &file("a.rs", checker)).is_empty());
    let early = "//! A.\nuse trilemma_check::History;\n";
    assert_eq!(
        rules(&layering::source("trilemma-gossip", &file("a.rs", early))),
        [("layering", 2)]
    );
}

#[test]
fn a_forbidden_import_in_a_pure_crate_is_found_and_named() {
    let bad = [
        ("use std::fs;", "std::fs"),
        ("use std::{collections::BTreeMap, net::SocketAddr};", "std::net"),
        ("use std::time::{Duration, Instant};", "std::time::Instant"),
        ("use std::collections::HashMap;", "HashMap"),
        ("use std::collections::{BTreeMap, HashSet};", "HashSet"),
        ("use tokio::sync::mpsc;", "tokio"),
        ("fn f() { let t = std::time::SystemTime::now(); }", "SystemTime"),
        ("fn f() { std::thread::sleep(d); }", "std::thread"),
        ("fn f() -> u8 { rand::random() }", "rand"),
        ("fn f() { getrandom::fill(&mut b); }", "getrandom"),
        ("fn f() { println!(\"x\"); }", "println!"),
        ("fn f() { quinn::Endpoint::client(a); }", "quinn"),
    ];
    for package in [
        "trilemma-core",
        "trilemma-gossip",
        "trilemma-raft",
        "trilemma-two-phase",
        "trilemma-check",
        "trilemma-sim",
    ] {
        for (line, name) in bad {
            let name_of = format!("crates/{package}/src/a.rs");
            let findings = pure::check(package, &file(&name_of, &format!("//! A.\n\n{line}\n")));
            let text: String = findings.iter().map(ToString::to_string).collect();
            assert!(
                text.contains(&format!("{name_of}:3: pure: `{name}` in {package}")),
                "{line}: {text}"
            );
            assert!(text.contains("fix: "), "{text}");
        }
    }
}

#[test]
fn what_a_pure_crate_may_do_is_left_alone() {
    let good = "//! Neither tokio nor std::fs.\n\
        use std::time::Duration;\nuse crate::time::Instant;\nuse std::sync::Mutex;\nuse std::task::Waker;\n\
        /// `HashMap` is not used.\nfn f(operand: u8) { let s = \"std::net tokio::x rand::y\"; }\n\
        #[cfg(test)]\nmod tests {\n fn t() { println!(\"seed\"); }\n}\n";
    assert!(pure::check("trilemma-core", &file("crates/trilemma-core/src/a.rs", good)).is_empty());
    let runtime = file("crates/trilemma-runtime/src/a.rs", "//! A.\nuse tokio::time;\n");
    assert!(pure::check("trilemma-runtime", &runtime).is_empty());
    let shell = file(
        "crates/trilemma-sim/src/main.rs",
        "//! A.\nfn main() { println!(\"{:?}\", std::time::Instant::now()); }\n",
    );
    assert!(pure::check("trilemma-sim", &shell).is_empty());
    let library = file(
        "crates/trilemma-sim/src/lib.rs",
        "//! A.\nfn f() { println!(\"x\"); }\n",
    );
    assert_eq!(rules(&pure::check("trilemma-sim", &library)), [("pure", 2)]);
}

#[test]
fn modules_of_a_program_alone_are_its_shell() {
    let mut files = [
        file("crates/a/src/main.rs", "//! A.\nmod args;\nmod shared;\n"),
        file("crates/a/src/lib.rs", "//! A.\npub mod shared;\nmod inner;\n"),
        file("crates/a/src/args.rs", "//! A.\nfn f() { println!(); }\n"),
        file("crates/a/src/args/deep.rs", "//! A.\n"),
        file("crates/a/src/shared.rs", "//! A.\n"),
        file("crates/a/src/inner.rs", "//! A.\n"),
        file("crates/b/src/args.rs", "//! A.\n"),
    ];
    super::mark_programs(&mut files);
    let shells: Vec<&str> = files
        .iter()
        .filter(|file| file.is_shell())
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(
        shells,
        [
            "crates/a/src/main.rs",
            "crates/a/src/args.rs",
            "crates/a/src/args/deep.rs"
        ]
    );
    assert!(pure::check("trilemma-sim", &files[2]).is_empty());
}

#[test]
fn files_open_with_what_they_are() {
    assert!(files::check(&file("a.rs", "//! What it is.\n")).is_empty());
    for bad in [
        "",
        "//!\n",
        "// What.\n",
        "use a;\n//! Late.\n",
        "/// What.\nfn f() {}\n",
    ] {
        assert_eq!(
            rules(&files::check(&file("a.rs", bad))),
            [("opening", 1)],
            "{bad:?}"
        );
    }
}

#[test]
fn words_that_do_not_belong_are_found() {
    let found = |body: &str| {
        let findings = files::check(&file("a.rs", &format!("//! A.\n{body}\n")));
        findings.iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert_eq!(found("fn f() { unsafe { g() } }"), ["unsafe"]);
    assert_eq!(found("#[unsafe(no_mangle)]\nfn f() {}"), ["unsafe"]);
    assert_eq!(found("#[ignore]\nfn f() {}"), ["tests"]);
    assert_eq!(found("#[ignore = \"slow\"]\nfn f() {}"), ["tests"]);
    assert_eq!(found("#[should_panic(expected = \"x\")]\nfn f() {}"), ["tests"]);
    assert_eq!(found("fn f() { todo!() }"), ["unfinished"]);
    assert_eq!(found("fn f() { unimplemented!(\"x\") }"), ["unfinished"]);
    assert_eq!(found("fn f() { dbg!(1); }"), ["unfinished"]);
    assert_eq!(found("/// ```ignore\n/// x\n/// ```\nfn f() {}"), ["tests"]);
    assert_eq!(found("/// ```no_run\n/// x\n/// ```\nfn f() {}"), [""; 0]);
    assert_eq!(
        found("#![forbid(unsafe_code)]\n// unsafe todo!() dbg!\nfn f() { g(\"#[ignore] unsafe\") }"),
        [""; 0]
    );
}

#[test]
fn a_simulator_that_makes_parts_of_a_node_is_found() {
    let found = |package: &str, body: &str| {
        let name = "crates/trilemma-sim/src/node.rs";
        let findings = imitation::check(package, &file(name, &format!("//! A.\n{body}\n")));
        rules(&findings).len()
    };
    for part in [
        "engine.step(now, GroupInput::Start)",
        "LogWriter::spawn(log)",
        "let host = Host::new(raft);",
    ] {
        let body = format!("fn f() {{ {part}; }}");
        assert_eq!(found("trilemma-sim", &body), 1, "{part}");
        assert_eq!(found("trilemma-fuzz", &body), 1, "{part}");
        assert_eq!(found("trilemma-node", &body), 0, "{part}");
    }
    assert_eq!(
        found("trilemma-sim", "// A Host.\nfn f() { recover(settings); }"),
        0
    );
}

#[test]
fn advice_to_destroy_data_is_found_in_texts_alone() {
    let found = |name: &str, body: &str| {
        let findings = advice::check(&file(name, &format!("//! A.\n{body}\n")));
        rules(&findings)
            .into_iter()
            .map(|(_, line)| line)
            .collect::<Vec<_>>()
    };
    let bad = [
        "#[error(\"{what}; restore it, or wipe its directory\")]",
        "let advice = \"Wipe the node\";",
        "let advice = \"delete its data and start again\";",
        "let advice = r#\"let it rejoin under a new id\"#;",
        "let advice = \"let it rejoin \\\n    under a new node id\";",
    ];
    for text in bad {
        assert_eq!(found("crates/a/src/error.rs", text), [2], "{text}");
        let in_tests = format!("#[cfg(test)]\nmod tests {{ {text} }}");
        assert_eq!(found("crates/a/src/error.rs", &in_tests), [0; 0], "{text}");
        assert_eq!(found("crates/a/tests/it/error.rs", text), [0; 0], "{text}");
    }
    let good = [
        "// Wipe the rest of the segment.\nfn wipe() {}",
        "let action = \"wipe\";",
        "#[error(\"{what}; keep the directory, and ask the other nodes\")]",
        "let text = \"the key was deleted, its data with it\";",
    ];
    for text in good {
        assert_eq!(found("crates/a/src/error.rs", text), [0; 0], "{text}");
    }
}

#[test]
fn a_relaxed_lint_has_its_reason_beside_it() {
    let found = |body: &str| rules(&files::check(&file("a.rs", &format!("//! A.\n{body}\n")))).len();
    assert_eq!(found("#[allow(dead_code)]\nfn f() {}"), 1);
    assert_eq!(found("#![expect(clippy::x)]\nfn f() {}"), 1);
    assert_eq!(found("#[cfg_attr(test, allow(dead_code))]\nfn f() {}"), 1);
    assert_eq!(found("#[allow(\n    clippy::x,\n)]\nfn f() {}"), 1);
    assert_eq!(
        found("#[allow(dead_code, reason = \"read by a macro\")]\nfn f() {}"),
        0
    );
    assert_eq!(found("// Read by a macro.\n#[allow(dead_code)]\nfn f() {}"), 0);
    assert_eq!(found("#[allow(dead_code)] // read by a macro\nfn f() {}"), 0);
    assert_eq!(found("fn f() { x.expect(\"it holds\"); #[cfg(test)] g(); }"), 0);
}

#[test]
fn a_crate_inherits_the_lints() {
    let inherits = package("a", "[lints]\nworkspace = true");
    assert!(files::lints_inherited(&inherits, "Cargo.toml").is_none());
    for bad in [
        "",
        "[lints]\nworkspace = false",
        "[lints.rust]\nunsafe_code = \"allow\"",
    ] {
        assert!(
            files::lints_inherited(&package("a", bad), "Cargo.toml").is_some(),
            "{bad}"
        );
    }
}

#[test]
fn a_crate_can_be_published_or_says_that_it_is_not() {
    let readme = ["crates/a/README.md".to_owned()];
    let found = |text: &str, files: &[String]| -> Vec<String> {
        let findings = manifests::publishable(&package("a", text), "Cargo.toml", files);
        findings.into_iter().map(|finding| finding.what).collect()
    };
    assert_eq!(found("[package]\npublish = false", &[]), [""; 0]);
    let whole = "[package]\ndescription = \"d\"\nlicense.workspace = true\nrepository.workspace = true\n\
                 rust-version.workspace = true\nkeywords = [\"k\"]\ncategories = [\"c\"]\n";
    assert_eq!(found(whole, &readme), [""; 0]);
    assert_eq!(found(whole, &[]), ["package \"a\" has no crates/a/README.md"]);
    for line in whole.lines().skip(1) {
        let findings = found(&whole.replace(line, ""), &readme);
        let key = line.split(['.', ' ']).next().unwrap_or_default();
        assert!(
            findings.len() == 1 && findings[0].contains(key),
            "{line}: {findings:?}"
        );
    }
    let many = whole.replace("[\"k\"]", "[\"1\", \"2\", \"3\", \"4\", \"5\", \"6\"]");
    assert_eq!(found(&many, &readme).len(), 1);
}

#[test]
fn the_own_crates_are_named_with_the_version_that_they_have() {
    let found = |line: &str| {
        let text = format!(
            "[workspace.package]\nversion = \"0.2.0\"\n[workspace.dependencies]\nserde = \"1\"\n{line}\n"
        );
        manifests::versions("Cargo.toml", &text).len()
    };
    assert_eq!(found("a = { path = \"a\", version = \"0.2.0\" }"), 0);
    assert_eq!(found("a = { path = \"a\", version = \"0.1.0\" }"), 1);
    assert_eq!(found("a = { path = \"a\" }"), 1);
}

#[test]
fn traces_of_one_machine_are_found() {
    let found = |name: &str, line: &str| leaks::check(name, line).len();
    for path in ["root", "home", "work", "Users"] {
        assert_eq!(found("a.md", &format!("see /{path}/someone/x")), 1, "{path}");
        assert_eq!(found("a.md", &format!("see docs/{path}/someone/x")), 0, "{path}");
    }
    assert_eq!(
        found(
            "a.toml",
            concat!("url = \"https://packages.acme.inter", "nal/index\"")
        ),
        1
    );
    assert_eq!(found("a.toml", concat!("url = \"http://10", ".0.0.7:8080\"")), 1);
    assert_eq!(
        found(
            "a.toml",
            concat!("url = \"https://name:secret", "@example.org/\"")
        ),
        1
    );
    assert_eq!(
        found(
            "a.md",
            "https://docs.rs/quinn, 127.0.0.1:7400, http://localhost:3000"
        ),
        0
    );
    assert_eq!(found("a.env", "DB=postgres://shop@db.internal/x"), 0);
    assert_eq!(
        found(
            "Cargo.lock",
            "source = \"registry+https://github.com/rust-lang/crates.io-index\""
        ),
        0
    );
    assert_eq!(found("Cargo.lock", "source = \"git+https://github.com/a/b\""), 1);
    assert_eq!(found(".cargo/config.toml", "[source.crates-io]"), 1);
    assert_eq!(found(".cargo/config.toml", "[alias]"), 0);
}

#[test]
fn functions_are_measured() {
    let source = Source::new(
        "fn a() {\n  b();\n}\ntrait T { fn d(&self); }\nfn e(x: [u8; 4]) -> fn(u8) {\n}\nfn f() {}\n",
    );
    let lengths: Vec<_> = sizes::functions(&source)
        .into_iter()
        .map(|(_, name, lines)| (name, lines))
        .collect();
    assert_eq!(lengths, [("a".into(), 3), ("e".into(), 2), ("f".into(), 1)]);
}

/// The whole task on a small workspace: clean at first, red once a pure crate imports a file system.
#[test]
fn the_task_fails_for_a_forbidden_import() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("can be made");
        std::fs::write(path, text).expect("can be written");
    };
    write("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n");
    write(
        "crates/trilemma-gossip/Cargo.toml",
        "[package]\nname = \"trilemma-gossip\"\npublish = false\n[lints]\nworkspace = true\n[dependencies]\ntrilemma-core.workspace = true\n",
    );
    write(
        "crates/trilemma-gossip/src/lib.rs",
        "//! Gossip.\nuse trilemma_core::Key;\n",
    );
    let workspace = Workspace {
        root: dir.path().into(),
    };
    let run = || {
        let packages = workspace.packages().expect("can be read");
        check(&workspace, &packages).expect("can be checked").0
    };
    assert!(run().is_empty(), "{:?}", run());

    write(
        "crates/trilemma-gossip/src/lib.rs",
        "//! Gossip.\nuse trilemma_core::Key;\nuse std::fs::File;\n",
    );
    let findings = run();
    assert_eq!(findings.len(), 1);
    let text = findings[0].to_string();
    assert!(
        text.starts_with("crates/trilemma-gossip/src/lib.rs:3: pure: `std::fs` in trilemma-gossip"),
        "{text}"
    );
    assert!(super::run(&workspace, &[]).is_err());
}
