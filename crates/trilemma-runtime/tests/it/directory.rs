//! Data directories: one that an earlier version has written starts, and nothing in it is lost.
//!
//! The directories of earlier versions are in `tests/fixtures`, packed: log segments are mostly zeros, so only what is
//! not zero is kept. To keep the directory that the present version writes, run this module's tests with
//! `TRILEMMA_FIXTURE` set to the name of a file to be made.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use trilemma_core::replicator::OpContext;
use trilemma_core::{
    Attempt, Backend, Command, Epoch, Guard, Key, Mutation, NodeId, OpId, Query, ReadLevel, ReadRequest,
    SessionId, SharedReplicator, Version,
};
use trilemma_runtime::pki::Authority;
use trilemma_runtime::{Identity, KeyspaceConfig, NodeConfig, NodeError, NodeHandle, Tuning};

/// Keys of the raft keyspace.
const KEYS: u64 = 1000;
/// Puts of one operation, where a keyspace takes more than one.
const BATCH: u64 = 5;
/// Operations of each session of every keyspace.
const OPERATIONS: u64 = 10;
/// Operations of each session before the snapshot; the others are in the log behind it.
const OPERATIONS_BEFORE: u64 = OPERATIONS * 7 / 10;
/// Sessions that wrote to a keyspace. Raft has the most: it keeps a result for each operation of each of them.
const fn sessions(backend: Backend) -> u64 {
    match backend {
        Backend::Raft => KEYS / BATCH / OPERATIONS,
        _ => 2,
    }
}

/// A run of zeros shorter than this is kept as it is.
const ZEROS_MIN: usize = 16;

/// A cluster of one node, whose directory can be opened alone.
pub(crate) fn config(authority: &Authority, data: &Path, snapshot_log_bytes: u64) -> NodeConfig {
    let issued = authority.issue_node("test", NodeId(1)).expect("a certificate");
    let identity = Identity::from_pem(
        authority.certificate_pem().as_bytes(),
        issued.certificate_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    );
    NodeConfig {
        cluster: "test".into(),
        node: NodeId(1),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data: data.to_path_buf(),
        new_node: true,
        accept_disks: BTreeMap::new(),
        peers: BTreeMap::new(),
        identity: identity.expect("our own PEM is read"),
        keyspaces: Backend::ALL
            .map(|backend| (backend.name().to_owned(), KeyspaceConfig::new(backend)))
            .into(),
        membership: None,
        tuning: Tuning {
            segment_bytes: 16 * 1024 * 1024,
            snapshot_log_bytes,
            snapshot_state_percent: 0,
            ..Tuning::default()
        },
    }
}

/// Starts a node whose former incarnation has just ended. Until a snapshot that it was writing is finished, the directory
/// is in use.
pub(crate) async fn start_again(config: NodeConfig) -> Result<NodeHandle, NodeError> {
    for _ in 0..1000 {
        match NodeHandle::start(config.clone()).await {
            Err(error) if error.to_string().contains("in use by another process") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            started => return started,
        }
    }
    NodeHandle::start(config).await
}

pub(crate) fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&target).expect("the target directory can be made");
    tempfile::tempdir_in(target).expect("a directory can be made")
}

pub(crate) async fn keyspace(node: &NodeHandle, backend: Backend) -> SharedReplicator {
    let found = node
        .keyspaces()
        .into_iter()
        .find(|(name, _)| name == backend.name());
    let keyspace = found.expect("every backend has a keyspace").1;
    let status = keyspace.status();
    let ready = status.wait_for(|status| status.can_write);
    let waited = tokio::time::timeout(Duration::from_secs(20), ready).await;
    waited.unwrap_or_else(|_| panic!("{backend}: {:?}", status.current()));
    keyspace
}

fn context(session: u64, seq: u64, attempt: Attempt) -> OpContext {
    let session = SessionId {
        basis: Version::ABSENT,
        nonce: 0x7e57 + session,
    };
    OpContext {
        op: OpId { session, seq },
        attempt,
        timeout: Duration::from_secs(10),
        epoch: Epoch(1),
    }
}

/// The keys that one operation writes, all to the same value.
fn keys(backend: Backend, session: u64, seq: u64) -> impl Iterator<Item = String> {
    let count = if backend == Backend::Paxos { 1 } else { BATCH };
    (0..count).map(move |index| format!("{session}/{seq}/{index}"))
}

