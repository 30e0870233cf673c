//! Anti-entropy: what rumours missed, exactly and no more (design note, section 6, tiers T0 and T1).
//!
//! ```text
//! A                                   B
//! | -- Compare(hash of context) ----> |   equal: B knows that A reflects what B does; nothing further
//! | <---- Pull(context, mutual) ----- |   else B asks, and says what it durably reflects
//! | -- Page(items, more) -----------> |   whole commands in dot order, from one snapshot of A
//! | <---- More(after) --------------- |
//! | -- Page(items, last context) ---> |   B joins the context now, and not before
//! | -- Pull(context) ---------------> |   and A asks likewise if B had something
//! ```
//!
//! **Why one snapshot.** Between two pages A may overwrite x by e. If the second page came from the newer state, x
//! would be missing and e not yet sent, but the final context would hold x: B would claim to reflect x while still
//! showing what x had replaced, and others would collect on the strength of that claim.
//!
//! **Why the context comes last.** Joined earlier, a crash in between would turn every missing body into a deleted
//! one. Its record follows those of the bodies in the log, and a log loses only suffixes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::debug;
use trilemma_core::{Incarnation, Instant, NodeId, Now};

use super::spread::PAGE_RUMOURS_MAX;
use super::{Gossip, Out};
use crate::context::{Context, WIRE_INTERVALS_MAX};
use crate::dot::Dot;
use crate::message::{ITEMS_MAX, Message, PageEnd, Record};
use crate::replica::{Item, Replica};

/// Exchanges that this node has open as the asking side.
const PULLS_MAX: usize = 4;
/// Ticks without progress after which a request is repeated.
const RETRY_TICKS: u32 = 5;
/// Repeats after which an exchange is given up; the next comparison begins a new one.
const RETRIES_MAX: u32 = 4;
/// Ticks without a request after which a served snapshot is let go.
const SERVING_TICKS: u32 = 100;

/// The exchanges that are open.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pulls: BTreeMap<NodeId, Pulling>,
    serving: BTreeMap<NodeId, Serving>,
}

impl Exchanges {
    /// Drops what belongs to a peer's former life.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.pulls.remove(&peer);
        self.serving.remove(&peer);
    }

    pub(super) fn open(&self) -> usize {
        self.pulls.len()
    }
}

#[derive(Debug)]
struct Pulling {
    session: u64,
    /// The snapshot that the first page came from, and the last dot received.
    at: Option<(u64, Dot)>,
    mutual: bool,
    progress: Instant,
    retries: u32,
    /// Whether a body could neither be applied nor parked, so that the peer's context must not be joined.
    spoiled: bool,
}

#[derive(Debug)]
struct Serving {
    session: u64,
    snapshot: u64,
    replica: Replica,
    theirs: Context,
    withheld: BTreeSet<Dot>,
    used: Instant,
    /// Whether the last page was sent. It is kept for the peer that did not get it, until somebody needs the place.
    finished: bool,
}

/// A page without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) session: u64,
    pub(super) incarnation: Incarnation,
    pub(super) snapshot: u64,
    pub(super) after: Option<Dot>,
}

impl Gossip {
    /// Opens a comparison with one random peer.
    pub(super) fn compare_with_one(&mut self, effects: Out<'_>) {
        let peers = self.reachable();
        if let Some(peer) = self.rng.pick(&peers).copied() {
            self.compare(peer, effects);
        }
    }

    /// Opens a comparison. It acknowledges our context if it turns out equal, so it waits for the disk.
    pub(super) fn compare(&self, peer: NodeId, effects: Out<'_>) {
        let message = Message::Compare {
            incarnation: self.config.incarnation,
            context: self.replica.context().hash(),
        };
        effects.send_after_append(peer, message);
    }

    pub(super) fn receive_compare(
        &mut self,
        now: Now,
        from: NodeId,
        incarnation: Incarnation,
        context: u64,
        effects: Out<'_>,
    ) {
        let own = self.replica.context();
        if own.hash() == context {
            self.acks.record(from, incarnation, own.clone(), own);
        } else {
            self.pull(now, from, true, effects);
        }
    }

