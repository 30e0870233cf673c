//! The small machines alone: acceptor, register, learner, and what a damaged disk may hold.

use std::sync::Arc;

use trilemma_core::session::OpResult;
use trilemma_core::{Command, Corrupt, Incarnation, Key, NodeId, OpId, Protocol, Version, codec};

use super::harness::op_of;
use crate::acceptor::{Acceptor, Refusal};
use crate::checkpoint::{Chunk, KeyStateEntry, LearnedEntry};
use crate::key_states::KeyStates;
use crate::learner::Learner;
use crate::record::{AcceptedRecord, ChosenRecord, Record};
use crate::register::{Draft, Earlier, Keep, Ruling};
use crate::{Ballot, Paxos, PaxosConfig, Register};

const KEEP: Keep = Keep { recent: 3, floors: 3 };
const FIRST: Earlier<'static> = Earlier {
    by_others: false,
    by_us: &[],
};
const RETRY: Earlier<'static> = Earlier {
    by_others: true,
    by_us: &[],
};

fn ballot(counter: u64, node: u32) -> Ballot {
    Ballot {
        counter,
        node: NodeId(node),
        incarnation: Incarnation(1),
    }
}

fn register(version: u64) -> Arc<Register> {
    Arc::new(Register {
        version: Version(version),
        ..Register::default()
    })
}

/// The key of an acceptor alone.
const KEY: &str = "k";

/// An acceptor with its slots, asked about one key.
#[derive(Default)]
struct Alone {
    acceptor: Acceptor,
    slots: KeyStates,
}

impl Alone {
    fn prepare(&mut self, ballot: Ballot) -> Result<(Ballot, Arc<Register>), Ballot> {
        let (acceptor, key) = (&mut self.acceptor, Key::from(KEY));
        self.slots
            .change_or_make(&key, |slot| acceptor.prepare(slot, &key, ballot, 1))
    }

    fn accept(&mut self, ballot: Ballot, version: u64, next: Ballot) -> Result<Ballot, Refusal> {
        let (acceptor, key, proposed) = (&mut self.acceptor, Key::from(KEY), register(version).into());
        self.slots.change_or_make(&key, |slot| {
            acceptor.accept(slot, &key, ballot, &proposed, None, next, 1)
        })
    }

    fn install(&mut self, ballot: Ballot, version: u64) -> bool {
        let (acceptor, key) = (&mut self.acceptor, Key::from(KEY));
        self.slots.change_or_make(&key, |slot| {
            acceptor.install(slot, &key, ballot, &register(version), 2)
        })
    }
}

/// What a prepare and an accept under `b` get from an acceptor with these ballots.
fn acceptor(promised: Option<u64>, accepted: Option<u64>) -> Alone {
    let mut alone = Alone::default();
    if let Some(accepted) = accepted {
        let b = ballot(accepted, 1);
        alone.accept(b, accepted, b).expect("nothing is promised");
    }
    if let Some(promised) = promised {
        alone.prepare(ballot(promised, 1)).expect("it is higher");
    }
    alone
}

/// Every case of the acceptor's rules: (promised, accepted, ballot asked, prepare granted, accept granted).
#[test]
fn the_acceptor_keeps_its_rules() {
    let cases = [
        (None, None, 5, true, true),
        (Some(5), None, 4, false, false),
        (Some(5), None, 5, false, true),
        (Some(5), None, 6, true, true),
        (None, Some(5), 4, false, false),
        (None, Some(5), 6, true, true),
        (Some(7), Some(5), 4, false, false),
        (Some(7), Some(5), 6, false, false),
        (Some(7), Some(5), 7, false, true),
        (Some(7), Some(5), 8, true, true),
    ];
    for (promised, accepted, asked, prepare, accept) in cases {
        let case = (promised, accepted, asked);
        let asked = ballot(asked, 1);
        assert_eq!(
            acceptor(promised, accepted).prepare(asked).is_ok(),
            prepare,
            "prepare {case:?}"
        );
        let answer = acceptor(promised, accepted).accept(asked, 9, ballot(99, 1));
        assert_eq!(answer.is_ok(), accept, "accept {case:?}");
        if accept {
            assert_eq!(answer, Ok(ballot(99, 1)));
        }
    }
}

