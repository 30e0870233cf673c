//! Tests of the paxos backend: single schedules, then random ones with invariants after every event.

mod harness;
mod invariants;
mod random;
mod scenarios;
mod schedules;
