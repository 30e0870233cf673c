//! The revision witness: the service says which version each change made, so the order is known and is checked.
//!
//! Every operation gets a place in the order of versions. A change stands at its version; a read that says which
//! version it reflects, and a command that lost, right behind that version; any other read wherever what it saw was
//! so. Then one sweep over time gives each operation the earliest place that real time allows: behind everything
//! that had returned before it began. If that place is one where its answer is wrong, no order is right. All places
//! only ever move forward, so the earliest are the best. O(n log n).
//!
//! Unknown operations: one whose value was seen under a version made that version. One seen without a version
//! took effect before its first observer. An unseen one is left out, unless an absent key or a lost command needs
//! it. Such placements are guesses: they can prove a history legal, never illegal.

use std::collections::BTreeMap;

use super::Finding;
use super::prepare::{ABSENT, Condition, Op, Prepared};
use crate::verdict::Violation;

mod places;
mod timeline;

use timeline::{Timelines, Written};

/// A place in the order: the version, and within it first what came just before, then the change, then its readers.
type Place = u128;

const UNPLACED: Place = Place::MAX;
const CHANGE: u128 = 1 << 31;

fn change_at(version: u64) -> Place {
    (u128::from(version) << 32) | CHANGE
}

fn reader_at(version: u64) -> Place {
    change_at(version) + 1
}

/// Where unknown operations are put that took effect before the operation at `place`.
fn slot_before(place: Place) -> Place {
    change_at(version_of(place)) - CHANGE
}

fn is_guess(place: Place) -> bool {
    place != UNPLACED && place - slot_before(place) < CHANGE
}

fn version_of(place: Place) -> u64 {
    (place >> 32) as u64
}

/// Why the run ends early.
enum Stop {
    Illegal(Violation),
    NotApplicable(&'static str),
}

/// A contradiction at one operation, and what could explain it.
struct Broken {
    violation: Violation,
    need: Option<Need>,
}

/// What would explain a contradiction: some change of these keys (to this value, if one is named) before `place`.
struct Need {
    observer: usize,
    place: Place,
    wants: Vec<(u32, Option<u64>)>,
    /// The version that the change must have made, if the observer names it.
    version: Option<u64>,
}

/// How many ways to place unknown operations are tried.
const TRIES_MAX: u32 = 256;

pub(super) fn run(prepared: &Prepared<'_>) -> Finding {
    let mut witness = Witness {
        prepared,
        place: vec![UNPLACED; prepared.ops.len()],
        guesses: 0,
    };
    match witness.judge() {
        Ok(()) => Finding::legal(),
        Err(Stop::Illegal(violation)) => Finding::illegal(violation),
        Err(Stop::NotApplicable(why)) => Finding::NotApplicable { why },
    }
}

struct Witness<'p, 'a> {
    prepared: &'p Prepared<'a>,
    /// Where each operation stands; reads of known version too.
    place: Vec<Place>,
    guesses: u128,
}

impl Witness<'_, '_> {
    fn judge(&mut self) -> Result<(), Stop> {
        if self.prepared.edits.iter().any(|edit| edit.appends) {
            return Err(Stop::NotApplicable("lists have no versions"));
        }
        self.place_answered()?;
        let written = Written::of(self.prepared);
        self.place_seen_versions(&written)?;
        // A placed unknown command has seen what its guards say, which may place another.
        while self.place_seen_values(&written)? {}
        let mut tries = TRIES_MAX;
        self.resolve(&mut tries)
    }

    /// Checks all answers. Where an unknown operation could explain a wrong one, tries those that could, one by one.
    fn resolve(&mut self, tries: &mut u32) -> Result<(), Stop> {
        let timelines = Timelines::of(self.prepared, &self.place);
        let Err(broken) = places::check(self.prepared, &self.place, &timelines) else {
            return Ok(());
        };
        let candidates = match &broken.need {
            Some(need) => self.candidates(need, &timelines),
            None => Vec::new(),
        };
        let Some(need) = broken.need.filter(|_| !candidates.is_empty()) else {
            return Err(self.refuse(broken.violation));
        };
        if need.place == UNPLACED {
            return Err(Stop::NotApplicable(
                "an unknown operation may explain a read that says no version",
            ));
        }
        // As late as may be, so that the fewest others notice; or as early, where its own guards held.
        let wanted = need
            .wants
            .iter()
            .filter_map(|(key, _)| timelines.before(*key, need.place));
        let last = wanted.map(|moment| version_of(moment.place)).max().unwrap_or(0);
        let early = change_at(last.saturating_add(1)).min(need.place);
        let places = [need.place, early];
        let ways = places
            .iter()
            .flat_map(|place| candidates.iter().map(move |candidate| (*candidate, *place)));
        for (candidate, place) in ways {
            if *tries == 0 {
                break;
            }
            *tries -= 1;
            let before = self.place[candidate];
            self.guess(candidate, place);
            if let Some(version) = need
                .version
                .filter(|version| !self.place.contains(&change_at(*version)))
            {
                self.place[candidate] = change_at(version);
            }
            if self.resolve(tries).is_ok() {
                return Ok(());
            }
            self.place[candidate] = before;
        }
        Err(self.refuse(broken.violation))
    }

