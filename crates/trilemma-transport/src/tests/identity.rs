//! Who is let in: certificates, names, keyspace tables.

use rcgen::ExtendedKeyUsagePurpose;

use super::*;
use crate::TransportError;
use crate::identity::{Subject, server_name};

/// Binds node 2 and lets a node 1 with this configuration dial it; returns what both were told.
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
    // Node 3 sits at node 2's address: whoever dials node 2 finds out by the certificate.
    let mut config = world.config(3);
    config.listen = world.addresses[&NodeId(2)];
    let (_three, _events) = Transport::bind(config).unwrap();
    let (_one, mut events) = world.bind(1);
    let told = refusal(&mut events).await;
    assert!(
        told.contains("node-3") || told.contains("node 3") || told.contains("not valid for name"),
        "{told}"
    );
}

#[tokio::test]
async fn a_client_certificate_cannot_open_a_peer_connection() {
    let world = World::new(2);
    let (_two, mut events) = world.bind(2);
    let issued = world.authority.issue_client("test", "alice").unwrap();
    let identity = world.pem(&issued.certificate_pem, &issued.key_pem);
    let client = crate::tls::client(&identity, crate::tls::PEER).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = server_name("test", NodeId(2));
    let connection = endpoint
        .connect_with(client, world.addresses[&NodeId(2)], &name)
        .unwrap()
        .await
        .unwrap();
    let told = refusal(&mut events).await;
    assert!(told.contains("client \"alice\""), "{told}");
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
    let told = refusal(&mut events).await;
    assert!(told.contains("TLS"), "{told}");
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
    for told in [dialler, listener] {
        assert!(
            told.contains("locks = raft") && told.contains("locks = paxos"),
            "{told}"
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
