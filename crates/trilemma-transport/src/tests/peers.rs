//! Frames between peers: order, lanes, limits, reconnection.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::error::SendError;
use crate::frame::{StreamEnd, split};
use crate::{Lane, tls};

async fn frame(events: &mut Events) -> (NodeId, Lane, Bytes) {
    let pick = |event| match event {
        Event::Frame { from, lane, payload } => Some((from, lane, payload)),
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
async fn rogue(world: &World) -> quinn::Connection {
    let client = tls::client(&world.identity(1), tls::PEER).unwrap();
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
        node: NodeId(1),
        incarnation: Incarnation(1),
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
