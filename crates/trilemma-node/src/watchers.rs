//! The watches of one keyspace: each reader at its own pace, in bounded memory, and never a silent gap.
//!
//! The recent changes of the keyspace are kept once, in a [`Ring`], and a watch is a place in it. A watch *follows*: it
//! has been given everything, and costs nothing until a change concerns it. It is *behind*: changes after its place may
//! be for it; it is given them as its reader has room. It *needs a reset*: it is new, its token cannot be resumed, the
//! state has jumped, or the ring does not reach back to its place any more; it is then sent the entries part by part,
//! from a view of one moment, and goes on from there. So a reader that stands still costs its place, and a watch that is
//! reset holds up no turn, however large its range.
//!
//! Watches are served at the end of a turn, after all changes of the turn were published, so what a view shows and the
//! position that it claims are of the same moment: no watcher is shown an older value of a key after a newer one.

mod destination;
mod index;
mod resets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trilemma_core::watch::{PROGRESS_MIN, Ring};
use trilemma_core::{
    ChangeBatch, Instant, KeyRange, Reason, View, WatchItem, WatchSpec, WatchStart, WatchToken,
};

use index::Index;
use resets::Resets;

pub use destination::{Budget, Destination, LinkId, ReaderEvent, Sent, WatchId};

/// Watchers up to which each is looked at, at the end of each turn.
const CHECKED_MAX: usize = 64;
/// Keys, or changes, that a watch looks at before it is another's turn.
const PART_KEYS: usize = 2048;
/// Bytes of items that a watch is given before it is another's turn; one entry or command may be larger.
const PART_BYTES: usize = 128 * 1024;
/// Room that a reader may give at most.
const ROOM_MAX: usize = 16 * 1024 * 1024;

/// Where a watch stands.
#[derive(Debug)]
enum Stage {
    /// It has been given everything, or has seen everything up to this position elsewhere and is given what comes after.
    Following(u64),
    /// Changes after this position may be for it.
    Behind(u64),
    /// It begins now.
    Beginning,
    /// It needs a reset, of this position or a later one.
    Awaiting(u64),
    NeedsReset,
    /// It is being sent the state of this position.
    Resetting {
        position: u64,
        view: Box<dyn View>,
        /// Whether a part of it was sent.
        begun: bool,
    },
}

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    link: LinkId,
    stage: Stage,
    /// Bytes of items that its reader has room for. Below zero by what the last item had more.
    room: isize,
    /// Whether it stands in some queue: to be served, for its link, or for its reset.
    queued: bool,
    /// The last position that it was given with an item.
    reported: u64,
    /// How often it wants to know how far it has come, and when it is due next.
    progress: Option<(Duration, Instant)>,
}

impl Watcher {
    /// Whether there may be something for it, and room.
    fn is_due(&self) -> bool {
        self.room > 0 && !matches!(self.stage, Stage::Following(_) | Stage::Awaiting(_))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Watchers {
    ring: Ring,
    watchers: BTreeMap<WatchId, Watcher>,
    /// Those that follow.
    index: Index,
    /// Those that are due, in the order in which they are served.
    due: VecDeque<WatchId>,
    /// Links that have no room, and those that are due on them.
    full: BTreeMap<LinkId, BTreeSet<WatchId>>,
    resets: Resets,
    /// Those that wait for a position, to be reset then.
    awaiting: BTreeSet<(u64, WatchId)>,
    /// Those that want to know how far they have come, and when.
    marks: BTreeSet<(Instant, WatchId)>,
    /// Resets sent because a reader was too slow.
    slow: u64,
}

impl Watchers {
    /// No watchers yet; the stream begins after `position`. About `ring_bytes` bytes of recent changes are kept.
    #[must_use]
    pub fn new(stream: u64, position: u64, ring_bytes: usize) -> Self {
        Self {
            ring: Ring::new(stream, position, ring_bytes),
            watchers: BTreeMap::new(),
            index: Index::default(),
            due: VecDeque::new(),
            full: BTreeMap::new(),
            resets: Resets::default(),
            awaiting: BTreeSet::new(),
            marks: BTreeSet::new(),
            slow: 0,
        }
    }

    /// Watches that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Watches for which something waits.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.watchers.len() - self.index.len()
    }

    /// How often a reader was too slow for its changes and was sent a reset.
    #[must_use]
    pub fn slow(&self) -> u64 {
        self.slow
    }

    /// Opens a watch.
    pub fn open(&mut self, now: Instant, id: WatchId, spec: WatchSpec, destination: Destination) {
        let interval = spec.progress.map(|interval| interval.max(PROGRESS_MIN));
        let progress = interval.map(|interval| (interval, now + interval));
        let watcher = Watcher {
            range: spec.range,
            link: destination.link,
            stage: Stage::NeedsReset,
            room: destination.room.min(ROOM_MAX).cast_signed(),
            queued: false,
            reported: 0,
            progress,
        };
        let before = self.watchers.insert(id, watcher);
        assert!(before.is_none(), "the host names watch {id:?} once");
        self.marks.extend(progress.map(|(_, at)| (at, id)));
        let stage = match spec.start {
            WatchStart::State => Stage::NeedsReset,
            WatchStart::StateFrom(token) if self.is_ahead(token) => Stage::Awaiting(token.position),
            WatchStart::StateFrom(_) => Stage::NeedsReset,
            WatchStart::Now => Stage::Beginning,
            WatchStart::After(token) => self.resume(token),
        };
        self.enter(id, stage);
    }

    /// Where a watch stands that has seen everything up to this token.
    fn resume(&self, token: WatchToken) -> Stage {
        let position = token.position;
        if self.is_ahead(token) {
            Stage::Following(position)
        } else if token.stream == self.ring.token().stream && self.ring.covers(position) {
            Stage::Behind(position)
        } else {
            Stage::NeedsReset
        }
    }

    /// Whether this node will come to this place of the stream.
    fn is_ahead(&self, token: WatchToken) -> bool {
        let here = self.ring.token();
        token.is_shared() && token.stream == here.stream && token.position > here.position
    }

    /// Notes where a watch stands now.
    fn enter(&mut self, id: WatchId, stage: Stage) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        let (before, after) = (&watcher.stage, &stage);
        match (
            matches!(before, Stage::Following(_)),
            matches!(after, Stage::Following(_)),
        ) {
            (false, true) => self.index.add(&watcher.range, id),
            (true, false) => self.index.remove(&watcher.range, id),
            _ => {}
        }
        if !matches!(after, Stage::Resetting { .. }) {
            self.resets.ended(id);
        }
        if let Stage::Awaiting(position) = stage {
            self.awaiting.insert((position, id));
        }
        watcher.stage = stage;
        self.queue(id);
        self.admit_resets();
    }

