//! A member that is sent a state, and frees nothing large in a turn.

use trilemma_core::host::{Host, Output};
use trilemma_core::protocol::Input;
use trilemma_core::table::Table;
use trilemma_core::{AppendSeq, Incarnation, NodeId, Now, Version, codec};

use crate::ids::BatchId;
use crate::message::Message;
use crate::{TwoPhase, TwoPhaseConfig};

/// A member without a state, whose sequencer is played by the test.
struct Member {
    host: Host<TwoPhase>,
    records: u64,
    discarded: usize,
    nonce: u64,
    /// The piece that it has asked for last.
    asked: Option<u32>,
}

impl Member {
    fn blank() -> Self {
        let config = TwoPhaseConfig::new(NodeId(2), [1, 2].map(NodeId), Incarnation(1), 1);
        let mut member = Self {
            host: Host::new(TwoPhase::new(config)),
            records: 0,
            discarded: 0,
            nonce: 0,
            asked: None,
        };
        member.turn(Input::Start);
        member.persist();
        assert_ne!(member.nonce, 0, "it has said where it stands");
        member
    }

    fn turn(&mut self, input: Input<Message>) {
        for input in [input, Input::EndTurn] {
            let mut output = Output::default();
            self.host.run(Now::default(), input, &mut output);
            self.records += output.records.len() as u64;
            self.discarded += output.discarded.len();
            for sent in output.sends {
                match codec::decode(&sent.bytes).expect("our own messages decode") {
                    Message::Hello(hello) => self.nonce = hello.nonce,
                    Message::Fetch { index, .. } => self.asked = Some(index),
                    _ => {}
                }
            }
        }
    }

    fn persist(&mut self) {
        let up_to = AppendSeq(self.records);
        self.turn(Input::Persisted { up_to });
    }

    fn receive(&mut self, message: Message) {
        let from = NodeId(1);
        self.turn(Input::Receive { from, message });
    }

    /// It is offered a state of this version.
    fn offer(&mut self, table: &Table) {
        let nonce = self.nonce;
        self.receive(Message::Install {
            nonce,
            decided: BatchId::ORIGIN,
            position: table.version(),
            unknown_through: BatchId::ORIGIN,
        });
        assert_eq!(self.asked, Some(0));
    }

    fn piece(&mut self, index: usize, chunk: Vec<u8>, is_last: bool) {
        let nonce = self.nonce;
        self.receive(Message::Piece {
            nonce,
            index: index as u32,
            bytes: chunk.into(),
            ends_chunk: true,
            is_last,
        });
    }
}

fn table(version: u64) -> Table {
    let mut table = Table::new(8);
    table.advance(Version(version));
    table
}

#[test]
fn the_state_that_a_transfer_replaces_is_not_freed_in_a_turn() {
    let (mut member, table) = (Member::blank(), table(7));
    member.offer(&table);
    let chunks: Vec<Vec<u8>> = table.chunks(1).collect();
    let last = chunks.len() - 1;
    for (index, chunk) in chunks.into_iter().enumerate() {
        assert_eq!(member.discarded, 0);
        member.piece(index, chunk, index == last);
    }
    assert_eq!(member.host.protocol().core.ledger.version(), Version(7));
    assert_eq!(member.discarded, 2, "the pieces, and the state before");
}

#[test]
fn what_has_come_of_a_transfer_that_ends_is_not_freed_in_a_turn() {
    let mut member = Member::blank();
    member.offer(&table(7));
    let first = table(7).chunks(1).next().expect("a head");
    member.piece(0, first, false);
    assert_eq!(member.asked, Some(1));
    member.offer(&table(8));
    assert_eq!(member.discarded, 1, "half a state");
    member.piece(0, vec![0xff; 9], false);
    assert_eq!(member.discarded, 2, "one that does not decode");
}
