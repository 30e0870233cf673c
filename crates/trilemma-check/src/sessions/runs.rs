//! Whether one process can have seen one key as it did, while the key went on from write to write and never back.
//!
//! The process's reads and writes of the key are walked in order. Each read is either of the write seen last, or the
//! key has gone on: to a later version, or to a write whose version nobody shows and that was not seen before. Where a
//! value was written several times, or deletes are not distinguished, every way is tried (within a budget).

use super::{Known, Order};
use crate::convergence::{Content, Fate};

/// Most steps of a walk, over all ways.
const STEPS_MAX: u64 = 1_000_000;

/// A read or an own acknowledged write of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) operation: usize,
    /// What the key held or was given; `None`: nothing.
    pub(super) value: Option<&'a str>,
    pub(super) version: Option<u64>,
    pub(super) is_write: bool,
}

/// What came of a walk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Possible,
    /// The element at which the longest way ended, and the one before it.
    Impossible {
        at: usize,
        before: usize,
    },
    OutOfSteps,
}

/// Where the process stands.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    value: Option<&'a str>,
    version: Option<u64>,
    /// Everything up to this version has been left behind, or is the write seen now.
    floor: u64,
}

/// A choice between a write whose version is known and one whose version is not.
struct Fork<'a> {
    element: usize,
    place: Place<'a>,
    /// How many writes without version had been seen.
    seen: usize,
}

/// The writes that may have made a value.
struct Makers {
    /// Versions, ascending.
    versions: Vec<u64>,
    /// How many have no known version, own ones left out.
    open: usize,
    /// Whether there is any, own ones too. A value that nobody wrote is the matter of the check for thin air.
    is_written: bool,
}

fn makers(known: &Known<'_>, process: u64, key: &str, value: Option<&str>) -> Makers {
    let all = match value {
        Some(value) => known.makers.get(&(key, value)),
        None => known.deletes.get(key),
    };
    let mut makers = Makers {
        versions: Vec::new(),
        open: 0,
        is_written: all.is_some(),
    };
    for at in all.map_or(&[][..], |all| all) {
        let write = &known.all[*at];
        match write.version {
            // What the process itself was answered about its writes it knows.
            _ if write.process == process && write.fate == Fate::Acknowledged => {}
            Some(version) => makers.versions.push(version),
            None if matches!(write.content, Content::Add(_)) => {}
            None => makers.open += 1,
        }
    }
    makers.versions.sort_unstable();
    makers
}

/// A write that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen<'a> {
    value: Option<&'a str>,
    /// The version that a read reported.
    version: Option<u64>,
    /// Whether it is one of those whose version nobody else shows.
    is_open: bool,
}

/// One process and one key, being walked.
struct Walker<'k, 'a> {
    known: &'k Known<'a>,
    process: u64,
    key: &'k str,
    is_ordered: bool,
    /// The writes that were seen and have been, or will be, left behind.
    seen: Vec<Seen<'a>>,
    forks: Vec<Fork<'a>>,
}

/// Walks through `elements` in order.
pub(super) fn walk<'a>(
    known: &Known<'a>,
    process: u64,
    key: &str,
    order: Order,
    elements: &[Element<'a>],
) -> Walk {
    let mut walker = Walker {
        known,
        process,
        key,
        is_ordered: order != Order::Opaque,
        seen: Vec::new(),
        forks: Vec::new(),
    };
    let mut place = Place {
        value: None,
        version: None,
        floor: 0,
    };
    let mut furthest = 0;
    let (mut at, mut steps, mut is_second) = (0, 0, false);
    while let Some(element) = elements.get(at) {
        steps += 1;
        if steps > STEPS_MAX {
            return Walk::OutOfSteps;
        }
        let next = if std::mem::replace(&mut is_second, false) {
            walker.open(element, place)
        } else {
            walker.step(at, element, place)
        };
        if let Some(next) = next {
            (place, at) = (next, at + 1);
            continue;
        }
        furthest = furthest.max(at);
        let Some(fork) = walker.forks.pop() else {
            return Walk::Impossible {
                at: elements[furthest].operation,
                before: elements[furthest.saturating_sub(1)].operation,
            };
        };
        (at, place, is_second) = (fork.element, fork.place, true);
        walker.seen.truncate(fork.seen);
    }
    Walk::Possible
}

