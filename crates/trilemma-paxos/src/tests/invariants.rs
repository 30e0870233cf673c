//! What must hold after every event, whatever happens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use trilemma_core::{Key, NodeId, OpId, Version};
use trilemma_testkit::Verdict;

use super::harness::Paxi;
use crate::message::{Answer, Ask, Message};
use crate::register::{Proposed, Recent};
use crate::{Ballot, Register};

/// Watches a cluster over its whole run, crashes included.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// The one value of each ballot, whether proposed, accepted or chosen.
    values: BTreeMap<(Key, Ballot), Arc<Register>>,
    /// What acceptors have said to others that they promised: never lower again, over crashes.
    promised: BTreeMap<(NodeId, Key), Ballot>,
    /// What was chosen.
    chosen: BTreeMap<Key, BTreeMap<Ballot, Arc<Register>>>,
    /// The version each node showed last; kept over crashes only as far as the node remembers.
    shown: BTreeMap<(NodeId, Key), (u64, Version)>,
    incarnations: BTreeMap<NodeId, u64>,
}

/// What a register remembers, all later ones remember.
fn remembers(key: &Key, earlier: &Register, later: &Register) {
    assert!(
        earlier.horizon <= later.horizon,
        "the horizon of {key} goes back: {earlier:?} then {later:?}"
    );
    let floors = earlier.floors.iter().map(|floor| OpId {
        session: floor.session,
        seq: floor.seq,
    });
    for op in floors {
        assert!(
            later.may_have_dropped(op),
            "{key} forgets that it has forgotten {op}"
        );
    }
    for Recent { op, .. } in &earlier.recent {
        assert!(
            later.find(*op).is_some() || later.may_have_dropped(*op),
            "{key} forgets that {op} was recorded"
        );
    }
}

impl Invariants {
    /// Listens to everything that is sent in `cluster`.
    pub(super) fn watch(cluster: &mut Paxi) -> Rc<RefCell<Self>> {
        let invariants = Rc::new(RefCell::new(Self::default()));
        let listener = Rc::clone(&invariants);
        cluster.filter = Some(Box::new(move |from, _, message| {
            listener.borrow_mut().on_message(from, message);
            Verdict::Deliver
        }));
        invariants
    }

    pub(super) fn on_message(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Asks(asks) => {
                for ask in asks {
                    if let Ask::Accept {
                        key,
                        ballot,
                        register,
                        ..
                    } = ask
                    {
                        self.proposes(key, *ballot, register);
                    }
                }
            }
            Message::Answers(answers) => answers.iter().for_each(|answer| self.on_answer(from, answer)),
            Message::Values { items } => items
                .iter()
                .for_each(|item| self.chose(&item.key, item.ballot, &item.register)),
            _ => {}
        }
    }

    fn on_answer(&mut self, from: NodeId, answer: &Answer) {
        let (key, promised) = match answer {
            Answer::Promise { key, ballot, .. } => (key, *ballot),
            Answer::Accepted { key, promised, .. } => (key, *promised),
            Answer::Held { key, accepted, .. } => (key, *accepted),
            Answer::Refused { .. } | Answer::Lacks { .. } => return,
        };
        if promised > Ballot::ZERO {
            let floor = self.promised.entry((from, key.clone())).or_default();
            *floor = (*floor).max(promised);
        }
        if let Answer::Promise {
            key,
            accepted,
            register,
            ..
        }
        | Answer::Held {
            key,
            accepted,
            register,
            ..
        } = answer
            && *accepted > Ballot::ZERO
        {
            self.carries(key, *accepted, register);
        }
    }

    /// What makes a register of another is made of what the other ballot carries, unless nobody listened then.
    fn proposes(&mut self, key: &Key, ballot: Ballot, proposed: &Proposed) {
        let base = match proposed {
            Proposed::Change(change) => change.base,
            Proposed::Whole(_) => Ballot::ZERO,
        };
        let held = if base == Ballot::ZERO {
            Some(Arc::default())
        } else {
            self.values.get(&(key.clone(), base)).cloned()
        };
        if let Some(held) = held {
            let made = proposed.made_of(base, &held, ballot);
            self.carries(key, ballot, &made.expect("it is made of what its base carries"));
        }
    }

    /// A ballot carries at most one value, ever.
    fn carries(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>) {
        let known = self
            .values
            .entry((key.clone(), ballot))
            .or_insert_with(|| Arc::clone(register));
        assert_eq!(known, register, "ballot {ballot} of {key} carries two values");
    }

    /// What is chosen for a key forms a chain.
    fn chose(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>) {
        self.carries(key, ballot, register);
        let chain = self.chosen.entry(key.clone()).or_default();
        if chain.insert(ballot, Arc::clone(register)).is_some() {
            return;
        }
        let follows = |earlier: &Register, later: &Register| {
            assert!(
                earlier.version <= later.version,
                "{key} goes back: {earlier:?} then {later:?}"
            );
            assert!(
                earlier.version < later.version || earlier.state == later.state,
                "{key} has two states at {}",
                later.version
            );
            remembers(key, earlier, later);
        };
        if let Some((_, earlier)) = chain.range(..ballot).next_back() {
            follows(earlier, register);
        }
        let above = (std::ops::Bound::Excluded(ballot), std::ops::Bound::Unbounded);
        if let Some((_, later)) = chain.range(above).next() {
            follows(register, later);
        }
    }

    /// A node has crashed: what it shows may start again from what it remembers.
    pub(super) fn on_crash(&mut self, node: NodeId) {
        *self.incarnations.entry(node).or_default() += 1;
    }

    /// How often the node has crashed.
    pub(super) fn incarnation(&self, node: NodeId) -> u64 {
        self.incarnations.get(&node).copied().unwrap_or_default()
    }

    /// Looks at every running node.
    pub(super) fn check(&mut self, cluster: &Paxi) {
        for node in cluster.ids() {
            if cluster.is_up(node) {
                self.check_node(cluster, node);
            }
        }
    }

    fn check_node(&mut self, cluster: &Paxi, node: NodeId) {
        let protocol = cluster.protocol(node);
        for held in protocol.held() {
            assert!(
                held.promised >= held.accepted,
                "{node} promises less than it accepted: {held:?}"
            );
            if held.accepted > Ballot::ZERO {
                self.carries(&held.key, held.accepted, &held.register);
            }
            let said = self
                .promised
                .get(&(node, held.key.clone()))
                .copied()
                .unwrap_or_default();
            assert!(
                held.promised >= said,
                "node {node} said {said} for {} and remembers {}",
                held.key,
                held.promised
            );
        }
        let holds = |key: &Key| protocol.held().any(|held| held.key == *key);
        for ((_, key), _) in self
            .promised
            .range((node, Key::default())..)
            .take_while(|((of, _), _)| *of == node)
        {
            assert!(
                holds(key),
                "node {node} forgot that it promised something for {key}"
            );
        }
        let incarnation = self.incarnation(node);
        for (key, ballot, register) in protocol.learned() {
            self.chose(key, ballot, register);
            let shown = self
                .shown
                .entry((node, key.clone()))
                .or_insert((incarnation, Version::ABSENT));
            if shown.0 == incarnation {
                assert!(register.version >= shown.1, "node {node} shows {key} going back");
            }
            *shown = (incarnation, register.version);
        }
    }
}
