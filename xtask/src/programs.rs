//! Building the workspace's own programs.
//!
//! Always selected from the whole workspace: cargo enables the features that the *selected* packages ask for, so a
//! `--package` here would compile foreign crates a second time, with fewer features than `cargo build` gave them.

use std::path::PathBuf;

use crate::Outcome;
use crate::process::{self, cargo};
use crate::workspace::Workspace;

/// The arguments that make cargo build programs, after the name of its command.
pub(crate) fn selection<'a>(profile: &'a str, programs: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--locked", "--workspace", "--profile", profile];
    for program in programs {
        args.extend(["--bin", program]);
    }
    args
}

/// Builds programs; returns the folder that they are in.
pub(crate) fn build(workspace: &Workspace, profile: &str, programs: &[&str]) -> Result<PathBuf, String> {
    let args = [vec!["build"], selection(profile, programs)].concat();
    process::run(workspace, cargo(), &args)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(workspace.target()?.join(folder))
}

/// The file's name of a program.
pub(crate) fn file_name(program: &str) -> String {
    format!("{program}{}", std::env::consts::EXE_SUFFIX)
}

/// Checks that after `cargo build --workspace` neither `cargo run` nor a task compiles a foreign crate.
///
/// With `cargo check`, which looks at the same features and build scripts, and takes less time.
pub(crate) fn check_reuse(workspace: &Workspace) -> Outcome {
    process::run(workspace, cargo(), &["check", "--locked", "--workspace"])?;
    let run = vec!["--locked", "--bin", "trilemma"];
    for selection in [
        run,
        selection("dev", &["trilemma", "bench"]),
        selection("dev", &["trilemma-sim"]),
    ] {
        let shown = selection.join(" ");
        let output = process::command(cargo())
            .args(["check", "--message-format", "json"])
            .args(&selection)
            .current_dir(&workspace.root)
            .output()
            .map_err(|error| format!("`cargo check`: {error}"))?;
        if !output.status.success() {
            return Err(format!("`cargo check {shown}` ended with {}", output.status));
        }
        let compiled = compiled(&String::from_utf8_lossy(&output.stdout));
        if !compiled.is_empty() {
            return Err(format!(
                "`cargo check {shown}` compiled again: {}",
                compiled.join(", ")
            ));
        }
    }
    Ok(())
}

/// The foreign crates that were compiled, by cargo's messages.
fn compiled(messages: &str) -> Vec<String> {
    let message = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    messages
        .lines()
        .filter_map(message)
        .filter(|message| message["reason"] == "compiler-artifact" && message["fresh"] == false)
        .filter_map(|message| message["package_id"].as_str().map(str::to_owned))
        .filter(|package| package.starts_with("registry+"))
        .collect()
}

#[cfg(test)]
mod tests;
