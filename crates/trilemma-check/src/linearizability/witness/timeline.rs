//! What each key held from which place on.

use super::super::prepare::{ABSENT, Condition, Op, Prepared};
use super::{Place, UNPLACED, version_of};

/// Who may have written which value.
pub(super) struct Written {
    by_value: Vec<(u32, u64)>,
    writers: Vec<u32>,
}

impl Written {
    pub(super) fn of(prepared: &Prepared<'_>) -> Self {
        let mut all: Vec<(u32, u64, u32)> = Vec::with_capacity(prepared.edits.len());
        for (number, op) in prepared.ops.iter().enumerate().filter(|(_, op)| op.changes()) {
            let edits = op.edits.of(&prepared.edits).iter();
            all.extend(edits.map(|edit| (edit.key, edit.value, number as u32)));
        }
        all.sort_unstable();
        Self {
            by_value: all.iter().map(|(key, value, _)| (*key, *value)).collect(),
            writers: all.into_iter().map(|(_, _, op)| op).collect(),
        }
    }

    /// The operations that give `key` this value if they take effect, in the order of the history.
    pub(super) fn writers(&self, key: u32, value: u64) -> &[u32] {
        let from = self.by_value.partition_point(|pair| *pair < (key, value));
        let rest = &self.by_value[from..];
        let length = rest.iter().take_while(|pair| **pair == (key, value)).count();
        &self.writers[from..from + length]
    }
}

/// From `place` on a key holds `value`, which operation `op` gave it.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) place: Place,
    pub(super) value: u64,
    pub(super) op: u32,
}

/// The places from the first to before the second.
pub(super) type Stretch = (Place, Place);

/// The changes of each key in order.
pub(super) struct Timelines {
    moments: Vec<Moment>,
    starts: Vec<u32>,
}

impl Timelines {
    pub(super) fn of(prepared: &Prepared<'_>, place: &[Place]) -> Self {
        let mut all: Vec<(u32, Moment)> = Vec::with_capacity(prepared.edits.len());
        for (number, op) in prepared.ops.iter().enumerate() {
            if place[number] == UNPLACED || !op.changes() {
                continue;
            }
            for edit in op.edits.of(&prepared.edits) {
                let moment = Moment {
                    place: place[number],
                    value: edit.value,
                    op: number as u32,
                };
                all.push((edit.key, moment));
            }
        }
        all.sort_unstable_by_key(|(key, moment)| (*key, moment.place));
        let mut starts = vec![0; prepared.keys.len() + 1];
        for (key, _) in &all {
            starts[*key as usize + 1] += 1;
        }
        for key in 0..prepared.keys.len() {
            starts[key + 1] += starts[key];
        }
        Self {
            moments: all.into_iter().map(|(_, moment)| moment).collect(),
            starts,
        }
    }

    fn of_key(&self, key: u32) -> &[Moment] {
        let (from, to) = (self.starts[key as usize], self.starts[key as usize + 1]);
        &self.moments[from as usize..to as usize]
    }

    /// The last change of `key` before `place`.
    pub(super) fn before(&self, key: u32, place: Place) -> Option<Moment> {
        let moments = self.of_key(key);
        let next = moments.partition_point(|moment| moment.place < place);
        next.checked_sub(1).map(|last| moments[last])
    }

    /// What `key` holds right before `place`.
    pub(super) fn value_before(&self, key: u32, place: Place) -> u64 {
        self.before(key, place).map_or(ABSENT, |moment| moment.value)
    }

    /// Whether the condition holds right before `place`.
    pub(super) fn holds(&self, condition: Condition, place: Place) -> bool {
        let last = self.before(condition.key(), place);
        let is_now = |version| match last {
            Some(moment) if moment.value != ABSENT => version_of(moment.place) == version,
            _ => version == 0,
        };
        match condition {
            Condition::Value { is, .. } => last.map_or(ABSENT, |moment| moment.value) == is,
            Condition::Version { is, .. } => is_now(is),
        }
    }

    /// Where a reader can stand that sees all facts and guards of `op` as it says, in order.
    pub(super) fn stretches(&self, prepared: &Prepared<'_>, op: &Op) -> Vec<Stretch> {
        let mut allowed = vec![(0, UNPLACED)];
        for fact in op.facts.of(&prepared.facts) {
            let seen = |value: u64, place: Place| {
                value == fact.value && (fact.version == 0 || version_of(place) == fact.version)
            };
            allowed = meet(&allowed, &self.stretches_where(fact.key, seen));
        }
        let guards = op.guards.of(&prepared.guards);
        let mut held = vec![(0, UNPLACED)];
        for guard in guards {
            let holds = |value: u64, place: Place| match guard {
                Condition::Value { is, .. } => value == *is,
                Condition::Version { is, .. } if value == ABSENT => *is == 0,
                Condition::Version { is, .. } => version_of(place) == *is,
            };
            held = meet(&held, &self.stretches_where(guard.key(), holds));
        }
        if !op.succeeded {
            held = outside(&held);
        }
        allowed = meet(&allowed, &held);
        if let Some((from, to)) = op.some_of {
            let mut none = vec![(0, UNPLACED)];
            for key in from..to {
                none = meet(&none, &self.stretches_where(key, |value, _| value == ABSENT));
            }
            allowed = meet(&allowed, &outside(&none));
        }
        allowed
    }

    fn stretches_where(&self, key: u32, is_so: impl Fn(u64, Place) -> bool) -> Vec<Stretch> {
        let moments = self.of_key(key);
        let mut found = Vec::new();
        let first = moments.first().map_or(UNPLACED, |moment| moment.place);
        if is_so(ABSENT, 0) {
            found.push((0, first));
        }
        for (position, moment) in moments.iter().enumerate() {
            if is_so(moment.value, moment.place) {
                let next = moments.get(position + 1).map_or(UNPLACED, |next| next.place);
                found.push((moment.place + 1, next));
            }
        }
        found
    }
}

/// The places that are in both.
fn meet(one: &[Stretch], other: &[Stretch]) -> Vec<Stretch> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let (from, to) = (a.0.max(b.0), a.1.min(b.1));
        if from < to {
            both.push((from, to));
        }
        if a.1 <= b.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// The places that are in none of them.
fn outside(stretches: &[Stretch]) -> Vec<Stretch> {
    let mut rest = Vec::new();
    let mut from = 0;
    for stretch in stretches {
        if from < stretch.0 {
            rest.push((from, stretch.0));
        }
        from = stretch.1;
    }
    if from < UNPLACED {
        rest.push((from, UNPLACED));
    }
    rest
}