    fn refuse(&self, violation: Violation) -> Stop {
        if self.guesses == 0 {
            Stop::Illegal(violation)
        } else {
            Stop::NotApplicable("unknown operations without versions may explain it in several ways")
        }
    }

    /// Places what was answered with a version.
    fn place_answered(&mut self) -> Result<(), Stop> {
        let mut makers: Vec<(u64, usize)> = Vec::new();
        for (number, op) in self.prepared.ops.iter().enumerate() {
            if !op.certain {
                continue;
            }
            if op.changes() {
                if op.version == 0 {
                    return Err(Stop::NotApplicable("a change was answered without its version"));
                }
                makers.push((op.version, number));
                self.place[number] = change_at(op.version);
            } else if let Some(at) = op.at {
                self.place[number] = reader_at(at);
            } else if op.version != 0 {
                self.place[number] = reader_at(op.version);
            }
        }
        makers.sort_unstable();
        match makers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(()),
            Some(pair) => {
                let what = format!(
                    "two changes were both reported as having made version {}",
                    pair[0].0
                );
                Err(self.illegal("version-twice", what, &[pair[0].1, pair[1].1]))
            }
        }
    }

    /// Places unknown operations whose values were seen with versions, and checks that versions and values agree.
    fn place_seen_versions(&mut self, written: &Written) -> Result<(), Stop> {
        let prepared = self.prepared;
        let mut makers: BTreeMap<u64, usize> = BTreeMap::new();
        for (number, op) in prepared.ops.iter().enumerate() {
            if op.certain && op.changes() {
                makers.insert(op.version, number);
            }
        }
        for (number, op) in prepared.ops.iter().enumerate() {
            for fact in op.facts.of(&prepared.facts) {
                if fact.version == 0 || fact.value == ABSENT {
                    continue;
                }
                let writers = written.writers(fact.key, fact.value);
                if let Some(&maker) = makers.get(&fact.version) {
                    if writers.contains(&(maker as u32)) {
                        continue;
                    }
                    return Err(self.wrong_version(number, maker, fact.key, fact.value, fact.version));
                }
                let free = writers
                    .iter()
                    .map(|writer| *writer as usize)
                    .find(|writer| self.place[*writer] == UNPLACED && !prepared.ops[*writer].certain);
                match free {
                    Some(writer) => {
                        self.place[writer] = change_at(fact.version);
                        makers.insert(fact.version, writer);
                    }
                    None => return Err(self.unwritten(written, number, fact.key, fact.value, fact.version)),
                }
            }
        }
        self.place_guarded_versions(&makers);
        Ok(())
    }

    /// Places unknown operations whose versions are known from the guards that held on them.
    fn place_guarded_versions(&mut self, makers: &BTreeMap<u64, usize>) {
        let prepared = self.prepared;
        for op in prepared.ops.iter().filter(|op| op.certain && op.succeeded) {
            for guard in op.guards.of(&prepared.guards) {
                let Condition::Version { key, is } = *guard else {
                    continue;
                };
                if is == 0 || makers.contains_key(&is) || self.place.contains(&change_at(is)) {
                    continue;
                }
                let makes = |maker: &Op| {
                    let mut edits = maker.edits.of(&prepared.edits).iter();
                    edits.any(|edit| edit.key == key && edit.value != ABSENT)
                };
                let mut candidates = prepared.ops.iter().enumerate().filter(|(number, maker)| {
                    !maker.certain
                        && self.place[*number] == UNPLACED
                        && maker.invoke <= op.end
                        && makes(maker)
                });
                // Of several the search for an explanation chooses.
                if let (Some((maker, _)), None) = (candidates.next(), candidates.next()) {
                    self.place[maker] = change_at(is);
                }
            }
        }
    }

    fn wrong_version(&self, observer: usize, maker: usize, key: u32, value: u64, version: u64) -> Stop {
        let what = format!(
            "key {} was seen to hold {} from version {version}, which another operation made",
            self.key(key),
            self.prepared.text(value),
        );
        self.illegal("wrong-version", what, &[observer, maker])
    }

