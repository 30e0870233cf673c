//! Paxos by plays: the files of `tests/plays/` are run, and their traces must be what is recorded.
//!
//! `cargo xtask plays --rewrite` renews them. The form is that of [`trilemma_testkit::plays`].

use std::fs;
use std::path::Path;
use std::time::Duration;

use trilemma_core::{Incarnation, NodeId};
use trilemma_paxos::message::{Answer, Ask};
use trilemma_paxos::register::Proposed;
use trilemma_paxos::{Ballot, Message, Paxos, PaxosConfig, Register};
use trilemma_testkit::plays::{Plays, Setup, Stage};

/// Paxos on the stage.
struct OfPaxos;

impl Stage for OfPaxos {
    type Protocol = Paxos;

    fn build(node: NodeId, incarnation: Incarnation, seed: u64, setup: &Setup) -> Paxos {
        let mut config = PaxosConfig::new(node, setup.members(), incarnation, seed);
        // What was chosen rides on nothing here, and leaves at once.
        config.chosen_delay = Duration::ZERO;
        Paxos::new(config)
    }

    fn show(message: &Message) -> Vec<String> {
        match message {
            Message::Asks(asks) => asks.iter().map(ask).collect(),
            Message::Answers(answers) => answers.iter().map(answer).collect(),
            Message::Digest { .. } => vec!["digest of all that it has learned".into()],
            Message::Listing { bucket, entries, .. } => {
                let entries = entries
                    .iter()
                    .map(|entry| format!("{} {}", entry.key, ballot(entry.ballot)));
                let entries = entries.collect::<Vec<_>>().join(", ");
                vec![format!("listing of bucket {bucket}: [{entries}]")]
            }
            Message::NextPage { bucket, after } => {
                vec![format!("next-page of bucket {bucket} after {after}")]
            }
            Message::Fetch { keys } => {
                let keys = keys
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                vec![format!("fetch {keys}")]
            }
            Message::Values { items } => {
                let show = |item: &trilemma_paxos::message::ChosenValue| {
                    format!(
                        "{} {}: {}",
                        item.key,
                        ballot(item.ballot),
                        register(&item.register)
                    )
                };
                vec![format!(
                    "values {}",
                    items.iter().map(show).collect::<Vec<_>>().join(", ")
                )]
            }
        }
    }
}

#[test]
fn paxos_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plays");
    let mut plays = Plays::<OfPaxos>::new(std::env::var("TRILEMMA_PLAYS").ok().as_deref());
    for file in fs::read_dir(folder).expect("there are plays") {
        let path = file.expect("the folder can be read").path();
        let recorded = fs::read_to_string(&path).expect("a play is text");
        if let Some(renewed) = plays.perform(&path.display().to_string(), &recorded) {
            fs::write(&path, renewed).expect("a play can be written");
        }
    }
    plays.end();
}

/// A ballot: counter and proposer; its incarnation unless it is the first.
fn ballot(ballot: Ballot) -> String {
    match ballot.incarnation.0 {
        _ if ballot == Ballot::ZERO => "none".into(),
        1 => format!("b{}.{}", ballot.counter, ballot.node),
        _ => ballot.to_string(),
    }
}

fn register(register: &Register) -> String {
    match &register.state {
        Some(state) => format!("{} ({})", state.value, register.version),
        None if register.version.0 == 0 => "never written".into(),
        None => format!("deleted ({})", register.version),
    }
}

fn proposed(proposed: &Proposed) -> String {
    match proposed {
        Proposed::Whole(whole) => register(whole),
        Proposed::Change(change) => {
            let after = Register {
                version: change.version,
                state: change.state.clone(),
                ..Register::default()
            };
            format!("{} after {}", register(&after), ballot(change.base))
        }
    }
}

fn ask(ask: &Ask) -> String {
    match ask {
        Ask::Prepare { key, ballot: under } => format!("prepare {key} {}", ballot(*under)),
        Ask::Accept {
            key,
            ballot: under,
            register: held,
            next,
        } => {
            let (under, held, next) = (ballot(*under), proposed(held), ballot(*next));
            format!("accept {key} {under}: {held}; next {next}")
        }
        Ask::Read { key, .. } => format!("read {key}"),
        Ask::Chosen { key, ballot: under } => format!("chosen {key} {}", ballot(*under)),
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Promise {
            key,
            ballot: promised,
            accepted,
            register: held,
        } => {
            let (promised, accepted) = (ballot(*promised), ballot(*accepted));
            format!(
                "promise {key} {promised}, accepted {accepted}: {}",
                register(held)
            )
        }
        Answer::Accepted {
            key,
            ballot: under,
            promised,
        } => format!(
            "accepted {key} {}, promised {}",
            ballot(*under),
            ballot(*promised)
        ),
        Answer::Lacks { key, ballot: under } => format!("lacks {key}, of {}", ballot(*under)),
        Answer::Refused {
            key,
            ballot: under,
            seen,
        } => format!("refused {key} {}, seen {}", ballot(*under), ballot(*seen)),
        Answer::Held {
            key,
            accepted,
            register: held,
            ..
        } => format!("held {key} {}: {}", ballot(*accepted), register(held)),
    }
}
