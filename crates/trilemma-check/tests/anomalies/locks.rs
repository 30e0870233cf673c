//! A service of locks and leases, and ways in which it breaks its promises.

use trilemma_check::history::{Answer, Call, Operation, Outcome};
use trilemma_check::locks::{ClockError, Fencing, check};
use trilemma_check::verdict::Verdict;

use super::power;
use super::random::Random;

const CLOCK: ClockError = ClockError {
    drift_ppm: 50_000,
    offset: 3,
};
const LOCK: &str = "l";

#[derive(Clone, Copy)]
struct Held {
    token: u64,
    /// On the service's clock, which may be wrong by the bound.
    until: u64,
}

/// One lock, in one order; operations take effect at some time while they are under way.
struct Service {
    held: Option<Held>,
    issued: u64,
    used: u64,
}

impl Service {
    fn expire(&mut self, now: u64) {
        self.held = self.held.filter(|held| held.until > now);
    }

    fn run(&mut self, random: &mut Random, now: u64, call: &Call) -> Outcome {
        self.expire(now);
        let mut until = |ttl: u64| {
            let error = (ttl / 20 + 3) as usize;
            now + ttl + random.below(2 * error + 1) as u64 - error as u64
        };
        let done = Outcome::Ok(Answer::Done { version: None });
        let holds = |token: u64| self.held.is_some_and(|held| held.token == token);
        match call {
            Call::Acquire { ttl, .. } if self.held.is_none() => {
                self.issued += 10;
                let until = ttl.map_or(u64::MAX, &mut until);
                self.held = Some(Held {
                    token: self.issued,
                    until,
                });
                Outcome::Ok(Answer::Token { token: self.issued })
            }
            Call::Renew { token, ttl, .. } if holds(*token) => {
                self.held = Some(Held {
                    token: *token,
                    until: until(*ttl),
                });
                done
            }
            Call::Release { token, .. } if holds(*token) => {
                self.held = None;
                done
            }
            Call::Use { token, .. } => {
                let succeeded = *token >= self.used;
                self.used = self.used.max(*token);
                Outcome::Ok(Answer::Won {
                    succeeded,
                    version: None,
                })
            }
            _ => Outcome::Fail,
        }
    }
}

fn generate(random: &mut Random) -> Vec<Operation> {
    let mut service = Service {
        held: None,
        issued: 0,
        used: 0,
    };
    let mut tokens: [Option<u64>; 4] = [None; 4];
    let mut history = Vec::new();
    let mut now = 0;
    let leases = random.percent(70);
    for _ in 0..60 {
        let process = random.below(4);
        now += 10 + random.below(if leases { 60 } else { 20 }) as u64;
        let lock = LOCK.to_string();
        let call = match (tokens[process], random.below(10)) {
            (None, _) => Call::Acquire {
                lock,
                ttl: leases.then(|| 50 + random.below(200) as u64),
            },
            (Some(token), 0..2) if leases => Call::Renew {
                lock,
                token,
                ttl: 50 + random.below(200) as u64,
            },
            (Some(token), 2..5) => Call::Release { lock, token },
            (Some(token), _) => Call::Use { lock, token },
        };
        let (invoke, returned) = (now - random.below(9) as u64, Some(now + random.below(9) as u64));
        let outcome = match random.below(30) {
            // Unknown to the client: it never ran, or it did.
            0 => Outcome::Unknown,
            1 => {
                service.run(random, now, &call);
                Outcome::Unknown
            }
            _ => service.run(random, now, &call),
        };
        match (&call, &outcome) {
            (Call::Acquire { .. }, Outcome::Ok(Answer::Token { token })) => tokens[process] = Some(*token),
            (Call::Release { .. }, _) | (Call::Renew { .. }, Outcome::Fail) => tokens[process] = None,
            _ => {}
        }
        history.push(Operation {
            process: process as u64,
            invoke,
            returned,
            call,
            outcome,
        });
    }
    history
}

fn used(history: &[Operation]) -> Verdict {
    check(history, CLOCK, Fencing::Used)
}

/// The grants: position, token, time to live.
fn grants(history: &[Operation]) -> Vec<(usize, u64, Option<u64>)> {
    let grant = |(at, line): (usize, &Operation)| match (&line.call, &line.outcome) {
        (Call::Acquire { ttl, .. }, Outcome::Ok(Answer::Token { token })) => Some((at, *token, *ttl)),
        _ => None,
    };
    history.iter().enumerate().filter_map(grant).collect()
}

fn returned(line: &Operation) -> u64 {
    line.returned.unwrap_or(u64::MAX)
}

/// The position of the first operation with a token after its grant that can end or change it.
fn changed(history: &[Operation], token: u64) -> Option<usize> {
    history.iter().position(|line| match &line.call {
        Call::Renew { token: own, .. } | Call::Release { token: own, .. } => {
            *own == token && line.outcome != Outcome::Fail
        }
        _ => false,
    })
}

fn insert(history: &mut Vec<Operation>, process: u64, times: (u64, u64), call: Call, answer: Answer) {
    let outcome = Outcome::Ok(answer);
    history.push(Operation {
        process,
        invoke: times.0,
        returned: Some(times.1),
        call,
        outcome,
    });
}

#[test]
fn two_holders_are_found() {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let mut places = Vec::new();
        for (at, token, ttl) in grants(history) {
            let least = ttl.map(|ttl| history[at].invoke + ttl - ttl / 20 - 3);
            let changed = changed(history, token).map(|at| history[at].invoke);
            let until = changed
                .into_iter()
                .chain(least)
                .min()
                .unwrap_or(returned(&history[at]) + 50);
            if until > returned(&history[at]) + 4 {
                places.push((token, returned(&history[at]), until));
            }
        }
        let Some((token, from, until)) = random.pick(&places).copied() else {
            return false;
        };
        let times = (from + random.below(3) as u64, until - 1);
        let call = Call::Acquire {
            lock: LOCK.into(),
            ttl: random.percent(50).then_some(7),
        };
        insert(history, 50, times, call, Answer::Token { token: token + 5 });
        true
    };
    power(&["mutual-exclusion"], generate, plant, |history| used(history));
}

