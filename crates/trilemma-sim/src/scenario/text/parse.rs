//! Reading a scenario, line by line.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use trilemma_core::NodeId;

use super::{ParseError, UNITS};
use crate::scenario::{
    Action, ClockFault, Demand, Fault, Library, Probe, Route, Scenario, UnknownProtocol, When,
};

/// Most lines of a scenario.
const LINES_MAX: usize = 10_000;
/// Most nodes, clients and keys.
const COUNT_MAX: u32 = 1_000;
/// Most calls that the library lets be under way on one connection.
const WINDOW_MAX: usize = 4096;
/// Most operations.
const OPERATIONS_MAX: u32 = 1_000_000;
/// Most bytes of a value.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a frame.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Most bytes that may wait for a watcher.
const WATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time or duration: an hour.
const TIME_MAX: u64 = 3_600_000_000_000;

/// The words of one line, with errors that say what was expected.
struct Words<'a> {
    words: SplitWhitespace<'a>,
    nodes: u32,
}

type Parsed<T> = Result<T, String>;

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Parsed<&'a str> {
        self.words
            .next()
            .ok_or_else(|| format!("the line ends where {what} was expected"))
    }

    fn literal(&mut self, word: &str) -> Parsed<()> {
        let found = self.next(&format!("\"{word}\""))?;
        if found == word {
            return Ok(());
        }
        Err(format!("\"{found}\": expected \"{word}\""))
    }

    /// Takes this word, if it is the next one.
    fn has(&mut self, word: &str) -> bool {
        let mut rest = self.words.clone();
        let found = rest.next() == Some(word);
        if found {
            self.words = rest;
        }
        found
    }

    fn number<T: FromStr + PartialOrd + fmt::Display>(&mut self, what: &str, low: T, high: T) -> Parsed<T> {
        let word = self.next(what)?;
        match word.parse::<T>() {
            Ok(number) if number >= low && number <= high => Ok(number),
            _ => Err(format!("\"{word}\": expected {what} from {low} to {high}")),
        }
    }

    fn time(&mut self, what: &str) -> Parsed<u64> {
        let word = self.next(what)?;
        time(word)
            .ok_or_else(|| format!("\"{word}\": expected {what} such as 300us, 20ms or 3s, at most an hour"))
    }

    fn times(&mut self, what: &str) -> Parsed<(u64, u64)> {
        let word = self.next(what)?;
        let pair = word
            .split_once("..")
            .and_then(|(low, high)| Some((time(low)?, time(high)?)));
        match pair {
            Some((low, high)) if low <= high => Ok((low, high)),
            _ => Err(format!("\"{word}\": expected {what} such as 100us..2ms")),
        }
    }

    fn length(&mut self) -> Parsed<u64> {
        self.literal("for")?;
        self.time("a duration")
    }

    fn node(&mut self) -> Parsed<NodeId> {
        let nodes = self.nodes;
        Ok(NodeId(self.number("a node", 1, nodes)?))
    }

    fn route(&mut self) -> Parsed<Route> {
        let word = self.next("a route")?;
        let nodes = self.nodes;
        let end = |text: &str| match text.parse::<u32>() {
            _ if text == "*" => Some(None),
            Ok(node) if (1..=nodes).contains(&node) => Some(Some(NodeId(node))),
            _ => None,
        };
        word.split_once('>')
            .and_then(|(from, to)| {
                Some(Route {
                    from: end(from)?,
                    to: end(to)?,
                })
            })
            .ok_or_else(|| {
                format!("\"{word}\": expected a route such as 1>2 or *>3, with nodes up to {nodes}")
            })
    }

    fn side(&mut self) -> Parsed<Vec<NodeId>> {
        let word = self.next("nodes")?;
        let nodes = self.nodes;
        let parse = |part: &str| {
            part.parse()
                .ok()
                .filter(|node| (1..=nodes).contains(node))
                .map(NodeId)
        };
        let side: Option<Vec<NodeId>> = word.split(',').map(parse).collect();
        side.ok_or_else(|| format!("\"{word}\": expected nodes such as 1,2, up to {nodes}"))
    }

    /// Whether the line goes on.
    fn more(&self) -> bool {
        self.words.clone().next().is_some()
    }

    fn is_next(&self, word: &str) -> bool {
        self.words.clone().next() == Some(word)
    }

    fn knob(&mut self) -> Parsed<String> {
        let name = self.next("a setting")?;
        if crate::engine::is_knob(name) {
            return Ok(name.to_owned());
        }
        Err(format!(
            "\"{name}\": no such setting; `trilemma_sim::engine` lists them"
        ))
    }

    fn end(mut self) -> Parsed<()> {
        self.words.next().map_or(Ok(()), |word| {
            Err(format!("\"{word}\": expected the end of the line"))
        })
    }
}

