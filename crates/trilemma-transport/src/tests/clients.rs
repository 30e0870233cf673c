//! Calls, streams of answers, and a client that does not read.

use bytes::Bytes;

use super::*;
use crate::{CallError, ClientConfig, ClientConnection};

async fn connect(world: &World, node: u32) -> ClientConnection {
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let config =
        ClientConfig::new("test".into(), identity, world.addresses[&NodeId(node)]).node(NodeId(node));
    ClientConnection::connect(config)
        .await
        .expect("the node is there")
}

/// Answers every request with its own payload, `copies` times.
fn echo(mut events: Events, copies: usize) {
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::ClientRequest {
                client,
                request,
                payload,
            } = event
            {
                for _ in 0..copies {
                    // A client that was cut off gets no further answers.
                    let _gone = client.reply(request, payload.clone());
                }
            }
        }
    });
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let world = World::new(1);
    let (_node, events) = world.bind(1);
    echo(events, 1);
    let client = std::sync::Arc::new(connect(&world, 1).await);
    let calls = (0..500_u32).map(|number| {
        let client = std::sync::Arc::clone(&client);
        tokio::spawn(async move { client.call(Bytes::copy_from_slice(&number.to_le_bytes())).await })
    });
    for (number, call) in calls.enumerate() {
        assert_eq!(
            call.await.unwrap().unwrap(),
            Bytes::copy_from_slice(&(number as u32).to_le_bytes())
        );
    }
}

#[tokio::test]
async fn a_stream_gets_all_its_answers() {
    let world = World::new(1);
    let (_node, events) = world.bind(1);
    echo(events, 3);
    let client = connect(&world, 1).await;
    let mut answers = client.stream(Bytes::from_static(b"w")).await.unwrap();
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENCE, answers.recv()).await.unwrap();
        assert_eq!(answer, Some(Bytes::from_static(b"w")));
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_told_from_a_request_that_was_not_sent() {
    let world = World::new(1);
    let (node, events) = world.bind(1);
    let client = connect(&world, 1).await;
    let call = client.call(Bytes::from_static(b"nobody answers"));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop((node, events));
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert!(matches!(answer, Err(CallError::Lost { .. })), "{answer:?}");
    let late = client.call(Bytes::from_static(b"late")).await;
    assert!(matches!(late, Err(CallError::NotSent { .. })), "{late:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let world = World::new(1);
    let (_node, mut events) = world.bind(1);
    let client = connect(&world, 1).await;
    // The stream's reader is never polled, so its answers pile up.
    let _unread = client.stream(Bytes::from_static(b"much")).await.unwrap();
    let request = |event| match event {
        Event::ClientRequest { client, request, .. } => Some((client, request)),
        _ => None,
    };
    let (reference, id) = expect(&mut events, "a request", request).await;
    let block = Bytes::from(vec![0; 1024 * 1024]);
    let mut sent = 0;
    while reference.reply(id, block.clone()).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "answers pile up without bound");
        tokio::task::yield_now().await;
    }
    assert!(reference.is_closed());
}

#[tokio::test]
async fn the_wrong_node_and_no_node_are_named() {
    let world = World::new(2);
    let (_node, _events) = world.bind(1);
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let wrong =
        ClientConfig::new("test".into(), identity.clone(), world.addresses[&NodeId(1)]).node(NodeId(2));
    let error = ClientConnection::connect(wrong)
        .await
        .expect_err("node 1 is no node 2")
        .to_string();
    assert!(error.contains("node-2"), "{error}");
    let nobody = ClientConfig::new("test".into(), identity, world.addresses[&NodeId(2)])
        .node(NodeId(2))
        .timeout(Duration::from_millis(300));
    let error = ClientConnection::connect(nobody)
        .await
        .expect_err("nobody is there")
        .to_string();
    assert!(
        error.contains(&world.addresses[&NodeId(2)].to_string()),
        "{error}"
    );
}
