//! A watch as a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use trilemma_core::replicator::WatchStream;
use trilemma_core::{WatchItem, WatchToken};

use crate::error::{Error, Result};

/// The changes of a range, as they happen. See [`trilemma_core::watch`] for what it never skips.
///
/// A watch through a [`Client`](crate::Client) goes on at another server when the connection is lost, without a gap. With
/// `raft` and `two-phase`, whose nodes have one order, it goes on where it was. With `gossip` and `paxos` it begins again
/// there with that server's state, which may lack what was shown before until the servers have met. After an error it has
/// ended; resume with [`Watch::token`].
pub struct Watch {
    stream: WatchStream,
    /// Whether marks are items.
    shows_progress: bool,
    token: Option<WatchToken>,
    ended: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("token", &self.token)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(stream: WatchStream, shows_progress: bool) -> Self {
        Self {
            stream,
            shows_progress,
            token: None,
            ended: false,
        }
    }

    /// Where to resume after what has been received so far; `None` before the first complete item.
    #[must_use]
    pub fn token(&self) -> Option<WatchToken> {
        self.token
    }

    /// The next item; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Result<WatchItem>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let item = std::task::ready!(self.stream.as_mut().poll_next(cx));
            match &item {
                Some(Ok(WatchItem::Reset { last: false, .. })) => {}
                Some(Ok(item)) => self.token = Some(item.token()),
                Some(Err(_)) | None => self.ended = true,
            }
            if self.shows_progress || !matches!(item, Some(Ok(WatchItem::Progress { .. }))) {
                return Poll::Ready(item.map(|item| item.map_err(Error::from)));
            }
        }
    }
}
