//! The format of the log's records, byte by byte. A change here makes old data directories unreadable.

use trilemma_core::codec::{decode, encode_vec};
use trilemma_core::{NodeId, SessionId, Version};

use super::*;
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

fn op() -> OpId {
    OpId {
        session: SessionId {
            basis: Version(1),
            nonce: 2,
        },
        seq: 3,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_record_has_its_bytes() {
    let stamp = Stamp(5);
    let table = [
        (Record::Lease(stamp), "0005"),
        (
            Record::Write {
                op: op(),
                stamp,
                items: vec![item()],
            },
            "010102030501020305818004016b010176010203040001",
        ),
        (
            Record::Join {
                items: vec![tombstone()],
            },
            "0201020305818004016b00000001",
        ),
        (Record::Context(context()), "030101090102030201030707"),
        (Record::Fence { op: op(), stamp }, "0401020305"),
        (
            Record::Begin {
                durable_since: Some(Incarnation(3)),
            },
            "050103",
        ),
        (
            Record::Deferred {
                items: vec![tombstone()],
            },
            "0601020305818004016b00000001",
        ),
        (
            Record::Repair {
                restored: vec![tombstone()],
                removed: vec![dot(8)],
            },
            "0701020305818004016b0000000101020308",
        ),
        (Record::Blank, "08"),
        (Record::Rejoined, "09"),
    ];
    for (record, golden) in table {
        let bytes = encode_vec(&record);
        assert_eq!(hex(&bytes), golden, "{record:?}");
        assert!(bytes.len() <= record.bytes(), "{record:?}");
        assert_eq!(decode::<Record>(&bytes), Ok(record));
    }
}
