//! Watchers of the simulated clients, and what a watch must show.
//!
//! A watcher follows one keyspace through one node after the other: it reads at its own pace, sometimes stops reading,
//! leaves without a word, comes back with its token or without, and goes elsewhere when its node dies. Whatever it is
//! shown is held against what the nodes have published:
//!
//! - a stream goes on from its token or from its last reset without a gap, each command's changes together;
//! - where all nodes see one stream, positions never go back, at whichever node it resumes, and a reset shows the state
//!   of its position;
//! - a key is never shown older than before within one stream;
//! - when the cluster is at rest and the watcher has read everything, it knows exactly what its node shows: silence is
//!   a failure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{self, Excluded, Included};
use std::time::Duration;

use trilemma_core::{
    Change, ChangeBatch, Entry, Key, KeyRange, NodeId, ReadError, Rng, Value, Version, WatchItem, WatchSpec,
    WatchStart, WatchToken,
};
use trilemma_node::{Destination, LinkId, WatchId};

use crate::invariants::Broken;

type State = BTreeMap<Key, (Value, Version)>;

/// What nodes have published, by keyspace and stream.
#[derive(Default)]
pub(crate) struct Published {
    streams: BTreeMap<(usize, u64), BTreeMap<u64, Vec<Change>>>,
    /// States that nodes have started with, by keyspace and position: what a node decides and logs, and then dies
    /// before it publishes, is part of the stream all the same.
    started: BTreeMap<usize, BTreeMap<u64, State>>,
}

impl Published {
    /// A node has published changes. `stream` is that of its tokens in this keyspace.
    pub(crate) fn add(&mut self, slot: usize, stream: u64, applied: &[ChangeBatch]) {
        let known = self.streams.entry((slot, stream)).or_default();
        for one in applied {
            known.entry(one.position).or_insert_with(|| one.changes.clone());
        }
    }

    /// A node has started with this state of a keyspace whose stream all nodes share.
    pub(crate) fn started(&mut self, slot: usize, position: u64, entries: &[Entry]) {
        let states = self.started.entry(slot).or_default();
        states.entry(position).or_insert_with(|| state_of(entries));
    }

    fn stream(&self, slot: usize, stream: u64) -> Option<&BTreeMap<u64, Vec<Change>>> {
        self.streams.get(&(slot, stream))
    }

    /// The state at a position of the stream that all nodes share, which begins with an empty keyspace.
    fn state(&self, slot: usize, position: u64, range: &KeyRange) -> State {
        let started = self
            .started
            .get(&slot)
            .and_then(|states| states.range(..=position).next_back());
        let (from, mut state) = started.map_or_else(Default::default, |(at, state)| (*at, state.clone()));
        state.retain(|key, _| range.contains(key));
        let known = self.stream(slot, 0).into_iter();
        for (_, changes) in known.flat_map(|known| known.range((Excluded(from), Included(position)))) {
            apply(&mut state, changes, range);
        }
        state
    }
}

fn apply(state: &mut State, changes: &[Change], range: &KeyRange) {
    for change in changes.iter().filter(|change| range.contains(&change.key)) {
        match &change.now {
            Some(now) => {
                state.insert(change.key.clone(), (now.value.clone(), now.modified));
            }
            None => {
                state.remove(&change.key);
            }
        }
    }
}

fn state_of(entries: &[Entry]) -> State {
    entries
        .iter()
        .map(|entry| {
            (
                entry.key.clone(),
                (entry.state.value.clone(), entry.state.modified),
            )
        })
        .collect()
}

/// One watcher.
pub(crate) struct Watcher {
    /// Its choices.
    pub(crate) rng: Rng,
    /// The keyspace.
    pub(crate) slot: usize,
    /// What it watches.
    pub(crate) range: KeyRange,
    /// The node that it watches through, and the watch there.
    pub(crate) at: Option<(NodeId, WatchId)>,
    /// Items on their way or not yet read.
    pub(crate) unread: VecDeque<Result<WatchItem, ReadError>>,
    /// A read is planned.
    pub(crate) reading: bool,
    /// The node that it watched through before, and whether that died.
    pub(crate) before: Option<(NodeId, bool)>,
    /// It has a token, and what it gets next goes on from there or begins again.
    pub(crate) resumes: bool,
    token: Option<WatchToken>,
    /// It began with what came from then on, and waits for the mark that says when that was.
    begins: bool,
    /// The keys that it was shown since, if it began so and was never shown the state.
    since: Option<BTreeSet<Key>>,
    state: State,
    /// Entries of a reset of which the last part has not come.
    partial: Option<Vec<Entry>>,
    /// Items read so far.
    items: u64,
    /// Resets among them.
    resets: u64,
}

