//! A node's log on standard error, which must not hold the node up: its reader may have stopped, or have gone.
//!
//! Lines wait in a queue for a thread of their own. What the queue does not hold is dropped and counted, and the count is
//! written when there is room again. A line that standard error refuses is lost; the node goes on.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for standard error.
const LINES_MAX: usize = 4096;
/// Longest wait at the end for lines that are still queued.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Flush(SyncSender<()>),
}

/// The queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Lines {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&items, out, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until what is queued has been written, but not for long.
    pub(crate) fn flush(&self) {
        let (written, wait) = sync_channel(1);
        if self.queue.try_send(Item::Flush(written)).is_ok() {
            // Nobody may be reading; then the lines are lost, as they would have been later.
            let _in_time = wait.recv_timeout(FLUSH_MAX).is_ok();
        }
    }
}

fn write_lines(items: &Receiver<Item>, mut out: impl Write, dropped: &AtomicU64) {
    for item in items {
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let text = format!("... {missing} lines are missing: standard error did not take them\n");
            // There is nobody left to tell.
            let _lost = out.write_all(text.as_bytes()).is_err();
        }
        match item {
            Item::Line(line) => {
                let _lost = out.write_all(&line).is_err();
            }
            Item::Flush(written) => {
                let _lost = out.flush().is_err();
                // The one who waited may have given up.
                let _late = written.send(()).is_err();
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
