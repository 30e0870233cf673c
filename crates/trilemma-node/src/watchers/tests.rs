//! Readers that are slow, gone, new, or ahead: none is shown a gap, an older value, or nothing without end.

use std::time::Duration;

use trilemma_core::table::Table;
use trilemma_core::{Change, Command, Entry, Key, OpId, SessionId, Value, Version, Versioned};

use super::*;

/// Bytes of recent changes that are kept.
const LIMIT: usize = 4096;
/// Room of a reader.
const ROOM: usize = 1024 * 1024;

/// A keyspace whose state is what was published.
struct Rig {
    watchers: Watchers,
    table: Table,
    stream: u64,
    now: Instant,
    budget: Budget,
}

impl Rig {
    fn new(stream: u64) -> Self {
        Self::of(stream, LIMIT)
    }

    fn of(stream: u64, ring_bytes: usize) -> Self {
        Self {
            watchers: Watchers::new(stream, 0, ring_bytes),
            table: Table::new(1),
            stream,
            now: Instant::from_nanos(1),
            budget: Budget::TURN,
        }
    }

    fn open(&mut self, id: u64, resume: Option<u64>) {
        self.open_with(id, resume, ROOM);
    }

    fn open_with(&mut self, id: u64, resume: Option<u64>, room: usize) {
        let stream = self.stream;
        let after = |position| WatchStart::After(WatchToken { stream, position });
        let start = resume.map_or(WatchStart::State, after);
        self.open_at(id, WatchSpec::new(KeyRange::all(), start), room);
    }

    fn open_at(&mut self, id: u64, spec: WatchSpec, room: usize) {
        let link = LinkId(id % 2);
        let destination = Destination { link, room };
        self.watchers.open(self.now, WatchId(id), spec, destination);
    }

    fn apply(&mut self, command: &Command) -> ChangeBatch {
        let version = Version(self.table.version().0 + 1);
        let session = SessionId::default();
        let op = OpId {
            session,
            seq: version.0,
        };
        let changes = self.table.apply(op, command, version).changes;
        let position = version.0;
        ChangeBatch { position, changes }
    }

    fn put(&mut self, key: &str, bytes: usize) {
        let applied = self.apply(&Command::put(key, Value::from(vec![b'x'; bytes])));
        self.watchers.publish(applied);
    }

    /// The state jumps: the keyspace has come to this position without single changes.
    fn jump(&mut self, position: u64) {
        while self.table.version().0 < position {
            self.apply(&Command::put("k", "x"));
        }
        self.watchers.reset(position);
    }

    fn pump(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let table = &self.table;
        let view = |range: &KeyRange| -> Box<dyn View> { Box::new(table.view(range)) };
        let mut budget = self.budget;
        self.watchers.pump(self.now, &mut budget, view, &mut sent);
        self.watchers.check();
        sent
    }

    fn is_pumpable(&self) -> bool {
        self.watchers.wake_at() <= self.now
    }

    /// Pumps until nothing is due any more; every reader reads at once.
    fn pump_all(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while self.is_pumpable() {
            let sent = self.pump();
            for (id, item) in &sent {
                let bytes = item.as_ref().map_or(0, WatchItem::bytes);
                self.watchers.on_reader(*id, ReaderEvent::Room(bytes));
            }
            all.extend(sent);
        }
        all
    }

    fn room(&mut self, id: u64) {
        self.watchers.on_reader(WatchId(id), ReaderEvent::Room(ROOM));
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
        Ok(WatchItem::Progress { token }) => format!("at {}", token.position),
        Err(error) => error.to_string(),
    };
    sent.iter().map(item).collect()
}

#[test]
fn a_new_watch_begins_with_the_state_and_follows() {
    let mut rig = Rig::new(0);
    rig.put("a", 1);
    rig.open_with(1, None, 1);
    assert_eq!(shown(&rig.pump()), ["[a@1] at 1"]);
    rig.put("a", 1);
    assert_eq!(shown(&rig.pump()), [""; 0], "the reader has no room");
    rig.room(1);
    assert_eq!(shown(&rig.pump()), ["a@2"]);
}

