//! The search itself: depth first over the operations that real time allows next.

use super::super::prepare::ABSENT;
use super::memo::{Memo, fingerprint};
use super::task::{Item, NO_SLOT, Task};

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
    /// The budget ran out.
    OutOfSteps,
}

/// Calls and returns in the order of time, as a list from which placed operations are cut out and put back.
struct Events {
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Which item, and whether it is its return.
    what: Vec<(u32, bool)>,
    /// Where each item's return stands; 0: it has none.
    return_of: Vec<u32>,
}

const HEAD: u32 = 0;

impl Events {
    fn of(items: &[Item]) -> Self {
        let mut times: Vec<(u64, bool, u32)> = Vec::with_capacity(items.len() * 2);
        for (number, item) in items.iter().enumerate() {
            times.push((item.invoke, false, number as u32));
            if item.is_certain {
                times.push((item.end, true, number as u32));
            }
        }
        // A call at the instant of a return overlaps it: calls come first.
        times.sort_unstable();
        let count = times.len() as u32 + 1;
        let mut events = Self {
            next: (1..=count).map(|event| event % count).collect(),
            previous: (0..count).map(|event| (event + count - 1) % count).collect(),
            what: vec![(0, true)],
            return_of: vec![0; items.len()],
        };
        for (position, (_, is_return, item)) in times.into_iter().enumerate() {
            events.what.push((item, is_return));
            if is_return {
                events.return_of[item as usize] = position as u32 + 1;
            }
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

/// An operation that was placed.
struct Frame {
    event: u32,
    fingerprint: u128,
    undo: u32,
}

struct Walk {
    task: Task,
    events: Events,
    /// What each key holds, and in which slot its remaining observers are counted.
    state: Vec<(u64, u32)>,
    /// How many certain operations have still to see each slot's value.
    observers: Vec<u32>,
    fingerprint: u128,
    frames: Vec<Frame>,
    undo: Vec<(u32, u64, u32)>,
    missing: usize,
}

pub(super) fn walk(task: Task, steps: u64) -> Outcome {
    let mut observers = vec![0; task.slots];
    for item in task.items.iter().filter(|item| item.is_certain) {
        count(&task, item, |slot| observers[slot as usize] += 1);
    }
    let mut walk = Walk {
        events: Events::of(&task.items),
        state: task.starts.iter().map(|slot| (ABSENT, *slot)).collect(),
        observers,
        fingerprint: 0,
        frames: Vec::with_capacity(task.items.len()),
        undo: Vec::new(),
        missing: task.items.iter().filter(|item| item.is_certain).count(),
        task,
    };
    walk.run(steps)
}

/// Calls `each` with every slot whose value `item` sees.
fn count(task: &Task, item: &Item, mut each: impl FnMut(u32)) {
    let guards = if item.won { item.guards } else { (0, 0) };
    let cells = task.sees[item.sees.0 as usize..item.sees.1 as usize]
        .iter()
        .chain(&task.guards[guards.0 as usize..guards.1 as usize]);
    for cell in cells.filter(|cell| cell.slot != NO_SLOT) {
        each(cell.slot);
    }
}

impl Walk {
    fn run(&mut self, steps: u64) -> Outcome {
        let mut memo = Memo::new();
        let mut left = steps;
        let mut furthest: Option<(usize, u32, Vec<u32>)> = None;
        let mut event = self.events.next[HEAD as usize];
        let mut reads_only = true;
        while self.missing > 0 {
            let (number, is_return) = self.events.what[event as usize];
            if is_return {
                if reads_only {
                    reads_only = false;
                    event = self.events.next[HEAD as usize];
                    continue;
                }
                if furthest
                    .as_ref()
                    .is_none_or(|(depth, ..)| *depth < self.frames.len())
                {
                    furthest = Some((self.frames.len(), number, self.pending(event)));
                }
                match self.back() {
                    Some(resumed) => event = self.events.next[resumed as usize],
                    None => return self.none(furthest),
                }
                continue;
            }
            let item = self.task.items[number as usize];
            let only_reads = item.edits.0 == item.edits.1;
            if only_reads != reads_only || !self.answers(&item) {
                event = self.events.next[event as usize];
                continue;
            }
            if left == 0 {
                return Outcome::OutOfSteps;
            }
            left -= 1;
            if self.place(event, &item) && (only_reads || memo.insert(self.fingerprint)) {
                reads_only = true;
                event = self.events.next[HEAD as usize];
            } else {
                let frame = self.frames.pop().expect("place pushes a frame");
                self.take_back(&frame);
                event = self.events.next[event as usize];
            }
        }
        Outcome::Found
    }

    fn none(&self, furthest: Option<(usize, u32, Vec<u32>)>) -> Outcome {
        let (_, stuck, pending) = furthest.expect("a search fails at some return");
        Outcome::None {
            stuck: self.task.items[stuck as usize].op,
            pending,
        }
    }

    /// The operations that could have been placed before the return at `event`.
    fn pending(&self, event: u32) -> Vec<u32> {
        let mut pending = Vec::new();
        let mut before = self.events.previous[event as usize];
        while before != HEAD {
            let (item, _) = self.events.what[before as usize];
            pending.push(self.task.items[item as usize].op);
            before = self.events.previous[before as usize];
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
        if item.won && !guarded || !item.won && guarded && !item.has_open_guard {
            return false;
        }
        item.some_of
            .is_none_or(|(from, to)| (from..to).any(|key| !holds(key, ABSENT)))
    }

    /// Places the operation; false if that cannot lead to an order.
    fn place(&mut self, event: u32, item: &Item) -> bool {
        self.frames.push(Frame {
            event,
            fingerprint: self.fingerprint,
            undo: self.undo.len() as u32,
        });
        let (number, _) = self.events.what[event as usize];
        self.events.cut(event);
        if item.is_certain {
            self.events.cut(self.events.return_of[number as usize]);
            self.missing -= 1;
            let observers = &mut self.observers;
            count(&self.task, item, |slot| observers[slot as usize] -= 1);
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
        let (number, _) = self.events.what[frame.event as usize];
        let item = self.task.items[number as usize];
        for (key, value, slot) in self.undo.drain(frame.undo as usize..).rev() {
            self.state[key as usize] = (value, slot);
        }
        self.fingerprint = frame.fingerprint;
        if item.is_certain {
            let observers = &mut self.observers;
            count(&self.task, &item, |slot| observers[slot as usize] += 1);
            self.missing += 1;
            self.events.put_back(self.events.return_of[number as usize]);
        }
        self.events.put_back(frame.event);
    }

    /// Takes back the last operation that changed something, and the reads after it; says where to go on.
    fn back(&mut self) -> Option<u32> {
        loop {
            let frame = self.frames.pop()?;
            self.take_back(&frame);
            let (number, _) = self.events.what[frame.event as usize];
            let item = &self.task.items[number as usize];
            if item.edits.0 != item.edits.1 {
                return Some(frame.event);
            }
        }
    }
}
