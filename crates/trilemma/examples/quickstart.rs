//! Three nodes in one process, three keyspaces with different choices: `cargo run -p trilemma --example quickstart`.
//!
//! The middle part is the example of the README. Around it stands what a real cluster gets from `trilemma init`:
//! certificates, addresses, directories.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use trilemma::pki::Authority;
use trilemma::{Backend, Config, ConfigError, Needs, Node, NodeId, Result};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("trilemma-quickstart-{}", std::process::id()));
    let mut nodes = Vec::new();
    for config in configurations(&directory)? {
        nodes.push(Node::start(config).await?);
    }
    let node = &nodes[0];
    wait_until_writable(node).await;

    let carts = node.keyspace("carts", Needs::Available)?;
    let locks = node.keyspace("locks", Needs::Linearizable)?;
    let orders = node.keyspace("orders", Needs::Atomic)?;

    carts.put("alice", "3 apples").await?; // answers even when partitioned
    if locks
        .compare_and_set("checkout/alice", None, "node-1")
        .await?
        .succeeded()
    {
        orders
            .transaction()
            .put("order/7", "alice")
            .put("stock/apple", "97")
            .commit()
            .await?;
    }

    let elsewhere = nodes[2].keyspace("orders", Needs::Atomic)?;
    println!("order 7, read at node 3: {:?}", elsewhere.get("order/7").await?);
    match node.keyspace("carts", Needs::Linearizable) {
        Err(error) => println!("refused, as it must be: {error}"),
        Ok(_) => return Err(failed(&"gossip was opened as linearizable")),
    }
    for node in nodes {
        node.shutdown().await?;
    }
    std::fs::remove_dir_all(&directory).map_err(|error| failed(&error))
}

fn failed(why: &dyn std::fmt::Display) -> trilemma::Error {
    ConfigError::Invalid(why.to_string()).into()
}

/// What `trilemma init` writes into files.
fn configurations(directory: &std::path::Path) -> Result<Vec<Config>> {
    let authority = Authority::generate("quickstart").map_err(|error| failed(&error))?;
    let sockets: std::io::Result<Vec<UdpSocket>> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let sockets = sockets.map_err(|error| failed(&error))?;
    let addresses: std::io::Result<Vec<SocketAddr>> = sockets.iter().map(UdpSocket::local_addr).collect();
    let addresses = addresses.map_err(|error| failed(&error))?;
    // The nodes bind the addresses themselves.
    drop(sockets);
    let mut configs = Vec::new();
    for (index, listen) in addresses.iter().enumerate() {
        let id = index as u32 + 1;
        let issued = authority
            .issue_node("quickstart", NodeId(id))
            .map_err(|error| failed(&error))?;
        let mut builder = Config::builder(id)
            .cluster("quickstart")
            .listen(*listen)
            .data(directory.join(format!("node-{id}")))
            .new_node()
            .identity_pem(
                authority.certificate_pem(),
                issued.certificate_pem,
                issued.key_pem,
            )
            .keyspace("carts", Backend::Gossip)
            .keyspace("locks", Backend::Raft)
            .keyspace("orders", Backend::TwoPhase);
        for (other, address) in addresses.iter().enumerate().filter(|(other, _)| *other != index) {
            builder = builder.peer(other as u32 + 1, *address);
        }
        configs.push(builder.build()?);
    }
    Ok(configs)
}

async fn wait_until_writable(node: &Node) {
    while !node.keyspaces().iter().all(|keyspace| keyspace.status.can_write) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
