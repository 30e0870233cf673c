//! A simulated cluster: virtual time, network, disks and faults around the real protocol cores.
//!
//! Empty so far. Until it stands, the protocols are tested on the small deterministic cluster of
//! `trilemma_core::testkit`, which keeps the same contract.