fn value(session: u64, seq: u64) -> String {
    format!("v{session}.{seq}")
}

fn command(backend: Backend, session: u64, seq: u64) -> Command {
    let put = |key: String| Mutation::Put {
        key: Key::from(key),
        value: value(session, seq).as_str().into(),
        lease: None,
    };
    Command {
        guards: Vec::<Guard>::new(),
        mutations: keys(backend, session, seq).map(put).collect(),
    }
}

/// Writes these operations of each session to every keyspace.
async fn write(node: &NodeHandle, operations: std::ops::RangeInclusive<u64>) {
    for backend in Backend::ALL {
        let at = keyspace(node, backend).await;
        for seq in operations.clone() {
            let writes = (1..=sessions(backend)).map(|session| {
                let at = at.clone();
                tokio::spawn(async move {
                    let context = context(session, seq, Attempt::First);
                    at.write(&context, command(backend, session, seq)).await
                })
            });
            for write in writes.collect::<Vec<_>>() {
                let written = write.await.expect("no panic");
                written.unwrap_or_else(|error| panic!("{backend}, {seq}: {error}"));
            }
        }
    }
}

/// A directory with a snapshot and a log behind it.
async fn write_directory(authority: &Authority, data: &Path) {
    let node = NodeHandle::start(config(authority, data, 1))
        .await
        .expect("a new node starts");
    write(&node, 1..=OPERATIONS_BEFORE).await;
    // With this setting a snapshot is due after every record.
    let last = node.overview().await.expect("the node runs").log.last;
    let snapshot = async {
        while node.overview().await.expect("the node runs").log.snapshot < last {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), snapshot).await;
    waited.expect("a snapshot of everything");
    node.shutdown().await.expect("a clean end");
    let node = start_again(config(authority, data, 128 * 1024 * 1024)).await;
    let node = node.expect("it starts again");
    write(&node, OPERATIONS_BEFORE + 1..=OPERATIONS).await;
    node.shutdown().await.expect("a clean end");
}

/// Opens a directory that [`write_directory`] has made and finds everything in it.
async fn read_directory(authority: &Authority, data: &Path) {
    assert!(has_snapshot(data), "it must be restored from a snapshot too");
    let node = NodeHandle::start(config(authority, data, 128 * 1024 * 1024)).await;
    let node = node.expect("it starts");
    for backend in Backend::ALL {
        let at = keyspace(&node, backend).await;
        let mut count = 0;
        for session in 1..=sessions(backend) {
            for seq in 1..=OPERATIONS {
                for key in keys(backend, session, seq) {
                    // At the backend's own level: a local read of a node that has just started may show less, until the node
                    // has learned again what was chosen or committed.
                    let request = ReadRequest {
                        query: Query::Get(key.as_str().into()),
                        level: None,
                    };
                    let reply = at.read(&context(0, 0, Attempt::First), request).await;
                    let reply = reply.unwrap_or_else(|error| panic!("{backend}, {key}: {error}"));
                    let found = reply.value().map(|value| value.to_string());
                    assert_eq!(found, Some(value(session, seq)), "{backend}, {key}");
                    count += 1;
                }
            }
        }
        assert!(
            backend != Backend::Raft || count == KEYS,
            "{backend}: {count} keys"
        );
    }
    repeats_have_no_effect(&node).await;
    node.shutdown().await.expect("a clean end");
}

/// The session record was in the directory too: a repeat is answered with the first result.
async fn repeats_have_no_effect(node: &NodeHandle) {
    for backend in Backend::ALL {
        let at = keyspace(node, backend).await;
        for (session, seq) in [(1, 1), (sessions(backend), OPERATIONS_BEFORE), (2, OPERATIONS)] {
            let keys: Vec<String> = keys(backend, session, seq).collect();
            let request = ReadRequest {
                query: Query::Get(keys[0].as_str().into()),
                level: Some(ReadLevel::Local),
            };
            let reply = at
                .read(&context(0, 0, Attempt::First), request)
                .await
                .expect("a local read");
            let modified = reply.entries[0].state.modified;
            let again = context(session, seq, Attempt::Retry);
            let receipt = at.write(&again, command(backend, session, seq)).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("{backend}, {}: {error}", again.op));
            assert_eq!(receipt.version, modified, "{backend}, {} ran twice", again.op);
        }
    }
}

