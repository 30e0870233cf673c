//! Whether every operation has a place where its answer is right and real time is kept.

use super::super::prepare::{ABSENT, Condition, Op, Prepared};
use super::timeline::{Stretch, Timelines};
use super::{Broken, Need, Place, UNPLACED, slot_before, version_of, violation};

/// Checks all answers where they stand, then real time.
pub(super) fn check(prepared: &Prepared<'_>, place: &[Place], timelines: &Timelines) -> Result<(), Broken> {
    answers(prepared, place, timelines)?;
    real_time(prepared, place, timelines)
}

/// Checks the operations whose place is known; the first wrong one in the order is reported.
fn answers(prepared: &Prepared<'_>, place: &[Place], timelines: &Timelines) -> Result<(), Broken> {
    let mut first: Option<(Place, Broken)> = None;
    for (number, op) in prepared.ops.iter().enumerate() {
        let here = place[number];
        if here == UNPLACED || first.as_ref().is_some_and(|(place, _)| *place <= here) {
            continue;
        }
        let judge = Judge {
            prepared,
            timelines,
            number,
            here,
        };
        if let Err(broken) = judge.answer(op) {
            first = Some((here, broken));
        }
    }
    first.map_or(Ok(()), |(_, broken)| Err(broken))
}

/// One operation at its place.
struct Judge<'j, 'a> {
    prepared: &'j Prepared<'a>,
    timelines: &'j Timelines,
    number: usize,
    here: Place,
}

impl Judge<'_, '_> {
    fn answer(&self, op: &Op) -> Result<(), Broken> {
        for fact in op.facts.of(&self.prepared.facts) {
            let last = self.timelines.before(fact.key, self.here);
            let (value, version) = match last {
                Some(moment) => (moment.value, version_of(moment.place)),
                None => (ABSENT, 0),
            };
            let is_version_right = fact.version == 0 || fact.version == version;
            if value != fact.value || !is_version_right {
                return Err(self.wrong_fact(fact.key, fact.value));
            }
        }
        self.guards(op)?;
        let Some((from, to)) = op.some_of else {
            return Ok(());
        };
        if (from..to).any(|key| self.timelines.value_before(key, self.here) != ABSENT) {
            return Ok(());
        }
        let what = "a range said that there is more, where there is nothing more".to_owned();
        let wants = (from..to).map(|key| (key, None)).collect();
        Err(self.broken("range", what, &[], wants))
    }

    fn guards(&self, op: &Op) -> Result<(), Broken> {
        let guards = op.guards.of(&self.prepared.guards);
        let failed = guards
            .iter()
            .find(|guard| !self.timelines.holds(**guard, self.here));
        match (op.succeeded, failed) {
            (true, Some(guard)) => {
                let key = guard.key();
                let what = format!(
                    "a command won although its guard on key {} did not hold {}",
                    self.prepared.keys[key as usize],
                    self.position()
                );
                let want = match guard {
                    Condition::Value { is, .. } => Some(*is),
                    Condition::Version { .. } => None,
                };
                let mut broken = self.broken("guard", what, &[key], vec![(key, want)]);
                if let (Condition::Version { is, .. }, Some(need)) = (guard, &mut broken.need) {
                    need.version = (*is > 0).then_some(*is);
                }
                Err(broken)
            }
            (false, None) => {
                let what = format!("a command lost although all its guards held {}", self.position());
                let wants = guards.iter().map(|guard| (guard.key(), None)).collect();
                let keys: Vec<u32> = guards.iter().map(|guard| guard.key()).collect();
                Err(self.broken("guard", what, &keys, wants))
            }
            _ => Ok(()),
        }
    }

    fn position(&self) -> String {
        format!("at version {}", version_of(self.here))
    }

    fn wrong_fact(&self, key: u32, seen: u64) -> Broken {
        let holds = self.timelines.value_before(key, self.here);
        let what = format!(
            "key {} was seen to hold {} {}, where it held {}",
            self.prepared.keys[key as usize],
            self.prepared.text(seen),
            self.position(),
            self.prepared.text(holds),
        );
        self.broken("wrong-state", what, &[key], vec![(key, Some(seen))])
    }

    fn broken(
        &self,
        rule: &'static str,
        what: String,
        keys: &[u32],
        mut wants: Vec<(u32, Option<u64>)>,
    ) -> Broken {
        let mut ops = vec![self.number];
        let lasts = keys
            .iter()
            .filter_map(|key| self.timelines.before(*key, self.here));
        ops.extend(lasts.map(|moment| moment.op as usize));
        // An unknown operation would stand right before the change of this version, so it cannot undo that one.
        let slot = slot_before(self.here);
        wants.retain(|(key, _)| {
            let last = self.timelines.before(*key, self.here);
            last.is_none_or(|moment| moment.place < slot)
        });
        Broken {
            violation: violation(self.prepared, rule, what, &ops),
            need: Some(Need {
                observer: self.number,
                place: self.here,
                wants,
                version: None,
            }),
        }
    }
}

