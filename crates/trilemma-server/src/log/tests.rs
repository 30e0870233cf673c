//! A log whose reader does not read.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::*;

/// A reader that takes a write only with permission.
struct Slow {
    go: Receiver<()>,
    took: Sender<Vec<u8>>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go.recv().map_err(io::Error::other)?;
        self.took.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(lines: &Lines, text: &str) {
    let mut lines = lines;
    lines.write_all(text.as_bytes()).expect("it is queued or dropped");
}

#[test]
fn a_reader_that_stands_still_costs_lines_and_never_time() {
    let (go, wait) = channel();
    let (took, taken) = channel();
    let lines = Lines::start(Slow { go: wait, took }).expect("a thread");
    let began = Instant::now();
    for _ in 0..LINES_MAX + 1000 {
        line(&lines, "line");
    }
    assert!(began.elapsed() < FLUSH_MAX, "took {:?}", began.elapsed());
    let missing = lines.dropped.load(Ordering::Relaxed);
    assert!(
        (999..=1000).contains(&missing),
        "one may have left the queue before it was full: {missing}"
    );
    // All that is queued, and the sentence about the rest.
    for _ in 0..LINES_MAX + 2 {
        go.send(()).expect("the writer waits");
    }
    let sentence = format!("... {missing} lines are missing");
    let is_said = std::iter::from_fn(|| taken.recv_timeout(FLUSH_MAX).ok())
        .any(|bytes| String::from_utf8_lossy(&bytes).starts_with(&sentence));
    assert!(is_said, "how many are missing is said");
}

#[test]
fn what_is_queued_is_written_before_the_end() {
    let (go, wait) = channel();
    let (took, taken) = channel();
    let lines = Lines::start(Slow { go: wait, took }).expect("a thread");
    for _ in 0..3 {
        go.send(()).expect("the writer waits");
        line(&lines, "line");
    }
    lines.flush();
    assert_eq!(taken.try_iter().count(), 3);
}
