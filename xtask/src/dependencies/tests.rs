//! Licence expressions, bans and sources: what is found and what is not.

use super::{Package, Policy, duplicates, problems, satisfied};

const POLICY: &str = "\
[licenses]\nallow = [\"MIT\", \"Apache-2.0 WITH LLVM-exception\"]\nexceptions = [{ crate = \"maps\", allow = [\"MPL-2.0\"] }]\n\
[bans]\ndeny = [{ crate = \"openssl\", reason = \"one provider\" }]\n\
[sources]\nallow-registry = [\"https://github.com/rust-lang/crates.io-index\"]\n";

fn package(name: &str, license: &str) -> Package {
    Package {
        name: name.into(),
        version: "1.0.0".into(),
        license: license.into(),
        source: Some("registry+https://github.com/rust-lang/crates.io-index".into()),
    }
}

fn found(package: Package) -> String {
    let policy = Policy::parse(POLICY).expect("the sample is a policy");
    problems(&policy, &[package]).join("\n")
}

#[test]
fn licence_expressions_are_understood() {
    let mit = |license: &str| license == "MIT";
    for met in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND MIT",
        "(GPL-3.0 OR MIT) AND MIT",
        "GPL-3.0 AND GPL-3.0 OR MIT",
    ] {
        assert!(satisfied(met, &mit), "{met}");
    }
    for unmet in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND GPL-3.0",
        "(MIT",
        "MIT GPL-3.0",
        "OR",
    ] {
        assert!(!satisfied(unmet, &mit), "{unmet}");
    }
}

#[test]
fn only_what_is_allowed_passes() {
    assert_eq!(found(package("a", "MIT")), "");
    assert_eq!(found(package("a", "Apache-2.0 WITH LLVM-exception")), "");
    assert_eq!(found(package("maps", "MPL-2.0")), "");
    assert_eq!(found(package("maps", "MPL-2.0+")), "");
    assert!(found(package("a", "MPL-2.0")).contains("a 1.0.0: licence \"MPL-2.0\" is not allowed"));
    assert!(found(package("a", "")).contains("none stated"));
    assert!(found(package("openssl", "MIT")).contains("is banned (one provider)"));
    let elsewhere = Package {
        source: Some("git+https://github.com/a/b".into()),
        ..package("a", "MIT")
    };
    assert!(found(elsewhere).contains("comes from git+https://github.com/a/b"));
    let ours = Package {
        source: None,
        ..package("a", "MIT")
    };
    assert_eq!(found(ours), "");
}

#[test]
fn a_policy_that_lacks_a_list_is_an_error() {
    assert!(Policy::parse("[licenses]\nallow = []").is_err());
}

#[test]
fn two_versions_are_noted() {
    let newer = Package {
        version: "2.0.0".into(),
        ..package("a", "MIT")
    };
    assert_eq!(
        duplicates(&[newer, package("a", "MIT"), package("b", "MIT")]),
        ["a is there in versions 1.0.0, 2.0.0"]
    );
}