fn time(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, size) = UNITS.iter().find(|(name, _)| *name == &word[digits.len()..])?;
    let time = digits.parse::<u64>().ok()?.checked_mul(*size)?;
    (time <= TIME_MAX).then_some(time)
}

fn action(words: &mut Words<'_>) -> Parsed<Action> {
    let name = words.next("an action")?;
    Ok(match name {
        "crash" => Action::Crash {
            node: words.node()?,
            length: words.length()?,
        },
        "kill" => Action::Kill {
            node: words.node()?,
            length: words.length()?,
        },
        "stop" => Action::Stop {
            node: words.node()?,
            length: words.length()?,
        },
        "tear" => Action::Tear {
            node: words.node()?,
            operations: words.number("disk operations", 0, 1_000_000)?,
            names: words.has("names"),
            length: words.length()?,
        },
        "wipe" => Action::Wipe {
            node: words.node()?,
            length: words.length()?,
        },
        "rot" => Action::Rot {
            node: words.node()?,
            length: words.length()?,
        },
        "pause" => Action::Pause {
            node: words.node()?,
            length: words.length()?,
        },
        "cut" => Action::Cut {
            route: words.route()?,
            length: words.length()?,
        },
        "split" => Action::Split {
            side: words.side()?,
            length: words.length()?,
        },
        "drop" => Action::Drop {
            kind: words.next("a message kind")?.to_owned(),
            route: words.route()?,
            length: words.length()?,
        },
        "noise" => Action::Noise {
            loss: words.number("a loss per mille", 0, 1000)?,
            duplication: words.number("copies per mille", 0, 1000)?,
            delay: words.time("the longest delay")?,
            length: words.length()?,
        },
        "slow-disk" => Action::SlowDisk {
            node: words.node()?,
            sync: words.time("the time of a sync")?,
            length: words.length()?,
        },
        "full-disk" => Action::FullDisk {
            node: words.node()?,
            length: words.length()?,
        },
        "fail-sync" => Action::FailSync {
            node: words.node()?,
            length: words.length()?,
        },
        "fail-write" => Action::FailWrite {
            node: words.node()?,
            length: words.length()?,
        },
        "jump" => Action::Jump {
            node: words.node()?,
            ms: words.number("milliseconds", -(TIME_MAX as i64), TIME_MAX as i64)?,
        },
        "snapshot" => Action::Snapshot { node: words.node()? },
        "set" => Action::Set {
            node: words.node()?,
            name: words.knob()?,
            value: words.number("a value", 0, u64::MAX)?,
        },
        _ => {
            return Err(format!(
                "\"{name}\": no such action; `trilemma_sim::scenario` lists them"
            ));
        }
    })
}

fn library(words: &mut Words<'_>) -> Parsed<Library> {
    let count = words.number("a number of libraries", 1, COUNT_MAX)?;
    words.literal("sever")?;
    let sever = words.time("a duration")?;
    words.literal("drop")?;
    let drop = words.number("calls per mille", 0, 1000)?;
    words.literal("sessions")?;
    let sessions = words.number("a number of sessions", 1, COUNT_MAX)?;
    words.literal("spread")?;
    let spread = words.number("a distance", 1, u64::MAX)?;
    words.literal("window")?;
    let window = words.number("a number of calls", 1, WINDOW_MAX)?;
    Ok(Library {
        count,
        sever,
        drop,
        sessions,
        spread,
        window,
    })
}

fn probe(words: &mut Words<'_>) -> Parsed<Probe> {
    let name = words.next("an event")?;
    Ok(match name {
        "send" => Probe::Send(words.next("a message kind")?.to_owned()),
        "receive" => Probe::Receive(words.next("a message kind")?.to_owned()),
        "append" => Probe::Append,
        "write" => Probe::Write,
        "persist" => Probe::Persist,
        "start" => Probe::Start,
        _ => {
            return Err(format!(
                "\"{name}\": expected send, receive, append, write, persist or start"
            ));
        }
    })
}

fn count(words: &mut Words<'_>) -> Parsed<u32> {
    let word = words.next("#N")?;
    let number = word.strip_prefix('#').and_then(|digits| digits.parse().ok());
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("\"{word}\": expected which occurrence, such as #3"))
}

