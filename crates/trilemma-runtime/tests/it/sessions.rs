//! Many sessions with many results: the state is written, and read back.

use std::time::Duration;

use trilemma_core::replicator::OpContext;
use trilemma_core::session::SESSION_RESULTS_MAX;
use trilemma_core::{
    Attempt, Backend, Command, Epoch, OpId, SessionId, SharedReplicator, Version, WriteError,
};
use trilemma_runtime::NodeHandle;
use trilemma_runtime::pki::Authority;

use crate::directory::{config, directory, keyspace, start_again};

const SESSIONS: u64 = 200;
/// Writes of one session under way at once.
const AT_ONCE: u64 = 16;
const SNAPSHOT_LOG_BYTES: u64 = 8 * 1024 * 1024;

fn context(session: u64, seq: u64, attempt: Attempt) -> OpContext {
    let session = SessionId {
        basis: Version::ABSENT,
        // As large as random ones are.
        nonce: u64::MAX - session,
    };
    OpContext {
        op: OpId { session, seq },
        attempt,
        timeout: Duration::from_secs(30),
        epoch: Epoch(1),
    }
}

/// All operations of one session, each a put of the session's key.
async fn write_session(at: SharedReplicator, session: u64) {
    for first in (1..=SESSION_RESULTS_MAX).step_by(AT_ONCE as usize) {
        let writes = (first..first + AT_ONCE).map(|seq| {
            let at = at.clone();
            tokio::spawn(async move {
                let command = Command::put(format!("{session}"), "x");
                let mut result = at
                    .write(&context(session, seq, Attempt::First), command.clone())
                    .await;
                // A leader whose disk stands still steps down, and a busy machine's disk may: ask again, as clients do.
                for _ in 0..20 {
                    if !matches!(result, Err(WriteError::Unknown { .. })) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    result = at
                        .write(&context(session, seq, Attempt::Retry), command.clone())
                        .await;
                }
                result
            })
        });
        for write in writes.collect::<Vec<_>>() {
            let written = write.await.expect("no panic");
            written.unwrap_or_else(|error| panic!("session {session}, {first}: {error}"));
        }
    }
}

/// Fills the log until a snapshot reaches beyond everything written so far.
async fn wait_for_snapshot(node: &NodeHandle) {
    let overview = async || node.overview().await.expect("the node runs").log;
    let last = overview().await.last;
    let gossip = keyspace(node, Backend::Gossip).await;
    for seq in 1.. {
        let filler = Command::put("filler", vec![0; 1024 * 1024]);
        let written = gossip.write(&context(0, seq, Attempt::First), filler).await;
        written.expect("the disk has room");
        if overview().await.snapshot >= last {
            return;
        }
        assert!(seq < 100, "no snapshot: {:?}", overview().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The session record of 200 sessions with 1,024 results each was one chunk of a checkpoint, larger than any that is
/// read: the snapshot was written, the log released, and no node started again.
#[tokio::test]
async fn c1_a_node_with_200_full_sessions_starts_from_its_snapshot() {
    let directory = directory();
    let authority = Authority::generate("test").expect("a new authority");
    let data = directory.path().join("node-1");
    let node = NodeHandle::start(config(&authority, &data, SNAPSHOT_LOG_BYTES)).await;
    let node = node.expect("a new node starts");
    let at = keyspace(&node, Backend::Raft).await;
    let sessions = (1..=SESSIONS).map(|session| tokio::spawn(write_session(at.clone(), session)));
    for session in sessions.collect::<Vec<_>>() {
        session.await.expect("every write succeeds");
    }
    wait_for_snapshot(&node).await;
    node.shutdown().await.expect("a clean end");

    let node = start_again(config(&authority, &data, SNAPSHOT_LOG_BYTES)).await;
    let node = node.unwrap_or_else(|error| panic!("it starts again: {error}"));
    let at = keyspace(&node, Backend::Raft).await;
    for session in [1, SESSIONS] {
        for seq in [1, SESSION_RESULTS_MAX] {
            let again = context(session, seq, Attempt::Retry);
            let repeat = at
                .write(&again, Command::put(format!("{session}"), "again"))
                .await;
            repeat.unwrap_or_else(|error| panic!("{} is remembered: {error}", again.op));
        }
    }
    node.shutdown().await.expect("a clean end");
}
