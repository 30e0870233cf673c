//! One page of a range, read in parts: a range may hold a million keys of which none exists for readers.

use crate::read::{Entry, Query, RANGE_BYTES_MAX};
use crate::view::View;

/// A page of the answer to a range query, as of the moment at which the view was made. It ends as
/// [`crate::read::page`] says.
#[derive(Debug)]
pub struct Scan {
    view: Box<dyn View>,
    limit: usize,
    page: Vec<Entry>,
    bytes: usize,
    more: bool,
    ended: bool,
}

impl Scan {
    /// A scan that has read nothing yet.
    #[must_use]
    pub fn new(view: Box<dyn View>, query: &Query) -> Self {
        Self {
            view,
            limit: query.limit(),
            page: Vec::new(),
            bytes: 0,
            more: false,
            ended: false,
        }
    }

    /// Looks at `keys` further keys at most, and takes those from the number that it looked at. Whether the page is done.
    pub fn read(&mut self, keys: &mut usize) -> bool {
        while !self.ended && !self.more && *keys > 0 {
            let is_full = self.page.len() >= self.limit || self.bytes >= RANGE_BYTES_MAX;
            // Of what follows a full page, one entry says that there is more.
            let (most, bytes) = if is_full {
                (*keys, 1)
            } else {
                (
                    (*keys).min(self.limit - self.page.len()),
                    RANGE_BYTES_MAX - self.bytes,
                )
            };
            let before = self.page.len();
            let looked = self.view.read(most, bytes, &mut self.page);
            *keys = keys.saturating_sub(looked.keys);
            if is_full && self.page.len() > before {
                self.page.truncate(before);
                self.more = true;
                break;
            }
            let read = self.page[before..].iter();
            self.bytes += read
                .map(|entry| entry.key.len() + entry.state.value.len())
                .sum::<usize>();
            self.ended = looked.ended;
        }
        self.ended || self.more
    }

    /// The page, and whether more follows it.
    #[must_use]
    pub fn finish(self) -> (Vec<Entry>, bool) {
        (self.page, self.more)
    }
}

#[cfg(test)]
mod tests;
