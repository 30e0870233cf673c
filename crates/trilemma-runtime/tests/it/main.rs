//! Whole nodes on real disks and real QUIC over loopback, in one process.

mod cluster;
mod conformance;
mod directory;
mod disks;
mod members;
mod membership;
mod node;
mod relay;
mod remote;
mod sessions;
mod watches;
