//! What a member says of itself: name, address, zone, role and opaque capabilities. Shared, not copied: many tables hold one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::NodeId;
use trilemma_core::codec::{bounded_bytes, bounded_text};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Longest address, in bytes. What is in it is the host's matter.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 32;
/// Most bytes of capabilities: version, features, fingerprint of a certificate. A record must fit a datagram.
pub const META_BYTES_MAX: usize = 256;

/// What a member does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It holds data and is probed.
    #[default]
    Data,
    /// It is probed and listed, and holds no data.
    Observer,
}

/// The digest of a record, two bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordDigest(pub [u8; 2]);

/// A member as it describes itself. It does not change within an epoch: who has another address or other capabilities
/// begins a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The member.
    pub node: NodeId,
    /// Where it listens, at most [`ADDRESS_BYTES_MAX`].
    #[serde(deserialize_with = "bounded_text::<_, ADDRESS_BYTES_MAX>")]
    pub address: String,
    /// The failure domain that it is in, at most [`ZONE_BYTES_MAX`]. May be empty.
    #[serde(deserialize_with = "bounded_text::<_, ZONE_BYTES_MAX>")]
    pub zone: String,
    /// What it does.
    pub role: Role,
    /// Capabilities, opaque here, at most [`META_BYTES_MAX`].
    #[serde(deserialize_with = "bounded_bytes::<_, META_BYTES_MAX>")]
    pub meta: Bytes,
}

impl Record {
    /// A member that holds data, in no zone.
    #[must_use]
    pub fn new(node: NodeId, address: impl Into<String>) -> Self {
        Self {
            node,
            address: address.into(),
            zone: String::new(),
            role: Role::Data,
            meta: Bytes::new(),
        }
    }

    /// Whether all parts keep their limits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.address.len() <= ADDRESS_BYTES_MAX
            && self.zone.len() <= ZONE_BYTES_MAX
            && self.meta.len() <= META_BYTES_MAX
    }

    /// Tells contents apart, so that a member that restarts unchanged need not describe itself again. Not for use against
    /// an adversary: a collision, one in 65,536, keeps the former record until the next epoch.
    #[must_use]
    pub fn digest(&self) -> RecordDigest {
        let role = self.role as u64;
        let meta = xxh3_64_with_seed(&self.meta, role);
        let zone = xxh3_64_with_seed(self.zone.as_bytes(), meta);
        RecordDigest((xxh3_64_with_seed(self.address.as_bytes(), zone) as u16).to_le_bytes())
    }

    /// Upper estimate of its bytes on the wire.
    pub(crate) fn size(&self) -> usize {
        5 + 2 + self.address.len() + 1 + self.zone.len() + 1 + 2 + self.meta.len()
    }
}
