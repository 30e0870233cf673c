//! Streams cut into segments without a reset within, and what each segment must be by itself.

use std::collections::BTreeMap;

use super::{Item, Keys, Position, State, Stream};
use crate::verdict::Verdict;

/// The changes of one commit, as a stream showed them.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) position: u64,
    pub(super) changes: Vec<&'a State>,
    /// The stream ended before the rest of the commit came.
    pub(super) cut: bool,
}

/// A part of a stream that begins with a reset or a resumption and has no gap of its own making.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    /// Position of its stream in the slice.
    pub(super) stream: usize,
    pub(super) process: u64,
    /// The stream of changes that it shows of.
    pub(super) id: u64,
    pub(super) keys: &'a Keys,
    /// It shows everything after this position.
    pub(super) begin: u64,
    /// Up to this position.
    pub(super) end: u64,
    /// The state at `begin`, if it began with a reset.
    pub(super) reset: Option<BTreeMap<&'a str, &'a State>>,
    pub(super) events: Vec<Event<'a>>,
}

impl<'a> Segment<'a> {
    pub(super) fn name(&self) -> String {
        format!("watch stream {} (process {})", self.stream, self.process)
    }

    /// What this segment knows of the watched keys at `position`, within it: all of them if it began with a reset,
    /// else those that have changed.
    pub(super) fn state_at(&self, position: u64) -> BTreeMap<&'a str, &'a State> {
        let mut state = self.reset.clone().unwrap_or_default();
        let whole = self.reset.is_some();
        for event in self.events.iter().take_while(|event| event.position <= position) {
            for change in &event.changes {
                if change.value.is_none() && whole {
                    state.remove(change.key.as_str());
                } else {
                    state.insert(&change.key, change);
                }
            }
        }
        state
    }
}

/// Cuts `streams` into segments; an error is what is wrong with one stream by itself.
pub(super) fn segments(streams: &[Stream]) -> Result<Vec<Segment<'_>>, Verdict> {
    let mut segments = Vec::new();
    for (at, stream) in streams.iter().enumerate() {
        let mut reader = Reader::new(at, stream);
        for item in &stream.items {
            reader.take(item)?;
        }
        segments.append(&mut reader.finish());
    }
    Ok(segments)
}

struct Reader<'a> {
    at: usize,
    stream: &'a Stream,
    done: Vec<Segment<'a>>,
    now: Option<Segment<'a>>,
    /// Entries of a reset whose last part has not come.
    parts: Option<BTreeMap<&'a str, &'a State>>,
    /// The last event has more to come.
    more: bool,
    versions: BTreeMap<&'a str, (u64, Option<&'a str>)>,
}

impl<'a> Reader<'a> {
    fn new(at: usize, stream: &'a Stream) -> Self {
        let mut reader = Self {
            at,
            stream,
            done: Vec::new(),
            now: None,
            parts: None,
            more: false,
            versions: BTreeMap::new(),
        };
        reader.now = stream.resume.map(|position| reader.begin(position, None));
        reader
    }

