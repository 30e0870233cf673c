//! What may wait at a node, and what is refused beyond it.
//!
//! Everything that waits is counted here in bytes, in one place, for all keyspaces: requests whose answer is owed, and
//! records that the disk does not have yet. Above a limit this node's own clients are refused, certainly and in time;
//! above a second one messages of peers are dropped as if the network had lost them, which every protocol expects.
//! Pings are never dropped: a node with a slow disk is slow, not dead. Nothing that clients, peers or a slow disk do
//! ends the node.

use trilemma_core::Reason;
use trilemma_core::data::COMMAND_BYTES_MAX;

/// What may wait at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests whose answer is owed. Default 65,536.
    pub pending_max: usize,
    /// Bytes of their commands. Default 256 MiB.
    pub pending_bytes_max: usize,
    /// Bytes of records that wait for the disk. Default 256 MiB. New writes are refused above a quarter, peers'
    /// messages are dropped above a half.
    pub log_bytes_max: usize,
    /// Watches of one keyspace. Default 100,000.
    pub watchers_max: usize,
    /// Bytes of recent changes that are kept per keyspace for watchers that are behind, or resume; one that needs older
    /// ones is sent a reset. Default 32 MiB.
    pub watch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            pending_max: 65_536,
            pending_bytes_max: 256 * MIB,
            log_bytes_max: 256 * MIB,
            watchers_max: 100_000,
            watch_bytes_max: 32 * MIB,
        }
    }
}

impl Limits {
    /// Bytes that may wait under these limits at a node with so many keyspaces, beside what one turn adds: its memory is
    /// that, the states, and what the endpoint and the protocols name.
    #[must_use]
    pub fn bytes_max(&self, keyspaces: usize) -> usize {
        let of_each = self.watch_bytes_max.saturating_mul(keyspaces);
        self.pending_bytes_max
            .saturating_add(self.log_bytes_max)
            .saturating_add(of_each)
    }

    /// Refuses limits under which a command of the largest size could never be taken.
    pub fn check(&self) -> Result<(), String> {
        let least = [
            ("pending_bytes_max", self.pending_bytes_max, COMMAND_BYTES_MAX),
            ("log_bytes_max", self.log_bytes_max, 8 * COMMAND_BYTES_MAX),
            ("pending_max", self.pending_max, 1),
        ];
        for (name, value, least) in least {
            if value < least {
                return Err(format!("{name} is {value}: the minimum is {least}"));
            }
        }
        Ok(())
    }
}

/// What a record costs in the queue beside its payload, so that a flood of empty ones is bounded too.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64;

/// Counts what waits for the disk, and what was refused or dropped.
#[derive(Debug, Default)]
pub struct Admission {
    limits: Limits,
    /// Bytes of records that are not as durable as their keyspaces promise.
    log_bytes: usize,
    /// Requests refused because too much waited.
    refused: u64,
    /// Messages of peers dropped because too much waited for the disk.
    dropped: u64,
    /// Why the disk has no room for another log segment, while it has none.
    no_space: Option<String>,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of records that wait for the disk.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// Requests refused so far because too much waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Messages of peers dropped so far because too much waited for the disk.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Why the disk has no room for another log segment, while it has none.
    #[must_use]
    pub fn no_space(&self) -> Option<&str> {
        self.no_space.as_deref()
    }

    pub(crate) fn set_no_space(&mut self, full: Option<String>) {
        if let Some(why) = &full {
            tracing::error!(
                why,
                "no room for more of the log; writes are refused until there is"
            );
        }
        self.no_space = full;
    }

    pub(crate) fn appended(&mut self, bytes: usize) {
        self.log_bytes += bytes;
    }

    pub(crate) fn persisted(&mut self, bytes: usize) {
        assert!(bytes <= self.log_bytes, "more became durable than was appended");
        self.log_bytes -= bytes;
    }

    /// The invariants.
    pub(crate) fn check(&self) {
        assert!(
            self.no_space.as_ref().is_none_or(|why| !why.is_empty()),
            "a full disk has a reason"
        );
        assert!(
            self.dropped == 0 || self.limits.log_bytes_max < usize::MAX,
            "messages are dropped at a limit"
        );
    }

    /// Why a request of this node's clients is refused now, if it is.
    pub(crate) fn refusal(&mut self, is_write: bool, pending: usize, pending_bytes: usize) -> Option<Reason> {
        // What is left of the log's current segment is kept for work that has begun.
        if let (true, Some(why)) = (is_write, &self.no_space) {
            return Some(Reason::NoSpace { why: why.clone() });
        }
        let limits = &self.limits;
        let what = if pending >= limits.pending_max {
            format!("{pending} operations wait at this node already")
        } else if is_write && pending_bytes > limits.pending_bytes_max {
            format!(
                "{pending_bytes} bytes of operations wait at this node already, the limit is {}",
                limits.pending_bytes_max
            )
        } else if is_write && self.log_bytes > limits.log_bytes_max / 4 {
            format!(
                "{} bytes wait for this node's disk already, the limit is {}",
                self.log_bytes,
                limits.log_bytes_max / 4
            )
        } else {
            return None;
        };
        self.refused += 1;
        Some(Reason::Overloaded { what })
    }

    /// Whether a peer's message must be dropped now.
    pub(crate) fn drops_message(&mut self) -> bool {
        let drops = self.log_bytes > self.limits.log_bytes_max / 2;
        self.dropped += u64::from(drops);
        drops
    }
}
