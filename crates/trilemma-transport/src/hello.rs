//! What two nodes tell each other first, and what makes them refuse each other.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_text;
use trilemma_core::{Incarnation, NodeId, codec};

use crate::error::Refusal;

/// Version of everything that nodes send each other.
pub(crate) const WIRE_VERSION: u32 = 1;
/// Largest hello, in bytes.
pub(crate) const HELLO_BYTES_MAX: usize = 128 * 1024;
/// Longest table text that is sent; the rest of a hello is far below what remains.
const TABLE_TEXT_BYTES_MAX: usize = HELLO_BYTES_MAX - 1024;

/// A node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What this node speaks.
    pub(crate) version: u32,
    /// The node; must be whom its certificate names.
    pub(crate) node: NodeId,
    /// The life of its process.
    pub(crate) incarnation: Incarnation,
    /// Digest of its keyspace table.
    pub(crate) table_digest: [u8; 32],
    /// The table as text, to be shown when the digests differ.
    #[serde(deserialize_with = "bounded_text::<_, HELLO_BYTES_MAX>")]
    pub(crate) table_text: String,
}

impl Hello {
    /// The hello of this node. A longer table text is cut: it is shown, never compared.
    pub(crate) fn new(
        node: NodeId,
        incarnation: Incarnation,
        table_digest: [u8; 32],
        table_text: &str,
    ) -> Self {
        Self {
            version: WIRE_VERSION,
            node,
            incarnation,
            table_digest,
            table_text: clip(table_text, TABLE_TEXT_BYTES_MAX).to_owned(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        codec::decode(bytes).map_err(|error| Refusal::Violation(format!("not a hello: {error}")))
    }

    /// Checks the other side's hello against ours. `proven` is whom its certificate names.
    pub(crate) fn check(&self, there: &Hello, proven: NodeId) -> Result<(), Refusal> {
        if there.version != WIRE_VERSION {
            let (here, there) = (WIRE_VERSION, there.version);
            return Err(Refusal::Violation(format!(
                "wire version {there}, this node speaks {here}"
            )));
        }
        if there.node != proven {
            let claimed = there.node;
            return Err(Refusal::Subject(format!(
                "it says it is node {claimed}, its certificate names node {proven}"
            )));
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
