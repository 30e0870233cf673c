//! Messages, records and what clients and nodes tell each other: any bytes, and valid encodings that were changed.

use std::time::Duration;

use bytes::Bytes;
use trilemma_client::wire::{
    CertificateOverview, ClientReply, ClientRequest, KeyspaceOverview, LoadOverview, LogOverview,
    MemberOverview, MemberState, MembershipOverview, NodeOverview, PeerOverview, RefusedOverview,
};
use trilemma_core::liveness::Ping;
use trilemma_core::{
    Achieved, Attempt, Backend, Change, Command, DiskId, Entry, Incarnation, KeyRange, KeyspaceId,
    LiveStatus, Message, NodeId, NodeSet, NotApplied, OpId, Outcome, ReadError, ReadLevel, ReadReply, Reason,
    Receipt, Reply, Request, Rng, UnknownCause, Version, Versioned, WallTime, WatchItem, WatchSpec,
    WatchStart, WatchToken, WriteError, codec,
};
use trilemma_fuzz::corpus::{self, Corpus};
use trilemma_fuzz::mutate::mutated;
use trilemma_fuzz::rig::{self, Kind};
use trilemma_fuzz::source::Source;
use trilemma_fuzz::wire::decodes;
use trilemma_gossip as gossip;
use trilemma_node::NodeMessage;
use trilemma_node::record::NodeRecord;
use trilemma_paxos as paxos;
use trilemma_raft as raft;
use trilemma_two_phase as two_phase;

const RUNS: usize = 4000;

targets! {
    raw_bytes(RUNS, 64) => raw;
    raft_message(RUNS, 256) => message::<raft::Message>(Kind::Raft);
    paxos_message(RUNS, 256) => message::<paxos::Message>(Kind::Paxos);
    gossip_message(RUNS, 256) => message::<gossip::Message>(Kind::Gossip);
    two_phase_message(RUNS, 256) => message::<two_phase::Message>(Kind::TwoPhase);
    raft_record(RUNS, 256) => record::<raft::Record>(Kind::Raft);
    paxos_record(RUNS, 256) => record::<paxos::Record>(Kind::Paxos);
    gossip_record(RUNS, 256) => record::<gossip::Record>(Kind::Gossip);
    two_phase_record(RUNS, 256) => record::<two_phase::Record>(Kind::TwoPhase);
    client_request(RUNS, 256) => client_request_of;
    client_reply(RUNS, 256) => client_reply_of;
    node_message(RUNS, 64) => node_message_of;
    node_record(RUNS, 128) => node_record_of;
}

#[test]
fn a_decoder_that_believes_a_length_is_caught() {
    let believe = |claimed: usize| {
        std::panic::catch_unwind(|| {
            drop(trilemma_fuzz::wire::frugal(6, || {
                Vec::<u8>::with_capacity(claimed)
            }))
        })
    };
    assert!(believe(1024).is_ok());
    assert!(believe(1024 * 1024).is_err());
}

/// Any bytes, read as everything.
fn raw(input: &[u8]) {
    decodes::<raft::Message>(input);
    decodes::<raft::Record>(input);
    decodes::<paxos::Message>(input);
    decodes::<paxos::Record>(input);
    decodes::<gossip::Message>(input);
    decodes::<gossip::Record>(input);
    decodes::<two_phase::Message>(input);
    decodes::<two_phase::Record>(input);
    decodes::<ClientRequest>(input);
    decodes::<ClientReply>(input);
    decodes::<NodeMessage>(input);
}

fn message<M: Message + PartialEq>(kind: Kind) -> impl Fn(&[u8]) {
    let Corpus { messages, .. } = corpus::of(kind);
    move |input| {
        let bytes = mutated(&mut Source::new(input), messages);
        if let Some(message) = decodes::<M>(&bytes) {
            assert!(!message.kind().is_empty());
            // Whatever decodes can be shown and has a lane.
            let _shown = (message.lane(), format!("{message:?}"));
        }
    }
}

fn record<R>(kind: Kind) -> impl Fn(&[u8])
where
    R: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Corpus { records, .. } = corpus::of(kind);
    move |input| drop(decodes::<R>(&mutated(&mut Source::new(input), records)))
}

