//! Signatures of origins: proof that a change is of the node that it names (inside/gossip#signatures).
//!
//! Where a keyspace asks for them, each change carries an Ed25519 signature of its origin, and a node takes in, keeps and
//! passes on only what it has verified. One peer's word then suffices: nobody can invent a change of another.
//!
//! **Each change is signed by itself**, not the command as a whole. What a command changed is replaced key by key, and what
//! is left of it must still be verified by who never saw the rest: one signature for all would have to travel with the
//! hashes of all. The statement holds the place in the command, so parts cannot be moved to another. A command of many keys costs
//! as many signatures, some 50 µs each, and 90 µs each for who verifies them.
//!
//! **The statement** is the canonical encoding of a purpose, the cluster and keyspace, and all of the change: dot (with the
//! incarnation), stamp, place, key, content, and the digest of what it has observed. So a signature is worth nothing in another
//! keyspace, for another incarnation, or for less than all of the change. It is a digest because collection forgets what a change
//! has observed, and what is collected must still be verified by who begins with an empty disk: the digest stays.
//!
//! **A change without what it has observed** is what collection leaves when all members reflect it. To a node that does not, it
//! could only be sent by a liar who wants older values back, unless this node has lost its disk, or may forget what it said to
//! reflect because its keyspace does not wait for the disk.
//!
//! **What this does not stop.** A signature says who made a change, not that it is true: whose key is stolen, whose changes
//! can be forged. And a peer that says less than it knows, or claims to reflect more, is not found out: see
//! [`vouchers`](crate::GossipConfig::vouchers) for the latter. Only `trusted` peers can repair what differs although both
//! reflect the same, for others might bring back values that were replaced, with their signatures.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trilemma_core::{NodeId, codec};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::replica::Item;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;
/// Greatest size of what a signed change carries more, in bytes.
pub(crate) const SIGNED_BYTES: usize = SIGNATURE_BYTES + DIGEST_BYTES + 1;

/// An Ed25519 signature.
pub type Signature = [u8; SIGNATURE_BYTES];
/// A digest that nobody can find a second text for.
pub type Digest = [u8; DIGEST_BYTES];

/// Makes and verifies signatures: the host's, which has this node's key and knows those of all members.
pub trait Authority: Debug + Send + Sync {
    /// This node's signature. The same for the same statement.
    fn sign(&self, statement: &[u8]) -> Signature;

    /// Whether `origin` signed this statement.
    fn verify(&self, origin: NodeId, statement: &[u8], signature: &Signature) -> bool;

    /// SHA-256, or as good.
    fn digest(&self, bytes: &[u8]) -> Digest;
}

/// Makes the changes of a keyspace signed.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// What the signatures of this keyspace stand for: cluster and keyspace. The same on every node, and unlike that of any
    /// other keyspace whose members have the same keys.
    pub domain: String,
    /// Keys.
    pub authority: Arc<dyn Authority>,
}

/// What a signed change carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The origin's signature.
    pub signature: Signature,
    /// The digest of what the change had observed when it was made, if it was anything.
    pub observed: Option<Digest>,
}

impl Signatures {
    /// Signs a change with this node's key.
    pub(crate) fn sign(&self, item: &mut Item) {
        let observed = self.observed(item);
        let signature = self.authority.sign(&self.statement(item, observed));
        item.set_signed(Some(&Signed { signature, observed }));
    }

    /// Whether a change is of its origin, with what it has observed, or without it if that was forgotten.
    pub(crate) fn is_valid(&self, item: &Item) -> bool {
        let Some(signed) = item.signed() else {
            return false;
        };
        let is_observed = item.observed.is_empty() || self.observed(item) == signed.observed;
        let statement = || self.statement(item, signed.observed);
        is_observed
            && self
                .authority
                .verify(item.dot.origin, &statement(), &signed.signature)
    }

    fn observed(&self, item: &Item) -> Option<Digest> {
        let bytes = || codec::encode_vec(&item.observed);
        (!item.observed.is_empty()).then(|| self.authority.digest(&bytes()))
    }

    /// What is signed. No signature of another purpose has the same bytes.
    fn statement(&self, item: &Item, observed: Option<Digest>) -> Vec<u8> {
        let change = (
            item.dot,
            item.stamp,
            item.part,
            &item.key,
            &item.content,
            observed,
        );
        codec::encode_vec(&("trilemma gossip change 1", &self.domain, change))
    }
}

/// Whether what a change had observed when it was signed is not with it any more.
pub(crate) fn is_stripped(item: &Item) -> bool {
    let had_observed = |signed: &Signed| signed.observed.is_some();
    item.observed.is_empty() && item.signed().is_some_and(had_observed)
}

impl Serialize for Signed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(SIGNATURE_BYTES + 1)?;
        for byte in &self.signature {
            tuple.serialize_element(byte)?;
        }
        tuple.serialize_element(&self.observed)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Signed;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a signature")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Signed, A::Error> {
                let early = || A::Error::custom("a signature that ends early");
                let mut signature = [0; SIGNATURE_BYTES];
                for byte in &mut signature {
                    *byte = parts.next_element()?.ok_or_else(early)?;
                }
                let observed = parts.next_element()?.ok_or_else(early)?;
                Ok(Signed { signature, observed })
            }
        }

        deserializer.deserialize_tuple(SIGNATURE_BYTES + 1, Parts)
    }
}

/// Signatures for simulations and tests, where nobody computes what they did not get: anybody could forge them.
#[derive(Debug)]
pub struct Simulated(pub NodeId);

impl Simulated {
    fn of(origin: NodeId, statement: &[u8]) -> Signature {
        let mut signature = [0; SIGNATURE_BYTES];
        for (part, at) in signature.chunks_exact_mut(8).zip(0..) {
            let seed = u64::from(origin.0) << 8 | at;
            part.copy_from_slice(&xxh3_64_with_seed(statement, seed).to_le_bytes());
        }
        signature
    }
}

impl Authority for Simulated {
    fn sign(&self, statement: &[u8]) -> Signature {
        Self::of(self.0, statement)
    }

    fn verify(&self, origin: NodeId, statement: &[u8], signature: &Signature) -> bool {
        Self::of(origin, statement) == *signature
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        let signature = Self::of(NodeId(0), bytes);
        std::array::from_fn(|at| signature[at])
    }
}