fn has_snapshot(data: &Path) -> bool {
    files(data).iter().any(|(name, _)| name.starts_with("snapshot-0"))
}

fn files(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(data).expect("the directory is there") {
        let entry = entry.expect("its entries can be read");
        let name = entry.file_name().into_string().expect("our own names are text");
        files.push((name, std::fs::read(entry.path()).expect("the file can be read")));
    }
    files.sort();
    files
}

/// For each file: the length of its name, its name, its length, how many runs it has; for each run: where it begins, its
/// length, its bytes. All other bytes are zero. Numbers are little-endian, with 32 bits.
fn pack(data: &Path) -> Vec<u8> {
    let mut packed = Vec::new();
    let number = |packed: &mut Vec<u8>, number: usize| {
        let number = u32::try_from(number).expect("fixtures are small");
        packed.extend_from_slice(&number.to_le_bytes());
    };
    for (name, bytes) in files(data) {
        number(&mut packed, name.len());
        packed.extend_from_slice(name.as_bytes());
        number(&mut packed, bytes.len());
        let runs = runs(&bytes);
        number(&mut packed, runs.len());
        for run in runs {
            number(&mut packed, run.start);
            number(&mut packed, run.len());
            packed.extend_from_slice(&bytes[run]);
        }
    }
    packed
}

fn runs(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..bytes.len()).filter(|at| bytes[*at] != 0) {
        match runs.last_mut() {
            Some(run) if at - run.end < ZEROS_MIN => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn unpack(mut packed: &[u8], data: &Path) {
    fn take<'a>(packed: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = packed.split_at(count);
        *packed = rest;
        taken
    }
    fn number(packed: &mut &[u8]) -> usize {
        u32::from_le_bytes(take(packed, 4).try_into().expect("four bytes")) as usize
    }
    std::fs::create_dir_all(data).expect("the directory can be made");
    while !packed.is_empty() {
        let length = number(&mut packed);
        let name = std::str::from_utf8(take(&mut packed, length)).expect("our own names are text");
        let mut bytes = vec![0; number(&mut packed)];
        for _ in 0..number(&mut packed) {
            let (start, length) = (number(&mut packed), number(&mut packed));
            bytes[start..start + length].copy_from_slice(take(&mut packed, length));
        }
        std::fs::write(data.join(name), bytes).expect("the file can be written");
    }
}

#[tokio::test]
async fn a_data_directory_is_packed_unpacked_and_opened() {
    let directory = directory();
    let authority = Authority::generate("test").expect("a new authority");
    let (written, unpacked) = (
        directory.path().join("written"),
        directory.path().join("unpacked"),
    );
    write_directory(&authority, &written).await;
    let packed = pack(&written);
    if let Some(fixture) = std::env::var_os("TRILEMMA_FIXTURE") {
        std::fs::write(fixture, &packed).expect("the fixture can be written");
    }
    unpack(&packed, &unpacked);
    assert!(files(&written) == files(&unpacked), "the same files");
    read_directory(&authority, &unpacked).await;
}

/// Written when the first chunk of a table held its whole session record, and `Started` no members.
#[tokio::test]
async fn a_data_directory_of_the_first_format_starts_and_has_its_1000_keys() {
    let directory = directory();
    let authority = Authority::generate("test").expect("a new authority");
    let data = directory.path().join("node-1");
    unpack(include_bytes!("../fixtures/directory-1.packed"), &data);
    read_directory(&authority, &data).await;
}

/// A node without peers used to be ready before it had applied its own log, and answered nothing until then.
#[tokio::test]
async fn a_node_alone_that_has_started_answers_at_once() {
    let authority = Authority::generate("test").expect("an authority");
    let data = directory();
    let config = config(&authority, data.path(), 1 << 40);
    let node = NodeHandle::start(config.clone()).await.expect("it starts");
    write(&node, 1..=OPERATIONS).await;
    node.abort().await;
    let node = start_again(config).await.expect("it starts again");
    for keyspace in node.overview().await.expect("it answers").keyspaces {
        assert!(
            keyspace.status.can_read,
            "{}: {:?}",
            keyspace.name, keyspace.status
        );
    }
    node.shutdown().await.expect("a clean end");
}