    fn begin(&self, position: Position, reset: Option<BTreeMap<&'a str, &'a State>>) -> Segment<'a> {
        Segment {
            stream: self.at,
            process: self.stream.process,
            id: position.stream,
            keys: &self.stream.keys,
            begin: position.at,
            end: position.at,
            reset,
            events: Vec::new(),
        }
    }

    fn wrong(&self, rule: &'static str, what: &str) -> Verdict {
        let name = format!("watch stream {} (process {})", self.at, self.stream.process);
        Verdict::illegal(rule, format!("{name} {what}"), [self.at])
    }

    fn take(&mut self, item: &'a Item) -> Result<(), Verdict> {
        if self.parts.is_some() && !matches!(item, Item::Reset { .. }) {
            return Err(self.wrong(
                "watch-reset",
                "goes on with changes before the last part of a reset",
            ));
        }
        if self.more && !matches!(item, Item::Changes { .. }) {
            return Err(self.wrong(
                "watch-atomic",
                "does not go on with the commit of which it said more follows",
            ));
        }
        match item {
            Item::Reset {
                position,
                entries,
                last,
            } => self.reset(*position, entries, *last),
            Item::Changes {
                position,
                changes,
                more,
            } => self.changes(*position, changes, *more),
            Item::Progress { position } => {
                let now = self.expect(*position)?;
                let end = now.end;
                if position.at < end {
                    let what = format!(
                        "says it has reported all up to {} after position {end}",
                        position.at
                    );
                    return Err(self.wrong("watch-order", &what));
                }
                self.expect(*position)?.end = position.at;
                Ok(())
            }
        }
    }

    /// The segment that an item at `position` goes on with.
    fn expect(&mut self, position: Position) -> Result<&mut Segment<'a>, Verdict> {
        let right = self.now.as_ref().is_some_and(|now| now.id == position.stream);
        if !right {
            let what = match &self.now {
                None => "begins without the entries to begin with".to_string(),
                Some(now) => format!(
                    "goes on in the stream of changes {:x} after {:x} without beginning again",
                    position.stream, now.id
                ),
            };
            return Err(self.wrong("watch-resume", &what));
        }
        Ok(self.now.as_mut().expect("there is one, and it is right"))
    }

    fn reset(&mut self, position: Position, entries: &'a [State], last: bool) -> Result<(), Verdict> {
        let mut parts = self.parts.take().unwrap_or_default();
        for entry in entries {
            let key = entry.key.as_str();
            self.filter(key)?;
            if entry.value.is_none() {
                return Err(self.wrong(
                    "watch-reset",
                    &format!("begins again with {key} that does not exist"),
                ));
            }
            if parts.last_key_value().is_some_and(|(before, _)| *before >= key) {
                return Err(self.wrong(
                    "watch-reset",
                    &format!("begins again with {key} out of order or twice"),
                ));
            }
            parts.insert(key, entry);
        }
        if !last {
            self.parts = Some(parts);
            return Ok(());
        }
        if let Some(now) = self.now.take() {
            let (id, end) = (now.id, now.end);
            self.done.push(now);
            if id == position.stream && position.at < end {
                let what = format!("begins again at position {}, before position {end}", position.at);
                return Err(self.wrong("watch-order", &what));
            }
        }
        let version = |state: &'a State| Some((state.key.as_str(), (state.version?, state.value.as_deref())));
        self.versions = parts.values().filter_map(|state| version(state)).collect();
        self.now = Some(self.begin(position, Some(parts)));
        Ok(())
    }

    fn filter(&self, key: &str) -> Result<(), Verdict> {
        if self.stream.keys.contains(key) {
            return Ok(());
        }
        let Keys { start, end } = &self.stream.keys;
        let end = end.as_deref().unwrap_or("the last");
        let what = format!("shows {key}, which is not among the keys from {start:?} to {end:?}");
        Err(self.wrong("watch-filter", &what))
    }

    fn changes(&mut self, position: Position, changes: &'a [State], more: bool) -> Result<(), Verdict> {
        let continues = std::mem::replace(&mut self.more, more);
        let now = self.expect(position)?;
        let (begin, end, at) = (now.begin, now.end, position.at);
        let first = now.events.is_empty();
        let resumed = now.reset.is_none();
        if continues && at != end {
            let what = format!("goes on at position {at} before the rest of the commit at {end} came");
            return Err(self.wrong("watch-atomic", &what));
        }
        if !continues && at <= end {
            let (rule, what) = if first && resumed {
                (
                    "watch-resume",
                    format!("was continued from position {begin} and repeats position {at}"),
                )
            } else if now.events.iter().any(|event| event.position == at) {
                ("watch-unique", format!("shows position {at} twice"))
            } else {
                ("watch-order", format!("shows position {at} after position {end}"))
            };
            return Err(self.wrong(rule, &what));
        }
        let now = self.expect(position)?;
        now.end = at;
        if !continues {
            now.events.push(Event {
                position: at,
                changes: Vec::new(),
                cut: false,
            });
        }
        for change in changes {
            self.filter(&change.key)?;
            self.version(change, at)?;
            let now = self.expect(position)?;
            let event = now.events.last_mut().expect("pushed above, or continued");
            let twice = event.changes.iter().any(|before| before.key == change.key);
            event.changes.push(change);
            if twice {
                let what = format!(
                    "shows two changes of {} in the commit at position {at}",
                    change.key
                );
                return Err(self.wrong("watch-unique", &what));
            }
        }
        Ok(())
    }

    /// Versions of a key only rise. Equal ones with another value are a tie between concurrent writes.
    fn version(&mut self, change: &'a State, at: u64) -> Result<(), Verdict> {
        let Some(version) = change.version else {
            return Ok(());
        };
        let value = change.value.as_deref();
        let key = change.key.as_str();
        match self.versions.insert(key, (version, value)) {
            Some((before, was)) if before == version && was == value => {
                let what = format!("shows {} twice, again at position {at}", change.show());
                Err(self.wrong("watch-unique", &what))
            }
            Some((before, _)) if before > version => {
                let what = format!("shows {} at position {at} after version {before}", change.show());
                Err(self.wrong("watch-order", &what))
            }
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Vec<Segment<'a>> {
        if let Some(mut now) = self.now.take() {
            if self.more
                && let Some(last) = now.events.last_mut()
            {
                last.cut = true;
            }
            self.done.push(now);
        }
        self.done
    }
}
