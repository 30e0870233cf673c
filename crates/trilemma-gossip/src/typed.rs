//! Values of data types: how they lie in the store, what their changes do, and what they read as.
//!
//! A value of a data type is a *family* of ordinary keys, its *parts*, in a part of the key space that users cannot name.
//! So merge, rumors, anti-entropy, collection and checkpoints are those of plain keys, but for one rule: a delete of a part
//! takes away what it has observed and nothing else, whatever the stamps say ([`crate::replica`]). It follows that of an
//! addition and a concurrent removal the addition wins (Shapiro et al. 2011, "observed-remove").
//!
//! | data type | parts | siblings of a part |
//! |---|---|---|
//! | counter | one for each disk of a node that has written; only that node adds to it, anybody may reset it | joined, see [`counter`] |
//! | bounded counter | the same, without resets | one, see [`escrow`] |
//! | set | one for each element | any of them: it is there |
//! | map | one for each field | the greatest rank is read |
//! | maximum, minimum | one | joined |
//!
//! **Why parts of their own.** What a change has observed is one number for each incarnation of a node, which is exact only
//! because a node's writes to one key follow each other. Independent parts in one key would take each other away.

mod counter;
mod draft;
mod escrow;
pub(crate) mod layout;
mod reading;

use serde::{Deserialize, Serialize};
use trilemma_core::{Incarnation, NodeId};

use crate::shared::Shared;

pub(crate) use draft::{Draft, PARTS_MAX};
pub use layout::is_part;
pub(crate) use layout::{check_key, plain_end};

/// Who writes a part: a node, as long as it has the same disk.
///
/// A restart changes nothing where each change is synced before others learn of it: what the disk brings back is all that
/// anybody can have, and the part goes on. With less durability a restart may have lost what others have, so each
/// incarnation is an actor of its own. A node whose disk is lost is another actor in any case: it must never write on in a
/// part whose end it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Actor {
    /// The node.
    pub(crate) node: NodeId,
    /// The first incarnation that its present disk has lived through without a loss.
    pub(crate) since: Incarnation,
}

impl Actor {
    /// This node, now.
    pub(crate) fn of(shared: &Shared) -> Self {
        Self {
            node: shared.config.node,
            since: shared.durable_since.unwrap_or(shared.config.incarnation),
        }
    }
}
