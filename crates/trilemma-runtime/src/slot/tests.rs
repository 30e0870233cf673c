//! What a protocol is told to be persisted.

use std::sync::{Arc, Mutex};

use trilemma_core::{Checkpoint, Corrupt, Entry, Instant, KeyRange, LiveStatus, WallTime};

use super::*;

/// A protocol that notes what it is told to be persisted.
struct Notes(Arc<Mutex<Vec<AppendSeq>>>);

impl Group for Notes {
    fn restore(&mut self, _chunk: &[u8]) -> Result<(), Corrupt> {
        Ok(())
    }

    fn replay(&mut self, _record: &[u8]) -> Result<(), Corrupt> {
        Ok(())
    }

    fn step(&mut self, _now: Now, input: GroupInput, _output: &mut Output) {
        if let GroupInput::Persisted { up_to } = input {
            self.0.lock().expect("no panic while locked").push(up_to);
        }
    }

    fn wake_at(&self) -> Instant {
        Instant::NEVER
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(std::iter::empty(), |_| Ok(()))
    }

    fn status(&self, _now: Now) -> LiveStatus {
        LiveStatus::default()
    }

    fn scan(&self, _range: &KeyRange, _limit: usize) -> Vec<Entry> {
        Vec::new()
    }
}

/// What a keyspace takes for persisted once its record is written, and once it is durable.
fn persisted(backend: Backend, durability: Durability) -> (usize, usize) {
    let config = KeyspaceConfig { backend, durability };
    let told = Arc::new(Mutex::new(Vec::new()));
    let group = Box::new(Notes(Arc::clone(&told)));
    let mut slot = Slot::new("k".into(), KeyspaceId(1), &config, group, Watchers::new(0, 0));
    let now = Now {
        instant: Instant::ZERO,
        wall: WallTime(0),
    };
    let count = || told.lock().expect("no panic while locked").len();
    slot.appended(AppendSeq(1), LogSeq(5));
    let (written, durable) = (LogSeq(5), LogSeq(4));
    slot.persisted(now, Progress { written, durable });
    let before_sync = count();
    let durable = LogSeq(5);
    slot.persisted(now, Progress { written, durable });
    (before_sync, count())
}

#[test]
fn only_gossip_takes_for_persisted_what_the_disk_may_not_have() {
    for backend in Backend::ALL {
        for durability in [Durability::None, Durability::Os, Durability::Fsync] {
            let may_be_early = backend == Backend::Gossip && durability != Durability::Fsync;
            let expected = (usize::from(may_be_early), 1);
            assert_eq!(
                persisted(backend, durability),
                expected,
                "{backend}, {durability:?}"
            );
        }
    }
}
