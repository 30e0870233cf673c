//! What one process has read and written so far, and what that demands of its next operation.

use std::collections::BTreeMap;

use super::{Guarantees, Known, Order};
use crate::convergence::{Content, Fate, Write};
use crate::verdict::Verdict;

/// Names a write: by its operation where its value shows it, else by its version. Never by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Version(u64),
    Operation(usize),
}

/// How the process knows something.
#[derive(Clone, Copy, Debug)]
struct Source {
    operation: usize,
    own_write: bool,
}

/// A version that the process knows.
#[derive(Clone, Copy, Debug)]
struct Floor {
    version: u64,
    source: Source,
}

#[derive(Debug, Default)]
struct Key {
    /// The greatest version written, and the greatest read.
    written: Option<Floor>,
    read: Option<Floor>,
    /// The version above which everything must be: it was seen to be gone.
    gone: Option<Floor>,
    /// The write known last, and how.
    now: Option<(Option<Token>, Source)>,
    /// The key was last seen as of this version, up to the version after it, in one order for all keys.
    stood: Option<(u64, u64, Source)>,
    /// Writes that were seen or known to be replaced, by what.
    past: BTreeMap<Token, Source>,
}

/// One process.
pub(super) struct Session<'a, 'k> {
    process: u64,
    order: Order,
    /// An own write surely replaces what the process knew: else one that loses against it would be blamed.
    replaces: bool,
    known: &'k Known<'a>,
    keys: BTreeMap<&'a str, Key>,
    /// The greatest version written, and read, of any key.
    written: Option<Floor>,
    read: Option<Floor>,
}

fn raise(floor: &mut Option<Floor>, version: u64, operation: usize, own_write: bool) {
    if floor.is_none_or(|floor| floor.version < version) {
        let source = Source { operation, own_write };
        *floor = Some(Floor { version, source });
    }
}

impl<'a, 'k> Session<'a, 'k> {
    pub(super) fn new(process: u64, order: Order, guarantees: Guarantees, known: &'k Known<'a>) -> Self {
        Self {
            process,
            order,
            replaces: guarantees.writes_follow_reads && guarantees.monotonic_writes,
            known,
            keys: BTreeMap::new(),
            written: None,
            read: None,
        }
    }

