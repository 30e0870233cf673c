//! Who waits for whom: urgent frames for nobody, answers for readers alone, requests for answers.

use bytes::Bytes;
use quinn::VarInt;

use super::clients::{connect, request};
use super::peers::rogue;
use super::*;
use crate::frame::{self, FrameReader};
use crate::{ClientRef, Lane, SendError, tls};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn m8_a_vote_does_not_wait_for_data_that_the_peer_does_not_read() {
    let world = World::new(2);
    let (two, mut events) = world.bind(2);
    let peer = rogue(&world).await;
    peer.set_receive_window(VarInt::from_u32(tls::PEER_WINDOW));
    up(&mut events, 1).await;
    // More than both lanes of data may have in flight.
    let block = Bytes::from(vec![0; MIB]);
    for lane in [Lane::Log, Lane::Bulk] {
        for _ in 0..16 {
            two.send(NodeId(1), lane, block.clone()).unwrap();
        }
    }
    let mut lanes = BTreeMap::new();
    while lanes.len() < 3 {
        let mut lane = peer.accept_uni().await.unwrap();
        let mut place = [0];
        lane.read_exact(&mut place).await.unwrap();
        lanes.insert(place[0], lane);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    two.send(NodeId(1), Lane::Control, Bytes::from_static(b"vote"))
        .unwrap();
    let mut control = FrameReader::new(lanes.remove(&0).unwrap(), MIB);
    let vote = tokio::time::timeout(PATIENCE, control.next()).await;
    assert_eq!(vote.expect("a vote comes"), Ok(Bytes::from_static(b"vote")));
}

#[tokio::test]
async fn p5_packets_grow_to_what_the_path_carries_and_arrive() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let peer = rogue(&world).await;
    up(&mut events, 1).await;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let mut lane = peer.open_uni().await.unwrap();
    lane.write_all(&[2]).await.unwrap();
    let send = async {
        for _ in 0..64 {
            frame::write(&mut lane, &vec![7; MIB]).await.unwrap();
        }
        lane.finish().unwrap();
        lane.stopped().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, send).await.expect("64 MiB arrive");
    let path = peer.stats().path;
    assert!(path.current_mtu > 6400, "packets of {} B", path.current_mtu);
    assert!(
        path.lost_packets * 10 < path.sent_packets,
        "{} of {} packets were lost",
        path.lost_packets,
        path.sent_packets
    );
}

/// A client that has sent `count` requests, of this size, and reads nothing.
async fn silent(world: &World, count: u64, bytes: usize) -> (quinn::Connection, quinn::RecvStream) {
    let issued = world.authority.issue_client("test", "silent").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let client = tls::client(&identity, tls::CLIENT, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = crate::identity::server_name("test", NodeId(1));
    let connecting = endpoint.connect_with(client, world.addresses[&NodeId(1)], &name);
    let connection = connecting.unwrap().await.unwrap();
    let (mut send, receive) = connection.open_bi().await.unwrap();
    tokio::spawn(async move {
        for number in 0..count {
            let mut request = number.to_le_bytes().to_vec();
            request.resize(8 + bytes, 0);
            if frame::write(&mut send, &request).await.is_err() {
                return;
            }
        }
        // Open until the connection ends.
        let _end = send.stopped().await;
    });
    (connection, receive)
}

#[tokio::test]
async fn h12_a_client_that_reads_gets_all_its_answers_however_large_a_burst() {
    let world = World::new(1);
    let (_node, mut events) = world.bind(1);
    let client = std::sync::Arc::new(connect(&world, 1).await);
    let calls: Vec<_> = (0..100_u8)
        .map(|number| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move { client.call(Bytes::copy_from_slice(&[number])).await })
        })
        .collect();
    let mut open = Vec::new();
    while open.len() < calls.len() {
        open.push(request(&mut events).await);
    }
    // All in one turn: no task that writes runs meanwhile.
    for (client, id, payload) in open {
        let answer = Bytes::from(vec![payload[0]; MIB]);
        client.reply_later(id, answer.len(), move || answer).unwrap();
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answer = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        let answer = answer.unwrap().expect("the connection lives");
        assert_eq!((answer.len(), answer[0]), (MIB, number as u8));
    }
}

