//! All that can happen to three nodes in a few steps: a search through every state of the shipped machines.
//!
//! Random histories and the simulator look at long runs, and at few of the orders in which their events can fall. This
//! looks at all orders of few events. A state is what three nodes, their disks and the network hold. A step is that a
//! message arrives, a timer fires, a disk finishes, power fails, or a client writes, at one node, just after its last step
//! or so long after it that every timeout is over. The search goes breadth first and takes no state twice, so what it shows
//! of a broken property is a shortest run.
//!
//! What is bounded: steps from the start, terms, writes, crashes, and how often a disk begins to take its time. What is
//! not: time, and the loss, delay, reordering and duplication of messages. Snapshots, reads and forwarded requests do not
//! occur. Some starts are in the middle of a run, because what they lead to is far from new nodes.

mod local;
mod world;

use std::collections::{BTreeSet, VecDeque};

use trilemma_core::codec;

use super::*;
use local::{Act, Letter, Step};
use world::{Atlas, Broken, Faults, Name, World};

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    steps: usize,
    /// No node enters a later term.
    term: u64,
    faults: Faults,
    writes: u8,
    /// Whether every state must be one from which a leader comes.
    lively: bool,
}

/// What a search has found.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    /// What is broken, and a shortest run to it.
    broken: Option<(Broken, Vec<String>)>,
}

/// How a state was reached: from which one, and by what.
type Origin = Option<(usize, NodeId, Step)>;

struct Search {
    atlas: Atlas,
    bounds: Bounds,
    origins: Vec<Origin>,
    seen: BTreeSet<World>,
    recovered: BTreeSet<[Name; 3]>,
    /// States to go on from: their number, their steps from the start.
    open: VecDeque<(usize, usize, World)>,
}

impl Search {
    /// From new nodes, or from what `direct` makes of them.
    fn run(bounds: Bounds, direct: impl FnOnce(&mut Atlas, World) -> World) -> Found {
        let mut atlas = Atlas::default();
        let blank = World::blank(&mut atlas, bounds.faults, bounds.writes);
        let start = direct(&mut atlas, blank);
        let mut search = Self {
            atlas,
            bounds,
            origins: Vec::new(),
            seen: BTreeSet::new(),
            recovered: BTreeSet::new(),
            open: VecDeque::new(),
        };
        search.arrive(0, None, start);
        let mut found = Found::default();
        while let Some((number, steps, world)) = search.open.pop_front() {
            if let Err((broken, last)) = search.expand(number, steps, &world) {
                found.broken = Some((broken, search.run_to(number, last)));
                break;
            }
        }
        found.states = search.seen.len();
        found
    }

    fn arrive(&mut self, steps: usize, origin: Origin, world: World) {
        if self.seen.insert(world.clone()) {
            self.origins.push(origin);
            self.open.push_back((self.origins.len() - 1, steps, world));
        }
    }

