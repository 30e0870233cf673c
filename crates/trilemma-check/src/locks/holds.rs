//! From when to when a lock was held, at least and at most.

use super::{ClockError, Did, Event, Lock, token};

/// One grant of a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) acquire: Event,
    /// It was certainly held up to here; `u64::MAX`: without end. Not after `acquire.invoke` if it may have ended at once.
    pub(super) until_least: u64,
    clock: ClockError,
}

/// The grants of a lock in the order of their tokens.
pub(super) fn holds(lock: &Lock, clock: ClockError) -> Vec<Hold> {
    let mut holds: Vec<Hold> = lock
        .acquires
        .iter()
        .map(|acquire| hold(lock, *acquire, clock))
        .collect();
    holds.sort_by_key(|hold| token(&hold.acquire));
    holds
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
            .filter(|other| other.invoke <= renew.invoke && other.returned > renew.invoke);
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
    for release in own(&lock.releases) {
        until = until.min(release.invoke);
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
        let released = lock.releases.iter().filter(own).filter(|release| release.certain);
        released.map(|release| release.returned).fold(expiry, u64::min)
    }
}
