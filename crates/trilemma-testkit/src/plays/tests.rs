//! The plays' own tests, with a protocol that does next to nothing: it passes every write on to the next node.

use serde::{Deserialize, Serialize};
use trilemma_core::status::LiveStatus;
use trilemma_core::table::Table;
use trilemma_core::{
    Checkpoint, Corrupt, Effects, Input, KeyRange, Lane, NodeId, Now, Protocol, Reason, Request, View,
};

use super::*;

struct Echo(NodeId);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Word(String);

impl trilemma_core::Message for Word {
    fn lane(&self) -> Lane {
        Lane::Control
    }

    fn kind(&self) -> &'static str {
        "word"
    }
}

impl Protocol for Echo {
    type Message = Word;
    type Record = ();

    fn restore(&mut self, _: &[u8]) -> Result<(), Corrupt> {
        Ok(())
    }

    fn replay(&mut self, (): ()) -> Result<(), Corrupt> {
        Ok(())
    }

    fn step(&mut self, _: Now, input: Input<Word>, effects: &mut Effects<Word, ()>) {
        let Input::Propose(proposal) = input else { return };
        if let Request::Write { command, .. } = &proposal.request {
            for peer in [1, 2, 3].map(NodeId) {
                if peer != self.0 {
                    effects.send(peer, Word(show_command(command)));
                }
            }
        }
        let error = Reason::NoLeader.into();
        effects.reply(proposal.ticket, trilemma_core::Reply::Write(Err(error)));
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

struct OfEcho;

impl Stage for OfEcho {
    type Protocol = Echo;

    fn build(node: NodeId, _: Incarnation, _: u64, _: &Setup) -> Echo {
        Echo(node)
    }

    fn show(message: &Word) -> Vec<String> {
        vec![message.0.clone()]
    }
}

const PLAY: &str = "\
# Everybody gets it, but node 3 is cut off.

nodes 3
cut 1 2 | 3
----
ok

put 1 x=a y=b
deliver
----
   0 ms  1 answers op1: not applied: unavailable: no leader is known yet, an election is under way
   1 ms  1 -> 2  x=a, y=b
   1 ms  1 -x 3  x=a, y=b
";

fn once(variable: Option<&str>, text: &str) -> (Option<String>, String) {
    let mut plays = Plays::<OfEcho>::new(variable);
    let renewed = plays.perform("a play", text);
    (renewed, plays.report)
}

#[test]
fn a_play_that_is_recorded_passes_and_is_not_written_again() {
    assert_eq!(once(None, PLAY), (None, String::new()));
    assert_eq!(once(Some("rewrite"), PLAY), (None, String::new()));
}

#[test]
fn another_trace_is_shown_line_by_line_and_can_be_renewed() {
    let old = PLAY.replace("1 -x 3", "1 -> 3");
    let (renewed, report) = once(None, &old);
    assert_eq!(renewed, None);
    assert!(
        report.contains("  -    1 ms  1 -> 3  x=a, y=b\n  +    1 ms  1 -x 3  x=a, y=b\n"),
        "{report}"
    );
    assert!(report.starts_with("a play\n  from line 13:\n"), "{report}");
    assert_eq!(once(Some("rewrite"), &old), (Some(PLAY.into()), String::new()));
    let bare: String = PLAY
        .lines()
        .filter(|line| !line.contains(" ms "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(once(Some("rewrite"), &bare).0.as_deref(), Some(PLAY));
}

#[test]
fn what_is_wrong_with_a_command_comes_with_its_line() {
    for (command, said) in [
        ("dance", "line 4: \"dance\": at which node?"),
        ("dance 1", "no such command; there are\nnodes N"),
        ("crash 4", "there is no node 4"),
        ("cut 1 | 2", "a cut names every node once"),
        ("run 5", "\"5\" is no time"),
        ("drop 1 2 word", "messages are named by A -> B KIND"),
    ] {
        let (renewed, report) = once(Some("rewrite"), &format!("nodes 3\n----\n\n{command}\n----\n"));
        assert_eq!(renewed, None);
        assert!(report.contains(said), "{report}");
    }
    let (_, report) = once(None, "put 1 x=a\n----\n");
    assert!(report.contains("a play begins with \"nodes\""), "{report}");
    let (_, report) = once(None, "nodes 3\n");
    assert!(
        report.contains("line 1: \"nodes 3\" has no line \"----\" after it"),
        "{report}"
    );
}
