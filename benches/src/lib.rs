//! The cluster load generator: real processes, real disks, real QUIC, closed-loop clients.
//!
//! | module | what it does |
//! |---|---|
//! | [`limits`] | what this machine's disk and loopback can do at best, measured in the same run |
//! | [`cluster`] | three `trilemma serve` processes |
//! | [`etcd`] | three `etcd` processes and the same load on them, if etcd is installed |
//! | [`load`] | clients that each keep one write in flight, and their histogram |
//! | [`report`] | the table and the JSON |

pub mod cluster;
pub mod etcd;
pub mod limits;
pub mod load;
pub mod report;

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
