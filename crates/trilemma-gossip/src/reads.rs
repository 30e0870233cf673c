//! Range reads. They look at a part of their range in each turn: a range may hold a million keys that are deleted, and many
//! may be read at once.

use std::collections::VecDeque;

use trilemma_core::pending::PendingKind;
use trilemma_core::read::Query;
use trilemma_core::scan::Scan;
use trilemma_core::{Entry, Instant, Now, ReadLevel, ReadReply, Reason, Reply, Ticket, Version, View};

use crate::gossip::Out;
use crate::shared::Shared;

/// Range reads that are under way at once. Each keeps what was replaced since it began.
pub(crate) const SCANS_MAX: usize = 1024;
/// Keys that one read looks at before the next one has its turn.
const SHARE: usize = 256;

#[derive(Debug)]
struct Read {
    ticket: Ticket,
    deadline: Instant,
    scan: Scan,
}

/// The range reads that are under way, the one whose turn it is first.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: VecDeque<Read>,
}

impl Reads {
    /// Begins to read a page of what `view` shows.
    pub(crate) fn begin(
        &mut self,
        (ticket, deadline): (Ticket, Instant),
        view: Box<dyn View>,
        query: &Query,
        effects: &mut Out,
    ) {
        if self.waiting.len() >= SCANS_MAX {
            let what = format!("{SCANS_MAX} range reads are under way");
            return effects.reply(ticket, PendingKind::Read.refused(Reason::Overloaded { what }));
        }
        let scan = Scan::new(view, query);
        self.waiting.push_back(Read {
            ticket,
            deadline,
            scan,
        });
    }

    /// Looks at as many keys as a turn may. Returns whether there is more to read.
    pub(crate) fn go_on(&mut self, shared: &Shared, now: Now, effects: &mut Out) -> bool {
        let mut keys = shared.config.turn_items;
        while keys > 0
            && let Some(mut read) = self.waiting.pop_front()
        {
            if read.deadline <= now.instant {
                effects.reply(read.ticket, PendingKind::Read.refused(Reason::Deadline));
                continue;
            }
            let mut share = keys.min(SHARE);
            let given = share;
            let is_done = read.scan.read(&mut share);
            // A read costs something even where there is nothing to look at.
            keys -= (given - share).max(1);
            if is_done {
                let (entries, more) = read.scan.finish();
                effects.reply(read.ticket, answer(shared, entries, more));
            } else {
                self.waiting.push_back(read);
            }
        }
        !self.waiting.is_empty()
    }

    pub(crate) fn check(&self) {
        assert!(
            self.waiting.len() <= SCANS_MAX,
            "{} range reads are under way",
            self.waiting.len()
        );
    }
}

/// The answer to a read.
pub(crate) fn answer(shared: &Shared, entries: Vec<Entry>, more: bool) -> Reply {
    Reply::Read(Ok(ReadReply {
        entries,
        more,
        version: Version::ABSENT,
        achieved: ReadLevel::Local,
        served_by: shared.config.node,
        round_trips: 0,
    }))
}