    /// Asks a peer for everything that we do not reflect.
    pub(super) fn pull(&mut self, now: Now, from: NodeId, mutual: bool, effects: Out<'_>) {
        if self.exchanges.pulls.contains_key(&from) || self.exchanges.pulls.len() >= PULLS_MAX {
            return;
        }
        let pulling = Pulling {
            session: self.rng.next_u64(),
            at: None,
            mutual,
            progress: now.instant,
            retries: 0,
            spoiled: false,
        };
        self.ask(from, &pulling, effects);
        self.exchanges.pulls.insert(from, pulling);
    }

    fn ask(&self, from: NodeId, pulling: &Pulling, effects: Out<'_>) {
        let message = match pulling.at {
            Some((snapshot, after)) => Message::More {
                session: pulling.session,
                snapshot,
                after,
            },
            None => Message::Pull {
                session: pulling.session,
                incarnation: self.config.incarnation,
                context: self.replica.context().to_wire(WIRE_INTERVALS_MAX),
                withheld: self.parked.dots().iter().copied().collect(),
                mutual: pulling.mutual,
            },
        };
        effects.send_after_append(from, message);
    }

    /// Begins to serve a peer from a snapshot of the present state.
    pub(super) fn serve(
        &mut self,
        now: Now,
        to: NodeId,
        session: u64,
        theirs: &Context,
        withheld: Vec<Dot>,
        effects: Out<'_>,
    ) {
        let serving = &mut self.exchanges.serving;
        let known = serving.get(&to).is_some_and(|serving| serving.session == session);
        if !known && !serving.contains_key(&to) && serving.len() >= self.config.serving_max {
            let finished = serving.iter().filter(|(_, serving)| serving.finished);
            if let Some(oldest) = finished
                .min_by_key(|(_, serving)| serving.used)
                .map(|(peer, _)| *peer)
            {
                serving.remove(&oldest);
            }
        }
        if !known && !serving.contains_key(&to) && serving.len() >= self.config.serving_max {
            debug!(%to, "did not serve a pull: enough exchanges are open; the peer will ask again");
            return;
        }
        if !known {
            // A repeated request is answered from the snapshot it began with.
            serving.insert(
                to,
                Serving {
                    session,
                    snapshot: self.rng.next_u64(),
                    replica: self.replica.clone(),
                    theirs: theirs.clone(),
                    withheld: withheld.into_iter().collect(),
                    used: now.instant,
                    finished: false,
                },
            );
        }
        self.send_page(now, to, None, effects);
    }

    pub(super) fn receive_more(
        &mut self,
        now: Now,
        from: NodeId,
        session: u64,
        snapshot: u64,
        after: Dot,
        effects: Out<'_>,
    ) {
        let serving = self.exchanges.serving.get(&from);
        if serving.is_some_and(|serving| serving.session == session && serving.snapshot == snapshot) {
            self.send_page(now, from, Some(after), effects);
        }
    }

    fn send_page(&mut self, now: Now, to: NodeId, after: Option<Dot>, effects: Out<'_>) {
        let Some(serving) = self.exchanges.serving.get_mut(&to) else {
            return;
        };
        serving.used = now.instant;
        let (items, more) = serving.page(after, self.config.page_bytes);
        serving.finished |= !more;
        let end = match items.last() {
            Some(last) if more => PageEnd::More(last.dot),
            _ => PageEnd::Last(serving.replica.context().to_wire(WIRE_INTERVALS_MAX)),
        };
        let message = Message::Page {
            session: serving.session,
            incarnation: self.config.incarnation,
            snapshot: serving.snapshot,
            after,
            items,
            end,
        };
        effects.send_after_append(to, message);
    }

