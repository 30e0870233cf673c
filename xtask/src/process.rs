//! Running other programs: always announced, never through a shell.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use crate::workspace::Workspace;

/// Cargo, as the one that runs this task.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A program to be started with what the user set for cargo, and without what cargo set for this task.
///
/// Cargo describes the package that it runs (`CARGO_MANIFEST_DIR`, `CARGO_PKG_NAME`, …) to the process it starts. Build
/// scripts watch these variables: were they handed on, an inner cargo would compile `ring` and everything above it
/// again, and the user's next cargo once more.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if describes_a_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether cargo sets this variable for the package that it runs. What users set (`CARGO_HOME`, `CARGO_TARGET_DIR`,
/// `CARGO_PROFILE_…`) is another matter.
fn describes_a_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(
            &*name,
            "CARGO" | "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
        )
}

/// Runs a program in the workspace's root, its output passed through; an error names the command.
pub(crate) fn run(
    workspace: &Workspace,
    program: impl Into<OsString>,
    args: &[impl AsRef<str>],
) -> Result<(), String> {
    run_with(workspace, program, args, &[])
}

/// As [`run`], with these variables set.
pub(crate) fn run_with(
    workspace: &Workspace,
    program: impl Into<OsString>,
    args: &[impl AsRef<str>],
    variables: &[(&str, &str)],
) -> Result<(), String> {
    let program = program.into();
    let set = variables.iter().map(|(name, value)| format!("{name}={value} "));
    let line = set.collect::<String>() + &shown(&program, args);
    println!("    $ {line}");
    let status = command(&program)
        .args(args.iter().map(AsRef::as_ref))
        .envs(variables.iter().copied())
        .current_dir(&workspace.root)
        .status()
        .map_err(|error| format!("`{line}`: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{line}` ended with {status}"))
    }
}

/// Whether `program args` can be run and ends well. Its output is dropped.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    command(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// What a program prints, if it can be run and ends well.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = command(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes sure that a compilation target is installed.
pub(crate) fn target_installed(workspace: &Workspace, target: &str) -> Result<(), String> {
    match output("rustup", &["target", "list", "--installed"]) {
        Some(targets) if targets.lines().any(|line| line == target) => Ok(()),
        Some(_) => run(workspace, "rustup", &["target", "add", target]),
        // Without rustup the target came with the toolchain or is missing; the build says which.
        None => Ok(()),
    }
}

fn shown(program: &OsString, args: &[impl AsRef<str>]) -> String {
    // The path of the toolchain's cargo says nothing to a reader who wants to repeat the command.
    let mut line = if *program == cargo() {
        "cargo".to_owned()
    } else {
        program.to_string_lossy().into_owned()
    };
    for arg in args {
        line.push(' ');
        line.push_str(arg.as_ref());
    }
    line
}

#[cfg(test)]
mod tests;