impl Watcher {
    /// A watcher that has seen nothing.
    #[must_use]
    pub(crate) fn new(rng: Rng, slot: usize, range: KeyRange) -> Self {
        Self {
            rng,
            slot,
            range,
            at: None,
            unread: VecDeque::new(),
            reading: false,
            before: None,
            resumes: false,
            token: None,
            begins: false,
            since: None,
            state: State::new(),
            partial: None,
            items: 0,
            resets: 0,
        }
    }

    /// Items read so far, and resets among them.
    #[must_use]
    pub(crate) fn read_so_far(&self) -> (u64, u64) {
        (self.items, self.resets)
    }

    /// Where it begins at its next node. Now and then it has lost its token, or what it knew of the state.
    pub(crate) fn spec(&mut self) -> WatchSpec {
        if self.rng.per_mille(200) {
            self.token = None;
        }
        self.begins = self.token.is_none() && self.rng.per_mille(500);
        let start = match self.token {
            None if self.begins => WatchStart::Now,
            None => WatchStart::State,
            Some(token) if self.rng.per_mille(200) => WatchStart::StateFrom(token),
            Some(token) => WatchStart::After(token),
        };
        let progress = self.rng.per_mille(500);
        WatchSpec {
            range: self.range.clone(),
            start,
            progress: progress.then(|| Duration::from_millis(100 + self.rng.below(300))),
        }
    }

    /// Where the items of its watch go: it has room for little, so that resets come in parts, or for much.
    pub(crate) fn destination(&mut self, watch: WatchId) -> Destination {
        let rooms = [100, 400, 2000, 1024 * 1024];
        Destination {
            link: LinkId(watch.0),
            room: rooms[self.rng.below(rooms.len() as u64) as usize],
        }
    }

    /// It has left its node, or lost it because that died: what it had not read is gone.
    pub(crate) fn detach(&mut self, died: bool) {
        self.before = self.at.take().map(|(node, _)| (node, died));
        self.unread.clear();
        self.partial = None;
        self.begins = false;
    }

    /// Whether parts of a reset have come, and not the last.
    #[must_use]
    pub(crate) fn is_in_reset(&self) -> bool {
        self.partial.is_some()
    }