#[test]
fn h2_a_reader_that_is_too_slow_is_sent_a_reset_never_silence() {
    let mut rig = Rig::new(0);
    rig.open_with(1, None, 1);
    assert_eq!(shown(&rig.pump()), ["[] at 0"]);
    for _ in 0..100 {
        rig.put("k", 1000);
        assert_eq!(shown(&rig.pump()), [""; 0]);
    }
    rig.room(1);
    assert_eq!(shown(&rig.pump()), ["[k@100] at 100"]);
    assert_eq!(rig.watchers.slow(), 1);
    rig.put("k", 1000);
    assert_eq!(shown(&rig.pump()), ["k@101"], "it follows again");
}

#[test]
fn one_change_larger_than_the_limit_still_comes_through() {
    let mut rig = Rig::new(0);
    rig.open(1, None);
    rig.pump();
    rig.put("k", 3 * LIMIT);
    assert_eq!(shown(&rig.pump()), ["k@1"]);
}

#[test]
fn h3_a_reader_that_has_gone_costs_nothing_on_a_quiet_range() {
    let mut rig = Rig::new(0);
    for id in 0..5000 {
        rig.open(id, None);
        if id % 2 == 0 {
            rig.pump();
        }
        rig.watchers.on_reader(WatchId(id), ReaderEvent::Gone);
    }
    rig.pump();
    assert!(rig.watchers.is_empty() && rig.watchers.due.is_empty());
    assert_eq!(rig.watchers.behind(), 0);
}

#[test]
fn h4_a_reset_is_never_followed_by_what_it_shows_already() {
    let mut rig = Rig::new(0);
    rig.put("k", 1);
    rig.open(1, None);
    // In the same turn as the watch: the state that the reset shows has them both.
    rig.put("k", 1);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["[k@3] at 3"]);
    assert_eq!(shown(&rig.pump()), [""; 0]);
    // The same after the state has jumped and changes have followed in one turn.
    rig.jump(10);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["[k@11] at 11"]);
    assert_eq!(shown(&rig.pump()), [""; 0]);
}

#[test]
fn h5_a_watch_that_resumes_at_a_node_that_is_behind_waits_and_never_goes_back() {
    let mut rig = Rig::new(0);
    rig.put("k", 1);
    rig.open(1, Some(3));
    assert_eq!(shown(&rig.pump()), [""; 0], "it has seen more than this node has");
    rig.put("k", 1);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["k@4"]);
    // A jump of the state to where the watcher is already is no news either, one beyond is.
    rig.watchers.on_reader(WatchId(1), ReaderEvent::Gone);
    rig.open(2, Some(9));
    rig.jump(7);
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.jump(12);
    assert_eq!(shown(&rig.pump()), ["[k@12] at 12"]);
}

#[test]
fn a_token_of_another_incarnations_stream_begins_with_the_state() {
    let mut rig = Rig::new(76);
    rig.watchers = Watchers::new(77, 0, LIMIT);
    rig.put("k", 1);
    rig.open(1, Some(1));
    assert_eq!(shown(&rig.pump()), ["[k@1] at 1"]);
    rig.stream = 77;
    rig.open(2, Some(9));
    assert_eq!(
        shown(&rig.pump()),
        ["[k@1] at 1"],
        "nobody has seen position 9 of this stream"
    );
}

#[test]
fn a_link_without_room_holds_up_its_own_watches_alone() {
    let mut rig = Rig::new(0);
    for id in [1, 2, 3] {
        rig.open(id, None);
    }
    rig.watchers.on_link(LinkId(1), false);
    let ids = |sent: &[Sent]| sent.iter().map(|(id, _)| id.0).collect::<Vec<_>>();
    assert_eq!(ids(&rig.pump()), [2]);
    rig.put("k", 1);
    assert_eq!(ids(&rig.pump()), [2]);
    assert!(!rig.is_pumpable(), "nobody turns in vain");
    rig.watchers.on_reader(WatchId(3), ReaderEvent::Gone);
    rig.watchers.on_link(LinkId(1), true);
    assert_eq!(shown(&rig.pump()), ["[k@1] at 1"]);
    rig.watchers.on_link(LinkId(1), true);
    assert_eq!(ids(&rig.pump()), [0; 0]);
}

