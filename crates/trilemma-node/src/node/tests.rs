//! One node on a disk in memory: what it refuses, what it answers, what it shows, and that nothing ends it.

mod disk;
mod frames;
mod idle;
mod invariants;
mod members;
mod starts;

use std::collections::BTreeMap;

use trilemma_core::error::{UnknownCause, WriteError};
use trilemma_core::liveness::Ping;
use trilemma_core::{
    Attempt, Backend, Command, DiskId, Key, KeyRange, Now, OpId, Query, ReadRequest, Request, SessionId,
    Value, Version, WallTime, WatchItem, WatchStart, codec,
};
use trilemma_storage::{Due, LogEvent, MemoryDisk, SnapshotError, WriteQueue};

use super::*;
use crate::config::{Durability, KeyspaceConfig, NODE_RECORDS, Tuning, keyspace_id};
use crate::frame::put_item;
use crate::watchers::{Destination, LinkId, ReaderEvent};
use crate::{Limits, Storage, recover};

const MIB: usize = 1024 * 1024;

/// A node with its log, run by hand.
struct Rig {
    disk: MemoryDisk,
    node: Node<u64>,
    queue: WriteQueue<MemoryDisk>,
    effects: Effects<u64>,
    now: Now,
    asked: u64,
    replies: BTreeMap<u64, Reply>,
    items: Vec<Sent>,
}

fn settings(backend: Backend, members: u32, limits: Limits) -> NodeSettings {
    NodeSettings {
        cluster: "test".into(),
        node: NodeId(1),
        members: (1..=members).map(NodeId).collect(),
        keyspaces: BTreeMap::from([("k".to_owned(), KeyspaceConfig::new(backend))]),
        membership: None,
        tuning: Tuning {
            segment_bytes: 16 * MIB as u64,
            snapshot_log_bytes: 2 * MIB as u64,
            limits,
            ..Tuning::default()
        },
    }
}

/// A process of a node, in this incarnation and on this disk.
fn process(node: u32, incarnation: u64, disk: u64) -> ProcessId {
    ProcessId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        disk: DiskId(disk),
        nonce: incarnation * 1000 + disk,
    }
}

fn ks() -> KeyspaceId {
    keyspace_id("k")
}

/// Where the items of a test's watch go.
fn destination(id: u64) -> Destination {
    Destination {
        link: LinkId(id),
        room: MIB,
    }
}

impl Rig {
    fn start(settings: &NodeSettings, disk: MemoryDisk) -> Self {
        Self::start_with(settings, disk, &mut || 7)
    }

    fn start_with(settings: &NodeSettings, disk: MemoryDisk, random: &mut dyn FnMut() -> u64) -> Self {
        let now = Now {
            instant: Instant::from_nanos(1_000_000_000),
            wall: WallTime(1_700_000_000_000),
        };
        let storage = Storage {
            disk: &disk,
            is_new: true,
            random,
            tune: &(),
        };
        let recovered = recover(settings, now, storage).expect("the disk is sound");
        let queue = WriteQueue::new(recovered.log, recovered.node.waits_for_written());
        let mut rig = Self {
            disk,
            node: recovered.node,
            queue,
            effects: Effects::default(),
            now,
            asked: 0,
            replies: BTreeMap::new(),
            items: Vec::new(),
        };
        rig.node.start(now);
        rig
    }

    /// Ends a turn, with or without the disk getting anything done.
    fn turn(&mut self, disk: bool) {
        self.now.instant = self.now.instant + Duration::from_millis(1);
        self.node.turn(self.now, &mut self.effects, &mut ());
        let batch = std::mem::take(&mut self.effects.batch);
        self.queue
            .submit(self.now.instant, batch)
            .expect("the disk is sound");
        self.effects.messages.clear();
        self.replies.extend(self.effects.replies.drain(..));
        for (id, item) in self.effects.items.drain(..) {
            let bytes = item.as_ref().map_or(0, WatchItem::bytes);
            self.items.push((id, item));
            self.node.on_reader(id, ReaderEvent::Room(bytes));
        }
        if let Some(job) = self.effects.snapshot.take() {
            let result = trilemma_storage::snapshot::write(&self.disk, job.log_id, job.at, job.sections);
            self.node.on_snapshot(result);
        }
        if let Some(up_to) = self.effects.release.take() {
            self.queue
                .release(self.now.instant, up_to)
                .expect("the disk is sound");
        }
        if disk {
            self.work_disk();
        }
    }

