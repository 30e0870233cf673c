//! Running other programs: always announced, never through a shell.

use std::ffi::OsString;
use std::process::Command;

use crate::workspace::Workspace;

/// Cargo, as the one that runs this task.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a program in the workspace's root, its output passed through; an error names the command.
pub(crate) fn run(
    workspace: &Workspace,
    program: impl Into<OsString>,
    args: &[impl AsRef<str>],
) -> Result<(), String> {
    let program = program.into();
    let line = shown(&program, args);
    println!("    $ {line}");
    let status = Command::new(&program)
        .args(args.iter().map(AsRef::as_ref))
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
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// What a program prints, if it can be run and ends well.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
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
