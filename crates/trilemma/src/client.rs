//! A client of nodes on other machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use trilemma_core::{Needs, NodeId};
use trilemma_runtime::{Address, Identity, MembershipOverview, NodeOverview, Remote, RemoteConfig};

use crate::config::Config;
use crate::error::{ConfigError, Result};
use crate::keyspace::Keyspace;
use crate::node::{check, no_such};

/// How a client reaches a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster's name, as in the certificates.
    pub cluster: String,
    /// PEM file of the cluster's authority.
    pub ca: PathBuf,
    /// PEM file of the client's certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// The nodes, tried in this order.
    pub servers: Vec<Server>,
    /// Longest time for a connection to be made. Default 2 s.
    pub timeout: Duration,
}

/// A node as a client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its id, which its certificate must show.
    pub node: NodeId,
    /// Where it listens. The name of a host is resolved again for each connection.
    pub address: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    cluster: Option<String>,
    servers: std::collections::BTreeMap<String, ServerAddress>,
    tls: Tls,
    #[serde(default)]
    connect_timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// An address as the file has it.
struct ServerAddress(Address);

impl<'de> Deserialize<'de> for ServerAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Time for a connection to be made when the configuration does not say.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

impl ClientConfig {
    /// Reads a client's configuration file. Relative paths in it are relative to the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = path.display().to_string();
        let file: File = crate::config::from_toml(&crate::config::read(path)?, &origin)?;
        let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let servers = crate::config::by_id(file.servers, "servers", &origin)?
            .into_iter()
            .map(|(node, ServerAddress(address))| Server { node, address })
            .collect();
        Ok(Self {
            cluster: file.cluster.unwrap_or_else(|| "trilemma".into()),
            ca: base.join(file.tls.ca),
            certificate: base.join(file.tls.certificate),
            key: base.join(file.tls.key),
            servers,
            timeout: file
                .connect_timeout_ms
                .map_or(CONNECT_TIMEOUT_DEFAULT, Duration::from_millis),
        })
    }

    /// The configuration of a client that uses a node's own certificate and reaches that node alone.
    #[must_use]
    pub fn of_node(config: &Config, ca: PathBuf, certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            cluster: config.cluster().into(),
            ca,
            certificate,
            key,
            servers: vec![Server {
                node: config.node(),
                address: config.listen().into(),
            }],
            timeout: CONNECT_TIMEOUT_DEFAULT,
        }
    }
}

/// A client of a cluster.
///
/// It prefers the first server and goes on to another when one cannot be reached, is lost, or refuses for certain what
/// another may serve (no majority, no leader, recovering, stopping). When every server has refused, the first refusal
/// is the answer, at once. The time limit of an operation covers all of it.
///
/// A read whose connection was lost goes again by itself, and so does a write, under the same id, so that it has one effect.
/// A write of a `gossip` keyspace does not, and ends as [`WriteError::Unknown`](crate::WriteError::Unknown): its id is known
/// to the node that took it alone, and repeating it under its id goes to that node only.
#[derive(Clone, Debug)]
pub struct Client(Arc<Remote>);

impl Client {
    /// Connects to the first server that answers.
    pub async fn connect(config: ClientConfig) -> Result<Client> {
        if config.servers.is_empty() {
            return Err(ConfigError::Invalid("no server is configured: `servers` is empty".into()).into());
        }
        let identity = Identity::load(&config.ca, &config.certificate, &config.key)
            .map_err(|error| ConfigError::Invalid(error.to_string()))?;
        let servers = config
            .servers
            .iter()
            .map(|server| (server.node, server.address.clone()))
            .collect();
        let remote = RemoteConfig {
            cluster: config.cluster,
            identity,
            servers,
            connect_timeout: config.timeout,
        };
        Ok(Client(Remote::connect(remote).await?))
    }

    /// Opens a keyspace for what the code needs of it; refused, with what would be lost, if its backend cannot.
    pub async fn keyspace(&self, name: &str, needs: Needs) -> Result<Keyspace> {
        self.open(name, needs, None).await
    }

    /// The same, at one server: no other is asked, whatever becomes of it.
    pub async fn keyspace_at(&self, server: NodeId, name: &str, needs: Needs) -> Result<Keyspace> {
        self.open(name, needs, Some(server)).await
    }

    async fn open(&self, name: &str, needs: Needs, server: Option<NodeId>) -> Result<Keyspace> {
        let overview = self.overview().await?;
        let Some(found) = overview.keyspaces.iter().find(|keyspace| keyspace.name == name) else {
            return Err(no_such(name, overview.keyspaces.iter().map(|k| k.name.as_str())).into());
        };
        check(name, needs, found.backend)?;
        Ok(Keyspace::new(name, needs, self.0.replicator(found, server)))
    }

    /// Whom the connected node knows as members; `None` where membership is not configured.
    pub async fn members(&self) -> Result<Option<MembershipOverview>> {
        Ok(self.0.members().await?)
    }

    /// How the connected node stands: peers, keyspaces, log.
    pub async fn overview(&self) -> Result<NodeOverview> {
        Ok(self.0.overview().await?)
    }
}
