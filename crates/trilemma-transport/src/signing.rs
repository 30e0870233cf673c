//! Keys that sign what outlives a connection and certificates: Ed25519, by the crypto provider that TLS has.
//!
//! They are not the keys of certificates. A certificate is renewed each year or so and then forgotten, while what was signed is
//! kept and passed on for as long as the value lives, also to nodes that never met its origin. So each node has a key of its
//! own for that, and all nodes have a list of public keys, as SSH and WireGuard have. An old key stays in the list as
//! long as something that it signed may live.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::PrivateKeyDer;
use trilemma_core::NodeId;

use crate::error::TransportError;
use crate::identity::{private_key, read_secret};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key, and of a digest.
const KEY_BYTES: usize = 32;

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// A new key, as PEM text. Write it with access for its owner alone.
    pub fn generate() -> Result<String, TransportError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519);
        let key = key.map_err(|error| TransportError::Identity(format!("new signing key: {error}")))?;
        Ok(key.serialize_pem())
    }

    /// Reads PEM text: an Ed25519 key as PKCS #8, which `openssl genpkey -algorithm ed25519` also makes.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TransportError> {
        parse(pem).map_err(|why| TransportError::Identity(format!("signing key: {why}")))
    }

    /// Reads a PEM file. One that everybody may read is refused.
    pub fn load(path: &Path) -> Result<Self, TransportError> {
        let key = read_secret(path)?;
        parse(&key).map_err(|why| TransportError::File {
            path: path.to_path_buf(),
            why,
        })
    }

    /// What others verify its signatures with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs a message: the same signature each time.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

fn parse(pem: &[u8]) -> Result<SigningKey, String> {
    let PrivateKeyDer::Pkcs8(key) = private_key(pem)? else {
        return Err("not in PKCS #8".into());
    };
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
    key.map(SigningKey)
        .map_err(|error| format!("no Ed25519 key: {error}"))
}

/// A public key. As text it is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 64 hexadecimal digits")]
pub struct ParsePublicKeyError;

impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, ParsePublicKeyError> {
        let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
        let digits: Option<Vec<u8>> = text.as_bytes().iter().map(digit).collect();
        let digits = digits
            .filter(|digits| digits.len() == 2 * KEY_BYTES)
            .ok_or(ParsePublicKeyError)?;
        Ok(Self(std::array::from_fn(|at| {
            digits[2 * at] << 4 | digits[2 * at + 1]
        })))
    }
}

impl PublicKey {
    /// Whether the owner of the key has signed this message.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

/// The keys that a node signs and verifies with. A clone shares them.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    key: Arc<SigningKey>,
    public: Arc<BTreeMap<NodeId, Vec<PublicKey>>>,
}

impl SigningKeys {
    /// The keys of `node`: its private one, and the public ones of all nodes, old ones among them.
    pub fn new(
        node: NodeId,
        key: SigningKey,
        public: BTreeMap<NodeId, Vec<PublicKey>>,
    ) -> Result<Self, TransportError> {
        let own = key.public();
        if !public.get(&node).is_some_and(|keys| keys.contains(&own)) {
            return Err(TransportError::Identity(format!(
                "the public key of this node's signing key, {own}, is not in the list for node {node}: nobody could \
                 verify what it signs"
            )));
        }
        Ok(Self {
            key: Arc::new(key),
            public: Arc::new(public),
        })
    }

    /// Whether there is a key to verify what this node signs.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.public.get(&node).is_some_and(|keys| !keys.is_empty())
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(message)
    }

    /// Whether this node has signed a message, with any of its keys.
    #[must_use]
    pub fn verify(&self, node: NodeId, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let keys = self.public.get(&node).map_or(&[][..], Vec::as_slice);
        keys.iter().any(|key| key.verify(message, signature))
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; KEY_BYTES] {
    let mut hash = [0; KEY_BYTES];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(SigningKey::generate().expect("a key").as_bytes()).expect("our own PEM")
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_message() {
        let (one, other) = (key(), key());
        let signature = one.sign(b"message");
        assert_eq!(signature, one.sign(b"message"), "the same each time");
        assert!(one.public().verify(b"message", &signature));
        assert!(!one.public().verify(b"another", &signature));
        assert!(!other.public().verify(b"message", &signature));
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let halves: Vec<[u8; 32]> = [&signature[..64], &signature[64..]]
            .map(|half| half.parse::<PublicKey>().expect("hexadecimal").0)
            .into();
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(&halves.concat());
        let public: PublicKey = public.parse().expect("hexadecimal");
        assert!(public.verify(&[0x72], &bytes));
    }

    #[test]
    fn a_public_key_is_text_and_nothing_else_is_one() {
        let public = key().public();
        assert_eq!(public.to_string().parse(), Ok(public));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(bad.parse::<PublicKey>(), Err(ParsePublicKeyError), "{bad}");
        }
    }

    /// After a change of keys, what the old one signed is still verified.
    #[test]
    fn a_node_may_have_several_public_keys() {
        let (old, new) = (key(), key());
        let signature = old.sign(b"message");
        let public = BTreeMap::from([(NodeId(1), vec![new.public(), old.public()])]);
        let keys = SigningKeys::new(NodeId(1), new, public.clone()).expect("it is in the list");
        assert!(keys.verify(NodeId(1), b"message", &signature));
        assert!(!keys.verify(NodeId(2), b"message", &signature));
        assert!(keys.knows(NodeId(1)) && !keys.knows(NodeId(2)));
        let stranger = SigningKeys::new(NodeId(1), key(), public).expect_err("it is not in the list");
        assert!(stranger.to_string().contains("not in the list for node 1"));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let why = SigningKey::from_pem(pem.as_bytes()).expect_err("not Ed25519");
        assert!(why.to_string().contains("no Ed25519 key"), "{why}");
    }
}
