//! Whole exchanges at a cost proportional to the difference (inside/gossip#finding-what-differs).
//!
//! ```text
//! B                                    A
//! | -- Pull(whole, outline) ---------> |   about how much do we differ? little: symbols; much: pages of everything
//! | <---- Symbols(0..) --------------- |   from one snapshot of A, as many as should be enough
//! | -- MoreSymbols ------------------> |   if they were not
//! | <---- Symbols -------------------- |
//! | -- Want(dots) -------------------> |   B knows what only A holds, and what only B holds
//! | <---- Page(items, last context) -- |   bodies, and then the context: as in any exchange
//! ```
//!
//! What is outside of B's context needs no symbols: A leaves it out of them, and sends it with the rest. What comes of it is what comes of pages of everything: B knows, of all that A held, which it holds as well. If the symbols
//! are those of no set, or name what nobody holds, or are not enough, B asks for everything.

use std::collections::BTreeSet;

use tracing::debug;
use trilemma_core::{NodeId, Now};

use super::{Exchange, Goal, Pulling, Request, Serving};
use crate::dot::Dot;
use crate::gossip::Out;
use crate::message::{Message, WireDots};
use crate::reconcile::{
    Decoded, Decoder, Element, Progress, SYMBOL_BYTES, Sketch, Symbol, differences, outline, symbols_for,
};
use crate::rejoin::Listed;
use crate::replica::{Item, Replica, dot_of};
use crate::shared::Shared;
use crate::store::Store;

/// What a change costs at least in a page of everything, in bytes: the symbols must cost less.
const CHANGE_BYTES: usize = 64;
/// Most changes outside of the peer's context beside which anything is searched for: some milliseconds of work. For more,
/// everything is sent.
const OUTSIDE_MAX: usize = 8192;
/// Fewest symbols that are sent when the first were not enough; else it is an eighth of those.
const MORE_SYMBOLS_MIN: usize = 8;

/// What is known of a difference.
#[derive(Debug)]
pub(super) struct Search {
    /// What this node held when it began.
    held: Replica,
    decoder: Decoder,
    /// The peer's snapshot, once symbols have come.
    snapshot: Option<u64>,
    found: Option<Found>,
}

/// What a search has found.
#[derive(Debug)]
struct Found {
    want: BTreeSet<Dot>,
    there: BTreeSet<Dot>,
    here: BTreeSet<Dot>,
}

/// The other side of a search: what is answered from.
#[derive(Debug)]
pub(super) struct Answer {
    /// The symbols of what the peer's context holds.
    sketch: Sketch,
    /// Number of symbols to begin with.
    pub(super) count: usize,
    /// What is outside of the peer's context, ascending: that it lacks this needs no symbols.
    outside: Vec<Dot>,
}

impl Search {
    /// A search for what differs from all that this node holds; `None` if that is nothing.
    pub(super) fn begin(replica: &Replica) -> Option<Search> {
        (replica.live() > 0).then(|| Search {
            held: replica.clone(),
            decoder: Decoder::new(replica.sketch().clone()),
            snapshot: None,
            found: None,
        })
    }

    /// The outline to begin with.
    pub(super) fn outline(&self) -> Vec<u8> {
        outline(self.held.sketch())
    }

    /// Whether the peer has answered everything instead: a page before any symbol.
    pub(super) fn is_declined(&self) -> bool {
        self.snapshot.is_none()
    }

    /// Whether pages of this snapshot are what is wanted.
    pub(super) fn wants_pages_of(&self, snapshot: u64) -> bool {
        self.snapshot
            .is_none_or(|known| known == snapshot && self.found.is_some())
    }

    /// What to ask for next; `None` before any symbol has come.
    pub(super) fn request(&self, session: u64) -> Option<Message> {
        let snapshot = self.snapshot?;
        Some(match &self.found {
            Some(found) => Message::Want {
                session,
                snapshot,
                dots: (&found.want).into(),
            },
            None => Message::MoreSymbols {
                session,
                snapshot,
                first: self.decoder.taken() as u32,
            },
        })
    }

    /// Notes changes that the peer holds outside of this node's context.
    pub(super) fn note(&mut self, items: &[Item]) {
        if let Some(found) = &mut self.found {
            found.there.extend(items.iter().map(|item| item.dot));
        }
    }

    /// What the peer held, when all that is wanted has come.
    pub(super) fn finish(self) -> Listed {
        match self.found {
            None => Listed::default(),
            Some(Found { there, here, .. }) => Listed::Difference {
                held: Box::new(self.held),
                there,
                here,
            },
        }
    }

    /// Takes symbols. Whether the search goes on or has found everything; it must be given up if not.
    fn take(&mut self, symbols: &[Symbol], goal: Goal, store: &Store) -> bool {
        match self.decoder.take(symbols) {
            Ok(Progress::Open) => !symbols.is_empty(),
            Ok(Progress::Done) => {
                let own = Decoder::new(self.held.sketch().clone());
                let decoded = std::mem::replace(&mut self.decoder, own).finish();
                self.found = decoded.and_then(|decoded| self.name(&decoded, goal, store));
                self.found.is_some()
            }
            Ok(Progress::Exhausted) => false,
            Err(defect) => {
                debug!(%defect, "symbols that are not those of a state");
                false
            }
        }
    }