    /// The keys that the process knows something of and that `choose` accepts.
    pub(super) fn known_keys(&self, choose: impl Fn(&str) -> bool) -> Vec<&'a str> {
        self.keys.keys().copied().filter(|key| choose(key)).collect()
    }

    fn wrong(&self, rule: &'static str, at: usize, because: Source, what: &str) -> Option<Verdict> {
        let what = format!("operation {at} of process {} {what}", self.process);
        Some(Verdict::illegal(rule, what, [at, because.operation]))
    }

    /// A read of a key.
    pub(super) fn read(
        &mut self,
        at: usize,
        key: &str,
        value: Option<&str>,
        version: Option<u64>,
    ) -> Option<Verdict> {
        let maker = value.and_then(|value| self.known.maker(key, value));
        // A key that nobody writes is the matter of the check for thin air.
        let key = *self.known.keys.get(key)?;
        let version = version.or(maker.and_then(|maker| maker.version));
        match (self.order, value, version) {
            (Order::Opaque, Some(_), _) | (_, Some(_), None) => {
                let maker = maker.map(|maker| Token::Operation(maker.operation));
                let named = maker.or(version.map(Token::Version));
                self.read_token(at, key, named)
            }
            (_, Some(_), Some(version)) => self.read_version(at, key, version),
            (_, None, _) => self.read_nothing(at, key),
        }
    }

    fn read_version(&mut self, at: usize, key: &'a str, version: u64) -> Option<Verdict> {
        let state = self.keys.entry(key).or_default();
        let (written, read, gone) = (state.written, state.read, state.gone);
        raise(&mut state.read, version, at, false);
        raise(&mut self.read, version, at, false);
        if let Some(floor) = written.filter(|floor| version < floor.version) {
            let what = format!(
                "read {key} at version {version}, older than version {} of its own operation {}",
                floor.version, floor.source.operation
            );
            return self.wrong("read-your-writes", at, floor.source, &what);
        }
        if let Some(floor) = read.filter(|floor| version < floor.version) {
            let what = format!(
                "read {key} at version {version}, older than version {} that operation {} had read",
                floor.version, floor.source.operation
            );
            return self.wrong("monotonic-reads", at, floor.source, &what);
        }
        let floor = gone.filter(|floor| version <= floor.version)?;
        let what = format!(
            "read {key} at version {version}, which operation {} had found replaced and removed",
            floor.source.operation
        );
        self.wrong("monotonic-reads", at, floor.source, &what)
    }

    fn read_nothing(&mut self, at: usize, key: &'a str) -> Option<Verdict> {
        let source = Source {
            operation: at,
            own_write: false,
        };
        let state = self.keys.entry(key).or_default();
        let newest = [state.read, state.written]
            .into_iter()
            .flatten()
            .max_by_key(|floor| floor.version);
        if let Some(floor) = newest {
            state.gone = Some(Floor {
                version: floor.version,
                source,
            });
            if !self.known.deletes_after(key, floor.version) {
                let rule = if floor.source.own_write {
                    "read-your-writes"
                } else {
                    "monotonic-reads"
                };
                let what = format!(
                    "found no {key}, though its process knew version {} from operation {} and no delete is newer",
                    floor.version, floor.source.operation
                );
                return self.wrong(rule, at, floor.source, &what);
            }
        }
        let before = state.now.replace((None, source));
        if let Some((Some(token), because)) = before {
            state.past.insert(token, source);
            if !self.known.is_deleted(key) {
                let rule = if because.own_write {
                    "read-your-writes"
                } else {
                    "monotonic-reads"
                };
                let what = format!(
                    "found no {key}, though its process knew it from operation {} and nobody deletes it",
                    because.operation
                );
                return self.wrong(rule, at, because, &what);
            }
        }
        None
    }

    fn read_token(&mut self, at: usize, key: &'a str, token: Option<Token>) -> Option<Verdict> {
        let source = Source {
            operation: at,
            own_write: false,
        };
        let state = self.keys.entry(key).or_default();
        let token = token?;
        if let Some(because) = state.past.get(&token).copied() {
            let rule = if because.own_write {
                "read-your-writes"
            } else {
                "monotonic-reads"
            };
            let what = format!(
                "read {key} as it was before operation {}, which had replaced it or found it replaced",
                because.operation
            );
            return self.wrong(rule, at, because, &what);
        }
        self.replace(key, Some(token), source);
        None
    }

    /// The process knows now that `token` is what the key holds.
    fn replace(&mut self, key: &'a str, token: Option<Token>, source: Source) {
        let state = self.keys.entry(key).or_default();
        if let Some((Some(before), _)) = state.now
            && Some(before) != token
        {
            state.past.insert(before, source);
        }
        if state.now.is_none_or(|(before, _)| before != token) {
            state.now = Some((token, source));
        }
    }

    /// An acknowledged write of one key.
    pub(super) fn write(&mut self, write: &Write<'a>) -> Vec<Verdict> {
        if write.fate != Fate::Acknowledged || matches!(write.content, Content::Add(_)) {
            return Vec::new();
        }
        let at = write.operation;
        let source = Source {
            operation: at,
            own_write: true,
        };
        let token = match write.content {
            Content::Put(value) if self.known.maker(write.key, value).is_some() => Some(Token::Operation(at)),
            Content::Put(_) => write.version.map(Token::Version),
            Content::Delete | Content::Add(_) => None,
        };
        if self.replaces {
            self.replace(write.key, token, source);
        } else {
            self.keys.entry(write.key).or_default().now = Some((token, source));
        }
        let Some(version) = write.version.filter(|_| self.order != Order::Opaque) else {
            return Vec::new();
        };
        let state = self.keys.entry(write.key).or_default();
        let (written, read) = match self.order {
            Order::Keyspace => (self.written, self.read),
            _ => (state.written, state.read),
        };
        raise(&mut state.written, version, at, true);
        raise(&mut self.written, version, at, true);
        let mut found = Vec::new();
        // The parts of one command share its version.
        if let Some(floor) = written.filter(|floor| version <= floor.version && floor.source.operation != at)
        {
            let what = format!(
                "wrote {} at version {version}, not after version {} of its own earlier operation {}",
                write.key, floor.version, floor.source.operation
            );
            found.extend(self.wrong("monotonic-writes", at, floor.source, &what));
        }
        if let Some(floor) = read.filter(|floor| version <= floor.version) {
            let what = format!(
                "wrote {} at version {version}, not after version {} that operation {} had read",
                write.key, floor.version, floor.source.operation
            );
            found.extend(self.wrong("writes-follow-reads", at, floor.source, &what));
        }
        found
    }

    /// A read of the whole keyspace as of `version`.
    pub(super) fn reflects(&mut self, at: usize, version: Option<u64>) -> Option<Verdict> {
        let version = version.filter(|_| self.order == Order::Keyspace)?;
        let (written, read) = (self.written, self.read);
        raise(&mut self.read, version, at, false);
        if let Some(floor) = written.filter(|floor| version < floor.version) {
            let what = format!(
                "reflects version {version}, before version {} of its own operation {}",
                floor.version, floor.source.operation
            );
            return self.wrong("read-your-writes", at, floor.source, &what);
        }
        let floor = read.filter(|floor| version < floor.version)?;
        let what = format!(
            "reflects version {version}, before version {} that operation {} had read",
            floor.version, floor.source.operation
        );
        self.wrong("monotonic-reads", at, floor.source, &what)
    }

    /// Where one order is for all keys, a read stands at one version: not before what the process knows, and such that
    /// each key that it read is as it was there. `reflects`: the version, if reported.
    pub(super) fn stands(
        &mut self,
        at: usize,
        reads: &[(&'a str, super::Element<'a>)],
        reflects: Option<u64>,
    ) -> Option<Verdict> {
        if self.order != Order::Keyspace {
            return None;
        }
        let newest = [self.written, self.read].into_iter().flatten();
        let floor = newest.max_by_key(|floor| floor.version)?;
        let mut here = floor.version;
        // A key that was absent while it existed here was so later, after a delete.
        for (key, _) in reads.iter().filter(|(_, read)| read.value.is_none()) {
            let versions = self.known.versions_of(key);
            let last = versions.partition_point(|(version, _)| *version <= here);
            let (shown, is_removed) = last.checked_sub(1).map_or((0, true), |last| versions[last]);
            let seen = self.keys.get(key).and_then(|state| state.read);
            let is_seen = seen.is_some_and(|seen| seen.version > shown && seen.version <= here);
            if is_removed && !is_seen || self.known.has_open_delete(key) {
                continue;
            }
            let removed = versions[last..].iter().find(|(_, is_delete)| *is_delete);
            match removed.filter(|_| reflects.is_none()) {
                Some((version, _)) => here = *version,
                None => return self.stale(at, key, floor.source),
            }
        }
        for (key, read) in reads {
            let versions = self.known.versions_of(key);
            let maker = read.value.and_then(|value| self.known.maker(key, value));
            let made = match read.value {
                Some(_) => read.version.or(maker.and_then(|maker| maker.version)),
                None if self.known.has_open_delete(key) => None,
                None => {
                    let last = versions.partition_point(|(version, _)| *version <= here);
                    Some(last.checked_sub(1).map_or(0, |last| versions[last].0))
                }
            };
            let Some(version) = made else {
                continue;
            };
            let next = versions.partition_point(|(other, _)| *other <= version);
            if versions.get(next).is_some_and(|(next, _)| *next <= here) {
                return self.stale(at, key, floor.source);
            }
            let source = Source {
                operation: at,
                own_write: false,
            };
            let state = self.keys.entry(key).or_default();
            let before = state.stood.replace((version, here, source));
            if let Some((_, _, because)) =
                before.filter(|(last, until, _)| *last < version && version <= *until)
            {
                return self.stale(at, key, because);
            }
        }
        raise(&mut self.read, here, at, false);
        None
    }

    fn stale(&self, at: usize, key: &str, because: Source) -> Option<Verdict> {
        let rule = if because.own_write {
            "read-your-writes"
        } else {
            "monotonic-reads"
        };
        let what = format!(
            "read {key} as it was before a change that operation {} had come after",
            because.operation
        );
        self.wrong(rule, at, because, &what)
    }
}