    /// Takes all steps from a state. Fails if something is broken, and tells by which step.
    fn expand(
        &mut self,
        number: usize,
        steps: usize,
        world: &World,
    ) -> Result<(), (Broken, Option<(NodeId, Step)>)> {
        if self.bounds.lively && self.recovered.insert(world.locals) {
            world.recovers(&mut self.atlas).map_err(|broken| (broken, None))?;
        }
        if steps == self.bounds.steps {
            return Ok(());
        }
        for node in [1, 2, 3].map(NodeId) {
            for step in world.steps(&self.atlas, node) {
                match world.after(&mut self.atlas, node, &step) {
                    Err(broken) => return Err((broken, Some((node, step)))),
                    Ok(Some(next)) if next.of(&self.atlas, node).term.0 <= self.bounds.term => {
                        self.arrive(steps + 1, Some((number, node, step)), next);
                    }
                    Ok(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The steps from the start to a state, and one more, in words.
    fn run_to(&self, number: usize, last: Option<(NodeId, Step)>) -> Vec<String> {
        let mut lines: Vec<String> = last.iter().map(|(node, step)| line(*node, step)).collect();
        let mut at = number;
        while let Some((before, node, step)) = &self.origins[at] {
            lines.push(line(*node, step));
            at = *before;
        }
        lines.reverse();
        lines
    }
}

/// A step in words.
fn line(node: NodeId, step: &Step) -> String {
    let what = match &step.act {
        Act::Receive(from, bytes) => format!("takes from {from} {:?}", read(bytes)),
        other => format!("{other:?}"),
    };
    let late = if step.late { "late, " } else { "" };
    let slow = if step.slow {
        ", and its disk takes its time"
    } else {
        ""
    };
    format!("{node} {late}{what}{slow}")
}

fn read(bytes: &[u8]) -> Message {
    codec::decode(bytes).expect("our own messages decode")
}

/// A start that is made step by step. What is sent stays in flight until it is taken or lost.
struct Direct<'a> {
    atlas: &'a mut Atlas,
    world: World,
}

impl Direct<'_> {
    fn step(&mut self, node: u32, step: Step) {
        let next = self.world.after(self.atlas, NodeId(node), &step);
        if let Some(next) = next.expect("a sound start") {
            self.world = next;
        }
    }

    fn tick(&mut self, node: u32) {
        self.step(node, Step::late(Act::Tick));
    }

    /// The messages from one node to another of which `chosen` says so, oldest first.
    fn letters(&self, from: u32, to: u32, chosen: fn(&Message) -> bool) -> Vec<Letter> {
        let letters = self.world.letters.iter().map(|name| self.atlas.letter(*name));
        let ours = letters.filter(|(f, t, bytes)| (f.0, t.0) == (from, to) && chosen(&read(bytes)));
        ours.cloned().collect()
    }

    /// Such messages arrive.
    fn take(&mut self, from: u32, to: u32, chosen: fn(&Message) -> bool) {
        let letters = self.letters(from, to, chosen);
        self.arrive(letters, Step::prompt);
    }

    /// These messages arrive, each in such a step.
    fn arrive(&mut self, letters: Vec<Letter>, step: fn(Act) -> Step) {
        for (from, to, bytes) in letters {
            self.step(to.0, step(Act::Receive(from, bytes)));
        }
    }

    /// Only messages of which `keep` says so stay in flight.
    fn lose_all_but(&mut self, keep: fn(&Message) -> bool) {
        let atlas = &self.atlas;
        let kept = |name: &Name| keep(&read(&atlas.letter(*name).2));
        self.world.letters.retain(kept);
    }

    /// Node 1 stands, by node 2's leave, and has node 2's vote in flight.
    fn stand(&mut self) {
        self.tick(1);
        self.take(1, 2, |message| matches!(message, Message::PreVote { .. }));
        self.take(2, 1, |message| matches!(message, Message::PreVoteReply { .. }));
        self.take(1, 2, |message| matches!(message, Message::Vote { .. }));
    }
}

/// Node 1 has just won term 1 and sent its first entry, which its disk has not finished.
fn won_with_a_slow_disk(atlas: &mut Atlas, world: World) -> World {
    let mut direct = Direct { atlas, world };
    direct.stand();
    let votes = direct.letters(2, 1, |message| matches!(message, Message::VoteReply { .. }));
    direct.lose_all_but(|_| false);
    direct.arrive(votes, Step::slow);
    assert!(direct.world.of(direct.atlas, NodeId(1)).is_leader);
    direct.world.faults.slow = 0;
    direct.world
}

/// As before, but node 1 has started again without its entry, and node 2 has acknowledged it, which is in flight.
fn acknowledged_and_lost(atlas: &mut Atlas, world: World) -> World {
    let world = won_with_a_slow_disk(atlas, world);
    let mut direct = Direct { atlas, world };
    direct.take(
        1,
        2,
        |message| matches!(message, Message::Append { entries, .. } if !entries.is_empty()),
    );
    direct.step(1, Step::prompt(Act::Crash(0)));
    direct.lose_all_but(|message| matches!(message, Message::AppendReply { .. }));
    direct.world.faults.crashes = 0;
    direct.world
}

/// Node 1 leads term 1, and all have its first entry. Then it has taken two writes, and both are in flight.
fn led(atlas: &mut Atlas, world: World) -> World {
    let mut direct = Direct { atlas, world };
    direct.stand();
    direct.take(2, 1, |_| true);
    for _ in 0..2 {
        for follower in [2, 3] {
            direct.take(1, follower, |message| matches!(message, Message::Append { .. }));
            direct.take(follower, 1, |message| {
                matches!(message, Message::AppendReply { .. })
            });
        }
    }
    let Direct { atlas, world } = &direct;
    let all = [1, 2, 3].map(|id| world.of(atlas, NodeId(id)));
    assert!(
        all.iter().all(|local| local.log.len() == 1),
        "all have the first entry"
    );
    direct.lose_all_but(|_| false);
    direct.step(1, Step::prompt(Act::Propose(1)));
    direct.step(1, Step::prompt(Act::Propose(2)));
    assert!(!direct.letters(1, 2, |_| true).is_empty());
    direct.world.writes = 0;
    direct.world
}

/// As before, but node 3 hears nothing, and stands in term 2 by node 2's leave. Its vote requests are in flight.
fn led_and_left(atlas: &mut Atlas, world: World) -> World {
    let world = led(atlas, world);
    let mut direct = Direct { atlas, world };
    direct.tick(3);
    let asked = direct.letters(3, 2, |message| matches!(message, Message::PreVote { .. }));
    direct.arrive(asked, Step::late);
    direct.take(2, 3, |message| matches!(message, Message::PreVoteReply { .. }));
    assert_eq!(direct.world.of(direct.atlas, NodeId(3)).term, Term(2));
    direct.lose_all_but(|message| matches!(message, Message::Append { .. } | Message::Vote { .. }));
    direct.world
}

/// Searches, and fails at the first broken property.
fn explore(name: &str, bounds: Bounds, direct: impl FnOnce(&mut Atlas, World) -> World) {
    let found = Search::run(bounds, direct);
    println!("{name}: {} states; {bounds:?}", found.states);
    if let Some(((property, what), steps)) = found.broken {
        panic!("{name}: {property}: {what}\n  {}", steps.join("\n  "));
    }
}

/// The first number, or the second for `cargo xtask explore`.
fn near_or_far(near: usize, far: usize) -> usize {
    if std::env::var_os("TRILEMMA_EXPLORE").is_some() {
        far
    } else {
        near
    }
}

const NO_FAULTS: Faults = Faults { crashes: 0, slow: 0 };

#[test]
fn new_nodes_keep_every_promise() {
    let bounds = Bounds {
        steps: near_or_far(5, 8),
        term: 2,
        faults: Faults { crashes: 1, slow: 1 },
        writes: 1,
        lively: true,
    };
    explore("new nodes", bounds, |_, world| world);
}

#[test]
fn a_leader_with_a_slow_disk_keeps_every_promise() {
    let bounds = Bounds {
        steps: near_or_far(4, 8),
        term: 2,
        faults: Faults { crashes: 1, slow: 1 },
        writes: 0,
        lively: false,
    };
    explore("slow disk", bounds, won_with_a_slow_disk);
}

#[test]
fn a_lost_entry_that_was_acknowledged_counts_for_nothing() {
    let bounds = Bounds {
        steps: near_or_far(6, 8),
        term: 2,
        faults: Faults { crashes: 1, slow: 1 },
        writes: 0,
        lively: false,
    };
    explore("acknowledged and lost", bounds, acknowledged_and_lost);
}

#[test]
fn a_leader_with_writes_is_followed_by_another() {
    let bounds = Bounds {
        steps: near_or_far(4, 8),
        term: 3,
        faults: NO_FAULTS,
        writes: 2,
        lively: true,
    };
    explore("led", bounds, led);
}

#[test]
fn a_candidate_that_was_cut_off_does_not_end_elections() {
    let bounds = Bounds {
        steps: near_or_far(5, 7),
        term: 3,
        faults: NO_FAULTS,
        writes: 2,
        lively: true,
    };
    explore("led and left", bounds, led_and_left);
}
