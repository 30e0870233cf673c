//! History checkers: linearizability, transactions, convergence, sessions, watches.
//!
//! Pure, and of use to anyone with a history: see [`history`] for the open format.

pub mod convergence;
pub mod events;
pub mod explain;
pub mod history;
pub mod linearizability;
pub mod locks;
pub mod model;
pub mod sessions;
pub mod transactions;
pub mod verdict;
pub mod watch;