#[test]
fn m4_a_reset_shows_one_moment_in_parts_and_what_follows_it_comes_after() {
    let mut rig = Rig::of(0, 1024 * 1024);
    for index in 0..100 {
        rig.put(&format!("k{index:02}"), 100);
    }
    rig.open_with(1, None, 1000);
    let mut state = BTreeMap::new();
    let mut parts = 0;
    while rig.watchers.behind() > 0 {
        for (_, item) in rig.pump() {
            let item = item.expect("it goes on");
            match &item {
                WatchItem::Reset {
                    entries,
                    first,
                    last,
                    token,
                } => {
                    assert_eq!(*first, parts == 0);
                    assert_eq!(token.position, if *last { 100 } else { 0 });
                    let entry = |entry: &Entry| (entry.key.clone(), entry.state.modified.0);
                    state.extend(entries.iter().map(entry));
                    assert!(state.values().all(|version| *version <= 100), "one moment");
                    parts += 1;
                }
                WatchItem::Changes { changes, token } => {
                    assert!(token.position > 100 && state.len() == 100);
                    state.insert(changes[0].key.clone(), token.position);
                }
                WatchItem::Progress { .. } => panic!("nobody wants to know"),
            }
            // Room for another part; the keyspace goes on meanwhile.
            rig.watchers
                .on_reader(WatchId(1), ReaderEvent::Room(item.bytes()));
            if parts < 15 {
                rig.put(&format!("k{:02}", 99 - parts), 100);
            }
        }
    }
    assert!(parts > 10, "{parts} parts");
    let entry = |(key, state): (&Key, &Versioned)| (key.clone(), state.modified.0);
    let expected: BTreeMap<Key, u64> = rig.table.range(&KeyRange::all()).map(entry).collect();
    assert_eq!(state, expected);
}

#[test]
fn m4_a_reset_that_the_ring_does_not_reach_back_to_begins_again_and_frees_its_view() {
    let mut rig = Rig::new(0);
    for index in 0..100 {
        rig.put(&format!("k{index:02}"), 100);
    }
    rig.open_with(1, None, 1000);
    assert!(matches!(
        rig.pump()[0].1,
        Ok(WatchItem::Reset { last: false, .. })
    ));
    for _ in 0..100 {
        rig.put("k00", 100);
    }
    rig.watchers.shed(rig.now);
    assert!(rig.watchers.resets.under_way().next().is_none());
    assert_eq!(rig.watchers.slow(), 1);
    rig.room(1);
    let again = rig.pump_all();
    assert!(
        matches!(&again[0].1, Ok(WatchItem::Reset { entries, first: true, .. }) if entries[0].key == "k00".into()),
        "a new reset begins, and says that the one before is void"
    );
    assert!(
        matches!(again[again.len() - 1].1, Ok(WatchItem::Reset { last: true, token, .. }) if token.position == 200)
    );
}

/// They used to make whole resets, each in one turn.
#[test]
fn m4_watches_of_a_large_range_never_make_a_turn_long() {
    let mut rig = Rig::of(0, 32 * 1024 * 1024);
    for index in 0..100_000 {
        rig.put(&format!("k{index:06}"), 1);
    }
    for id in 0..300 {
        rig.open(id, None);
    }
    let mut ended = 0;
    for turn in 0..2000 {
        rig.now = rig.now + Duration::from_millis(2);
        let sent = rig.pump();
        let items = || sent.iter().map(|(_, item)| item.as_ref().expect("no watch ends"));
        let entries = |item: &WatchItem| match item {
            WatchItem::Reset { entries, .. } => entries.len(),
            WatchItem::Changes { .. } | WatchItem::Progress { .. } => 0,
        };
        let bytes: usize = items().map(WatchItem::bytes).sum();
        assert!(items().map(entries).sum::<usize>() <= Budget::TURN.keys + PART_KEYS);
        assert!(
            bytes <= Budget::TURN.bytes + 2 * PART_BYTES,
            "{bytes} B in turn {turn}"
        );
        assert!(rig.is_pumpable(), "the next turn goes on");
        ended += items()
            .filter(|item| matches!(item, WatchItem::Reset { last: true, .. }))
            .count();
        for (id, item) in &sent {
            let bytes = item.as_ref().map_or(0, WatchItem::bytes);
            rig.watchers.on_reader(*id, ReaderEvent::Room(bytes));
        }
    }
    assert!(ended >= 32, "{ended} were shown everything, a few at a time");
}

