//! What clients and watchers of a keyspace saw, in the order in which it happened: for the checkers of sessions and
//! watches, which judge it as a whole.

use std::collections::BTreeMap;

use trilemma_check::events::{Event, Promise};
use trilemma_check::history::{Answer, Call, Entry, Operation, Outcome};
use trilemma_check::sessions::{Guarantees, Order};
use trilemma_check::watch::{Item, Keys, Position, State};
use trilemma_core::{Change, KeyRange, WatchItem, WatchSpec, WatchStart, WatchToken};
use trilemma_node::WatchId;

use crate::client::LocalRead;
use crate::scenario::Protocol;

/// Watchers are processes of their own, numbered above all clients.
const WATCHERS: u64 = 1 << 32;

/// See the module.
#[derive(Debug)]
pub struct Seen {
    parts: &'static [Protocol],
    events: BTreeMap<usize, Vec<Event>>,
    /// The entries of resets of which the last part has not come.
    partial: BTreeMap<WatchId, Vec<State>>,
    /// Watches that begin now, of which the mark that says when that was has not come: by whom, and of what.
    beginning: BTreeMap<WatchId, (usize, Keys)>,
}

fn position(token: WatchToken) -> Position {
    Position {
        stream: token.stream,
        at: token.position,
    }
}

fn keys(range: &KeyRange) -> Keys {
    Keys {
        start: range.start.to_string(),
        end: range.end.as_ref().map(ToString::to_string),
    }
}

fn changed(change: &Change) -> State {
    State {
        key: change.key.to_string(),
        value: change.now.as_ref().map(|now| now.value.to_string()),
        version: change.now.as_ref().map(|now| now.modified.0),
    }
}

fn entry(entry: &trilemma_core::Entry) -> State {
    State {
        key: entry.key.to_string(),
        value: Some(entry.state.value.to_string()),
        version: Some(entry.state.modified.0),
    }
}

/// What a backend promises to sessions and watchers.
fn promise(part: Protocol) -> Promise {
    let one_order = matches!(part, Protocol::Raft | Protocol::TwoPhase | Protocol::Mixed);
    Promise {
        order: if one_order { Order::Keyspace } else { Order::PerKey },
        // A client that goes from one node of a convergent keyspace to another may be shown less than before.
        guarantees: (part != Protocol::Gossip).then_some(Guarantees::ALL),
        locals_in_session: false,
        positions_are_versions: one_order,
    }
}

impl Seen {
    /// Nothing of these keyspaces yet.
    #[must_use]
    pub fn new(parts: &'static [Protocol]) -> Self {
        Self {
            parts,
            events: BTreeMap::new(),
            partial: BTreeMap::new(),
            beginning: BTreeMap::new(),
        }
    }

    /// All that was seen of a keyspace, and what it is held against.
    #[must_use]
    pub fn events(&self, slot: usize) -> Option<(&[Event], Promise)> {
        let events = self.events.get(&slot)?;
        Some((events, promise(self.parts[slot])))
    }

    fn push(&mut self, slot: usize, event: Event) {
        self.events.entry(slot).or_default().push(event);
    }

    /// An operation is over.
    pub fn operation(&mut self, slot: usize, operation: &Operation) {
        self.push(slot, Event::Operation(operation.clone()));
    }

    /// A read at the weakest level was answered.
    pub fn local(&mut self, slot: usize, read: &LocalRead) {
        // A node of a convergent keyspace may show a write that is lost with it: those reads are judged apart.
        if self.parts[slot] != Protocol::Gossip {
            self.push(slot, Event::Local(read.operation(true)));
        }
    }

    /// A watch was opened, or continued.
    pub fn watch_opened(&mut self, slot: usize, watch: WatchId, watcher: usize, spec: &WatchSpec) {
        let keys = keys(&spec.range);
        match spec.start {
            WatchStart::State | WatchStart::StateFrom(_) => self.begins(slot, watch, (watcher, keys), None),
            WatchStart::After(token) => self.begins(slot, watch, (watcher, keys), Some(token)),
            WatchStart::Now => {
                self.beginning.insert(watch, (watcher, keys));
            }
        }
    }

    fn begins(
        &mut self,
        slot: usize,
        watch: WatchId,
        (watcher, keys): (usize, Keys),
        resume: Option<WatchToken>,
    ) {
        let event = Event::Watch {
            watch: watch.0,
            process: WATCHERS + watcher as u64,
            keys,
            resume: resume.map(position),
        };
        self.push(slot, event);
    }

    /// A watcher has read an item.
    pub fn watch_item(&mut self, slot: usize, watch: WatchId, item: &WatchItem) {
        if let Some(begun) = self.beginning.remove(&watch) {
            self.begins(slot, watch, begun, Some(item.token()));
        }
        let item = match item {
            WatchItem::Progress { token } => Item::Progress {
                position: position(*token),
            },
            WatchItem::Changes { token, changes } => Item::Changes {
                position: position(*token),
                changes: changes.iter().map(changed).collect(),
                more: false,
            },
            WatchItem::Reset {
                token,
                entries,
                first,
                last,
            } => {
                let mut all = self.partial.remove(&watch).unwrap_or_default();
                if *first {
                    all.clear();
                }
                all.extend(entries.iter().map(entry));
                if !*last {
                    self.partial.insert(watch, all);
                    return;
                }
                Item::Reset {
                    position: position(*token),
                    entries: all,
                    last: true,
                }
            }
        };
        let watch = watch.0;
        self.push(slot, Event::Item { watch, item });
    }
}

impl LocalRead {
    /// The read as an operation of a history: whatever it shows must have been written.
    #[must_use]
    pub fn operation(&self, versions: bool) -> Operation {
        let entries = self.entries.iter().map(|(key, value, version)| Entry {
            key: key.clone(),
            value: value.clone(),
            version: versions.then_some(*version),
        });
        Operation {
            process: self.client,
            invoke: self.invoke,
            returned: Some(self.returned),
            call: Call::Range {
                start: String::new(),
                end: None,
                limit: None,
            },
            outcome: Outcome::Ok(Answer::Entries {
                entries: entries.collect(),
                more: true,
                at: None,
            }),
        }
    }
}
