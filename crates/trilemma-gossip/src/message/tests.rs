//! The format on the wire, byte by byte. A change here needs a version step of the protocol.

use trilemma_core::codec::{decode, encode_vec};
use trilemma_core::{Message as _, NodeId};

use super::*;
use crate::clock::Stamp;
use crate::context::Context;
use crate::dot::Observed;
use crate::replica::Part;

fn dot(seq: u64) -> Dot {
    Dot::new(NodeId(2), Incarnation(3), seq)
}

fn item() -> Item {
    let mut observed = Observed::default();
    observed.add(dot(4));
    Item {
        dot: dot(5),
        stamp: Stamp(0x1_0001),
        key: "k".into(),
        content: Some("v".into()),
        observed,
        part: Part { index: 0, of: 1 },
    }
}

fn tombstone() -> Item {
    Item {
        content: None,
        observed: Observed::default(),
        ..item()
    }
}

fn context() -> WireContext {
    let mut context = Context::default();
    context.close(NodeId(1), Incarnation(1), Incarnation(9));
    for seq in [1, 2, 3, 7] {
        context.insert(dot(seq));
    }
    context.to_wire(10)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_has_its_bytes() {
    let incarnation = Incarnation(3);
    let page = |end| Message::Page {
        session: 6,
        incarnation,
        snapshot: 7,
        after: Some(dot(4)),
        items: vec![item()],
        end,
    };
    let table = [
        (
            Message::Rumors {
                context: Some(context()),
                items: vec![item(), tombstone()],
            },
            "0001010109010203020103070702020305818004016b010176010203040001020305818004016b00000001",
        ),
        (
            Message::Rumors {
                context: None,
                items: vec![],
            },
            "000000",
        ),
        (
            Message::Compare(Compare {
                incarnation,
                context: 300,
                digest: 5,
                deferred: vec![dot(8)],
            }),
            "0103ac020501020308",
        ),
        (
            Message::Pull {
                session: 6,
                incarnation,
                context: context(),
                deferred: vec![dot(8)],
                mutual: true,
                whole: false,
                outline: Bytes::new(),
            },
            "020603010109010203020103070701020308010000",
        ),
        (
            page(PageEnd::More(dot(5))),
            "030603070102030401020305818004016b01017601020304000100020305",
        ),
        (
            page(PageEnd::Last(context())),
            "030603070102030401020305818004016b010176010203040001010101090102030201030707",
        ),
        (
            Message::More {
                session: 6,
                snapshot: 7,
                after: dot(5),
            },
            "040607020305",
        ),
        (
            Message::Symbols {
                session: 6,
                incarnation,
                snapshot: 7,
                first: 300,
                symbols: vec![1, 2].into(),
            },
            "05060307ac02020102",
        ),
        (
            Message::MoreSymbols {
                session: 6,
                snapshot: 7,
                first: 300,
            },
            "060607ac02",
        ),
        (
            Message::Want {
                session: 6,
                snapshot: 7,
                dots: (&BTreeSet::from([dot(5), dot(9)])).into(),
            },
            "070607010203020504",
        ),
        (
            Message::Busy {
                session: 6,
                retry_after_ms: 300,
            },
            "0806ac02",
        ),
        (
            Message::Advertise {
                commands: vec![(dot(5), 1), (dot(7), 300)],
            },
            "090202030501020307ac02",
        ),
        (
            Message::Fetch {
                commands: vec![(dot(5), 1)],
            },
            "0a0102030501",
        ),
    ];
    for (message, golden) in table {
        let bytes = encode_vec(&message);
        assert_eq!(hex(&bytes), golden, "{message:?}");
        assert_eq!(decode::<Message>(&bytes), Ok(message));
    }
}

#[test]
fn names_of_changes_come_back_and_only_in_order() {
    let other = Dot::new(NodeId(3), Incarnation(1), u64::MAX);
    for dots in [vec![], vec![dot(1)], vec![dot(5), dot(6), dot(900), other]] {
        let wire = WireDots::from(&dots.iter().copied().collect::<BTreeSet<Dot>>());
        assert_eq!(wire.read(), Some(dots));
    }
    let row = |steps: &[u64]| WireRow {
        origin: NodeId(2),
        incarnation: Incarnation(3),
        steps: steps.to_vec(),
    };
    assert_eq!(WireDots(vec![row(&[5, 0])]).read(), None, "the same twice");
    assert_eq!(WireDots(vec![row(&[5]), row(&[4])]).read(), None, "back");
    assert_eq!(WireDots(vec![row(&[5, u64::MAX])]).read(), None, "too far");
    let much = vec![1; SYMBOLS_MAX / 2 + 1];
    assert_eq!(WireDots(vec![row(&much), row(&much)]).read(), None, "too much");
}

#[test]
fn small_rumors_are_datagrams_and_large_ones_are_not() {
    let rumors = |items| Message::Rumors {
        context: Some(context()),
        items,
    };
    let small = rumors(vec![item(); 3]);
    let large = rumors(vec![item(); 40]);
    assert_eq!((small.lane(), large.lane()), (Lane::Datagram, Lane::Bulk));
    for count in 0..40 {
        let message = rumors(vec![item(); count]);
        let fits = encode_vec(&message).len() <= DATAGRAM_BYTES_MAX;
        assert!(
            fits || message.lane() == Lane::Bulk,
            "{count} items do not fit a datagram"
        );
    }
}

#[test]
fn what_is_sent_once_is_not_lost() {
    let rumors = |items| Message::Rumors { context: None, items };
    let sized = |length: usize| Item {
        content: Some(vec![7; length].into()),
        ..item()
    };
    let part = |index| Item {
        part: Part { index, of: 4 },
        ..sized(30)
    };
    let request = Message::Fetch {
        commands: vec![(dot(1), 1)],
    };
    assert_eq!(request.lane(), Lane::Control);
    assert_eq!(rumors(vec![sized(200)]).lane(), Lane::Bulk);
    // Small changes come again, however many there are: those of one command are small or large together.
    assert_eq!(
        rumors(vec![sized(20), sized(20), sized(20)]).lane(),
        Lane::Datagram
    );
    assert_eq!(rumors((0..4).map(part).collect()).lane(), Lane::Bulk);
}

#[test]
fn bytes_of_a_peer_never_panic() {
    let mut rng = trilemma_core::Rng::new(5);
    let good = encode_vec(&Message::Rumors {
        context: Some(context()),
        items: vec![item(), tombstone()],
    });
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        if let Ok(Message::Rumors { context, items }) = decode(&bytes) {
            let proper = context.as_ref().and_then(Context::from_wire).is_some();
            accepted += usize::from(proper && items.iter().all(|item| item.defect().is_none()));
        }
    }
    assert!(accepted > 10, "the mutations never reach the checks: {accepted}");
}
