//! The host of one protocol instance: bytes outside, types inside.
//!
//! A [`Host`] runs one [`Protocol`], encodes what it sends and appends, and holds back what must wait for the disk.
//! Both the driver of `trilemma-runtime` and the simulator run protocols through it, so they exercise the same codec
//! and the same rule of *durable before promised*. [`DynProtocol`] is the same thing without type parameters, so that one
//! driver serves keyspaces of different backends.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::codec;
use crate::data::ChangeBatch;
use crate::id::{AppendSeq, NodeId, Ticket};
use crate::protocol::{
    Corrupt, Discarded, Effects, Force, Input, Lane, Message, PeerView, Proposal, Protocol, RECORD_BYTES_MAX,
    Receivers, Reply,
};
use crate::read::{Entry, KeyRange};
use crate::status::LiveStatus;
use crate::time::{Instant, Now};
use crate::view::View;

/// What a group reacts to: an [`Input`] whose message is still bytes.
#[derive(Clone, Debug)]
pub enum GroupInput {
    /// See [`Input::Start`].
    Start,
    /// See [`Input::Propose`].
    Propose(Proposal),
    /// See [`Input::Receive`].
    Receive {
        /// The sender.
        from: NodeId,
        /// The encoded message.
        bytes: Bytes,
    },
    /// See [`Input::Persisted`].
    Persisted {
        /// The last durable record.
        up_to: AppendSeq,
    },
    /// See [`Input::Peers`].
    Peers(PeerView),
    /// See [`Input::Stopping`].
    Stopping,
    /// See [`Input::Wake`].
    Wake,
    /// See [`Input::EndTurn`]. Reaches the protocol only if it took an input since the last one, or goes on.
    EndTurn,
}

/// One message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver.
    pub to: NodeId,
    /// The lane.
    pub lane: Lane,
    /// The kind's name.
    pub kind: &'static str,
    /// The encoded message.
    pub bytes: Bytes,
}

/// One record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub seq: AppendSeq,
    /// Whether something waits for it.
    pub force: Force,
    /// The encoded record.
    pub bytes: Bytes,
}

/// What groups want done. The host's owner carries it out at the end of a turn, in this order: records, messages,
/// changes, replies.
#[derive(Debug, Default)]
pub struct Output {
    /// Records to append, in order.
    pub records: Vec<Appended>,
    /// Messages to send now.
    pub sends: Vec<Outgoing>,
    /// Changes for watchers, in order.
    pub applied: Vec<ChangeBatch>,
    /// The position to which the state has jumped, if it has. Comes before `applied`.
    pub reset: Option<u64>,
    /// Answers to proposals.
    pub replies: Vec<(Ticket, Reply)>,
    /// A peer's message that did not decode, if one did not.
    pub rejected: Option<(NodeId, codec::DecodeError)>,
    /// What is to be freed where nothing waits.
    pub discarded: Vec<Discarded>,
}

impl Output {
    /// Empties every list and keeps its memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.sends.clear();
        self.applied.clear();
        self.reset = None;
        self.replies.clear();
        self.rejected = None;
        self.discarded.clear();
    }
}

/// A protocol instance without type parameters. The rules are those of [`crate::protocol`].
pub trait DynProtocol: Send {
    /// See [`Protocol::restore`].
    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt>;
    /// See [`Protocol::replay`]; the record is still bytes.
    fn replay(&mut self, record: &[u8]) -> Result<(), Corrupt>;
    /// Takes one input; adds to `output`.
    fn step(&mut self, now: Now, input: GroupInput, output: &mut Output);
    /// When the group wants to be woken; [`Instant::NEVER`] if not at all.
    fn wake_at(&self) -> Instant;
    /// Whether its last turn left work for the next, which is to come at once. See [`Effects::go_on`].
    fn goes_on(&self) -> bool;
    /// See [`Protocol::is_handing_over`].
    fn is_handing_over(&self) -> bool;
    /// See [`Protocol::checkpoint`].
    fn checkpoint(&self) -> Checkpoint;
    /// See [`Protocol::status`].
    fn status(&self, now: Now) -> LiveStatus;
    /// See [`Protocol::view`].
    fn view(&self, range: &KeyRange) -> Box<dyn View>;
    /// See [`Protocol::scan`].
    fn scan(&self, range: &KeyRange, limit: usize) -> Vec<Entry>;
}

/// Runs one protocol instance. See the module.
#[derive(Debug)]
pub struct Host<P: Protocol> {
    protocol: P,
    effects: Effects<P::Message, P::Record>,
    persisted: AppendSeq,
    held: VecDeque<(AppendSeq, Outgoing)>,
    wake_at: Instant,
    /// Whether the protocol took an input since its last turn ended.
    is_in_turn: bool,
    /// Whether the last turn left work for the next.
    goes_on: bool,
    /// Where messages and records are encoded.
    scratch: Vec<u8>,
}