impl Scenario {
    fn line(&mut self, line: &str) -> Parsed<()> {
        let mut words = Words {
            words: line.split_whitespace(),
            nodes: self.nodes,
        };
        match words.next("a word")? {
            "protocol" => {
                let name = words.next("a protocol")?;
                self.protocol = name.parse().map_err(|error: UnknownProtocol| error.to_string())?;
            }
            "seed" => self.seed = words.number("a seed", 0, u64::MAX)?,
            "nodes" => self.nodes = words.number("a number of nodes", 1, COUNT_MAX)?,
            "clients" => {
                self.workload.clients = words.number("a number of clients", 1, COUNT_MAX)?;
                words.literal("keys")?;
                self.workload.keys = words.number("a number of keys", 1, COUNT_MAX)?;
                words.literal("operations")?;
                self.workload.operations = words.number("a number of operations", 0, OPERATIONS_MAX)?;
                words.literal("think")?;
                self.workload.think = words.time("a duration")?;
                words.literal("deadline")?;
                self.workload.deadline = words.time("a duration")?;
                if words.more() {
                    words.literal("value")?;
                    self.workload.value = words.number("bytes of a value", 0, VALUE_BYTES_MAX)?;
                }
                if words.more() {
                    words.literal("most")?;
                    self.workload.value_max = words.number("bytes of a value", 0, VALUE_BYTES_MAX)?;
                }
            }
            "knob" => {
                let name = words.knob()?;
                let value = words.number("a value", 0, u64::MAX)?;
                self.knobs.insert(name, value);
            }
            "adders" => self.adders = words.number("a number of adders", 0, COUNT_MAX)?,
            "watchers" => {
                self.watchers = words.number("a number of watchers", 0, COUNT_MAX)?;
                if words.more() {
                    words.literal("bytes")?;
                    self.watch_bytes = words.number("bytes of recent changes", 0, WATCH_BYTES_MAX)?;
                }
            }
            "library" => self.library = Some(library(&mut words)?),
            "network" => {
                words.literal("loss")?;
                self.network.loss = words.number("a loss per mille", 0, 1000)?;
                words.literal("duplicate")?;
                self.network.duplication = words.number("copies per mille", 0, 1000)?;
                words.literal("delay")?;
                self.network.delay = words.times("delays")?;
                if words.is_next("late") {
                    words.literal("late")?;
                    self.network.late = words.time("the longest delay of a copy")?;
                }
                if words.is_next("frame") {
                    words.literal("frame")?;
                    self.network.frame = words.number("bytes of a frame", 1, FRAME_BYTES_MAX)?;
                }
                if words.more() {
                    words.literal("passing")?;
                    self.network.passing = true;
                }
            }
            "disk" => {
                self.disk.sync = words.times("times of a sync")?;
                words.literal("segment")?;
                self.disk.segment = words.number("bytes of a segment", 8 * 1024, 1 << 30)?;
                words.literal("snapshot")?;
                self.disk.snapshot = words.number("bytes between snapshots", 1, u64::MAX)?;
            }
            "clock" => {
                let node = words.node()?;
                words.literal("offset")?;
                let offset_ms = words.number("milliseconds", -(TIME_MAX as i64), TIME_MAX as i64)?;
                words.literal("drift")?;
                let drift_ppm = words.number("millionths", -900_000, 10_000_000)?;
                self.clocks.push(ClockFault {
                    node,
                    offset_ms,
                    drift_ppm,
                });
            }
            "at" => {
                let time = words.time("a time")?;
                let action = action(&mut words)?;
                self.faults.push(Fault {
                    when: When::At(time),
                    action,
                });
            }
            "on" => {
                let node = words.node()?;
                let probe = probe(&mut words)?;
                let count = count(&mut words)?;
                let action = action(&mut words)?;
                self.faults.push(Fault {
                    when: When::On { node, probe, count },
                    action,
                });
            }
            "demand" => {
                words.literal("write")?;
                let write = words.time("a duration")?;
                words.literal("catch-up")?;
                let catch_up = words.time("a duration")?;
                self.demand = Some(Demand { write, catch_up });
            }
            "turn" => self.turn = words.time("a duration")?,
            "heal" => {
                self.heal = words.time("a time")?;
                if words.more() {
                    words.literal("faults")?;
                    self.faults_min = words.number("a number of faults", 0, COUNT_MAX)?;
                }
            }
            other => {
                return Err(format!(
                    "\"{other}\": no such line; `trilemma_sim::scenario` lists them"
                ));
            }
        }
        words.end()
    }
}

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut scenario = Scenario::default();
        for (index, line) in text.lines().enumerate() {
            let failed = |what| ParseError {
                line: index + 1,
                what,
            };
            if index >= LINES_MAX {
                return Err(failed(format!("a scenario has at most {LINES_MAX} lines")));
            }
            // `#` begins a comment, `#3` an occurrence.
            let end = line
                .match_indices('#')
                .find(|(at, _)| !line[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
                .map_or(line.len(), |(at, _)| at);
            let line = line[..end].trim();
            if !line.is_empty() {
                scenario.line(line).map_err(failed)?;
            }
        }
        Ok(scenario)
    }
}