    /// Queues a watch that is due.
    fn queue(&mut self, id: WatchId) {
        if let Some(watcher) = self.watchers.get_mut(&id)
            && watcher.is_due()
            && !watcher.queued
        {
            watcher.queued = true;
            self.due.push_back(id);
        }
    }

    /// Queues watches that may be reset now.
    fn admit_resets(&mut self) {
        while let Some(id) = self.resets.next_to_begin() {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.queued = false;
                self.resets.invite(id);
                self.queue(id);
            }
        }
    }

    /// What its reader has to say.
    pub fn on_reader(&mut self, id: WatchId, event: ReaderEvent) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        match event {
            ReaderEvent::Room(bytes) => {
                let room = watcher.room.saturating_add_unsigned(bytes);
                watcher.room = room.min(ROOM_MAX.cast_signed());
                self.queue(id);
            }
            ReaderEvent::Gone => {
                if matches!(watcher.stage, Stage::Following(_)) {
                    self.index.remove(&watcher.range, id);
                }
                if let Stage::Awaiting(position) = watcher.stage {
                    self.awaiting.remove(&(position, id));
                }
                if let Some((_, at)) = watcher.progress {
                    self.marks.remove(&(at, id));
                }
                if let Some(waiting) = self.full.get_mut(&watcher.link) {
                    waiting.remove(&id);
                }
                // Other queues pass over who has gone.
                self.watchers.remove(&id);
                self.resets.ended(id);
                self.admit_resets();
            }
        }
    }

    /// Whether a link has room: its watches are served only if it has.
    pub fn on_link(&mut self, link: LinkId, has_room: bool) {
        if !has_room {
            self.full.entry(link).or_default();
        } else if let Some(waiting) = self.full.remove(&link) {
            self.due.extend(waiting);
        }
    }

    /// Takes changes in, and finds whom they concern.
    pub fn publish(&mut self, applied: ChangeBatch) {
        let before = self.ring.token().position;
        for change in &applied.changes {
            for id in self.index.take(&change.key) {
                let Some(watcher) = self.watchers.get_mut(&id) else {
                    continue;
                };
                let Stage::Following(after) = watcher.stage else {
                    continue;
                };
                if applied.position > after {
                    watcher.stage = Stage::Behind(after.max(before));
                    self.queue(id);
                } else {
                    self.index.add(&watcher.range, id);
                }
            }
        }
        self.ring.push(applied);
        self.end_waits();
    }

    /// Those that have waited for what is here now are reset.
    fn end_waits(&mut self) {
        let here = self.ring.token().position;
        while let Some((position, id)) = self.awaiting.first().copied()
            && position <= here
        {
            self.awaiting.pop_first();
            self.enter(id, Stage::NeedsReset);
        }
    }

    /// The state jumped to `position` without single changes.
    pub fn reset(&mut self, position: u64) {
        self.ring.reset(position);
        let here = self.ring.token().position;
        assert!(
            here >= position,
            "the stream goes on after the state that it jumped to"
        );
        let stays = |watcher: &Watcher| match watcher.stage {
            Stage::Following(after) => after >= here,
            Stage::Beginning | Stage::Awaiting(_) | Stage::NeedsReset => true,
            Stage::Behind(_) | Stage::Resetting { .. } => false,
        };
        let left = self.watchers.iter().filter(|(_, watcher)| !stays(watcher));
        let left: Vec<WatchId> = left.map(|(id, _)| *id).collect();
        for id in left {
            self.enter(id, Stage::NeedsReset);
        }
        self.end_waits();
    }

    /// Gives watches what is for them, as far as there is room, and the turn has time. `view` gives a view of a range as
    /// it is now.
    pub fn pump(
        &mut self,
        now: Instant,
        budget: &mut Budget,
        view: impl Fn(&KeyRange) -> Box<dyn View>,
        sent: &mut Vec<Sent>,
    ) {
        self.mark(now, budget, sent);
        while !budget.is_spent()
            && let Some(id) = self.due.pop_front()
        {
            let Some(watcher) = self.watchers.get_mut(&id) else {
                continue;
            };
            if let Some(waiting) = self.full.get_mut(&watcher.link) {
                waiting.insert(id);
                self.resets.declined(id);
                continue;
            }
            watcher.queued = false;
            if !watcher.is_due() {
                continue;
            }
            let stage = std::mem::replace(&mut watcher.stage, Stage::NeedsReset);
            let stage = match stage {
                Stage::NeedsReset => self.begin_reset(now, id, &view),
                Stage::Resetting {
                    position,
                    view,
                    begun,
                } => self.send_part(now, id, (position, view, begun), budget, sent),
                Stage::Behind(position) => self.send_changes(id, position, budget, sent),
                Stage::Beginning => {
                    let token = self.ring.token();
                    let item = WatchItem::Progress { token };
                    watcher.reported = token.position;
                    watcher.room = watcher.room.saturating_sub_unsigned(item.bytes());
                    budget.spend(1, item.bytes());
                    sent.push((id, Ok(item)));
                    Some(Stage::Following(0))
                }
                stage @ (Stage::Following(_) | Stage::Awaiting(_)) => Some(stage),
            };
            if let Some(stage) = stage {
                self.enter(id, stage);
            }
        }
        self.admit_resets();
    }

    /// Tells those who want to know how far they have come, unless they know.
    fn mark(&mut self, now: Instant, budget: &mut Budget, sent: &mut Vec<Sent>) {
        let token = self.ring.token();
        while !budget.is_spent()
            && let Some((at, id)) = self.marks.first().copied()
            && at <= now
        {
            self.marks.pop_first();
            budget.spend(1, 0);
            let Some(watcher) = self.watchers.get_mut(&id) else {
                continue;
            };
            let Some((interval, next)) = &mut watcher.progress else {
                continue;
            };
            *next = now + *interval;
            self.marks.insert((*next, id));
            let knows_all = matches!(watcher.stage, Stage::Following(after) if after <= token.position);
            let has_room = watcher.room > 0 && !self.full.contains_key(&watcher.link);
            if knows_all && has_room && watcher.reported < token.position {
                watcher.reported = token.position;
                let item = WatchItem::Progress { token };
                watcher.room = watcher.room.saturating_sub_unsigned(item.bytes());
                sent.push((id, Ok(item)));
            }
        }
    }

    /// `None` if it has to wait for others.
    fn begin_reset(
        &mut self,
        now: Instant,
        id: WatchId,
        view: impl Fn(&KeyRange) -> Box<dyn View>,
    ) -> Option<Stage> {
        let watcher = self.watchers.get_mut(&id)?;
        if !self.resets.begin(now, id) {
            watcher.queued = true;
            return None;
        }
        let stage = Stage::Resetting {
            position: self.ring.token().position,
            view: view(&watcher.range),
            begun: false,
        };
        if let Some(oldest) = self.resets.one_too_many() {
            self.give_up(oldest);
        }
        Some(stage)
    }

    /// A watch loses its place, and is sent a reset when its reader has room.
    fn give_up(&mut self, id: WatchId) {
        self.slow += 1;
        self.enter(id, Stage::NeedsReset);
    }

    fn send_part(
        &mut self,
        now: Instant,
        id: WatchId,
        (position, mut view, begun): (u64, Box<dyn View>, bool),
        budget: &mut Budget,
        sent: &mut Vec<Sent>,
    ) -> Option<Stage> {
        let watcher = self.watchers.get_mut(&id)?;
        if !self.ring.covers(position) {
            // What has happened since is not known any more.
            self.slow += 1;
            return Some(Stage::NeedsReset);
        }
        let bytes = PART_BYTES.min(watcher.room.unsigned_abs());
        let mut entries = Vec::new();
        let looked = view.read(PART_KEYS, bytes, &mut entries);
        let item = WatchItem::Reset {
            // Only the last part carries a token to resume from: a broken reset starts again.
            token: if looked.ended {
                self.ring.token_at(position)
            } else {
                WatchToken::default()
            },
            entries,
            first: !begun,
            last: looked.ended,
        };
        let bytes = item.bytes();
        watcher.room = watcher.room.saturating_sub_unsigned(bytes);
        budget.spend(looked.keys, bytes);
        sent.push((id, Ok(item)));
        if looked.ended {
            watcher.reported = position;
            return Some(self.goes_on_from(position));
        }
        let has_room = watcher.room > 0;
        self.resets.sent(now, id, bytes, has_room);
        Some(Stage::Resetting {
            position,
            view,
            begun: true,
        })
    }

    fn send_changes(
        &mut self,
        id: WatchId,
        position: u64,
        budget: &mut Budget,
        sent: &mut Vec<Sent>,
    ) -> Option<Stage> {
        let watcher = self.watchers.get_mut(&id)?;
        if !self.ring.covers(position) {
            self.slow += 1;
            return Some(Stage::NeedsReset);
        }
        let (mut place, mut looked, mut bytes) = (position, 0, 0);
        for applied in self.ring.after(position) {
            if looked >= PART_KEYS || bytes >= PART_BYTES || watcher.room <= 0 {
                break;
            }
            place = applied.position;
            looked += applied.changes.len();
            if let Some(item) = self.ring.item(applied, &watcher.range) {
                let size = item.bytes();
                bytes += size;
                watcher.reported = place;
                watcher.room = watcher.room.saturating_sub_unsigned(size);
                sent.push((id, Ok(item)));
            }
        }
        budget.spend(looked, bytes);
        Some(self.goes_on_from(place))
    }

    /// Where a watch stands that has been given everything up to this position.
    fn goes_on_from(&self, position: u64) -> Stage {
        if self.ring.after(position).next().is_some() {
            Stage::Behind(position)
        } else {
            Stage::Following(0)
        }
    }

    /// When there is something to do for watches: at once if one is due whose link has room.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        let mark = self.marks.first().map_or(Instant::NEVER, |(at, _)| *at);
        if self.due.is_empty() { mark } else { Instant::ZERO }
    }

    /// Gives up what is of no use any more: views that the ring does not reach back to. Lets resets begin where others
    /// are slow.
    pub fn shed(&mut self, now: Instant) {
        let is_lost = |id: &&WatchId| match self.watchers.get(id).map(|watcher| &watcher.stage) {
            Some(Stage::Resetting { position, .. }) => !self.ring.covers(*position),
            _ => false,
        };
        let lost: Vec<WatchId> = self.resets.under_way().filter(is_lost).copied().collect();
        for id in lost {
            self.give_up(id);
        }
        self.resets.look(now);
        self.admit_resets();
    }

    /// Ends all watches with this reason.
    pub fn close(&mut self, reason: &Reason, sent: &mut Vec<Sent>) {
        for id in std::mem::take(&mut self.watchers).into_keys() {
            sent.push((id, Err(reason.clone().into())));
        }
        self.index = Index::default();
        self.resets = Resets::default();
        self.due.clear();
        self.full.clear();
        self.awaiting.clear();
        self.marks.clear();
    }

    /// What must hold between two turns. Each watch is looked at only where they are few: a turn costs no more because
    /// thousands watch.
    pub fn check(&self) {
        self.resets.check();
        if self.watchers.len() > CHECKED_MAX {
            return;
        }
        let mut following = 0;
        for (id, watcher) in &self.watchers {
            assert!(
                watcher.queued || !watcher.is_due(),
                "something is for {id:?}, its reader has room, and nobody will serve it"
            );
            let is_following = matches!(watcher.stage, Stage::Following(_));
            following += usize::from(is_following);
            assert_eq!(
                self.index.contains(&watcher.range, *id),
                is_following,
                "changes find {id:?} if and only if it follows"
            );
            if let Stage::Awaiting(position) = watcher.stage {
                assert!(
                    self.awaiting.contains(&(position, *id)) && position > self.ring.token().position,
                    "{id:?} waits for {position}, and would permanently"
                );
            }
            if let Some((_, at)) = watcher.progress {
                assert!(
                    self.marks.contains(&(at, *id)),
                    "{id:?} will be reported how far it is"
                );
            }
            assert_eq!(
                self.resets.is_under_way(*id),
                matches!(watcher.stage, Stage::Resetting { .. }),
                "the reset of {id:?} is counted"
            );
        }
        assert_eq!(following, self.index.len(), "no watch that has gone follows");
    }
}

#[cfg(test)]
mod tests;
