//! What the commands of a play do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::rc::Rc;
use std::time::Duration;

use trilemma_core::time::Now;
use trilemma_core::{
    Attempt, Command, Guard, Instant, KeyRange, Message, NodeId, Protocol, Query, ReadLevel, ReadRequest,
    Request, Ticket,
};

use super::words::{duration, node, show_entries, show_reply};
use super::{Setup, Stage};
use crate::cluster::{Cluster, Faults, Seen, Verdict, op};

/// The commands that every protocol's plays have.
pub const HELP: &str = "\
nodes N [seed=S] [SETTING=VALUE]...  N nodes that have just started
deliver                              until nothing is under way: messages arrived, disks synced
run TIME                             lets time pass, as in 50ms or 2s
cut A B | C D                        no message passes between the two sides
cut A -> B                           nor from A to B
heal                                 ends all cuts
drop A -> B KIND [after N]           loses messages of this kind (* for all), but not the first N; A or B may be *, too
delay A -> B KIND TIME               makes them late
pass                                 ends all drops and delays
crash A..., restart A...             stops nodes, which lose what is not synced; starts them
lose-disk A...                       stops nodes, which lose all
checkpoint A                         its log is replaced by its state
hold-disk A, sync A                  the disk syncs nothing; it syncs all
sleep A..., wake A...                timers of a node stop (it reacts to messages only), and go on
clock A TIME                         sets the wall clock ahead
put A KEY=VALUE... [OPTION]...       a client at node A writes
cas A KEY=OLD:NEW [OPTION]...        writes if the key holds OLD (empty: does not exist)
delete A KEY [OPTION]...             removes a key
    op=N  the N-th operation again or ahead of its time;  retry  it may have been sent before
    timeout=TIME  how long the client waits (default 2s)
get A KEY [local], siblings A KEY    a client reads: at the strongest level, or what this node has
outcome A N [KEY=VALUE...]           a client asks what became of operation N, which would have written this
status [A...], scan [A...]           what a node can do; the entries that it has
quietly COMMAND                      what it does is left out of the trace
hide KIND..., show KIND...           leaves messages out of the trace, and shows them again";

/// Longest time that `deliver` runs.
const DELIVER_MAX: Duration = Duration::from_secs(1);

/// What happens to messages of one kind on one way.
#[derive(Clone, Debug)]
struct Rule {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: String,
    /// Messages that it lets pass first.
    passing: usize,
    fate: Verdict,
}

type Rules = Rc<RefCell<Vec<Rule>>>;

/// One play while it runs.
pub struct Play<S: Stage> {
    cluster: Option<Cluster<S::Protocol>>,
    rules: Rules,
    hidden: BTreeSet<String>,
    labels: BTreeMap<Ticket, String>,
    commands: BTreeMap<u64, Command>,
    last_op: u64,
    began: Instant,
    output: String,
}

impl<S: Stage> Default for Play<S> {
    fn default() -> Self {
        Self {
            cluster: None,
            rules: Rules::default(),
            hidden: BTreeSet::new(),
            labels: BTreeMap::new(),
            commands: BTreeMap::new(),
            last_op: 0,
            began: Instant::ZERO,
            output: String::new(),
        }
    }
}

impl<S: Stage> Play<S> {
    pub(super) fn begin(&mut self) {
        self.output.clear();
        self.began = self.cluster.as_ref().map_or(self.began, Cluster::now);
    }

    pub(super) fn end(&mut self) -> String {
        if self.output.is_empty() {
            return "ok\n".into();
        }
        std::mem::take(&mut self.output)
    }

    /// The cluster, once `nodes` has made it.
    pub fn cluster(&mut self) -> Result<&mut Cluster<S::Protocol>, String> {
        self.cluster
            .as_mut()
            .ok_or_else(|| "a play begins with \"nodes\"".into())
    }

    /// Adds a line to the trace.
    pub fn say(&mut self, line: impl Display) {
        self.output.push_str(&format!("{line}\n"));
    }

    /// Runs one command and adds what happened to the trace.
    pub fn run(&mut self, words: &[&str]) -> Result<(), String> {
        let (name, rest) = words.split_first().ok_or("an empty command")?;
        if *name == "quietly" {
            let before = self.output.len();
            self.run(rest)?;
            self.output.truncate(before);
            return Ok(());
        }
        if *name == "nodes" {
            self.nodes(rest)?;
        } else if let Some(done) = S::command(self, words) {
            done?;
        } else {
            self.world(name, rest)?;
        }
        self.tell();
        Ok(())
    }