impl<'a> Walker<'_, 'a> {
    fn makers(&self, value: Option<&str>) -> Makers {
        makers(self.known, self.process, self.key, value)
    }

    /// How many of the writes of this value without version were seen.
    fn used(&self, value: Option<&str>) -> usize {
        let seen = self.seen.iter();
        seen.filter(|seen| seen.value == value && seen.is_open).count()
    }

    fn note(&mut self, element: &Element<'a>, version: Option<u64>, is_open: bool) {
        let value = element.value;
        self.seen.push(Seen {
            value,
            version,
            is_open,
        });
    }

    /// Whether the write of this value and version was seen.
    fn was_seen(&self, value: Option<&str>, version: u64) -> bool {
        let mut seen = self.seen.iter();
        seen.any(|seen| seen.value == value && seen.version == Some(version))
    }

    /// Goes on to a write whose version nobody shows, if one is left.
    fn open(&mut self, element: &Element<'a>, place: Place<'a>) -> Option<Place<'a>> {
        let makers = self.makers(element.value);
        if self.used(element.value) >= makers.open {
            return None;
        }
        self.note(element, None, true);
        Some(Place {
            value: element.value,
            version: None,
            ..place
        })
    }

    /// Goes on to the write with this version.
    fn arrive(&mut self, element: &Element<'a>, place: Place<'a>, version: u64) -> Option<Place<'a>> {
        let floor = if self.is_ordered { version } else { 0 };
        if floor < place.floor {
            return None;
        }
        Some(Place {
            value: element.value,
            version: Some(version),
            floor,
        })
    }

    /// Where the process stands after `element`, by the first way that is open.
    fn step(&mut self, at: usize, element: &Element<'a>, place: Place<'a>) -> Option<Place<'a>> {
        if element.is_write {
            return self.write(element, place);
        }
        let is_same = place.value == element.value;
        match element.version {
            Some(version) if is_same && place.version == Some(version) => Some(place),
            Some(version) => self.versioned(element, place, version, is_same),
            None if is_same => Some(place),
            None => self.unversioned(at, element, place),
        }
    }

    fn write(&mut self, element: &Element<'a>, place: Place<'a>) -> Option<Place<'a>> {
        match element.version {
            Some(version) if self.is_ordered && version <= place.floor => None,
            Some(version) => {
                self.note(element, Some(version), false);
                self.arrive(element, place, version)
            }
            None => {
                self.note(element, None, false);
                Some(Place {
                    value: element.value,
                    version: None,
                    ..place
                })
            }
        }
    }

    fn versioned(
        &mut self,
        element: &Element<'a>,
        place: Place<'a>,
        version: u64,
        is_same: bool,
    ) -> Option<Place<'a>> {
        let makers = self.makers(element.value);
        let is_named = makers.versions.binary_search(&version).is_ok();
        // It is not what is seen now, so it was left behind.
        if self.was_seen(element.value, version) {
            return None;
        }
        if !self.is_ordered {
            return self.named(element, place, version, is_same, is_named, &makers);
        }
        if is_same && place.version.is_none() && !is_named {
            // The write that was seen without its version: now that is known.
            let is_it = |seen: &Seen<'_>| seen.value == element.value && seen.version.is_none();
            match self.seen.iter().rposition(is_it) {
                Some(last) if self.forks.iter().all(|fork| fork.seen <= last) => {
                    self.seen[last].version = Some(version);
                }
                _ => self.note(element, Some(version), false),
            }
            return self.arrive(element, place, version);
        }
        if !is_named && makers.is_written && self.used(element.value) >= makers.open {
            return None;
        }
        self.note(element, Some(version), !is_named);
        self.arrive(element, place, version)
    }

    /// Where versions only name writes: the one seen now, whose name was not reported before, or another one.
    fn named(
        &mut self,
        element: &Element<'a>,
        place: Place<'a>,
        version: u64,
        is_same: bool,
        is_named: bool,
        makers: &Makers,
    ) -> Option<Place<'a>> {
        let is_it = |seen: &Seen<'_>| seen.value == element.value && seen.version.is_none() && seen.is_open;
        let all = makers.versions.len() + makers.open;
        let last = self.seen.last().is_some_and(is_it);
        if is_same && place.version.is_none() && last {
            self.seen.pop();
        } else if is_same && place.version.is_none() && !is_named {
            // An own write that was acknowledged without a version.
            self.note(element, Some(version), false);
            return self.arrive(element, place, version);
        }
        let is_used_up = self.used(element.value) >= all
            || !is_named && self.unnamed(element.value, makers) >= makers.open;
        if makers.is_written && is_used_up {
            return None;
        }
        self.note(element, Some(version), makers.is_written);
        self.arrive(element, place, version)
    }

    /// How many names were seen that no known write has.
    fn unnamed(&self, value: Option<&str>, makers: &Makers) -> usize {
        let is_unnamed = |version: u64| makers.versions.binary_search(&version).is_err();
        let seen = self
            .seen
            .iter()
            .filter(|seen| seen.value == value && seen.is_open);
        seen.filter(|seen| seen.version.is_some_and(is_unnamed)).count()
    }

    fn unversioned(&mut self, at: usize, element: &Element<'a>, place: Place<'a>) -> Option<Place<'a>> {
        let makers = self.makers(element.value);
        if !makers.is_written && element.value.is_some() {
            return Some(Place {
                value: element.value,
                version: None,
                ..place
            });
        }
        if !self.is_ordered {
            return self.any(element, place, &makers);
        }
        let fits = |version: &&u64| **version > place.floor;
        let Some(version) = makers.versions.iter().find(fits).copied() else {
            return self.open(element, place);
        };
        if makers.open > 0 {
            self.forks.push(Fork {
                element: at,
                place,
                seen: self.seen.len(),
            });
        }
        self.note(element, Some(version), false);
        self.arrive(element, place, version)
    }

    /// Where versions only name writes: goes on to any write of this value that was not seen; which one may be reported
    /// later.
    fn any(&mut self, element: &Element<'a>, place: Place<'a>, makers: &Makers) -> Option<Place<'a>> {
        if self.used(element.value) >= makers.versions.len() + makers.open {
            return None;
        }
        self.note(element, None, true);
        Some(Place {
            value: element.value,
            version: None,
            ..place
        })
    }
}
