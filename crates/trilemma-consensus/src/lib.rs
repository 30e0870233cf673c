//! Consensus backends as pure state machines: linearizable as long as a majority talks.
//!
//! [`paxos`] replicates each key as a register of its own, without a leader (CASPaxos).

pub mod paxos;
