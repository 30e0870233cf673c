//! The zone test for registers whose values are unique (Gibbons and Korach 1997, section 4).
//!
//! All operations on one value must stand together in the order: its write, then its reads. From the first return
//! among them to the last call (if that comes later) the value was certainly there: a *forward zone*. Two forward
//! zones must not overlap. A value whose operations all overlap one instant has a *backward zone*, which must not lie
//! within a forward one. That suffices, and takes a sort.
//!
//! A compare-and-set that won ties its two values together with nothing between them; such chains are merged into one
//! block, in which the order is known and is checked as well. What cannot be expressed so (a command that lost,
//! absence after a delete, operations on several keys) is left out: then the test may still refute the history, but
//! no longer prove it legal.

use std::collections::BTreeMap;

use super::Finding;
use super::prepare::{ABSENT, Condition, Prepared};
use crate::verdict::Violation;

/// One operation's part in one key.
#[derive(Clone, Copy)]
struct Part {
    key: u32,
    op: u32,
    invoke: u64,
    end: u64,
    is_certain: bool,
    reads: Option<u64>,
    writes: Option<u64>,
}

/// The operations on one value. Times count from 1, so that the start lies before every one.
#[derive(Clone, Copy)]
struct Cluster {
    value: u64,
    writer: Option<u32>,
    /// First return among its operations, and whose.
    finish: (u64, u32),
    /// Last call among its operations, and whose.
    start: (u64, u32),
    /// The value it was swapped for, and by whom.
    next: Option<(u64, u32)>,
    /// Whether its write is a swap from another value.
    is_swapped: bool,
    is_seen: bool,
}

/// A chain of values tied by swaps.
#[derive(Clone, Copy)]
struct Block {
    finish: (u64, u32),
    start: (u64, u32),
}

const NOBODY: u32 = u32::MAX;
/// Values of deletes, each made unique by its operation's number.
const DELETED: u64 = 1 << 40;

struct Zones<'p, 'a> {
    prepared: &'p Prepared<'a>,
    /// Whether something was left out.
    is_partial: bool,
}

pub(super) fn run(prepared: &Prepared<'_>) -> Finding {
    if prepared.edits.iter().any(|edit| edit.appends) {
        return Finding::NotApplicable {
            why: "lists are not registers",
        };
    }
    let mut zones = Zones {
        prepared,
        is_partial: false,
    };
    let mut parts = zones.parts();
    parts.sort_by_key(|part| part.key);
    let mut repeats = false;
    for part in parts.chunk_by_mut(|one, next| one.key == next.key) {
        match zones.judge(part) {
            Ok(true) => {}
            Ok(false) => {
                repeats = true;
                if let Err(violation) = zones.within(part) {
                    return Finding::illegal(violation);
                }
            }
            Err(violation) => return Finding::illegal(violation),
        }
    }
    if repeats {
        return Finding::NotApplicable {
            why: "a value was written twice to one key",
        };
    }
    if zones.is_partial {
        return Finding::NotApplicable {
            why: "nothing is wrong with each value by itself, but some operations are more than reads and writes of one",
        };
    }
    Finding::legal()
}

