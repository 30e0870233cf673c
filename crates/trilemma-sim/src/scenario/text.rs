//! Scenarios as text: printing and parsing, which are inverse to each other.

mod parse;

use std::fmt;

use trilemma_core::NodeId;

use super::{
    Action, ClockFault, Demand, Disk, Fault, Library, Network, Probe, Route, Scenario, When, Workload,
};

const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A line of a scenario that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it and what was expected.
    pub what: String,
}

/// A duration as it is printed: in the largest unit that divides it.
pub(super) struct Time(pub(super) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, size)| self.0.is_multiple_of(*size));
        let (name, size) = unit.copied().unwrap_or(UNITS[0]);
        write!(f, "{}{name}", self.0 / size)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: Option<NodeId>| node.map_or("*".to_owned(), |node| node.0.to_string());
        write!(f, "{}>{}", name(self.from), name(self.to))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Send(kind) => write!(f, "send {kind}"),
            Probe::Receive(kind) => write!(f, "receive {kind}"),
            Probe::Append => f.write_str("append"),
            Probe::Write => f.write_str("write"),
            Probe::Persist => f.write_str("persist"),
            Probe::Start => f.write_str("start"),
        }
    }
}

/// What stands behind an action's name.
fn arguments(action: &Action) -> String {
    let mut words = Vec::new();
    match action {
        Action::Cut { route, .. } => words.push(route.to_string()),
        Action::Drop { kind, route, .. } => words.extend([kind.clone(), route.to_string()]),
        Action::Split { side, .. } => {
            let names: Vec<String> = side.iter().map(|node| node.0.to_string()).collect();
            words.push(names.join(","));
        }
        Action::Noise {
            loss,
            duplication,
            delay,
            ..
        } => words.extend([
            loss.to_string(),
            duplication.to_string(),
            Time(*delay).to_string(),
        ]),
        _ => words.extend(action.node().map(|node| node.0.to_string())),
    }
    match action {
        Action::Tear {
            operations, names, ..
        } => {
            words.push(operations.to_string());
            words.extend(names.then(|| "names".to_owned()));
        }
        Action::SlowDisk { sync, .. } => words.push(Time(*sync).to_string()),
        Action::Jump { ms, .. } => words.push(ms.to_string()),
        Action::Set { name, value, .. } => words.extend([name.clone(), value.to_string()]),
        _ => {}
    }
    if action.length() > 0 {
        words.push(format!("for {}", Time(action.length())));
    }
    words.iter().map(|word| format!(" {word}")).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::At(time) => write!(f, "at {} ", Time(*time))?,
            When::On { node, probe, count } => write!(f, "on {} {probe} #{count} ", node.0)?,
        }
        write!(f, "{}{}", self.action.class(), arguments(&self.action))
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            sever,
            drop,
            sessions,
            spread,
            window,
        } = self;
        let sever = Time(*sever);
        write!(
            f,
            "library {count} sever {sever} drop {drop} sessions {sessions} spread {spread} window {window}"
        )
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload {
            clients,
            keys,
            operations,
            think,
            deadline,
            value,
            value_max,
        } = &self.workload;
        writeln!(
            f,
            "protocol {}\nseed {}\nnodes {}",
            self.protocol, self.seed, self.nodes
        )?;
        let (think, deadline) = (Time(*think), Time(*deadline));
        write!(
            f,
            "clients {clients} keys {keys} operations {operations} think {think} deadline {deadline}"
        )?;
        match (value, value_max) {
            (0, 0) => writeln!(f)?,
            (bytes, 0) => writeln!(f, " value {bytes}")?,
            (bytes, most) => writeln!(f, " value {bytes} most {most}")?,
        }
        if self.adders > 0 {
            writeln!(f, "adders {}", self.adders)?;
        }
        if self.watchers > 0 {
            write!(f, "watchers {}", self.watchers)?;
            match self.watch_bytes {
                0 => writeln!(f)?,
                bytes => writeln!(f, " bytes {bytes}")?,
            }
        }
        if let Some(library) = &self.library {
            writeln!(f, "{library}")?;
        }
        for (name, value) in &self.knobs {
            writeln!(f, "knob {name} {value}")?;
        }
        let Network {
            loss,
            duplication,
            delay,
            late,
            frame,
            passing,
        } = &self.network;
        let (low, high) = (Time(delay.0), Time(delay.1));
        write!(
            f,
            "network loss {loss} duplicate {duplication} delay {low}..{high}"
        )?;
        if *late > 0 {
            write!(f, " late {}", Time(*late))?;
        }
        if *frame > 0 {
            write!(f, " frame {frame}")?;
        }
        writeln!(f, "{}", if *passing { " passing" } else { "" })?;
        let Disk {
            sync,
            segment,
            snapshot,
        } = &self.disk;
        let (low, high) = (Time(sync.0), Time(sync.1));
        writeln!(f, "disk {low}..{high} segment {segment} snapshot {snapshot}")?;
        for clock in &self.clocks {
            let ClockFault {
                node,
                offset_ms,
                drift_ppm,
            } = clock;
            writeln!(f, "clock {} offset {offset_ms} drift {drift_ppm}", node.0)?;
        }
        if self.turn > 0 {
            writeln!(f, "turn {}", Time(self.turn))?;
        }
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        if let Some(Demand { write, catch_up }) = &self.demand {
            writeln!(f, "demand write {} catch-up {}", Time(*write), Time(*catch_up))?;
        }
        match self.faults_min {
            0 => writeln!(f, "heal {}", Time(self.heal)),
            least => writeln!(f, "heal {} faults {least}", Time(self.heal)),
        }
    }
}