impl<P: Protocol> Host<P> {
    /// A host of this instance.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            effects: Effects::default(),
            persisted: AppendSeq(0),
            held: VecDeque::new(),
            wake_at: Instant::NEVER,
            is_in_turn: false,
            goes_on: false,
            scratch: Vec::new(),
        }
    }

    /// The instance, for invariants and tests.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Steps the protocol, then moves its effects into `output`.
    pub fn run(&mut self, now: Now, input: Input<P::Message>, output: &mut Output) {
        let ends_turn = matches!(input, Input::EndTurn);
        if ends_turn && !self.is_in_turn && !self.goes_on {
            return;
        }
        self.is_in_turn = !ends_turn;
        if matches!(input, Input::Wake) {
            self.wake_at = Instant::NEVER;
        }
        if let Input::Persisted { up_to } = input {
            assert!(
                up_to <= self.effects.last_append(),
                "persisted {up_to} before it was appended"
            );
            self.persisted = self.persisted.max(up_to);
        }
        self.protocol.step(now, input, &mut self.effects);
        let goes_on = std::mem::take(&mut self.effects.goes_on);
        if ends_turn {
            self.goes_on = goes_on;
        } else {
            assert!(!goes_on, "only the end of a turn leaves work for the next");
        }
        self.collect(output);
        self.check();
    }

    /// The host's invariants: what is durable has left, in the order of the records that it waits for.
    fn check(&self) {
        let effects = &self.effects;
        assert!(
            self.persisted <= effects.last_append(),
            "only what was appended is durable"
        );
        assert!(
            effects.sends_after.is_empty() && effects.records.is_empty(),
            "what a step wants is carried out"
        );
        if let Some((first, _)) = self.held.front() {
            assert!(
                *first > self.persisted,
                "what waits for {first} would never leave"
            );
        }
        if let Some((last, _)) = self.held.back() {
            assert!(
                *last <= effects.last_append(),
                "nothing waits for {last}, which was never appended"
            );
        }
        assert!(
            self.held.iter().rev().take(2).is_sorted_by(|a, b| a.0 >= b.0),
            "messages and answers wait in the order of their records"
        );
    }

    fn collect(&mut self, output: &mut Output) {
        let effects = &mut self.effects;
        let last = effects.last_append();
        let mut seq = AppendSeq(last.0 - effects.records.len() as u64);
        for (record, force) in effects.records.drain(..) {
            seq = seq.next();
            let bytes = codec::encode_exact(&record, &mut self.scratch);
            assert!(
                bytes.len() <= RECORD_BYTES_MAX,
                "the log takes a record of {} bytes",
                bytes.len()
            );
            output.records.push(Appended { seq, force, bytes });
        }
        assert_eq!(seq, last, "records are numbered without a gap");
        for (to, message) in effects.sends.drain(..) {
            output.sends.extend(outgoing(to, &message, &mut self.scratch));
        }
        if let Some(position) = effects.reset.take() {
            output.applied.clear();
            output.reset = Some(position);
        }
        output.applied.append(&mut effects.applied);
        output.replies.append(&mut effects.replies);
        output.discarded.append(&mut effects.discarded);
        for (to, message) in effects.sends_after.drain(..) {
            let messages = outgoing(to, &message, &mut self.scratch).map(|message| (last, message));
            self.held.extend(messages);
        }
        while let Some((waits_for, _)) = self.held.front()
            && *waits_for <= self.persisted
        {
            output
                .sends
                .extend(self.held.pop_front().map(|(_, message)| message));
        }
        if let Some(at) = effects.wake.take() {
            self.wake_at = at;
        }
    }
}

/// A message as bytes, for each of its receivers.
fn outgoing<M: Message>(
    to: Receivers,
    message: &M,
    scratch: &mut Vec<u8>,
) -> impl Iterator<Item = Outgoing> + use<M> {
    let (lane, kind) = (message.lane(), message.kind());
    let bytes = codec::encode_exact(message, scratch);
    (0..to.nodes().len()).map(move |at| Outgoing {
        to: to.nodes()[at],
        lane,
        kind,
        bytes: bytes.clone(),
    })
}

impl<P: Protocol> DynProtocol for Host<P> {
    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.protocol.restore(chunk)
    }

    fn replay(&mut self, record: &[u8]) -> Result<(), Corrupt> {
        self.protocol.replay(codec::decode(record)?)
    }

    fn step(&mut self, now: Now, input: GroupInput, output: &mut Output) {
        let input = match input {
            GroupInput::Start => Input::Start,
            GroupInput::Propose(proposal) => Input::Propose(proposal),
            GroupInput::Receive { from, bytes } => match codec::decode(&bytes) {
                Ok(message) => Input::Receive { from, message },
                Err(error) => {
                    output.rejected = Some((from, error));
                    return;
                }
            },
            GroupInput::Persisted { up_to } => Input::Persisted { up_to },
            GroupInput::Peers(view) => Input::Peers(view),
            GroupInput::Stopping => Input::Stopping,
            GroupInput::Wake => Input::Wake,
            GroupInput::EndTurn => Input::EndTurn,
        };
        self.run(now, input, output);
    }

    fn wake_at(&self) -> Instant {
        self.wake_at
    }

    fn goes_on(&self) -> bool {
        self.goes_on
    }

    fn is_handing_over(&self) -> bool {
        self.protocol.is_handing_over()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.protocol.checkpoint()
    }

    fn status(&self, now: Now) -> LiveStatus {
        self.protocol.status(now)
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        self.protocol.view(range)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Vec<Entry> {
        self.protocol.scan(range, limit)
    }
}

#[cfg(test)]
mod tests;
