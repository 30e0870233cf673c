//! What a manifest says to those who find the crate in a registry.

use super::Finding;
use crate::workspace::Package;

const WHY: &str = "a registry refuses or hides a crate that does not say what it is";
/// Words under which a registry files a crate.
const KEYWORDS_MAX: usize = 5;

/// Checks that a crate can be published, or says that it is not.
pub(super) fn publishable(package: &Package, file: &str, files: &[String]) -> Vec<Finding> {
    let table = package.manifest.get("package");
    let get = |key: &str| table.and_then(|table| table.get(key));
    if get("publish").and_then(toml::Value::as_bool) == Some(false) {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for key in ["description", "license", "repository", "rust-version"] {
        if get(key).is_none() {
            missing.push(key.to_owned());
        }
    }
    for key in ["keywords", "categories"] {
        let count = get(key).and_then(toml::Value::as_array).map_or(0, Vec::len);
        if count == 0 || count > KEYWORDS_MAX {
            missing.push(format!("{key} (1 to {KEYWORDS_MAX}, not {count})"));
        }
    }
    let readme = format!("{}/README.md", package.dir);
    if !files.contains(&readme) {
        missing.push(readme);
    }
    missing
        .into_iter()
        .map(|what| Finding {
            file: file.into(),
            line: 1,
            rule: "manifests",
            what: format!("package \"{}\" has no {what}", package.name),
            why: WHY,
            fix: "add it, or `publish = false` if nobody outside shall depend on the crate".into(),
        })
        .collect()
}

/// Checks that the workspace's own crates are named with the version that they have: without it, or with another one,
/// nothing that depends on them can be published.
pub(super) fn versions(file: &str, text: &str) -> Vec<Finding> {
    let Ok(manifest) = text.parse::<toml::Table>() else {
        // Cargo says what is wrong with it.
        return Vec::new();
    };
    let workspace = manifest.get("workspace");
    let version = workspace
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str())
        .unwrap_or_default();
    let dependencies = workspace.and_then(|workspace| workspace.get("dependencies")?.as_table());
    let mut findings = Vec::new();
    for (name, dependency) in dependencies.into_iter().flatten() {
        if dependency.get("path").is_none() {
            continue;
        }
        let named = dependency.get("version").and_then(toml::Value::as_str);
        if named != Some(version) {
            findings.push(Finding {
                file: file.into(),
                line: super::layering::line_of(text, name),
                rule: "manifests",
                what: format!("{name} is named with version {}", named.unwrap_or("none")),
                why: "who depends on it is published with this version, which must be there",
                fix: format!("write `version = \"{version}\"`, as [workspace.package] has it"),
            });
        }
    }
    findings
}
