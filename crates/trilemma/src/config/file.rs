//! The configuration file: its shape, and errors that show where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use trilemma_core::{Backend, NodeId, NodeSet};
use trilemma_runtime::{Durability, GossipSettings, KeyspaceConfig, MembershipSettings, Tuning};

use super::{Config, ConfigBuilder};
use crate::error::{ConfigError, Error, Result};

/// A configuration file larger than this is not one.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    cluster: Option<String>,
    node: u32,
    listen: IpAddress,
    data: PathBuf,
    #[serde(default)]
    peers: BTreeMap<String, IpAddress>,
    tls: Tls,
    signing: Option<Signing>,
    keyspaces: BTreeMap<String, Keyspace>,
    membership: Option<MembershipFile>,
    #[serde(default)]
    tuning: TuningFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Keys of the changes of keyspaces with signatures.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signing {
    key: PathBuf,
    public_keys: BTreeMap<String, PublicKeys>,
}

/// The public keys of a node: its present one, and those of which something may live.
#[derive(Deserialize)]
#[serde(untagged)]
enum PublicKeys {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(tag = "backend", rename_all = "kebab-case", deny_unknown_fields)]
enum Keyspace {
    Gossip {
        #[serde(default)]
        merge: Merge,
        #[serde(default)]
        durability: DurabilityName,
        tick_ms: Option<u64>,
        fanout: Option<u32>,
        #[serde(default)]
        groups: Vec<Vec<u32>>,
        #[serde(default)]
        top_senders_percent: u8,
        vouchers: Option<u32>,
        #[serde(default)]
        trusted: Vec<u32>,
        origins: Option<Vec<u32>>,
        signatures: Option<Required>,
    },
    Raft {},
    Paxos {},
    TwoPhase {},
}

/// Where nodes listen and find each other: an IP address, for nobody may resolve names while a cluster comes up.
struct IpAddress(SocketAddr);

impl<'de> Deserialize<'de> for IpAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            serde::de::Error::custom(format!(
                "\"{shown}\" is no IP address with a port, such as 10.0.0.1:7400; nodes do not resolve names of hosts, \
                 only clients do"
            ))
        })
    }
}

/// The one thing that signatures can be, other than left out.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Required {
    Required,
}

