//! The result as a table for people and as JSON for tools.

use serde::Serialize;

use crate::limits::{Limit, Limits};
use crate::load::Measured;

/// Everything one run has measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Cores of the machine.
    pub cores: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// Physical limits, same run.
    pub limits: Limits,
    /// What each system did.
    pub systems: Vec<System>,
}

/// What one system did.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    /// A backend of Trilemma, or a rival with its version.
    pub name: String,
    /// One entry for each number of clients.
    pub levels: Vec<Measured>,
}

impl Report {
    /// The report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} cores, {}-byte values, {} s for each level, three nodes and the clients on one machine\n\n",
            self.cores, self.value_bytes, self.seconds
        );
        let mut limit = |name: &str, limit: Limit| {
            text += &format!(
                "{name:<34} p50 {:>7.0} us   p99 {:>7.0} us   {:>9.0}/s\n",
                limit.p50_us, limit.p99_us, limit.per_second
            );
        };
        limit("fdatasync 1 KiB, one file", self.limits.fdatasync);
        limit("fdatasync 1 KiB, three files", self.limits.fdatasync_three);
        if let Some(round_trip) = self.limits.quic_round_trip {
            limit("QUIC round trip to a node", round_trip);
        }
        text += "\nsystem              clients     puts/s   p50 ms   p99 ms  p99.9 ms  node CPU-s/100k  failures\n";
        for system in &self.systems {
            for level in &system.levels {
                text += &format!(
                    "{:<20} {:>6} {:>10.0} {:>8.2} {:>8.2} {:>9.2} {:>16.2} {:>9}\n",
                    system.name,
                    level.clients,
                    level.per_second,
                    level.p50_ms,
                    level.p99_ms,
                    level.p999_ms,
                    level.node_cpu_s_per_100k,
                    level.failures,
                );
            }
        }
        text
    }
}
