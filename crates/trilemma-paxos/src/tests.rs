//! Tests of the paxos backend: single schedules, then random ones with invariants after every event.

mod changes;
mod checks;
mod costs;
mod divergence;
mod forgotten;
mod format;
pub(crate) mod harness;
mod invariants;
mod parts;
mod patience;
mod random;
mod scenarios;
mod schedules;