    pub(super) fn receive_page(
        &mut self,
        now: Now,
        from: NodeId,
        page: Page,
        items: Vec<Item>,
        end: PageEnd,
        effects: Out<'_>,
    ) {
        let Some(pulling) = self.exchanges.pulls.get(&from) else {
            return;
        };
        let expected = match pulling.at {
            None => page.after.is_none(),
            Some((snapshot, last)) => snapshot == page.snapshot && page.after == Some(last),
        };
        if pulling.session != page.session || !expected {
            return;
        }
        let advances = match end {
            PageEnd::More(next) => page.after.is_none_or(|after| next > after),
            PageEnd::Last(_) => true,
        };
        if !advances || !self.check_items(from, &items) {
            self.exchanges.pulls.remove(&from);
            return;
        }
        if items.len() <= PAGE_RUMOURS_MAX {
            self.relay(&items);
        }
        let complete = self.receive_items(now, items, false, effects);
        match end {
            PageEnd::More(next) => {
                let Some(pulling) = self.exchanges.pulls.get_mut(&from) else {
                    return;
                };
                pulling.spoiled |= !complete;
                pulling.at = Some((page.snapshot, next));
                pulling.progress = now.instant;
                pulling.retries = 0;
                effects.send_after_append(
                    from,
                    Message::More {
                        session: page.session,
                        snapshot: page.snapshot,
                        after: next,
                    },
                );
            }
            PageEnd::Last(wire) => {
                let spoiled = self
                    .exchanges
                    .pulls
                    .remove(&from)
                    .is_some_and(|pulling| pulling.spoiled);
                let Some(context) = self.check_context(from, &wire) else {
                    return;
                };
                // What a parked entry has replaced is in this context. If the entry were lost with us, and its origin
                // with its disk, we alone would hold the older value for dead for ever.
                if complete && !spoiled && self.parked.len() == 0 {
                    self.join_context(&context, effects);
                }
                self.acks
                    .record(from, page.incarnation, context, self.replica.context());
            }
        }
    }

    /// Takes in a context all of whose bodies have been applied.
    pub(super) fn join_context(&mut self, context: &Context, effects: Out<'_>) {
        let before = self.replica.context().clone();
        self.replica.join_context(context, self.parked.dots());
        if *self.replica.context() == before {
            return;
        }
        self.generation += 1;
        let wire = self.replica.context().to_wire(WIRE_INTERVALS_MAX);
        effects.append_lazy(Record::Context(wire));
    }

    /// Repeats requests that got no answer, and closes what nobody asks for any more.
    pub(super) fn retry_exchanges(&mut self, now: Now, effects: Out<'_>) {
        let patience = |ticks: u32| -> Duration { self.config.tick * ticks };
        let silent: Vec<NodeId> = self
            .exchanges
            .pulls
            .iter()
            .filter(|(_, pulling)| now.instant.since(pulling.progress) >= patience(RETRY_TICKS))
            .map(|(peer, _)| *peer)
            .collect();
        let stale = patience(SERVING_TICKS);
        self.exchanges
            .serving
            .retain(|_, serving| now.instant.since(serving.used) < stale);
        for peer in silent {
            let Some(mut pulling) = self.exchanges.pulls.remove(&peer) else {
                continue;
            };
            pulling.retries += 1;
            pulling.progress = now.instant;
            if pulling.retries <= RETRIES_MAX {
                self.ask(peer, &pulling, effects);
                self.exchanges.pulls.insert(peer, pulling);
            }
        }
    }
}

impl Serving {
    /// The changes after `after` that the peer lacks, up to a page's limits, and whether more follow. A command is
    /// never split: its parts become visible together everywhere.
    fn page(&self, after: Option<Dot>, page_bytes: usize) -> (Vec<Item>, bool) {
        let spans = self.replica.context().minus(&self.theirs);
        let missing = self
            .replica
            .items(&spans, after, &self.theirs)
            .filter(|item| !self.withheld.contains(&item.dot));
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for item in missing {
            let next_command = items.last().is_some_and(|last| last.command() != item.command());
            let full = bytes >= page_bytes || items.len() + usize::from(item.part.of) > ITEMS_MAX;
            if next_command && full || items.len() == ITEMS_MAX {
                return (items, true);
            }
            bytes += item.size();
            items.push(item.clone());
        }
        (items, false)
    }
}