/// Sweeps over time: each operation gets the earliest place that is right and behind all that returned before it.
fn real_time(prepared: &Prepared<'_>, place: &[Place], timelines: &Timelines) -> Result<(), Broken> {
    let ops = &prepared.ops;
    let place = &resolved(prepared, place);
    let takes_part = |number: &usize| ops[*number].certain || place[*number] != UNPLACED;
    let mut begins: Vec<usize> = (0..ops.len()).filter(takes_part).collect();
    let mut returns = begins.clone();
    begins.sort_by_key(|number| ops[*number].invoke);
    returns.sort_by_key(|number| ops[*number].end);
    let mut returns = returns.into_iter().peekable();
    let mut placed = place.to_vec();
    // The furthest place of what has returned, and who stands there.
    let mut frontier: (Place, Option<usize>) = (0, None);
    // What was placed by this sweep alone, and would stand elsewhere if an unknown operation had taken effect.
    let mut movable: Vec<usize> = Vec::new();
    for number in begins {
        let op = &ops[number];
        while let Some(returned) = returns.next_if(|returned| ops[*returned].end < op.invoke) {
            if placed[returned] > frontier.0 {
                frontier = (placed[returned], Some(returned));
            }
        }
        if place[number] != UNPLACED {
            if place[number] < frontier.0 {
                let mut broken = inverted(prepared, number, frontier.1);
                broken.need = need(prepared, number, &movable);
                return Err(broken);
            }
            continue;
        }
        let stretches = timelines.stretches(prepared, op);
        let earliest = stretches
            .iter()
            .find(|(_, to)| *to > frontier.0)
            .map(|(from, _)| frontier.0.max(*from));
        match earliest {
            Some(earliest) => {
                placed[number] = earliest;
                movable.push(number);
            }
            None => {
                let mut broken = nowhere(prepared, timelines, number, &stretches, frontier.1);
                movable.push(number);
                broken.need = need(prepared, number, &movable);
                return Err(broken);
            }
        }
    }
    Ok(())
}

/// Places with every reader right behind the last change that it reflects: versions at which nothing changed (a lost
/// command may have one) make no other state, so they put nothing in order.
fn resolved(prepared: &Prepared<'_>, place: &[Place]) -> Vec<Place> {
    let is_change = |number: &usize| prepared.ops[*number].changes() && place[*number] != UNPLACED;
    let mut changes: Vec<Place> = (0..place.len())
        .filter(is_change)
        .map(|number| place[number])
        .collect();
    changes.sort_unstable();
    let resolve = |(number, here): (usize, &Place)| {
        if *here == UNPLACED || prepared.ops[number].changes() {
            return *here;
        }
        match changes.partition_point(|change| change <= here) {
            0 => 0,
            reflected => changes[reflected - 1] + 1,
        }
    };
    place.iter().enumerate().map(resolve).collect()
}

/// What would move the operations that only the sweep has placed.
fn need(prepared: &Prepared<'_>, observer: usize, movable: &[usize]) -> Option<Need> {
    let wants: Vec<(u32, Option<u64>)> = movable
        .iter()
        .flat_map(|number| wants_of(prepared, *number))
        .collect();
    (!wants.is_empty()).then_some(Need {
        observer,
        place: UNPLACED,
        wants,
        version: None,
    })
}

/// The changes that would let an operation stand elsewhere.
fn wants_of(prepared: &Prepared<'_>, number: usize) -> Vec<(u32, Option<u64>)> {
    let op = &prepared.ops[number];
    let facts = op
        .facts
        .of(&prepared.facts)
        .iter()
        .filter(|fact| fact.version == 0);
    let guards = op
        .guards
        .of(&prepared.guards)
        .iter()
        .map(|guard| (guard.key(), None));
    let some_of = op
        .some_of
        .into_iter()
        .flat_map(|(from, to)| (from..to).map(|key| (key, None)));
    facts
        .map(|fact| (fact.key, Some(fact.value)))
        .chain(guards)
        .chain(some_of)
        .collect()
}

fn inverted(prepared: &Prepared<'_>, late: usize, early: Option<usize>) -> Broken {
    let early = early.unwrap_or(late);
    let is_read = |number: usize| !prepared.ops[number].changes();
    let (rule, words) = match (is_read(early), is_read(late)) {
        (false, true) => (
            "stale-read",
            "a read does not see a change that was complete before it began",
        ),
        (true, true) => (
            "reads-go-back",
            "a read sees an older state than one that was complete before it began",
        ),
        (_, false) => (
            "real-time",
            "a change is ordered before an operation that was complete before it began",
        ),
    };
    Broken {
        violation: violation(prepared, rule, words.into(), &[early, late]),
        need: None,
    }
}

/// An operation whose answer is right at no place that real time allows.
fn nowhere(
    prepared: &Prepared<'_>,
    timelines: &Timelines,
    number: usize,
    stretches: &[Stretch],
    frontier: Option<usize>,
) -> Broken {
    let op = &prepared.ops[number];
    let facts = op.facts.of(&prepared.facts);
    let guards = op.guards.of(&prepared.guards);
    let mut ops = vec![number];
    match frontier {
        Some(_) if !stretches.is_empty() => inverted(prepared, number, frontier),
        _ => {
            let keys = facts
                .iter()
                .map(|fact| fact.key)
                .chain(guards.iter().map(|guard| guard.key()));
            let lasts = keys.filter_map(|key| timelines.before(key, UNPLACED));
            ops.extend(lasts.map(|moment| moment.op as usize));
            let what = "what an operation saw was never so at one time".to_owned();
            Broken {
                violation: violation(prepared, "wrong-state", what, &ops),
                need: None,
            }
        }
    }
}