fn client_request_of(input: &[u8]) {
    thread_local!(static SAMPLES: Vec<Bytes> = requests());
    SAMPLES.with(|samples| {
        let bytes = mutated(&mut Source::new(input), samples);
        if let Some(ClientRequest::Ask {
            request: Request::Write { command, .. },
            ..
        }) = decodes::<ClientRequest>(&bytes)
        {
            // What the node does next with it; a command that passes is within every limit.
            if command.validate().is_ok() {
                assert!(command.size() <= trilemma_core::data::COMMAND_BYTES_MAX);
            }
        }
    });
}

fn client_reply_of(input: &[u8]) {
    thread_local!(static SAMPLES: Vec<Bytes> = replies().iter().map(codec::encode).collect());
    SAMPLES.with(|samples| {
        if let Some(reply) = decodes::<ClientReply>(&mutated(&mut Source::new(input), samples)) {
            let _shown = format!("{reply:?}");
            if let ClientReply::Answer(Reply::Write(Err(error))) = reply {
                let _shown = error.to_string();
            }
        }
    });
}

fn node_message_of(input: &[u8]) {
    let echo = Some((Incarnation(3), 300));
    let ping = Ping {
        incarnation: Incarnation(2),
        number: 70_000,
        echo,
    };
    let samples = [
        NodeMessage::Ping(ping),
        NodeMessage::Meet,
        NodeMessage::Keeps(DiskId(900)),
    ]
    .map(|message| codec::encode(&message));
    if let Some(message) = decodes::<NodeMessage>(&mutated(&mut Source::new(input), &samples)) {
        assert!(!message.kind().is_empty());
    }
}

fn node_record_of(input: &[u8]) {
    // `NodeRecord::StartedWithoutMembers`: variant, cluster, node, incarnation, keyspaces with their backends.
    let started = codec::encode(&(
        0_u32,
        "shop",
        3_u32,
        9_u64,
        [("locks", "raft"), ("carts", "gossip")],
    ));
    let started = [&started[..8], &[2], &started[8..]].concat();
    // `NodeRecord::StartedWithoutDisks`: the same, and the members.
    let with_members = [&[1], &started[1..], &[3, 1, 2, 3]].concat();
    // `NodeRecord::Started`: the same, and whether all have met. `Met`: node, disk, the one accepted, incarnation, nonce.
    // `Founded`. `MemberEpoch`.
    let with_founding = [&[2], &with_members[1..], &[1]].concat();
    let met = codec::encode(&(3_u32, 2_u32, 300_u64, Some(7_u64), 9_u64, 70_000_u64)).to_vec();
    let samples = [started, with_members, with_founding, met, vec![4], vec![6, 3]];
    let door = |bytes: &[u8]| {
        codec::decode::<NodeRecord>(bytes)
            .map(|record| codec::encode(&record))
            .map_err(|error| error.to_string())
    };
    for sample in &samples {
        assert_eq!(
            door(sample).as_deref(),
            Ok(&sample[..]),
            "the sample is a node's record"
        );
    }
    let bytes = mutated(&mut Source::new(input), &samples);
    if let Ok(encoded) = trilemma_fuzz::wire::frugal(bytes.len(), || door(&bytes)) {
        assert_eq!(door(&encoded), Ok(encoded), "other bytes come back");
    }
}

/// Requests of all kinds.
fn requests() -> Vec<Bytes> {
    let (keyspace, timeout_ms) = (KeyspaceId(1), 5000);
    let mut rng = Rng::new(1);
    let mut requests = vec![
        ClientRequest::Overview,
        ClientRequest::Room { bytes: 70_000 },
        ClientRequest::Cancel,
        ClientRequest::Members,
    ];
    let token = WatchToken {
        stream: 5,
        position: 700,
    };
    for start in [
        WatchStart::State,
        WatchStart::StateFrom(token),
        WatchStart::Now,
        WatchStart::After(token),
    ] {
        let spec = WatchSpec {
            range: KeyRange::prefix("a/"),
            start,
            progress: (start == WatchStart::Now).then(|| Duration::from_millis(700)),
        };
        requests.push(ClientRequest::Watch {
            keyspace,
            spec,
            room: 512 * 1024,
        });
    }
    for count in 0..60 {
        let bytes: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        requests.push(ClientRequest::Ask {
            keyspace,
            timeout_ms,
            request: rig::request(&mut Source::new(&bytes), count),
        });
    }
    requests.push(ClientRequest::Ask {
        keyspace,
        timeout_ms,
        request: Request::Write {
            op: OpId::default(),
            attempt: Attempt::First,
            command: Command::default(),
        },
    });
    requests.iter().map(codec::encode).collect()
}