/// A repeated accept is answered like the first, promises its `next`, and another value under it is refused.
#[test]
fn a_repeated_accept_is_true_and_another_value_is_not() {
    let mut acceptor = acceptor(Some(7), Some(5));
    assert_eq!(acceptor.accept(ballot(5, 1), 5, ballot(6, 1)), Ok(ballot(7, 1)));
    assert_eq!(acceptor.accept(ballot(5, 1), 5, ballot(9, 1)), Ok(ballot(9, 1)));
    assert!(acceptor.accept(ballot(5, 1), 6, ballot(10, 1)).is_err());
    assert_eq!(acceptor.acceptor.double_values, 1);
}

#[test]
fn installing_never_disturbs_a_promise() {
    let mut acceptor = acceptor(Some(7), Some(5));
    assert!(!acceptor.install(ballot(6, 1), 6), "below the promise");
    assert!(acceptor.install(ballot(8, 1), 8));
    let slot = acceptor.slots.get(KEY.as_bytes()).expect("it holds the key");
    assert_eq!((slot.promised, slot.accepted), (ballot(8, 1), ballot(8, 1)));
}

fn put(base: &Arc<Register>, op: OpId, earlier: Earlier<'_>, at: Ballot) -> (Arc<Register>, Ruling) {
    let mut draft = Draft::new(Arc::clone(base), at, KEEP);
    let ruling = draft.write(op, &Command::put("k", "v"), earlier);
    (draft.finish().0, ruling)
}

/// A proposer in doubt about an accept learns from the register whether that accept took effect, even when its
/// result has been dropped.
#[test]
fn a_proposer_knows_which_of_its_accepts_took_effect() {
    let doubt = ballot(10, 1);
    let (with, ruling) = put(&register(0), op_of(1, 1), FIRST, doubt);
    let Ruling::Result { result, .. } = ruling else {
        panic!("{ruling:?}")
    };
    let sent = [(doubt, result)];
    let in_doubt = Earlier {
        by_others: false,
        by_us: &sent,
    };
    let others = |mut base: Arc<Register>| {
        for seq in 0..9 {
            base = put(&base, op_of(2, seq + 1), FIRST, ballot(20 + seq, 2)).0;
        }
        base
    };
    let (took, lost) = (others(with), others(register(0)));
    assert_eq!(
        (took.find(op_of(1, 1)), lost.find(op_of(1, 1))),
        (None, None),
        "both have dropped it or never had it"
    );
    let (after, ruling) = put(&took, op_of(1, 1), in_doubt, ballot(40, 1));
    assert_eq!(
        ruling,
        Ruling::Result {
            result,
            is_recorded: false
        }
    );
    assert_eq!(after, took, "nothing runs twice");
    let (after, ruling) = put(&lost, op_of(1, 1), in_doubt, ballot(40, 1));
    assert!(matches!(
        ruling,
        Ruling::Result {
            is_recorded: true,
            ..
        }
    ));
    assert_eq!(after.version, lost.version.next());
    // Somebody else's retry cannot know.
    assert_eq!(put(&took, op_of(1, 1), RETRY, ballot(40, 3)).1, Ruling::Forgotten);
}

#[test]
fn a_fence_tells_what_ran_and_stops_what_did_not() {
    let (base, _) = put(&register(0), op_of(1, 1), FIRST, ballot(1, 1));
    let mut draft = Draft::new(base, ballot(2, 1), KEEP);
    assert!(matches!(
        draft.fence(op_of(1, 1)),
        Some(OpResult::Applied { succeeded: true, .. })
    ));
    assert!(!draft.is_changed());
    assert_eq!(draft.fence(op_of(1, 2)), Some(OpResult::Fenced));
    let fenced = draft.finish().0;
    let (after, ruling) = put(&fenced, op_of(1, 2), FIRST, ballot(3, 1));
    assert!(matches!(
        ruling,
        Ruling::Result {
            result: OpResult::Fenced,
            ..
        }
    ));
    assert_eq!(after, fenced);
}

