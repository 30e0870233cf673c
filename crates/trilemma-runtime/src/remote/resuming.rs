//! A watch that goes on at another server when its own is lost.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use trilemma_client::{Answer, What};
use trilemma_core::{ReadError, Reason, WatchItem, WatchSpec, WatchStart, WatchToken};

use super::replicator::RemoteReplicator;
use super::{Answered, unexpected};
use crate::readers::{Item, WatchReader};

/// Shortest and longest pause between two rounds over the servers.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);

type Opening = Pin<Box<dyn Future<Output = Result<WatchReader, ReadError>> + Send>>;

/// See the module.
pub(super) struct Resuming {
    at: RemoteReplicator,
    /// What to ask for next: where the watch has come is in it.
    spec: WatchSpec,
    /// The last token that was given.
    token: Option<WatchToken>,
    /// How long to look for a server.
    patience: Duration,
    stage: Stage,
}

enum Stage {
    Open(WatchReader),
    Opening(Opening),
    Ended,
}

impl RemoteReplicator {
    /// Opens a watch at some server.
    pub(super) async fn open_watch(
        &self,
        spec: WatchSpec,
        timeout: Duration,
    ) -> Result<WatchReader, ReadError> {
        let what = What::Watch {
            keyspace: self.name.clone(),
            spec,
        };
        let Answered { answer, watch } = self.call(what, timeout).await;
        match (answer, watch) {
            (Answer::Watching(_), Some(watch)) => Ok(watch),
            (Answer::Refused(reason), _) => Err(reason.into()),
            _ => Err(unexpected().into()),
        }
    }

    /// Opens it again, at whichever server, within this time.
    async fn open_again(self, spec: WatchSpec, patience: Duration) -> Result<WatchReader, ReadError> {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSE_MIN;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let error = match self.open_watch(spec.clone(), rest).await {
                Ok(watch) => return Ok(watch),
                Err(error) => error,
            };
            if !may_go_on(&error) || rest <= pause {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
        }
    }
}

/// Whether another server may go on with a watch that has ended so.
fn may_go_on(error: &ReadError) -> bool {
    matches!(error.reason, Reason::Unreachable { .. } | Reason::Stopping)
        || error.reason.may_differ_elsewhere()
}

impl Resuming {
    /// A watch that was opened so. When it is lost, another server is looked for within `patience`.
    pub(super) fn new(at: RemoteReplicator, spec: WatchSpec, watch: WatchReader, patience: Duration) -> Self {
        let token = match spec.start {
            WatchStart::After(token) | WatchStart::StateFrom(token) => Some(token),
            WatchStart::State | WatchStart::Now => None,
        };
        Self {
            at,
            spec,
            token,
            patience,
            stage: Stage::Open(watch),
        }
    }

    /// Where it goes on after this item. A reset that breaks off is void, so another must begin, and show nothing older.
    fn note(&mut self, item: &WatchItem) {
        self.spec.start = match item {
            WatchItem::Reset { last: false, .. } => {
                self.token.map_or(WatchStart::State, WatchStart::StateFrom)
            }
            item => {
                self.token = Some(item.token());
                WatchStart::After(item.token())
            }
        };
    }
}

impl Stream for Resuming {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            match &mut self.stage {
                Stage::Open(watch) => {
                    let item = std::task::ready!(Pin::new(watch).poll_next(cx));
                    match &item {
                        Some(Ok(item)) => self.note(item),
                        Some(Err(error)) if may_go_on(error) => {
                            let (at, spec) = (self.at.clone(), self.spec.clone());
                            let opening = at.open_again(spec, self.patience);
                            self.stage = Stage::Opening(Box::pin(opening));
                            continue;
                        }
                        Some(Err(_)) | None => self.stage = Stage::Ended,
                    }
                    return Poll::Ready(item);
                }
                Stage::Opening(opening) => match std::task::ready!(opening.as_mut().poll(cx)) {
                    Ok(watch) => self.stage = Stage::Open(watch),
                    Err(error) => {
                        self.stage = Stage::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }
}
