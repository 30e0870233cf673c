//! The node's keys, as keyspaces with signatures use them.

use std::sync::Arc;

use trilemma_core::NodeId;
use trilemma_node::Tune;
use trilemma_node::signatures::{Authority, Digest, Signature};
use trilemma_transport::signing::{SigningKeys, sha256};

use crate::config::NodeConfig;

/// Gives the protocols the keys of this node.
#[derive(Debug)]
pub(crate) struct Keys<'a>(pub(crate) &'a NodeConfig);

impl Keys<'_> {
    /// Says which keyspace cannot be served for want of keys.
    pub(crate) fn check(&self) -> Result<(), String> {
        let config = self.0;
        let signed = config
            .keyspaces
            .iter()
            .filter(|(_, keyspace)| keyspace.gossip.signatures);
        for (name, keyspace) in signed {
            let Some(keys) = config.identity.signing() else {
                return Err(format!(
                    "keyspace \"{name}\": signatures are required, and this node has no key to sign with (`signing`)"
                ));
            };
            let members = config.members();
            let origins = keyspace.gossip.origins.as_ref().unwrap_or(&members);
            if let Some(stranger) = origins.iter().find(|node| !keys.knows(*node)) {
                return Err(format!(
                    "keyspace \"{name}\": signatures are required, and there is no public key of node {stranger}, which \
                     may write"
                ));
            }
        }
        Ok(())
    }
}

impl Tune for Keys<'_> {
    fn authority(&self) -> Option<Arc<dyn Authority>> {
        let keys = self.0.identity.signing()?;
        Some(Arc::new(Ed25519(keys.clone())))
    }
}

#[derive(Debug)]
struct Ed25519(SigningKeys);

impl Authority for Ed25519 {
    fn sign(&self, statement: &[u8]) -> Signature {
        self.0.sign(statement)
    }

    fn verify(&self, origin: NodeId, statement: &[u8], signature: &Signature) -> bool {
        self.0.verify(origin, statement, signature)
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        sha256(bytes)
    }
}
