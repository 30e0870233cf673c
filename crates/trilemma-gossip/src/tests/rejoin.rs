//! A node on an empty disk, until it has met every member (inside/gossip#an-empty-disk).

use trilemma_core::codec::{decode, encode};
use trilemma_core::host::{DynProtocol, GroupInput};
use trilemma_core::protocol::Peer;
use trilemma_core::{Effects, Incarnation, Input, Now, PeerView, Protocol};

use super::findings::{Single, item};
use super::*;
use crate::message::{Compare, Message, PageEnd};

fn peers(incarnations: &[(NodeId, u64)]) -> PeerView {
    let peer = |(node, incarnation): &(NodeId, u64)| {
        let peer = Peer {
            incarnation: Incarnation(*incarnation),
            connected: true,
        };
        (*node, peer)
    };
    let peers = incarnations.iter().map(peer).collect();
    PeerView { peers }
}

/// What the node has sent since the output was cleared.
fn sent(single: &Single) -> Vec<Message> {
    let sent = single.output.sends.iter();
    sent.map(|sent| decode(&sent.bytes).expect("it decodes"))
        .collect()
}

fn persist(single: &mut Single) {
    if let Some(last) = single.output.records.last() {
        let up_to = last.seq;
        single.step(GroupInput::Persisted { up_to });
    }
}

/// Node 2 shows up, is asked for all that it holds, and holds nothing of what this node reflects.
fn meet(single: &mut Single) {
    single.step(GroupInput::Peers(peers(&[(N2, 1)])));
    persist(single);
    let session = sent(single).into_iter().filter_map(|message| match message {
        Message::Pull {
            session, whole: true, ..
        } => Some(session),
        _ => None,
    });
    let session = session.last().expect("everything is asked for");
    let context = single.host.protocol().replica().context().to_wire(usize::MAX);
    single.output.clear();
    let page = Message::Page {
        session,
        incarnation: Incarnation(1),
        snapshot: 7,
        after: None,
        items: Vec::new(),
        end: PageEnd::Last(context),
    };
    let bytes = encode(&page);
    single.step(GroupInput::Receive { from: N2, bytes });
}

/// Node 2 says that it reflects the same and shows something else. Returns the kinds of what it is answered.
fn compare_unequal(single: &mut Single) -> Vec<&'static str> {
    persist(single);
    single.output.clear();
    let replica = single.host.protocol().replica();
    let compare = Message::Compare(Compare {
        incarnation: Incarnation(1),
        context: replica.context().hash(),
        digest: replica.digest() ^ 1,
        deferred: Vec::new(),
    });
    let bytes = encode(&compare);
    single.step(GroupInput::Receive { from: N2, bytes });
    let sent = sent(single);
    sent.iter().map(trilemma_core::Message::kind).collect()
}

/// A node on an empty disk has taken from somebody what another member knows to be dead. It goes in slices, each a turn and an
/// item for watchers, and the member does not count as met before all is gone.
#[test]
fn l5_what_a_lost_disk_brought_back_goes_in_slices() {
    const KEYS: u64 = 300;
    const SLICE: usize = 40;
    let mut single = Single::with(|config| config.turn_items = SLICE);
    for seq in 1..=KEYS {
        single.rumors(vec![item(seq, &format!("k{seq}"), 999_000, "v")]);
    }
    assert_eq!(single.shown().len(), 300);
    meet(&mut single);
    assert_eq!(single.shown().len(), 300 - SLICE, "a turn removes a slice");
    assert!(!single.host.protocol().has_met(N2));
    while single.host.goes_on() {
        single
            .host
            .step(single.now, GroupInput::EndTurn, &mut single.output);
    }
    assert!(single.shown().is_empty() && single.host.protocol().has_met(N2));
    let items: Vec<usize> = single
        .output
        .applied
        .iter()
        .map(|item| item.changes.len())
        .collect();
    assert_eq!(items, [40, 40, 40, 40, 40, 40, 40, 20]);
}

