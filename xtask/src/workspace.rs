//! The workspace as files: where its root is, which files belong to it, what its manifests say.

use std::path::{Path, PathBuf};

use crate::process::{self, cargo};

/// A checkout of the project.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
}

/// One package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// The name in its manifest.
    pub(crate) name: String,
    /// Its directory, relative to the root.
    pub(crate) dir: String,
    /// Its manifest, parsed.
    pub(crate) manifest: toml::Table,
}

impl Workspace {
    /// The workspace that this program was built in.
    pub(crate) fn find() -> Result<Self, String> {
        // Cargo sets the variable when it runs the task; a bare run of the binary knows the place it was built at.
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own.parent().map(Path::to_path_buf).unwrap_or_default();
        if !root.join("Cargo.toml").is_file() {
            return Err(format!(
                "{}: no Cargo.toml; run this as `cargo xtask` inside the repository",
                root.display()
            ));
        }
        Ok(Self { root })
    }

    /// Files that belong to the project, relative to the root, sorted: tracked ones, and new ones that are not ignored.
    pub(crate) fn files(&self) -> Result<Vec<String>, String> {
        let listed = process::command("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .output();
        let mut files = match listed {
            Ok(output) if output.status.success() && !output.stdout.is_empty() => {
                String::from_utf8_lossy(&output.stdout)
                    .split('\0')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
            // Not a git checkout (an unpacked archive): all files count but what tools generate.
            _ => self.walked()?,
        };
        files.retain(|name| self.root.join(name).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// All files below the root but what tools generate, whatever git thinks of them.
    pub(crate) fn walked(&self) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        walk(&self.root, "", &mut found)?;
        Ok(found)
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> Result<PathBuf, String> {
        let output = process::command(cargo())
            .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
            .current_dir(&self.root)
            .output()
            .map_err(|error| format!("`cargo metadata`: {error}"))?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        metadata["target_directory"]
            .as_str()
            .map(PathBuf::from)
            .ok_or_else(|| {
                let error = String::from_utf8_lossy(&output.stderr);
                format!("`cargo metadata` names no target directory: {}", error.trim())
            })
    }

    /// The text of a file, by its name relative to the root. Bytes that are no UTF-8 are replaced.
    pub(crate) fn read(&self, name: &str) -> Result<String, String> {
        let path = self.root.join(name);
        let bytes = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The packages, found by their manifests, sorted by directory.
    pub(crate) fn packages(&self) -> Result<Vec<Package>, String> {
        let mut packages = Vec::new();
        for file in self.files()? {
            let Some(dir) = file.strip_suffix("/Cargo.toml") else {
                continue;
            };
            let text = self.read(&file)?;
            let manifest: toml::Table = text
                .parse()
                .map_err(|error: toml::de::Error| format!("{file}: {}", error.message()))?;
            let name = manifest
                .get("package")
                .and_then(|package| package.get("name"))
                .and_then(toml::Value::as_str);
            if let Some(name) = name {
                packages.push(Package {
                    name: name.into(),
                    dir: dir.into(),
                    manifest,
                });
            }
        }
        Ok(packages)
    }
}

impl Package {
    /// Whether a file belongs to this package.
    pub(crate) fn holds(&self, file: &str) -> bool {
        file.strip_prefix(&self.dir)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let relative = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        let kind = entry
            .file_type()
            .map_err(|error| format!("{relative}: {error}"))?;
        let generated = [".git", "target", "docs/book", "data"].contains(&relative.as_str());
        if kind.is_dir() && !generated {
            walk(&entry.path(), &relative, found)?;
        } else if kind.is_file() {
            found.push(relative);
        }
    }
    Ok(())
}
