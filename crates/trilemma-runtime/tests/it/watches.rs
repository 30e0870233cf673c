//! Watches of nodes elsewhere: very many over one connection, of large ranges, of which some are not read.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use trilemma_core::{
    Backend, Command, Key, KeyRange, Mutation, SharedReplicator, Value, WatchItem, WatchSpec, WatchStart,
    WatchStream,
};

use crate::cluster::Cluster;
use crate::remote::{ALL, ONE, PATIENCE, connect, context, keyspace, one_node};

/// Longest time for everything to come: debug builds are slow.
const LONG: Duration = Duration::from_secs(120);

async fn watch(at: &SharedReplicator, range: KeyRange) -> WatchStream {
    let spec = WatchSpec::new(range, WatchStart::State);
    at.watch(&context(0, PATIENCE), spec)
        .await
        .expect("there is room")
}

async fn next(stream: &mut WatchStream) -> WatchItem {
    let next = tokio::time::timeout(LONG, poll_fn(|cx| stream.as_mut().poll_next(cx))).await;
    let item = next.expect("an item comes").expect("the watch goes on");
    item.unwrap_or_else(|error| panic!("the watch ends: {error}"))
}

async fn write(at: &SharedReplicator, seq: u64, command: Command) {
    let written = at.write(&context(seq, PATIENCE), command).await;
    written.unwrap_or_else(|error| panic!("{seq}: {error}"));
}

/// A key that is written again and again, and a neighbour: each watch is shown what is in its range, once, in order.
#[tokio::test]
async fn ten_thousand_watches_over_one_connection_are_shown_everything_in_order() {
    const WATCHES: usize = 10_000;
    const ROUNDS: u64 = 3;
    let cluster = one_node(ONE).await;
    cluster.writable(ONE, Backend::Raft).await;
    let remote = connect(cluster.client(&[(ONE, cluster.listen(ONE))])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let mut watches = Vec::new();
    for number in 0..WATCHES {
        // Some of one key, some of a prefix that others watch too, some of everything.
        let range = match number % 100 {
            0 => KeyRange::prefix("w/"),
            1..10 => KeyRange::prefix(format!("w/{}", number % 7)),
            _ => KeyRange::key(&Key::from(format!("w/{}", number % 100))),
        };
        watches.push((range.clone(), watch(&at, range).await));
    }
    for (_, stream) in &mut watches {
        assert!(matches!(next(stream).await, WatchItem::Reset { last: true, .. }));
    }
    let writer = {
        let at = at.clone();
        tokio::spawn(async move {
            for seq in 0..100 * ROUNDS {
                let key = format!("w/{}", seq % 100);
                write(&at, 1000 + seq, Command::put(key, seq.to_le_bytes().to_vec())).await;
            }
        })
    };
    for (range, stream) in &mut watches {
        for seq in 0..100 * ROUNDS {
            let key = Key::from(format!("w/{}", seq % 100));
            if !range.contains(&key) {
                continue;
            }
            let WatchItem::Changes { changes, .. } = next(stream).await else {
                panic!("nobody is too slow");
            };
            assert_eq!(changes.len(), 1);
            assert_eq!(changes[0].key, key);
            let now = changes[0].now.as_ref().expect("nothing is deleted");
            assert_eq!(now.value[..], seq.to_le_bytes());
        }
    }
    writer.await.expect("every write succeeds");
    // All at once, and nothing is left: the same again fits.
    drop(watches);
    let mut again = watch(&at, KeyRange::prefix("w/")).await;
    assert!(matches!(next(&mut again).await, WatchItem::Reset { .. }));
}

#[tokio::test]
async fn watches_of_a_large_range_opened_at_once_are_all_shown_it_and_no_connection_is_lost() {
    const KEYS: usize = 20_000;
    const WATCHES: usize = 100;
    let cluster = one_node(ONE).await;
    cluster.writable(ONE, Backend::Raft).await;
    let remote = connect(cluster.client(&[(ONE, cluster.listen(ONE))])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    for part in 0..KEYS / 100 {
        let put = |number: usize| Mutation::Put {
            key: format!("k{:06}", 100 * part + number).into(),
            value: "v".into(),
            lease: None,
        };
        let command = Command {
            guards: Vec::new(),
            mutations: (0..100).map(put).collect(),
        };
        write(&at, 1 + part as u64, command).await;
    }
    let mut streams = Vec::new();
    for _ in 0..WATCHES {
        streams.push(watch(&at, KeyRange::prefix("k")).await);
    }
    // Some are not read at all.
    let unread = streams.split_off(WATCHES - 10);
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let mut keys = 0;
                loop {
                    match next(&mut stream).await {
                        WatchItem::Reset {
                            entries, first, last, ..
                        } => {
                            keys = if first {
                                entries.len()
                            } else {
                                keys + entries.len()
                            };
                            if last {
                                return keys;
                            }
                        }
                        WatchItem::Changes { .. } | WatchItem::Progress { .. } => panic!("nothing changes"),
                    }
                }
            })
        })
        .collect();
    let mut asked = 10_000;
    for reader in readers {
        asked += 1;
        write(&at, asked, Command::put("other", "x")).await;
        assert_eq!(reader.await.expect("no panic"), KEYS);
    }
    drop(unread);
}

