//! Anti-entropy step by step: crashes at every step, nothing sent for equal contents, claims that cannot be true.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use trilemma_core::{AppendSeq, Effects, Incarnation, Input, Instant, Now, Protocol, WallTime};
use trilemma_testkit::Verdict;

use super::*;
use crate::clock::Stamp;
use crate::context::Context;
use crate::dot::Dot;
use crate::message::Message;
use crate::record::Record;
use crate::replica::{Item, Part};

/// inside/gossip#an-exchange-step-by-step
#[test]
fn equal_replicas_compare_and_send_nothing_else() {
    let mut cluster = cluster_with(3, 21, |config| config.tombstone_age_min = ms(300));
    for seq in 1..=50 {
        put(&mut cluster, N1, seq, &format!("k{seq}"), "v");
    }
    cluster.write(N1, 51, Command::delete("k1"));
    converge(&mut cluster, ms(2000));
    // Collection happens meanwhile, at different times on different nodes.
    cluster.run_for(ms(1000));
    let kinds: Rc<RefCell<BTreeMap<&'static str, usize>>> = Rc::default();
    let seen = Rc::clone(&kinds);
    cluster.filter = Some(Box::new(move |_, _, message| {
        *seen
            .borrow_mut()
            .entry(trilemma_core::Message::kind(message))
            .or_default() += 1;
        Verdict::Deliver
    }));
    cluster.run_for(ms(30_000));
    let kinds = kinds.borrow();
    assert_eq!(
        kinds.keys().copied().collect::<Vec<_>>(),
        ["compare"],
        "{kinds:?}"
    );
    assert!(kinds["compare"] >= 80);
}

#[test]
fn an_exchange_sends_what_is_missing_and_nothing_else() {
    let mut cluster = cluster(2, 22);
    for seq in 1..=200 {
        put(&mut cluster, N1, seq, &format!("k{seq}"), "v");
    }
    converge(&mut cluster, ms(2000));
    cluster.split(&[N1]);
    cluster.run_for(ms(400));
    for seq in 1..=7 {
        put(&mut cluster, N1, 1000 + seq, &format!("k{seq}"), "w");
        put(&mut cluster, N2, 2000 + seq, &format!("j{seq}"), "w");
    }
    let bodies = Rc::new(RefCell::new((0, 0)));
    let seen = Rc::clone(&bodies);
    cluster.filter = Some(Box::new(move |_, _, message| match message {
        Message::Rumors { .. } => Verdict::Drop,
        Message::Page { items, .. } => {
            seen.borrow_mut().0 += items.len();
            seen.borrow_mut().1 += 1;
            Verdict::Deliver
        }
        _ => Verdict::Deliver,
    }));
    cluster.heal();
    converge(&mut cluster, ms(3000));
    let (bodies, pages) = *bodies.borrow();
    assert!(
        (14..=28).contains(&bodies),
        "{bodies} bodies for 14 differences in {pages} pages"
    );
}

/// inside/gossip#context-comes-last
#[test]
fn a_crash_at_any_step_of_an_exchange_loses_nothing() {
    let mut crashes = 0;
    for step in 0..60 {
        let mut cluster = cluster_with(2, 23 + step, |config| config.page_bytes = 400);
        cluster.filter = Some(Box::new(|_, _, message| match message {
            Message::Rumors { .. } => Verdict::Drop,
            _ => Verdict::Deliver,
        }));
        cluster.crash(N2);
        for seq in 1..=40 {
            put(&mut cluster, N1, seq, &format!("k{}", seq % 30), &seq.to_string());
        }
        cluster.faults.disk = (ms(1), ms(4));
        cluster.restart(N2);
        // Crash node 2 when it has that many records, and node 1 in every third run as well.
        let target = step as usize;
        let mut records = 0;
        let reached = cluster.run_until(ms(2500), |cluster| {
            records = cluster.durable_records(N2);
            cluster.protocol(N2).replica().live() >= target.min(29)
        });
        assert!(reached, "no exchange took place");
        crashes += usize::from(cluster.protocol(N2).replica().live() < 30);
        cluster.crash(N2);
        if step % 3 == 0 {
            cluster.crash(N1);
            cluster.restart(N1);
        }
        cluster.restart(N2);
        converge(&mut cluster, ms(8000));
        for node in [N1, N2] {
            assert_eq!(cluster.protocol(node).replica().visible(), 30, "step {step}");
            assert_eq!(get(&mut cluster, node, "k7").as_deref(), Some("37"));
        }
    }
    assert!(crashes > 10, "the crashes came too late: {crashes}");
}