impl Zones<'_, '_> {
    fn parts(&mut self) -> Vec<Part> {
        let prepared = self.prepared;
        let mut parts: Vec<Part> = Vec::with_capacity(prepared.ops.len());
        for (number, op) in prepared.ops.iter().enumerate() {
            let first = parts.len();
            let part = |parts: &mut Vec<Part>, key: u32| {
                let position = parts[first..].iter().position(|part| part.key == key);
                position.map(|position| first + position).unwrap_or_else(|| {
                    parts.push(Part {
                        key,
                        op: number as u32,
                        invoke: op.invoke.saturating_add(1),
                        end: op.end.saturating_add(1),
                        is_certain: op.certain,
                        reads: None,
                        writes: None,
                    });
                    parts.len() - 1
                })
            };
            if !op.succeeded {
                self.is_partial = true;
                continue;
            }
            self.is_partial |= op.some_of.is_some();
            // Facts are of different keys each, so none of them need be looked for.
            for fact in op.facts.of(&prepared.facts) {
                parts.push(Part {
                    key: fact.key,
                    op: number as u32,
                    invoke: op.invoke.saturating_add(1),
                    end: op.end.saturating_add(1),
                    is_certain: op.certain,
                    reads: Some(fact.value),
                    writes: None,
                });
            }
            for guard in op.guards.of(&prepared.guards) {
                let place = part(&mut parts, guard.key());
                match guard {
                    Condition::Value { is, .. } => {
                        self.is_partial |= parts[place].reads.is_some_and(|other| other != *is);
                        parts[place].reads = Some(*is);
                    }
                    Condition::Version { .. } => self.is_partial = true,
                }
            }
            for edit in op.edits.of(&prepared.edits) {
                let place = part(&mut parts, edit.key);
                parts[place].writes = Some(edit.value);
            }
            self.is_partial |= parts.len() > first + 1;
        }
        parts
    }

    /// Judges one key; false if it cannot because values repeat.
    fn judge(&mut self, parts: &mut [Part]) -> Result<bool, Violation> {
        self.single_out_deletes(parts);
        let Some(mut clusters) = self.clusters(parts)? else {
            return Ok(false);
        };
        // What an unknown operation wrote and nobody saw may never have been.
        let dropped = |part: &Part, clusters: &[Cluster]| {
            let own = part.writes.and_then(|value| find(clusters, value));
            !part.is_certain && own.is_none_or(|own| !clusters[own].is_seen)
        };
        // A swap that was not seen does not see either, so what it alone saw is to be dropped too.
        for part in parts.iter() {
            if !dropped(part, &clusters) {
                self.add_to_clusters(&mut clusters, part)?;
            }
        }
        let is_kept = |cluster: &Cluster| cluster.finish.1 != NOBODY || cluster.value == ABSENT;
        clusters.retain(is_kept);
        let blocks = self.blocks(&clusters)?;
        self.compare(blocks)?;
        Ok(true)
    }

    /// Where values repeat: those that only one operation writes still have zones, and nobody may write or see another
    /// value wholly within one that is forward.
    fn within(&self, parts: &[Part]) -> Result<(), Violation> {
        let mut written: Vec<u64> = parts.iter().filter_map(|part| part.writes).collect();
        written.sort_unstable();
        let is_unique = |value: u64| {
            let from = written.partition_point(|other| *other < value);
            written.get(from) == Some(&value) && written.get(from + 1) != Some(&value)
        };
        // When each unique value was certainly there: from its first return to its last call.
        let mut zones: BTreeMap<u64, Block> = BTreeMap::new();
        for part in parts.iter().filter(|part| part.is_certain) {
            for value in part.reads.into_iter().chain(part.writes) {
                // What was removed, and what is there at the start, is not one value.
                if value == ABSENT || value >= DELETED || !is_unique(value) {
                    continue;
                }
                let zone = zones.entry(value).or_insert(Block {
                    finish: (u64::MAX, NOBODY),
                    start: (0, NOBODY),
                });
                zone.finish = zone.finish.min((part.end, part.op));
                zone.start = zone.start.max((part.invoke, part.op));
            }
        }
        let mut forward: Vec<(Block, u64)> = zones
            .into_iter()
            .map(|(value, zone)| (zone, value))
            .filter(|(zone, _)| zone.finish.0 < zone.start.0)
            .collect();
        forward.sort_unstable_by_key(|(zone, _)| zone.finish.0);
        // Of the zones that end before an operation begins, the one that lasts longest.
        let mut longest: Vec<usize> = Vec::with_capacity(forward.len());
        for (place, (zone, _)) in forward.iter().enumerate() {
            let before = longest.last().copied();
            let longer = before.filter(|before| forward[*before].0.start.0 >= zone.start.0);
            longest.push(longer.unwrap_or(place));
        }
        for part in parts.iter().filter(|part| part.is_certain) {
            let after = forward.partition_point(|(zone, _)| zone.finish.0 < part.invoke);
            let Some(place) = after.checked_sub(1).map(|last| longest[last]) else {
                continue;
            };
            let (zone, value) = &forward[place];
            let touches = part.reads == Some(*value) || part.writes == Some(*value);
            if part.end < zone.start.0 && !touches && (part.reads.is_some() || part.writes.is_some()) {
                let what = format!(
                    "{} was written once, and was there before and after an operation that saw or made another value",
                    self.prepared.text(*value)
                );
                return Err(self.violation("zones", what, &[zone.finish.1, part.op, zone.start.1]));
            }
        }
        Ok(())
    }

