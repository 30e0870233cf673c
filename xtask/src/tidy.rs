//! `cargo xtask tidy`: the rules that the compiler cannot check.
//!
//! Each rule is a function from files to findings, with its own tests: one sample that must be found, one that must not.

mod advice;
mod files;
mod imitation;
mod layering;
mod leaks;
mod manifests;
mod pure;
mod sizes;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::source::Source;
use crate::workspace::{Package, Workspace};
use crate::{Outcome, flags};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask tidy [--sizes]

Checks, for every file of the project:
  layering   who depends on whom, in manifests and in source (ARCHITECTURE.md)
  manifests  a crate says what a registry asks for, and names the others with their version
  pure       protocol crates: no runtime, sockets, files, clocks, threads, ambient randomness, randomly seeded maps
  opening    every source file opens with `//!`
  unsafe     no `unsafe`, and every crate inherits the workspace's lints, which forbid it
  tests      no `#[ignore]`, no `#[should_panic]`
  unfinished no `todo!`, `unimplemented!`, `dbg!`
  imitation  simulator and fuzz targets run the shipped node and make no part of one themselves
  advice     no error text tells to destroy data
  exceptions every `#[allow]` and `#[expect]` has its reason beside it
  words      no retired words: one thing has one name, the field's
  leaks      no path or host of one machine

  --sizes    print the sizes of functions and files per package instead; reports, never fails";

/// One place where a rule is broken.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    pub(crate) file: String,
    /// The line, from 1.
    pub(crate) line: usize,
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// What was found.
    pub(crate) what: String,
    /// Why the rule is there.
    pub(crate) why: &'static str,
    /// How to put it right.
    pub(crate) fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}\n    why: {}\n    fix: {}",
            self.file, self.line, self.rule, self.what, self.why, self.fix
        )
    }
}

/// A source file with its name.
pub(crate) struct File {
    /// The name, relative to the root.
    pub(crate) name: String,
    /// Its contents.
    pub(crate) source: Source,
    /// Whether only a program has it as a module: `main.rs` declares it, `lib.rs` does not.
    pub(crate) of_program: bool,
}

impl File {
    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let in_folder = self.name.split('/').any(|part| part == "tests");
        in_folder || self.name.ends_with("/tests.rs")
    }

    /// Whether the byte at `offset` is test code.
    pub(crate) fn is_test_at(&self, offset: usize) -> bool {
        self.is_test() || self.source.in_inline_tests(offset)
    }

    /// Whether the file is the shell of a program, where a pure crate may touch the world.
    pub(crate) fn is_shell(&self) -> bool {
        self.of_program
            || self.name.ends_with("/src/main.rs")
            || self.name.contains("/src/bin/")
            || self.name.contains("/examples/")
    }
}

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let flags = flags(args, &["--sizes"])?;
    let packages = workspace.packages()?;
    if flags.contains(&"--sizes") {
        println!("{}", sizes::report(&packages, &sources(workspace)?));
        return Ok(());
    }
    let (findings, checked) = check(workspace, &packages)?;
    for finding in &findings {
        println!("{finding}\n");
    }
    if findings.is_empty() {
        println!(
            "tidy: {checked} files of {} packages checked, nothing found",
            packages.len()
        );
        Ok(())
    } else {
        Err(format!("tidy: {} findings, see above", findings.len()))
    }
}

/// Checks everything; returns the findings and the number of files.
pub(crate) fn check(workspace: &Workspace, packages: &[Package]) -> Result<(Vec<Finding>, usize), String> {
    let names = workspace.files()?;
    let mut findings = Vec::new();
    for package in packages {
        let file = format!("{}/Cargo.toml", package.dir);
        let text = workspace.read(&file)?;
        findings.extend(layering::manifest(package, &file, &text));
        findings.extend(files::lints_inherited(package, &file));
        findings.extend(manifests::publishable(package, &file, &names));
    }
    findings.extend(manifests::versions("Cargo.toml", &workspace.read("Cargo.toml")?));
    for file in sources(workspace)? {
        findings.extend(files::check(&file));
        findings.extend(advice::check(&file));
        findings.extend(words::source(&file));
        if let Some(package) = packages.iter().find(|package| package.holds(&file.name)) {
            findings.extend(layering::source(&package.name, &file));
            findings.extend(pure::check(&package.name, &file));
            findings.extend(imitation::check(&package.name, &file));
        }
    }
    for name in &names {
        let text = workspace.read(name)?;
        findings.extend(leaks::check(name, &text));
        if name.ends_with(".md") || name.ends_with(".toml") {
            findings.extend(words::page(name, &text));
        }
    }
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok((findings, names.len()))
}

fn sources(workspace: &Workspace) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for name in workspace.files()? {
        if name.ends_with(".rs") {
            files.push(File {
                source: Source::new(workspace.read(&name)?),
                name,
                of_program: false,
            });
        }
    }
    mark_programs(&mut files);
    Ok(files)
}

/// Finds the modules that a package's program has and its library does not.
fn mark_programs(files: &mut [File]) {
    let declared = |file: &File| -> BTreeSet<String> {
        let lines = file.source.code.lines();
        let modules = lines.filter_map(|line| line.trim().strip_suffix(';')?.split_once("mod "));
        modules.map(|(_, module)| module.to_owned()).collect()
    };
    let of = |name: &str| files.iter().find(|file| file.name == name).map(declared);
    let mut own = BTreeSet::new();
    for main in files.iter().filter(|file| file.name.ends_with("/src/main.rs")) {
        let folder = main.name.trim_end_matches("main.rs");
        let shared = of(&format!("{folder}lib.rs")).unwrap_or_default();
        own.extend(
            declared(main)
                .difference(&shared)
                .map(|module| format!("{folder}{module}")),
        );
    }
    for file in files {
        let stem = file.name.trim_end_matches(".rs");
        let above = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
        file.of_program = own.iter().any(above);
    }
}
