//! Locks and leases with fencing tokens: never two holders, tokens that grow, old tokens refused.
//!
//! A lock that expires protects nothing by itself, as its holder may be slow (Kleppmann 2016); the token that the
//! protected resource checks does. Rules:
//!
//! - `mutual-exclusion`: a lock was granted while another process certainly held it.
//! - `fencing-order`: a token is not above those that had been given out before it was asked for.
//! - `stale-token`: a token was accepted after a newer one had been.
//! - `unknown-token`: a token was accepted that nobody had been given.
//! - `expired-renewal`: a lock was renewed after it had certainly expired or been released.
//!
//! Operations of other kinds are left out. What is open is allowed: a process holds from the answer to its acquire
//! (earlier if the tokens tell) to the first release that may have happened, or the earliest expiry.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Operation, Outcome};
use crate::verdict::Verdict;

mod holds;

use holds::Hold;

/// How far the clock that times leases may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockError {
    /// Of the length of a time to live, in millionths.
    pub drift_ppm: u64,
    /// In addition, in nanoseconds.
    pub offset: u64,
}

impl ClockError {
    fn of(self, ttl: u64) -> u64 {
        let drift = u128::from(ttl) * u128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(drift)
            .unwrap_or(u64::MAX)
            .saturating_add(self.offset)
    }
}

/// Which tokens a use competes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// The resource knows the tokens with which it was used: a newer one that it accepted ends the older ones.
    Used,
    /// The resource is the lock service: a newer one that was given out ends the older ones.
    Issued,
}

/// What an operation on a lock did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    /// `ttl` in nanoseconds.
    Acquire {
        token: u64,
        ttl: Option<u64>,
    },
    Renew {
        token: u64,
        ttl: u64,
    },
    Release {
        token: u64,
    },
    Use {
        token: u64,
    },
}

/// One operation on a lock that happened or may have.
#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    process: u64,
    invoke: u64,
    /// `u64::MAX`: never, as far as is known.
    returned: u64,
    /// Its outcome is known.
    certain: bool,
    did: Did,
}

/// What happened to one lock.
#[derive(Debug, Default)]
struct Lock {
    acquires: Vec<Event>,
    renews: Vec<Event>,
    releases: Vec<Event>,
    uses: Vec<Event>,
    /// When the first acquire of unknown outcome was asked for: from then on there may be tokens nobody knows.
    open_from: Option<u64>,
}

impl Lock {
    /// Whether no operation on the lock is known to have happened.
    fn is_empty(&self) -> bool {
        let known = |events: &[Event]| events.iter().any(|event| event.certain);
        !(known(&self.acquires) || known(&self.renews) || known(&self.releases) || known(&self.uses))
    }
}

/// Checks the locks of `history`. Answers of the wrong kind leave it undecided, and so does a history in which no
/// operation on a lock was answered: then nothing was judged.
#[must_use]
pub fn check(history: &[Operation], clock: ClockError, fencing: Fencing) -> Verdict {
    let locks = match locks(history) {
        Ok(locks) => locks,
        Err(why) => return Verdict::Undecided { why },
    };
    if locks.values().all(Lock::is_empty) {
        let why = "no operation on a lock was answered (acquire, renew, release, use), so there is nothing to judge";
        return Verdict::Undecided { why: why.into() };
    }
    let found = locks.iter().find_map(|(name, lock)| {
        let holds = holds::holds(lock, clock);
        fencing_order(name, lock)
            .or_else(|| unknown_tokens(name, lock))
            .or_else(|| mutual_exclusion(name, &holds))
            .or_else(|| stale_tokens(name, lock, fencing))
            .or_else(|| expired_renewals(name, lock, &holds))
    });
    found.unwrap_or(Verdict::Legal)
}