#[test]
fn the_learner_never_goes_back_and_counts_what_it_shows() {
    let key = Key::from("k");
    let (second, _) = put(&register(0), op_of(1, 1), FIRST, ballot(5, 1));
    let mut draft = Draft::new(Arc::clone(&second), ballot(7, 1), KEEP);
    draft.write(op_of(1, 2), &Command::delete("k"), FIRST);
    let deleted = draft.finish().0;
    let (mut learner, mut slots) = (Learner::default(), KeyStates::default());
    let learn = |learner: &mut Learner, slots: &mut KeyStates, at, register| {
        slots.change_or_make(&key, |slot| learner.learn(slot, &key, ballot(at, 1), register))
    };
    let counts = |slots: &KeyStates| (slots.counts().keys, slots.counts().tombstones);
    let empty = learner.hashes().to_vec();
    assert!(learn(&mut learner, &mut slots, 5, &second));
    assert!(!learn(&mut learner, &mut slots, 5, &second), "not news");
    assert!(!learn(&mut learner, &mut slots, 4, &deleted), "an older ballot");
    assert_eq!(counts(&slots), (1, 0));
    assert_ne!(learner.hashes(), empty);
    assert!(learn(&mut learner, &mut slots, 7, &deleted));
    assert_eq!(counts(&slots), (0, 1));
    assert!(
        !learn(&mut learner, &mut slots, 9, &second),
        "an older version under a newer ballot"
    );
    assert_eq!(learner.regressions, 1);
    let changes = learner.take_changes().concat();
    assert_eq!((changes.len(), &changes[0].now), (1, &None));
    // Learned on another way, the digest is the same.
    let mut other = Learner::default();
    assert!(learn(&mut other, &mut KeyStates::default(), 7, &deleted));
    assert_eq!(learner.hashes(), other.hashes());
}

fn node() -> Paxos {
    Paxos::new(PaxosConfig::new(
        NodeId(1),
        (1..=3).map(NodeId),
        Incarnation(1),
        1,
    ))
}

fn accepted(version: u64) -> AcceptedRecord {
    AcceptedRecord {
        key: "k".into(),
        ballot: ballot(7, 1),
        promised: ballot(8, 1),
        register: register(version).into(),
    }
}

#[test]
fn replaying_twice_changes_nothing() {
    let record = Record {
        promised: vec![("p".into(), ballot(9, 1))],
        accepted: vec![accepted(1)],
        chosen: vec![ChosenRecord {
            key: "k".into(),
            ballot: ballot(7, 1),
            register: None,
        }],
    };
    let mut node = node();
    node.replay(record.clone()).expect("it is consistent");
    let once: Vec<Vec<u8>> = node.checkpoint().collect();
    node.replay(record).expect("it is consistent");
    assert_eq!(node.checkpoint().collect::<Vec<_>>(), once);
    assert_eq!(node.learned().count(), 1);
}

#[test]
fn a_disk_that_contradicts_itself_is_refused() {
    let replay = |record: Record| node().replay(record);
    let two_values = Record {
        accepted: vec![accepted(1), accepted(2)],
        ..Record::default()
    };
    assert!(replay(two_values).is_err());
    let unpromised = Record {
        accepted: vec![AcceptedRecord {
            promised: ballot(6, 1),
            ..accepted(1)
        }],
        ..Record::default()
    };
    assert!(replay(unpromised).is_err());
    // No client writes an empty key, and a checkpoint that holds one would be refused at the next start.
    let promised_empty = Record {
        promised: vec![(Key::default(), ballot(7, 1))],
        ..Record::default()
    };
    assert!(replay(promised_empty).is_err());
    let accepted_empty = Record {
        accepted: vec![AcceptedRecord {
            key: Key::default(),
            ..accepted(1)
        }],
        ..Record::default()
    };
    assert!(replay(accepted_empty).is_err());
    let unheld = |register| Record {
        chosen: vec![ChosenRecord {
            key: "k".into(),
            ballot: ballot(7, 1),
            register,
        }],
        ..Record::default()
    };
    assert!(replay(unheld(None)).is_err());
    assert_eq!(replay(unheld(Some(register(1)))), Ok(()));
    let restore = |chunk: &Chunk| -> Result<(), Corrupt> { node().restore(&codec::encode(chunk)) };
    let key_state = |promised, accepted| {
        Chunk::KeyStates(vec![KeyStateEntry {
            key: "k".into(),
            promised,
            accepted,
            register: register(1),
        }])
    };
    assert_eq!(restore(&key_state(ballot(2, 1), ballot(1, 1))), Ok(()));
    assert!(restore(&key_state(ballot(1, 1), ballot(2, 1))).is_err());
    let learned = LearnedEntry {
        key: "k".into(),
        ballot: ballot(7, 1),
        register: None,
    };
    assert!(restore(&Chunk::Learned(vec![learned])).is_err());
    assert!(node().restore(b"nonsense").is_err());
}
