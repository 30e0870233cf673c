//! From options to an open keyspace.

use std::path::{Path, PathBuf};

use trilemma::{Address, Backend, Client, ClientConfig, Keyspace, Needs, NodeId, Server};

use super::Global;
use crate::exit::{Exit, Failure};

/// The variable that names the client configuration.
const CONFIG_VARIABLE: &str = "TRILEMMA_CONFIG";
/// Where the configuration is looked for when nobody says.
const CONFIG_DEFAULTS: [&str; 2] = ["client.toml", "trilemma/client.toml"];

/// Connects as the options say.
pub(super) async fn connect(global: &Global) -> Result<Client, Failure> {
    let path = config_path(global)?;
    let mut config = ClientConfig::load(&path)?;
    if !global.server.is_empty() {
        let servers = global
            .server
            .iter()
            .map(|text| server(text, &config.servers, &path));
        config.servers = servers.collect::<Result<_, _>>()?;
    }
    config.timeout = config.timeout.min(global.timeout);
    let tried = config.servers.clone();
    Client::connect(config).await.map_err(|error| {
        let mut failure = Failure::from(error);
        if failure.exit == Exit::Connection {
            let tried: Vec<String> = tried
                .iter()
                .map(|s| format!("node {} at {}", s.node, s.address))
                .collect();
            failure.advice = format!(
                "start a node with `trilemma serve`, or name a running one with `--server`; tried {}",
                tried.join(", ")
            );
        }
        failure
    })
}

fn config_path(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(path) = &global.config {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os(CONFIG_VARIABLE) {
        return Ok(path.into());
    }
    let found = CONFIG_DEFAULTS.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_path_buf).ok_or_else(|| {
        Failure::new(
            Exit::Start,
            format!(
                "no client configuration: neither {} exists",
                CONFIG_DEFAULTS.join(" nor ")
            ),
            format!("give --config FILE or set {CONFIG_VARIABLE}; `trilemma init` writes one"),
        )
    })
}

/// A server as an operator names it: its id, its address, or both.
fn server(text: &str, known: &[Server], path: &Path) -> Result<Server, Failure> {
    let wrong = |what: String| {
        let listed: Vec<String> = known
            .iter()
            .map(|s| format!("{}={}", s.node, s.address))
            .collect();
        Failure::usage(
            format!("--server {text}: {what}"),
            format!(
                "give ID=ADDRESS, or one of {} ({})",
                listed.join(", "),
                path.display()
            ),
        )
    };
    if let Some((node, address)) = text.split_once('=') {
        let node = node
            .parse()
            .map_err(|_| wrong(format!("\"{node}\" is not a node id")))?;
        let address = address
            .parse()
            .map_err(|error: trilemma::ParseAddressError| wrong(error.to_string()))?;
        return Ok(Server {
            node: NodeId(node),
            address,
        });
    }
    if let Ok(node) = text.parse() {
        let found = known.iter().find(|server| server.node == NodeId(node));
        return found
            .cloned()
            .ok_or_else(|| wrong("no such node in the client configuration".into()));
    }
    let address: Address = text
        .parse()
        .map_err(|_| wrong("neither a node id nor an address".into()))?;
    let found = known.iter().find(|server| server.address == address);
    found.cloned().ok_or_else(|| {
        wrong("the address is not in the client configuration, so its node id is not known".into())
    })
}

/// The strongest need that every backend can meet by itself.
pub(crate) const fn strongest(backend: Backend) -> Needs {
    match backend {
        Backend::Gossip => Needs::Available,
        Backend::Paxos => Needs::Linearizable,
        Backend::Raft | Backend::TwoPhase => Needs::Atomic,
    }
}

/// Connects and opens a keyspace: for `--needs`, or for the most that its backend offers.
pub(super) async fn open(global: &Global, name: &str) -> Result<Keyspace, Failure> {
    let client = connect(global).await?;
    let needs = match global.needs {
        Some(need) => need.into(),
        None => {
            let overview = client.overview().await?;
            let found = overview.keyspaces.iter().find(|keyspace| keyspace.name == name);
            // A name that does not exist is refused below, with the names that do.
            found.map_or(Needs::Available, |keyspace| strongest(keyspace.backend))
        }
    };
    Ok(client.keyspace(name, needs).await?.with_timeout(global.timeout))
}
