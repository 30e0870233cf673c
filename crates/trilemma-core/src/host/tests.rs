//! What the host's own check sees, with a protocol that sends when its record is durable.

use super::*;
use crate::table::Table;
use crate::tests::caught;
use crate::time::WallTime;

#[derive(Default)]
struct Sends {
    /// How often a turn has ended.
    ends: u32,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Nothing;

impl Message for Nothing {
    fn lane(&self) -> Lane {
        Lane::Control
    }

    fn kind(&self) -> &'static str {
        "nothing"
    }
}

impl Protocol for Sends {
    type Message = Nothing;
    type Record = u8;

    fn restore(&mut self, _: &[u8]) -> Result<(), Corrupt> {
        Ok(())
    }

    fn replay(&mut self, _: u8) -> Result<(), Corrupt> {
        Ok(())
    }

    fn step(&mut self, _: Now, input: Input<Nothing>, effects: &mut Effects<Nothing, u8>) {
        if matches!(input, Input::Wake) {
            effects.append(7);
            effects.send_after_append(NodeId(2), Nothing);
        }
        self.ends += u32::from(matches!(input, Input::EndTurn));
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(std::iter::empty(), |_| Ok(()))
    }

    fn status(&self, _: Now) -> LiveStatus {
        LiveStatus::default()
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        Box::new(Table::new(1).view(range))
    }
}

const NOW: Now = Now {
    instant: Instant::ZERO,
    wall: WallTime(0),
};

/// A host with one message that waits for one record.
fn host() -> Host<Sends> {
    let mut host = Host::new(Sends::default());
    let mut output = Output::default();
    host.run(NOW, Input::Wake, &mut output);
    assert_eq!((output.records.len(), output.sends.len()), (1, 0));
    host
}

#[test]
fn a_message_leaves_when_its_record_is_durable() {
    let mut output = Output::default();
    host().run(NOW, Input::Persisted { up_to: AppendSeq(1) }, &mut output);
    assert_eq!(output.sends.len(), 1);
}

#[test]
fn the_check_sees_a_message_that_would_never_leave() {
    let mut overdue = host();
    overdue.persisted = AppendSeq(1);
    assert!(caught(|| overdue.check()).contains("would never leave"));
    let mut unappended = host();
    unappended.held[0].0 = AppendSeq(2);
    assert!(caught(|| unappended.check()).contains("which was never appended"));
}

#[test]
fn the_check_sees_messages_out_of_order() {
    let mut host = host();
    host.run(NOW, Input::Wake, &mut Output::default());
    host.held.swap(0, 1);
    assert!(caught(|| host.check()).contains("in the order of their records"));
}

#[test]
fn the_check_sees_what_a_step_wanted_and_nobody_did() {
    let mut host = host();
    host.effects.append(8);
    assert!(caught(|| host.check()).contains("what a step wants is carried out"));
}

#[test]
fn what_was_never_appended_cannot_become_durable() {
    let mut host = host();
    let early = Input::Persisted { up_to: AppendSeq(2) };
    assert!(caught(|| host.run(NOW, early, &mut Output::default())).contains("before it was appended"));
}

#[test]
fn a_turn_ends_once_and_not_without_an_input() {
    let mut host = host();
    let mut output = Output::default();
    for ends in [1, 1] {
        host.run(NOW, Input::EndTurn, &mut output);
        assert_eq!(host.protocol().ends, ends);
    }
    let bytes = Bytes::from_static(&[1]);
    let from = NodeId(2);
    host.step(NOW, GroupInput::Receive { from, bytes }, &mut output);
    assert_eq!(output.rejected.take().map(|(from, _)| from), Some(NodeId(2)));
    host.run(NOW, Input::EndTurn, &mut output);
    assert_eq!(host.protocol().ends, 1, "what does not decode is no input");
}
