//! Transactions: which isolation a history of transactions had, by the anomalies that it shows.
//!
//! The method of Elle (Kingsbury and Alvaro 2020) with the anomalies of Adya (1999): lists that only grow tell the
//! order of their versions, and with it who wrote before whom (ww), who read from whom (wr) and who read what
//! another replaced (rw); a cycle of these is an anomaly. Of registers with unique values the order is inferred as
//! far as transactions that read before they write, and (for [`Level::StrictSerializable`]) time, tell it: what
//! remains open is allowed, so a legal verdict about registers is weaker.
//!
//! Rules, from the gravest: `duplicate-elements`, `thin-air`, `internal`, `dirty-update`, `G1a` (aborted read),
//! `incompatible-order`, `G1b` (intermediate read), `lost-update`, then cycles: `G0` (ww), `G1c` (ww, wr),
//! `G-single` (one rw: read skew), `G-nonadjacent` (no two rw in a row), `G2-item` (any), the same with the order of
//! each process (`G0-process`, …), and with real time (`G0-realtime`, …).
//!
//! Transactions of unknown outcome count as committed once somebody reads what they wrote. Linear in the history,
//! but for finding a smallest cycle once there is one.

use crate::history::Operation;
use crate::verdict::Verdict;

mod adapter;
mod cycles;
mod direct;
mod graph;
mod index;
mod initial;
mod lists;
mod order;
mod registers;
mod time;

pub use adapter::from_key_value;
pub use initial::check_from;

/// What isolation is promised, from the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Adya's PL-1: no `G0`.
    ReadUncommitted,
    /// Adya's PL-2: no `G1a`, `G1b`, `G1c`.
    ReadCommitted,
    /// Every transaction reads one snapshot and no update is lost: all cycles have two rw in a row (Cerone and
    /// Gotsman 2018).
    SnapshotIsolation,
    /// Adya's PL-3 for items: no cycle.
    Serializable,
    /// Serializable, in an order that each process's own agrees with.
    SessionSerializable,
    /// Serializable, in an order that real time agrees with.
    StrictSerializable,
}

/// Checks a history of [`Call::Transaction`] against `level`.
///
/// Each (key, element) must be written at most once, and a key be a list or a register; else, and if an operation is
/// not a transaction, the verdict is undecided. `operations` of a violation are the transactions of the anomaly.
///
/// [`Call::Transaction`]: crate::history::Call::Transaction
#[must_use]
pub fn check(history: &[Operation], level: Level) -> Verdict {
    let index = match index::Index::new(history, level) {
        Ok(index) => index,
        Err(why) => return Verdict::Undecided { why },
    };
    if let Some(found) = direct::check(&index, level) {
        return found;
    }
    let inferences: &[registers::Inference] = match level {
        Level::StrictSerializable if index.has_registers() => {
            &[registers::Inference::Writes, registers::Inference::Touches]
        }
        _ => &[registers::Inference::Writes],
    };
    let mut common = graph::Graph::new(index.transactions.len());
    lists::add(&index, &mut common);
    time::add(&index, level, &mut common);
    for inference in inferences {
        let mut graph = common.clone();
        if let Some(found) = registers::add(&index, level, *inference, &mut graph) {
            return found;
        }
        if let Some(found) = cycles::find(&index, level, &graph) {
            return found;
        }
    }
    if level < Level::SnapshotIsolation {
        return Verdict::Legal;
    }
    match order::find(&index, level) {
        order::Found::Order => Verdict::Legal,
        order::Found::OutOfBudget(why) => Verdict::Undecided { why },
        order::Found::None(involved) => {
            let what =
                "no order of these transactions explains what they read, whichever of two writes of a key \
                        comes first"
                    .into();
            Verdict::illegal("no-order", what, involved)
        }
    }
}
