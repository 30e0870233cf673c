//! The facade's error: what failed, and whether it may have happened.

use std::path::PathBuf;

use thiserror::Error;
use trilemma_core::{Backend, Needs, ReadError, Reason, WriteError};
use trilemma_runtime::NodeError;

/// The facade's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed. Each variant's effect is stated; [`Error::effect`] tells it to code.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong. Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keyspace cannot be opened as asked. Nothing was done.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node did not start, or has stopped.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A write did not end with a receipt: not applied, or unknown.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A read was not answered.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a failed call may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call has no effect whether it succeeds or fails.
    None,
    /// Certainly nothing was applied.
    NotApplied,
    /// It may have been applied, or may yet be.
    Unknown,
}

impl Error {
    /// What the failed call may have done.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Error::Write(WriteError::Unknown { .. }) => Effect::Unknown,
            Error::Write(_) => Effect::NotApplied,
            Error::Config(_) | Error::Open(_) | Error::Node(_) | Error::Read(_) => Effect::None,
        }
    }

    /// Why an operation was refused, where it was.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Error::Write(WriteError::NotApplied(refusal)) => Some(&refusal.reason),
            Error::Read(error) => Some(&error.reason),
            _ => None,
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The text is not the TOML that was expected.
    #[error("configuration {origin}, line {line}, column {column}: {why}")]
    Parse {
        /// The file.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
        /// What was met and what was expected.
        why: String,
    },
    /// The values do not fit together.
    #[error("configuration: {0}")]
    Invalid(String),
}

/// Why a keyspace was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no keyspace of this name.
    #[error("keyspace \"{name}\" is not configured; configured: {configured}")]
    NoSuchKeyspace {
        /// The name asked for.
        name: String,
        /// The names there are.
        configured: String,
    },
    /// The backend that configuration chose cannot meet what the code needs.
    #[error(
        "keyspace \"{keyspace}\": the code needs {needs}; with backend \"{backend}\" {lost} (docs: choosing/{backend})"
    )]
    Needs {
        /// The keyspace.
        keyspace: String,
        /// What the code needs.
        needs: Needs,
        /// What configuration chose.
        backend: Backend,
        /// What would be lost.
        lost: &'static str,
    },
}