fn locks(history: &[Operation]) -> Result<BTreeMap<&str, Lock>, String> {
    let mut locks: BTreeMap<&str, Lock> = BTreeMap::new();
    for (operation, line) in history.iter().enumerate() {
        let (name, did) = match &line.call {
            Call::Acquire { lock, ttl } => (lock, Did::Acquire { token: 0, ttl: *ttl }),
            Call::Renew { lock, token, ttl } => (
                lock,
                Did::Renew {
                    token: *token,
                    ttl: *ttl,
                },
            ),
            Call::Release { lock, token } => (lock, Did::Release { token: *token }),
            Call::Use { lock, token } => (lock, Did::Use { token: *token }),
            _ => continue,
        };
        let lock = locks.entry(name).or_default();
        let event = Event {
            operation,
            process: line.process,
            invoke: line.invoke,
            returned: line.effect_by(),
            certain: line.outcome != Outcome::Unknown,
            did,
        };
        match (&line.outcome, did) {
            // A refusal, however it is reported, did nothing.
            (Outcome::Fail | Outcome::Ok(Answer::Won { succeeded: false, .. }), _) => {}
            (Outcome::Unknown, Did::Acquire { .. }) => {
                let from = lock.open_from.map_or(event.invoke, |from| from.min(event.invoke));
                lock.open_from = Some(from);
            }
            (Outcome::Ok(Answer::Token { token }), Did::Acquire { ttl, .. }) => {
                lock.acquires.push(Event {
                    did: Did::Acquire { token: *token, ttl },
                    ..event
                });
            }
            (Outcome::Unknown | Outcome::Ok(Answer::Done { .. }), Did::Renew { .. }) => {
                lock.renews.push(event)
            }
            (Outcome::Unknown | Outcome::Ok(Answer::Done { .. }), Did::Release { .. }) => {
                lock.releases.push(event)
            }
            (Outcome::Ok(Answer::Won { succeeded: true, .. }), Did::Use { .. }) => lock.uses.push(event),
            (Outcome::Unknown, Did::Use { .. }) => {}
            (Outcome::Ok(_), _) => {
                return Err(format!("operation {operation} has an answer of another kind"));
            }
        }
    }
    Ok(locks)
}

fn token(event: &Event) -> u64 {
    match event.did {
        Did::Acquire { token, .. }
        | Did::Renew { token, .. }
        | Did::Release { token }
        | Did::Use { token } => token,
    }
}

/// The first of `later` whose token is not what it must be, given the greatest token of `earlier` that had returned
/// before it began. Linear but for sorting.
fn behind<'a>(
    earlier: &'a [Event],
    later: &'a [Event],
    wrong: impl Fn(u64, u64) -> bool,
) -> Option<(&'a Event, &'a Event)> {
    let mut earlier: Vec<&Event> = earlier
        .iter()
        .filter(|event| event.returned != u64::MAX)
        .collect();
    earlier.sort_by_key(|event| event.returned);
    let mut later: Vec<&Event> = later.iter().collect();
    later.sort_by_key(|event| event.invoke);
    let mut done = earlier.into_iter().peekable();
    let mut greatest: Option<&Event> = None;
    for event in later {
        while let Some(next) = done.next_if(|next| next.returned < event.invoke) {
            if greatest.is_none_or(|known| token(next) > token(known)) {
                greatest = Some(next);
            }
        }
        if let Some(known) = greatest
            && wrong(token(known), token(event))
        {
            return Some((known, event));
        }
    }
    None
}

fn fencing_order(name: &str, lock: &Lock) -> Option<Verdict> {
    if let Some((before, event)) = behind(&lock.acquires, &lock.acquires, |known, token| token <= known) {
        let what = format!(
            "operation {} was given token {} of {name} after operation {} had been given {}",
            event.operation,
            token(event),
            before.operation,
            token(before)
        );
        return Some(Verdict::illegal(
            "fencing-order",
            what,
            [before.operation, event.operation],
        ));
    }
    let mut given: BTreeMap<u64, &Event> = BTreeMap::new();
    for event in &lock.acquires {
        if let Some(other) = given.insert(token(event), event) {
            let (a, b) = (other.operation, event.operation);
            let what = format!(
                "operations {a} and {b} were both given token {} of {name}",
                token(event)
            );
            return Some(Verdict::illegal("fencing-order", what, [a, b]));
        }
    }
    None
}

