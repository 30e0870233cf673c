//! Which of cargo's messages tell that a foreign crate was compiled.

use super::compiled;

#[test]
fn a_foreign_crate_that_was_not_there_yet_is_named() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index#ring@0.17.14";
    let artifact = |package: &str, reused: bool| {
        format!("{{\"reason\":\"compiler-artifact\",\"package_id\":\"{package}\",\"fresh\":{reused}}}")
    };
    let messages = [
        artifact(registry, true),
        artifact("path+file:///x/crates/trilemma-core#0.1.0", false),
        format!("{{\"reason\":\"build-script-executed\",\"package_id\":\"{registry}\"}}"),
        "not JSON".to_owned(),
    ];
    assert_eq!(compiled(&messages.join("\n")), [""; 0]);
    assert_eq!(compiled(&artifact(registry, false)), [registry]);
}
