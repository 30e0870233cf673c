//! What one turn has for each peer, so that rounds of many keys share messages.

use trilemma_core::{Effects, Key, NodeId};

use super::message::{Answer, Ask, ITEMS_MAX, MESSAGE_BYTES, Message, PAGE_MAX};
use super::record::Record;

/// Items for one peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) to: NodeId,
    /// What this peer alone is asked.
    pub(crate) asks: Vec<Ask>,
    /// Answers that promise something: they leave when this turn's records are durable.
    pub(crate) promises: Vec<Answer>,
    /// Answers that promise nothing new.
    pub(crate) answers: Vec<Answer>,
    /// Chosen registers that the peer has and this node lacks.
    pub(crate) fetch: Vec<Key>,
}

impl Outbox {
    pub(crate) fn new(to: NodeId) -> Self {
        Self {
            to,
            asks: Vec::new(),
            promises: Vec::new(),
            answers: Vec::new(),
            fetch: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.promises.is_empty() && self.answers.is_empty() && self.fetch.is_empty()
    }

    /// Sends everything. The records of the turn must have been appended before.
    pub(crate) fn flush(&mut self, effects: &mut Effects<Message, Record>) {
        let to = self.to;
        packed(&mut self.asks, Ask::size, |asks| {
            effects.send(to, Message::Asks(asks))
        });
        packed(&mut self.answers, Answer::size, |answers| {
            effects.send(to, Message::Answers(answers));
        });
        packed(&mut self.promises, Answer::size, |answers| {
            effects.send_after_append(to, Message::Answers(answers));
        });
        while !self.fetch.is_empty() {
            let rest = self.fetch.split_off(self.fetch.len().min(PAGE_MAX));
            let keys = std::mem::replace(&mut self.fetch, rest);
            assert!(keys.len() <= PAGE_MAX, "a fetch decodes at the receiver");
            effects.send(to, Message::Fetch { keys });
        }
        assert!(self.is_empty(), "a flushed outbox keeps nothing");
    }
}

/// Hands `items` over in portions that keep the limits of a message.
pub(crate) fn packed<T>(items: &mut Vec<T>, size: impl Fn(&T) -> usize, mut hand_over: impl FnMut(Vec<T>)) {
    if items.len() <= ITEMS_MAX && items.iter().map(&size).sum::<usize>() <= MESSAGE_BYTES {
        if !items.is_empty() {
            hand_over(std::mem::take(items));
        }
        return;
    }
    let mut portion = Vec::new();
    let mut bytes = 0;
    for item in items.drain(..) {
        bytes += size(&item);
        portion.push(item);
        assert!(portion.len() <= ITEMS_MAX, "a portion decodes at the receiver");
        if portion.len() == ITEMS_MAX || bytes >= MESSAGE_BYTES {
            hand_over(std::mem::take(&mut portion));
            bytes = 0;
        }
    }
    if !portion.is_empty() {
        hand_over(portion);
    }
}
