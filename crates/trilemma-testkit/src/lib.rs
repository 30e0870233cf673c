//! Test gear: what the tests of several crates need, and no program does. Always a dev-dependency.
//!
//! | module | for whom |
//! |---|---|
//! | [`cluster`] | protocol crates: a small deterministic cluster of one protocol, with faults on demand |
//! | [`plays`] | protocol crates: scenarios as text, commands above and the recorded trace below |
//! | [`conformance`] | backends: one suite that holds any `Replicator` to what its descriptor says |
//! | [`panics`] | every crate whose machines check themselves: what a failed check said |
//!
//! Pure, as what it tests: no sockets, files, clocks, threads or ambient randomness. It is not the simulator, which has
//! disks, clocks and swarms of faults: that is `trilemma-sim`.

pub mod cluster;
pub mod conformance;
pub mod panics;
pub mod plays;

pub use cluster::{Cluster, Faults, Filter, PEER_TIMEOUT, Seen, Verdict, get, op, succeeded, value, write};
pub use panics::caught;