    /// Gives each delete a value of its own; what was seen absent then shows nothing.
    fn single_out_deletes(&mut self, parts: &mut [Part]) {
        if !parts.iter().any(|part| part.writes == Some(ABSENT)) {
            return;
        }
        for part in parts {
            if part.reads == Some(ABSENT) {
                part.reads = None;
                self.is_partial = true;
            }
            if part.writes == Some(ABSENT) {
                part.writes = Some(DELETED + u64::from(part.op));
            }
        }
    }

    /// A cluster per value written, in order of values; `None` if one was written twice.
    fn clusters(&self, parts: &[Part]) -> Result<Option<Vec<Cluster>>, Violation> {
        let cluster = |value: u64, writer: Option<u32>| Cluster {
            value,
            writer,
            finish: (u64::MAX, NOBODY),
            start: (0, NOBODY),
            next: None,
            is_swapped: false,
            is_seen: false,
        };
        let mut clusters = vec![Cluster {
            finish: (0, NOBODY),
            ..cluster(ABSENT, None)
        }];
        for part in parts {
            if let Some(value) = part.writes {
                clusters.push(cluster(value, Some(part.op)));
            }
        }
        clusters.sort_by_key(|cluster| cluster.value);
        if clusters.windows(2).any(|pair| pair[0].value == pair[1].value) {
            return Ok(None);
        }
        // Certain operations see; so do unknown ones that were seen themselves, until nothing more is found.
        let mut more = true;
        while more {
            more = false;
            for part in parts {
                let own = part.writes.and_then(|value| find(&clusters, value));
                let counts = part.is_certain || own.is_some_and(|own| clusters[own].is_seen);
                let Some(value) = part.reads.filter(|_| counts) else {
                    continue;
                };
                let Some(seen) = find(&clusters, value) else {
                    return Err(self.unwritten(part, value));
                };
                if !clusters[seen].is_seen {
                    clusters[seen].is_seen = true;
                    more |= !part.is_certain || clusters[seen].writer.is_some();
                }
            }
        }
        Ok(Some(clusters))
    }

    fn unwritten(&self, part: &Part, value: u64) -> Violation {
        let (key, text) = (self.prepared.keys[part.key as usize], self.prepared.text(value));
        let failed = &self.prepared.failed;
        let failed = failed
            .iter()
            .find(|write| (write.0, write.1) == (part.key, value));
        let mut operations = vec![self.prepared.ops[part.op as usize].index as usize];
        operations.extend(failed.map(|write| write.2 as usize));
        operations.sort_unstable();
        match failed {
            Some(_) => Violation {
                rule: "failed-write-seen",
                what: format!("key {key} held {text}, whose write had failed"),
                operations,
            },
            None => Violation {
                rule: "value-from-nowhere",
                what: format!("key {key} held {text}, which nobody wrote"),
                operations,
            },
        }
    }

    fn add_to_clusters(&self, clusters: &mut [Cluster], part: &Part) -> Result<(), Violation> {
        let from = part.reads.and_then(|value| find(clusters, value));
        let to = part.writes.and_then(|value| find(clusters, value));
        for cluster in [from, to].into_iter().flatten() {
            let cluster = &mut clusters[cluster];
            if part.end < cluster.finish.0 || cluster.finish.1 == NOBODY && cluster.writer.is_some() {
                cluster.finish = (part.end, part.op);
            }
            if part.invoke > cluster.start.0 {
                cluster.start = (part.invoke, part.op);
            }
        }
        if let (Some(from), Some(to)) = (from, to) {
            clusters[to].is_swapped = true;
            if let Some((_, other)) = clusters[from].next {
                let what = format!(
                    "two commands on key {} both won from the one write of {}",
                    self.prepared.keys[part.key as usize],
                    self.prepared.text(clusters[from].value)
                );
                return Err(self.violation("lost-update", what, &[other, part.op]));
            }
            clusters[from].next = Some((clusters[to].value, part.op));
        }
        Ok(())
    }