#[test]
fn tokens_that_do_not_grow_are_found() {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let grants = grants(history);
        let apart: Vec<_> = grants
            .windows(2)
            .filter(|pair| returned(&history[pair[0].0]) < history[pair[1].0].invoke)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        let Some((first, second)) = random.pick(&apart).copied() else {
            return false;
        };
        let token = if random.percent(50) { first.1 } else { first.1 - 3 };
        history[second.0].outcome = Outcome::Ok(Answer::Token { token });
        true
    };
    power(&["fencing-order"], generate, plant, |history| used(history));
}

#[test]
fn old_tokens_that_are_accepted_are_found() {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let accepted =
            |line: &&Operation| matches!(line.outcome, Outcome::Ok(Answer::Won { succeeded: true, .. }));
        let uses: Vec<(u64, u64)> = history
            .iter()
            .filter(accepted)
            .filter_map(|line| match line.call {
                Call::Use { token, .. } => Some((token, returned(line))),
                _ => None,
            })
            .collect();
        let older = |used: u64| {
            grants(history)
                .into_iter()
                .map(|grant| grant.1)
                .filter(move |token| *token < used)
        };
        let places: Vec<(u64, u64)> = uses
            .iter()
            .flat_map(|(used, at)| older(*used).map(|token| (token, *at)))
            .collect();
        let Some((token, at)) = random.pick(&places).copied() else {
            return false;
        };
        let call = Call::Use {
            lock: LOCK.into(),
            token,
        };
        insert(
            history,
            50,
            (at + 1, at + 5),
            call,
            Answer::Won {
                succeeded: true,
                version: None,
            },
        );
        true
    };
    power(&["stale-token"], generate, plant, |history| used(history));
}

#[test]
fn old_tokens_are_found_by_what_was_issued() {
    // Accepted with a token though a newer one had been given out, and before anybody used that.
    let generate = |random: &mut Random| {
        let mut history = generate(random);
        history.retain(|line| !matches!(line.call, Call::Use { .. }));
        history
    };
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let grants = grants(history);
        if grants.len() < 2 {
            return false;
        }
        let old = random.below(grants.len() - 1);
        let at = returned(&history[grants[old + 1].0]);
        let call = Call::Use {
            lock: LOCK.into(),
            token: grants[old].1,
        };
        insert(
            history,
            50,
            (at + 1, at + 5),
            call,
            Answer::Won {
                succeeded: true,
                version: None,
            },
        );
        assert_eq!(used(history), Verdict::Legal);
        true
    };
    power(&["stale-token"], generate, plant, |history| {
        check(history, CLOCK, Fencing::Issued)
    });
}

#[test]
fn tokens_that_nobody_was_given_are_found() {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let open =
            |line: &Operation| matches!(line.call, Call::Acquire { .. }) && line.outcome == Outcome::Unknown;
        if history.iter().any(open) {
            return false;
        }
        let at = random.below(1000) as u64;
        let grants = grants(history);
        let (token, times) = match grants.last() {
            // Used before it was given out.
            Some((grant, token, _)) if random.percent(50) && history[*grant].invoke > 5 => {
                let before = history[*grant].invoke - 5;
                (*token, (before, before + 1))
            }
            _ => (10_001, (at, at + 5)),
        };
        let lock = LOCK.to_string();
        if random.percent(50) {
            insert(
                history,
                50,
                times,
                Call::Use { lock, token },
                Answer::Won {
                    succeeded: true,
                    version: None,
                },
            );
        } else {
            insert(
                history,
                50,
                times,
                Call::Renew { lock, token, ttl: 10 },
                Answer::Done { version: None },
            );
        }
        true
    };
    power(&["unknown-token"], generate, plant, |history| used(history));
}

#[test]
fn renewals_of_what_has_ended_are_found() {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let grants = grants(history);
        let mut places = Vec::new();
        for (place, (at, token, ttl)) in grants.iter().enumerate() {
            let next = grants
                .get(place + 1)
                .map_or(u64::MAX, |next| returned(&history[next.0]));
            let ended = match (changed(history, *token), ttl) {
                (None, Some(ttl)) => returned(&history[*at]) + ttl + ttl / 20 + 3,
                (Some(by), _) if matches!(history[by].call, Call::Release { .. }) => {
                    match history[by].outcome {
                        Outcome::Ok(_) => returned(&history[by]),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            if ended < next {
                places.push((*token, ended + 1));
            }
        }
        let Some((token, at)) = random.pick(&places).copied() else {
            return false;
        };
        let call = Call::Renew {
            lock: LOCK.into(),
            token,
            ttl: 1,
        };
        insert(history, 50, (at, at + 1), call, Answer::Done { version: None });
        true
    };
    power(&["expired-renewal"], generate, plant, |history| used(history));
}

#[test]
fn the_error_of_the_clock_counts() {
    let acquire = |process, invoke, token| Operation {
        process,
        invoke,
        returned: Some(invoke + 1),
        call: Call::Acquire {
            lock: LOCK.into(),
            ttl: Some(100),
        },
        outcome: Outcome::Ok(Answer::Token { token }),
    };
    let history = [acquire(1, 0, 1), acquire(2, 95, 2)];
    assert!(!check(&history, ClockError::default(), Fencing::Used).is_legal());
    assert!(check(&history, CLOCK, Fencing::Used).is_legal());
}
