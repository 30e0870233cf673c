//! The search itself: depth first over the operations that real time allows next.

use std::collections::BTreeMap;

use super::super::prepare::{ABSENT, Edit};
use super::memo::{Memo, fingerprint};
use super::task::{Cell, Item, NO_SLOT, Task};

/// What came of a search.
pub(super) enum Outcome {
    /// There is an order.
    Found,
    /// There is none.
    None {
        /// The operation that could not be placed where the search came furthest.
        stuck: u32,
        /// Those that were under way with it and not placed either.
        pending: Vec<u32>,
    },
    /// The budget ran out: of steps, or of memory for states.
    OutOfBudget(&'static str),
}

/// Operations that are looked at for the price of one step.
const LOOKS_PER_STEP: u64 = 256;

/// Calls and returns of certain operations in the order of time, as a list from which placed ones are cut out and put
/// back.
struct Events {
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Which item, and whether it is its return.
    what: Vec<(u32, bool)>,
    /// Where each item's call and return stand; 0: nowhere.
    of_item: Vec<(u32, u32)>,
}

const HEAD: u32 = 0;

impl Events {
    fn of(items: &[Item]) -> Self {
        let mut times: Vec<(u64, bool, u32)> = Vec::with_capacity(items.len() * 2);
        for (number, item) in items.iter().enumerate().filter(|(_, item)| item.is_certain) {
            times.push((item.invoke, false, number as u32));
            times.push((item.end, true, number as u32));
        }
        // A call at the instant of a return overlaps it: calls come first.
        times.sort_unstable();
        let count = times.len() as u32 + 1;
        let mut events = Self {
            next: (1..=count).map(|event| event % count).collect(),
            previous: (0..count).map(|event| (event + count - 1) % count).collect(),
            what: vec![(0, true)],
            of_item: vec![(0, 0); items.len()],
        };
        for (position, (_, is_return, item)) in times.into_iter().enumerate() {
            events.what.push((item, is_return));
            let place = &mut events.of_item[item as usize];
            let own = if is_return { &mut place.1 } else { &mut place.0 };
            *own = position as u32 + 1;
        }
        events
    }