    /// What a watch that resumed is given first, once.
    pub(crate) fn resumed_with(&mut self) -> Option<&'static str> {
        let met = match self.unread.front()? {
            Ok(WatchItem::Changes { .. }) => "changes",
            Ok(WatchItem::Reset { .. }) => "reset",
            Ok(WatchItem::Progress { .. }) => "progress",
            Err(_) => return None,
        };
        std::mem::take(&mut self.resumes).then_some(met)
    }

    /// Reads one item. `Ok(false)`: the watch has ended.
    pub(crate) fn read(&mut self, published: &Published) -> Result<bool, Broken> {
        match self.unread.pop_front() {
            None => Ok(true),
            Some(Err(_)) => Ok(false),
            Some(Ok(item)) => {
                self.items += 1;
                match item {
                    WatchItem::Changes { token, changes } => self.changes(token, &changes, published)?,
                    WatchItem::Progress { token } => self.progress(token, published)?,
                    WatchItem::Reset {
                        token,
                        entries,
                        first,
                        last,
                    } => {
                        let mut all = self.partial.take().unwrap_or_default();
                        if first {
                            all.clear();
                        }
                        all.extend(entries);
                        if last {
                            self.resets += 1;
                            self.reset(token, &all, published)?;
                        } else {
                            self.partial = Some(all);
                        }
                    }
                }
                Ok(true)
            }
        }
    }

    fn broken(&self, what: &str) -> Broken {
        let token = self
            .token
            .map_or("no token".to_owned(), |token| token.to_string());
        let text = format!(
            "a watcher of keyspace {} at {:?} with {token}: {what}",
            self.slot, self.at
        );
        ("watch", text)
    }

    fn changes(
        &mut self,
        token: WatchToken,
        changes: &[Change],
        published: &Published,
    ) -> Result<(), Broken> {
        if self.partial.is_some() {
            return Err(self.broken("changes come in the middle of a reset"));
        }
        let Some(before) = self.token.filter(|before| before.stream == token.stream) else {
            return Err(self.broken(&format!("changes at {token} come without a reset")));
        };
        if token.position <= before.position {
            return Err(self.broken(&format!("goes back to {token}")));
        }
        let Some(stream) = published.stream(self.slot, token.stream) else {
            return Err(self.broken(&format!("changes at {token} of a stream that nobody publishes")));
        };
        self.not_missed(stream, (Excluded(before.position), Excluded(token.position)))?;
        let expected: Vec<&Change> = stream
            .get(&token.position)
            .into_iter()
            .flatten()
            .filter(|change| self.range.contains(&change.key))
            .collect();
        if !expected.iter().copied().eq(changes) {
            return Err(self.broken(&format!(
                "was shown {changes:?} at {token}, published were {expected:?}"
            )));
        }
        for change in changes {
            let known = self.state.get(&change.key).map(|(_, version)| *version);
            let now = change.now.as_ref().map(|now| now.modified);
            if let (Some(known), Some(now)) = (known, now)
                // Where each node has a stream of its own, a change may tell again what has not changed.
                && (now < known || (now == known && token.stream == 0))
            {
                return Err(self.broken(&format!("was shown {now} of {} after {known}", change.key)));
            }
        }
        let range = self.range.clone();
        apply(&mut self.state, changes, &range);
        if let Some(since) = &mut self.since {
            since.extend(changes.iter().map(|change| change.key.clone()));
        }
        self.token = Some(token);
        Ok(())
    }

    /// Nothing in its range was published at these positions.
    fn not_missed(
        &self,
        stream: &BTreeMap<u64, Vec<Change>>,
        positions: (Bound<u64>, Bound<u64>),
    ) -> Result<(), Broken> {
        let is_missed = |change: &Change| self.range.contains(&change.key);
        match stream
            .range(positions)
            .find(|(_, changes)| changes.iter().any(is_missed))
        {
            Some((position, missed)) => Err(self.broken(&format!("was not shown {missed:?} at {position}"))),
            None => Ok(()),
        }
    }

    /// A mark says how far it has come, or when it began.
    fn progress(&mut self, token: WatchToken, published: &Published) -> Result<(), Broken> {
        if self.partial.is_some() {
            return Err(self.broken("a mark comes in the middle of a reset"));
        }
        if std::mem::take(&mut self.begins) {
            self.state.clear();
            self.since = Some(BTreeSet::new());
            self.token = Some(token);
            return Ok(());
        }
        let Some(before) = self.token.filter(|before| before.stream == token.stream) else {
            return Err(self.broken(&format!("a mark at {token} comes without a reset")));
        };
        if token.position < before.position {
            return Err(self.broken(&format!("a mark goes back to {token}")));
        }
        if let Some(stream) = published.stream(self.slot, token.stream) {
            self.not_missed(stream, (Excluded(before.position), Included(token.position)))?;
        }
        self.token = Some(token);
        Ok(())
    }

    fn reset(&mut self, token: WatchToken, entries: &[Entry], published: &Published) -> Result<(), Broken> {
        if self.begins {
            return Err(self.broken("begins now, and is shown the state first"));
        }
        let state = state_of(entries);
        if token.stream == 0 {
            if let Some(before) = self.token.filter(|before| before.stream == 0)
                && token.position < before.position
            {
                return Err(self.broken(&format!("a reset goes back to {token}")));
            }
            let expected = published.state(self.slot, token.position, &self.range);
            if state != expected {
                return Err(self.broken(&format!(
                    "a reset at {token} shows {state:?}, the state there is {expected:?}"
                )));
            }
        }
        self.state = state;
        self.since = None;
        self.token = Some(token);
        Ok(())
    }

    /// The cluster is at rest and everything was read: it must know what its node shows.
    pub(crate) fn at_rest(&self, entries: &[Entry]) -> Result<(), Broken> {
        let mut shown = state_of(entries);
        shown.retain(|key, _| self.range.contains(key));
        if let Some(since) = &self.since {
            // It does not know what it was not shown.
            shown.retain(|key, _| since.contains(key));
        }
        if shown == self.state {
            return Ok(());
        }
        Err(self.broken(&format!(
            "has been shown {:?} and nothing more, its node shows {shown:?}",
            self.state
        )))
    }
}
