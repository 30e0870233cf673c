//! A watch that goes on at another server when its own is lost.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;
use trilemma_client::{Answer, What};
use trilemma_core::{ReadError, Reason, WatchItem, WatchSpec, WatchStart, WatchToken};

use super::replicator::RemoteReplicator;
use super::{Answered, unexpected};
use crate::readers::{Item, WatchReader};

/// Shortest and longest pause before servers are asked once more.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// A watch that was open for so long was well served, even if there was nothing to show.
const SOUND_AFTER: Duration = Duration::from_secs(5);

type Opened = Result<WatchReader, ReadError>;
type Opening = Pin<Box<dyn Future<Output = (Opened, Search)> + Send>>;

/// What opens watches at some server.
pub(super) trait OpenWatch: Clone + Send + Sync + Unpin + 'static {
    /// Opens a watch, within this time.
    fn open_watch(&self, spec: WatchSpec, timeout: Duration) -> impl Future<Output = Opened> + Send;
}

impl OpenWatch for RemoteReplicator {
    async fn open_watch(&self, spec: WatchSpec, timeout: Duration) -> Opened {
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
}

/// How a server is looked for: over all losses since the watch last came further.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// The time that is left for it.
    left: Duration,
    /// How long to wait before servers are asked again.
    pause: Duration,
}

impl Search {
    fn within(patience: Duration) -> Self {
        Self {
            left: patience,
            pause: Duration::ZERO,
        }
    }

    /// Opens a watch that was lost at whichever server.
    async fn open(mut self, at: impl OpenWatch, spec: WatchSpec, lost: ReadError) -> (Opened, Self) {
        let begun = Instant::now();
        let mut error = lost;
        let result = loop {
            let rest = self.left.saturating_sub(begun.elapsed());
            if rest <= self.pause || !may_go_on(&error) {
                break Err(error);
            }
            let pause = self.pause;
            self.pause = PAUSE_MAX.min(PAUSE_MIN.max(2 * pause));
            tokio::time::sleep(pause).await;
            let rest = self.left.saturating_sub(begun.elapsed());
            match at.open_watch(spec.clone(), rest).await {
                Ok(watch) => break Ok(watch),
                Err(refused) => error = refused,
            }
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        (result, self)
    }
}

/// Whether another server may go on with a watch that has ended so.
fn may_go_on(error: &ReadError) -> bool {
    matches!(error.reason, Reason::Unreachable { .. } | Reason::Stopping)
        || error.reason.may_differ_elsewhere()
}

/// See the module.
///
/// A server that opens the watch and loses it again is no better than one that does not open it: the pause grows, and the
/// time runs on, until the watch has come further or was open for a while.
pub(super) struct Resuming<O> {
    at: O,
    /// What to ask for next: where the watch has come is in it.
    spec: WatchSpec,
    /// The last token that was given.
    token: Option<WatchToken>,
    /// How long to look for a server.
    patience: Duration,
    search: Search,
    stage: Stage,
}

enum Stage {
    Open { watch: WatchReader, since: Instant },
    Opening(Opening),
    Ended,
}

impl<O: OpenWatch> Resuming<O> {
    /// A watch that was opened so. When it is lost, another server is looked for within `patience`, which all losses
    /// share until it comes further.
    pub(super) fn new(at: O, spec: WatchSpec, watch: WatchReader, patience: Duration) -> Self {
        let token = match spec.start {
            WatchStart::After(token) | WatchStart::StateFrom(token) => Some(token),
            WatchStart::State | WatchStart::Now => None,
        };
        let since = Instant::now();
        Self {
            at,
            spec,
            token,
            patience,
            search: Search::within(patience),
            stage: Stage::Open { watch, since },
        }
    }

    /// Where it goes on after this item. A reset that breaks off is void, so another must begin, and show nothing older.
    fn note(&mut self, item: &WatchItem) {
        self.spec.start = match item {
            WatchItem::Reset { last: false, .. } => {
                self.token.map_or(WatchStart::State, WatchStart::StateFrom)
            }
            item => {
                let token = Some(item.token());
                if self.token != token {
                    self.token = token;
                    self.search = Search::within(self.patience);
                }
                WatchStart::After(item.token())
            }
        };
    }

    /// Looks for another server.
    fn lost(&mut self, error: ReadError, since: Instant) {
        if since.elapsed() >= SOUND_AFTER {
            self.search = Search::within(self.patience);
        }
        let opening = self.search.open(self.at.clone(), self.spec.clone(), error);
        self.stage = Stage::Opening(Box::pin(opening));
    }
}

impl<O: OpenWatch> Stream for Resuming<O> {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            match &mut self.stage {
                Stage::Open { watch, since } => {
                    let since = *since;
                    match std::task::ready!(Pin::new(watch).poll_next(cx)) {
                        Some(Err(error)) if may_go_on(&error) => self.lost(error, since),
                        item => {
                            match &item {
                                Some(Ok(item)) => self.note(item),
                                Some(Err(_)) | None => self.stage = Stage::Ended,
                            }
                            return Poll::Ready(item);
                        }
                    }
                }
                Stage::Opening(opening) => {
                    let (opened, search) = std::task::ready!(opening.as_mut().poll(cx));
                    self.search = search;
                    match opened {
                        Ok(watch) => {
                            let since = Instant::now();
                            self.stage = Stage::Open { watch, since };
                        }
                        Err(error) => {
                            self.stage = Stage::Ended;
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