/// They used to be given whatever the ring had, at once.
#[test]
fn m4_watches_that_resume_are_given_no_more_than_they_have_room_for() {
    let mut rig = Rig::of(0, 32 * 1024 * 1024);
    for _ in 0..2000 {
        rig.put("k", 1000);
    }
    rig.open_with(1, Some(0), 5000);
    let sent = rig.pump();
    assert_eq!(sent.len(), 5, "what there is room for, and one more");
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.room(1);
    let rest = rig.pump_all();
    assert_eq!(rest.len(), 1995);
    assert_eq!(shown(&rest[1994..]), ["k@2000"]);
}

#[test]
fn resets_whose_readers_stand_still_give_way_and_are_bounded() {
    let mut rig = Rig::new(0);
    for index in 0..100 {
        rig.put(&format!("k{index:02}"), 100);
    }
    // Each takes one part and reads no further.
    for id in 0..100 {
        rig.open_with(id, None, 200);
    }
    let mut begun = 0;
    for _ in 0..10 {
        begun += rig.pump().len();
        assert!(rig.watchers.resets.under_way().count() <= 64);
        rig.now = rig.now + Duration::from_secs(1);
        rig.watchers.shed(rig.now);
    }
    assert_eq!(begun, 100, "all have their turn");
    rig.room(99);
    let sent = rig.pump();
    assert!(sent.iter().all(|(id, _)| *id == WatchId(99)));
    rig.room(0);
    let again = rig.pump();
    assert!(
        matches!(again[0].1, Ok(WatchItem::Reset { first: true, .. })),
        "it had lost its place"
    );
}

/// A keyspace of 1,000 entries, and 16 resets that were sent a part of it and cannot go on: so many move at once.
fn sixteen_resets_begun(room: usize) -> Rig {
    let mut rig = Rig::of(0, 32 * 1024 * 1024);
    for index in 0..1000 {
        rig.put(&format!("k{index:03}"), 100);
    }
    for id in 0..16 {
        rig.open_with(2 * id, None, room);
    }
    let begun = rig.pump();
    assert_eq!(begun.len(), 16, "each was sent what there is room for");
    rig
}

/// The parts of its reset that a watch was sent, and whether it was the whole.
fn reset_of(id: u64, sent: &[Sent]) -> (usize, bool) {
    let of = sent.iter().filter(|(to, _)| *to == WatchId(id));
    of.fold((0, false), |(parts, _), (_, item)| match item {
        Ok(WatchItem::Reset { last, .. }) => (parts + 1, *last),
        other => panic!("{other:?}"),
    })
}

/// Each of them used to hold a place for a second, so that others waited.
#[test]
fn readers_that_do_not_read_hold_up_no_other_reset() {
    let mut rig = sixteen_resets_begun(200);
    rig.open(1, None);
    assert!(reset_of(1, &rig.pump_all()).1, "in the same moment");
    // Those that have waited go on where they were.
    rig.room(2);
    let sent = rig.pump();
    assert!(matches!(&sent[0].1, Ok(WatchItem::Reset { first: false, .. })));
}

#[test]
fn a_link_that_takes_nothing_holds_up_no_reset_of_another() {
    let mut rig = Rig::of(0, 32 * 1024 * 1024);
    for index in 0..10_000 {
        rig.put(&format!("k{index:04}"), 100);
    }
    for id in 0..16 {
        rig.open_with(2 * id, None, 16 * ROOM);
    }
    assert_eq!(rig.watchers.resets.under_way().count(), 0);
    rig.budget.keys = 1000;
    assert!(!rig.pump().is_empty());
    rig.watchers.on_link(LinkId(0), false);
    rig.open(1, None);
    rig.budget = Budget::TURN;
    let mut ended = false;
    for _ in 0..10 {
        ended |= reset_of(1, &rig.pump_all()).1;
    }
    assert!(ended, "in the same moment");
    rig.watchers.on_link(LinkId(0), true);
    assert!(reset_of(2, &rig.pump_all()).1);
}

