//! Anti-entropy: what rumors missed, exactly and no more (inside/gossip#an-exchange-step-by-step).
//!
//! ```text
//! A                                   B
//! | -- Compare(context, digest) ----> |   equal: B knows that A reflects what B does; nothing further
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
//!
//! **Whole exchanges** bring everything that A holds, not only what is outside of B's context. There are two reasons: B
//! has lost a disk ([`crate::rejoin`]), or both have equal contexts and unequal digests. The latter is never right, and
//! nobody can tell which side is: both sides keep what either shows, and say so in their status. Where both hold much and
//! differ little, what differs is found first, and that alone is brought: see `search`.
//!
//! **Enough is enough.** A node asks in at most four exchanges and serves at most [`GossipConfig::serving_max`]. A peer that
//! asks for one more gets `Busy`, and comes back after a random part of the time that it says, longer each time.
//!
//! [`GossipConfig::serving_max`]: crate::GossipConfig::serving_max

mod search;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;
use trilemma_core::{Incarnation, Instant, NodeId, Now};

use crate::context::{Context, WIRE_INTERVALS_MAX, WireContext};
use crate::dot::Dot;
use crate::gossip::Out;
use crate::message::{
    COMMAND_ITEMS_BYTES_MAX, COMPARE_DEFERRED_MAX, Compare, ITEMS_MAX, Message, PAGE_ITEMS_MAX, PageEnd,
};
use crate::rejoin::Listed;
use crate::replica::{Item, Replica};
use crate::shared::Shared;
use crate::store::Store;
use search::{Answer, Search};

/// Exchanges that this node has open as the asking side.
const PULLS_MAX: usize = 4;
/// Ticks without progress after which a request is repeated.
const RETRY_TICKS: u32 = 5;
/// Repeats after which an exchange is given up; the next comparison begins a new one.
const RETRIES_MAX: u32 = 4;
/// Ticks without a request after which a served snapshot is dropped.
const SERVING_TICKS: u32 = 100;
/// Changes that one page looks at. Those that the peer has are passed over, and may be all that there is for a while: in
/// incarnations that are closed here and not yet there.
const LOOKED_MAX: usize = 16_384;
/// Longest time after which a peer may ask to be asked again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// How often in a row the time to wait for a busy peer doubles.
const WAIT_DOUBLINGS_MAX: u32 = 2;

/// The exchanges that are open.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pulls: BTreeMap<NodeId, Pulling>,
    serving: BTreeMap<NodeId, Serving>,
    /// Peers that were too busy.
    waits: BTreeMap<NodeId, Wait>,
    /// How often the states of this node and a member differed although their contexts were equal.
    divergences: BTreeMap<NodeId, u64>,
}

/// Why a pull was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// For what is outside of our context.
    Missing,
    /// For all that the peer holds: what we hold beyond it, and its context covers, is dead.
    Rejoin,
    /// For all that the peer holds: what it shows and we do not is taken in.
    Repair,
}

/// How long not to ask a peer, and how often it was busy since it last served this node.
#[derive(Debug)]
struct Wait {
    until: Instant,
    times: u32,
}

#[derive(Debug)]
struct Pulling {
    session: u64,
    goal: Goal,
    /// The snapshot that the first page came from, and the last dot received.
    at: Option<(u64, Dot)>,
    /// Finds out what differs, where everything would have to be asked for otherwise.
    search: Option<Search>,
    /// What the peer holds, as far as its pages have come. Only where `goal` is `Rejoin`, and nothing is searched for.
    listed: Context,
    mutual: bool,
    progress: Instant,
    retries: u32,
    /// Whether a body could neither be applied nor deferred, so that the peer's context must not be joined.
    is_incomplete: bool,
}

