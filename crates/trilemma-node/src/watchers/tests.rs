//! Readers that are slow, gone, new, or ahead: none is shown a gap, an older value, or nothing without end.

use trilemma_core::{Change, Key, Value, Version, Versioned};

use super::*;

const LIMIT: usize = 4096;

/// A keyspace whose state is what was published.
struct Rig {
    watchers: Watchers,
    state: BTreeMap<Key, (Value, u64)>,
    position: u64,
    now: Instant,
}

fn versioned(value: Value, version: u64) -> Versioned {
    Versioned {
        value,
        created: Version(version),
        modified: Version(version),
        lease: None,
    }
}

impl Rig {
    fn new(stream: u64, position: u64) -> Self {
        Self {
            watchers: Watchers::new(stream, position, LIMIT),
            state: BTreeMap::new(),
            position,
            now: Instant::from_nanos(1),
        }
    }

    fn open(&mut self, id: u64, resume: Option<WatchToken>) {
        let range = KeyRange::all();
        self.watchers
            .open(self.now, WatchId(id), WatchSpec { range, resume });
    }

    fn put(&mut self, key: &str, bytes: usize) {
        self.position += 1;
        let value = Value::from(vec![b'x'; bytes]);
        let now = Some(versioned(value.clone(), self.position));
        self.state.insert(key.into(), (value, self.position));
        self.watchers.publish(ChangeBatch {
            position: self.position,
            changes: vec![Change { key: key.into(), now }],
        });
    }

    fn pump(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let entries: Vec<Entry> = self
            .state
            .iter()
            .map(|(key, (value, version))| Entry {
                key: key.clone(),
                state: versioned(value.clone(), *version),
            })
            .collect();
        self.watchers.pump(self.now, |_| entries.clone(), &mut sent);
        self.watchers.check();
        sent
    }

    fn ready(&mut self, id: u64) {
        self.watchers.on_reader(self.now, WatchId(id), ReaderEvent::Ready);
    }
}

/// What the items of one watch show, in order: `key@version`, a reset as `[…]` with its token's position.
fn shown(sent: &[Sent]) -> Vec<String> {
    let item = |(_, item): &Sent| match item {
        Ok(WatchItem::Reset { token, entries, .. }) => {
            let entry = |entry: &Entry| format!("{}@{}", entry.key, entry.state.modified.0);
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("[{}] at {}", entries.join(" "), token.position)
        }
        Ok(WatchItem::Changes { changes, .. }) => {
            let change = |change: &Change| {
                let version = change.now.as_ref().map_or(0, |now| now.modified.0);
                format!("{}@{version}", change.key)
            };
            changes.iter().map(change).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    };
    sent.iter().map(item).collect()
}

#[test]
fn a_new_watch_begins_with_the_state_and_follows() {
    let mut rig = Rig::new(0, 0);
    rig.put("a", 1);
    rig.open(1, None);
    assert_eq!(shown(&rig.pump()), ["[a@1] at 1"]);
    rig.put("a", 1);
    assert_eq!(
        shown(&rig.pump()),
        [""; 0],
        "the reader has not said that it has room"
    );
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), ["a@2"]);
}

#[test]
fn h2_a_reader_that_is_too_slow_is_sent_a_reset_never_silence() {
    let mut rig = Rig::new(0, 0);
    rig.open(1, None);
    assert_eq!(shown(&rig.pump()), ["[] at 0"]);
    for _ in 0..100 {
        rig.put("k", 1000);
        assert!(rig.watchers.bytes() <= LIMIT, "what waits is bounded in bytes");
        rig.pump();
    }
    assert_eq!(rig.watchers.slow(), 1);
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), ["[k@100] at 100"]);
    rig.put("k", 1000);
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), ["k@101"], "it follows again");
}

#[test]
fn one_change_larger_than_the_limit_still_comes_through() {
    let mut rig = Rig::new(0, 0);
    rig.open(1, None);
    rig.pump();
    rig.put("k", 3 * LIMIT);
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), ["k@1"]);
}