    /// Merges chains of swaps, and checks the order within each.
    fn blocks(&self, clusters: &[Cluster]) -> Result<Vec<Block>, Violation> {
        let mut blocks = Vec::with_capacity(clusters.len());
        let mut taken = 0;
        for head in clusters.iter().filter(|cluster| !cluster.is_swapped) {
            let mut block = Block {
                finish: head.finish,
                start: head.start,
            };
            taken += 1;
            self.written_first(head)?;
            let mut last = head;
            while let Some(next) = last.next.and_then(|(value, _)| find(clusters, value)) {
                last = &clusters[next];
                taken += 1;
                self.written_first(last)?;
                if last.finish.0 < block.start.0 {
                    let what = "a value was there before the one that it replaced was last used".to_owned();
                    return Err(self.violation("real-time", what, &[last.finish.1, block.start.1]));
                }
                block.finish = block.finish.min(last.finish);
                block.start = block.start.max(last.start);
            }
            blocks.push(block);
        }
        if taken < clusters.len() {
            let ring = clusters.iter().filter(|cluster| cluster.is_swapped);
            let ops: Vec<u32> = ring.filter_map(|cluster| cluster.writer).collect();
            let what =
                "commands that won form a ring: each replaced a value that another of them made".to_owned();
            return Err(self.violation("linearizability", what, &ops));
        }
        Ok(blocks)
    }

    /// A value is not seen before its write begins.
    fn written_first(&self, cluster: &Cluster) -> Result<(), Violation> {
        let Some(writer) = cluster.writer else {
            return Ok(());
        };
        let begun = self.prepared.ops[writer as usize].invoke.saturating_add(1);
        if cluster.finish.0 < begun {
            let what = format!(
                "{} was seen before its write began",
                self.prepared.text(cluster.value)
            );
            return Err(self.violation("value-before-write", what, &[cluster.finish.1, writer]));
        }
        Ok(())
    }

    fn compare(&self, blocks: Vec<Block>) -> Result<(), Violation> {
        let (mut forward, backward): (Vec<Block>, Vec<Block>) = blocks
            .into_iter()
            .partition(|block| block.finish.0 < block.start.0);
        forward.sort_by_key(|block| block.finish.0);
        let contradiction = |one: &Block, other: &Block| {
            let ops = [one.finish.1, one.start.1, other.finish.1, other.start.1];
            let what = "two values would each have had to be there before the other".to_owned();
            self.violation("zones", what, &ops)
        };
        for pair in forward.windows(2) {
            if pair[1].finish.0 < pair[0].start.0 {
                return Err(contradiction(&pair[0], &pair[1]));
            }
        }
        for block in &backward {
            let after = forward.partition_point(|zone| zone.finish.0 < block.start.0);
            if let Some(zone) = after.checked_sub(1).map(|zone| &forward[zone])
                && block.finish.0 < zone.start.0
            {
                return Err(contradiction(zone, block));
            }
        }
        Ok(())
    }

    fn violation(&self, rule: &'static str, what: String, ops: &[u32]) -> Violation {
        let known = ops.iter().filter(|op| **op != NOBODY);
        let mut operations: Vec<usize> = known
            .map(|op| self.prepared.ops[*op as usize].index as usize)
            .collect();
        operations.sort_unstable();
        operations.dedup();
        Violation {
            rule,
            what,
            operations,
        }
    }
}

fn find(clusters: &[Cluster], value: u64) -> Option<usize> {
    clusters
        .binary_search_by_key(&value, |cluster| cluster.value)
        .ok()
}