#[derive(Debug)]
struct Serving {
    session: u64,
    snapshot: u64,
    replica: Replica,
    theirs: Context,
    /// Where the changes are that the peer may lack.
    spans: Vec<(Dot, Dot)>,
    /// Where what differs is searched for, what is answered. Then pages hold what the peer wants.
    answer: Option<Answer>,
    used: Instant,
    /// Whether the last page was sent. It is kept for the peer that did not get it, until somebody needs the place.
    is_finished: bool,
}

/// What a peer asks for in a pull.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) session: u64,
    pub(crate) context: Context,
    pub(crate) whole: bool,
    pub(crate) outline: Bytes,
}

/// A page without its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) session: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) snapshot: u64,
    pub(crate) after: Option<Dot>,
}

/// An exchange whose last page has come.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) goal: Goal,
    /// Whether every body was taken in.
    pub(crate) is_complete: bool,
    pub(crate) listed: Listed,
    pub(crate) context: WireContext,
}

impl Exchange {
    /// Drops what belongs to a peer's former incarnation.
    pub(crate) fn forget(&mut self, peer: NodeId, effects: &mut Out) {
        self.pulls.remove(&peer);
        self.waits.remove(&peer);
        if let Some(serving) = self.serving.remove(&peer) {
            effects.discard(serving);
        }
    }

    /// Number of exchanges in which this node asks.
    pub(crate) fn open(&self) -> usize {
        self.pulls.len()
    }

    /// The members whose state differed from this node's although their contexts were equal, and how often.
    pub(crate) fn divergences(&self) -> &BTreeMap<NodeId, u64> {
        &self.divergences
    }

    /// Notes that equal contexts came with unequal digests.
    pub(crate) fn note_divergence(&mut self, peer: NodeId) {
        *self.divergences.entry(peer).or_default() += 1;
    }

    /// Opens a comparison. It acknowledges our context if it turns out equal, so it waits for the disk.
    pub(crate) fn compare(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        now: Now,
        peer: NodeId,
        effects: &mut Out,
    ) {
        let deferred = store.deferred.dots();
        if deferred.len() > COMPARE_DEFERRED_MAX {
            return self.pull(shared, store, now, peer, Goal::Missing, true, effects);
        }
        let message = Message::Compare(Compare {
            incarnation: shared.config.incarnation,
            context: store.replica.context().hash(),
            digest: store.replica.digest(),
            deferred: deferred.iter().copied().collect(),
        });
        effects.send_after_append(peer, message);
    }

