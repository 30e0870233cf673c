//! What a started program learns about the one that starts it.

use std::ffi::OsStr;

use super::command;
use crate::workspace::Workspace;

#[test]
fn a_started_program_does_not_learn_for_which_package_cargo_started_this_one() {
    // Cargo runs this test, so it has described this package in the environment.
    let described: Vec<_> = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_"))
        .chain([
            "CARGO_MANIFEST_DIR".into(),
            "CARGO_MANIFEST_PATH".into(),
            "CARGO".into(),
        ])
        .collect();
    assert!(described.len() > 10, "cargo describes the package: {described:?}");
    let command = command("cargo");
    for name in &described {
        let removed = command
            .get_envs()
            .any(|(variable, value)| variable == *name && value.is_none());
        assert!(
            removed,
            "{name:?} is handed on: a build script that watches it runs again"
        );
    }
}

#[test]
fn what_the_user_tells_cargo_is_handed_on() {
    for name in [
        "CARGO_HOME",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_JOBS",
        "CARGO_PROFILE_RELEASE_LTO",
        "PATH",
    ] {
        assert!(!super::describes_a_package(OsStr::new(name)), "{name}");
    }
}

#[test]
fn every_program_is_started_through_this_module() {
    let workspace = Workspace::find().expect("the workspace is found");
    let files = workspace.files().expect("the files are listed");
    let own = files.iter().filter(|name| {
        name.starts_with("xtask/src/") && name.ends_with(".rs") && !name.starts_with("xtask/src/process")
    });
    for name in own {
        let text = workspace.read(name).expect("the file is read");
        assert!(!text.contains("Command::new("), "{name}: use process::command");
    }
}