    /// The changes that make the difference; `None` if it does not explain why anybody asks, or if some cannot be.
    fn name(&self, decoded: &Decoded, goal: Goal, store: &Store) -> Option<Found> {
        let names = |elements: &[Element]| -> Option<BTreeSet<Dot>> {
            elements.iter().map(|element| dot_of(*element)).collect()
        };
        let (there, here) = (names(&decoded.there)?, names(&decoded.here)?);
        if here.iter().any(|dot| self.held.item(*dot).is_none()) {
            return None;
        }
        let context = store.replica.context();
        let mut want = there.clone();
        match goal {
            Goal::Repair if there.is_empty() && here.is_empty() => return None,
            Goal::Repair => {}
            Goal::Missing | Goal::Rejoin => want.retain(|dot| !context.contains(*dot)),
        }
        Some(Found { want, there, here })
    }
}

impl Pulling {
    /// Asks for everything, under another name: late answers to the search must not be taken for it.
    fn give_up_search(&mut self, shared: &mut Shared) {
        self.search = None;
        self.session = shared.rng.next_u64();
    }
}

impl Answer {
    /// What to answer a request from; `None` if everything is to be answered.
    pub(super) fn to(request: &Request, replica: &Replica) -> Option<Answer> {
        if !request.whole || request.outline.is_empty() {
            return None;
        }
        let (sketch, outside) = replica.sketch_within(&request.context, OUTSIDE_MAX)?;
        let count = symbols_for(differences(&sketch, &request.outline));
        let is_cheaper = count * SYMBOL_BYTES < replica.live() * CHANGE_BYTES;
        let is_enough = count <= sketch.symbols().len();
        (is_cheaper && is_enough).then_some(Answer {
            sketch,
            count,
            outside,
        })
    }
}

impl Exchange {
    /// Takes a message of a search.
    pub(crate) fn on_search(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        now: Now,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) {
        match message {
            Message::Symbols {
                session,
                snapshot,
                first,
                symbols,
                ..
            } => {
                let part = (session, snapshot, first);
                self.on_symbols(shared, store, now, from, part, &symbols, effects);
            }
            Message::MoreSymbols {
                session,
                snapshot,
                first,
            } => self.on_more_symbols(shared, now, from, (session, snapshot, first), effects),
            Message::Want {
                session,
                snapshot,
                dots,
            } => self.on_want(shared, now, from, (session, snapshot), &dots, effects),
            _ => debug_assert!(false, "not a message of a search"),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the order of all handlers, and the parts of a message"
    )]
    fn on_symbols(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        now: Now,
        from: NodeId,
        (session, snapshot, first): (u64, u64, u32),
        symbols: &[u8],
        effects: &mut Out,
    ) {
        let Some(pulling) = self.pulls.get_mut(&from) else {
            return;
        };
        let is_next = |search: &Search| {
            search.found.is_none()
                && search.snapshot.is_none_or(|known| known == snapshot)
                && search.decoder.taken() == first as usize
        };
        let search = pulling.search.as_mut().filter(|search| is_next(search));
        let Some(search) = search.filter(|_| pulling.session == session) else {
            return;
        };
        search.snapshot = Some(snapshot);
        let symbols = Symbol::read_all(symbols).unwrap_or_default();
        if !search.take(&symbols, pulling.goal, store) {
            pulling.give_up_search(shared);
        }
        pulling.progress = now.instant;
        pulling.retries = 0;
        pulling.ask(shared, store, from, effects);
        self.waits.remove(&from);
    }

    /// Sends symbols from `first` on.
    pub(super) fn send_symbols(
        &mut self,
        shared: &Shared,
        now: Now,
        to: NodeId,
        first: usize,
        count: usize,
        effects: &mut Out,
    ) {
        let Some(serving) = self.serving.get_mut(&to) else {
            return;
        };
        let Some(answer) = &serving.answer else {
            return;
        };
        serving.used = now.instant;
        let all = answer.sketch.symbols();
        let end = first.saturating_add(count).min(all.len());
        let message = Message::Symbols {
            session: serving.session,
            incarnation: shared.config.incarnation,
            snapshot: serving.snapshot,
            first: first as u32,
            symbols: Symbol::write_all(&all[first.min(end)..end]).into(),
        };
        effects.send_after_append(to, message);
    }

    fn on_more_symbols(
        &mut self,
        shared: &Shared,
        now: Now,
        from: NodeId,
        (session, snapshot, first): (u64, u64, u32),
        effects: &mut Out,
    ) {
        let serving = self.serving.get(&from);
        let is_open = |serving: &&Serving| {
            serving.answer.is_some() && serving.session == session && serving.snapshot == snapshot
        };
        if serving.is_some_and(|serving| is_open(&serving)) {
            let first = first as usize;
            let count = (first / 8).max(MORE_SYMBOLS_MIN);
            self.send_symbols(shared, now, from, first, count, effects);
        }
    }

    /// The peer knows what differs: what it wants of it goes in pages, with what is outside of its context.
    fn on_want(
        &mut self,
        shared: &Shared,
        now: Now,
        from: NodeId,
        (session, snapshot): (u64, u64),
        dots: &WireDots,
        effects: &mut Out,
    ) {
        let (Some(serving), Some(dots)) = (self.serving.get_mut(&from), dots.read()) else {
            return;
        };
        let is_same = serving.session == session && serving.snapshot == snapshot;
        let Some(answer) = serving.answer.as_ref().filter(|_| is_same) else {
            return;
        };
        let all: BTreeSet<&Dot> = dots.iter().chain(&answer.outside).collect();
        serving.spans = all.into_iter().map(|dot| (*dot, *dot)).collect();
        self.send_page(shared, now, from, None, effects);
    }
}
