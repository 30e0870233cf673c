//! Fuzz targets for every decoder: what reads bytes of a peer, a client, a disk or a user.
//!
//! The targets are tests in `tests/it`. On stable Rust, in `cargo test`, each gets some hundred random inputs; where a
//! fuzzer is installed, the same targets are led by coverage. What each asserts: no panic, no endless loop, memory in
//! proportion to the input, and that what was accepted means the same after it is written and read again.
//!
//! Random bytes alone rarely pass a decoder, so most targets take their input as *choices*: which of many valid
//! encodings to begin with ([`corpus`], made by running the protocols) and how to change it ([`mutate`]). The `receive`
//! targets go on where decoding ends: a running cluster gets changed messages in arbitrary states ([`rig`]).
//!
//! # Running one longer
//!
//! ```text
//! TRILEMMA_FUZZ_ITERATIONS=1000000 cargo test --profile sim -p trilemma-fuzz --test it receive::raft
//! ```
//!
//! (`--profile sim` is optimised and still checks for overflow.) A failure prints its input and a
//! `BOLERO_RANDOM_SEED`, which repeats the run. Led by coverage, with `cargo install cargo-bolero`:
//!
//! ```text
//! cargo bolero list -p trilemma-fuzz
//! cargo bolero test -p trilemma-fuzz --test it receive::raft --sanitizer NONE --rustc-bootstrap -T 10m
//! ```
//!
//! Corpora and crashes that it finds lie beside the target, in `tests/it/__fuzz__`, and are replayed by `cargo test`.
//!
//! # A new target
//!
//! Whatever reads bytes from outside gets one. Types on the wire: a line in `tests/it/wire.rs` with [`wire::decodes`].

pub mod corpus;
pub mod mutate;
pub mod rig;
pub mod source;
pub mod wire;
