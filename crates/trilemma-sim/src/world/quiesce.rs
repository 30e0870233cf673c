//! The end of a run: everything is healed. First the cluster must come to rest by itself, which is judged before anybody
//! asks anything: a probe would repair what it looks at. Then every node must show that it serves.

use trilemma_check::history::Call;
use trilemma_core::{NodeId, Outcome, Reply};

use super::{Event, MS, RECOVERY_BOUND, World};
use crate::client::{Client, Next};
use crate::engine::{digest, entries, hidden};
use crate::invariants::{Broken, lacks_others};
use crate::randomness::{Purpose, Randomness};
use crate::scenario::Protocol;

/// Time between two looks at a healed cluster.
const LOOK_INTERVAL: u64 = 20 * MS;
/// For how long the heal is put off while too little has happened, and how often.
const PUT_OFF: u64 = 50 * MS;
const PUT_OFF_MAX: u32 = 60;
/// Time after the heal, a start or a pause in which nodes may find that they have heard nothing of each other meanwhile.
const AWAKE: u64 = 500 * MS;
/// Keys that a prober reads; of the others it is enough that all nodes show the same.
const READ_MAX: u32 = 40;
/// How long a prober waits for an answer.
const PROBE_DEADLINE: u64 = 1000 * MS;

/// How far the probe of one keyspace on one node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A write must succeed.
    Writing,
    /// It has.
    Written,
    /// Every key is read, this one next.
    Reading(u32),
    /// All were.
    Done,
}

/// Through what a prober asks.
#[derive(Clone, Copy, Debug)]
enum Through {
    /// This node.
    Node(NodeId),
    /// Its library, which has been there all the time: it writes in whatever sessions it has.
    Library,
}

#[derive(Debug)]
struct Prober {
    client: usize,
    through: Through,
    slot: usize,
    stage: Stage,
    last: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Quiesce {
    /// When everything was healed, or the cluster came to rest by itself.
    since: u64,
    /// Whether it did.
    rested: bool,
    /// When all nodes began to show the same, with nothing left to do for anybody.
    rest_at: Option<u64>,
    probers: Vec<Prober>,
    over: bool,
}

impl Quiesce {
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_prober(&self, client: usize) -> bool {
        self.probers.first().is_some_and(|first| client >= first.client)
    }

