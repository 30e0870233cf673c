//! Who may depend on whom. The table is the one of ARCHITECTURE.md; cargo does not know it, so it is checked here.

use super::{File, Finding};
use crate::workspace::Package;

const WHY: &str =
    "protocols stay pure and interchangeable only while nobody reaches around the layers (ARCHITECTURE.md)";

/// What one package may depend on.
struct Layer {
    name: &'static str,
    /// Packages of this workspace.
    may: &'static [&'static str],
    /// Further ones for its tests.
    tests_may: &'static [&'static str],
    /// Foreign crates that it must not have, not even in tests.
    never: &'static [&'static str],
}

const CORE: &str = "trilemma-core";
const CLIENT: &str = "trilemma-client";
const MEMBERSHIP: &str = "trilemma-membership";
const NODE: &str = "trilemma-node";
const CHECK: &str = "trilemma-check";
const TESTKIT: &str = "trilemma-testkit";
/// What brings a world into a crate that has none.
const WORLD: &[&str] = &[
    "tokio",
    "quinn",
    "quinn-proto",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "rand",
    "getrandom",
    "rustls",
];
/// What the facade hides.
const BELOW_FACADE: &[&str] = &["quinn", "quinn-proto", "rustls", "rcgen", "postcard"];

const LAYERS: &[Layer] = &[
    Layer {
        name: CORE,
        may: &[],
        tests_may: &[],
        never: WORLD,
    },
    Layer {
        name: "trilemma-gossip",
        may: &[CORE],
        tests_may: &[CHECK, MEMBERSHIP, TESTKIT],
        never: WORLD,
    },
    Layer {
        name: MEMBERSHIP,
        may: &[CORE],
        tests_may: &[],
        never: WORLD,
    },
    Layer {
        name: "trilemma-paxos",
        may: &[CORE],
        tests_may: &[CHECK, TESTKIT],
        never: WORLD,
    },
    Layer {
        name: "trilemma-raft",
        may: &[CORE],
        tests_may: &[CHECK, TESTKIT],
        never: WORLD,
    },
    Layer {
        name: "trilemma-two-phase",
        may: &[CORE],
        tests_may: &[CHECK, TESTKIT],
        never: WORLD,
    },
    Layer {
        name: CLIENT,
        may: &[CORE],
        tests_may: &[TESTKIT],
        never: WORLD,
    },
    Layer {
        name: CHECK,
        may: &[CORE],
        tests_may: &[],
        never: WORLD,
    },
    Layer {
        name: TESTKIT,
        may: &[CORE],
        tests_may: &[],
        never: WORLD,
    },
    Layer {
        name: "trilemma-storage",
        may: &[CORE],
        tests_may: &[TESTKIT],
        never: &["tokio", "quinn", "rustls"],
    },
    Layer {
        name: "trilemma-transport",
        may: &[CORE],
        tests_may: &[],
        never: &[],
    },
    Layer {
        name: "trilemma-sim",
        may: &[
            CORE,
            "trilemma-gossip",
            "trilemma-paxos",
            "trilemma-raft",
            "trilemma-two-phase",
            CHECK,
            CLIENT,
            NODE,
            "trilemma-storage",
        ],
        tests_may: &[],
        never: WORLD,
    },
    Layer {
        name: "trilemma-node",
        may: &[
            CORE,
            MEMBERSHIP,
            "trilemma-gossip",
            "trilemma-paxos",
            "trilemma-raft",
            "trilemma-two-phase",
            // The log is pure over its `Disk` trait.
            "trilemma-storage",
        ],
        tests_may: &[TESTKIT],
        never: WORLD,
    },
    Layer {
        name: "trilemma-runtime",
        may: &[CORE, CLIENT, NODE, "trilemma-storage", "trilemma-transport"],
        tests_may: &[CHECK, "trilemma-sim", TESTKIT],
        never: &[],
    },
    Layer {
        name: "trilemma",
        may: &[CORE, CLIENT, "trilemma-runtime"],
        tests_may: &[CHECK],
        never: &[],
    },
    Layer {
        name: "trilemma-server",
        // The checkers are a leaf: they judge files and know no node, so there is nothing of the facade to go round. Of
        // gossip only the predictor is used: numbers in, numbers out.
        may: &["trilemma", CHECK, "trilemma-gossip"],
        tests_may: &[],
        never: BELOW_FACADE,
    },
    Layer {
        name: "trilemma-fuzz",
        may: &[
            CORE,
            "trilemma-gossip",
            "trilemma-paxos",
            "trilemma-raft",
            "trilemma-two-phase",
            NODE,
            "trilemma-storage",
        ],
        // Every decoder is a target.
        tests_may: &["trilemma", CHECK, CLIENT, MEMBERSHIP, "trilemma-transport"],
        never: &[],
    },
    Layer {
        name: "trilemma-benches",
        // The cores alone are measured, too; node and transport name what they may hold.
        may: &[
            "trilemma",
            CORE,
            "trilemma-gossip",
            "trilemma-node",
            "trilemma-paxos",
            "trilemma-raft",
            "trilemma-transport",
            "trilemma-two-phase",
        ],
        tests_may: &[],
        never: &[],
    },
    Layer {
        name: "xtask",
        may: &[CORE],
        tests_may: &[],
        never: WORLD,
    },
];

