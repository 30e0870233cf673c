//! Files that hold more than operations: what keys held at the start, and what watchers were sent.
//!
//! Beside operations a line may be one of
//!
//! ```json
//! {"initial":{"key":"a","value":"1"}}
//! {"watch":{"watch":1,"process":3,"keys":{"start":"a","end":"b"},"resume":{"stream":1,"at":4}}}
//! {"item":{"watch":1,"item":{"reset":{"position":{"stream":1,"at":5},"entries":[{"key":"a","value":"1","version":2}]}}}}
//! {"item":{"watch":1,"item":{"changes":{"position":{"stream":1,"at":6},"changes":[{"key":"a","value":null,"version":6}]}}}}
//! {"item":{"watch":1,"item":{"progress":{"position":{"stream":1,"at":9}}}}}
//! ```
//!
//! A watch without `resume` begins with a reset; its items come in their order, after its own line.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::Deserialize;

use super::read::{History, ReadError, lines};
use crate::watch::{Item, Keys, Position, Stream};

/// Most watches of one file.
pub const WATCHES_MAX: usize = 100_000;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The operations.
    pub history: History,
    /// What keys held before the first operation; the others were absent.
    pub initial: BTreeMap<String, String>,
    /// What watchers were sent, in the order of their lines.
    pub streams: Vec<Stream>,
}

/// A line that is no operation.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Initial(Initial),
    Watch(Watch),
    Item(Sent),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Initial {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    watch: u64,
    process: u64,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    resume: Option<Position>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    watch: u64,
    item: Item,
}

impl Recording {
    /// Reads JSON Lines, as [`History::read`] does.
    pub fn read(source: impl BufRead) -> Result<Self, ReadError> {
        let mut recording = Self::default();
        let mut numbers: Vec<usize> = Vec::new();
        let mut watches: BTreeMap<u64, usize> = BTreeMap::new();
        lines(source, |line, content| {
            if !is_other(content) {
                return recording.history.take(line, content, &mut numbers);
            }
            let other = serde_json::from_slice(content).map_err(|error| ReadError::NotAnOperation {
                line,
                what: error.to_string(),
            })?;
            recording
                .other(other, &mut watches)
                .map_err(|what| ReadError::Contradiction { line, what })
        })?;
        recording.history.checked(&numbers)?;
        Ok(recording)
    }

    fn other(&mut self, line: Line, watches: &mut BTreeMap<u64, usize>) -> Result<(), String> {
        match line {
            Line::Initial(Initial { key, value }) => match self.initial.insert(key.clone(), value) {
                None => Ok(()),
                Some(before) => Err(format!(
                    "key {key} was said to hold {before} at the start; say it once"
                )),
            },
            Line::Watch(watch) => {
                if self.streams.len() == WATCHES_MAX {
                    return Err(format!("a file holds at most {WATCHES_MAX} watches; split it"));
                }
                if watches.insert(watch.watch, self.streams.len()).is_some() {
                    return Err(format!(
                        "watch {} was opened on an earlier line; give each connection a number of its own",
                        watch.watch
                    ));
                }
                self.streams.push(Stream {
                    process: watch.process,
                    keys: watch.keys,
                    resume: watch.resume,
                    items: Vec::new(),
                });
                Ok(())
            }
            Line::Item(sent) => {
                let at = watches.get(&sent.watch).ok_or_else(|| {
                    format!(
                        "watch {} has no line of its own before this; open it first",
                        sent.watch
                    )
                })?;
                self.streams[*at].items.push(sent.item);
                Ok(())
            }
        }
    }
}

/// Whether the first field of the line is that of another kind of line.
fn is_other(content: &[u8]) -> bool {
    let field = content.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let is = |name: &[u8]| field.is_some_and(|field| field.starts_with(name));
    is(b"\"initial\"") || is(b"\"watch\"") || is(b"\"item\"")
}
