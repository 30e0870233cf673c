//! The copy of the tree that patches are applied to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::patch::Patch;
use crate::process;
use crate::workspace::Workspace;

/// A copy of the work tree, in a folder of its own.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

/// How a patch went in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fit {
    /// Every line was where the patch says, or moved as a whole.
    Exact,
    /// Lines around a change differ from those of the patch.
    Loose,
}

/// What the files of a patch held before it; `None`: there was no such file.
#[derive(Debug)]
pub(super) struct Before(BTreeMap<String, Option<Vec<u8>>>);

impl Tree {
    /// Copies the work tree to `root`. What is there already and equal is left alone, so that cargo builds only what
    /// changed; what does not belong there goes.
    pub(super) fn copy(workspace: &Workspace, root: &Path) -> Result<Self, String> {
        let files: BTreeSet<String> = workspace.files()?.into_iter().collect();
        create(root)?;
        // Git stops looking for a repository at the canonical form of a path.
        let root = root
            .canonicalize()
            .map_err(|error| format!("{}: {error}", root.display()))?;
        let tree = Self { root };
        let old = Workspace {
            root: tree.root.clone(),
        };
        for name in old.walked()? {
            if !files.contains(&name) {
                tree.remove(&name)?;
            }
        }
        for name in &files {
            let from = workspace.root.join(name);
            let bytes = std::fs::read(&from).map_err(|error| format!("{name}: {error}"))?;
            if tree.read(name)?.as_ref() != Some(&bytes) {
                tree.write(name, &bytes)?;
            }
        }
        Ok(tree)
    }

    /// The copy as a workspace, to build it.
    pub(super) fn workspace(&self) -> Workspace {
        Workspace {
            root: self.root.clone(),
        }
    }

    /// Whether a patch applies, and how. Changes nothing.
    pub(super) fn fits(&self, patch: &Patch) -> Result<Fit, String> {
        let strict = self.git(patch, &["--check"]);
        match strict {
            Ok(()) => Ok(Fit::Exact),
            Err(why) => self
                .patch(patch, &["--dry-run"])
                .map(|()| Fit::Loose)
                .map_err(|_| why),
        }
    }

    /// Applies a patch; returns what its files held before. Nothing is changed if it does not apply.
    pub(super) fn apply(&self, patch: &Patch) -> Result<(Fit, Before), String> {
        let fit = self.fits(patch)?;
        let mut before = BTreeMap::new();
        for name in &patch.files {
            before.insert(name.clone(), self.read(name)?);
        }
        let before = Before(before);
        let applied = match fit {
            Fit::Exact => self.git(patch, &[]),
            Fit::Loose => self.patch(patch, &[]),
        };
        match applied {
            Ok(()) => Ok((fit, before)),
            Err(why) => {
                self.restore(&before)?;
                Err(why)
            }
        }
    }

    /// Undoes a patch. Files get new times, since cargo judges by them.
    pub(super) fn restore(&self, before: &Before) -> Result<(), String> {
        for (name, bytes) in &before.0 {
            match bytes {
                Some(bytes) => self.write(name, bytes)?,
                None => self.remove(name)?,
            }
        }
        Ok(())
    }

    fn git(&self, patch: &Patch, args: &[&str]) -> Result<(), String> {
        let mut command = process::command("git");
        // The copy lies inside the repository's own build folder. There git would take the patch to be about the
        // repository, find nothing of it below this folder, and report success.
        command.env(
            "GIT_CEILING_DIRECTORIES",
            self.root.parent().unwrap_or(&self.root),
        );
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(variable);
        }
        command
            .args(["apply", "--whitespace=nowarn", "-p1"])
            .args(args)
            .arg("-");
        self.feed(command, patch)
    }

    /// The older program, which also takes patches whose surroundings have changed, and works without git.
    fn patch(&self, patch: &Patch, args: &[&str]) -> Result<(), String> {
        let mut command = process::command("patch");
        command.args([
            "-p1",
            "--batch",
            "--forward",
            "--silent",
            "--no-backup-if-mismatch",
            "--reject-file=-",
        ]);
        command.args(args);
        self.feed(command, patch)
    }

    /// Runs a program in the copy, with the patch as its input.
    fn feed(&self, mut command: Command, patch: &Patch) -> Result<(), String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| format!("`{name}`: {error}");
        let input = tempfile(&self.root, &patch.text)?;
        let stdin = std::fs::File::open(&input).map_err(failed)?;
        let output = command
            .current_dir(&self.root)
            .stdin(Stdio::from(stdin))
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stderr, output.stdout].concat();
        Err(String::from_utf8_lossy(&text).trim().replace('\n', "; "))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match std::fs::read(self.root.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.root.join(name);
        create(path.parent().unwrap_or(&self.root))?;
        std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        match std::fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{name}: {error}")),
            _ => Ok(()),
        }
    }
}

fn create(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Writes the patch beside the copy, from where it is fed to the programs: a pipe could fill up.
fn tempfile(root: &Path, text: &str) -> Result<PathBuf, String> {
    let path = root.with_extension("patch");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
