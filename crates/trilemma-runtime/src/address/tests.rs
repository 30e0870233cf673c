//! Addresses as text, and what they stand for.

use super::*;

#[test]
fn addresses_are_host_and_port() {
    for text in [
        "127.0.0.1:7400",
        "[::1]:7400",
        "node-1:7400",
        "node_1.example.:1",
        "10.0.0.1.nip.io:65535",
    ] {
        let address: Address = text.parse().expect(text);
        assert_eq!(address.to_string(), text);
    }
    for text in [
        "",
        "node-1",
        "node-1:",
        ":7400",
        "node 1:7400",
        "::1:7400",
        "10.0.0.256:7400",
        "node:70000",
        "a/b:1",
    ] {
        let refused = text.parse::<Address>();
        assert!(refused.is_err(), "{text}: {refused:?}");
    }
}

#[tokio::test]
async fn a_name_stands_for_its_addresses() {
    let resolve = |text: &str| {
        let address: Address = text.parse().expect("an address");
        async move { address.resolve().await }
    };
    let literal = resolve("127.0.0.1:7400").await.expect("it is one");
    assert_eq!(literal, ["127.0.0.1:7400".parse().expect("an address")]);
    let six = resolve("[::1]:7400").await.expect("it is one");
    assert_eq!(six, ["[::1]:7400".parse().expect("an address")]);
    let named = resolve("localhost:7400").await.expect("it has addresses");
    assert!(
        named
            .iter()
            .all(|address| address.ip().is_loopback() && address.port() == 7400)
    );
}
