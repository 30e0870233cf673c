//! What a node's own records say of a directory, and that those of earlier versions are still read.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use trilemma_core::{Backend, Instant, WallTime};

use super::*;
use crate::config::{KeyspaceConfig, Tuning};

/// Node 3 of cluster "shop" in incarnation 9, with `locks` in raft: as it was written before members were recorded.
const WITHOUT_MEMBERS: &[u8] = b"\x00\x04shop\x03\x09\x01\x05locks\x04raft";
/// The same with the members 1, 2, 3.
const WITH_MEMBERS: &[u8] = b"\x01\x04shop\x03\x09\x01\x05locks\x04raft\x03\x01\x02\x03";

const NOW: Now = Now {
    instant: Instant::ZERO,
    wall: WallTime(1_700_000_000_000),
};

fn config(data: &TempDir, members: &[u32]) -> NodeConfig {
    let node = NodeId(3);
    let authority = trilemma_transport::pki::Authority::generate("shop").expect("a new authority");
    let issued = authority.issue_node("shop", node).expect("a certificate");
    let identity = trilemma_transport::Identity::from_pem(
        authority.certificate_pem().as_bytes(),
        issued.certificate_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    );
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let peers = members.iter().map(|id| (NodeId(*id), anywhere));
    NodeConfig {
        cluster: "shop".into(),
        node,
        listen: anywhere,
        data: data.path().into(),
        peers: peers.filter(|(id, _)| *id != node).collect(),
        identity: identity.expect("our own PEM is read"),
        keyspaces: BTreeMap::from([("locks".to_owned(), KeyspaceConfig::new(Backend::Raft))]),
        tuning: Tuning {
            segment_bytes: 16 * 1024 * 1024,
            ..Tuning::default()
        },
    }
}

/// A directory whose log holds this record.
fn directory(record: &[u8]) -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let directory = tempfile::tempdir_in(target).expect("a directory can be made");
    let disk = OsDisk::open(directory.path()).expect("the directory is free");
    let options = LogOptions {
        segment_bytes: 16 * 1024 * 1024,
        new_log_id: 1,
    };
    let (mut log, _) = Log::open(disk, options, LogSeq(0), |_| Ok::<(), Failure>(()))
        .unwrap_or_else(|_| panic!("a new log"));
    log.append(NODE_RECORDS, record).expect("there is room");
    log.close().expect("the log is written");
    directory
}

fn start(config: &NodeConfig) -> Result<Incarnation, String> {
    let mut recovered = recover(config, NOW, |_| {}).map_err(|error| error.to_string())?;
    recovered.log.close().expect("a clean end");
    Ok(recovered.incarnation)
}

#[test]
fn node_records_of_both_forms_are_read_byte_for_byte() {
    for golden in [WITHOUT_MEMBERS, WITH_MEMBERS] {
        let record: NodeRecord = codec::decode(golden).expect("a golden record");
        assert_eq!(codec::encode(&record), golden, "{record:?}");
    }
    let directory = directory(WITHOUT_MEMBERS);
    let written = NodeRecord::started(&config(&directory, &[1, 2, 3]), Incarnation(9));
    assert_eq!(codec::encode(&written), WITH_MEMBERS);
}

#[test]
fn a_directory_from_before_members_were_recorded_starts_and_records_them() {
    let directory = directory(WITHOUT_MEMBERS);
    assert_eq!(start(&config(&directory, &[1, 2, 3])), Ok(Incarnation(10)));
    let refused = start(&config(&directory, &[1, 2, 3, 4, 5])).expect_err("other members");
    assert!(refused.contains("[1, 2, 3],"), "{refused}");
    assert_eq!(start(&config(&directory, &[1, 2, 3])), Ok(Incarnation(11)));
}

#[test]
fn a_start_with_other_members_than_stored_is_refused_and_changes_nothing() {
    let directory = directory(WITH_MEMBERS);
    for members in [&[1, 2, 3, 4, 5][..], &[1, 3], &[3], &[1, 3, 4]] {
        let configured = config(&directory, members);
        let refused = start(&configured).expect_err("other members");
        let both = [
            "the members [1, 2, 3],".to_owned(),
            format!("the members [{}].", configured.members()),
            "cannot be changed by editing files".into(),
            "keep the directory".into(),
        ];
        for part in both {
            assert!(refused.contains(&part), "{part}: {refused}");
        }
    }
    assert_eq!(start(&config(&directory, &[1, 2, 3])), Ok(Incarnation(10)));
}