fn layer(package: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == package)
}

impl Layer {
    fn allowed(&self, tests: bool) -> String {
        let mut names: Vec<&str> = self.may.to_vec();
        if tests {
            names.extend(self.tests_may);
        }
        if names.is_empty() {
            "no package of the workspace".into()
        } else {
            names.join(", ")
        }
    }

    fn permits(&self, name: &str, tests: bool) -> bool {
        // A package's own integration tests and programs name it from outside.
        name == self.name || self.may.contains(&name) || (tests && self.tests_may.contains(&name))
    }
}

/// Checks the dependencies that a manifest declares, those of targets and tests included.
pub(super) fn manifest(package: &Package, file: &str, text: &str) -> Vec<Finding> {
    let Some(layer) = layer(&package.name) else {
        return vec![Finding {
            file: file.into(),
            line: 1,
            rule: "layering",
            what: format!("package \"{}\" has no place in the layering", package.name),
            why: WHY,
            fix: "add it to LAYERS in xtask/src/tidy/layering.rs and to ARCHITECTURE.md".into(),
        }];
    };
    let mut findings = Vec::new();
    let mut tables = vec![&package.manifest];
    if let Some(targets) = package.manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    for table in tables {
        for (section, tests) in [
            ("dependencies", false),
            ("build-dependencies", false),
            ("dev-dependencies", true),
        ] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (key, value) in dependencies {
                // A renamed dependency is what it is, not what it is called.
                let name = value.get("package").and_then(toml::Value::as_str).unwrap_or(key);
                let ours = name == "trilemma" || name.starts_with("trilemma-") || name == "xtask";
                let wrong = if ours {
                    !layer.permits(name, tests)
                } else {
                    layer.never.contains(&name)
                };
                if wrong {
                    let fix = if ours {
                        format!("{} may depend on {}", layer.name, layer.allowed(tests))
                    } else {
                        format!(
                            "{} must do without it; what needs it belongs into a crate above",
                            layer.name
                        )
                    };
                    findings.push(Finding {
                        file: file.into(),
                        line: line_of(text, key),
                        rule: "layering",
                        what: format!("{} has {name} among its {section}", layer.name),
                        why: WHY,
                        fix,
                    });
                }
            }
        }
    }
    findings
}

pub(super) fn line_of(manifest: &str, key: &str) -> usize {
    let found = manifest.lines().position(|line| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    });
    found.map_or(1, |line| line + 1)
}

/// Checks the packages that a source file names, whatever the manifest calls them.
pub(super) fn source(package: &str, file: &File) -> Vec<Finding> {
    let Some(layer) = layer(package) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for other in LAYERS {
        let ident = other.name.replace('-', "_");
        for at in file.source.find_word(&ident) {
            let path = file.source.code[at + ident.len()..]
                .trim_start()
                .starts_with("::");
            let tests = file.is_test_at(at);
            let local = file.source.code[..at].trim_end().ends_with("::");
            if path && !local && !layer.permits(other.name, tests) {
                findings.push(Finding {
                    file: file.name.clone(),
                    line: file.source.line_of(at),
                    rule: "layering",
                    what: format!("{package} uses {}", other.name),
                    why: WHY,
                    fix: format!("{package} may use {}", layer.allowed(tests)),
                });
            }
        }
    }
    findings
}
