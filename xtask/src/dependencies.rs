//! What `deny.toml` says about licences, banned crates and sources, checked from `cargo metadata`.
//!
//! This is the part of cargo-deny's work that needs no further program and no network, so that it runs everywhere and
//! at once; compiling cargo-deny takes longer than all other checks together. cargo-deny itself runs too where it is
//! installed: it also reads licence texts and knows advisories.

use crate::Outcome;
use crate::process::{self, cargo};
use crate::workspace::Workspace;

/// One package of the dependency tree.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    version: String,
    /// Its licence expression; empty if it states none.
    license: String,
    /// Where it comes from; `None` for the workspace's own.
    source: Option<String>,
}

/// What `deny.toml` allows and bans.
#[derive(Debug)]
struct Policy {
    allowed: Vec<String>,
    exceptions: Vec<(String, Vec<String>)>,
    banned: Vec<(String, String)>,
    registries: Vec<String>,
}

/// Checks the whole tree.
pub(crate) fn check(workspace: &Workspace) -> Outcome {
    let policy = Policy::parse(&workspace.read("deny.toml")?)?;
    let packages = packages(workspace)?;
    let problems = problems(&policy, &packages);
    for problem in &problems {
        println!("{problem}");
    }
    for name in duplicates(&packages) {
        println!("    note: {name}");
    }
    if problems.is_empty() {
        println!(
            "    {} packages: licences, bans and sources are as deny.toml says",
            packages.len()
        );
        Ok(())
    } else {
        Err(format!(
            "{} packages are not as deny.toml says, see above",
            problems.len()
        ))
    }
}

fn packages(workspace: &Workspace) -> Result<Vec<Package>, String> {
    let output = process::command(cargo())
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(&workspace.root)
        .output()
        .map_err(|error| format!("`cargo metadata`: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "`cargo metadata`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let listed = metadata["packages"]
        .as_array()
        .ok_or("`cargo metadata` lists no packages")?;
    let text = |package: &serde_json::Value, field: &str| package[field].as_str().map(str::to_owned);
    Ok(listed
        .iter()
        .map(|package| Package {
            name: text(package, "name").unwrap_or_default(),
            version: text(package, "version").unwrap_or_default(),
            license: text(package, "license").unwrap_or_default(),
            source: text(package, "source"),
        })
        .collect())
}

impl Policy {
    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| format!("deny.toml: {}", error.message()))?;
        let list = |section: &str, key: &str| -> Result<Vec<toml::Value>, String> {
            let value = table.get(section).and_then(|section| section.get(key));
            let array = value.and_then(toml::Value::as_array);
            array
                .cloned()
                .ok_or_else(|| format!("deny.toml: [{section}] has no list \"{key}\""))
        };
        let crate_of = |entry: &toml::Value| text_of(entry.get("crate"));
        let exceptions = list("licenses", "exceptions")?;
        Ok(Self {
            allowed: texts(&list("licenses", "allow")?),
            exceptions: exceptions
                .iter()
                .map(|entry| {
                    let allow = entry.get("allow").and_then(toml::Value::as_array);
                    (
                        crate_of(entry),
                        allow.map(|allow| texts(allow)).unwrap_or_default(),
                    )
                })
                .collect(),
            banned: list("bans", "deny")?
                .iter()
                .map(|entry| (crate_of(entry), text_of(entry.get("reason"))))
                .collect(),
            registries: texts(&list("sources", "allow-registry")?),
        })
    }

    /// Whether a package of this name may be under this licence.
    fn allows(&self, name: &str, license: &str) -> bool {
        let by_exception = |exceptions: &Vec<String>| exceptions.iter().any(|allowed| allowed == license);
        self.allowed.iter().any(|allowed| allowed == license)
            || self
                .exceptions
                .iter()
                .any(|(of, allow)| of == name && by_exception(allow))
    }
}

fn text_of(value: Option<&toml::Value>) -> String {
    value.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

fn texts(values: &[toml::Value]) -> Vec<String> {
    values
        .iter()
        .filter_map(toml::Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn problems(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let Package {
            name,
            version,
            license,
            source,
        } = package;
        if !satisfied(license, &|license| policy.allows(name, license)) {
            let license = if license.is_empty() {
                "none stated"
            } else {
                license
            };
            problems.push(format!(
                "{name} {version}: licence \"{license}\" is not allowed; see [licenses] in deny.toml"
            ));
        }
        if let Some((_, reason)) = policy.banned.iter().find(|(banned, _)| banned == name) {
            problems.push(format!(
                "{name} {version}: is banned ({reason}); `cargo tree --invert --package {name}` shows who brings it"
            ));
        }
        if let Some(source) = source {
            let known = policy
                .registries
                .iter()
                .any(|registry| source.ends_with(registry.as_str()));
            if !known || !source.starts_with("registry+") {
                problems.push(format!(
                    "{name} {version}: comes from {source}; see [sources] in deny.toml"
                ));
            }
        }
    }
    problems
}

fn duplicates(packages: &[Package]) -> Vec<String> {
    let mut sorted: Vec<(&str, &str)> = packages
        .iter()
        .map(|package| (&*package.name, &*package.version))
        .collect();
    sorted.sort_unstable();
    sorted
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|same| same.len() > 1)
        .map(|same| {
            let versions: Vec<&str> = same.iter().map(|(_, version)| *version).collect();
            format!("{} is there in versions {}", same[0].0, versions.join(", "))
        })
        .collect()
}

/// Whether a licence expression (SPDX: `AND` binds closer than `OR`; `/` is an old `OR`) can be met.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut next = 0;
    let met = alternatives(&tokens, &mut next, allowed);
    // Anything left over was not understood, and what is not understood is not allowed.
    met && !tokens.is_empty() && next == tokens.len()
}

fn alternatives(tokens: &[&str], next: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = conjunction(tokens, next, allowed);
    while tokens.get(*next) == Some(&"OR") {
        *next += 1;
        met |= conjunction(tokens, next, allowed);
    }
    met
}

fn conjunction(tokens: &[&str], next: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = license(tokens, next, allowed);
    while tokens.get(*next) == Some(&"AND") {
        *next += 1;
        met &= license(tokens, next, allowed);
    }
    met
}

fn license(tokens: &[&str], next: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    match tokens.get(*next) {
        Some(&"(") => {
            *next += 1;
            let met = alternatives(tokens, next, allowed);
            let closed = tokens.get(*next) == Some(&")");
            *next += usize::from(closed);
            met && closed
        }
        Some(id) => {
            *next += 1;
            if tokens.get(*next) == Some(&"WITH") {
                let exception = tokens.get(*next + 1).copied().unwrap_or_default();
                *next += 2;
                allowed(&format!("{id} WITH {exception}"))
            } else {
                // "This version or a later one": who allows this one can choose it.
                allowed(id.trim_end_matches('+'))
            }
        }
        None => false,
    }
}

#[cfg(test)]
mod tests;
