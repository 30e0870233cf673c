//! A snapshot for a follower whose next entry is gone from the leader's log (Raft section 7).
//!
//! The leader takes its table as it is (a clone that shares memory) and sends it part by part, a few at a time, on the
//! bulk lane ([`Outgoing`]). The follower appends each part as it comes and reads it into a new table ([`Incoming`]); an
//! end mark after the last one makes them its state, all at once. A follower that restarts half-way starts over, and so
//! does its log: the first part of a state makes replay forget the parts before it.

mod incoming;
mod outgoing;

use trilemma_core::table::{Table, TableLoader};

use crate::message::LogEnd;

pub(crate) use incoming::Incoming;
pub(crate) use outgoing::{Acknowledged, Outgoing, Part};

/// The table that the parts of a snapshot have made, if it is the one at `at`.
pub(crate) fn finish(loader: TableLoader, at: LogEnd) -> Result<Table, String> {
    let table = loader.finish().ok_or("the parts of a snapshot hold no table")?;
    if table.version().0 != at.index.0 {
        return Err(format!(
            "the snapshot's table is at {}, its end mark at {}",
            table.version(),
            at.index
        ));
    }
    Ok(table)
}
