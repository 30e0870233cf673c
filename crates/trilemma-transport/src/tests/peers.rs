//! Frames between peers: order, lanes, limits, reconnection.

use bytes::{Bytes, BytesMut};
use trilemma_core::NodeSet;

use super::*;
use crate::error::SendError;
use crate::frame::{StreamEnd, split, store};
use crate::{Lane, tls};

async fn frame(events: &mut Events) -> (NodeId, Lane, Bytes) {
    let pick = |event| match event {
        Event::Frame { from, lane, payload } => Some((from.node, lane, payload)),
        _ => None,
    };
    expect(events, "a frame", pick).await
}

#[tokio::test]
async fn frames_of_each_lane_arrive_in_order_both_ways() {
    let world = World::new(2);
    let (one, mut events_one) = world.bind(1);
    let (two, mut events_two) = world.bind(2);
    up(&mut events_one, 2).await;
    up(&mut events_two, 1).await;
    for lane in [Lane::Control, Lane::Log, Lane::Bulk] {
        for (from, to, events, id) in [(&one, 2, &mut events_two, 1), (&two, 1, &mut events_one, 2)] {
            for number in 0..100_u32 {
                from.send(NodeId(to), lane, Bytes::copy_from_slice(&number.to_le_bytes()))
                    .unwrap();
            }
            for number in 0..100_u32 {
                let expected = (NodeId(id), lane, Bytes::copy_from_slice(&number.to_le_bytes()));
                assert_eq!(frame(events).await, expected);
            }
        }
    }
    one.send(NodeId(2), Lane::Datagram, Bytes::from_static(b"tick"))
        .unwrap();
    assert_eq!(
        frame(&mut events_two).await,
        (NodeId(1), Lane::Datagram, Bytes::from_static(b"tick"))
    );
    let large = Bytes::from(vec![5; 100_000]);
    one.send(NodeId(2), Lane::Datagram, large.clone()).unwrap();
    assert_eq!(
        frame(&mut events_two).await,
        (NodeId(1), Lane::Control, large),
        "too large for a datagram"
    );
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_at_once() {
    let world = World::new(2);
    let (one, mut events) = world.bind(1);
    let small = Bytes::from_static(b"x");
    assert_eq!(
        one.send(NodeId(2), Lane::Log, small.clone()),
        Err(SendError::NotConnected(NodeId(2)))
    );
    let (_two, _held) = world.bind(2);
    up(&mut events, 2).await;
    let limits = Limits::default();
    let huge = Bytes::from(vec![0; limits.log_frame_bytes + 1]);
    assert!(matches!(
        one.send(NodeId(2), Lane::Log, huge),
        Err(SendError::TooLarge { .. })
    ));
    // Node 2's events are not read: its windows fill, then the queue here does, and memory stays bounded.
    let block = Bytes::from(vec![0; 1024 * 1024]);
    let sent = (0..10_000)
        .take_while(|_| one.send(NodeId(2), Lane::Log, block.clone()).is_ok())
        .count();
    assert!(
        sent * block.len() <= limits.queue_bytes + 64 * block.len(),
        "{sent} MiB were taken"
    );
    assert_eq!(
        one.send(NodeId(2), Lane::Log, block),
        Err(SendError::QueueFull(NodeId(2)))
    );
    assert_eq!(
        one.send(NodeId(2), Lane::Control, small),
        Ok(()),
        "another lane has a queue of its own"
    );
}

#[tokio::test]
async fn a_peer_that_restarts_is_connected_again() {
    let world = World::new(2);
    let (one, mut events) = world.bind(1);
    let (two, held) = world.bind(2);
    up(&mut events, 2).await;
    drop((two, held));
    let down = |event| matches!(event, Event::PeerDown { .. }).then_some(());
    expect(&mut events, "peer down", down).await;
    assert!(!one.is_connected(NodeId(2)));
    let (_two, mut events_two) = loop {
        // The former endpoint's socket closes with its last task.
        match Transport::bind(world.config(2)) {
            Ok(bound) => break bound,
            Err(_busy) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    up(&mut events, 2).await;
    one.send(NodeId(2), Lane::Control, Bytes::from_static(b"again"))
        .unwrap();
    assert_eq!(frame(&mut events_two).await.2, Bytes::from_static(b"again"));
}

/// A connection that passes TLS and the hello as node 1, and then does as it likes.
pub(super) async fn rogue(world: &World) -> quinn::Connection {
    let client = tls::client(&world.identity(1), tls::PEER, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = crate::identity::server_name("test", NodeId(2));
    let connection = endpoint
        .connect_with(client, world.addresses[&NodeId(2)], &name)
        .unwrap()
        .await
        .unwrap();
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let hello = crate::hello::Hello {
        version: crate::hello::WIRE_VERSION,
        process: process(1),
        members: world.addresses.keys().copied().collect(),
        table_digest: [7; 32],
        table_text: "locks = raft".into(),
    };
    crate::frame::write(&mut send, &trilemma_core::codec::encode(&hello))
        .await
        .unwrap();
    crate::frame::FrameReader::new(receive, 1 << 20)
        .next()
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn a_huge_length_prefix_closes_the_connection_and_reserves_nothing() {
    let mut buffer = BytesMut::from(&0x4000_0000_u32.to_le_bytes()[..]);
    let before = buffer.capacity();
    assert!(matches!(
        split(&mut buffer, 8 << 20),
        Err(StreamEnd::Violation(_))
    ));
    assert_eq!(buffer.capacity(), before);
    // Within the limit, but nothing arrives: still nothing is reserved.
    let mut buffer = BytesMut::from(&(8_u32 << 20).to_le_bytes()[..]);
    assert_eq!(split(&mut buffer, 8 << 20), Ok(None));
    assert!(buffer.capacity() < 4096);

    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let connection = rogue(&world).await;
    up(&mut events, 1).await;
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(&[1]).await.unwrap();
    lane.write_all(&0x4000_0000_u32.to_le_bytes()).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("1073741824 bytes"), "{closed}");
}

#[tokio::test]
async fn a_stream_for_no_lane_closes_the_connection() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let connection = rogue(&world).await;
    up(&mut events, 1).await;
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(&[200, 1, 2, 3]).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("lane 200"), "{closed}");
}

#[tokio::test]
async fn garbage_as_a_frame_closes_the_connection_with_the_reason() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let connection = rogue(&world).await;
    up(&mut events, 1).await;
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(b"\x00GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(
        closed.contains("the limit is 1048576") && closed.contains("Control"),
        "{closed}"
    );
    let down = |event| match event {
        Event::PeerDown { node, reason } => Some((node, reason)),
        Event::Frame { payload, .. } => panic!("garbage became a frame: {payload:?}"),
        _ => None,
    };
    assert_eq!(expect(&mut events, "peer down", down).await.0, NodeId(1));
}

#[tokio::test]
async fn a_second_stream_for_a_lane_closes_the_connection() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let connection = rogue(&world).await;
    up(&mut events, 1).await;
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let mut lane = connection.open_uni().await.unwrap();
        lane.write_all(&[2]).await.unwrap();
        lanes.push(lane);
    }
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("lane 2"), "{closed}");
}