/// They used to hold their places for as long as they read at all.
#[test]
fn readers_that_read_hardly_anything_hold_up_no_other_reset() {
    let mut rig = sixteen_resets_begun(1);
    for id in 16..100 {
        rig.open_with(2 * id, None, 1);
    }
    rig.open(1, None);
    let mut waited = Duration::ZERO;
    let mut shown = (0, false);
    while !shown.1 && waited < Duration::from_secs(5) {
        let sent = rig.pump();
        shown = reset_of(1, &sent);
        for (id, _) in &sent {
            // Room for one entry more, ten times a second.
            rig.watchers.on_reader(*id, ReaderEvent::Room(1000));
        }
        waited += Duration::from_millis(100);
        rig.now = rig.now + Duration::from_millis(100);
        rig.watchers.shed(rig.now);
    }
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[test]
fn a_watch_from_now_on_says_when_now_was_and_is_shown_what_follows() {
    let mut rig = Rig::new(0);
    rig.put("k", 1);
    rig.open_at(1, WatchSpec::new(KeyRange::all(), WatchStart::Now), ROOM);
    assert_eq!(shown(&rig.pump()), ["at 1"]);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["k@2"]);
}

#[test]
fn a_reset_of_a_later_place_waits_for_it() {
    let mut rig = Rig::new(0);
    rig.put("k", 1);
    let from = |position| {
        let start = WatchStart::StateFrom(WatchToken { stream: 0, position });
        WatchSpec::new(KeyRange::all(), start)
    };
    rig.open_at(1, from(1), ROOM);
    assert_eq!(shown(&rig.pump()), ["[k@1] at 1"]);
    rig.watchers.on_reader(WatchId(1), ReaderEvent::Gone);
    for id in [2, 3, 4] {
        rig.open_at(id, from(id), ROOM);
    }
    assert_eq!(shown(&rig.pump()), [""; 0]);
    rig.put("k", 1);
    assert_eq!(shown(&rig.pump()), ["[k@2] at 2"]);
    rig.watchers.on_reader(WatchId(2), ReaderEvent::Gone);
    rig.watchers.on_reader(WatchId(4), ReaderEvent::Gone);
    rig.jump(9);
    assert_eq!(shown(&rig.pump()), ["[k@9] at 9"]);
}

#[test]
fn a_quiet_range_is_shown_how_far_the_keyspace_has_come() {
    let mut rig = Rig::new(0);
    let interval = Duration::from_millis(200);
    let spec = WatchSpec {
        range: KeyRange::prefix("quiet"),
        start: WatchStart::Now,
        progress: Some(interval),
    };
    rig.open_at(1, spec, ROOM);
    assert_eq!(shown(&rig.pump()), ["at 0"]);
    assert_eq!(rig.watchers.wake_at(), rig.now + interval);
    for _ in 0..100 {
        rig.put("k", 1000);
        assert_eq!(shown(&rig.pump()), [""; 0]);
    }
    rig.now = rig.now + interval;
    assert_eq!(shown(&rig.pump()), ["at 100"]);
    rig.now = rig.now + interval;
    assert_eq!(shown(&rig.pump()), [""; 0], "it knows");
    // The mark can be resumed, what was seen before it could not.
    rig.open(2, Some(100));
    rig.put("quiet", 1);
    assert_eq!(shown(&rig.pump()), ["quiet@101", "quiet@101"]);
    rig.now = rig.now + interval;
    assert_eq!(shown(&rig.pump()), [""; 0], "it came with the change");
    rig.open(3, Some(9));
    assert_eq!(shown(&rig.pump()).len(), 1);
    assert_eq!(rig.watchers.slow(), 0);
}

#[test]
fn a_mark_never_comes_before_what_it_covers() {
    let mut rig = Rig::new(0);
    let spec = WatchSpec {
        range: KeyRange::all(),
        start: WatchStart::State,
        progress: Some(PROGRESS_MIN),
    };
    rig.open_at(1, spec, 1);
    assert_eq!(shown(&rig.pump()), ["[] at 0"]);
    rig.put("k", 1);
    rig.now = rig.now + PROGRESS_MIN;
    assert_eq!(shown(&rig.pump()), [""; 0], "a change waits for room");
    rig.room(1);
    assert_eq!(shown(&rig.pump()), ["k@1"]);
}
