//! Calls, watches, and a client that does not read.

use bytes::Bytes;

use super::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::{Answers, CallError, ClientConfig, ClientConnection, ClientRef, Items};

/// A connection and who waits for what.
pub(super) struct Caller {
    connection: ClientConnection,
    waiting: Arc<Mutex<Waiting>>,
    items: Items,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    calls: HashMap<u64, oneshot::Sender<Bytes>>,
}

impl Caller {
    fn new((connection, mut answers, items): (ClientConnection, Answers, Items)) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let shared = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok((number, answer)) = answers.next().await {
                let call = shared.lock().unwrap().calls.remove(&number);
                let _gone = call.expect("an answer has its request").send(answer);
            }
            shared.lock().unwrap().calls.clear();
        });
        Self {
            connection,
            waiting,
            items,
        }
    }

    /// `Ok(None)`: it was sent, and the connection ended before the answer.
    pub(super) async fn call(&self, request: Bytes) -> Result<Option<Bytes>, CallError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.last += 1;
            let number = waiting.last;
            self.connection.send(number, request)?;
            waiting.calls.insert(number, sender);
        }
        Ok(answer.await.ok())
    }

    /// The next item and the number of its watch.
    async fn item(&mut self) -> (u64, Bytes) {
        let next = tokio::time::timeout(PATIENCE, self.items.next()).await;
        next.expect("an item comes").expect("the connection lives")
    }
}

fn config(world: &World, node: u32) -> ClientConfig {
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    ClientConfig::new("test".into(), identity, world.addresses[&NodeId(node)]).node(NodeId(node))
}

pub(super) async fn connect(world: &World, node: u32) -> Caller {
    let connected = ClientConnection::connect(config(world, node)).await;
    Caller::new(connected.expect("the node is there"))
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
    let client = Arc::new(connect(&world, 1).await);
    let calls = (0..500_u32).map(|number| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.call(Bytes::copy_from_slice(&number.to_le_bytes())).await })
    });
    for (number, call) in calls.enumerate() {
        assert_eq!(
            call.await.unwrap().unwrap(),
            Some(Bytes::copy_from_slice(&(number as u32).to_le_bytes()))
        );
    }
}

#[tokio::test]
async fn any_number_of_watches_share_a_stream_and_each_gets_its_items() {
    const WATCHES: u64 = 10_000;
    let world = World::new(1);
    let (_node, events) = world.bind(1);
    echo(events, 3);
    let mut client = connect(&world, 1).await;
    for number in 1..=WATCHES {
        let request = Bytes::copy_from_slice(&number.to_le_bytes());
        client.connection.send_watch(number, request).unwrap();
    }
    let mut items: HashMap<u64, u32> = HashMap::new();
    for _ in 0..3 * WATCHES {
        let (number, item) = client.item().await;
        assert_eq!(item[..], number.to_le_bytes());
        *items.entry(number).or_default() += 1;
    }
    assert_eq!(items.len() as u64, WATCHES);
    assert!(items.values().all(|count| *count == 3));
}

#[tokio::test]
async fn an_answer_that_is_lost_differs_from_a_request_that_was_not_sent() {
    let world = World::new(1);
    let (node, events) = world.bind(1);
    let client = connect(&world, 1).await;
    let call = client.call(Bytes::from_static(b"nobody answers"));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop((node, events));
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(answer, Ok(None));
    let late = client.call(Bytes::from_static(b"late")).await;
    assert!(matches!(late, Err(CallError::Closed { .. })), "{late:?}");
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

pub(super) async fn request(events: &mut Events) -> (ClientRef, u64, Bytes) {
    let pick = |event| match event {
        Event::ClientRequest {
            client,
            request,
            payload,
        } => Some((client, request, payload)),
        _ => None,
    };
    expect(events, "a request", pick).await
}

async fn gone(events: &mut Events) -> ClientRef {
    let pick = |event| match event {
        Event::ClientGone { client } => Some(client),
        _ => None,
    };
    expect(events, "a client's end", pick).await
}

#[tokio::test]
async fn requests_without_an_answer_are_limited() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.requests_in_flight = 10;
    let (_node, mut events) = Transport::bind(config).unwrap();
    let client = Arc::new(connect(&world, 1).await);
    let calls: Vec<_> = (0..25_u8)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.call(Bytes::copy_from_slice(&[number])).await })
        })
        .collect();
    let mut given = 0;
    for expected in [10, 10, 5] {
        let mut open = Vec::new();
        for _ in 0..expected {
            open.push(request(&mut events).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(events.try_recv().is_none(), "the eleventh waits for an answer");
        given += open.len();
        for (reference, id, payload) in open {
            reference.reply(id, payload).unwrap();
        }
    }
    assert_eq!(given, 25);
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(
            call.await.unwrap().unwrap(),
            Some(Bytes::copy_from_slice(&[number as u8]))
        );
    }
}