#[tokio::test]
async fn a_frame_that_arrives_in_parts_takes_memory_as_it_arrives() {
    let mut buffer = BytesMut::new();
    store(&mut buffer, &(4_u32 << 20).to_le_bytes());
    let first = buffer.capacity();
    assert!(first <= 64 * 1024, "{first} bytes for a prefix");
    for _ in 0..100 {
        store(&mut buffer, &[1; 1200]);
        assert_eq!(split(&mut buffer, 8 << 20), Ok(None));
    }
    assert!(
        buffer.capacity() <= 4 * 120_000,
        "{} bytes for 120,000",
        buffer.capacity()
    );
}

#[tokio::test]
async fn a_newer_connection_replaces_the_former_and_the_driver_hears_it_in_order() {
    let world = World::new(2);
    let (two, mut events) = world.bind(2);
    let first = rogue(&world).await;
    up(&mut events, 1).await;
    let second = rogue(&world).await;
    let closed = tokio::time::timeout(PATIENCE, first.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("newer connection"), "{closed}");
    let news = |event| match event {
        Event::PeerUp { .. } => Some("up"),
        Event::PeerDown { .. } => Some("down"),
        _ => None,
    };
    assert_eq!(expect(&mut events, "the former ends", news).await, "down");
    assert_eq!(expect(&mut events, "the newer begins", news).await, "up");
    // The end of the former one has been reported: it must not be reported as the end of the newer one.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_none());
    assert!(two.is_connected(NodeId(1)));
    drop(second);
}

#[tokio::test]
async fn a_process_that_is_not_admitted_is_refused_on_both_sides_and_replaces_nobody() {
    let world = World::new(2);
    let mut config = world.config(2);
    config.admit = Admit::new(|there| match there.nonce {
        1 => Ok(()),
        nonce => Err(format!("process {nonce} is a copy")),
    });
    let (two, mut events) = Transport::bind(config).unwrap();
    let first = rogue(&world).await;
    up(&mut events, 1).await;
    let mut copy = world.config(1);
    copy.listen = "127.0.0.1:0".parse().unwrap();
    copy.process.nonce = 2;
    let (_copy, mut refused) = Transport::bind(copy).unwrap();
    for events in [&mut events, &mut refused] {
        let reason = refusal(events).await;
        assert!(reason.contains("process 2 is a copy"), "{reason}");
    }
    assert!(two.is_connected(NodeId(1)));
    assert_eq!(first.close_reason(), None);
}