/// Its pages may come before the host says that it has begun another incarnation.
#[test]
fn a_member_that_is_met_again_was_not_met() {
    let config = GossipConfig::new(N1, Incarnation(5), [N1, N2, N3], 1);
    let mut gossip = Gossip::new(config);
    let mut effects = Effects::default();
    gossip.step(Now::default(), Input::Start, &mut effects);
    let Gossip {
        shared,
        store,
        rejoin,
        ..
    } = &mut gossip;
    let meeting = |incarnation| crate::rejoin::Meeting {
        incarnation: Incarnation(incarnation),
        context: crate::context::Context::default(),
        listed: crate::rejoin::Listed::default(),
        after: None,
    };
    rejoin.on_met(shared, N3, Incarnation(1), &mut effects);
    rejoin.meet(N3, meeting(2));
    rejoin.meet(N2, meeting(1));
    assert!(rejoin.go_on(shared, store, Now::default(), &mut effects));
    assert_eq!(rejoin.unmet(&shared.config), [N3], "its new incarnation");
    rejoin.check(&shared.config);
    assert!(!rejoin.go_on(shared, store, Now::default(), &mut effects));
    assert!(!rejoin.is_blank);
}

/// A member begins another incarnation while what its former one has shown to be dead is being removed. What it listed may
/// be reflected here and not be gone yet, so nothing that was met before counts.
#[test]
fn a_meeting_that_is_broken_off_makes_all_members_unmet() {
    let config = GossipConfig::new(N1, Incarnation(5), [N1, N2, N3], 1);
    let mut gossip = Gossip::new(config);
    let mut effects = Effects::default();
    let now = Now::default();
    gossip.step(now, Input::Start, &mut effects);
    gossip.step(now, Input::Peers(peers(&[(N2, 1), (N3, 1)])), &mut effects);
    let meeting = crate::rejoin::Meeting {
        incarnation: Incarnation(1),
        context: crate::context::Context::default(),
        listed: crate::rejoin::Listed::default(),
        after: None,
    };
    let Gossip { shared, rejoin, .. } = &mut gossip;
    rejoin.on_met(shared, N3, Incarnation(1), &mut effects);
    rejoin.meet(N2, meeting);
    assert_eq!(gossip.rejoin.unmet(&gossip.shared.config), [N2]);
    gossip.step(now, Input::Peers(peers(&[(N2, 2), (N3, 1)])), &mut effects);
    assert!(!gossip.rejoin.is_meeting());
    assert_eq!(gossip.rejoin.unmet(&gossip.shared.config), [N2, N3]);
    let Gossip { shared, rejoin, .. } = &mut gossip;
    rejoin.on_met(shared, N2, Incarnation(2), &mut effects);
    assert!(gossip.is_blank());
    let Gossip { shared, rejoin, .. } = &mut gossip;
    rejoin.on_met(shared, N3, Incarnation(1), &mut effects);
    assert!(!gossip.is_blank());
}

/// Equal contexts with unequal states are a divergence only where neither side has lost anything: what a blank node holds
/// may be dead, and goes before anything is compared.
#[test]
fn states_are_compared_only_when_neither_side_is_blank() {
    let mut single = Single::with(|config| config.turn_items = 1);
    for seq in 1..=3 {
        single.rumors(vec![item(seq, &format!("k{seq}"), 999_000, "v")]);
    }
    meet(&mut single);
    assert_eq!(single.shown().len(), 2, "what is dead is being removed");
    assert_eq!(compare_unequal(&mut single), [""; 0]);
    assert_eq!(single.host.protocol().divergences(), 0);
    while single.host.goes_on() {
        single
            .host
            .step(single.now, GroupInput::EndTurn, &mut single.output);
    }
    assert!(single.host.protocol().has_met(N2));
    compare_unequal(&mut single);
    assert_eq!(single.host.protocol().divergences(), 1);
}

/// Before it has met a member, a blank node asks it for everything, whatever it says of its state.
#[test]
fn a_blank_node_answers_a_comparison_by_asking_for_everything() {
    let mut single = Single::with(|_| {});
    single.rumors(vec![item(1, "k", 999_000, "v")]);
    compare_unequal(&mut single);
    persist(&mut single);
    let pulls = sent(&single);
    assert!(
        matches!(pulls[..], [Message::Pull { whole: true, .. }]),
        "{pulls:?}"
    );
    assert_eq!(single.host.protocol().divergences(), 0);
}
