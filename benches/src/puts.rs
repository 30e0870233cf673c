//! `bench cluster`: puts, for each backend and number of clients, and the same on etcd and ZooKeeper.

use std::path::Path;
use std::time::{Duration, Instant};

use trilemma::Backend;

use crate::Result;
use crate::cluster::{Cluster, cpu_of, keyspace, one_of_each};
use crate::load::{self, Load, nanos, new_histogram};
use crate::report::Measurement;
use crate::{etcd, zookeeper};

/// Keys of each client. Enough that CASPaxos and two-phase see both fresh and repeated keys.
const KEYS_PER_CLIENT: u64 = 100;
/// Time for a client's round trip to an idle node.
const ROUND_TRIP: Duration = Duration::from_secs(2);

/// What is asked of each system.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backends to load.
    #[arg(long, value_delimiter = ',', default_value = "gossip,raft,paxos,two-phase")]
    pub backends: Vec<Backend>,
    /// Numbers of clients, each with one operation in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub clients: Vec<usize>,
    /// Seconds for each level, after a warm-up until two seconds in a row agree.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let cluster = Cluster::start(binary, directory, &one_of_each(&options.backends)).await?;
    let mut found = vec![round_trip(&cluster).await?];
    for backend in &options.backends {
        for clients in &options.clients {
            eprintln!("{backend}, {clients} clients …");
            let load = puts(&cluster, *backend, *clients, options).await?;
            found.push(load.measurement(backend.name(), "puts/s"));
        }
    }
    Ok(found)
}

/// A client's round trip to a node that has nothing to do but answer: what QUIC, the event loops and the codec cost
/// without any protocol.
async fn round_trip(cluster: &Cluster) -> Result<Measurement> {
    let client = trilemma::Client::connect(cluster.config()?).await?;
    let mut histogram = new_histogram()?;
    let end = Instant::now() + ROUND_TRIP;
    while Instant::now() < end {
        let start = Instant::now();
        client.overview().await?;
        histogram.saturating_record(nanos(start.elapsed()));
    }
    Ok(Measurement::new("QUIC round trip", "1 client, idle node").times("round trip", &histogram))
}

/// Puts into the keyspace of a backend.
pub(crate) async fn puts(
    cluster: &Cluster,
    backend: Backend,
    clients: usize,
    options: &Options,
) -> Result<Load> {
    let handle = cluster.handle(&keyspace(backend), backend).await?;
    let value = bytes::Bytes::from(vec![b'v'; options.value_bytes]);
    let processes = cluster.processes();
    load::closed(
        clients,
        options.time(),
        move || cpu_of(&processes),
        move |client, sequence| {
            let (handle, value) = (handle.clone(), value.clone());
            async move {
                let put = handle.put(key(client, sequence), value).await;
                put.map(drop).map_err(|error| error.to_string())
            }
        },
    )
    .await
}

/// The key of a client's operation.
pub(crate) fn key(client: usize, sequence: u64) -> String {
    format!("client/{client}/{}", sequence % KEYS_PER_CLIENT)
}

/// Measures etcd and ZooKeeper, those that are wanted and installed.
pub async fn others(directory: &Path, options: &Options, wanted: &Others) -> Result<Vec<Measurement>> {
    let mut found = Vec::new();
    if let Some((etcd, version)) = wanted.etcd(directory).await? {
        for clients in &options.clients {
            eprintln!("{version}, {clients} clients …");
            let load = etcd.puts(*clients, options.value_bytes, options.time()).await?;
            found.push(load.measurement(&version, "puts/s"));
        }
    }
    if let Some((zookeeper, version)) = wanted.zookeeper(directory).await? {
        for clients in &options.clients {
            eprintln!("{version}, {clients} clients …");
            let load = zookeeper
                .puts(*clients, options.value_bytes, options.time())
                .await?;
            found.push(load.measurement(&version, "puts/s"));
        }
    }
    Ok(found)
}

/// Which other systems are measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Others {
    /// Leave etcd out even if it is installed.
    #[arg(long)]
    pub no_etcd: bool,
    /// Leave ZooKeeper out even if it is installed.
    #[arg(long)]
    pub no_zookeeper: bool,
}

impl Others {
    /// A running etcd, if it is wanted and installed.
    pub(crate) async fn etcd(&self, directory: &Path) -> Result<Option<(etcd::Etcd, String)>> {
        if self.no_etcd {
            return Ok(None);
        }
        let Some(version) = etcd::version().await else {
            eprintln!("etcd is not installed; it is left out of the comparison");
            return Ok(None);
        };
        Ok(Some((etcd::Etcd::start(directory).await?, version)))
    }

    /// A running ZooKeeper, if it is wanted and installed.
    pub(crate) async fn zookeeper(&self, directory: &Path) -> Result<Option<(zookeeper::ZooKeeper, String)>> {
        if self.no_zookeeper {
            return Ok(None);
        }
        let Some(version) = zookeeper::version().await else {
            eprintln!("ZooKeeper is not installed (Debian: zookeeper); it is left out of the comparison");
            return Ok(None);
        };
        Ok(Some((zookeeper::ZooKeeper::start(directory).await?, version)))
    }
}
