//! Traces of one machine: paths and hosts that mean nothing, or too much, elsewhere.

use super::Finding;

const WHY: &str = "a path or host of one machine breaks every other one, and tells strangers about it";

/// Beginnings of paths below which only one machine's files live. Put together here, so that this file has none.
const PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/t-"),
    concat!("C:\\Us", "ers\\"),
];

/// Where packages come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks one file of any kind.
pub(super) fn check(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let found = path(line)
            .map(|path| {
                (
                    format!("a path of one machine, \"{path}…\""),
                    "use a path relative to the file, or a temporary directory",
                )
            })
            .or_else(|| {
                host(line).map(|host| {
                    (
                        format!("a host that others cannot reach, \"{host}\""),
                        "name a public host, or take it out",
                    )
                })
            })
            .or_else(|| {
                registry(name, line).map(|source| {
                    (
                        format!("packages from \"{source}\""),
                        "all packages come from crates.io",
                    )
                })
            });
        if let Some((what, fix)) = found {
            findings.push(Finding {
                file: name.into(),
                line: index + 1,
                rule: "leaks",
                what,
                why: WHY,
                fix: fix.into(),
            });
        }
    }
    findings
}

fn path(line: &str) -> Option<&'static str> {
    PATHS.iter().copied().find(|path| {
        line.match_indices(path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '/' | '*' | '$'))
        })
    })
}

/// A host in a web address (of a registry, a page, a mirror) that is private by its form.
fn host(line: &str) -> Option<&str> {
    const PRIVATE: &[&str] = &["10.", "192.168.", "172.16.", "169.254."];
    const ENDINGS: &[&str] = &[".internal", ".local", ".corp", ".lan", ".intranet"];
    line.match_indices("://").find_map(|(at, _)| {
        if !line[..at].ends_with("http") && !line[..at].ends_with("https") {
            return None;
        }
        let rest = &line[at + 3..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':')));
        let host = &rest[..end.unwrap_or(rest.len())];
        let bare = host.rsplit('@').next().unwrap_or(host);
        let bare = bare.split(':').next().unwrap_or(bare);
        let private = PRIVATE.iter().any(|start| bare.starts_with(start))
            || ENDINGS.iter().any(|ending| bare.ends_with(ending));
        (private || host.contains('@')).then_some(host)
    })
}

/// A package source other than crates.io: in the lock file, or set up in cargo's configuration.
fn registry<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    let line = line.trim();
    if name.ends_with("Cargo.lock") {
        let source = line.strip_prefix("source = \"")?.trim_end_matches('"');
        return (source != REGISTRY).then_some(source);
    }
    let configures =
        name.starts_with(".cargo/") && (line.starts_with("[source") || line.starts_with("[registr"));
    configures.then_some(line)
}
