//! The format on the wire, byte by byte. A change here needs a version step of the protocol.

use trilemma_core::codec::{decode, encode_vec};
use trilemma_core::{Message as _, NodeId};

use super::*;
use crate::record::Role;
use crate::standing::State;

fn record() -> Arc<Record> {
    Arc::new(Record {
        node: NodeId(2),
        address: "a:1".into(),
        zone: "z".into(),
        role: Role::Observer,
        meta: Bytes::from_static(&[7]),
    })
}

fn update(state: State, detail: Detail) -> Update {
    let incarnation = Incarnation { epoch: 3, counter: 1 };
    Update {
        node: NodeId(2),
        standing: Standing::new(incarnation, state),
        detail,
    }
}

fn news(updates: Vec<Update>) -> News {
    News {
        sender: SenderIncarnation(Incarnation { epoch: 5, counter: 4 }),
        record: RecordDigest([9, 8]),
        updates,
        ..News::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_has_its_bytes_and_its_size_is_estimated_from_above() {
    let full = News {
        sums: Some(Sums {
            buckets_log2: 2,
            first: 1,
            sums: vec![[3, 4]],
        }),
        listing: vec![Listed {
            node: NodeId(6),
            standing: Standing::new(Incarnation::first(1), State::Dead),
            record: Some(RecordDigest([1, 2])),
        }],
        wants: vec![NodeId(9)],
        ..news(Vec::new())
    };
    let signature = Bytes::from_static(&[0xaa]);
    let statements = vec![
        update(State::Alive, Detail::None),
        update(State::Alive, Detail::SameRecord(RecordDigest([9, 8]))),
        update(State::Suspect, Detail::Accusers(vec![NodeId(1), NodeId(3)])),
        update(State::Dead, Detail::None),
        update(State::Left, Detail::Signature(signature.clone())),
        update(State::Evicted, Detail::SignedRecord(record(), signature)),
    ];
    let probe = 4;
    let table = [
        (
            Message::Ping { probe, news: full },
            "00040504090800010201010304010601020101020109",
        ),
        (
            Message::Ack {
                probe,
                news: news(Vec::new()),
            },
            "01040504090800000000",
        ),
        (
            Message::PingRequest {
                probe,
                target: NodeId(2),
                news: news(Vec::new()),
            },
            "0204020504090800000000",
        ),
        (
            Message::Reached {
                probe,
                news: news(Vec::new()),
            },
            "03040504090800000000",
        ),
        (
            Message::Nack {
                probe,
                news: news(Vec::new()),
            },
            "04040504090800000000",
        ),
        (
            Message::Gossip(news(statements)),
            "050504090806020308000203080209080203090302010302030a000203030401aa020304050203613a31017a01010701aa000000",
        ),
        (
            Message::ListRequest {
                after: Some(NodeId(2)),
                news: news(Vec::new()),
            },
            "0601020504090800000000",
        ),
        (
            Message::List {
                members: vec![update(State::Alive, Detail::Record(record()))],
                more_after: None,
            },
            "0701020308010203613a31017a01010700",
        ),
    ];
    for (message, golden) in table {
        let bytes = encode_vec(&message);
        assert_eq!(hex(&bytes), golden, "{message:?}");
        assert_eq!(decode(&bytes).as_ref(), Ok(&message), "{}", message.kind());
        assert!(
            bytes.len() <= message.size(),
            "{} of {}",
            message.size(),
            bytes.len()
        );
    }
}