/// A single instance without a host: inputs in, effects out.
struct Direct {
    gossip: Gossip,
    effects: Effects<Message, Record>,
    now: Now,
}

impl Direct {
    fn new() -> Self {
        let config = GossipConfig::new(N1, Incarnation(5), [N1, N2], 1);
        let mut direct = Self {
            gossip: Gossip::new(config),
            effects: Effects::default(),
            now: Now {
                instant: Instant::from_nanos(1),
                wall: WallTime(1_000_000),
            },
        };
        direct.step(Input::Start);
        direct
    }

    fn step(&mut self, input: Input<Message>) {
        self.gossip.step(self.now, input, &mut self.effects);
        self.gossip.step(self.now, Input::EndTurn, &mut self.effects);
    }

    fn receive(&mut self, message: Message) {
        self.step(Input::Receive { from: N2, message });
    }
}

fn item(dot: Dot, key: &str) -> Item {
    Item {
        dot,
        stamp: Stamp::at(WallTime(1_000_000)),
        key: key.into(),
        content: Some("v".into()),
        observed: crate::dot::Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

fn rumor(item: Item) -> Message {
    Message::Rumors {
        context: None,
        items: vec![item],
    }
}

#[test]
fn a_peer_cannot_swallow_the_writes_we_have_yet_to_make() {
    let mut direct = Direct::new();
    let mine = |incarnation, seq| Dot::new(N1, Incarnation(incarnation), seq);
    direct.receive(rumor(item(mine(5, 1), "k")));
    direct.receive(rumor(item(mine(6, 1), "k")));
    let mut observing = item(Dot::new(N2, Incarnation(1), 1), "k");
    observing.observed.add(mine(5, 9));
    direct.receive(rumor(observing));
    for forged in [mine(5, 1), mine(7, 3)] {
        let mut context = Context::default();
        context.insert(forged);
        direct.receive(Message::Pull {
            session: 1,
            incarnation: Incarnation(1),
            context: context.to_wire(9),
            deferred: Vec::new(),
            mutual: true,
            whole: false,
            outline: bytes::Bytes::new(),
        });
        direct.receive(Message::Rumors {
            context: Some(context.to_wire(9)),
            items: vec![item(Dot::new(N2, Incarnation(1), 2), "k")],
        });
    }
    let mut closed = Context::default();
    closed.close(N1, Incarnation(3), Incarnation(6));
    direct.receive(Message::Pull {
        session: 2,
        incarnation: Incarnation(1),
        context: closed.to_wire(9),
        deferred: Vec::new(),
        mutual: true,
        whole: false,
        outline: bytes::Bytes::new(),
    });
    assert!(direct.gossip.replica().context().is_empty());
    assert_eq!(
        direct.effects.last_append(),
        AppendSeq(2),
        "nothing but the first records of the incarnation"
    );
    assert!(
        direct
            .gossip
            .status(direct.now)
            .why
            .contains("incarnation did not grow")
    );
    // What it may claim: our former incarnations, which we may have forgotten.
    direct.receive(rumor(item(mine(4, 7), "k")));
    assert_eq!(direct.gossip.replica().visible(), 1);
}

#[test]
fn a_page_that_was_not_asked_for_joins_no_context() {
    let mut direct = Direct::new();
    let mut context = Context::default();
    context.insert(Dot::new(N2, Incarnation(1), 1));
    direct.receive(Message::Page {
        session: 0,
        incarnation: Incarnation(1),
        snapshot: 0,
        after: None,
        items: Vec::new(),
        end: crate::message::PageEnd::Last(context.to_wire(9)),
    });
    assert!(direct.gossip.replica().context().is_empty());
}

#[test]
fn what_is_deferred_is_bounded_and_what_did_not_fit_is_not_covered() {
    let mut direct = Direct::new();
    direct.gossip.shared.config.deferred_max = 3;
    let ahead: Vec<Item> = (1..=5)
        .map(|seq| Item {
            stamp: Stamp::at(WallTime(2_000_000)),
            ..item(Dot::new(N2, Incarnation(1), seq), &format!("k{seq}"))
        })
        .collect();
    let twice: Vec<Item> = ahead.iter().chain(&ahead).cloned().collect();
    direct.receive(Message::Rumors {
        context: None,
        items: twice,
    });
    assert_eq!(direct.gossip.deferred(), 3);
    let context = direct.gossip.replica().context();
    assert!(context.contains(ahead[2].dot) && !context.contains(ahead[3].dot));
    assert!(direct.gossip.clock() < Stamp::at(WallTime(1_000_501)));
    assert_eq!(direct.gossip.scan(&trilemma_core::KeyRange::all(), 9), []);
    direct.now.wall = WallTime(2_000_000);
    direct.now.instant = direct.now.instant + ms(1000);
    direct.step(Input::Wake);
    assert_eq!(direct.gossip.deferred(), 0);
    assert_eq!(direct.gossip.scan(&trilemma_core::KeyRange::all(), 9).len(), 3);
}

#[test]
fn changes_that_are_due_together_may_have_observed_each_other() {
    let mut direct = Direct::new();
    let dot = |incarnation| Dot::new(N2, Incarnation(incarnation), 1);
    let ahead = |dot| Item {
        stamp: Stamp::at(WallTime(2_000_000)),
        ..item(dot, "k")
    };
    // A write-back keeps the stamp of the winner, so stamps do not tell which one came later.
    let mut observing = ahead(dot(1));
    observing.observed.add(dot(2));
    direct.receive(rumor(ahead(dot(2))));
    direct.receive(rumor(observing));
    assert_eq!(direct.gossip.deferred(), 2);
    direct.now.wall = WallTime(2_000_000);
    direct.now.instant = direct.now.instant + ms(1000);
    direct.step(Input::Wake);
    assert_eq!(
        (direct.gossip.deferred(), direct.gossip.shown(b"k").len()),
        (0, 1)
    );
}

#[test]
fn a_record_of_the_present_incarnation_is_refused_at_restart() {
    let mut direct = Direct::new();
    let reused = Record::Join {
        items: vec![item(Dot::new(N1, Incarnation(5), 1), "k")],
    };
    assert!(direct.gossip.replay(reused).is_err());
    assert!(direct.gossip.restore(b"\x07nonsense").is_err());
    let mut saw_reused = item(Dot::new(N1, Incarnation(4), 2), "k");
    saw_reused.observed.add(Dot::new(N1, Incarnation(5), 1));
    let items = vec![saw_reused];
    assert!(direct.gossip.replay(Record::Join { items }).is_err());
    let former = Record::Join {
        items: vec![item(Dot::new(N1, Incarnation(4), 1), "k")],
    };
    assert!(direct.gossip.replay(former).is_ok());
    for (incarnation, is_former) in [(4, true), (5, false), (6, false)] {
        let mut context = Context::default();
        context.insert(Dot::new(N1, Incarnation(incarnation), 1));
        let stored = Record::Context(context.to_wire(16));
        assert_eq!(
            direct.gossip.replay(stored).is_ok(),
            is_former,
            "incarnation {incarnation}"
        );
    }
}

#[test]
fn a_checkpoint_gives_what_the_records_give() {
    let mut cluster = cluster(3, 29);
    for seq in 1..=100 {
        let at = NodeId(1 + (seq % 3) as u32);
        put(&mut cluster, at, seq, &format!("k{}", seq % 40), "v");
        cluster.write(at, 1000 + seq, Command::delete(format!("k{}", seq % 7)));
    }
    converge(&mut cluster, ms(1000));
    let before = cluster.protocol(N1).digest();
    let context = cluster.protocol(N1).replica().context().clone();
    cluster.checkpoint(N1);
    cluster.crash_losing_all(N1);
    cluster.cut(N2, N1);
    cluster.cut(N3, N1);
    cluster.restart(N1);
    assert_eq!(cluster.protocol(N1).digest(), before);
    assert!(cluster.protocol(N1).replica().context().includes(&context));
}
