//! What members say to each other about members: any bytes, valid encodings that were changed, and members that lie.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Message as _, NodeId, codec};
use trilemma_fuzz::mutate::mutated;
use trilemma_fuzz::source::Source;
use trilemma_fuzz::wire::decodes;
use trilemma_membership::message::{Listed, SenderIncarnation, Sums};
use trilemma_membership::record::RecordDigest;
use trilemma_membership::world::World;
use trilemma_membership::{
    Incarnation, Message, News, Record, Role, Standing, State, Update, message::Detail,
};
use trilemma_node::MemberMessage;

const RUNS: usize = 4000;
/// A run has three members that talk for a second.
const WORLD_RUNS: usize = 150;
/// Messages of a run.
const MESSAGES: usize = 8;

targets! {
    member_message(RUNS, 128) => message_of;
    lying_member(WORLD_RUNS, 512) => lying_member_of;
}

fn message_of(input: &[u8]) {
    decodes::<MemberMessage>(input);
    thread_local!(static SAMPLES: Vec<Bytes> = wrapped());
    SAMPLES.with(|samples| {
        let bytes = mutated(&mut Source::new(input), samples);
        if let Some(MemberMessage { message, .. }) = decodes::<MemberMessage>(&bytes) {
            // What a host does next with it.
            let _shown = (message.lane(), message.kind(), format!("{message:?}"));
            let bytes = codec::encode(&message).len();
            assert!(
                bytes <= message.size(),
                "{bytes} B are taken for {}",
                message.size()
            );
        }
    });
}

/// Members of a cluster take whatever one of them says, and keep their invariants.
fn lying_member_of(input: &[u8]) {
    thread_local!(static SAMPLES: Vec<Bytes> = messages().iter().map(codec::encode).collect());
    let mut world = World::founded(3, 1, |_| {});
    SAMPLES.with(|samples| {
        for part in input.chunks(input.len().div_ceil(MESSAGES).max(1)) {
            let bytes = mutated(&mut Source::new(part), samples);
            if let Ok(message) = codec::decode::<Message>(&bytes) {
                world.forge(NodeId(2), NodeId(1), message);
            }
            world.run(Duration::from_millis(100));
            for member in world.running() {
                member.check_all();
            }
        }
    });
    let honest = world.member(NodeId(1)).expect("nothing ends it");
    let own = honest.standing(NodeId(1)).expect("it knows itself");
    assert_eq!(own.state(), State::Alive, "it refutes what is said of it");
}

#[test]
fn the_samples_hold_every_kind() {
    let mut kinds: Vec<&str> = messages().iter().map(trilemma_core::Message::kind).collect();
    kinds.dedup();
    let all = [
        "ping",
        "ack",
        "ping-request",
        "reached",
        "nack",
        "gossip",
        "list-request",
        "list",
    ];
    assert_eq!(kinds, all);
}

/// Messages of all kinds, with statements of all kinds.
fn messages() -> Vec<Message> {
    let (probe, target) = (70_000, NodeId(3));
    let news = || News {
        sender: SenderIncarnation(incarnation(2, 1)),
        record: RecordDigest([9, 8]),
        updates: updates(),
        sums: Some(Sums {
            buckets_log2: 6,
            first: 3,
            sums: vec![[3, 4]; 64],
        }),
        listing: vec![Listed {
            node: NodeId(3),
            standing: Standing::new(incarnation(2, 0), State::Dead),
            record: Some(RecordDigest([1, 2])),
        }],
        wants: vec![NodeId(1), NodeId(9)],
    };
    vec![
        Message::Ping { probe, news: news() },
        Message::Ack { probe, news: news() },
        Message::PingRequest {
            probe,
            target,
            news: news(),
        },
        Message::Reached { probe, news: news() },
        Message::Nack { probe, news: news() },
        Message::Gossip(news()),
        Message::ListRequest {
            after: Some(NodeId(2)),
            news: news(),
        },
        Message::List {
            members: updates(),
            more_after: Some(NodeId(700)),
        },
    ]
}

fn wrapped() -> Vec<Bytes> {
    let wrap = |message| {
        codec::encode(&MemberMessage {
            stream: true,
            message,
        })
    };
    messages().into_iter().map(wrap).collect()
}

fn incarnation(epoch: u64, counter: u32) -> Incarnation {
    Incarnation::new(epoch, counter).expect("within the limits")
}

fn updates() -> Vec<Update> {
    let signature = Bytes::from_static(&[7; 64]);
    let record = Arc::new(Record {
        zone: "a".into(),
        role: Role::Observer,
        meta: Bytes::from_static(b"1"),
        ..Record::new(NodeId(4), "10.0.0.4:7400")
    });
    let update = |node: u32, state: State, detail: Detail| Update {
        node: NodeId(node),
        standing: Standing::new(incarnation(2, 3), state),
        detail,
    };
    vec![
        update(3, State::Alive, Detail::None),
        update(3, State::Alive, Detail::SameRecord(RecordDigest([9, 8]))),
        update(4, State::Alive, Detail::Record(Arc::clone(&record))),
        update(1, State::Suspect, Detail::Accusers(vec![NodeId(2), NodeId(3)])),
        update(3, State::Dead, Detail::None),
        update(3, State::Left, Detail::Signature(signature.clone())),
        update(4, State::Evicted, Detail::SignedRecord(record, signature)),
    ]
}
