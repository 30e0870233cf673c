//! Builds a configuration in code, with the same checks as a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use trilemma_core::{Backend, NodeId, NodeSet};
use trilemma_runtime::{
    Identity, KeyspaceConfig, MembershipSettings, NodeConfig, PublicKey, SigningKey, SigningKeys, Tuning,
};

use super::{Config, NODES_MAX, check};
use crate::error::{ConfigError, Result};

/// Builds a [`Config`]. Nothing is checked before [`ConfigBuilder::build`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    node: NodeId,
    cluster: String,
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    new_node: bool,
    peers: BTreeMap<NodeId, SocketAddr>,
    keyspaces: BTreeMap<String, KeyspaceConfig>,
    identity: Option<Credentials>,
    membership: Option<MembershipSettings>,
    signing: Option<SigningSource>,
    public_keys: Vec<(NodeId, String)>,
    tuning: Tuning,
}

#[derive(Clone)]
enum SigningSource {
    File(PathBuf),
    Pem(String),
}

impl std::fmt::Debug for SigningSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SigningSource::File(path) => write!(f, "File({})", path.display()),
            SigningSource::Pem(_) => f.write_str("Pem(..)"),
        }
    }
}

#[derive(Clone, Debug)]
enum Credentials {
    Files {
        ca: PathBuf,
        certificate: PathBuf,
        key: PathBuf,
    },
    Pem {
        ca: String,
        certificate: String,
        key: String,
    },
}