/// What is said of a watch needs no answer, so it is not among the requests that are open.
#[tokio::test]
async fn what_is_said_of_watches_is_not_limited_by_answers() {
    let world = World::new(1);
    let mut config = world.config(1);
    config.limits.requests_in_flight = 1;
    let (_node, mut events) = Transport::bind(config).unwrap();
    let client = connect(&world, 1).await;
    for _ in 0..100 {
        client
            .connection
            .send_watch(7, Bytes::from_static(b"room"))
            .unwrap();
    }
    // The stream is opened by who reads it.
    let items = tokio::spawn(async move {
        let mut client = client;
        client.items.next().await
    });
    for _ in 0..100 {
        let (watch, number, _) = request(&mut events).await;
        assert!(watch.is_of_watches() && number == 7);
    }
    items.abort();
}

#[tokio::test]
async fn items_that_nobody_reads_hold_up_no_calls_and_room_is_reported() {
    let world = World::new(1);
    let (_node, mut events) = world.bind(1);
    let mut client = connect(&world, 1).await;
    client
        .connection
        .send_watch(1, Bytes::from_static(b"watch"))
        .unwrap();
    // The stream is opened by who reads it.
    let opened = tokio::time::timeout(Duration::from_millis(100), client.items.next()).await;
    assert!(opened.is_err(), "nothing has come yet");
    let (watch, number, _) = request(&mut events).await;
    // As much as the node is willing to queue for it, again and again, until nothing moves any more.
    let block = Bytes::from(vec![0; 256 * 1024]);
    let (mut still, mut sent) = (0, 0);
    while still < 20 {
        if watch.has_room() {
            watch.reply(number, block.clone()).unwrap();
            sent += 1;
            still = 0;
        } else {
            still += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    watch.want_room();
    let call = client.call(Bytes::from(vec![7; 1024 * 1024]));
    let answer = async {
        let (calls, id, payload) = request(&mut events).await;
        assert!(!calls.is_of_watches());
        calls.reply(id, payload).unwrap();
    };
    let (answer, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(call, answer) })
        .await
        .unwrap();
    assert_eq!(
        answer.map(|bytes| bytes.map(|bytes| bytes.len())),
        Ok(Some(1024 * 1024))
    );
    for _ in 0..sent {
        let (_, item) = client.item().await;
        assert_eq!(item.len(), block.len());
    }
    let room = |event| match event {
        Event::ClientRoom { client } => Some(client),
        _ => None,
    };
    assert_eq!(expect(&mut events, "news of room", room).await, watch);
    assert!(watch.has_room());
}

#[tokio::test]
async fn requests_that_are_too_large_are_not_sent() {
    let world = World::new(1);
    let (_node, _events) = world.bind(1);
    let client = connect(&world, 1).await;
    let huge = Bytes::from(vec![0; 8 * 1024 * 1024]);
    assert!(matches!(
        client.call(huge.clone()).await,
        Err(CallError::TooLarge { .. })
    ));
    assert!(matches!(
        client.connection.send_watch(1, huge),
        Err(CallError::TooLarge { .. })
    ));
}

#[tokio::test]
async fn a_client_that_repeats_an_open_request_id_is_cut_off() {
    let world = World::new(1);
    let (_node, mut events) = world.bind(1);
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let tls = crate::tls::client(&identity, crate::tls::CLIENT, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = crate::identity::server_name("test", NodeId(1));
    let connection = endpoint
        .connect_with(tls, world.addresses[&NodeId(1)], &name)
        .unwrap()
        .await
        .unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    for _ in 0..2 {
        crate::frame::write(&mut send, &7_u64.to_le_bytes())
            .await
            .unwrap();
    }
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("request id 7"), "{closed}");
    let (first, id, _) = request(&mut events).await;
    assert_eq!(id, 7);
    assert_eq!(gone(&mut events).await, first);
}