/// How concurrent values are resolved.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Merge {
    #[default]
    LastWriterWins,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DurabilityName {
    None,
    Os,
    #[default]
    Fsync,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningFile {
    ping_interval_ms: Option<u64>,
    peer_timeout_ms: Option<u64>,
    raft_heartbeat_ms: Option<u64>,
    raft_election_timeout_ms: Option<u64>,
    paxos_round_timeout_ms: Option<u64>,
    two_phase_prepare_timeout_ms: Option<u64>,
    segment_bytes: Option<u64>,
    snapshot_log_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MembershipFile {
    #[serde(default)]
    zone: String,
    period_ms: Option<u64>,
    answer_ms: Option<u64>,
}

/// Reads a configuration file as text.
pub(crate) fn read(path: &Path) -> Result<String> {
    let failed = |why: String| {
        Error::from(ConfigError::Read {
            path: path.to_path_buf(),
            why,
        })
    };
    let size = std::fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!(
            "it has {size} bytes, a configuration has at most {FILE_BYTES_MAX}"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// Parses TOML into `T`; errors name `origin`, line and column.
pub(crate) fn from_toml<T: for<'de> Deserialize<'de>>(text: &str, origin: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((0, 0), |span| position(text, span.start));
        ConfigError::Parse {
            origin: origin.into(),
            line,
            column,
            why: error.message().trim().into(),
        }
        .into()
    })
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

pub(super) fn parse(text: &str, origin: &str, base: &Path) -> Result<Config> {
    let file: File = from_toml(text, origin)?;
    let within = |path: PathBuf| base.join(path);
    let mut builder = ConfigBuilder::new(NodeId(file.node))
        .listen(file.listen.0)
        .data(within(file.data))
        .identity_files(
            within(file.tls.ca),
            within(file.tls.certificate),
            within(file.tls.key),
        )
        .tuning(file.tuning.into());
    if let Some(membership) = file.membership {
        builder = builder.membership(membership.into());
    }
    if let Some(cluster) = file.cluster {
        builder = builder.cluster(cluster);
    }
    for (node, address) in by_id(file.peers, "peers", origin)? {
        builder = builder.peer(node.0, address.0);
    }
    if let Some(signing) = file.signing {
        builder = builder.signing_file(within(signing.key));
        for (node, keys) in by_id(signing.public_keys, "public_keys", origin)? {
            let keys = match keys {
                PublicKeys::One(key) => vec![key],
                PublicKeys::Several(keys) => keys,
            };
            for key in keys {
                builder = builder.public_key(node.0, key);
            }
        }
    }
    for (name, keyspace) in file.keyspaces {
        builder = builder.keyspace_with(name, keyspace.into());
    }
    builder.build().map_err(|error| match error {
        Error::Config(ConfigError::Invalid(what)) => ConfigError::Invalid(format!("{origin}: {what}")).into(),
        other => other,
    })
}

/// Addresses by node id. The keys of a TOML table are text: as such 10 comes before 2, and 2 is not 02.
pub(crate) fn by_id<A>(table: BTreeMap<String, A>, key: &str, origin: &str) -> Result<BTreeMap<NodeId, A>> {
    let mut found = BTreeMap::new();
    for (text, address) in table {
        let node = text.parse().map(NodeId).map_err(|_| {
            ConfigError::Invalid(format!(
                "{origin}: `{key}` names node \"{text}\": a node id is a number from 1"
            ))
        })?;
        if found.insert(node, address).is_some() {
            let what = format!("{origin}: `{key}` names node {node} twice, the second time as \"{text}\"");
            return Err(ConfigError::Invalid(what).into());
        }
    }
    Ok(found)
}

impl From<Keyspace> for KeyspaceConfig {
    fn from(keyspace: Keyspace) -> Self {
        match keyspace {
            Keyspace::Gossip {
                merge: Merge::LastWriterWins,
                durability,
                tick_ms,
                fanout,
                groups,
                top_senders_percent,
                vouchers,
                trusted,
                origins,
                signatures,
            } => {
                let nodes = |ids: Vec<u32>| ids.into_iter().map(NodeId).collect::<NodeSet>();
                let usual = GossipSettings::default();
                let gossip = GossipSettings {
                    tick: tick_ms.map_or(usual.tick, Duration::from_millis),
                    fanout: fanout.unwrap_or(usual.fanout),
                    groups: groups.into_iter().map(nodes).collect(),
                    top_senders_percent,
                    vouchers: vouchers.unwrap_or(usual.vouchers),
                    trusted: nodes(trusted),
                    origins: origins.map(nodes),
                    signatures: signatures == Some(Required::Required),
                };
                let durability = match durability {
                    DurabilityName::None => Durability::None,
                    DurabilityName::Os => Durability::Os,
                    DurabilityName::Fsync => Durability::Fsync,
                };
                KeyspaceConfig {
                    durability,
                    gossip,
                    ..KeyspaceConfig::new(Backend::Gossip)
                }
            }
            Keyspace::Raft {} => KeyspaceConfig::new(Backend::Raft),
            Keyspace::Paxos {} => KeyspaceConfig::new(Backend::Paxos),
            Keyspace::TwoPhase {} => KeyspaceConfig::new(Backend::TwoPhase),
        }
    }
}

impl From<MembershipFile> for MembershipSettings {
    fn from(file: MembershipFile) -> Self {
        let usual = Self::default();
        Self {
            zone: file.zone,
            period: file.period_ms.map_or(usual.period, Duration::from_millis),
            answer: file.answer_ms.map_or(usual.answer, Duration::from_millis),
            ..usual
        }
    }
}

impl From<TuningFile> for Tuning {
    fn from(file: TuningFile) -> Self {
        let mut tuning = Tuning::default();
        let set = |target: &mut Duration, millis: Option<u64>| {
            if let Some(millis) = millis {
                *target = Duration::from_millis(millis);
            }
        };
        set(&mut tuning.liveness.interval, file.ping_interval_ms);
        set(&mut tuning.liveness.timeout, file.peer_timeout_ms);
        set(&mut tuning.raft_heartbeat, file.raft_heartbeat_ms);
        set(&mut tuning.raft_election_timeout, file.raft_election_timeout_ms);
        set(&mut tuning.paxos_round_timeout, file.paxos_round_timeout_ms);
        set(
            &mut tuning.two_phase_prepare_timeout,
            file.two_phase_prepare_timeout_ms,
        );
        tuning.segment_bytes = file.segment_bytes.unwrap_or(tuning.segment_bytes);
        tuning.snapshot_log_bytes = file.snapshot_log_bytes.unwrap_or(tuning.snapshot_log_bytes);
        tuning
    }
}
