//! What a configuration may say: names, keyspaces, sizes and times. `trilemma init` asks the same functions, so that
//! what it writes can be started.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_runtime::{Tuning, keyspace_id};

use super::{KEYSPACES_MAX, NAME_BYTES_MAX};

/// Shortest time between two pings or heartbeats: less only costs datagrams.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Longest time of any kind: a failure that is noticed after an hour is not noticed.
const TIME_MAX: Duration = Duration::from_hours(1);
/// A segment must hold the largest record, and be worth a file.
const SEGMENT_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// A segment is held in memory while it is recovered; the log refuses more.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Less log between two snapshots than this, and a node writes more snapshots than log.
const SNAPSHOT_LOG_BYTES_MIN: u64 = 1024 * 1024;

/// Checks a cluster's name.
pub fn check_cluster(name: &str) -> Result<(), String> {
    check_name("cluster", name)
}

/// Checks the names of a cluster's keyspaces, one by one and together.
pub fn check_keyspaces<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut by_id: BTreeMap<_, &str> = BTreeMap::new();
    for name in names {
        check_name("keyspace", name)?;
        if let Some(other) = by_id.insert(keyspace_id(name), name) {
            return Err(if other == name {
                format!("keyspace \"{name}\" is named twice")
            } else {
                format!("keyspaces \"{other}\" and \"{name}\" have the same internal id; rename one")
            });
        }
    }
    match by_id.len() {
        0 => Err("`keyspaces` is empty: a node serves at least one keyspace".into()),
        count if count > KEYSPACES_MAX => Err(format!("{count} keyspaces: the limit is {KEYSPACES_MAX}")),
        _ => Ok(()),
    }
}

/// A cluster's name becomes part of the server names in its certificates, and those forbid a hyphen at the ends (an
/// underscore is written as one).
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = |c: char| plain(c) || c == '-' || c == '_';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(good);
    if fits && name.starts_with(plain) && name.ends_with(plain) {
        return Ok(());
    }
    Err(format!(
        "{what} \"{name}\": a name has 1 to {NAME_BYTES_MAX} characters out of a-z, 0-9, '-' and '_', and begins and \
         ends with a letter or digit"
    ))
}

/// Checks sizes and times, each by itself and against those that it must fit.
pub(super) fn check_tuning(tuning: &Tuning) -> Result<(), String> {
    let Tuning {
        liveness,
        raft_heartbeat,
        raft_election_timeout,
        paxos_round_timeout,
        two_phase_prepare_timeout,
        segment_bytes,
        snapshot_log_bytes,
        snapshot_state_percent: _,
        log_window_bytes: _,
        limits,
    } = tuning;
    limits.check()?;
    let times = [
        ("ping_interval_ms", liveness.interval),
        ("peer_timeout_ms", liveness.timeout),
        ("raft_heartbeat_ms", *raft_heartbeat),
        ("raft_election_timeout_ms", *raft_election_timeout),
        ("paxos_round_timeout_ms", *paxos_round_timeout),
        ("two_phase_prepare_timeout_ms", *two_phase_prepare_timeout),
    ];
    for (key, time) in times {
        if !(INTERVAL_MIN..=TIME_MAX).contains(&time) {
            return Err(format!(
                "{key} is {time:?}: from {INTERVAL_MIN:?} to {TIME_MAX:?} are possible"
            ));
        }
    }
    if *raft_election_timeout < *raft_heartbeat * 2 {
        return Err(format!(
            "raft_election_timeout_ms is {raft_election_timeout:?}: it must be at least twice raft_heartbeat_ms \
             ({raft_heartbeat:?})"
        ));
    }
    if liveness.timeout < liveness.interval * 2 {
        return Err(format!(
            "peer_timeout_ms is {:?}: it must be at least twice ping_interval_ms ({:?})",
            liveness.timeout, liveness.interval
        ));
    }
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(segment_bytes) {
        return Err(format!(
            "segment_bytes is {segment_bytes}: from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} are possible"
        ));
    }
    if *snapshot_log_bytes < SNAPSHOT_LOG_BYTES_MIN {
        return Err(format!(
            "snapshot_log_bytes is {snapshot_log_bytes}: the minimum is {SNAPSHOT_LOG_BYTES_MIN}"
        ));
    }
    Ok(())
}