    fn cut(&mut self, event: u32) {
        let (previous, next) = (self.previous[event as usize], self.next[event as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn put_back(&mut self, event: u32) {
        let (previous, next) = (self.previous[event as usize], self.next[event as usize]);
        self.next[previous as usize] = event;
        self.previous[next as usize] = event;
    }
}

/// Unknown operations that do the same under the same conditions, by the time of their calls. Which of them took
/// effect makes no difference, so the first that is left is the only one to try.
struct Alike {
    members: Vec<u32>,
    placed: usize,
}

/// Classes of [`Rank`]; between these two stand operations that are placed where they are seen.
const READ: u8 = 0;
const HIDDEN: u8 = 0;
const HIDDEN_LATE: u8 = 9;

/// How likely a candidate helps, the smaller the likelier, and what shows equal ones apart. Those at one state are
/// tried in this order.
type Rank = (u8, u64, u32);

/// An operation that was placed.
struct Frame {
    item: u32,
    rank: Rank,
    fingerprint: u128,
    undo: u32,
    /// What [`Walk::hides`] was before.
    hides: Option<u64>,
}

struct Walk {
    task: Task,
    events: Events,
    alike: Vec<Alike>,
    /// The group of each unknown operation.
    group: Vec<u32>,
    /// What each key holds, and in which slot its remaining observers are counted.
    state: Vec<(u64, u32)>,
    /// How many certain operations have still to see each slot's value.
    observers: Vec<u32>,
    fingerprint: u128,
    frames: Vec<Frame>,
    undo: Vec<(u32, u64, u32)>,
    missing: usize,
    /// Operations looked at since the last step was paid.
    looks: u64,
    /// Of an object of one key: until when a blind write may have begun to stand, unseen, right before the last blind
    /// write that was placed.
    hides: Option<u64>,
}

/// Calls that are looked at ahead, to choose between two ways that are both right.
const AHEAD_MAX: usize = 64;

pub(super) fn walk(task: Task, steps: u64) -> Outcome {
    let mut observers = vec![0; task.slots];
    for item in task.items.iter().filter(|item| item.is_certain) {
        count(&task, item, |slot| observers[slot as usize] += 1);
    }
    let (alike, group) = groups(&task);
    let mut walk = Walk {
        events: Events::of(&task.items),
        alike,
        group,
        state: task.starts.iter().map(|slot| (ABSENT, *slot)).collect(),
        observers,
        fingerprint: 0,
        frames: Vec::with_capacity(task.items.len()),
        undo: Vec::new(),
        missing: task.items.iter().filter(|item| item.is_certain).count(),
        looks: 0,
        hides: None,
        task,
    };
    walk.run(steps)
}

/// What an operation needs and does.
type Deed = (Vec<(u32, u64)>, Vec<(u32, u64, bool)>, Option<(u32, u32)>, bool);

/// The unknown operations by what they need and do.
fn groups(task: &Task) -> (Vec<Alike>, Vec<u32>) {
    let mut deeds: BTreeMap<Deed, u32> = BTreeMap::new();
    let mut alike: Vec<Alike> = Vec::new();
    let mut group = vec![0; task.items.len()];
    let mut unknown: Vec<u32> = (0..task.items.len() as u32)
        .filter(|number| !task.items[*number as usize].is_certain)
        .collect();
    unknown.sort_by_key(|number| task.items[*number as usize].invoke);
    for number in unknown {
        let item = &task.items[number as usize];
        let sees = &task.sees[item.sees.0 as usize..item.sees.1 as usize];
        let guards = &task.guards[item.guards.0 as usize..item.guards.1 as usize];
        let needs = sees.iter().chain(guards).map(|cell| (cell.key, cell.value));
        let edits = &task.edits[item.edits.0 as usize..item.edits.1 as usize];
        let does = edits.iter().map(|(edit, _)| (edit.key, edit.value, edit.appends));
        let deed = (needs.collect(), does.collect(), item.some_of, item.has_open_guard);
        let place = *deeds.entry(deed).or_insert_with(|| {
            alike.push(Alike {
                members: Vec::new(),
                placed: 0,
            });
            alike.len() as u32 - 1
        });
        alike[place as usize].members.push(number);
        group[number as usize] = place;
    }
    (alike, group)
}

/// Calls `each` with every slot whose value `item` sees.
fn count(task: &Task, item: &Item, mut each: impl FnMut(u32)) {
    count_cells(task, item, |cell| {
        if cell.slot != NO_SLOT {
            each(cell.slot);
        }
    });
}

/// Calls `each` with everything that `item` sees.
fn count_cells(task: &Task, item: &Item, each: impl FnMut(&Cell)) {
    let guards = if item.succeeded { item.guards } else { (0, 0) };
    let cells = task.sees[item.sees.0 as usize..item.sees.1 as usize]
        .iter()
        .chain(&task.guards[guards.0 as usize..guards.1 as usize]);
    cells.for_each(each);
}

impl Walk {
    fn run(&mut self, steps: u64) -> Outcome {
        let mut memo = Memo::new();
        let mut left = steps;
        let mut furthest: Option<(usize, u32, Vec<u32>)> = None;
        // Where the last candidate at this state stood, if one was tried already.
        let mut tried: Option<Rank> = None;
        while self.missing > 0 {
            if tried.is_none() {
                self.read_all();
                if self.missing == 0 {
                    break;
                }
            }
            let spent = 1 + self.looks / LOOKS_PER_STEP;
            self.looks %= LOOKS_PER_STEP;
            if left < spent {
                return Outcome::OutOfBudget("steps");
            }
            left -= spent;
            let due = self.first_return();
            let Some((rank, number)) = self.candidate(due, tried) else {
                let is_furthest = |known: &(usize, u32, Vec<u32>)| known.0 < self.frames.len();
                if furthest.as_ref().is_none_or(is_furthest) {
                    furthest = Some((self.frames.len(), due, self.pending()));
                }
                match self.back() {
                    Some(rank) => tried = Some(rank),
                    None => return self.none(furthest),
                }
                continue;
            };
            let is_hidden = rank.0 == HIDDEN || rank.0 == HIDDEN_LATE;
            let is_possible = if is_hidden {
                self.hide(number, rank)
            } else {
                self.place(number, rank, due)
            };
            let is_new = is_possible && memo.insert(self.fingerprint);
            if memo.is_full() {
                return Outcome::OutOfBudget("memory for the states that it has seen");
            }
            if is_new {
                tried = None;
            } else {
                let frame = self.frames.pop().expect("place pushes a frame");
                self.take_back(&frame);
                tried = Some(rank);
            }
        }
        Outcome::Found
    }

    /// The item that returns first of those to be placed.
    fn first_return(&self) -> u32 {
        let mut event = self.events.next[HEAD as usize];
        while let (_, false) = self.events.what[event as usize] {
            event = self.events.next[event as usize];
        }
        self.events.what[event as usize].0
    }

    /// Places every operation that only reads and may be placed now: it changes nothing for the others.
    fn read_all(&mut self) {
        let mut event = self.events.next[HEAD as usize];
        let mut before = HEAD;
        // A placed read may have been what kept others back, by its return: so the list is walked on from there.
        while self.missing > 0 {
            let (number, is_return) = self.events.what[event as usize];
            if is_return {
                return;
            }
            self.looks += 1;
            let item = self.task.items[number as usize];
            if item.edits.0 == item.edits.1 && self.answers(&item) {
                self.place(number, (READ, 0, number), number);
                event = self.events.next[before as usize];
                continue;
            }
            before = event;
            event = self.events.next[event as usize];
        }
    }

    /// The likeliest candidate after `tried` among those that may be placed before `due` returns.
    fn candidate(&mut self, due: u32, tried: Option<Rank>) -> Option<(Rank, u32)> {
        let due_item = self.task.items[due as usize];
        let mut best: Option<(Rank, u32)> = None;
        if self.is_blind(&due_item) && self.hides.is_some_and(|until| due_item.invoke <= until) {
            let class = if self.is_wanted_less(due) {
                HIDDEN
            } else {
                HIDDEN_LATE
            };
            let rank = (class, 0, due);
            best = tried.is_none_or(|tried| rank > tried).then_some((rank, due));
        }
        let mut looks = 0;
        let mut event = self.events.next[HEAD as usize];
        while let (number, false) = self.events.what[event as usize] {
            looks += 1;
            self.consider(number, due, &due_item, tried, &mut best);
            event = self.events.next[event as usize];
        }
        for place in 0..self.alike.len() {
            looks += 1;
            let alike = &self.alike[place];
            if let Some(number) = alike.members.get(alike.placed).copied()
                && self.task.items[number as usize].invoke <= due_item.end
            {
                self.consider(number, due, &due_item, tried, &mut best);
            }
        }
        self.looks += looks;
        best
    }

    fn consider(
        &self,
        number: u32,
        due: u32,
        due_item: &Item,
        tried: Option<Rank>,
        best: &mut Option<(Rank, u32)>,
    ) {
        let item = &self.task.items[number as usize];
        if item.edits.0 == item.edits.1 {
            return;
        }
        let helps = number == due || self.helps(item, due_item);
        let class = match (helps, item.is_certain) {
            (true, true) => 1,
            (true, false) => 2,
            (false, true) => 3,
            (false, false) => 4,
        };
        let rank = (class, item.end, number);
        let is_next = tried.is_none_or(|tried| rank > tried) && best.is_none_or(|(best, _)| rank < best);
        if is_next && self.answers(item) && !self.is_idle(item) {
            *best = Some((rank, number));
        }
    }

    /// Whether `item` makes something that `due` sees and that is not there.
    fn helps(&self, item: &Item, due: &Item) -> bool {
        let guards = if due.succeeded { due.guards } else { (0, 0) };
        let needs = self.task.sees[due.sees.0 as usize..due.sees.1 as usize]
            .iter()
            .chain(&self.task.guards[guards.0 as usize..guards.1 as usize]);
        let edits = &self.task.edits[item.edits.0 as usize..item.edits.1 as usize];
        let mut missing = needs.filter(|cell| self.state[cell.key as usize].0 != cell.value);
        missing.any(|cell| {
            let makes = |edit: &Edit| edit.key == cell.key && (edit.appends || edit.value == cell.value);
            edits.iter().any(|(edit, _)| makes(edit))
        })
    }

    /// Whether the last operation would have been for nothing: an unknown change of the one key which nobody saw
    /// before `item` overwrites it without looking. The order without it is as good.
    fn is_idle(&self, item: &Item) -> bool {
        let last = self
            .frames
            .last()
            .map(|frame| self.task.items[frame.item as usize]);
        let is_unseen = last.is_some_and(|last| !last.is_certain && last.edits.0 != last.edits.1);
        is_unseen && self.is_blind(item)
    }

    /// Whether `item` overwrites the one key of the object without looking at it.
    fn is_blind(&self, item: &Item) -> bool {
        let looks = item.sees.0 != item.sees.1
            || item.guards.0 != item.guards.1
            || item.has_open_guard
            || item.some_of.is_some();
        let edits = &self.task.edits[item.edits.0 as usize..item.edits.1 as usize];
        self.task.keys == 1 && !looks && !edits.is_empty() && edits.iter().all(|(edit, _)| !edit.appends)
    }

    /// Whether what is there will be seen sooner than what the blind write `due` would make.
    fn is_wanted_less(&self, due: u32) -> bool {
        let item = &self.task.items[due as usize];
        let made = self.task.edits[item.edits.0 as usize].0.value;
        let mut event = self.events.next[HEAD as usize];
        for _ in 0..AHEAD_MAX {
            if event == HEAD {
                break;
            }
            if let (number, true) = self.events.what[event as usize] {
                let item = &self.task.items[number as usize];
                let (mut there, mut other) = (false, false);
                count_cells(&self.task, item, |cell| {
                    there |= cell.value == self.state[0].0;
                    other |= cell.value == made;
                });
                if there || other {
                    return there;
                }
            }
            event = self.events.next[event as usize];
        }
        true
    }

    /// Places a blind write right before the last one that was placed, which hides it. It was under way then, and
    /// what has been placed since began before its return.
    fn hide(&mut self, number: u32, rank: Rank) -> bool {
        self.enter(number, rank);
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint(0, u64::from(number)));
        let item = &self.task.items[number as usize];
        let edits = &self.task.edits[item.edits.0 as usize..item.edits.1 as usize];
        let is_seen_later = |slot: u32| slot != NO_SLOT && self.observers[slot as usize] > 0;
        !edits.iter().any(|(_, slot)| is_seen_later(*slot))
    }

    fn none(&self, furthest: Option<(usize, u32, Vec<u32>)>) -> Outcome {
        let (_, stuck, pending) = furthest.expect("a search fails at some return");
        Outcome::None {
            stuck: self.task.items[stuck as usize].op,
            pending,
        }
    }

    /// The operations that could have been placed before the first return, and those that are unknown.
    fn pending(&self) -> Vec<u32> {
        let mut pending = Vec::new();
        let mut event = self.events.next[HEAD as usize];
        while let (item, false) = self.events.what[event as usize] {
            pending.push(self.task.items[item as usize].op);
            event = self.events.next[event as usize];
        }
        let until = self.task.items[self.first_return() as usize].end;
        for alike in &self.alike {
            let left = alike.members[alike.placed..].iter();
            let items = left.map(|number| &self.task.items[*number as usize]);
            pending.extend(items.filter(|item| item.invoke <= until).map(|item| item.op));
        }
        pending
    }

    /// Whether `item` could be answered as it was in the present state.
    fn answers(&self, item: &Item) -> bool {
        let holds = |key: u32, value: u64| self.state[key as usize].0 == value;
        let sees = &self.task.sees[item.sees.0 as usize..item.sees.1 as usize];
        let guards = &self.task.guards[item.guards.0 as usize..item.guards.1 as usize];
        if !sees.iter().all(|cell| holds(cell.key, cell.value)) {
            return false;
        }
        let guarded = guards.iter().all(|cell| holds(cell.key, cell.value));
        if item.succeeded && !guarded || !item.succeeded && guarded && !item.has_open_guard {
            return false;
        }
        item.some_of
            .is_none_or(|(from, to)| (from..to).any(|key| !holds(key, ABSENT)))
    }

    /// Takes the operation out of those that are left.
    fn enter(&mut self, number: u32, rank: Rank) {
        self.frames.push(Frame {
            item: number,
            rank,
            fingerprint: self.fingerprint,
            undo: self.undo.len() as u32,
            hides: self.hides,
        });
        let item = self.task.items[number as usize];
        if item.is_certain {
            let (call, end) = self.events.of_item[number as usize];
            self.events.cut(call);
            self.events.cut(end);
            self.missing -= 1;
            let observers = &mut self.observers;
            count(&self.task, &item, |slot| observers[slot as usize] -= 1);
        } else {
            self.alike[self.group[number as usize] as usize].placed += 1;
        }
    }

    /// Places the operation before `due` returns; false if that cannot lead to an order.
    fn place(&mut self, number: u32, rank: Rank, due: u32) -> bool {
        self.enter(number, rank);
        let item = self.task.items[number as usize];
        if self.is_blind(&item) {
            self.hides = Some(self.task.items[due as usize].end);
        }
        // Reads count as well: two ways to one state differ if only one came by where a read could be done.
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint(0, u64::from(number)));
        if item.edits.0 == item.edits.1 {
            return true;
        }
        let (mut is_possible, mut has_effect) = (true, item.is_certain);
        for position in item.edits.0..item.edits.1 {
            let (edit, slot) = self.task.edits[position as usize];
            let (old, old_slot) = self.state[edit.key as usize];
            let new = edit.apply(old);
            has_effect |= new != old;
            is_possible &= old_slot == NO_SLOT || self.observers[old_slot as usize] == 0 || new == old;
            is_possible &= !edit.appends || self.is_beginning(edit.key, new, slot);
            self.undo.push((edit.key, old, old_slot));
            self.state[edit.key as usize] = (new, if edit.appends { NO_SLOT } else { slot });
            let kind = u64::from(edit.key) + 1;
            self.fingerprint = self
                .fingerprint
                .wrapping_sub(fingerprint(kind, old))
                .wrapping_add(fingerprint(kind, new));
        }
        is_possible && has_effect
    }

    /// Whether what is still to be read of a list can come from what it would hold.
    fn is_beginning(&self, key: u32, list: u64, slot: u32) -> bool {
        self.observers[slot as usize] == 0 || self.task.beginnings.binary_search(&(key, list)).is_ok()
    }

    fn take_back(&mut self, frame: &Frame) {
        let item = self.task.items[frame.item as usize];
        for (key, value, slot) in self.undo.drain(frame.undo as usize..).rev() {
            self.state[key as usize] = (value, slot);
        }
        self.fingerprint = frame.fingerprint;
        self.hides = frame.hides;
        if item.is_certain {
            let observers = &mut self.observers;
            count(&self.task, &item, |slot| observers[slot as usize] += 1);
            self.missing += 1;
            let (call, end) = self.events.of_item[frame.item as usize];
            self.events.put_back(end);
            self.events.put_back(call);
        } else {
            self.alike[self.group[frame.item as usize] as usize].placed -= 1;
        }
    }

    /// Takes back the last operation that changed something, and the reads after it; its rank among the candidates.
    fn back(&mut self) -> Option<Rank> {
        loop {
            let frame = self.frames.pop()?;
            self.take_back(&frame);
            let item = &self.task.items[frame.item as usize];
            if item.edits.0 != item.edits.1 {
                return Some(frame.rank);
            }
        }
    }
}