    /// Asks a peer for what it holds.
    #[expect(
        clippy::too_many_arguments,
        reason = "the order of all handlers, and why the pull is begun"
    )]
    pub(crate) fn pull(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        now: Now,
        from: NodeId,
        goal: Goal,
        mutual: bool,
        effects: &mut Out,
    ) {
        let is_waiting = |wait: &Wait| now.instant < wait.until;
        if self.pulls.contains_key(&from)
            || self.pulls.len() >= PULLS_MAX
            || self.waits.get(&from).is_some_and(is_waiting)
        {
            return;
        }
        debug_assert!(
            shared.config.peers().any(|peer| peer == from),
            "{from} is no peer"
        );
        let pulling = Pulling {
            session: shared.rng.next_u64(),
            goal,
            at: None,
            search: match goal {
                Goal::Missing => None,
                Goal::Rejoin | Goal::Repair => Search::begin(&store.replica),
            },
            listed: Context::default(),
            mutual,
            progress: now.instant,
            retries: 0,
            is_incomplete: false,
        };
        pulling.ask(shared, store, from, effects);
        self.pulls.insert(from, pulling);
    }

    /// Begins to serve a peer from a snapshot of the present state.
    pub(crate) fn on_pull(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        now: Now,
        from: NodeId,
        request: Request,
        effects: &mut Out,
    ) {
        // A repeated request is answered from the snapshot it began with.
        let is_known = |serving: &Serving| serving.session == request.session;
        if !self.serving.get(&from).is_some_and(is_known) {
            if !self.make_room(from, shared.config.serving_max, effects) {
                debug!(%from, "did not serve a pull: enough exchanges are open; the peer will ask again");
                let interval = shared.config.tick * shared.config.sync_ticks;
                let busy = Message::Busy {
                    session: request.session,
                    retry_after_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
                };
                return effects.send(from, busy);
            }
            let answer = Answer::to(&request, &store.replica);
            let theirs = if request.whole {
                Context::default()
            } else {
                request.context
            };
            let serving = Serving {
                session: request.session,
                snapshot: shared.rng.next_u64(),
                replica: store.replica.clone(),
                spans: store.replica.context().minus(&theirs),
                answer,
                theirs,
                used: now.instant,
                is_finished: false,
            };
            if let Some(former) = self.serving.insert(from, serving) {
                effects.discard(former);
            }
        }
        let answer = self
            .serving
            .get(&from)
            .and_then(|serving| serving.answer.as_ref());
        match answer.map(|answer| answer.count) {
            Some(count) => self.send_symbols(shared, now, from, 0, count, effects),
            None => self.send_page(shared, now, from, None, effects),
        }
    }

    /// A peer serves enough others. It is asked again, if there is reason to, after a random part of the time that it says,
    /// longer each time: who was refused together does not come back together.
    pub(crate) fn on_busy(
        &mut self,
        shared: &mut Shared,
        now: Now,
        from: NodeId,
        (session, retry_after): (u64, Duration),
    ) {
        let is_asked = |pulling: &mut Pulling| pulling.session == session && pulling.at.is_none();
        if self.pulls.get_mut(&from).is_none_or(|pulling| !is_asked(pulling)) {
            return;
        }
        self.pulls.remove(&from);
        let times = self.waits.get(&from).map_or(0, |wait| wait.times);
        let longest = retry_after.clamp(shared.config.tick, RETRY_AFTER_MAX) * (1 << times);
        let wait = Wait {
            until: now.instant + shared.rng.between(Duration::ZERO, longest),
            times: (times + 1).min(WAIT_DOUBLINGS_MAX),
        };
        self.waits.insert(from, wait);
    }

    /// Whether one more peer can be served, after the oldest finished exchange was dropped if need be.
    fn make_room(&mut self, from: NodeId, serving_max: usize, effects: &mut Out) -> bool {
        if self.serving.contains_key(&from) || self.serving.len() < serving_max {
            return true;
        }
        let finished = self.serving.iter().filter(|(_, serving)| serving.is_finished);
        let oldest = finished.min_by_key(|(_, serving)| serving.used);
        let oldest = oldest.map(|(peer, _)| *peer);
        let oldest = oldest.and_then(|peer| self.serving.remove(&peer));
        oldest.map(|oldest| effects.discard(oldest)).is_some()
    }

    /// Sends the page after `after`.
    pub(crate) fn on_more(
        &mut self,
        shared: &Shared,
        now: Now,
        from: NodeId,
        (session, snapshot, after): (u64, u64, Dot),
        effects: &mut Out,
    ) {
        let serving = self.serving.get(&from);
        if serving.is_some_and(|serving| serving.session == session && serving.snapshot == snapshot) {
            self.send_page(shared, now, from, Some(after), effects);
        }
    }

    fn send_page(&mut self, shared: &Shared, now: Now, to: NodeId, after: Option<Dot>, effects: &mut Out) {
        let Some(serving) = self.serving.get_mut(&to) else {
            return;
        };
        serving.used = now.instant;
        let (items, more) = serving.page(after, shared.config.page_bytes);
        assert!(more.is_none() || more > after, "a page that leads nowhere");
        serving.is_finished |= more.is_none();
        let end = match more {
            Some(last) => PageEnd::More(last),
            None => PageEnd::Last(serving.replica.context().to_wire(WIRE_INTERVALS_MAX)),
        };
        let message = Message::Page {
            session: serving.session,
            incarnation: shared.config.incarnation,
            snapshot: serving.snapshot,
            after,
            items,
            end,
        };
        effects.send_after_append(to, message);
    }

    /// Whether a page is the next one of the exchange that is open with its sender.
    pub(crate) fn is_expected(&self, from: NodeId, page: Page, end: &PageEnd) -> bool {
        let Some(pulling) = self.pulls.get(&from) else {
            return false;
        };
        let follows = match pulling.at {
            None => page.after.is_none(),
            Some((snapshot, last)) => snapshot == page.snapshot && page.after == Some(last),
        };
        let advances = match end {
            PageEnd::More(next) => page.after.is_none_or(|after| *next > after),
            PageEnd::Last(_) => true,
        };
        let is_wanted = |search: &Search| search.wants_pages_of(page.snapshot);
        let is_wanted = pulling.search.as_ref().is_none_or(is_wanted);
        pulling.session == page.session && follows && advances && is_wanted
    }

    /// Notes the changes of the next page, and takes in those that repair a difference, if the peer's word suffices.
    pub(crate) fn on_items(
        &mut self,
        shared: &mut Shared,
        store: &mut Store,
        now: Now,
        from: NodeId,
        items: &[Item],
        effects: &mut Out,
    ) {
        self.waits.remove(&from);
        let Some(pulling) = self.pulls.get_mut(&from) else {
            return;
        };
        pulling.search.take_if(|search| search.is_declined());
        match pulling.goal {
            Goal::Missing => {}
            Goal::Rejoin if pulling.search.is_some() => {
                pulling.search.iter_mut().for_each(|search| search.note(items));
            }
            Goal::Rejoin => items.iter().for_each(|item| pulling.listed.insert(item.dot)),
            Goal::Repair if shared.config.may_repair(from) => {
                let context = store.replica.context();
                let known = items.iter().filter(|item| context.contains(item.dot));
                let known: Vec<Item> = known.cloned().collect();
                store.repair(shared, now, &known, &[], effects);
            }
            Goal::Repair => {}
        }
    }

    /// The changes of a page were taken in, all of them or not. Asks for the page after it; returns what there is to conclude
    /// after the last.
    #[expect(
        clippy::too_many_arguments,
        reason = "the order of all handlers, and the parts of a page"
    )]
    pub(crate) fn on_page(
        &mut self,
        shared: &Shared,
        store: &Store,
        now: Now,
        from: NodeId,
        page: Page,
        is_complete: bool,
        end: PageEnd,
        effects: &mut Out,
    ) -> Option<Finished> {
        let pulling = self.pulls.get_mut(&from)?;
        pulling.is_incomplete |= !is_complete;
        match end {
            PageEnd::More(next) => {
                pulling.at = Some((page.snapshot, next));
                pulling.progress = now.instant;
                pulling.retries = 0;
                pulling.ask(shared, store, from, effects);
                None
            }
            PageEnd::Last(context) => {
                let pulling = self.pulls.remove(&from)?;
                Some(Finished {
                    goal: pulling.goal,
                    is_complete: !pulling.is_incomplete,
                    listed: match pulling.search {
                        Some(search) => search.finish(),
                        None => Listed::Whole(pulling.listed),
                    },
                    context,
                })
            }
        }
    }

    /// The name of the exchange in which a peer is asked.
    #[cfg(test)]
    pub(crate) fn session(&self, peer: NodeId) -> Option<u64> {
        self.pulls.get(&peer).map(|pulling| pulling.session)
    }

    /// Gives up an exchange with a peer that breaks its rules.
    pub(crate) fn give_up(&mut self, peer: NodeId) {
        self.pulls.remove(&peer);
    }

    /// Repeats requests that got no answer, and closes what nobody asks for any more.
    pub(crate) fn on_tick(&mut self, shared: &Shared, store: &Store, now: Now, effects: &mut Out) {
        let patience = |ticks: u32| -> Duration { shared.config.tick * ticks };
        let stale = patience(SERVING_TICKS);
        let is_stale = |_: &NodeId, serving: &mut Serving| now.instant.since(serving.used) >= stale;
        for (_, serving) in self.serving.extract_if(.., is_stale) {
            effects.discard(serving);
        }
        self.pulls.retain(|peer, pulling| {
            if now.instant.since(pulling.progress) < patience(RETRY_TICKS) {
                return true;
            }
            pulling.retries += 1;
            pulling.progress = now.instant;
            let goes_on = pulling.retries <= RETRIES_MAX;
            if goes_on {
                pulling.ask(shared, store, *peer, effects);
            }
            goes_on
        });
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, shared: &Shared) {
        assert!(
            self.pulls.len() <= PULLS_MAX,
            "more exchanges are open than may be"
        );
        assert!(
            self.serving.len() <= shared.config.serving_max,
            "more exchanges are served than may be"
        );
        let mut pulls = self.pulls.values();
        assert!(
            pulls.all(|pulling| pulling.goal == Goal::Rejoin || pulling.listed.is_empty()),
            "a list is kept that nobody needs"
        );
        let mut pulls = self.pulls.values();
        assert!(
            pulls.all(|pulling| pulling.retries <= RETRIES_MAX),
            "an exchange that should be given up is open"
        );
        let mut peers = self.pulls.keys().chain(self.serving.keys());
        debug_assert!(
            peers.all(|peer| shared.config.members.contains(peer)),
            "an exchange with a node that is no member"
        );
    }
}