fn unknown_tokens(name: &str, lock: &Lock) -> Option<Verdict> {
    let given: BTreeMap<u64, &Event> = lock.acquires.iter().map(|event| (token(event), event)).collect();
    let accepted = lock
        .uses
        .iter()
        .chain(lock.renews.iter().filter(|renew| renew.certain));
    for event in accepted {
        let known = given
            .get(&token(event))
            .is_some_and(|given| given.invoke <= event.returned);
        let open =
            lock.open_from.is_some_and(|from| from <= event.returned) && !given.contains_key(&token(event));
        if !known && !open {
            let what = format!(
                "operation {} was accepted with token {} of {name}, which nobody had been given",
                event.operation,
                token(event)
            );
            let operations = given.get(&token(event)).map(|given| given.operation);
            return Some(Verdict::illegal(
                "unknown-token",
                what,
                operations.into_iter().chain([event.operation]),
            ));
        }
    }
    None
}

/// In the order of tokens, nobody is granted the lock before the one before him may have lost it.
fn mutual_exclusion(name: &str, holds: &[Hold]) -> Option<Verdict> {
    // The holder, of those before, that keeps it longest; and one of another process than that.
    let mut longest: [Option<&Hold>; 2] = [None, None];
    for hold in holds {
        let other = longest
            .iter()
            .flatten()
            .find(|other| other.acquire.process != hold.acquire.process);
        if let Some(other) = other.filter(|other| hold.acquire.returned < other.until_least) {
            let (a, b) = (other.acquire, hold.acquire);
            let until = match other.until_least {
                u64::MAX => "nobody had released it".into(),
                until => format!("it was held until {until} at least"),
            };
            let what = format!(
                "operation {} (process {}, token {}) held {name}: {until}; operation {} (process {}, token {}) was \
                 granted it by {}",
                a.operation,
                a.process,
                token(&a),
                b.operation,
                b.process,
                token(&b),
                b.returned
            );
            return Some(Verdict::illegal(
                "mutual-exclusion",
                what,
                [a.operation, b.operation],
            ));
        }
        let process = hold.acquire.process;
        match longest {
            [Some(first), _] if first.acquire.process == process => {
                // A process that asks again goes on with what it has.
                if first.until_least < hold.until_least {
                    longest[0] = Some(hold);
                }
            }
            [Some(first), _] if first.until_least < hold.until_least => longest = [Some(hold), Some(first)],
            [Some(_), second] => {
                let longer = second.is_none_or(|second| second.until_least < hold.until_least);
                if longer {
                    longest[1] = Some(hold);
                }
            }
            [None, _] => longest[0] = Some(hold),
        }
    }
    None
}

fn stale_tokens(name: &str, lock: &Lock, fencing: Fencing) -> Option<Verdict> {
    let newer = |known: u64, token: u64| token < known;
    let used = behind(&lock.uses, &lock.uses, newer);
    let issued = match fencing {
        Fencing::Used => None,
        Fencing::Issued => behind(&lock.acquires, &lock.uses, newer),
    };
    let renews: Vec<Event> = lock
        .renews
        .iter()
        .filter(|renew| renew.certain)
        .copied()
        .collect();
    let renewed = behind(&lock.acquires, &renews, newer);
    let (before, event) = used.or(issued).or(renewed)?;
    let what = format!(
        "operation {} was accepted with token {} of {name} after operation {} had come through with {}",
        event.operation,
        token(event),
        before.operation,
        token(before)
    );
    Some(Verdict::illegal(
        "stale-token",
        what,
        [before.operation, event.operation],
    ))
}

fn expired_renewals(name: &str, lock: &Lock, holds: &[Hold]) -> Option<Verdict> {
    for renew in lock.renews.iter().filter(|renew| renew.certain) {
        let Some(hold) = holds.iter().find(|hold| token(&hold.acquire) == token(renew)) else {
            continue;
        };
        let until = hold.until_most(lock, renew);
        if renew.invoke > until {
            let what = format!(
                "operation {} renewed {name} with token {} at {} or later; it had ended by {until}",
                renew.operation,
                token(renew),
                renew.invoke
            );
            return Some(Verdict::illegal(
                "expired-renewal",
                what,
                [hold.acquire.operation, renew.operation],
            ));
        }
    }
    None
}