    /// The disk does what waits for it, and the node learns of it.
    fn work_disk(&mut self) {
        if self.queue.write(self.now.instant).expect("the disk is sound") == Due::Sync {
            self.queue.sync().expect("the disk is sound");
        }
        let events: Vec<LogEvent> = self.queue.take_events().collect();
        for event in events {
            self.node.on_log(self.now, event).expect("the disk is sound");
        }
    }

    fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.turn(true);
        }
    }

    fn put(&mut self, value: usize, attempt: Attempt) -> u64 {
        self.asked += 1;
        let op = OpId {
            session: SessionId {
                basis: Version(0),
                nonce: self.node.incarnation().0,
            },
            seq: self.asked,
        };
        let command = Command::put("key", Value::from(vec![b'v'; value]));
        let request = Request::Write { op, attempt, command };
        self.node
            .on_request(self.now, ks(), Duration::from_secs(5), request, self.asked);
        self.asked
    }

    fn watch(&mut self, id: u64) {
        let spec = WatchSpec::new(KeyRange::all(), WatchStart::State);
        self.node.on_watch(WatchId(id), ks(), spec, destination(id));
    }

    /// Puts until this one is the leader or whatever it takes to write.
    fn until_it_writes(&mut self) {
        for _ in 0..2000 {
            self.turn(true);
            let asked = self.put(1, Attempt::First);
            self.turns(3);
            if matches!(self.replies.get(&asked), Some(Reply::Write(Ok(_)))) {
                return;
            }
        }
        panic!(
            "a single node never takes a write: {:?}",
            self.replies.last_key_value()
        );
    }
}

fn refusal(reply: Option<&Reply>) -> Option<&Reason> {
    match reply {
        Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) => Some(&refusal.reason),
        _ => None,
    }
}

#[test]
fn h1_writes_are_refused_while_too_much_waits_for_the_disk_and_taken_again_after() {
    let limits = Limits {
        log_bytes_max: 64 * MIB,
        ..Limits::default()
    };
    let mut rig = Rig::start(&settings(Backend::Gossip, 1, limits), MemoryDisk::new());
    rig.until_it_writes();
    // Three hundred clients at once, and a disk that stands still.
    let asked: Vec<u64> = (0..300)
        .map(|_| {
            let asked = rig.put(MIB, Attempt::First);
            rig.turn(false);
            asked
        })
        .collect();
    let refused: Vec<u64> = asked
        .iter()
        .copied()
        .filter(|asked| matches!(refusal(rig.replies.get(asked)), Some(Reason::Overloaded { .. })))
        .collect();
    assert!(refused.len() > 250, "{} refused", refused.len());
    assert!(
        rig.node.admission().log_bytes() < 20 * MIB,
        "what waits is bounded"
    );
    assert_eq!(rig.node.admission().refused(), refused.len() as u64);
    rig.turns(50);
    for asked in asked {
        let reply = rig.replies.get(&asked);
        let answered = matches!(reply, Some(Reply::Write(Ok(_))));
        assert_eq!(answered, !refused.contains(&asked), "{reply:?}");
    }
    rig.until_it_writes();
    assert_eq!(rig.node.admission().log_bytes(), 0);
}

