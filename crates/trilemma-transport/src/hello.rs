//! What two nodes tell each other first, and what makes them refuse each other.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{NODES_MAX, NodeId, ProcessId, codec};

use crate::error::Refusal;

/// Version of everything that nodes send each other. It stands first in a hello, whatever the version.
pub(crate) const WIRE_VERSION: u32 = 20;
/// Largest hello, in bytes.
pub(crate) const HELLO_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of a member list: postcard writes an id in at most five.
const MEMBERS_BYTES_MAX: usize = 5 * NODES_MAX;
/// Longest table text that is sent; the rest of a hello is far below what remains.
const TABLE_TEXT_BYTES_MAX: usize = HELLO_BYTES_MAX - MEMBERS_BYTES_MAX - 1024;

/// A node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What this node speaks.
    pub(crate) version: u32,
    /// The process. Its node must be whom its certificate names.
    pub(crate) process: ProcessId,
    /// The members of the cluster as this node is configured, itself among them, ascending.
    #[serde(deserialize_with = "bounded_vec::<_, _, NODES_MAX>")]
    pub(crate) members: Vec<NodeId>,
    /// Digest of its keyspace table.
    pub(crate) table_digest: [u8; 32],
    /// The table as text, to be shown when the digests differ.
    #[serde(deserialize_with = "bounded_text::<_, HELLO_BYTES_MAX>")]
    pub(crate) table_text: String,
}

impl Hello {
    /// The hello of this node. A longer table text is cut: it is shown, never compared.
    pub(crate) fn new(
        process: ProcessId,
        members: Vec<NodeId>,
        table_digest: [u8; 32],
        table_text: &str,
    ) -> Self {
        Self {
            version: WIRE_VERSION,
            process,
            members,
            table_digest,
            table_text: clip(table_text, TABLE_TEXT_BYTES_MAX).to_owned(),
        }
    }

    /// Reads a hello. Another version's may have another shape, so its version is judged before the rest is read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let not_one = |error| Refusal::Violation(format!("not a hello: {error}"));
        let (there, _rest) = codec::take::<u32>(bytes).map_err(not_one)?;
        if there != WIRE_VERSION {
            return Err(Refusal::Violation(format!(
                "wire version {there}, this node speaks {WIRE_VERSION}; run one version of trilemma on all nodes"
            )));
        }
        codec::decode(bytes).map_err(not_one)
    }

    /// Checks the other side's hello against ours. `proven` is whom its certificate names.
    ///
    /// Nodes with different members never talk. Otherwise: 1 and 2 know the members 1, 2, 3; nodes 3, 4, 5 know
    /// 1 to 5. The network splits between them. 1 and 2 elect 1, two of three; 3, 4, 5 elect 4, three of five, in the
    /// same term. Both commit.
    pub(crate) fn check(&self, there: &Hello, proven: NodeId) -> Result<(), Refusal> {
        let claimed = there.process.node;
        if claimed != proven {
            return Err(Refusal::Subject(format!(
                "it says it is node {claimed}, its certificate names node {proven}"
            )));
        }
        if there.members != self.members {
            let list = |hello: &Hello| hello.members.iter().copied().collect();
            return Err(Refusal::Members {
                peer: proven,
                here: list(self),
                there: list(there),
            });
        }
        if there.table_digest != self.table_digest {
            return Err(Refusal::Table {
                peer: proven,
                here: self.table_text.clone(),
                there: there.table_text.clone(),
            });
        }
        Ok(())
    }
}

/// The beginning of a text: at most `bytes_max` bytes, never half a character.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