#[tokio::test]
async fn a_watch_that_nobody_reads_holds_up_no_other_and_is_sent_a_reset_later() {
    let cluster = one_node(ONE).await;
    cluster.writable(ONE, Backend::Raft).await;
    let remote = connect(cluster.client(&[(ONE, cluster.listen(ONE))])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let mut unread = watch(&at, KeyRange::all()).await;
    let mut read = watch(&at, KeyRange::all()).await;
    assert!(matches!(next(&mut read).await, WatchItem::Reset { .. }));
    // More than the node keeps, and more than the connection may bring unread.
    let mut state = BTreeMap::new();
    for seq in 1..=100 {
        let (key, value) = (Key::from(format!("k{}", seq % 10)), vec![0; 1024 * 1024]);
        write(&at, seq, Command::put(key.clone(), value)).await;
        let WatchItem::Changes { changes, token } = next(&mut read).await else {
            panic!("it keeps up");
        };
        assert_eq!(changes[0].key, key);
        state.insert(key, token.position);
    }
    let (mut shown, mut resets) = (BTreeMap::new(), 0);
    while shown != state {
        match next(&mut unread).await {
            WatchItem::Reset { entries, first, .. } => {
                if first {
                    resets += 1;
                    shown.clear();
                }
                shown.extend(
                    entries
                        .into_iter()
                        .map(|entry| (entry.key, entry.state.modified.0)),
                );
            }
            WatchItem::Changes { changes, token } => {
                shown.insert(changes[0].key.clone(), token.position);
            }
            WatchItem::Progress { .. } => panic!("nobody wants to know"),
        }
    }
    assert_eq!(resets, 2, "the first, and one for what was missed");
}

/// Its server dies, and it is shown what follows by another: nothing twice, nothing left out.
#[tokio::test]
async fn a_watch_goes_on_by_itself_when_its_server_dies() {
    let cluster = Cluster::start().await;
    cluster.writable(ONE, Backend::Raft).await;
    let servers: Vec<_> = ALL.map(|id| (id, cluster.listen(id))).into();
    let remote = connect(cluster.client(&servers)).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let mut stream = watch(&at, KeyRange::prefix("w/")).await;
    assert!(matches!(
        next(&mut stream).await,
        WatchItem::Reset { last: true, .. }
    ));
    let served_by = remote.node().expect("a server is connected");
    let (mut shown, mut token) = (0, 0);
    for seq in 1..=40 {
        if seq == 20 {
            cluster.take(served_by).abort().await;
        }
        let value = Value::from(vec![u8::try_from(seq).expect("few writes")]);
        write(&at, seq, Command::put(format!("w/{}", seq % 3), value)).await;
        if seq % 4 != 0 {
            continue;
        }
        // Some are waited for at once, so that the watch is open when its server dies.
        while shown < seq {
            let WatchItem::Changes { changes, token: now } = next(&mut stream).await else {
                panic!("other nodes know what follows");
            };
            shown += 1;
            let value = &changes[0].now.as_ref().expect("nothing is deleted").value;
            assert_eq!(u64::from(value[0]), shown);
            assert!(now.position > token, "it never goes back");
            token = now.position;
        }
    }
}