#[test]
fn h3_a_reader_that_has_gone_costs_nothing_on_a_quiet_range() {
    let mut rig = Rig::new(0, 0);
    for id in 0..5000 {
        rig.open(id, None);
        rig.pump();
        rig.watchers.on_reader(rig.now, WatchId(id), ReaderEvent::Gone);
    }
    assert!(rig.watchers.is_empty());
    assert_eq!(rig.watchers.bytes(), 0);
}

#[test]
fn h4_a_reset_is_never_followed_by_what_it_shows_already() {
    let mut rig = Rig::new(0, 0);
    rig.put("k", 1);
    rig.open(1, None);
    // In the same turn as the watch: the state that the reset shows has them both.
    rig.put("k", 1);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["[k@3] at 3"]);
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), [""; 0]);
    // The same after the state has jumped and changes have followed in one turn.
    rig.state.clear();
    rig.position = 10;
    rig.watchers.reset(10);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["[k@11] at 11"]);
    rig.ready(1);
    assert_eq!(shown(&rig.pump()), [""; 0]);
}

#[test]
fn h5_a_watch_that_resumes_at_a_node_that_is_behind_waits_and_never_goes_back() {
    let mut rig = Rig::new(0, 0);
    rig.put("k", 1);
    let token = |position| Some(WatchToken { stream: 0, position });
    rig.open(1, token(3));
    assert_eq!(shown(&rig.pump()), [""; 0], "it has seen more than this node has");
    rig.put("k", 1);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["k@4"]);
    // A jump of the state to where the watcher is already is no news either, one beyond is.
    rig.open(2, token(9));
    rig.watchers.reset(7);
    rig.position = 7;
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.watchers.reset(12);
    rig.position = 12;
    let resumed: Vec<Sent> = rig
        .pump()
        .into_iter()
        .filter(|(id, _)| *id == WatchId(2))
        .collect();
    assert_eq!(shown(&resumed), ["[k@4] at 12"]);
}

#[test]
fn a_token_of_another_incarnations_stream_begins_with_the_state() {
    let mut rig = Rig::new(77, 0);
    rig.put("k", 1);
    rig.open(
        1,
        Some(WatchToken {
            stream: 76,
            position: 1,
        }),
    );
    assert_eq!(shown(&rig.pump()), ["[k@1] at 1"]);
    rig.open(
        2,
        Some(WatchToken {
            stream: 77,
            position: 9,
        }),
    );
    assert_eq!(
        shown(&rig.pump()),
        ["[k@1] at 1"],
        "nobody has seen position 9 of this stream"
    );
}

#[test]
fn a_reader_that_stands_still_gives_back_what_waits_for_it() {
    let mut rig = Rig::new(0, 0);
    for index in 0..200 {
        rig.put(&format!("k{index}"), 8000);
    }
    rig.open(1, None);
    rig.pump();
    assert!(
        rig.watchers.bytes() > 0,
        "the reset has more parts than one burst"
    );
    rig.now = rig.now + STALLED_AFTER + Duration::from_millis(1);
    rig.watchers.shed(rig.now);
    assert_eq!(rig.watchers.bytes(), 0);
    rig.ready(1);
    let again = rig.pump();
    assert!(
        matches!(&again[0].1, Ok(WatchItem::Reset { entries, first: true, .. }) if entries[0].key == "k0".into()),
        "a new reset begins, and says that the one before is void"
    );
}

#[test]
fn resets_of_many_watches_are_spread_over_turns() {
    let mut rig = Rig::new(0, 0);
    for index in 0..20_000 {
        rig.put(&format!("k{index}"), 1);
    }
    for id in 0..10 {
        rig.open(id, None);
    }
    let begun = |sent: &[Sent]| {
        sent.iter()
            .map(|(id, _)| *id)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(begun(&rig.pump()), 3, "three times twenty thousand entries");
    assert!(rig.watchers.is_pumpable(), "the next turn goes on");
    let mut turns = 1;
    while rig.watchers.is_pumpable() {
        rig.pump();
        turns += 1;
    }
    assert_eq!(turns, 4);
}
