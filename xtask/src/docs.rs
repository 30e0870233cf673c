//! `cargo xtask docs`: keeps what the documentation says equal to what the code says.
//!
//! Parts between `<!-- generated: NAME -->` and `<!-- end generated -->` are written from `trilemma-core`. Links,
//! anchors and references to code (`path/to/file.rs::name`) are checked by hand-written rules, without a network. So
//! are the citations that zoo patches, tests and comments make of the design notes (`inside/raft#pre-vote`).

mod citations;
mod examples;
mod generated;
mod links;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::workspace::Workspace;
use crate::{Outcome, flags, process};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask docs [--check] [--build]

Rewrites the generated parts of the documentation, then checks that every relative link, every anchor and every
reference to code leads somewhere, that every heading of docs/src/inside/ that a zoo
patch, a test or a comment cites (inside/raft#pre-vote) exists, that the README's
example is the one that is compiled, that TOML parses, and that the tasks named exist.

  --check  rewrite nothing; fail if a generated part is out of date
  --build  build the book with mdbook too, if it is installed";

/// Pages by name, relative to the root.
type Pages = BTreeMap<String, String>;

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let flags = flags(args, &["--check", "--build"])?;
    let mut pages = pages(workspace)?;
    let mut problems = Vec::new();
    for (name, text) in &mut pages {
        let (new, wrong) = generated::rewrite(text);
        problems.extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
        if new == *text {
            continue;
        }
        if flags.contains(&"--check") {
            problems.push(format!(
                "{name}: a generated part is out of date; run `cargo xtask docs`"
            ));
        } else {
            std::fs::write(workspace.root.join(name), &new).map_err(|error| format!("{name}: {error}"))?;
            println!("{name}: rewritten");
        }
        *text = new;
    }
    let files = workspace.files()?;
    problems.extend(links::check(&pages, &files, |name| workspace.read(name)));
    problems.extend(citations::check(&pages, &files, |name| workspace.read(name)));
    let tasks: Vec<&str> = crate::TASKS.iter().map(|task| task.name).collect();
    problems.extend(examples::check(
        &pages,
        &workspace.read(examples::COMPILED)?,
        &tasks,
    ));
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        return Err(format!("docs: {} problems, see above", problems.len()));
    }
    println!(
        "docs: {} pages checked, generated parts are current, all links resolve",
        pages.len()
    );
    if flags.contains(&"--build") {
        build(workspace)?;
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Outcome {
    if process::works("mdbook", &["--version"]) {
        process::run(workspace, "mdbook", &["build", "docs"])
    } else {
        println!(
            "docs: the book was NOT built, mdbook is not installed; `cargo install --locked mdbook` installs it"
        );
        Ok(())
    }
}

/// The pages of the book, the documents beside the root manifest, and what each crate says of itself.
fn pages(workspace: &Workspace) -> Result<Pages, String> {
    workspace
        .files()?
        .into_iter()
        .filter(|name| name.ends_with(".md"))
        .map(|name| Ok((name.clone(), workspace.read(&name)?)))
        .collect()
}