    fn of(&mut self, client: usize) -> &mut Prober {
        let first = self.probers[0].client;
        &mut self.probers[client - first]
    }
}

impl World<'_> {
    pub(super) fn heal(&mut self) {
        let now = self.now;
        if self.faults < u64::from(self.scenario.faults_min) && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            return self.schedule(PUT_OFF, Event::Heal);
        }
        self.put_off = 0;
        self.trace.line(now, || "all faults end".to_owned());
        self.healed = true;
        self.end_all_faults();
        self.accept_disks();
        self.quiesce.since = now;
        self.schedule(LOOK_INTERVAL, Event::Look);
    }

    /// Has every node asked to serve every keyspace.
    fn probe_all(&mut self) {
        let randomness = Randomness::new(self.scenario.seed);
        for index in 0..self.nodes.len() {
            for slot in 0..self.parts.len() {
                if self.is_excused(&self.nodes[index], slot) {
                    continue;
                }
                let node = NodeId(index as u32 + 1);
                self.add_prober(&randomness, slot, Through::Node(node));
            }
        }
        for slot in 0..self.parts.len() {
            // Clients go round the libraries, so that each gets one.
            for _ in 0..self.libraries.count() {
                self.add_prober(&randomness, slot, Through::Library);
            }
        }
    }

    fn add_prober(&mut self, randomness: &Randomness, slot: usize, through: Through) {
        let client = self.clients.len();
        let stream = randomness.stream(Purpose::Client, client as u64);
        self.clients
            .push(Client::new(client as u64, stream, self.scenario));
        self.quiesce.probers.push(Prober {
            client,
            through,
            slot,
            stage: Stage::Writing,
            last: "nothing".to_owned(),
        });
        self.schedule(MS, Event::Client { client });
    }

    /// A prober's turn.
    pub(super) fn prober(&mut self, client: usize) {
        let time = self.now;
        let keys = self.scenario.workload.keys.min(READ_MAX);
        let Prober {
            through, slot, stage, ..
        } = *self.quiesce.of(client);
        if self.clients[client].pending.is_none() {
            let this = &mut self.clients[client];
            match stage {
                Stage::Writing => {
                    let value = format!("p{client}t{time}");
                    let key = "probe".to_owned();
                    this.begin(slot, Call::Put { key, value }, None, time);
                    if matches!(through, Through::Library) {
                        self.name_operation(client);
                    }
                }
                Stage::Reading(key) => {
                    let key = if key == keys {
                        "probe".to_owned()
                    } else {
                        format!("k{key}")
                    };
                    this.begin(slot, Call::Get { key }, None, time);
                }
                Stage::Written | Stage::Done => return,
            }
        }
        match through {
            Through::Node(node) => self.ask(client, node, PROBE_DEADLINE),
            Through::Library => self.ask_through_library(client, PROBE_DEADLINE),
        }
    }

    /// A prober has its answer.
    pub(super) fn probed(&mut self, client: usize, reply: Option<Reply>) {
        let good = matches!(
            reply,
            Some(Reply::Write(Ok(_)) | Reply::Read(Ok(_)) | Reply::Outcome(Ok(Outcome::Applied(_))))
        );
        let Prober { through, slot, .. } = *self.quiesce.of(client);
        if let (Some(reply), Through::Node(node)) = (&reply, through)
            && lacks_others(reply)
        {
            let what = format!("node {node} had said at rest that it can, and answers {reply:?}");
            return self.fail("status", format!("{}: {what}", self.parts[slot]));
        }
        let last = format!("{reply:?}");
        let time = self.now;
        let next = self.clients[client].answer(reply, time, &mut self.book);
        let keys = self.scenario.workload.keys.min(READ_MAX);
        let prober = self.quiesce.of(client);
        prober.last = last;
        match prober.stage {
            Stage::Writing if good => prober.stage = Stage::Written,
            Stage::Reading(key) if good && key >= keys => prober.stage = Stage::Done,
            Stage::Reading(key) if good => prober.stage = Stage::Reading(key + 1),
            _ => {}
        }
        let delay = if good || next == Next::FollowUp {
            0
        } else {
            20 * MS
        };
        self.schedule(delay, Event::Client { client });
    }

    /// Looks how far the cluster has recovered.
    pub(super) fn look(&mut self) {
        if self.quiesce.rest_at.is_none() && self.now > self.quiesce.since + RECOVERY_BOUND {
            return self.not_recovered();
        }
        self.schedule(LOOK_INTERVAL, Event::Look);
        if let Some(rest) = self.quiesce.rest_at {
            return self.look_at_rest(rest);
        }
        if !self.quiesce.rested {
            if self.unrest().is_none() {
                self.quiesce.rested = true;
                self.quiesce.since = self.now;
                self.probe_all();
            }
            return;
        }
        let stages =
            |world: &Self, wanted: Stage| world.quiesce.probers.iter().all(|prober| prober.stage == wanted);
        // All must show the same before anybody reads: a read brings what its node lacks.
        if stages(self, Stage::Written) && self.differing().is_none() {
            for index in 0..self.quiesce.probers.len() {
                let prober = &mut self.quiesce.probers[index];
                // A convergent keyspace has no reads but local ones; its replicas are compared instead.
                let reads = self.parts[prober.slot] != Protocol::Gossip;
                let reads = reads && matches!(prober.through, Through::Node(_));
                prober.stage = if reads { Stage::Reading(0) } else { Stage::Done };
                let client = prober.client;
                self.schedule(0, Event::Client { client });
            }
        } else if stages(self, Stage::Done) && self.differing().is_none() && !self.watchers_busy() {
            self.quiesce.rest_at = Some(self.now);
            self.look_at_rest(self.now);
        }
    }

    /// What keeps the cluster from being at rest, if something does: operations that are not over, nodes that are down or
    /// owe an answer, states that differ, and what each protocol has left to do.
    fn unrest(&self) -> Option<Broken> {
        if self.quiesce.since + AWAKE > self.now {
            return Some(("rest", "it was healed just now".to_owned()));
        }
        let waiting = self.clients.iter().find(|client| client.pending.is_some());
        if let Some(client) = waiting {
            return Some(("liveness", format!("a client still waits: {client:?}")));
        }
        if let Some(what) = self.adders.unrest() {
            return Some(("liveness", what));
        }
        if !self.operations_are_over() {
            let what = format!("the clients have asked {} times so far", self.asked);
            return Some(("liveness", what));
        }
        for node in &self.nodes {
            let Some(process) = &node.process else {
                return Some(("liveness", format!("node {} is down", node.id)));
            };
            if node.paused_until.max(node.started) + AWAKE > self.now {
                return Some(("liveness", format!("node {} has just begun to run", node.id)));
            }
            let pending = process.node.pending();
            if pending > 0 {
                return Some(("rest", format!("node {} owes {pending} answers", node.id)));
            }
            // A member that has lost its disk is never counted again: where majorities are counted it stays out.
            let parts = || (0..self.parts.len()).filter(|slot| !self.is_excused(node, *slot));
            let mut rests = parts().map(|slot| self.invariants.rest(node.id, slot, process.engine(slot)));
            if let Some(broken) = rests.find_map(Result::err) {
                return Some(broken);
            }
            let mut statuses = parts().filter_map(|slot| self.status(node.id, slot));
            if let Some(status) = statuses.find(|status| !(status.can_write && status.can_read)) {
                return Some(("status", format!("node {} says: {status:?}", node.id)));
            }
        }
        self.differing().map(|slot| self.difference(slot))
    }

    /// Looks at a cluster that has come to rest until nothing is left to be collected.
    fn look_at_rest(&mut self, rest: u64) {
        if !self.is_collecting(rest) {
            self.quiesce.over = true;
            self.at_rest();
            self.watchers_at_rest();
        }
    }

    /// The first keyspace of which not all nodes show the same.
    fn differing(&self) -> Option<usize> {
        (0..self.parts.len()).find(|slot| {
            let shown = |node: &super::Node| {
                let engine = node.process.as_ref()?.engine(*slot);
                Some((entries(engine), digest(engine)))
            };
            let counted = self.nodes.iter().filter(|node| !self.is_excused(node, *slot));
            let mut all = counted.map(shown);
            let first = all.next().flatten();
            first.is_none() || all.any(|other| other != first)
        })
    }

    fn difference(&self, slot: usize) -> Broken {
        let shown: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| {
                let engine = node.process.as_ref()?.engine(slot);
                Some((node.id, entries(engine), hidden(engine)))
            })
            .collect();
        let what = format!(
            "the nodes show different entries of {}: {shown:?}",
            self.parts[slot]
        );
        ("convergence", what)
    }

    fn not_recovered(&mut self) {
        let seconds = RECOVERY_BOUND / 1_000_000_000;
        if !self.quiesce.rested {
            let (checker, what) = self.unrest().unwrap_or(("rest", "it rests by now".to_owned()));
            return self.fail(checker, format!("{seconds} s after the heal: {what}"));
        }
        let waiting = self
            .quiesce
            .probers
            .iter()
            .find(|prober| !matches!(prober.stage, Stage::Written | Stage::Done));
        if let Some(prober) = waiting {
            let through = match prober.through {
                Through::Node(node) => format!("on node {node}, {:?},", self.status(node, prober.slot)),
                Through::Library => "through the client library".to_owned(),
            };
            let what = format!(
                "{seconds} s after it came to rest, {} {through} is at {:?}; last answer {}",
                self.parts[prober.slot], prober.stage, prober.last
            );
            return self.fail("liveness", what);
        }
        if let Some(slot) = self.differing() {
            let (checker, what) = self.difference(slot);
            return self.fail(checker, format!("{seconds} s after it came to rest: {what}"));
        }
        let what = format!("{seconds} s after it came to rest a watcher has not been shown everything");
        self.fail("watch", what);
    }
}
