//! From when to when a lock was held, at least and at most.

use std::collections::BTreeMap;

use super::{ClockError, Did, Event, Lock, token};

/// One grant of a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) acquire: Event,
    /// It was certainly held up to here; `u64::MAX`: without end. Not after `acquire.invoke` if it may have ended at once.
    pub(super) until_least: u64,
    clock: ClockError,
}

/// The grants of a lock in the order of their tokens, each acquire with the earliest and the latest time at which it
/// can have taken effect: after those with smaller tokens and the certain end of what others held, before those with
/// greater ones and before its token was accepted.
pub(super) fn holds(lock: &Lock, clock: ClockError) -> Vec<Hold> {
    let mut acquires = lock.acquires.clone();
    acquires.sort_by_key(token);
    let mut accepted: BTreeMap<u64, u64> = BTreeMap::new();
    for event in lock.uses.iter().chain(&lock.renews).filter(|event| event.certain) {
        let first = accepted.entry(token(event)).or_insert(u64::MAX);
        *first = event.returned.min(*first);
    }
    let mut latest = u64::MAX;
    for acquire in acquires.iter_mut().rev() {
        let used = accepted.get(&token(acquire)).copied().unwrap_or(u64::MAX);
        latest = latest.min(acquire.returned).min(used);
        acquire.returned = latest;
    }
    let mut earliest = 0;
    // Until when each process held at least, as far as it held longer than another.
    let mut longest: [Option<(u64, u64)>; 2] = [None, None];
    let mut holds: Vec<Hold> = Vec::with_capacity(acquires.len());
    for mut acquire in acquires {
        let others = longest
            .iter()
            .flatten()
            .find(|(process, _)| *process != acquire.process);
        let free = others.map_or(0, |(_, until)| *until);
        earliest = earliest.max(acquire.invoke).max(free.min(acquire.returned));
        acquire.invoke = earliest;
        let hold = hold(lock, acquire, clock);
        note(&mut longest, acquire.process, hold.until_least);
        holds.push(hold);
    }
    holds
}

/// Keeps the process that holds longest, and the one of the others that does.
fn note(longest: &mut [Option<(u64, u64)>; 2], process: u64, until: u64) {
    let mut all: Vec<(u64, u64)> = longest.iter().flatten().copied().collect();
    match all.iter_mut().find(|(other, _)| *other == process) {
        Some((_, own)) => *own = until.max(*own),
        None => all.push((process, until)),
    }
    all.sort_by_key(|(_, until)| std::cmp::Reverse(*until));
    *longest = [all.first().copied(), all.get(1).copied()];
}

fn hold(lock: &Lock, acquire: Event, clock: ClockError) -> Hold {
    let own = |events: &[Event]| -> Vec<Event> {
        let mut own: Vec<Event> = events
            .iter()
            .filter(|event| token(event) == token(&acquire))
            .copied()
            .collect();
        own.sort_by_key(|event| event.invoke);
        own
    };
    let ends = |from: u64, ttl: u64| from.saturating_add(ttl).saturating_sub(clock.of(ttl));
    let mut until = match acquire.did {
        Did::Acquire { ttl: Some(ttl), .. } => ends(acquire.invoke, ttl),
        _ => u64::MAX,
    };
    let renews = own(&lock.renews);
    for renew in &renews {
        // Another one that was under way may have come after this one, and may have shortened the time.
        let open = renews
            .iter()
            .filter(|other| other.invoke <= renew.invoke && other.returned >= renew.invoke);
        let shortest = open
            .map(|other| ends(renew.invoke, ttl(other)))
            .min()
            .unwrap_or(u64::MAX);
        let renewed = shortest.min(ends(renew.invoke, ttl(renew)));
        // One that came through proves that the lock was held until then.
        until = if renew.certain {
            renewed.max(renew.invoke)
        } else {
            until.min(renewed)
        };
    }
    // One that had ended before the token was asked for released nothing.
    for release in own(&lock.releases)
        .iter()
        .filter(|release| release.returned >= acquire.invoke)
    {
        until = until.min(release.invoke.max(acquire.invoke));
    }
    Hold {
        acquire,
        until_least: until,
        clock,
    }
}

fn ttl(renew: &Event) -> u64 {
    match renew.did {
        Did::Renew { ttl, .. } => ttl,
        _ => 0,
    }
}

impl Hold {
    /// When it had certainly ended if `but` had not been: by release, or at its latest expiry.
    pub(super) fn until_most(&self, lock: &Lock, but: &Event) -> u64 {
        let ends = |from: u64, ttl: u64| from.saturating_add(ttl).saturating_add(self.clock.of(ttl));
        let own = |event: &&Event| token(event) == token(&self.acquire) && event.operation != but.operation;
        let expiry = match self.acquire.did {
            Did::Acquire { ttl: Some(ttl), .. } => ends(self.acquire.returned, ttl),
            _ => u64::MAX,
        };
        let before = lock
            .renews
            .iter()
            .filter(own)
            .filter(|renew| renew.invoke <= but.returned);
        let renewed = before.map(|renew| ends(renew.returned, ttl(renew)));
        let expiry = renewed.fold(expiry, u64::max);
        // It certainly released what had been given before it was asked for.
        let certainly = |release: &&Event| release.certain && release.invoke > self.acquire.returned;
        let released = lock.releases.iter().filter(own).filter(certainly);
        released.map(|release| release.returned).fold(expiry, u64::min)
    }
}
