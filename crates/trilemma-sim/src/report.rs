//! What a run found.

use std::collections::BTreeMap;

use trilemma_check::history::Operation;

use crate::coverage::Coverage;

/// The first thing that went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which check saw it: the name of an invariant or checker.
    pub checker: &'static str,
    /// One sentence: what was seen and what would have been right.
    pub what: String,
    /// When, in nanoseconds of virtual time.
    pub time: u64,
}

/// The report of one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What went wrong, if something did.
    pub failure: Option<Failure>,
    /// Why a check could not decide, if one could not. Never a pass.
    pub undecided: Option<String>,
    /// Operations that clients asked for.
    pub operations: u64,
    /// Operations that were answered with success.
    pub succeeded: u64,
    /// Faults that happened: actions of the scenario, and messages lost, copied or held up by them.
    pub faults: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_time: u64,
    /// A digest over every event in order: equal for equal runs.
    pub hash: u128,
    /// Which faults met which phases of the protocols.
    pub coverage: Coverage,
    /// The history of each keyspace, by its place in the scenario's protocol.
    pub histories: BTreeMap<usize, Vec<Operation>>,
    /// One line for each event, if a trace was asked for.
    pub trace: Vec<String>,
}