    /// A value was seen that no operation can have put there.
    fn unwritten(&self, written: &Written, observer: usize, key: u32, value: u64, version: u64) -> Stop {
        let (key_text, text) = (self.key(key), self.prepared.text(value));
        if let Some(&writer) = written.writers(key, value).first() {
            let writer = writer as usize;
            let made = version_of(self.place[writer]);
            let what = format!(
                "the write of {text} to key {key_text} took effect at version {made} and again at version {version}"
            );
            return self.illegal("effect-twice", what, &[writer, observer]);
        }
        let failed = self
            .prepared
            .failed
            .iter()
            .find(|(failed_key, failed_value, _)| (*failed_key, *failed_value) == (key, value));
        if let Some((_, _, index)) = failed {
            let what = format!("key {key_text} held {text}, whose write had failed");
            let mut operations = vec![*index as usize, self.prepared.ops[observer].index as usize];
            operations.sort_unstable();
            return Stop::Illegal(Violation {
                rule: "failed-write-seen",
                what,
                operations,
            });
        }
        let what = format!("key {key_text} held {text}, which nobody wrote");
        self.illegal("value-from-nowhere", what, &[observer])
    }

    /// Places unknown operations whose values were seen without versions: before the first who saw them.
    fn place_seen_values(&mut self, written: &Written) -> Result<bool, Stop> {
        let prepared = self.prepared;
        let mut first: BTreeMap<usize, Place> = BTreeMap::new();
        for (number, op) in prepared.ops.iter().enumerate() {
            if !(op.certain && op.succeeded) && self.place[number] == UNPLACED {
                continue;
            }
            let seen = op
                .facts
                .of(&prepared.facts)
                .iter()
                .filter(|fact| fact.version == 0)
                .map(|fact| (fact.key, fact.value));
            let guarded = op
                .guards
                .of(&prepared.guards)
                .iter()
                .filter_map(|guard| match guard {
                    Condition::Value { key, is } if op.succeeded => Some((*key, *is)),
                    _ => None,
                });
            for (key, value) in seen.chain(guarded) {
                if value == ABSENT {
                    continue;
                }
                let writers = written.writers(key, value);
                if writers
                    .iter()
                    .any(|writer| self.place[*writer as usize] != UNPLACED)
                {
                    continue;
                }
                match (writers.first(), self.place[number]) {
                    (None, _) => return Err(self.unwritten(written, number, key, value, 0)),
                    (Some(_), UNPLACED) => {
                        return Err(Stop::NotApplicable(
                            "an unknown write was seen by a read that says no version",
                        ));
                    }
                    (Some(&writer), place) => {
                        let earliest = first.entry(writer as usize).or_insert(place);
                        *earliest = place.min(*earliest);
                    }
                }
            }
        }
        let found = !first.is_empty();
        for (writer, place) in first {
            self.guess(writer, place);
        }
        Ok(found)
    }

    /// Places an unknown operation right before the operation at `place`.
    fn guess(&mut self, unknown: usize, place: Place) {
        self.guesses += 1;
        // Steps of two leave room for a reader between two guesses.
        self.place[unknown] = slot_before(place) + 2 * self.guesses;
    }

    /// The unknown operations that may explain a contradiction, first those that could have run right before it.
    fn candidates(&self, need: &Need, timelines: &Timelines) -> Vec<usize> {
        let prepared = self.prepared;
        let observed_by = prepared.ops[need.observer].end;
        let slot = slot_before(need.place);
        let helps = |op: &Op| {
            let mut edits = op.edits.of(&prepared.edits).iter();
            edits.any(|edit| {
                let mut wants = need.wants.iter();
                wants.any(|(key, value)| *key == edit.key && value.is_none_or(|value| value == edit.value))
            })
        };
        let is_late = |op: &Op| {
            let mut others = prepared.ops.iter().zip(&self.place);
            others.any(|(other, place)| *place != UNPLACED && *place > slot && other.end < op.invoke)
        };
        let could_run = |op: &Op| {
            let mut guards = op.guards.of(&prepared.guards).iter();
            guards.all(|guard| timelines.holds(*guard, slot)) && !is_late(op)
        };
        let mut found: Vec<usize> = Vec::new();
        for (number, op) in prepared.ops.iter().enumerate() {
            // A guess from a value seen later may have been too late.
            let place = self.place[number];
            let is_free = place == UNPLACED || is_guess(place) && place > slot_before(need.place);
            if !op.certain && is_free && op.invoke <= observed_by && helps(op) {
                found.push(number);
            }
        }
        found.sort_by_key(|number| !could_run(&prepared.ops[*number]));
        found
    }

    fn key(&self, key: u32) -> &str {
        self.prepared.keys[key as usize]
    }

    fn illegal(&self, rule: &'static str, what: String, ops: &[usize]) -> Stop {
        Stop::Illegal(violation(self.prepared, rule, what, ops))
    }
}

fn violation(prepared: &Prepared<'_>, rule: &'static str, what: String, ops: &[usize]) -> Violation {
    let mut operations: Vec<usize> = ops.iter().map(|op| prepared.ops[*op].index as usize).collect();
    operations.sort_unstable();
    operations.dedup();
    Violation {
        rule,
        what,
        operations,
    }
}
