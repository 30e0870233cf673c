//! Reading and writing histories as JSON Lines.
//!
//! A history file comes from outside: every length is bounded, and every error says where and what to do.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use thiserror::Error;

use super::{Operation, Outcome};

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Most operations of one history.
pub const OPERATIONS_MAX: usize = 10_000_000;

/// What clients asked, when, and what they were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The operations, in any order.
    pub operations: Vec<Operation>,
}

/// Why a history could not be read. Lines are counted from 1.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("line {line}: the history could not be read: {source}; try again, or copy the file")]
    Source {
        /// The line that was being read.
        line: usize,
        /// What failed.
        source: io::Error,
    },
    /// A line is longer than [`LINE_BYTES_MAX`].
    #[error(
        "line {line} is longer than {LINE_BYTES_MAX} bytes; write one operation per line, with smaller values"
    )]
    LineTooLong {
        /// The line.
        line: usize,
    },
    /// There are more than [`OPERATIONS_MAX`] operations.
    #[error("line {line}: a history holds at most {OPERATIONS_MAX} operations; split it by key or by time")]
    TooManyOperations {
        /// The first line too many.
        line: usize,
    },
    /// A line is not an operation.
    #[error(
        "line {line} is not an operation: {what}; compare with the format in the documentation of histories"
    )]
    NotAnOperation {
        /// The line.
        line: usize,
        /// What the parser says, with the column.
        what: String,
    },
    /// An operation contradicts itself or another one of its process.
    #[error("line {line}: {what}")]
    Contradiction {
        /// The line.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl History {
    /// Reads JSON Lines: one operation per line; empty lines and lines that begin with `#` are skipped.
    pub fn read(source: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        let mut numbers = Vec::new();
        lines(source, |line, content| history.take(line, content, &mut numbers))?;
        history.checked(&numbers)?;
        Ok(history)
    }

    /// Adds the operation of a line; its number goes to `numbers`.
    pub(super) fn take(
        &mut self,
        line: usize,
        content: &[u8],
        numbers: &mut Vec<usize>,
    ) -> Result<(), ReadError> {
        if self.operations.len() == OPERATIONS_MAX {
            return Err(ReadError::TooManyOperations { line });
        }
        let operation = serde_json::from_slice(content).map_err(|error| ReadError::NotAnOperation {
            line,
            what: error.to_string(),
        })?;
        self.operations.push(operation);
        numbers.push(line);
        Ok(())
    }

    /// [`History::validate`] with the line of what is wrong.
    pub(super) fn checked(&self, numbers: &[usize]) -> Result<(), ReadError> {
        self.validate()
            .map_err(|(position, what)| ReadError::Contradiction {
                line: numbers[position],
                what,
            })
    }

    /// Writes JSON Lines that [`History::read`] reads back.
    pub fn write(&self, mut target: impl Write) -> io::Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut target, operation)?;
            target.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Checks what every checker relies on; shows the position of the first operation that is wrong, and why.
    ///
    /// An answered operation has a return, no return comes before its invoke, an answer is of the kind that its call
    /// gets, and a process asks for nothing while an operation of its own is under way. An unknown operation is under
    /// way until its `return`, the time at which the client gave up; without one it is the last of its process.
    pub fn validate(&self) -> Result<(), (usize, String)> {
        for (position, operation) in self.operations.iter().enumerate() {
            alone(operation).map_err(|what| (position, what))?;
        }
        let mut processes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (position, operation) in self.operations.iter().enumerate() {
            processes.entry(operation.process).or_default().push(position);
        }
        let mut first: Option<(usize, String)> = None;
        for (process, mut positions) in processes {
            positions.sort_by_key(|position| {
                let operation = &self.operations[*position];
                (operation.invoke, operation.returned.unwrap_or(u64::MAX))
            });
            for pair in positions.windows(2) {
                let (before, after) = (&self.operations[pair[0]], &self.operations[pair[1]]);
                let problem = match before.returned {
                    Some(returned) if returned <= after.invoke => continue,
                    Some(returned) => format!(
                        "process {process} invokes at {} while its operation invoked at {} is under way until {returned}; \
                         give each concurrent client a process of its own",
                        after.invoke, before.invoke
                    ),
                    None => format!(
                        "process {process} invokes at {} after its operation invoked at {} that never returned; \
                         state when the client gave up as \"return\", or go on under a new process",
                        after.invoke, before.invoke
                    ),
                };
                if first.as_ref().is_none_or(|(position, _)| pair[1] < *position) {
                    first = Some((pair[1], problem));
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Calls `each` with the number and the content of every line that is not empty and no comment.
pub(super) fn lines(
    mut source: impl BufRead,
    mut each: impl FnMut(usize, &[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut line = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        line += 1;
        // One byte more than allowed, so that a line too long shows.
        let most = LINE_BYTES_MAX as u64 + 2;
        let read = source.by_ref().take(most).read_until(b'\n', &mut text);
        let length = read.map_err(|source| ReadError::Source { line, source })?;
        if length == 0 {
            return Ok(());
        }
        let content = text.trim_ascii();
        if text.strip_suffix(b"\n").unwrap_or(&text).len() > LINE_BYTES_MAX {
            return Err(ReadError::LineTooLong { line });
        }
        if !content.is_empty() && content[0] != b'#' {
            each(line, content)?;
        }
    }
}

/// What is wrong with an operation by itself.
fn alone(operation: &Operation) -> Result<(), String> {
    if let Some(returned) = operation.returned
        && returned < operation.invoke
    {
        return Err(format!(
            "the return at {returned} is before the invoke at {}; take both times from one clock",
            operation.invoke
        ));
    }
    let Outcome::Ok(answer) = &operation.outcome else {
        return Ok(());
    };
    if operation.returned.is_none() {
        return Err("the operation was answered but has no return; state when the answer came".into());
    }
    operation.call.fits(answer)
}
