//! Invariants inside: a field that goes wrong is noticed at the end of the next step.

use std::panic::{AssertUnwindSafe, catch_unwind};

use trilemma_core::{
    AppendSeq, Effects, Incarnation, Input, Instant, Now, Proposal, Protocol, Ticket, WallTime,
};
use trilemma_testkit::write;

use super::*;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::message::{Compare, Message};
use crate::record::Record;
use crate::replica::{Item, Part, Replica};

/// An instance with something in every part: a write that waits for the disk, a change of a peer, one that is deferred,
/// an acknowledgement, an exchange.
fn busy() -> (Gossip, Now) {
    let config = GossipConfig::new(N1, Incarnation(5), [N1, N2, N3], 1);
    let mut gossip = Gossip::new(config);
    let mut effects: Effects<Message, Record> = Effects::default();
    let now = Now {
        instant: Instant::from_nanos(1),
        wall: WallTime(1_000_000),
    };
    gossip.step(now, Input::Start, &mut effects);
    let up_to = effects.last_append();
    gossip.step(now, Input::Persisted { up_to }, &mut effects);
    let change = |seq, key: &str, wall| Item {
        dot: Dot::new(N2, Incarnation(1), seq),
        stamp: Stamp::at(WallTime(wall)),
        key: key.into(),
        content: Some("v".into()),
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    };
    gossip
        .rejoin
        .on_met(&mut gossip.shared, N2, Incarnation(1), &mut effects);
    let mut receive = |gossip: &mut Gossip, message| {
        gossip.step(now, Input::Receive { from: N2, message }, &mut effects);
    };
    let items = vec![change(1, "k", 999_000), change(2, "later", 9_000_000)];
    receive(&mut gossip, Message::Rumors { context: None, items });
    let compare = |context, digest| {
        Message::Compare(Compare {
            incarnation: Incarnation(1),
            context,
            digest,
            deferred: Vec::new(),
        })
    };
    let (context, digest) = (gossip.replica().context().hash(), gossip.digest());
    receive(&mut gossip, compare(context, digest));
    receive(&mut gossip, compare(0, 0));
    let pull = Message::Pull {
        session: 1,
        incarnation: Incarnation(1),
        context: crate::context::WireContext::default(),
        deferred: Vec::new(),
        mutual: false,
        whole: false,
        outline: bytes::Bytes::new(),
    };
    receive(&mut gossip, pull);
    let proposal = Proposal {
        ticket: Ticket(1),
        deadline: Instant::from_nanos(9_000_000_000),
        request: write(1, trilemma_core::Attempt::First, Command::put("k", "w")),
    };
    gossip.step(now, Input::Propose(proposal), &mut effects);
    assert_eq!((gossip.deferred(), gossip.exchange.open()), (1, 1));
    (gossip, now)
}

/// Whether the next step notices what `corrupt` does.
fn is_caught(corrupt: impl FnOnce(&mut Gossip)) -> bool {
    let (mut gossip, now) = busy();
    corrupt(&mut gossip);
    let mut effects = Effects::default();
    let input = Input::Peers(trilemma_core::PeerView::default());
    catch_unwind(AssertUnwindSafe(|| gossip.step(now, input, &mut effects))).is_err()
}

#[test]
fn a_field_that_is_corrupted_is_caught_at_the_end_of_the_next_step() {
    assert!(!is_caught(|_| {}), "nothing is wrong");
    assert!(
        is_caught(|gossip| gossip.shared.persisted = AppendSeq(1_000)),
        "shared"
    );
    assert!(is_caught(|gossip| gossip.rejoin.is_blank = false), "rejoin");
    assert!(
        is_caught(|gossip| gossip.shared.config.serving_max = 0),
        "exchange"
    );
    assert!(
        is_caught(|gossip| gossip.store.replica = Replica::default()),
        "store"
    );
    let defer_unreflected = |gossip: &mut Gossip| {
        let item = gossip
            .store
            .deferred
            .items()
            .next()
            .expect("one is deferred")
            .clone();
        let dot = Dot::new(N3, Incarnation(1), 9);
        let item = Item { dot, ..item };
        gossip.store.deferred.add(&Replica::default(), &item);
    };
    assert!(is_caught(defer_unreflected), "deferred");
}