    fn nodes(&mut self, words: &[&str]) -> Result<(), String> {
        let (size, rest) = words.split_first().ok_or("how many?")?;
        let mut setup = Setup {
            size: node(size)?.0,
            options: Vec::new(),
        };
        for word in rest {
            let (name, value) = word.split_once('=').ok_or("a setting is NAME=VALUE")?;
            setup.options.push((name.into(), value.into()));
        }
        let seed = setup.number("seed").unwrap_or(1) as u64;
        let known = setup.clone();
        let mut cluster = Cluster::new(setup.size, seed, move |node, incarnation, seed| {
            S::build(node, incarnation, seed, &known)
        });
        let exactly = (Duration::from_millis(1), Duration::from_millis(1));
        cluster.faults = Faults {
            delay: exactly,
            disk: exactly,
            ..Faults::default()
        };
        let rules = Rc::clone(&self.rules);
        cluster.filter = Some(Box::new(move |from, to, message| {
            let mut rules = rules.borrow_mut();
            let hit = rules.iter_mut().find(|rule| {
                rule.from.is_none_or(|node| node == from)
                    && rule.to.is_none_or(|node| node == to)
                    && (rule.kind == "*" || rule.kind == message.kind())
            });
            match hit {
                None => Verdict::Deliver,
                Some(rule) if rule.passing > 0 => {
                    rule.passing -= 1;
                    Verdict::Deliver
                }
                Some(rule) => rule.fate,
            }
        }));
        cluster.trace = Some(Vec::new());
        self.began = cluster.now();
        self.cluster = Some(cluster);
        Ok(())
    }

    fn world(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        match name {
            "deliver" => {
                if !self.cluster()?.run_until_quiet(DELIVER_MAX) {
                    self.say("(and so on)");
                }
            }
            "run" => self.cluster()?.run_for(duration(one(words)?)?),
            "cut" => self.cut(words)?,
            "heal" => self.cluster()?.heal(),
            "drop" => self.rule(words, Verdict::Drop)?,
            "delay" => {
                let (time, rest) = words.split_last().ok_or("how late?")?;
                self.rule(rest, Verdict::Delay(duration(time)?))?;
            }
            "pass" => self.rules.borrow_mut().clear(),
            "crash" => self.each(words, Cluster::crash_losing_all)?,
            "stop" => self.each(words, |cluster, node| {
                cluster.stop(node);
            })?,
            "restart" => self.each(words, Cluster::restart)?,
            "lose-disk" => self.each(words, Cluster::wipe)?,
            "checkpoint" => self.each(words, Cluster::checkpoint)?,
            "hold-disk" => self.each(words, |cluster, node| cluster.hold_disk(node, true))?,
            "sync" => self.each(words, |cluster, node| cluster.hold_disk(node, false))?,
            "sleep" => self.each(words, |cluster, node| cluster.hold_timers(node, true))?,
            "wake" => self.each(words, |cluster, node| cluster.hold_timers(node, false))?,
            "clock" => {
                let [at, time] = two(words)?;
                let (at, ahead) = (node(at)?, duration(time)?);
                self.cluster()?.set_wall_offset(at, ahead.as_millis() as i64);
            }
            "hide" => self.hidden.extend(words.iter().map(ToString::to_string)),
            "show" => words.iter().for_each(|kind| {
                self.hidden.remove(*kind);
            }),
            "status" => self.status(words)?,
            "scan" => self.scan(words)?,
            _ => return self.client(name, words),
        }
        Ok(())
    }

    fn client(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        let (at, rest) = words.split_first().ok_or("at which node?")?;
        let at = node(at)?;
        match name {
            "put" => self.write(at, puts(rest), rest),
            "cas" => {
                let (change, options) = rest.split_first().ok_or("which change?")?;
                let parts = change
                    .split_once('=')
                    .and_then(|(key, change)| Some((key, change.split_once(':')?)));
                let (key, (old, new)) = parts.ok_or("a change is KEY=OLD:NEW")?;
                let is = (!old.is_empty()).then(|| old.into());
                let mut command = Command::put(key, new);
                command.guards.push(Guard::Value { key: key.into(), is });
                self.write(at, command, options)
            }
            "delete" => {
                let (key, options) = rest.split_first().ok_or("which key?")?;
                self.write(at, Command::delete(*key), options)
            }
            "get" | "siblings" => self.read(name, at, rest),
            "outcome" => {
                let (number, rest) = rest.split_first().ok_or("which operation?")?;
                let number = number.parse().map_err(|_| "an operation is a number")?;
                if !rest.is_empty() {
                    self.commands.insert(number, puts(rest));
                }
                let request = Request::Outcome {
                    op: op(number),
                    command: self.commands.get(&number).cloned(),
                };
                self.propose(
                    at,
                    request,
                    format!("outcome of op{number}"),
                    Duration::from_secs(2),
                )
            }
            _ => Err(format!("no such command; there are\n{HELP}")),
        }
    }

