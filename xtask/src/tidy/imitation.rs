//! The node under test is the shipped node: the simulator and the fuzz targets name nothing of what a node is made of.

use super::{File, Finding};

const WHY: &str =
    "what is imitated instead of run is not tested; copies drift, and bugs sit where they differ";
const FIX: &str =
    "let `trilemma_node::Node`, `trilemma_node::recover` or `trilemma_storage::WriteQueue` do it";

/// The simulator, and the fuzz targets.
const RUNNERS: &[&str] = &["trilemma-sim", "trilemma-fuzz"];
/// What appends, persists, recovers, answers and takes snapshots. The queue of the log and the node have them inside.
const PARTS: &[&str] = &[
    "GroupInput",
    "Host",
    "LogWriter",
    "Pending",
    "Liveness",
    "Ring",
    "AppendSeq",
];

/// Checks one source file of a package.
pub(super) fn check(package: &str, file: &File) -> Vec<Finding> {
    if !RUNNERS.contains(&package) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for part in PARTS {
        for at in file.source.find_word(part) {
            // The simulator's clients have requests under way of their own, which are no node's.
            let local = *part == "Pending" && file.name.ends_with("/client.rs");
            if local || file.is_test_at(at) {
                continue;
            }
            findings.push(Finding {
                file: file.name.clone(),
                line: file.source.line_of(at),
                rule: "imitation",
                what: format!("{package} names {part}, a part of a node"),
                why: WHY,
                fix: FIX.into(),
            });
        }
    }
    findings
}
