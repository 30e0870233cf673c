//! A server that loses every watch at once is not asked without pause, nor without end.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use trilemma_core::KeyRange;

use super::*;

/// A server that shows so many items of each watch, holds it for a while, and loses it.
#[derive(Clone)]
struct Losing {
    items: u64,
    holds: Duration,
    opened: Arc<Mutex<Vec<(Instant, WatchStart)>>>,
}

impl Losing {
    fn new(items: u64, holds: Duration) -> Self {
        let opened = Arc::default();
        Self { items, holds, opened }
    }

    fn opened(&self) -> Vec<(Instant, WatchStart)> {
        self.opened.lock().expect("no test panics with it").clone()
    }

    fn watch(&self, start: WatchStart) -> WatchReader {
        let (sender, receiver) = mpsc::unbounded_channel();
        let from = match start {
            WatchStart::After(token) => token.position,
            _ => 0,
        };
        for position in from + 1..=from + self.items {
            let token = WatchToken { stream: 0, position };
            sender
                .send(Ok(WatchItem::Progress { token }))
                .expect("the receiver is here");
        }
        let holds = self.holds;
        tokio::spawn(async move {
            tokio::time::sleep(holds).await;
            drop(sender);
        });
        let lost = Reason::Unreachable {
            why: "it is lost".into(),
        };
        WatchReader::new(receiver, 1000, |_| {}).with_end(lost.into())
    }
}

impl OpenWatch for Losing {
    async fn open_watch(&self, spec: WatchSpec, _timeout: Duration) -> Opened {
        let opened = (Instant::now(), spec.start);
        self.opened.lock().expect("no test panics with it").push(opened);
        Ok(self.watch(spec.start))
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Reads until the watch ends, or has shown `items`; returns how many it has shown, and its end.
async fn read(server: &Losing, items: u64) -> (u64, Option<ReadError>) {
    let spec = WatchSpec::new(KeyRange::all(), WatchStart::State);
    let first = server.watch(spec.start);
    let mut watch = Resuming::new(server.clone(), spec, first, PATIENCE);
    let mut shown = 0;
    while shown < items {
        match poll_fn(|cx| Pin::new(&mut watch).poll_next(cx)).await {
            Some(Ok(_)) => shown += 1,
            Some(Err(error)) => return (shown, Some(error)),
            None => panic!("a watch says why it ends"),
        }
    }
    (shown, None)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loses_each_watch_at_once_is_asked_ever_less_and_not_without_end() {
    let server = Losing::new(0, Duration::ZERO);
    let begun = Instant::now();
    let (shown, end) = tokio::time::timeout(10 * PATIENCE, read(&server, 1))
        .await
        .expect("the deadline covers all losses");
    assert_eq!(shown, 0);
    let reason = end.expect("it ends").reason;
    assert!(matches!(reason, Reason::Unreachable { .. }), "{reason}");
    assert!(begun.elapsed() > PATIENCE - PAUSE_MAX && begun.elapsed() < PATIENCE + PAUSE_MAX);
    let opened = server.opened();
    let pauses: Vec<u128> = opened
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0).as_millis())
        .collect();
    assert_eq!(pauses[..6], [50, 100, 200, 400, 800, 800]);
    assert!(opened.len() < 20, "{} times", opened.len());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_comes_further_is_looked_for_as_if_it_had_never_been_lost() {
    let server = Losing::new(1, Duration::ZERO);
    assert_eq!(read(&server, 1000).await, (1000, None));
    let opened = server.opened();
    assert!(
        opened.windows(2).all(|pair| pair[1].0 == pair[0].0),
        "at once, each time"
    );
    let last = opened.last().map(|(_, start)| *start);
    let token = WatchToken {
        stream: 0,
        position: 999,
    };
    assert_eq!(last, Some(WatchStart::After(token)));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_that_is_lost_once_a_day_goes_on() {
    let server = Losing::new(0, Duration::from_secs(24 * 3600));
    let days = Duration::from_secs(100 * 24 * 3600);
    let ended = tokio::time::timeout(days, read(&server, 1)).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(server.opened().len(), 99);
}