#[tokio::test]
async fn a_small_request_does_not_wait_for_the_large_ones_of_others() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.event_bytes = 4 * MIB;
    let (_node, mut events) = Transport::bind(config).unwrap();
    let (_connection, _unread) = silent(&world, 16, MIB).await;
    // As many as the queue takes; another is read and waits for room.
    let full = async {
        while events.waiting().1 < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("a flood comes");
    let client = std::sync::Arc::new(connect(&world, 1).await);
    let small = std::sync::Arc::clone(&client);
    let call = tokio::spawn(async move { small.call(Bytes::from_static(b"small")).await });
    let reached = async {
        while events.waiting().1 < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _it_may_not_fit = tokio::time::timeout(Duration::from_secs(1), reached).await;
    let (client, id, payload) = request(&mut events).await;
    assert_eq!(payload.len(), b"small".len(), "the small one comes first");
    client.reply(id, payload).unwrap();
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap()
        .unwrap()
        .expect("an answer");
}

#[tokio::test]
async fn h12_a_client_that_reads_nothing_costs_a_bound_and_is_cut_off_after_a_time() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.client_queue_bytes = 4 * MIB;
    config.limits.requests_in_flight = 8;
    config.limits.client_stall = Duration::from_millis(700);
    let (node, mut events) = Transport::bind(config).unwrap();
    let (connection, _unread) = silent(&world, 1000, 10).await;
    let started = std::time::Instant::now();
    let mut answered = 0;
    loop {
        let pick = |event| match event {
            Event::ClientRequest { client, request, .. } => Some(Some((client, request))),
            Event::ClientGone { .. } => Some(None),
            _ => None,
        };
        let Some((client, id)) = expect(&mut events, "a request or the end", pick).await else {
            break;
        };
        if client.reply(id, Bytes::from(vec![0; MIB / 2])).is_ok() {
            answered += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let taken = started.elapsed();
    assert!(taken >= Duration::from_millis(700), "cut off after {taken:?}");
    // 4 MiB wait, 0.5 MiB are on their way, and 8 requests were read before.
    assert!(
        (8..=24).contains(&answered),
        "{answered} answers of 0.5 MiB were taken"
    );
    let why = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(why.to_string().contains("does not read its answers"), "{why}");
    assert_eq!(node.counters().clients_cut_off, 1);
}

#[tokio::test]
async fn m6_requests_of_one_client_are_bounded_in_bytes() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.client_request_bytes = 2 * MIB;
    let (_node, mut events) = Transport::bind(config).unwrap();
    let (_connection, _unread) = silent(&world, 10, MIB - 64).await;
    let (first, id, _) = request(&mut events).await;
    request(&mut events).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(events.try_recv().is_none(), "the third waits for an answer");
    first.reply(id, Bytes::from_static(b"done")).unwrap();
    request(&mut events).await;
}

#[tokio::test]
async fn m6_large_answers_to_clients_with_more_than_their_share_are_refused_when_memory_runs_out() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.answer_bytes = 8 * MIB;
    let (_node, mut events) = Transport::bind(config).unwrap();
    let (_greedy, _unread) = silent(&world, 100, 10).await;
    let mut open: Vec<(ClientRef, u64)> = Vec::new();
    while open.len() < 100 {
        let (client, id, _) = request(&mut events).await;
        open.push((client, id));
    }
    let block = Bytes::from(vec![0; MIB]);
    let mut refused = 0;
    for (client, id) in &open {
        match client.reply(*id, block.clone()) {
            Ok(()) => assert_eq!(refused, 0),
            Err(SendError::NoRoom) => {
                refused += 1;
                client.reply(*id, Bytes::from_static(b"overloaded")).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((80..=84).contains(&refused), "{refused} of 100 were refused");
    // Another client has its share.
    let other = connect(&world, 1).await;
    let call = other.call(Bytes::from_static(b"mine"));
    let answer = async {
        let (client, id, _) = request(&mut events).await;
        client.reply(id, block).unwrap();
    };
    let (answer, ()) = tokio::join!(call, answer);
    assert_eq!(answer.unwrap().map(|bytes| bytes.len()), Some(MIB));
}

/// A client that reads its answers and none of the items of its watches: the stream of those, as the node has it.
async fn deaf_to_items(world: &World, events: &mut Events) -> (quinn::Connection, ClientRef) {
    let (connection, _calls) = silent(world, 0, 0).await;
    let (mut send, unread) = connection.open_bi().await.unwrap();
    frame::write(&mut send, &[1, 0, 0, 0, 0, 0, 0, 0, 7])
        .await
        .unwrap();
    let (stream, ..) = request(events).await;
    assert!(stream.is_of_watches());
    let open = connection.clone();
    tokio::spawn(async move {
        open.closed().await;
        drop((send, unread));
    });
    (connection, stream)
}

/// Gives a stream items until it has no room; returns their bytes.
fn fill(stream: &ClientRef) -> usize {
    let mut given = 0;
    while stream.has_room() {
        stream.reply(1, Bytes::from(vec![0; 64 * 1024])).unwrap();
        given += 64 * 1024;
    }
    given
}

/// What they held used to be taken from what answers of others may take.
#[tokio::test]
async fn items_that_nobody_reads_are_bounded_and_take_no_room_from_answers() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.answer_bytes = 2 * MIB;
    config.limits.watch_bytes = 4 * MIB;
    config.limits.client_stall = Duration::from_millis(500);
    let (node, mut events) = Transport::bind(config).unwrap();
    let mut deaf = Vec::new();
    let mut given = 0;
    for _ in 0..16 {
        let (connection, stream) = deaf_to_items(&world, &mut events).await;
        given += fill(&stream);
        deaf.push((connection, stream));
    }
    // Each has 2 MiB on its way besides, which QUIC lets it have.
    assert!(node.answer_bytes() <= 10 * MIB, "{} B wait", node.answer_bytes());
    assert!(given >= 2 * MIB, "the first have room: {given} B");
    let other = connect(&world, 1).await;
    for _ in 0..3 {
        let call = other.call(Bytes::from_static(b"mine"));
        let answer = async {
            let (client, id, _) = request(&mut events).await;
            client.reply(id, Bytes::from(vec![0; 2 * MIB])).unwrap();
        };
        let (answer, ()) = tokio::join!(call, answer);
        assert_eq!(answer.unwrap().map(|bytes| bytes.len()), Some(2 * MIB));
    }
    let calls = [
        other.call(Bytes::from_static(b"one")),
        other.call(Bytes::from_static(b"two")),
    ];
    let answers = async {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let (client, id, _) = request(&mut events).await;
            asked.push((client, id));
        }
        for (client, id) in asked {
            client.reply(id, Bytes::from(vec![0; 2 * MIB])).unwrap();
        }
    };
    let [one, two] = calls;
    let (one, two, ()) = tokio::join!(one, two, answers);
    for answer in [one, two] {
        assert_eq!(answer.unwrap().map(|bytes| bytes.len()), Some(2 * MIB));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (connection, stream) in &deaf {
        assert!(connection.close_reason().is_none(), "it reads its answers");
        assert!(!stream.is_closed());
    }
    assert_eq!(node.counters().clients_cut_off, 0);
}

#[tokio::test]
async fn m9_peers_are_heard_before_clients_and_votes_before_data() {
    let world = World::new(2);
    let (one, mut events) = world.bind(1);
    let (two, mut heard) = world.bind(2);
    up(&mut events, 2).await;
    up(&mut heard, 1).await;
    let (_client, _unread) = silent(&world, 2000, 1000).await;
    let first = request(&mut events).await;
    for _ in 0..500 {
        two.send(NodeId(1), Lane::Log, Bytes::from(vec![0; 1000]))
            .unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    two.send(NodeId(1), Lane::Control, Bytes::from_static(b"vote"))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let next = events.recv().await.unwrap();
    assert!(
        matches!(
            &next,
            Event::Frame {
                lane: Lane::Control,
                ..
            }
        ),
        "{next:?} before a vote"
    );
    for _ in 0..500 {
        let next = events.recv().await.unwrap();
        assert!(matches!(&next, Event::Frame { lane: Lane::Log, .. }), "{next:?}");
    }
    assert!(matches!(
        events.recv().await.unwrap(),
        Event::ClientRequest { .. }
    ));
    drop((one, first));
}

#[tokio::test]
async fn m1_what_waits_is_sent_before_a_node_closes() {
    let world = World::new(1);
    let (node, mut events) = world.bind(1);
    let client = connect(&world, 1).await;
    let call = client.call(Bytes::from_static(b"large"));
    let stop = async {
        let (reference, id, _) = request(&mut events).await;
        reference.reply(id, Bytes::from(vec![9; 8 * MIB - 64])).unwrap();
        node.close().await;
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(answer.unwrap().map(|bytes| bytes.len()), Some(8 * MIB - 64));
}

#[tokio::test]
async fn l8_an_endpoint_that_accepts_nobody_any_more_is_reported() {
    let world = World::new(1);
    let (node, mut events) = world.bind(1);
    node.endpoint().close(VarInt::from_u32(0), b"taken away");
    let ended = |event| matches!(event, Event::Ended).then_some(());
    expect(&mut events, "the end", ended).await;
}