    fn write(&mut self, at: NodeId, command: Command, options: &[&str]) -> Result<(), String> {
        let option = |name: &str| options.iter().find_map(|word| word.strip_prefix(name));
        let number = match option("op=") {
            Some(text) => text.parse().map_err(|_| "an operation is a number")?,
            None => self.last_op + 1,
        };
        self.last_op = self.last_op.max(number);
        let attempt = if options.contains(&"retry") {
            Attempt::Retry
        } else {
            Attempt::First
        };
        let wait = option("timeout=").map_or(Ok(Duration::from_secs(2)), duration)?;
        self.commands.insert(number, command.clone());
        let request = Request::Write {
            op: op(number),
            attempt,
            command,
        };
        self.propose(at, request, format!("op{number}"), wait)
    }

    fn read(&mut self, name: &str, at: NodeId, words: &[&str]) -> Result<(), String> {
        let (key, options) = words.split_first().ok_or("which key?")?;
        let (query, what) = match name {
            "siblings" => (Query::Siblings((*key).into()), "siblings of"),
            _ => (Query::Get((*key).into()), "get"),
        };
        let level = options.contains(&"local").then_some(ReadLevel::Local);
        let request = Request::Read(ReadRequest { query, level });
        self.propose(at, request, format!("{what} {key}"), Duration::from_secs(2))
    }

    fn propose(&mut self, at: NodeId, request: Request, label: String, wait: Duration) -> Result<(), String> {
        // An answer may come within the call, so the label must be there before: tickets count from 1.
        let ticket = Ticket(self.labels.len() as u64 + 1);
        self.labels.insert(ticket, label);
        let cluster = self.cluster()?;
        if !cluster.is_up(at) {
            return Err(format!("node {at} is down"));
        }
        assert_eq!(cluster.propose(at, request, wait), ticket, "tickets count from 1");
        Ok(())
    }

    fn each(
        &mut self,
        words: &[&str],
        act: impl Fn(&mut Cluster<S::Protocol>, NodeId),
    ) -> Result<(), String> {
        for at in self.among(words)? {
            act(self.cluster()?, at);
        }
        Ok(())
    }

    /// The nodes that these words name.
    fn among(&mut self, words: &[&str]) -> Result<Vec<NodeId>, String> {
        let known = self.cluster()?.ids();
        if words.is_empty() {
            return Err("which node?".into());
        }
        let named: Vec<NodeId> = words.iter().map(|word| node(word)).collect::<Result<_, _>>()?;
        match named.iter().find(|node| !known.contains(node)) {
            Some(node) => Err(format!("there is no node {node}")),
            None => Ok(named),
        }
    }

    fn cut(&mut self, words: &[&str]) -> Result<(), String> {
        if let [from, "->", to] = words {
            let (from, to) = (node(from)?, node(to)?);
            self.cluster()?.cut(from, to);
            return Ok(());
        }
        let mut sides = words.split(|word| *word == "|");
        let (Some(side), Some(rest), None) = (sides.next(), sides.next(), sides.next()) else {
            return Err("a cut is A B | C D, or A -> B".into());
        };
        let (side, rest) = (self.among(side)?, self.among(rest)?);
        let cluster = self.cluster()?;
        if side.len() + rest.len() != cluster.ids().len() {
            return Err("a cut names every node once".into());
        }
        cluster.split(&side);
        Ok(())
    }

    fn rule(&mut self, words: &[&str], fate: Verdict) -> Result<(), String> {
        let (words, passing) = match words {
            [words @ .., "after", number] => (words, number.parse().map_err(|_| "after how many?")?),
            words => (words, 0),
        };
        let [from, "->", to, kind] = words else {
            return Err("messages are named by A -> B KIND".into());
        };
        let end = |word: &str| match word {
            "*" => Ok(None),
            number => node(number).map(Some),
        };
        let rule = Rule {
            from: end(from)?,
            to: end(to)?,
            kind: (*kind).into(),
            passing,
            fate,
        };
        self.rules.borrow_mut().push(rule);
        Ok(())
    }

    fn status(&mut self, words: &[&str]) -> Result<(), String> {
        for at in self.running(words)? {
            let cluster = self.cluster()?;
            let now = Now {
                instant: cluster.now(),
                ..Now::default()
            };
            let status = cluster.protocol(at).status(now);
            let can = |able: bool, what: &str| {
                if able {
                    what.into()
                } else {
                    format!("cannot {what}")
                }
            };
            let leader = status
                .leader
                .map_or(String::new(), |leader| format!(", ordered by {leader}"));
            let doubt = match status.in_doubt {
                0 => String::new(),
                number => format!(", {number} in doubt"),
            };
            let why = match status.why.as_str() {
                "" => String::new(),
                why => format!(" ({why})"),
            };
            self.say(format!(
                "{at}: {}{leader}, {}, {}{doubt}{why}",
                status.role,
                can(status.can_write, "write"),
                can(status.can_read, "read"),
            ));
        }
        Ok(())
    }

