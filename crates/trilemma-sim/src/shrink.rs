//! Making a failing scenario short: the smallest one that still fails by the same checker.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over the faults, then over everything else that a scenario says:
//! operations, clients, keys, settings, clocks, links, nodes, and times, which are rounded last. Each step is kept only
//! if the run still fails by the same checker; the whole is repeated until nothing more can be left out.

use crate::scenario::{Action, Scenario, When};

/// Most runs that one shrinking may take.
pub const RUNS_MAX: u32 = 4000;

const MS: u64 = 1_000_000;

/// The result of shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The shortest scenario found. It fails by the same checker.
    pub scenario: Scenario,
    /// Runs that were made.
    pub runs: u32,
}

struct Shrinker {
    best: Scenario,
    checker: &'static str,
    runs: u32,
}

/// Shrinks a scenario that fails by `checker`.
#[must_use]
pub fn shrink(scenario: &Scenario, checker: &'static str) -> Shrunk {
    let mut shrinker = Shrinker {
        best: scenario.clone(),
        checker,
        runs: 0,
    };
    loop {
        let before = shrinker.best.clone();
        shrinker.faults();
        shrinker.workload();
        shrinker.rest();
        shrinker.nodes();
        if shrinker.best == before || shrinker.runs >= RUNS_MAX {
            break;
        }
    }
    shrinker.round();
    Shrunk {
        scenario: shrinker.best,
        runs: shrinker.runs,
    }
}

impl Shrinker {
    /// Keeps a change if the run still fails by the same checker.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        let mut candidate = self.best.clone();
        change(&mut candidate);
        if candidate == self.best {
            return false;
        }
        self.runs += 1;
        let failure = crate::run(&candidate, false).failure;
        let same = failure.is_some_and(|failure| failure.checker == self.checker);
        if same {
            self.best = candidate;
        }
        same
    }

    fn faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let to = (from + size).min(self.best.faults.len());
                let removed = self.attempt(|scenario| {
                    scenario.faults.drain(from..to);
                });
                if !removed {
                    from = to;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn workload(&mut self) {
        let mut step = self.best.workload.operations / 2;
        while step > 0 {
            while self.best.workload.operations > step
                && self.attempt(|scenario| scenario.workload.operations -= step)
            {}
            step /= 2;
        }
        for clients in 1..self.best.workload.clients {
            if self.attempt(|scenario| scenario.workload.clients = clients) {
                break;
            }
        }
        for keys in 1..self.best.workload.keys {
            if self.attempt(|scenario| scenario.workload.keys = keys) {
                break;
            }
        }
    }

    fn rest(&mut self) {
        for name in self.best.knobs.keys().cloned().collect::<Vec<_>>() {
            self.attempt(|scenario| {
                scenario.knobs.remove(&name);
            });
        }
        for index in (0..self.best.clocks.len()).rev() {
            self.attempt(|scenario| {
                scenario.clocks.remove(index);
            });
        }
        let plain = Scenario::default();
        self.library();
        self.attempt(|scenario| scenario.adders = 0);
        self.attempt(|scenario| scenario.faults_min = 0);
        self.attempt(|scenario| scenario.turn = 0);
        self.attempt(|scenario| scenario.network.loss = 0);
        self.attempt(|scenario| scenario.network.duplication = 0);
        self.attempt(|scenario| scenario.network.late = 0);
        self.attempt(|scenario| scenario.network.frame = 0);
        self.attempt(|scenario| scenario.network.frame = 1);
        self.attempt(|scenario| scenario.network.passing = false);
        self.attempt(|scenario| scenario.workload.value_max = 0);
        self.attempt(|scenario| scenario.workload.value = 0);
        self.attempt(|scenario| scenario.network.delay = plain.network.delay);
        self.attempt(|scenario| scenario.disk.sync = plain.disk.sync);
        self.attempt(|scenario| scenario.disk = plain.disk.clone());
        for part in [4, 2] {
            self.attempt(|scenario| scenario.heal -= scenario.heal / part);
        }
    }

    fn library(&mut self) {
        self.attempt(|scenario| scenario.library = None);
        let mut change = |change: fn(&mut crate::scenario::Library)| {
            self.attempt(|scenario| scenario.library.iter_mut().for_each(change));
        };
        change(|library| library.count = 1);
        change(|library| library.drop = 0);
        change(|library| library.sessions = 1);
        change(|library| library.sever *= 4);
    }

    /// Leaves out the last node, with what is said about it.
    fn nodes(&mut self) {
        while self.best.nodes > 2 {
            let last = self.best.nodes;
            let smaller = self.attempt(|scenario| {
                scenario.nodes -= 1;
                scenario.clocks.retain(|clock| clock.node.0 < last);
                scenario.faults.retain_mut(|fault| {
                    let on = match &fault.when {
                        When::On { node, .. } => node.0 < last,
                        When::At(_) => true,
                    };
                    let route = |route: &crate::scenario::Route| {
                        route.from.is_none_or(|node| node.0 < last)
                            && route.to.is_none_or(|node| node.0 < last)
                    };
                    on && match &mut fault.action {
                        Action::Split { side, .. } => {
                            side.retain(|node| node.0 < last);
                            !side.is_empty()
                        }
                        Action::Cut { route: way, .. } | Action::Drop { route: way, .. } => route(way),
                        other => other.node().is_none_or(|node| node.0 < last),
                    }
                });
            });
            if !smaller {
                return;
            }
        }
    }

    /// Rounds times, which nobody wants to read to the nanosecond.
    fn round(&mut self) {
        for index in 0..self.best.faults.len() {
            self.attempt(|scenario| {
                let fault = &mut scenario.faults[index];
                if let When::At(at) = &mut fault.when {
                    *at = at.div_ceil(MS) * MS;
                }
                if let Some(length) = fault.action.length_mut() {
                    *length = length.div_ceil(MS) * MS;
                }
            });
        }
        let up = |time: u64| time.div_ceil(MS) * MS;
        self.attempt(|scenario| scenario.workload.think = up(scenario.workload.think));
        self.attempt(|scenario| scenario.heal = up(scenario.heal));
        self.attempt(|scenario| {
            scenario.faults.sort_by_key(|fault| match fault.when {
                When::At(at) => at,
                When::On { .. } => u64::MAX,
            });
        });
    }
}
