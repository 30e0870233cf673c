//! Three nodes, the messages that were ever sent, what is committed, and what must hold of all that.
//!
//! No message is ever taken out of flight: it may arrive at any time, or again, or never. So loss, delay, reordering and
//! duplication need no steps of their own, and no bounds.

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::codec;

use super::super::*;
use super::local::{Act, Letter, Local, NODES, Step};

/// The name of a state of a node, and of a message.
pub(super) type Name = u32;

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Faults {
    /// Restarts after a loss of power.
    pub(super) crashes: u8,
    /// Times at which a disk begins to take its time.
    pub(super) slow: u8,
}

/// An entry that was committed, and the term of the first leader that did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Committed {
    entry: Name,
    by: Term,
}

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct World {
    pub(super) locals: [Name; NODES as usize],
    /// In order of their names.
    pub(super) letters: Vec<Name>,
    pub(super) committed: Vec<Committed>,
    pub(super) faults: Faults,
    /// Writes that clients have not asked for yet.
    pub(super) writes: u8,
}

/// What is wrong: the property and how it is broken.
pub(super) type Broken = (&'static str, String);

/// The state of a node after a step, and what it sends; or why it stops.
type After = Result<(Name, Vec<Name>), String>;

/// All states of nodes, all messages and all entries that were met, by name. A node's step is computed once.
#[derive(Default)]
pub(super) struct Atlas {
    locals: Vec<Local>,
    local_names: BTreeMap<(NodeId, String), Name>,
    letters: Vec<Letter>,
    letter_names: BTreeMap<Letter, Name>,
    entries: Vec<Entry>,
    steps: BTreeMap<(Name, Step), After>,
}

impl Atlas {
    pub(super) fn local(&self, name: Name) -> &Local {
        &self.locals[name as usize]
    }

    pub(super) fn letter(&self, name: Name) -> &Letter {
        &self.letters[name as usize]
    }

    pub(super) fn name(&mut self, local: Local) -> Name {
        let next = self.locals.len() as Name;
        let key = (local.node, local.text.clone());
        *self.local_names.entry(key).or_insert_with(|| {
            self.locals.push(local);
            next
        })
    }

    fn letter_name(&mut self, letter: Letter) -> Name {
        let next = self.letters.len() as Name;
        *self.letter_names.entry(letter.clone()).or_insert_with(|| {
            self.letters.push(letter);
            next
        })
    }

    fn entry_name(&mut self, entry: &Entry) -> Name {
        let known = self.entries.iter().position(|known| known == entry);
        let name = known.unwrap_or_else(|| {
            self.entries.push(entry.clone());
            self.entries.len() - 1
        });
        name as Name
    }

    /// The state that follows, and the messages that the node sends.
    fn after(&mut self, name: Name, step: &Step) -> After {
        let key = (name, step.clone());
        if let Some(known) = self.steps.get(&key) {
            return known.clone();
        }
        let outcome = self.local(name).after(step).map(|(local, letters)| {
            let letters = letters.into_iter().map(|letter| self.letter_name(letter));
            let mut letters: Vec<Name> = letters.collect();
            letters.sort_unstable();
            letters.dedup();
            (self.name(local), letters)
        });
        self.steps.insert(key, outcome.clone());
        outcome
    }
}

impl World {
    /// New nodes.
    pub(super) fn blank(atlas: &mut Atlas, faults: Faults, writes: u8) -> Self {
        let locals = [1, 2, 3].map(|id| atlas.name(Local::blank(NodeId(id))));
        Self {
            locals,
            letters: Vec::new(),
            committed: Vec::new(),
            faults,
            writes,
        }
    }

    pub(super) fn of<'a>(&self, atlas: &'a Atlas, node: NodeId) -> &'a Local {
        atlas.local(self.locals[node.0 as usize - 1])
    }

    fn all<'a>(&'a self, atlas: &'a Atlas) -> impl Iterator<Item = &'a Local> + Clone {
        self.locals.iter().map(|name| atlas.local(*name))
    }

    /// Everything that may happen next at a node.
    pub(super) fn steps(&self, atlas: &Atlas, node: NodeId) -> Vec<Step> {
        let may_be_slow = self.faults.slow > 0 && self.of(atlas, node).waiting == 0;
        let mut steps = Vec::new();
        for act in self.acts(atlas, node) {
            let is_crash = matches!(act, Act::Crash(_));
            for late in [false, true].into_iter().take(if is_crash { 1 } else { 2 }) {
                for slow in [false, true]
                    .into_iter()
                    .take(if may_be_slow && !is_crash { 2 } else { 1 })
                {
                    let act = act.clone();
                    steps.push(Step { act, late, slow });
                }
            }
        }
        steps
    }

    fn acts(&self, atlas: &Atlas, node: NodeId) -> Vec<Act> {
        let local = self.of(atlas, node);
        let mut acts = vec![Act::Tick];
        if local.waiting > 0 {
            acts.push(Act::Sync);
        }
        if local.is_leader && self.writes > 0 {
            acts.push(Act::Propose(u64::from(self.writes)));
        }
        if self.faults.crashes > 0 {
            acts.extend((0..=local.waiting).map(Act::Crash));
        }
        let letters = self.letters.iter().map(|name| atlas.letter(*name));
        let mine = letters.filter(|(_, to, _)| *to == node);
        acts.extend(mine.map(|(from, _, bytes)| Act::Receive(*from, bytes.clone())));
        acts
    }

    /// What follows from a step at a node; `None` if nothing does that is not there already.
    pub(super) fn after(&self, atlas: &mut Atlas, node: NodeId, step: &Step) -> Result<Option<Self>, Broken> {
        let slot = node.0 as usize - 1;
        let before = self.locals[slot];
        let (name, letters) = atlas.after(before, step).map_err(|why| ("panic", why))?;
        let mut next = self.clone();
        next.locals[slot] = name;
        if step.slow {
            if atlas.local(name).waiting == 0 {
                // It had nothing to write.
                return Ok(None);
            }
            next.faults.slow -= 1;
        }
        match step.act {
            Act::Crash(_) => next.faults.crashes -= 1,
            Act::Propose(_) => next.writes -= 1,
            _ => {}
        }
        for letter in letters {
            if let Err(place) = next.letters.binary_search(&letter) {
                next.letters.insert(place, letter);
            }
        }
        if next == *self {
            return Ok(None);
        }
        next.commit(atlas, node, atlas.local(before).commit)?;
        next.check(atlas, node, atlas.local(before))?;
        Ok(Some(next))
    }

    /// State-machine safety: all nodes commit the same entries. A leader commits what a majority would find after a restart.
    fn commit(&mut self, atlas: &mut Atlas, node: NodeId, before: Index) -> Result<(), Broken> {
        let local = self.of(atlas, node).clone();
        for index in before.0 + 1..=local.commit.0 {
            let place = index as usize - 1;
            let entry = &local.log[place];
            let name = atlas.entry_name(entry);
            match self.committed.get(place) {
                Some(known) if known.entry == name => {}
                Some(_) => {
                    let what = format!(
                        "node {node} commits an entry of {} at {index}, where another was committed",
                        entry.term
                    );
                    return Err(("state-machine-safety", what));
                }
                None => {
                    assert_eq!(self.committed.len(), place, "commits go on where they ended");
                    let by = local.term;
                    self.committed.push(Committed { entry: name, by });
                }
            }
            let holders = self
                .all(atlas)
                .filter(|other| other.stored.get(place) == Some(entry));
            let holders = holders.count();
            if local.is_leader && holders * 2 <= NODES as usize {
                let what = format!(
                    "node {node} commits {index} of {}, which {holders} disks hold",
                    entry.term
                );
                return Err(("commit-durable", what));
            }
        }
        Ok(())
    }

    fn check(&self, atlas: &Atlas, node: NodeId, before: &Local) -> Result<(), Broken> {
        let local = self.of(atlas, node);
        if local.is_leader {
            self.leads_alone(atlas, local)?;
            self.believes_what_is(atlas, local)?;
            if !before.is_leader || before.term != local.term {
                self.is_complete(atlas, local)?;
            }
        }
        self.logs_match(atlas, local)
    }

    /// Election safety. A leader's first messages stay in flight, so that former leaders are seen, too.
    fn leads_alone(&self, atlas: &Atlas, leader: &Local) -> Result<(), Broken> {
        for (from, _, bytes) in self.letters.iter().map(|name| atlas.letter(*name)) {
            if let Ok(Message::Append { term, .. }) = codec::decode(bytes)
                && term == leader.term
                && *from != leader.node
            {
                let what = format!("nodes {from} and {} both lead {term}", leader.node);
                return Err(("election-safety", what));
            }
        }
        Ok(())
    }

    /// What a leader believes of another's disk is there, as long as that one is in no later term.
    fn believes_what_is(&self, atlas: &Atlas, leader: &Local) -> Result<(), Broken> {
        for (other, matched) in self.all(atlas).zip(&leader.matched) {
            let Some(Index(matched)) = matched else { continue };
            let (stored, log) = (&other.stored, &leader.log);
            let last = *matched as usize;
            if other.term <= leader.term && last > 0 && stored.get(last - 1) != log.get(last - 1) {
                let what = format!(
                    "node {} believes that node {} has its log up to {matched}",
                    leader.node, other.node
                );
                return Err(("match", what));
            }
        }
        Ok(())
    }

    /// Leader completeness: a new leader has all that was committed in earlier terms.
    fn is_complete(&self, atlas: &Atlas, leader: &Local) -> Result<(), Broken> {
        for (place, committed) in self.committed.iter().enumerate() {
            let held = leader.log.get(place);
            if committed.by < leader.term && held != Some(&atlas.entries[committed.entry as usize]) {
                let what = format!(
                    "node {} leads {} without the committed entry {}",
                    leader.node,
                    leader.term,
                    place + 1
                );
                return Err(("leader-completeness", what));
            }
        }
        Ok(())
    }

    /// Log matching: two logs that agree at an index agree up to it.
    fn logs_match(&self, atlas: &Atlas, local: &Local) -> Result<(), Broken> {
        for other in self.all(atlas) {
            let pairs = local.log.iter().zip(&other.log);
            let agreed = pairs.clone().rposition(|(a, b)| a.term == b.term);
            let equal = pairs.take_while(|(a, b)| a == b).count();
            if agreed.is_some_and(|agreed| equal <= agreed) {
                let what = format!(
                    "the logs of nodes {} and {} agree after {equal} and not at it",
                    local.node, other.node
                );
                return Err(("log-matching", what));
            }
        }
        Ok(())
    }

    /// Whether the cluster elects a leader that commits when nothing goes wrong any more: what is in flight is lost, disks
    /// finish, each node's timer fires in turn, and every message that is sent then arrives.
    pub(super) fn recovers(&self, atlas: &mut Atlas) -> Result<(), Broken> {
        /// Turns of each node.
        const ROUNDS: usize = 6;
        let after =
            |atlas: &mut Atlas, name, step: &Step| atlas.after(name, step).map_err(|why| ("panic", why));
        let mut locals = self.locals;
        for turn in 0..ROUNDS * NODES as usize {
            let mut letters = VecDeque::new();
            let mut next = Some((turn % NODES as usize, Act::Tick));
            for local in &mut locals {
                (*local, _) = after(atlas, *local, &Step::late(Act::Sync))?;
            }
            while let Some((slot, act)) = next {
                let (name, sent) = after(atlas, locals[slot], &Step::prompt(act))?;
                locals[slot] = name;
                if atlas.local(name).is_ready {
                    return Ok(());
                }
                letters.extend(sent);
                let letter = letters.pop_front().map(|name| atlas.letter(name));
                next =
                    letter.map(|(from, to, bytes)| (to.0 as usize - 1, Act::Receive(*from, bytes.clone())));
            }
        }
        Err(("liveness", "no leader comes any more".to_owned()))
    }
}