    fn scan(&mut self, words: &[&str]) -> Result<(), String> {
        const ENTRIES_MAX: usize = 100;
        for at in self.running(words)? {
            let entries = self.cluster()?.protocol(at).scan(&KeyRange::all(), ENTRIES_MAX);
            let shown = match entries.as_slice() {
                [] => "nothing".into(),
                entries => show_entries(entries, S::version),
            };
            self.say(format!("{at}: {shown}"));
        }
        Ok(())
    }

    /// The running ones of the nodes that these words name, or of all if none; a line for each that is down.
    fn running(&mut self, words: &[&str]) -> Result<Vec<NodeId>, String> {
        let named = if words.is_empty() {
            self.cluster()?.ids()
        } else {
            self.among(words)?
        };
        let mut running = Vec::new();
        for at in named {
            if self.cluster()?.is_up(at) {
                running.push(at);
            } else {
                self.say(format!("{at}: down"));
            }
        }
        Ok(running)
    }

    /// Writes down what has happened since.
    fn tell(&mut self) {
        let seen = self
            .cluster
            .as_mut()
            .and_then(|cluster| cluster.trace.replace(Vec::new()));
        let mut lines: Vec<Line> = Vec::new();
        for (at, seen) in seen.unwrap_or_default() {
            let time = at.since(self.began).as_millis();
            for line in self.lines(time, seen) {
                if !lines.last_mut().is_some_and(|last| last.takes(&line)) {
                    lines.push(line);
                }
            }
        }
        lines.iter().for_each(|line| self.say(line));
    }

    fn lines(&self, time: u128, seen: Seen<<S::Protocol as Protocol>::Message>) -> Vec<Line> {
        match seen {
            Seen::Message { message, .. } if self.hidden.contains(message.kind()) => Vec::new(),
            Seen::Message {
                from,
                to,
                message,
                arrived,
            } => {
                let lines = S::show(&message).into_iter();
                let line = |text| Line {
                    time,
                    from: vec![from],
                    to: vec![to],
                    verb: if arrived { "->" } else { "-x" },
                    text,
                };
                lines.map(line).collect()
            }
            Seen::Answer { node, ticket, reply } => {
                let label = self.labels.get(&ticket).map_or("?", String::as_str);
                vec![Line {
                    time,
                    from: vec![node],
                    to: Vec::new(),
                    verb: "answers",
                    text: format!("{label}: {}", show_reply(&reply, S::version)),
                }]
            }
        }
    }
}

/// One line of a trace. What a node tells several at the same time is one line, and what several tell it, too.
#[derive(Debug)]
struct Line {
    time: u128,
    from: Vec<NodeId>,
    to: Vec<NodeId>,
    verb: &'static str,
    text: String,
}

impl Line {
    /// Takes another line in if it differs in one end alone.
    fn takes(&mut self, line: &Line) -> bool {
        if (self.time, self.verb, &self.text) != (line.time, line.verb, &line.text) {
            return false;
        }
        let named_before = |nodes: &[NodeId], more: &[NodeId]| more.iter().any(|node| nodes.contains(node));
        if self.from == line.from && !line.to.is_empty() && !named_before(&self.to, &line.to) {
            self.to.extend(&line.to);
            return true;
        }
        let from_several = self.to == line.to && self.to.len() == 1 && !named_before(&self.from, &line.from);
        if from_several {
            self.from.extend(&line.from);
        }
        from_several
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes: &[NodeId]| {
            nodes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        write!(f, "{:4} ms  {} {} ", self.time, names(&self.from), self.verb)?;
        if !self.to.is_empty() {
            write!(f, "{}  ", names(&self.to))?;
        }
        f.write_str(&self.text)
    }
}

/// The writes that these words ask for.
fn puts(words: &[&str]) -> Command {
    let mut command = Command::default();
    for (key, value) in words.iter().filter_map(|word| word.split_once('=')) {
        if !matches!(key, "op" | "timeout") {
            command.mutations.extend(Command::put(key, value).mutations);
        }
    }
    command
}

fn one<'a>(words: &[&'a str]) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err("exactly one word is needed".into()),
    }
}

fn two<'a>(words: &[&'a str]) -> Result<[&'a str; 2], String> {
    match words {
        [a, b] => Ok([a, b]),
        _ => Err("exactly two words are needed".into()),
    }
}