/// Replies of all kinds.
fn replies() -> Vec<ClientReply> {
    let state = Versioned {
        value: "v".into(),
        created: Version(200),
        modified: Version(70_000),
        lease: None,
    };
    let entry = Entry {
        key: "k".into(),
        state: state.clone(),
    };
    let change = Change {
        key: "k".into(),
        now: Some(state),
    };
    let receipt = Receipt {
        op: OpId::default(),
        succeeded: true,
        version: Version(9),
        found: Version(8),
        epoch: trilemma_core::Epoch(1),
        achieved: Achieved::Linearizable,
        durable_on: [NodeId(1), NodeId(2)].into_iter().collect(),
        served_by: NodeId(1),
        round_trips: 1,
        syncs: 2,
    };
    let missing = NodeSet::of(NodeId(3));
    let reason = Reason::NoQuorum {
        have: 1,
        need: 2,
        of: 3,
        missing: missing.clone(),
    };
    let refused = NotApplied::from(reason.clone());
    let read_error = ReadError {
        reason,
        retry: refused.retry.clone(),
    };
    let token = WatchToken {
        stream: 1,
        position: 2,
    };
    let read = ReadReply {
        entries: vec![entry.clone(), entry.clone()],
        more: true,
        version: Version(5),
        achieved: ReadLevel::MinVersion(Version(3)),
        served_by: NodeId(2),
        round_trips: 0,
    };
    vec![
        ClientReply::Answer(Reply::Read(Ok(read))),
        ClientReply::Answer(Reply::Read(Err(read_error.clone()))),
        ClientReply::Answer(Reply::Write(Ok(receipt.clone()))),
        ClientReply::Answer(Reply::Write(Err(WriteError::NotApplied(refused)))),
        ClientReply::Answer(Reply::Write(Err(WriteError::Unknown {
            op: OpId::default(),
            cause: UnknownCause::Deadline,
        }))),
        ClientReply::Answer(Reply::Outcome(Ok(Outcome::Applied(receipt)))),
        ClientReply::Answer(Reply::Outcome(Ok(Outcome::Expired))),
        ClientReply::Watch(Ok(WatchItem::Reset {
            token,
            entries: vec![entry],
            first: true,
            last: true,
        })),
        ClientReply::Watch(Ok(WatchItem::Changes {
            token,
            changes: vec![change],
        })),
        ClientReply::Watch(Ok(WatchItem::Progress { token })),
        ClientReply::Watch(Err(read_error)),
        ClientReply::Bad("not a request".into()),
        ClientReply::Overview(Box::new(overview(missing))),
        ClientReply::Members(None),
        ClientReply::Members(Some(Box::new(membership()))),
    ]
}

fn membership() -> MembershipOverview {
    MembershipOverview {
        members: vec![MemberOverview {
            node: NodeId(2),
            state: MemberState::Dead,
            epoch: 300,
            counter: 1,
            address: "10.0.0.2:7400".into(),
            zone: "a".into(),
            observer: true,
            round_trip_micros: Some(700),
            since: Some(WallTime(1_800_000_000_000)),
        }],
        health: 3,
        refused: vec![RefusedOverview {
            reason: "outdated".into(),
            count: 9,
            from: Some(NodeId(3)),
        }],
        ..MembershipOverview::default()
    }
}

fn overview(missing: NodeSet) -> NodeOverview {
    let status = LiveStatus {
        can_write: true,
        why: "node 3 is away".into(),
        missing,
        leader: Some(NodeId(1)),
        details: vec![("term".into(), "7".into())],
        ..LiveStatus::default()
    };
    NodeOverview {
        disk: DiskId(900),
        snapshot_failure: "no space".into(),
        cluster: "shop".into(),
        node: NodeId(1),
        incarnation: Incarnation(4),
        peers: vec![PeerOverview {
            node: NodeId(2),
            address: "127.0.0.1:7000".into(),
            connected: true,
            refused: String::new(),
        }],
        keyspaces: vec![KeyspaceOverview {
            name: "locks".into(),
            id: KeyspaceId(1),
            backend: Backend::Raft,
            status,
        }],
        log: LogOverview {
            last: 300,
            ..LogOverview::default()
        },
        load: LoadOverview {
            turn_micros_max: 21_000,
            ..LoadOverview::default()
        },
        certificate: CertificateOverview {
            from: -1,
            until: 1_800_000_000,
        },
    }
}