#[tokio::test]
async fn a_driver_that_does_not_read_holds_bounded_bytes() {
    let world = World::new(2);
    let (one, mut events) = world.bind(1);
    let mut config = world.config(2);
    config.limits.event_bytes = 1024 * 1024;
    let (_two, mut held) = Transport::bind(config).unwrap();
    up(&mut events, 2).await;
    up(&mut held, 1).await;
    let block = Bytes::from(vec![3; 300 * 1024]);
    for _ in 0..40 {
        one.send(NodeId(2), Lane::Log, block.clone()).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut waiting = Vec::new();
    while let Some(event) = held.try_recv() {
        if let Event::Frame { payload, .. } = event {
            waiting.push(payload);
        }
    }
    assert_eq!(waiting.len(), 3, "what fits into 1 MiB");
    for _ in waiting.len()..40 {
        assert_eq!(frame(&mut held).await.2, block, "the rest follows, none is lost");
    }
    // A frame larger than all the room still passes.
    let large = Bytes::from(vec![4; 3 * 1024 * 1024]);
    one.send(NodeId(2), Lane::Log, large.clone()).unwrap();
    assert_eq!(frame(&mut held).await.2, large);
}

#[tokio::test]
async fn a_cut_link_loses_frames_and_makes_no_connection_until_it_heals() {
    let world = World::new(2);
    let (one, mut events_one) = world.bind(1);
    let (two, mut events_two) = world.bind(2);
    up(&mut events_one, 2).await;
    up(&mut events_two, 1).await;
    let cut = NodeSet::of(NodeId(2));
    one.set_blocked(&cut);
    for lane in [Lane::Control, Lane::Log, Lane::Bulk, Lane::Datagram] {
        one.send(NodeId(2), lane, Bytes::from_static(b"lost")).unwrap();
        two.send(NodeId(1), lane, Bytes::from_static(b"lost")).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(events_one.try_recv().is_none() && events_two.try_recv().is_none());
    one.set_blocked(&NodeSet::default());
    one.send(NodeId(2), Lane::Log, Bytes::from_static(b"healed"))
        .unwrap();
    two.send(NodeId(1), Lane::Log, Bytes::from_static(b"healed"))
        .unwrap();
    assert_eq!(frame(&mut events_one).await.2, Bytes::from_static(b"healed"));
    assert_eq!(frame(&mut events_two).await.2, Bytes::from_static(b"healed"));
}

#[tokio::test]
async fn a_cut_link_is_not_dialled_and_does_not_answer() {
    for cutter in [1, 2] {
        let world = World::new(2);
        let (one, mut events_one) = world.bind(1);
        if cutter == 1 {
            one.set_blocked(&NodeSet::of(NodeId(2)));
        }
        let (two, mut events_two) = world.bind(2);
        if cutter == 2 {
            two.set_blocked(&NodeSet::of(NodeId(1)));
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(events_one.try_recv().is_none() && events_two.try_recv().is_none());
        one.set_blocked(&NodeSet::default());
        two.set_blocked(&NodeSet::default());
        up(&mut events_one, 2).await;
        up(&mut events_two, 1).await;
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::new(2);
    let (one, mut events_one) = world.bind(1);
    let payload = Bytes::from_static(b"12345");
    assert!(one.send(NodeId(2), Lane::Bulk, payload.clone()).is_err());
    let (two, mut events_two) = world.bind(2);
    up(&mut events_one, 2).await;
    up(&mut events_two, 1).await;
    for lane in [Lane::Log, Lane::Log, Lane::Datagram] {
        one.send(NodeId(2), lane, payload.clone()).unwrap();
    }
    for _ in 0..3 {
        frame(&mut events_two).await;
    }
    let (sender, receiver) = (one.counters(), two.counters());
    assert_eq!((sender.log.frames_out, sender.log.bytes_out), (2, 10));
    assert_eq!((receiver.log.frames_in, receiver.log.bytes_in), (2, 10));
    assert_eq!(sender.datagram.frames_out, 1);
    assert_eq!(receiver.datagram.frames_in, 1);
    assert_eq!(sender.bulk.dropped, 1);
    assert_eq!((sender.connects, receiver.connects, receiver.refusals), (1, 1, 0));
}

#[tokio::test]
async fn a_closed_endpoint_tells_its_peers_at_once_and_ends_its_events() {
    let world = World::new(3);
    let (one, mut events_one) = world.bind(1);
    let (_two, mut events_two) = world.bind(2);
    up(&mut events_one, 2).await;
    up(&mut events_two, 1).await;
    one.close().await;
    let down = |event| match event {
        Event::PeerDown { reason, .. } => Some(reason),
        _ => None,
    };
    let reason = expect(&mut events_two, "peer down", down).await;
    assert!(reason.contains("the node stops"), "{reason}");
    // Node 3 was never there: its dialler must end too, or the events never would.
    let ended = async { while events_one.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the events end with the endpoint");
}
