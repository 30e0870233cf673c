//! Benchmarks: real processes, real disks, real QUIC, closed-loop clients; and the core alone.
//!
//! | module | what it does |
//! |---|---|
//! | [`puts`], [`reads`] | how many at once, and how long each takes; the same on etcd and ZooKeeper where they are installed |
//! | [`watch`] | one writer, many watchers: how long a change takes to reach all |
//! | [`restart`] | a cluster that is killed and started again with much state |
//! | [`catch_up`] | a follower that was away: how long until it has everything, and what that costs the others |
//! | [`failover`] | a leader that is killed under load: how long nothing is acknowledged |
//! | [`isolation`] | what a flood, a slow disk, a stopped node and deaf clients cost another keyspace |
//! | [`keyspaces`] | what many keyspaces cost, and what a flooded one costs the others |
//! | [`memory`] | what a state costs in memory while it is written, sent to a node that has nothing, and after a restart |
//! | [`micro`] | three nodes of a backend in one thread, without disks and sockets |
//! | [`machine`] | what this machine's disk and loopback can do at best, measured in the same run |
//! | [`cluster`], [`etcd`], [`zookeeper`] | three processes of each |
//! | [`load`] | clients that each keep one operation in flight, and their histogram |
//! | [`writers`] | clients in a process of their own |
//! | [`report`] | tables, the comparison of two programs, JSON |

pub mod catch_up;
pub mod cluster;
pub mod etcd;
pub mod failover;
mod fill;
pub mod isolation;
pub mod keyspaces;
pub mod load;
pub mod machine;
pub mod memory;
pub mod micro;
pub mod puts;
pub mod reads;
pub mod report;
pub mod restart;
mod steady;
pub mod watch;
pub mod writers;
pub mod zookeeper;

/// Why a benchmark could not run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Something of the system, named.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// What came back.
        why: String,
    },
    /// Trilemma said no.
    #[error(transparent)]
    Trilemma(#[from] trilemma::Error),
}

impl BenchError {
    /// An error of the system.
    pub fn system(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        BenchError::System {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

/// The benchmarks' result.
pub type Result<T> = std::result::Result<T, BenchError>;
