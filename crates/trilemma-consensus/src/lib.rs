//! Consensus backends as pure state machines: linearizable as long as a majority talks.
//!
//! [`raft`] orders all writes of a keyspace through an elected leader.
//! [`paxos`] replicates each key as a register of its own, without a leader (CASPaxos).

pub mod paxos;
pub mod raft;
