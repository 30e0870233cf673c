//! The state machine: inputs go to the role, deadlines and timers are kept here.

use trilemma_core::pending::PendingKind;
use trilemma_core::{
    Checkpoint, Corrupt, Effects, Input, Instant, KeyRange, LiveStatus, Now, Proposal, Protocol, Reason,
    Reply, UnknownCause, View,
};

use crate::config::TwoPhaseConfig;
use crate::core::{Core, Out};
use crate::member::Member;
use crate::message::Message;
use crate::pending::{Open, WaitFor, unknown};
use crate::record::Record;
use crate::recovery::Loading;
use crate::sequencer::Sequencer;

/// One node's instance of a unanimous keyspace. See the crate.
#[derive(Debug)]
pub struct TwoPhase {
    pub(crate) core: Core,
    pub(crate) role: Role,
    pub(crate) loading: Option<Loading>,
    pub(crate) is_started: bool,
}

/// What this node is in the view.
#[derive(Debug)]
pub(crate) enum Role {
    Sequencer(Box<Sequencer>),
    Member(Box<Member>),
}

impl TwoPhase {
    /// An instance that holds nothing yet.
    #[must_use]
    pub fn new(config: TwoPhaseConfig) -> Self {
        let role = if config.node == config.sequencer {
            Role::Sequencer(Box::new(Sequencer::new(&config)))
        } else {
            Role::Member(Box::new(Member::new(&config)))
        };
        Self {
            core: Core::new(config),
            role,
            loading: None,
            is_started: false,
        }
    }

    fn start(&mut self, now: Instant, effects: &mut Out) {
        self.is_started = true;
        // A checkpoint that ended early was refused piece by piece; what is left of it is nothing.
        self.loading = None;
        match &mut self.role {
            Role::Sequencer(sequencer) => sequencer.start(&mut self.core, effects),
            Role::Member(member) => member.start(&mut self.core, now, effects),
        }
    }

    fn propose(&mut self, now: Instant, proposal: Proposal, effects: &mut Out) {
        if proposal.deadline <= now {
            let kind = PendingKind::of(&proposal.request);
            effects.reply(proposal.ticket, kind.refused(Reason::Deadline));
            return;
        }
        match &mut self.role {
            Role::Sequencer(sequencer) => sequencer.propose(&mut self.core, now, proposal, effects),
            Role::Member(member) => member.propose(&mut self.core, proposal, effects),
        }
    }

    fn on_wake(&mut self, now: Instant, effects: &mut Out) {
        while let Some((ticket, open)) = self.core.pending.expired(now) {
            let may_take_effect = Core::may_take_effect(&open);
            let reply = match open {
                Open::Read { query, wait, .. } => {
                    let reason = match (&self.role, wait) {
                        (Role::Member(member), WaitFor::Batch(id)) => {
                            member.doubt(&self.core, &query, id, now)
                        }
                        _ => Reason::Deadline,
                    };
                    Reply::Read(Err(reason.into()))
                }
                Open::Order { kind, .. } => {
                    let cause = match &mut self.role {
                        Role::Member(member) => member.give_up(&self.core, ticket),
                        Role::Sequencer(_) => UnknownCause::Deadline,
                    };
                    if may_take_effect {
                        unknown(kind, cause)
                    } else {
                        kind.refused(Reason::Deadline)
                    }
                }
            };
            effects.reply(ticket, reply);
        }
        if now >= self.core.next_tick {
            self.core.next_tick = now + self.core.config.retry_interval;
            match &mut self.role {
                Role::Sequencer(sequencer) => sequencer.on_tick(&mut self.core, now, effects),
                Role::Member(member) => member.on_tick(&mut self.core, now, effects),
            }
        }
    }

    /// Sends what the turn has gathered: everything of one turn shares one batch, one vote, one message.
    fn end_turn(&mut self, now: Instant, effects: &mut Out) {
        let goes_on = match &mut self.role {
            Role::Sequencer(sequencer) => sequencer.end_turn(&mut self.core, now, effects),
            Role::Member(member) => member.end_turn(&mut self.core, now, effects),
        };
        if goes_on {
            effects.go_on();
        }
    }

    /// What holds after every step of a started instance.
    fn check(&self) {
        assert!(
            self.loading.is_none(),
            "a started instance has read its checkpoint"
        );
        self.core.check();
        let is_sequencer = self.core.config.node == self.core.config.sequencer;
        match &self.role {
            Role::Sequencer(sequencer) => {
                assert!(is_sequencer, "node {} orders", self.core.config.node);
                sequencer.check(&self.core);
            }
            Role::Member(member) => {
                assert!(!is_sequencer, "node {} does not order", self.core.config.node);
                member.check(&self.core);
            }
        }
    }

    fn is_waiting(&self) -> bool {
        match &self.role {
            Role::Sequencer(sequencer) => sequencer.is_waiting(&self.core),
            Role::Member(member) => member.is_waiting(&self.core),
        }
    }

    /// Sets the one timer. What comes before it is due does not move it: a busy node repeats what it must as well.
    fn arm(&mut self, now: Instant, effects: &mut Out) {
        if !self.is_waiting() {
            self.core.next_tick = Instant::NEVER;
        } else if self.core.next_tick == Instant::NEVER {
            self.core.next_tick = now + self.core.config.retry_interval;
        }
        effects.wake_at(self.core.pending.next_deadline().min(self.core.next_tick));
    }

    fn receive(&mut self, now: Instant, from: trilemma_core::NodeId, message: Message, effects: &mut Out) {
        match &mut self.role {
            Role::Sequencer(sequencer) => sequencer.receive(&mut self.core, now, from, message, effects),
            Role::Member(member) => member.receive(&mut self.core, now, from, message, effects),
        }
    }
}

impl Protocol for TwoPhase {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.load(chunk)
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        self.replay_record(record)
    }

    fn step(&mut self, now: Now, input: Input<Message>, effects: &mut Effects<Message, Record>) {
        let now = now.instant;
        match input {
            Input::Start => self.start(now, effects),
            Input::Propose(proposal) => self.propose(now, proposal, effects),
            Input::Receive { from, message } => self.receive(now, from, message, effects),
            Input::Persisted { up_to } => match &mut self.role {
                Role::Sequencer(sequencer) => sequencer.on_persisted(&mut self.core, up_to, effects),
                Role::Member(member) => member.on_persisted(up_to),
            },
            Input::Peers(view) => {
                self.core.set_view(view);
                match &mut self.role {
                    Role::Sequencer(sequencer) => sequencer.on_view(&mut self.core, effects),
                    Role::Member(member) => member.on_view(&mut self.core, now, effects),
                }
            }
            Input::Wake => self.on_wake(now, effects),
            Input::Stopping => {}
            Input::EndTurn => self.end_turn(now, effects),
        }
        self.arm(now, effects);
        if self.is_started {
            self.check();
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        self.make_checkpoint()
    }

    fn status(&self, now: Now) -> LiveStatus {
        self.live_status(now)
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        Box::new(self.core.ledger.table.view(range))
    }
}