impl ConfigBuilder {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            cluster: "trilemma".into(),
            listen: None,
            data: None,
            new_node: false,
            peers: BTreeMap::new(),
            keyspaces: BTreeMap::new(),
            identity: None,
            membership: None,
            signing: None,
            public_keys: Vec::new(),
            tuning: Tuning::default(),
        }
    }

    /// The cluster's name, as in the certificates. Default `trilemma`.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// The UDP address to listen on. Needed.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// The directory for the log and snapshots; it belongs to this node alone. Needed.
    #[must_use]
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Says that the node is new, so that an empty data directory is right; see [`Config::new_node`].
    #[must_use]
    pub fn new_node(mut self) -> Self {
        self.new_node = true;
        self
    }

    /// Another node and where it listens.
    #[must_use]
    pub fn peer(mut self, node: u32, address: SocketAddr) -> Self {
        self.peers.insert(NodeId(node), address);
        self
    }

    /// A keyspace with the backend's defaults.
    #[must_use]
    pub fn keyspace(self, name: impl Into<String>, backend: Backend) -> Self {
        self.keyspace_with(name, KeyspaceConfig::new(backend))
    }

    /// A keyspace.
    #[must_use]
    pub fn keyspace_with(mut self, name: impl Into<String>, config: KeyspaceConfig) -> Self {
        self.keyspaces.insert(name.into(), config);
        self
    }

    /// PEM files: the cluster's authority, this node's certificate and key. Needed, or their text.
    #[must_use]
    pub fn identity_files(
        mut self,
        ca: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let files = Credentials::Files {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        };
        self.identity = Some(files);
        self
    }

    /// PEM text: the cluster's authority, this node's certificate and key.
    #[must_use]
    pub fn identity_pem(
        mut self,
        ca: impl Into<String>,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        let pem = Credentials::Pem {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        };
        self.identity = Some(pem);
        self
    }

    /// Has members find out who of them works.
    #[must_use]
    pub fn membership(mut self, settings: MembershipSettings) -> Self {
        self.membership = Some(settings);
        self
    }

    /// The PEM file of the key with which this node signs changes in keyspaces that require [`signatures`]. It is no key of a
    /// certificate: what it signed must be verified for as long as the value lives.
    ///
    /// [`signatures`]: trilemma_runtime::GossipSettings::signatures
    #[must_use]
    pub fn signing_file(mut self, key: impl Into<PathBuf>) -> Self {
        self.signing = Some(SigningSource::File(key.into()));
        self
    }

    /// The same as PEM text.
    #[must_use]
    pub fn signing_pem(mut self, key: impl Into<String>) -> Self {
        self.signing = Some(SigningSource::Pem(key.into()));
        self
    }

    /// A public key of a node, this one or another: 64 hexadecimal digits. A node may have several, of which all but one are
    /// those that it had before.
    #[must_use]
    pub fn public_key(mut self, node: u32, key: impl Into<String>) -> Self {
        self.public_keys.push((NodeId(node), key.into()));
        self
    }

    /// Sizes and times that rarely need a change.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// Checks everything and loads the certificates.
    pub fn build(self) -> Result<Config> {
        let invalid = |what: String| Err(ConfigError::Invalid(what).into());
        if let Err(why) = check::check_cluster(&self.cluster) {
            return invalid(why);
        }
        let Some(listen) = self.listen else {
            return invalid(
                "`listen` is missing: the UDP address of this node, such as \"127.0.0.1:7400\"".into(),
            );
        };
        let Some(data) = self.data else {
            return invalid("`data` is missing: the directory for this node's log and snapshots".into());
        };
        if self.node.0 == 0 {
            return invalid("`node` is 0: node ids start at 1".into());
        }
        if self.peers.contains_key(&self.node) {
            return invalid(format!(
                "`peers` names node {}, which is this node itself",
                self.node
            ));
        }
        if self.peers.contains_key(&NodeId(0)) {
            return invalid("`peers` names node 0: node ids start at 1".into());
        }
        if self.peers.len() >= NODES_MAX {
            return invalid(format!(
                "{} nodes: the limit is {NODES_MAX}",
                self.peers.len() + 1
            ));
        }
        let members = self.peers.keys().copied().chain([self.node]).collect();
        if let Err(why) = check_keyspaces(&self.keyspaces, &members) {
            return invalid(why);
        }
        if let Some(Err(why)) = self.membership.as_ref().map(MembershipSettings::check) {
            return invalid(format!("membership: {why}"));
        }
        if let Err(why) = check::check_tuning(&self.tuning) {
            return invalid(why);
        }
        let identity = match self.identity {
            Some(Credentials::Files { ca, certificate, key }) => Identity::load(&ca, &certificate, &key),
            Some(Credentials::Pem { ca, certificate, key }) => {
                Identity::from_pem(ca.as_bytes(), certificate.as_bytes(), key.as_bytes())
            }
            None => {
                return invalid(
                    "`tls` is missing: peers speak mutual TLS only; `trilemma init` makes development certificates"
                        .into(),
                );
            }
        };
        let mut identity = identity.map_err(|error| ConfigError::Invalid(error.to_string()))?;
        if let Some(keys) = signing_keys(self.node, self.signing, self.public_keys)? {
            identity = identity.with_signing(keys);
        }
        Ok(Config(NodeConfig {
            cluster: self.cluster,
            node: self.node,
            listen,
            data,
            new_node: self.new_node,
            accept_disks: BTreeMap::new(),
            peers: self.peers,
            identity,
            keyspaces: self.keyspaces,
            membership: self.membership,
            tuning: self.tuning,
        }))
    }
}

fn signing_keys(
    node: NodeId,
    key: Option<SigningSource>,
    public_keys: Vec<(NodeId, String)>,
) -> Result<Option<SigningKeys>> {
    let key = match key {
        None => return Ok(None),
        Some(SigningSource::File(path)) => SigningKey::load(&path),
        Some(SigningSource::Pem(pem)) => SigningKey::from_pem(pem.as_bytes()),
    };
    let mut public: BTreeMap<NodeId, Vec<PublicKey>> = BTreeMap::new();
    for (of, text) in public_keys {
        let parsed = text.parse().map_err(|error| {
            ConfigError::Invalid(format!("`public_keys` of node {of}: {error}, and not \"{text}\""))
        })?;
        public.entry(of).or_default().push(parsed);
    }
    let keys = key.and_then(|key| SigningKeys::new(node, key, public));
    Ok(Some(
        keys.map_err(|error| ConfigError::Invalid(error.to_string()))?,
    ))
}

fn check_keyspaces(keyspaces: &BTreeMap<String, KeyspaceConfig>, members: &NodeSet) -> Result<(), String> {
    check::check_keyspaces(keyspaces.keys().map(String::as_str))?;
    for (name, keyspace) in keyspaces {
        keyspace
            .check()
            .and_then(|()| keyspace.check_members(members))
            .map_err(|why| format!("keyspace \"{name}\": {why}"))?;
    }
    Ok(())
}
