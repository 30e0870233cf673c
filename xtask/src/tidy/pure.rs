//! Pure crates: what they must not touch, so that the same code runs in production, in the simulator and in a browser.

use super::{File, Finding};

/// Crates whose every effect goes through their caller.
const PURE: &[&str] = &[
    "trilemma-client",
    "trilemma-core",
    "trilemma-gossip",
    "trilemma-membership",
    "trilemma-node",
    "trilemma-paxos",
    "trilemma-raft",
    "trilemma-two-phase",
    "trilemma-check",
    "trilemma-sim",
    "trilemma-testkit",
];

/// Something that a pure crate must not name.
struct Ban {
    /// The path or word.
    name: &'static str,
    /// Why.
    why: &'static str,
    /// What to do instead.
    fix: &'static str,
    /// Where it is allowed nonetheless.
    except: Except,
}

#[derive(PartialEq)]
enum Except {
    /// Nowhere.
    Nowhere,
    /// In the program around a pure library (`main.rs`, `bin/`, `examples/`).
    Shell,
    /// There, and in tests.
    ShellAndTests,
}

const REPLAY: &str = "a run must be a function of its inputs, or a seed replays nothing";
const WORLD: &str = "the crate must also run in the simulator and in a browser, where there is none";
const EFFECTS: &str = "take it as an input, give it back as an effect; the runtime talks to the world";

const BANS: &[Ban] = &[
    Ban {
        name: "tokio",
        why: WORLD,
        fix: EFFECTS,
        except: Except::Nowhere,
    },
    Ban {
        name: "quinn",
        why: WORLD,
        fix: EFFECTS,
        except: Except::Nowhere,
    },
    Ban {
        name: "std::net",
        why: WORLD,
        fix: "name peers by NodeId; the runtime sends",
        except: Except::Nowhere,
    },
    Ban {
        name: "std::fs",
        why: WORLD,
        fix: "append records; the runtime writes them",
        except: Except::ShellAndTests,
    },
    Ban {
        name: "std::thread",
        why: REPLAY,
        fix: "one step at a time; the driver owns the thread",
        except: Except::Shell,
    },
    Ban {
        name: "std::process",
        why: WORLD,
        fix: EFFECTS,
        except: Except::Shell,
    },
    Ban {
        name: "std::time::Instant",
        why: REPLAY,
        fix: "use trilemma_core::Instant, the `now` of the step",
        except: Except::Shell,
    },
    Ban {
        name: "Instant::now",
        why: REPLAY,
        fix: "use the `now` that the step was given",
        except: Except::Shell,
    },
    Ban {
        name: "SystemTime",
        why: REPLAY,
        fix: "take the wall clock as an input",
        except: Except::Shell,
    },
    Ban {
        name: "HashMap",
        why: "its order differs from run to run",
        fix: "use BTreeMap or trilemma_core::tree::Tree",
        except: Except::Nowhere,
    },
    Ban {
        name: "HashSet",
        why: "its order differs from run to run",
        fix: "use BTreeSet or trilemma_core::tree::Tree",
        except: Except::Nowhere,
    },
    Ban {
        name: "RandomState",
        why: REPLAY,
        fix: "use ordered collections",
        except: Except::Nowhere,
    },
    Ban {
        name: "rand",
        why: REPLAY,
        fix: "use trilemma_core::Rng with the seed of the configuration",
        except: Except::Nowhere,
    },
    Ban {
        name: "getrandom",
        why: REPLAY,
        fix: "use trilemma_core::Rng with the seed of the configuration",
        except: Except::Nowhere,
    },
    Ban {
        name: "println!",
        why: "a library prints nothing",
        fix: "return it, or use tracing",
        except: Except::ShellAndTests,
    },
    Ban {
        name: "print!",
        why: "a library prints nothing",
        fix: "return it, or use tracing",
        except: Except::ShellAndTests,
    },
    Ban {
        name: "eprintln!",
        why: "a library prints nothing",
        fix: "return it, or use tracing",
        except: Except::ShellAndTests,
    },
];

impl Ban {
    fn excepts(&self, file: &File, at: usize) -> bool {
        match self.except {
            Except::Nowhere => false,
            Except::Shell => file.is_shell(),
            Except::ShellAndTests => file.is_shell() || file.is_test_at(at),
        }
    }

    /// Whether the banned name at `at` is the thing itself: crates only as the first word of a path.
    fn meant(&self, code: &str, at: usize) -> bool {
        let is_crate = ["tokio", "quinn", "rand", "getrandom"].contains(&self.name);
        let is_path = code[at + self.name.len()..].trim_start().starts_with("::");
        let is_inner = code[..at].trim_end().ends_with("::") && !code[..at].trim_end().ends_with(" ::");
        !is_crate || (is_path && !is_inner)
    }
}

/// Checks one file of `package`.
pub(super) fn check(package: &str, file: &File) -> Vec<Finding> {
    if !PURE.contains(&package) {
        return Vec::new();
    }
    let imports = file.source.imports();
    let mut findings: Vec<Finding> = Vec::new();
    for ban in BANS {
        let direct = file
            .source
            .find_word(ban.name)
            .filter(|at| ban.meant(&file.source.code, *at));
        let imported = imports.iter().filter_map(|(at, path)| {
            let rest = path.strip_prefix(ban.name)?;
            (rest.is_empty() || rest.starts_with("::")).then_some(*at)
        });
        let mut lines: Vec<usize> = direct
            .chain(imported)
            .filter(|at| !ban.excepts(file, *at))
            .map(|at| file.source.line_of(at))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        findings.extend(lines.into_iter().map(|line| Finding {
            file: file.name.clone(),
            line,
            rule: "pure",
            what: format!("`{}` in {package}, a pure crate", ban.name),
            why: ban.why,
            fix: ban.fix.into(),
        }));
    }
    findings
}
