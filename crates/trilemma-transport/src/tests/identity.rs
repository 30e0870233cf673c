//! Who is let in: certificates, names, keyspace tables.

use rcgen::ExtendedKeyUsagePurpose;

use super::*;
use crate::hello::{Hello, WIRE_VERSION};
use crate::identity::{Subject, server_name};
use crate::{Refusal, tls};

/// Binds node 2 and lets a node 1 with this configuration dial it; returns what both reported.
async fn meet(world: &World, one: TransportConfig) -> (String, String) {
    let (_two, mut events_two) = world.bind(2);
    let (_one, mut events_one) = Transport::bind(one).expect("node 1 opens");
    let dialler = refusal(&mut events_one).await;
    (dialler, refusal(&mut events_two).await)
}

#[tokio::test]
async fn another_authority_is_refused() {
    let world = World::new(2);
    let stranger = World::new(1);
    let issued = stranger.authority.issue_node("test", NodeId(1)).unwrap();
    let config = TransportConfig {
        identity: world.pem(&issued.certificate_pem, &issued.key_pem),
        ..world.config(1)
    };
    let (dialler, listener) = meet(&world, config).await;
    assert!(
        listener.contains("TLS") && dialler.contains("TLS"),
        "{dialler} / {listener}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let world = World::new(2);
    let subject = Subject::Node {
        cluster: "test".into(),
        node: NodeId(1),
    };
    let purposes = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let issued = world
        .authority
        .issue(&subject, None, purposes, (2000, 2001))
        .unwrap();
    let config = TransportConfig {
        identity: world.pem(&issued.certificate_pem, &issued.key_pem),
        ..world.config(1)
    };
    let (_, listener) = meet(&world, config).await;
    assert!(
        listener.contains("TLS") && listener.to_lowercase().contains("expired"),
        "{listener}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_node_is_refused_at_the_start_and_when_dialled() {
    let world = World::new(3);
    let wrong = TransportConfig {
        identity: world.identity(3),
        ..world.config(2)
    };
    let error = Transport::bind(wrong)
        .expect_err("the identity is node 3's")
        .to_string();
    assert!(error.contains("node 3") && error.contains("node 2"), "{error}");
    // Node 3 sits at node 2's address: a node that dials node 2 finds out by the certificate.
    let mut config = world.config(3);
    config.listen = world.addresses[&NodeId(2)];
    let (_three, _events) = Transport::bind(config).unwrap();
    let (_one, mut events) = world.bind(1);
    let reported = refusal(&mut events).await;
    assert!(
        reported.contains("node-3") || reported.contains("node 3") || reported.contains("not valid for name"),
        "{reported}"
    );
}

#[tokio::test]
async fn a_client_certificate_cannot_open_a_peer_connection() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let client = crate::tls::client(&identity, crate::tls::PEER, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = server_name("test", NodeId(2));
    let connection = endpoint
        .connect_with(client, world.addresses[&NodeId(2)], &name)
        .unwrap()
        .await
        .unwrap();
    let reported = refusal(&mut events).await;
    assert!(reported.contains("client \"alice\""), "{reported}");
    let closed = tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(closed.contains("client \"alice\""), "{closed}");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.identity(1).authority[0].clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![crate::tls::CLIENT.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let client = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = server_name("test", NodeId(2));
    let connecting = endpoint
        .connect_with(client, world.addresses[&NodeId(2)], &name)
        .unwrap();
    let reported = refusal(&mut events).await;
    assert!(reported.contains("TLS"), "{reported}");
    // The client believes in the handshake until the alert arrives.
    if let Ok(connection) = connecting.await {
        tokio::time::timeout(PATIENCE, connection.closed())
            .await
            .expect("the connection is closed");
    }
}

#[tokio::test]
async fn different_keyspace_tables_are_refused_with_both_printed() {
    let world = World::new(2);
    let one = TransportConfig {
        table_digest: [8; 32],
        table_text: "locks = paxos".into(),
        ..world.config(1)
    };
    let (dialler, listener) = meet(&world, one).await;
    for reported in [dialler, listener] {
        assert!(
            reported.contains("locks = raft") && reported.contains("locks = paxos"),
            "{reported}"
        );
    }
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let world = World::new(2);
    let (_one, _events) = world.bind(1);
    let mut config = world.config(2);
    config.listen = world.addresses[&NodeId(1)];
    match Transport::bind(config) {
        Err(error @ TransportError::Bind { .. }) => {
            assert!(
                error
                    .to_string()
                    .contains(&world.addresses[&NodeId(1)].to_string()),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Connects to node 2 with this identity, as node 1 would; returns what node 2 and the other side reported.
async fn knock(world: &World, identity: &Identity, protocol: &[u8]) -> (String, String) {
    let (_two, mut events) = world.bind(2);
    let client = tls::client(identity, protocol, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint
        .connect_with(
            client,
            world.addresses[&NodeId(2)],
            &server_name("test", NodeId(2)),
        )
        .unwrap()
        .await
        .unwrap();
    let reported = refusal(&mut events).await;
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    (reported, closed.to_string())
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_under_the_same_authority() {
    let world = World::new(2);
    let issued = world.authority.issue_node("other", NodeId(1)).unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let (reported, closed) = knock(&world, &identity, tls::PEER).await;
    for text in [reported, closed] {
        assert!(
            text.contains("cluster \"other\"") && text.contains("\"test\""),
            "{text}"
        );
    }
    let mut moved = World::new(2);
    moved.authority = world.authority;
    let (reported, _) = knock(&moved, &identity, tls::CLIENT).await;
    assert!(reported.contains("cluster \"other\""), "as a client: {reported}");
}

#[tokio::test]
async fn a_node_that_is_no_member_is_refused() {
    let world = World::new(2);
    let (reported, closed) = knock(&world, &world.identity(9), tls::PEER).await;
    for text in [reported, closed] {
        assert!(text.contains("node 9 is not a peer of node 2"), "{text}");
    }
}

#[tokio::test]
async fn the_own_id_from_elsewhere_is_refused_even_if_listed_as_a_peer() {
    let world = World::new(2);
    let mut config = world.config(2);
    config.peers.insert(NodeId(2), world.addresses[&NodeId(1)]);
    let (_two, mut events) = Transport::bind(config).unwrap();
    let client = tls::client(&world.identity(2), tls::PEER, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let _connection = endpoint
        .connect_with(
            client,
            world.addresses[&NodeId(2)],
            &server_name("test", NodeId(2)),
        )
        .unwrap()
        .await
        .unwrap();
    let reported = refusal(&mut events).await;
    assert!(reported.contains("which is this node"), "{reported}");
}

#[tokio::test]
async fn a_node_may_act_as_a_client() {
    let world = World::new(2);
    let (_two, _events) = world.bind(2);
    let config = crate::ClientConfig::new("test".into(), world.identity(1), world.addresses[&NodeId(2)]);
    crate::ClientConnection::connect(config.node(NodeId(2)))
        .await
        .expect("a node's certificate is good for a client");
}

#[tokio::test]
async fn a_client_certificate_cannot_serve_as_a_node() {
    let world = World::new(2);
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let config = TransportConfig {
        identity: world.pem(&issued.certificate_pem, &issued.key_pem),
        ..world.config(1)
    };
    let error = Transport::bind(config).expect_err("alice is no node").to_string();
    assert!(
        error.contains("client \"alice\"") && error.contains("node 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_without_the_server_purpose_is_not_believed_to_be_a_node() {
    let world = World::new(2);
    let subject = Subject::Node {
        cluster: "test".into(),
        node: NodeId(2),
    };
    let name = Some(server_name("test", NodeId(2)));
    let purposes = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let issued = world
        .authority
        .issue(&subject, name, purposes, (2025, 2045))
        .unwrap();
    let config = TransportConfig {
        identity: world.pem(&issued.certificate_pem, &issued.key_pem),
        ..world.config(2)
    };
    let (_two, _held) = Transport::bind(config).unwrap();
    let (_one, mut events) = world.bind(1);
    let reported = refusal(&mut events).await;
    assert!(reported.contains("TLS"), "{reported}");
}

#[tokio::test]
async fn nothing_is_resumed_or_sent_early() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let client = tls::client(&world.identity(1), tls::CLIENT, &Timing::default()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = server_name("test", NodeId(2));
    for _ in 0..2 {
        let connecting = endpoint
            .connect_with(client.clone(), world.addresses[&NodeId(2)], &name)
            .unwrap();
        let Err(connecting) = connecting.into_0rtt() else {
            panic!("data could go before the handshake ends");
        };
        let connection = connecting.await.unwrap();
        // Time for a ticket to arrive, if one were sent.
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.close(0_u32.into(), b"");
    }
    assert!(events.try_recv().is_none());
}

/// The hello of node `node` in a cluster of these members.
fn hello(node: u32, members: impl IntoIterator<Item = u32>, table_text: &str) -> Hello {
    let members = members.into_iter().map(NodeId).collect();
    Hello::new(process(node), members, [7; 32], table_text)
}

#[test]
fn a_hello_is_judged_by_version_and_id() {
    let here = hello(2, 1..=3, "locks = raft");
    let there = hello(1, 1..=3, "locks = raft");
    assert_eq!(here.check(&there, NodeId(1)), Ok(()));
    // A hello of another version has another shape: the first had no members.
    let first = (1_u32, 1_u32, 5_u64, [7_u8; 32], "locks = raft");
    let newer = Hello {
        version: WIRE_VERSION + 1,
        ..there.clone()
    };
    for (version, bytes) in [
        (1, trilemma_core::codec::encode(&first)),
        (WIRE_VERSION + 1, trilemma_core::codec::encode(&newer)),
    ] {
        let reported = Hello::decode(&bytes).expect_err("another version").to_string();
        assert!(
            reported.contains(&format!("wire version {version}, this node speaks")),
            "{reported}"
        );
    }
    let reported = here.check(&there, NodeId(3)).expect_err("another id").to_string();
    assert!(
        reported.contains("node 1") && reported.contains("node 3"),
        "{reported}"
    );
    assert!(matches!(Hello::decode(&[0xff; 40]), Err(Refusal::Violation(_))));
    let most = u32::MAX - trilemma_core::NODES_MAX as u32;
    let long = hello(1, most..u32::MAX, &"ü".repeat(100_000));
    let bytes = trilemma_core::codec::encode(&long);
    assert!(bytes.len() <= crate::hello::HELLO_BYTES_MAX);
    assert_eq!(Hello::decode(&bytes), Ok(long));
}

#[test]
fn hellos_with_different_members_are_refused_with_both_lists() {
    let of_three = hello(1, 1..=3, "locks = raft");
    assert_eq!(
        of_three.check(&hello(3, 1..=3, "locks = raft"), NodeId(3)),
        Ok(())
    );
    let of_five = hello(3, 1..=5, "locks = raft");
    for (here, there, peer) in [(&of_three, &of_five, 3), (&of_five, &of_three, 1)] {
        let refused = here.check(there, NodeId(peer));
        let reported = refused.expect_err("other members").to_string();
        assert!(
            reported.contains("[1, 2, 3];") || reported.contains("[1, 2, 3]."),
            "{reported}"
        );
        assert!(
            reported.contains("[1, 2, 3, 4, 5]") && reported.contains("`peers`"),
            "{reported}"
        );
    }
    let other_members_as_many = hello(3, [1, 3, 4], "locks = raft");
    assert!(of_three.check(&other_members_as_many, NodeId(3)).is_err());
}

#[tokio::test]
async fn different_members_are_refused_with_both_lists_printed() {
    let world = World::new(3);
    let mut one = world.config(1);
    one.peers.remove(&NodeId(3));
    let (dialler, listener) = meet(&world, one).await;
    for reported in [dialler, listener] {
        assert!(
            reported.contains("[1, 2]") && reported.contains("[1, 2, 3]"),
            "{reported}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let world = World::new(1);
    let issued = world.authority.issue_node("test", NodeId(1)).unwrap();
    let folder = std::env::temp_dir().join(format!("trilemma-identity-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = write("ca.pem", world.authority.certificate_pem());
    let certificate = write("node.pem", &issued.certificate_pem);
    let key = write("node.key", &issued.key_pem);
    set_mode(&key, 0o600);
    let empty = write("empty.pem", "no certificate");
    let missing = folder.join("missing.pem");
    let good = Identity::load(&authority, &certificate, &key).expect("all three are good");
    assert_eq!(good.subject().unwrap().to_string(), "node 1 of cluster \"test\"");
    for (files, culprit) in [
        ([&missing, &certificate, &key], "missing.pem"),
        ([&authority, &empty, &key], "empty.pem: no PEM certificate"),
        (
            [&authority, &certificate, &empty],
            "empty.pem: no PEM private key",
        ),
        (
            [&authority, &certificate, &certificate],
            "node.pem: no PEM private key",
        ),
    ] {
        let error = Identity::load(files[0], files[1], files[2])
            .expect_err(culprit)
            .to_string();
        assert!(error.contains(culprit), "{error}");
    }
    for (mode, is_good) in [
        (0o400, true),
        (0o640, true),
        (0o644, false),
        (0o604, false),
        (0o602, false),
    ] {
        set_mode(&key, mode);
        let found = Identity::load(&authority, &certificate, &key);
        assert_eq!(found.is_ok(), is_good, "mode {mode:o}");
        if let Err(error) = found {
            let error = error.to_string();
            assert!(
                error.contains("node.key: everybody may use the private key"),
                "{error}"
            );
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_certificate_says_how_long_it_is_valid() {
    let world = World::new(1);
    let validity = world.identity(1).validity().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    assert!(
        validity.from <= now && now < validity.until,
        "{validity:?} at {now}"
    );
}

#[test]
fn l9_times_of_connections_follow_the_silence_that_nodes_bear() {
    let far = Timing::of(Duration::from_secs(3));
    assert_eq!(
        (far.idle, far.handshake),
        (Duration::from_secs(15), Duration::from_secs(12))
    );
    assert!(far.keep_alive * 3 < far.idle);
    let usual = Timing::default();
    assert_eq!(usual.idle, Duration::from_millis(1500));
    for odd in [Duration::ZERO, Duration::MAX] {
        let Timing { idle, handshake, .. } = Timing::of(odd);
        for time in [idle, handshake] {
            assert!(Duration::from_secs(1) <= time && time <= Duration::from_secs(60));
        }
    }
}