#[test]
fn h1_messages_of_peers_are_dropped_while_too_much_waits_and_pings_are_not() {
    let limits = Limits {
        log_bytes_max: MIB,
        pending_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let mut rig = Rig::start(&settings(Backend::Gossip, 2, limits), MemoryDisk::new());
    rig.turn(true);
    for _ in 0..3 {
        // All in one turn, so that admission has not seen them yet.
        rig.put(MIB / 4, Attempt::First);
    }
    rig.turn(false);
    assert!(rig.node.admission().log_bytes() > MIB / 2);
    let ping = Ping {
        incarnation: Incarnation(9),
        number: 1,
        echo: None,
    };
    let mut frame = bytes::BytesMut::new();
    put_item(&mut frame, ks(), b"whatever a peer says");
    put_item(&mut frame, NODE_RECORDS, &codec::encode(&NodeMessage::Ping(ping)));
    rig.node.on_frame(rig.now, &process(2, 9, 1), frame.freeze());
    assert_eq!(rig.node.admission().dropped(), 1);
    assert_eq!((rig.node.replicas()[0].received(), rig.node.received()), (0, 1));
    assert!(
        rig.node.liveness.view().peers.contains_key(&NodeId(2)),
        "the ping was heard"
    );
    rig.turns(5);
    assert_eq!(rig.node.admission().log_bytes(), 0);
}

#[test]
fn m6_bytes_of_requests_that_wait_are_bounded() {
    let limits = Limits {
        pending_bytes_max: 4 * MIB,
        ..Limits::default()
    };
    // Two of two are needed, and one is alone: commands wait for a leader.
    let mut rig = Rig::start(&settings(Backend::Raft, 2, limits), MemoryDisk::new());
    rig.turn(true);
    for _ in 0..100 {
        rig.put(MIB / 2, Attempt::First);
    }
    assert!(rig.node.pending.bytes() <= 4 * MIB);
    rig.turn(true);
    let overloaded = |reply: &&Reply| matches!(refusal(Some(reply)), Some(Reason::Overloaded { .. }));
    assert!(rig.replies.values().filter(overloaded).count() >= 90);
}

#[test]
fn h6_a_refused_retry_is_unknown_in_admission_too() {
    let limits = Limits {
        pending_max: 0,
        ..Limits::default()
    };
    let mut rig = Rig::start(&settings(Backend::Raft, 1, limits), MemoryDisk::new());
    let first = rig.put(1, Attempt::First);
    let again = rig.put(1, Attempt::Retry);
    rig.turn(true);
    assert!(matches!(
        refusal(rig.replies.get(&first)),
        Some(Reason::Overloaded { .. })
    ));
    assert!(
        matches!(
            rig.replies.get(&again),
            Some(Reply::Write(Err(WriteError::Unknown {
                cause: UnknownCause::RetryRefused { .. },
                ..
            })))
        ),
        "{:?}",
        rig.replies.get(&again)
    );
}

#[test]
fn h6_a_retry_refused_for_want_of_space_or_a_keyspace_is_unknown_too() {
    let mut rig = Rig::start(&settings(Backend::Raft, 1, Limits::default()), MemoryDisk::new());
    let full = Some("no room".to_owned());
    rig.node
        .on_log(rig.now, LogEvent::Space { full })
        .expect("a full disk ends nothing");
    let again = rig.put(1, Attempt::Retry);
    let (op, command) = (OpId::default(), Command::put("a", "b"));
    let attempt = Attempt::Retry;
    let request = Request::Write { op, attempt, command };
    rig.node
        .on_request(rig.now, KeyspaceId(1), Duration::from_secs(1), request, 900);
    rig.turn(true);
    for asked in [again, 900] {
        let reply = rig.replies.get(&asked);
        assert!(
            matches!(reply, Some(Reply::Write(Err(WriteError::Unknown { .. })))),
            "{reply:?}"
        );
    }
}

#[test]
fn h10_only_gossip_takes_for_persisted_what_the_disk_may_not_have() {
    for backend in [Backend::Gossip, Backend::Raft, Backend::Paxos, Backend::TwoPhase] {
        let mut weak = settings(backend, 1, Limits::default());
        if let Some(keyspace) = weak.keyspaces.get_mut("k") {
            keyspace.durability = Durability::None;
        }
        let mut rig = Rig::start(&weak, MemoryDisk::new());
        assert_eq!(rig.node.waits_for_written(), backend == Backend::Gossip);
        rig.until_it_writes();
        rig.put(4, Attempt::First);
        rig.turn(false);
        let last = rig.node.last();
        assert!(
            rig.node.replicas()[0].is_writing(),
            "{backend}: a record was appended"
        );
        let written = Progress {
            written: last,
            durable: LogSeq(last.0 - 1),
        };
        rig.node
            .on_log(rig.now, LogEvent::Progress(written))
            .expect("progress ends nothing");
        let waits = rig.node.replicas()[0].is_writing();
        assert_eq!(waits, backend != Backend::Gossip, "{backend}");
    }
}

#[test]
fn every_request_is_answered_by_its_deadline_and_a_grace() {
    let mut rig = Rig::start(&settings(Backend::Raft, 2, Limits::default()), MemoryDisk::new());
    let read = ReadRequest {
        query: Query::Get(Key::from("a")),
        level: None,
    };
    rig.node
        .on_request(rig.now, ks(), Duration::from_millis(20), Request::Read(read), 901);
    let write = rig.put(1, Attempt::First);
    rig.now.instant = rig.now.instant + Duration::from_secs(6);
    rig.turn(true);
    rig.turn(true);
    assert!(rig.replies.contains_key(&901) && rig.replies.contains_key(&write));
    assert_eq!(rig.node.pending(), 0);
}

#[test]
fn h4_a_watch_opened_in_the_turn_of_a_change_shows_it_once() {
    let mut rig = Rig::start(&settings(Backend::Raft, 1, Limits::default()), MemoryDisk::new());
    rig.until_it_writes();
    for id in 0..50 {
        rig.put(4, Attempt::First);
        rig.watch(id);
        rig.turns(2);
    }
    rig.turns(5);
    let mut seen: BTreeMap<WatchId, u64> = BTreeMap::new();
    for (id, item) in &rig.items {
        let versions: Vec<u64> = match item.as_ref().expect("no watch ends") {
            WatchItem::Reset { entries, .. } => entries.iter().map(|entry| entry.state.modified.0).collect(),
            WatchItem::Changes { changes, .. } => changes
                .iter()
                .filter_map(|change| Some(change.now.as_ref()?.modified.0))
                .collect(),
            WatchItem::Progress { .. } => Vec::new(),
        };
        for version in versions {
            let last = seen.insert(*id, version);
            assert!(
                last.is_none_or(|last| last < version),
                "{id:?}: {version} after {last:?}"
            );
        }
    }
    assert_eq!(seen.len(), 50);
}

#[test]
fn watches_beyond_the_limit_are_refused_and_places_are_given_back() {
    let limits = Limits {
        watchers_max: 2,
        ..Limits::default()
    };
    let mut rig = Rig::start(&settings(Backend::Raft, 1, limits), MemoryDisk::new());
    for id in 0..3 {
        rig.watch(id);
    }
    rig.turn(true);
    let ended = |rig: &Rig| rig.items.iter().filter(|(_, item)| item.is_err()).count();
    assert_eq!(ended(&rig), 1);
    rig.node.on_reader(WatchId(0), ReaderEvent::Gone);
    rig.watch(9);
    rig.turn(true);
    assert_eq!(ended(&rig), 1, "the place of a reader that has gone is free");
    let spec = WatchSpec::new(KeyRange::all(), WatchStart::State);
    rig.node
        .on_watch(WatchId(10), KeyspaceId(5), spec, destination(10));
    rig.turn(true);
    assert_eq!(ended(&rig), 2, "a watch of no keyspace ends");
}

#[test]
fn m3_a_restart_remembers_how_long_the_log_is() {
    let disk = MemoryDisk::new();
    let settings = settings(Backend::Gossip, 1, Limits::default());
    for round in 0..6 {
        let mut rig = Rig::start(&settings, disk.clone());
        rig.until_it_writes();
        // Less than a snapshot's worth in each incarnation.
        for _ in 0..4 {
            rig.put(MIB / 8, Attempt::First);
            rig.turns(2);
        }
        rig.turns(5);
        if rig.node.snapshots().covered() > LogSeq(0) {
            assert!(round >= 2, "not before there is enough");
            return;
        }
        rig.queue.close().expect("the disk is sound");
    }
    panic!("six incarnations of log and no snapshot");
}

#[test]
fn a_snapshot_that_fails_keeps_the_log_and_is_tried_again() {
    let mut rig = Rig::start(
        &settings(Backend::Gossip, 1, Limits::default()),
        MemoryDisk::new(),
    );
    rig.until_it_writes();
    rig.node.request_snapshot();
    rig.node.turn(rig.now, &mut rig.effects, &mut ());
    let job = rig.effects.snapshot.take().expect("everything is durable");
    drop(job);
    rig.node.on_snapshot(Err(SnapshotError::Interrupted));
    rig.turn(true);
    assert_eq!(rig.node.snapshots().covered(), LogSeq(0));
    assert_eq!(rig.node.snapshots().failures(), 1);
    assert!(rig.node.snapshots().failure().is_some());
    rig.node.request_snapshot();
    rig.turns(3);
    assert!(rig.node.snapshots().covered() > LogSeq(0));
    assert_eq!(rig.node.snapshots().failure(), None);
}

/// A leader steps down when its disk makes no progress for half a second. The log is one queue for all keyspaces.
#[test]
fn m7_a_queue_of_other_keyspaces_records_is_no_disk_that_stands_still() {
    let mut settings = settings(Backend::Raft, 1, Limits::default());
    let other = KeyspaceConfig::new(Backend::Gossip);
    settings.keyspaces.insert("other".into(), other);
    let mut rig = Rig::start(&settings, MemoryDisk::new());
    rig.until_it_writes();
    let leads = |rig: &Rig| {
        let replica = &rig.node.replicas()[0];
        assert_eq!(replica.backend(), Backend::Raft);
        replica.status(rig.now).leader
    };
    assert_eq!(leads(&rig), Some(NodeId(1)));
    // Many records of the other keyspace stand in the log, and then one of this.
    let before = rig.node.last();
    for number in 0..20 {
        let op = OpId {
            session: SessionId::default(),
            seq: number + 1,
        };
        let (attempt, command) = (Attempt::First, Command::put("key", "value"));
        let request = Request::Write { op, attempt, command };
        let timeout = Duration::from_secs(60);
        rig.node
            .on_request(rig.now, keyspace_id("other"), timeout, request, 10_000 + number);
        rig.turn(false);
    }
    rig.put(1, Attempt::First);
    rig.turn(false);
    let end = rig.node.last();
    assert!(end.0 >= before.0 + 21);
    // The disk takes 100 ms for each.
    for durable in before.0 + 1..end.0 {
        rig.now.instant = rig.now.instant + Duration::from_millis(100);
        let durable = LogSeq(durable);
        let progress = Progress {
            written: durable,
            durable,
        };
        rig.node
            .on_log(rig.now, LogEvent::Progress(progress))
            .expect("progress ends nothing");
        rig.turn(false);
        assert_eq!(leads(&rig), Some(NodeId(1)), "at {durable} of {end}");
    }
}

#[test]
fn closing_answers_everybody() {
    let mut rig = Rig::start(&settings(Backend::Raft, 2, Limits::default()), MemoryDisk::new());
    let write = rig.put(1, Attempt::First);
    rig.watch(1);
    rig.turn(true);
    rig.watch(2);
    rig.node.close(&Reason::Stopping, &mut rig.effects);
    let answered: Vec<u64> = rig.effects.replies.iter().map(|(to, _)| *to).collect();
    assert!(answered.contains(&write) || rig.replies.contains_key(&write));
    let ended: Vec<u64> = rig.effects.items.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ended, [2, 1]);
}