impl Pulling {
    fn ask(&self, shared: &Shared, store: &Store, from: NodeId, effects: &mut Out) {
        let found = self
            .search
            .as_ref()
            .and_then(|search| search.request(self.session));
        let message = match (self.at, found) {
            (Some((snapshot, after)), _) => Message::More {
                session: self.session,
                snapshot,
                after,
            },
            (None, Some(request)) => request,
            (None, None) => Message::Pull {
                session: self.session,
                incarnation: shared.config.incarnation,
                context: store.replica.context().to_wire(WIRE_INTERVALS_MAX),
                deferred: store.deferred.dots().iter().copied().collect(),
                mutual: self.mutual,
                whole: self.goal != Goal::Missing,
                outline: self
                    .search
                    .as_ref()
                    .map(Search::outline)
                    .unwrap_or_default()
                    .into(),
            },
        };
        effects.send_after_append(from, message);
    }
}

impl Serving {
    /// The changes after `after` that the peer lacks, up to a page's limits, and the last one looked at, if more may
    /// follow. A command is never split: its parts become visible together everywhere. Only what is larger than a command
    /// can be is, or nobody would ever get it.
    fn page(&self, after: Option<Dot>, page_bytes: usize) -> (Vec<Item>, Option<Dot>) {
        let mut items: Vec<Item> = Vec::new();
        let (mut bytes, mut looked, mut last) = (0, 0, after);
        for (dot, key) in self.replica.live_within(&self.spans, after) {
            let is_apart = items.last().is_none_or(|item| !item.is_followed_by(dot));
            if is_apart && looked >= LOOKED_MAX {
                return (items, last);
            }
            looked += 1;
            if self.theirs.contains(dot) {
                last = Some(dot);
                continue;
            }
            let Some(item) = self.replica.item_of(key, dot) else {
                continue;
            };
            let full = bytes >= page_bytes || items.len() + usize::from(item.part.of) > PAGE_ITEMS_MAX;
            let is_impossible = bytes + item.size() > page_bytes + COMMAND_ITEMS_BYTES_MAX;
            if !items.is_empty() && is_apart && full || items.len() == ITEMS_MAX || is_impossible {
                return (items, last);
            }
            bytes += item.size();
            last = Some(dot);
            items.push(item.clone());
        }
        debug_assert!(items.len() <= ITEMS_MAX, "a page that no peer would read");
        (items, None)
    }
}

#[cfg(test)]
mod tests;
