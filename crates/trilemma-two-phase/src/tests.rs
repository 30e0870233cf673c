//! Tests of whole clusters, and the frozen formats.

mod checkpoints;
mod cuts;
mod divergence;
mod format;
pub(crate) mod harness;
mod invariants;
mod partitions;
mod pitfalls;
mod random;
mod scenarios;
mod transfers;
